//! Amounts of money, exactly: never through a float.

use weir_proto::google::r#type::Money;

/// Digits after the point that `google.type.Money` holds.
const DIGITS: usize = 9;

/// An ISO 4217 code such as `EUR`.
pub(crate) fn currency(text: &str) -> Result<String, String> {
    let code = text.trim().to_ascii_uppercase();
    if code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) {
        Ok(code)
    } else {
        Err(format!("`{text}` is no currency: expected a code of three letters such as EUR"))
    }
}

/// Parses `9.99`, `-3`, `+0.5`.
pub(crate) fn amount(text: &str, currency_code: &str) -> Result<Money, String> {
    let wrong = || {
        format!(
            "`{text}` is no amount: expected a decimal number such as 9.99, at most {DIGITS} digits after the point"
        )
    };
    let trimmed = text.trim();
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let present = !(whole.is_empty() && fraction.is_empty());
    if !present || !all_digits(whole) || !all_digits(fraction) || fraction.len() > DIGITS {
        return Err(wrong());
    }
    let units: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let nanos: i32 = format!("{fraction:0<DIGITS$}").parse().map_err(|_| wrong())?;
    let sign = if negative { -1 } else { 1 };
    Ok(Money { currency_code: currency_code.to_owned(), units: sign * units, nanos: sign as i32 * nanos })
}

/// Parses `9.99:EUR`.
pub(crate) fn with_currency(text: &str) -> Result<Money, String> {
    let (number, code) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("`{text}`: expected AMOUNT:CURRENCY such as 9.99:EUR"))?;
    amount(number, &currency(code)?)
}

/// `1,234.50`, with at least two digits after the point and no trailing zeros beyond them.
pub(crate) fn display(money: &Money) -> String {
    let negative = money.units < 0 || money.nanos < 0;
    let fraction = format!("{:09}", money.nanos.unsigned_abs());
    let significant = fraction.trim_end_matches('0').len().max(2);
    let sign = if negative { "-" } else { "" };
    format!("{sign}{}.{}", crate::render::grouped(money.units.unsigned_abs()), &fraction[..significant])
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
        for text in ["", "-", "1e3", "1,5", "0.1234567891", "NaN", "99999999999999999999", "--1", "1.-5"] {
            assert!(amount(text, "USD").is_err(), "{text}");
        }
        assert!(with_currency("9.99").is_err());
        assert!(with_currency("9.99:EURO").is_err());
    }

    #[test]
    fn amounts_are_shown_with_two_digits_or_as_many_as_they_have() {
        assert_eq!(display(&amount("1234567.5", "USD").unwrap()), "1,234,567.50");
        assert_eq!(display(&amount("-0.001", "USD").unwrap()), "-0.001");
    }
}
