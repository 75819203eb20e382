//! Sums of money, exact, by currency.

use weir_proto::{google::r#type::Money as MoneyProto, rollup::v1 as proto};

pub use crate::currency::Currency;
use crate::{Error, Estimate};

/// Codes outside ISO 4217 that one sum tells apart. Those of ISO 4217, about 190, always are.
pub const MAX_MADE_UP: usize = 200;

const NANOS_PER_UNIT: i128 = 1_000_000_000;

const UNITS_PER_HIGH: i128 = 1 << 63;

/// What came together in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// The currency.
    pub currency: Currency,
    /// The sum in billionths of a unit. It takes 10^10 events of the greatest possible amount to leave the range; from then on
    /// it stays at its end.
    pub nanos: i128,
    /// Events with revenue in this currency.
    pub count: u64,
}

impl Amount {
    /// The sum as a number of units, rounded.
    pub fn to_f64(&self) -> f64 {
        // Apart, so that a sum of whole units is not rounded on its way.
        (self.nanos / NANOS_PER_UNIT) as f64 + (self.nanos % NANOS_PER_UNIT) as f64 / NANOS_PER_UNIT as f64
    }

    /// The sum as `google.type.Money`: where it does not fit into 64 bits of units, the greatest or least amount that does.
    pub fn to_money(&self) -> MoneyProto {
        let greatest = i128::from(i64::MAX) * NANOS_PER_UNIT + (NANOS_PER_UNIT - 1);
        let nanos = self.nanos.clamp(-greatest, greatest);
        MoneyProto {
            currency_code: self.currency.to_string(),
            units: (nanos / NANOS_PER_UNIT) as i64,
            nanos: (nanos % NANOS_PER_UNIT) as i32,
        }
    }

    /// The sum as a number of units. Not exact where [`Amount::to_money`] is not.
    pub fn estimate(&self) -> Estimate {
        let value = self.to_f64();
        if self.nanos == i128::MAX {
            return Estimate { value, exact: false, lower: value.next_down(), upper: f64::INFINITY };
        }
        if self.nanos == i128::MIN {
            return Estimate { value, exact: false, lower: f64::NEG_INFINITY, upper: value.next_up() };
        }
        if self.fits() {
            return Estimate::exact(value);
        }
        Estimate { value, exact: false, lower: value.next_down(), upper: value.next_up() }
    }

    /// Whether the sum fits into 64 bits of units.
    pub fn fits(&self) -> bool {
        i64::try_from(self.nanos / NANOS_PER_UNIT).is_ok()
    }
}

/// Revenue by currency.
///
/// Holds every currency of ISO 4217 and, of the codes that are made up, the [`MAX_MADE_UP`] alphabetically first; events in the
/// others are only counted, under [`Currency::NONE`]. (Which ones stay does not depend on the order of merging, since one that was
/// dropped stays behind all that are kept.)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revenue(Vec<Amount>);

impl Revenue {
    /// Adds the revenue of one event: whole units, and billionths of a unit with the same sign.
    #[inline]
    pub fn add(&mut self, currency: Currency, units: i64, nanos: i32) {
        let nanos = i128::from(units) * NANOS_PER_UNIT + i128::from(nanos);
        self.add_amount(Amount { currency, nanos, count: 1 });
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Revenue) {
        other.0.iter().for_each(|amount| self.add_amount(*amount));
    }

    /// The sums, by currency in alphabetical order.
    pub fn amounts(&self) -> &[Amount] {
        &self.0
    }

    /// Whether no event had revenue.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether amounts may be missing because there were more currencies than are told apart. Sums of an older format kept 200
    /// in all, so any of them may lack amounts then.
    pub fn overflowed(&self) -> bool {
        self.0.len() > MAX_MADE_UP && self.0.iter().any(|amount| amount.currency == Currency::NONE)
    }

    fn add_amount(&mut self, amount: Amount) {
        // Amounts of no known currency can't be summed.
        let amount = if amount.currency == Currency::NONE { Amount { nanos: 0, ..amount } } else { amount };
        // Nearly every sum has one or two currencies: a walk beats a search.
        match self.0.iter().position(|known| known.currency >= amount.currency) {
            Some(place) if self.0[place].currency == amount.currency => {
                let known = &mut self.0[place];
                known.nanos = saturating_sum(known.nanos, amount.nanos);
                known.count += amount.count;
            }
            place => {
                // One more, not four: most cells that are kept have one currency.
                self.0.reserve_exact(1);
                self.0.insert(place.unwrap_or(self.0.len()), amount);
                self.bound();
            }
        }
    }

