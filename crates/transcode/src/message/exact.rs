//! Whole numbers beyond 64 bits, of which a parser of JSON would take the nearest double.

use std::{borrow::Cow, ops::Range};

/// No whole number of fewer digits is beyond 64 bits.
const DIGITS: usize = 19;

/// The text with whole numbers beyond 64 bits that no double equals in quotes, so that in a `google.protobuf.Value` all digits
/// stay, as they do of smaller ones.
pub(crate) fn quote_large_numbers(json: &[u8]) -> Cow<'_, [u8]> {
    let (mut quoted, mut copied) = (Vec::new(), 0);
    let (mut at, mut in_string) = (0, false);
    while at < json.len() {
        match json[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let number = number(json, at);
                if is_inexact(&json[number.clone()]) {
                    quoted.extend_from_slice(&json[copied..number.start]);
                    quoted.push(b'"');
                    quoted.extend_from_slice(&json[number.clone()]);
                    quoted.push(b'"');
                    copied = number.end;
                }
                at = number.end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    quoted.extend_from_slice(&json[copied..]);
    Cow::Owned(quoted)
}

/// The number that begins here.
fn number(json: &[u8], start: usize) -> Range<usize> {
    let length = json[start..].iter().take_while(|byte| b"+-.eE0123456789".contains(byte)).count();
    start..start + length
}

/// Whether this is a whole number beyond 64 bits, written as such, that no double equals.
fn is_inexact(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    if digits.len() < DIGITS
        || !digits.iter().all(u8::is_ascii_digit)
        || digits.len() > 1 && digits[0] == b'0'
    {
        return false;
    }
    let text = str::from_utf8(digits).expect("digits are ASCII");
    if str::from_utf8(number)
        .is_ok_and(|number| number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok())
    {
        return false;
    }
    // A double has at most 309 digits before the point; what is longer is refused as a number out of range.
    text.len() <= 309
        && text.parse::<f64>().is_ok_and(|double| double.is_finite() && format!("{double:.0}") != text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_that_no_double_equals_are_quoted() {
        for (text, expected) in [
            ("9007199254740993", "9007199254740993"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("-9223372036854775809", "\"-9223372036854775809\""),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551617", "\"18446744073709551617\""),
            ("100000000000000000000", "100000000000000000000"),
            ("100000000000000000001", "\"100000000000000000001\""),
            ("100000000000000000001.0", "100000000000000000001.0"),
            ("1e400", "1e400"),
            ("[100000000000000000001,1]", "[\"100000000000000000001\",1]"),
            (
                r#"{"a 100000000000000000001":"100000000000000000001"}"#,
                r#"{"a 100000000000000000001":"100000000000000000001"}"#,
            ),
            (r#"{"\"":100000000000000000001}"#, r#"{"\"":"100000000000000000001"}"#),
            ("\"\\", "\"\\"),
        ] {
            assert_eq!(quote_large_numbers(text.as_bytes()), expected.as_bytes(), "{text}");
        }
        let huge = "9".repeat(400);
        assert_eq!(quote_large_numbers(huge.as_bytes()), huge.as_bytes());
    }
}
