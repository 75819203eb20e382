//! Amounts of money, exactly: never through a float.

use weir_proto::google::r#type::Money;

/// Digits after the point that `google.type.Money` holds.
const DIGITS: usize = 9;
const NANOS_PER_UNIT: i128 = 1_000_000_000;
/// Digits of a number that `i128` holds for sure.
const MAX_DIGITS: usize = 37;

/// Currencies without decimals, those with three and those with four, after ISO 4217; all others have two.
const WITHOUT_DECIMALS: [&str; 17] = [
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF",
    "XOF", "XPF",
];
const THREE_DECIMALS: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];
const FOUR_DECIMALS: [&str; 2] = ["CLF", "UYW"];

/// Decimals with which amounts of a currency are written at least.
fn decimals(currency_code: &str) -> usize {
    match currency_code {
        code if WITHOUT_DECIMALS.contains(&code) => 0,
        code if THREE_DECIMALS.contains(&code) => 3,
        code if FOUR_DECIMALS.contains(&code) => 4,
        _ => 2,
    }
}

/// An ISO 4217 code such as `EUR`.
pub(crate) fn currency(text: &str) -> Result<String, String> {
    let code = text.trim().to_ascii_uppercase();
    if code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) {
        Ok(code)
    } else {
        Err(format!("`{text}` is no currency: expected a code of three letters such as EUR"))
    }
}

/// Parses `9.99`, `-3`, `+0.5`, `1.5e3`. What programs compute with floats has digits that mean nothing, as 15.299999999999999:
/// it is rounded to the digits that money holds.
pub(crate) fn amount(text: &str, currency_code: &str) -> Result<Money, String> {
    let wrong = || format!("`{text}` is no amount: expected a decimal number such as 9.99");
    let nanos = nanos(text.trim()).ok_or_else(wrong)?;
    let units = i64::try_from(nanos / NANOS_PER_UNIT)
        .map_err(|_| format!("`{text}` is no amount: it exceeds 9223372036854775807"))?;
    // The remainder of a division by 10⁹ has 9 digits.
    Ok(Money { currency_code: currency_code.to_owned(), units, nanos: (nanos % NANOS_PER_UNIT) as i32 })
}

/// A decimal number in billionths, rounded half away from zero.
fn nanos(text: &str) -> Option<i128> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = !(whole.is_empty() && fraction.is_empty())
        && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    // Where the digits end after the point, once they are all in one row.
    let mut digits = format!("{whole}{fraction}");
    let shift = DIGITS as i32 + exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let is_rounded_up = match usize::try_from(shift) {
        // Beyond the largest amount of all.
        Ok(zeros) if zeros > MAX_DIGITS => return digits.bytes().all(|digit| digit == b'0').then_some(0),
        Ok(zeros) => {
            digits.extend(std::iter::repeat_n('0', zeros));
            false
        }
        Err(_) => {
            let kept = digits.len().saturating_sub(shift.unsigned_abs() as usize);
            let is_up = digits.len() >= shift.unsigned_abs() as usize
                && digits.as_bytes().get(kept).is_some_and(|&digit| digit >= b'5');
            digits.truncate(kept);
            is_up
        }
    };
    let digits = digits.trim_start_matches('0');
    let size: i128 = match digits.len() {
        0 => 0,
        1..=MAX_DIGITS => digits.parse().ok()?,
        _ => return Some(i128::MAX),
    };
    let size = size + i128::from(is_rounded_up);
    Some(if is_negative { -size } else { size })
}

/// Parses `9.99:EUR`.
pub(crate) fn with_currency(text: &str) -> Result<Money, String> {
    let (number, code) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("`{text}`: expected AMOUNT:CURRENCY such as 9.99:EUR"))?;
    amount(number, &currency(code)?)
}

/// `1,234.50`, with at least the decimals of its currency and no trailing zeros beyond them.
pub(crate) fn display(money: &Money) -> String {
    let negative = money.units < 0 || money.nanos < 0;
    let fraction = format!("{:09}", money.nanos.unsigned_abs());
    let significant = fraction.trim_end_matches('0').len().max(decimals(&money.currency_code));
    let sign = if negative { "-" } else { "" };
    let point = if significant > 0 { "." } else { "" };
    let units = crate::render::grouped(money.units.unsigned_abs());
    format!("{sign}{units}{point}{}", &fraction[..significant])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let money = with_currency("9.99:eur").unwrap();
        assert_eq!((money.currency_code.as_str(), money.units, money.nanos), ("EUR", 9, 990_000_000));
        let refund = amount("-0.05", "USD").unwrap();
        assert_eq!((refund.units, refund.nanos), (0, -50_000_000));
        assert_eq!(amount(".5", "USD").unwrap().nanos, 500_000_000);
        assert_eq!(amount("9007199254740993", "USD").unwrap().units, 9_007_199_254_740_993);
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "-",
            "e3",
            "1e",
            "1e1.5",
            "1,5",
            "NaN",
            "99999999999999999999",
            "1e300",
            "--1",
            "1.-5",
            "-9223372036854775809",
        ] {
            assert!(amount(text, "USD").is_err(), "{text}");
        }
        assert!(with_currency("9.99").is_err());
        assert!(with_currency("9.99:EURO").is_err());
    }

    #[test]
    fn what_floats_add_is_rounded_away() {
        let parts = |text: &str| amount(text, "EUR").map(|money| (money.units, money.nanos)).unwrap();
        assert_eq!(parts("15.299999999999999"), (15, 300_000_000));
        assert_eq!(parts("434.99999999999994"), (435, 0));
        assert_eq!(parts("-434.99999999999994"), (-435, 0));
        assert_eq!(parts("0.1234567891"), (0, 123_456_789));
        assert_eq!(parts("0.1234567895"), (0, 123_456_790));
        assert_eq!(parts("5e-10"), (0, 1));
        assert_eq!(parts("4e-10"), (0, 0));
        assert_eq!(parts("9e-11"), (0, 0));
        assert_eq!(parts("1.5e3"), (1500, 0));
        assert_eq!(parts("-0.30000000000000004"), (0, -300_000_000));
        assert_eq!(parts("0e999"), (0, 0));
        assert_eq!(parts("9223372036854775807.999999999"), (i64::MAX, 999_999_999));
    }

    #[test]
    fn amounts_are_shown_with_the_decimals_of_their_currency_or_as_many_as_they_have() {
        assert_eq!(display(&amount("1234567.5", "USD").unwrap()), "1,234,567.50");
        assert_eq!(display(&amount("1980", "JPY").unwrap()), "1,980");
        assert_eq!(display(&amount("1980.5", "JPY").unwrap()), "1,980.5");
        assert_eq!(display(&amount("1.5", "KWD").unwrap()), "1.500");
        assert_eq!(display(&amount("-0.001", "USD").unwrap()), "-0.001");
    }
}