    #[cold]
    fn bound(&mut self) {
        let is_made_up = |amount: &Amount| amount.currency != Currency::NONE && !amount.currency.is_listed();
        if self.0.len() > MAX_MADE_UP
            && self.0.iter().filter(|amount| is_made_up(amount)).count() > MAX_MADE_UP
        {
            let last = self.0.iter().rposition(is_made_up);
            let dropped = self.0.remove(last.expect("there are more than MAX_MADE_UP"));
            self.add_amount(Amount { currency: Currency::NONE, nanos: 0, count: dropped.count });
        }
    }

    /// The wire form.
    pub fn to_proto(&self) -> Vec<proto::MoneySum> {
        let entry = |amount: &Amount| {
            let units = amount.nanos / NANOS_PER_UNIT;
            proto::MoneySum {
                currency: amount.currency.to_string(),
                units: (units % UNITS_PER_HIGH) as i64,
                nanos: (amount.nanos % NANOS_PER_UNIT) as i32,
                count: amount.count,
                units_high: (units / UNITS_PER_HIGH) as i64,
            }
        };
        self.0.iter().map(entry).collect()
    }

    /// From the wire form.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a code that is not three letters.
    pub fn from_proto(wire: &[proto::MoneySum]) -> Result<Revenue, Error> {
        let mut revenue = Revenue::default();
        for sum in wire {
            let currency = Currency::parse(&sum.currency).ok_or_else(|| {
                Error::Malformed(format!("currency `{}` is not three letters", sum.currency.escape_debug()))
            })?;
            let units = i128::from(sum.units_high) * UNITS_PER_HIGH + i128::from(sum.units);
            let nanos = units.saturating_mul(NANOS_PER_UNIT).saturating_add(i128::from(sum.nanos));
            revenue.add_amount(Amount { currency, nanos, count: sum.count });
        }
        Ok(revenue)
    }
}

