//! Sums of money, exact, by currency.

use std::fmt;

use weir_proto::{google::r#type::Money as MoneyProto, rollup::v1 as proto};

use crate::Error;

/// Currencies that one sum tells apart: more than ISO 4217 has in use (about 180), so that only made-up codes are dropped.
pub const MAX_CURRENCIES: usize = 200;

const NANOS_PER_UNIT: i128 = 1_000_000_000;

/// An ISO 4217 code: three upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// "No currency" in ISO 4217: stands for amounts whose code is not one.
    pub const NONE: Currency = Currency(*b"XXX");

    /// Reads a code; `None` unless it is three ASCII letters. Lower case is accepted.
    pub fn parse(code: &str) -> Option<Currency> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(u8::is_ascii_alphabetic)
            .then(|| Currency(bytes.map(|byte| byte.to_ascii_uppercase())))
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three ASCII letters")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came together in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// The currency.
    pub currency: Currency,
    /// The sum in billionths of a unit. Exact: it takes 10^10 events of the greatest possible amount to leave the range.
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

    /// The sum as `google.type.Money`; `None` when it does not fit into 64 bits of units.
    pub fn to_money(&self) -> Option<MoneyProto> {
        Some(MoneyProto {
            currency_code: self.currency.to_string(),
            units: i64::try_from(self.nanos / NANOS_PER_UNIT).ok()?,
            nanos: (self.nanos % NANOS_PER_UNIT) as i32,
        })
    }
}

/// Revenue by currency.
///
/// Holds the [`MAX_CURRENCIES`] alphabetically first; events in the others are only counted, under [`Currency::NONE`].
/// (Which ones stay does not depend on the order of merging, since one that was dropped stays behind all that are kept.)
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

    fn add_amount(&mut self, amount: Amount) {
        // Amounts of no known currency can't be summed.
        let amount = if amount.currency == Currency::NONE { Amount { nanos: 0, ..amount } } else { amount };
        // Nearly every sum has one or two currencies: a walk beats a search.
        match self.0.iter().position(|known| known.currency >= amount.currency) {
            Some(place) if self.0[place].currency == amount.currency => {
                let known = &mut self.0[place];
                known.nanos = known.nanos.saturating_add(amount.nanos);
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
        let real = self.0.iter().filter(|amount| amount.currency != Currency::NONE).count();
        if real > MAX_CURRENCIES {
            let last = self.0.iter().rposition(|amount| amount.currency != Currency::NONE);
            let dropped = self.0.remove(last.expect("there are more than MAX_CURRENCIES"));
            self.add_amount(Amount { currency: Currency::NONE, nanos: 0, count: dropped.count });
        }
    }

    /// The wire form. A sum beyond 64 bits of units becomes several entries of its currency, which the reader adds up.
    pub fn to_proto(&self) -> Vec<proto::MoneySum> {
        let mut entries = Vec::with_capacity(self.0.len());
        for amount in &self.0 {
            let (mut rest, mut count) = (amount.nanos, amount.count);
            loop {
                let units = (rest / NANOS_PER_UNIT).clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                let nanos = (rest - i128::from(units) * NANOS_PER_UNIT)
                    .clamp(1 - NANOS_PER_UNIT, NANOS_PER_UNIT - 1) as i32;
                entries.push(proto::MoneySum { currency: amount.currency.to_string(), units, nanos, count });
                rest -= i128::from(units) * NANOS_PER_UNIT + i128::from(nanos);
                count = 0;
                if rest == 0 {
                    break;
                }
            }
        }
        entries
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
            let nanos = i128::from(sum.units) * NANOS_PER_UNIT + i128::from(sum.nanos);
            revenue.add_amount(Amount { currency, nanos, count: sum.count });
        }
        Ok(revenue)
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
        assert_eq!(amount.to_money().unwrap().units, 9_998);
        assert_eq!(amount.to_money().unwrap().nanos, 500_000_000);
        assert_eq!(amount.to_f64(), 9_998.5);
        assert_eq!(amount.count, 1_000_001);
    }

    #[test]
    fn made_up_currencies_are_bounded_and_still_counted() {
        let mut revenue = Revenue::default();
        for n in 0..400u32 {
            let letter = |n: u32| char::from(b'A' + (n % 26) as u8);
            let code: String = [letter(n / 676), letter(n / 26), letter(n)].into_iter().collect();
            revenue.add(Currency::parse(&code).unwrap(), 1, 0);
        }
        assert_eq!(revenue.amounts().len(), MAX_CURRENCIES + 1);
        assert_eq!(revenue.amounts().iter().map(|amount| amount.count).sum::<u64>(), 400);
        let none = revenue.amounts().iter().find(|amount| amount.currency == Currency::NONE).unwrap();
        assert_eq!((none.count, none.nanos), (200, 0));
    }

    #[test]
    fn codes_are_three_letters() {
        assert_eq!(Currency::parse("eur").unwrap().as_str(), "EUR");
        for code in ["", "EU", "EURO", "E1R", "é€"] {
            assert_eq!(Currency::parse(code), None, "{code}");
        }
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
