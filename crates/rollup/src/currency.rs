//! Currencies by their ISO 4217 code.

use std::fmt;

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

    /// Whether ISO 4217 lists the code as a currency. Any other three letters are made up.
    pub fn is_listed(&self) -> bool {
        weir_proto::currency::is_known(self.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_three_letters() {
        assert_eq!(Currency::parse("eur").unwrap().as_str(), "EUR");
        for code in ["", "EU", "EURO", "E1R", "é€"] {
            assert_eq!(Currency::parse(code), None, "{code}");
        }
    }

    #[test]
    fn listed_codes_are_told_from_made_up_ones() {
        for (code, listed) in
            [("USD", true), ("jpy", true), ("ZWG", true), ("LTL", true), ("AAA", false), ("XXX", false)]
        {
            assert_eq!(Currency::parse(code).unwrap().is_listed(), listed, "{code}");
        }
    }
}