/// The sum, at an end of the range where it would leave it. What has reached an end stays there: it is not known any more.
#[inline]
fn saturating_sum(a: i128, b: i128) -> i128 {
    let has_ended = |sum: i128| sum == i128::MAX || sum == i128::MIN;
    match a.checked_add(b) {
        Some(sum) if !has_ended(a) && !has_ended(b) => sum,
        _ if has_ended(a) && has_ended(b) => a.max(b),
        _ if has_ended(b) => b,
        _ if has_ended(a) => a,
        _ => a.saturating_add(b),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd() -> Currency {
        Currency::parse("usd").unwrap()
    }

    #[test]
    fn cents_add_up_exactly() {
        let mut revenue = Revenue::default();
        (0..1_000_000).for_each(|_| revenue.add(usd(), 0, 10_000_000));
        revenue.add(usd(), -1, -500_000_000);
        let [amount] = revenue.amounts() else { panic!("{revenue:?}") };
        assert_eq!((amount.to_money().units, amount.to_money().nanos), (9_998, 500_000_000));
        assert_eq!(amount.to_f64(), 9_998.5);
        assert_eq!(amount.count, 1_000_001);
    }

    /// The `n`th three letters.
    fn letters(n: u32) -> Currency {
        let letter = |n: u32| char::from(b'A' + (n % 26) as u8);
        let code: String = [letter(n / 676), letter(n / 26), letter(n)].into_iter().collect();
        Currency::parse(&code).unwrap()
    }

    #[test]
    fn made_up_currencies_are_bounded_and_push_out_none_that_is_listed() {
        let mut revenue = Revenue::default();
        revenue.add(usd(), 10, 0);
        assert!(!revenue.overflowed());
        let made_up: Vec<Currency> = (0..).map(letters).filter(|code| !code.is_listed()).take(300).collect();
        made_up.iter().for_each(|code| revenue.add(*code, 1, 0));
        revenue.add(usd(), 5, 0);
        let of = |code: Currency| revenue.amounts().iter().find(|amount| amount.currency == code).copied();
        assert_eq!(of(usd()).map(|amount| (amount.count, amount.to_money().units)), Some((2, 15)));
        assert_eq!(of(Currency::NONE).map(|none| (none.count, none.nanos)), Some((100, 0)));
        assert_eq!(revenue.amounts().len(), MAX_MADE_UP + 2);
        assert!(revenue.overflowed());
        // In any order.
        let mut backwards = Revenue::default();
        made_up.iter().rev().for_each(|code| backwards.add(*code, 1, 0));
        backwards.add(usd(), 15, 0);
        let shown = |revenue: &Revenue| -> Vec<_> {
            revenue.amounts().iter().map(|of| (of.currency, of.nanos)).collect()
        };
        assert_eq!(shown(&backwards), shown(&revenue));
    }

    #[test]
    fn amounts_without_a_currency_alone_are_no_overflow() {
        let mut revenue = Revenue::default();
        revenue.add(Currency::NONE, 10, 0);
        revenue.add(usd(), 10, 0);
        assert!(!revenue.overflowed());
    }

    #[test]
    fn sums_beyond_64_bits_saturate_as_money_and_say_so() {
        let of = |units: &[i64]| {
            let mut revenue = Revenue::default();
            units.iter().for_each(|units| revenue.add(usd(), *units, 0));
            Revenue::from_proto(&revenue.to_proto()).unwrap().amounts()[0]
        };
        let greatest = of(&[i64::MAX]);
        assert!(greatest.fits() && greatest.estimate().exact);
        let beyond = of(&[i64::MAX, i64::MAX]);
        assert_eq!((beyond.to_money().units, beyond.to_money().nanos), (i64::MAX, 999_999_999));
        let Estimate { value, exact, lower, upper } = beyond.estimate();
        assert!(!exact && lower <= 2f64.powi(64) && 2f64.powi(64) <= upper && value == 2f64.powi(64));
        assert_eq!(of(&[-i64::MAX, -i64::MAX, -i64::MAX]).to_money().units, -i64::MAX);
        // What comes back into the range is right again.
        assert_eq!(of(&[i64::MAX, i64::MAX, -i64::MAX, 5 - i64::MAX]).to_money().units, 5);
    }

    #[test]
    fn a_sum_that_left_128_bits_stays_unknown() {
        let full = Revenue(vec![Amount { currency: usd(), nanos: i128::MAX - 1, count: 1 }]);
        let mut sum = full.clone();
        sum.merge(&full);
        sum.add(usd(), -1000, 0);
        let estimate = sum.amounts()[0].estimate();
        assert!(!estimate.exact && estimate.upper == f64::INFINITY, "{estimate:?}");
        assert_eq!(Revenue::from_proto(&sum.to_proto()), Ok(sum));
    }

    #[test]
    fn a_code_that_is_none_is_refused() {
        let wire = proto::MoneySum { currency: "€".to_owned(), ..Default::default() };
        assert!(Revenue::from_proto(&[wire]).is_err());
    }

    fn any_revenue() -> impl Strategy<Value = Revenue> {
        let event = ("[A-C]{3}|XXX", any::<i64>(), 0..1_000_000_000i32);
        proptest::collection::vec(event, 0..40).prop_map(|events| {
            let mut revenue = Revenue::default();
            for (code, units, nanos) in events {
                let nanos = if units < 0 { -nanos } else { nanos };
                revenue.add(Currency::parse(&code).unwrap(), units, nanos);
            }
            revenue
        })
    }

    fn merged(a: &Revenue, b: &Revenue) -> Revenue {
        let mut sum = a.clone();
        sum.merge(b);
        sum
    }

    proptest! {
        #[test]
        fn merging_is_associative_commutative_and_has_an_identity(
            a in any_revenue(), b in any_revenue(), c in any_revenue(),
        ) {
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&a, &Revenue::default()), a);
        }

        #[test]
        fn the_wire_form_holds_everything(revenue in any_revenue()) {
            let wire = revenue.to_proto();
            for sum in &wire {
                prop_assert!(sum.nanos.abs() < 1_000_000_000);
                prop_assert!(sum.nanos == 0 || sum.units == 0 || (sum.nanos < 0) == (sum.units < 0));
            }
            prop_assert_eq!(Revenue::from_proto(&wire), Ok(revenue));
        }
    }
}
