//! The type of a column of text: one for all of its values.
//!
//! A file of separated values doesn't say what is a number. A value alone doesn't either: `10` is a number in a column of
//! prices and a text in a column of post codes that has `0010` too. So all values of a column are looked at before the first
//! is sent; of standard input, which can be read once, those of the first rows.

use prost_types::{Value, value::Kind};

use super::json::is_large;

/// What one value looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Look {
    Number(f64),
    Boolean(bool),
    /// Digits that are a name: with zeros before them, or a `+` before as many as a telephone number has.
    Padded,
    /// An integer that no double holds.
    Large,
    Text,
}

/// Digits behind a `+` from which on they are a telephone number.
const TELEPHONE_DIGITS: usize = 8;

/// What the values of a column look like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    values: u64,
    numbers: u64,
    booleans: u64,
    padded: Option<String>,
    large: Option<String>,
    /// The first value that is no number, for the report.
    no_number: Option<String>,
}

/// What the values of a column become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Number,
    Boolean,
    #[default]
    Text,
}

/// Share of values that look like numbers, one in so many, from which on keeping a column as text is reported.
const REPORTED_SHARE: u64 = 10;
/// Characters of a value in a report.
const SHOWN_CHARS: usize = 40;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

impl Evidence {
    /// Looks at a value; an empty one is none.
    pub(crate) fn add(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.values += 1;
        match look(text) {
            Look::Number(_) => self.numbers += 1,
            Look::Boolean(_) => {
                self.booleans += 1;
                self.no_number.get_or_insert_with(|| shown(text));
            }
            Look::Padded => {
                self.padded.get_or_insert_with(|| shown(text));
            }
            Look::Large => {
                self.large.get_or_insert_with(|| shown(text));
            }
            Look::Text => {
                self.no_number.get_or_insert_with(|| shown(text));
            }
        }
    }

    /// The type that all values have.
    pub(crate) fn column_type(&self) -> ColumnType {
        match self.values {
            0 => ColumnType::Text,
            values if values == self.numbers => ColumnType::Number,
            values if values == self.booleans => ColumnType::Boolean,
            _ => ColumnType::Text,
        }
    }

    /// Why the column has its type, in words.
    pub(crate) fn reason(&self) -> String {
        match (self.column_type(), &self.no_number, &self.padded, &self.large) {
            (ColumnType::Number, ..) => format!("{} numbers", self.values),
            (ColumnType::Boolean, ..) => format!("{} of true and false", self.values),
            (ColumnType::Text, ..) if self.values == 0 => "no values".to_owned(),
            (ColumnType::Text, None, Some(padded), _) => {
                format!("numbers such as {padded} are names, kept as text")
            }
            (ColumnType::Text, None, None, Some(large)) => {
                format!("numbers such as {large} exceed 2^53, kept as text to be exact")
            }
            (ColumnType::Text, Some(other), ..) if self.numbers > 0 => {
                format!(
                    "{} of {} look like numbers, kept as text; {other:?} does not",
                    self.numbers, self.values
                )
            }
            (ColumnType::Text, ..) if self.booleans > 0 => {
                format!("{} of {} look like true or false, kept as text", self.booleans, self.values)
            }
            (ColumnType::Text, ..) => format!("{} texts", self.values),
        }
    }

    /// What the user has to know of it: that numbers are not added up because some values are none.
    pub(crate) fn note(&self) -> Option<String> {
        let is_mixed = self.column_type() == ColumnType::Text
            && (self.numbers + self.booleans) * REPORTED_SHARE >= self.values
            && self.numbers + self.booleans > 0
            && (self.padded.is_none() || self.no_number.is_some());
        let is_large = self.large.is_some() && self.no_number.is_none() && self.padded.is_none();
        let null = match &self.no_number {
            Some(other) if is_mixed && self.booleans == 0 => {
                format!(" (if it means no value: --null '{other}')")
            }
            _ => String::new(),
        };
        (is_mixed || is_large).then(|| format!("{}{null}", self.reason()))
    }
}

impl ColumnType {
    /// A value of a column of this type; `None` for one that is not of it.
    pub(crate) fn value(self, text: &str) -> Option<Value> {
        let kind = match (self, look(text)) {
            (Self::Number, Look::Number(number)) => Kind::NumberValue(number),
            (Self::Boolean, Look::Boolean(is)) => Kind::BoolValue(is),
            (Self::Text, _) => Kind::StringValue(text.to_owned()),
            (Self::Number | Self::Boolean, _) => return None,
        };
        Some(Value { kind: Some(kind) })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Boolean => "true/false",
            Self::Text => "text",
        }
    }
}

fn look(text: &str) -> Look {
    let text = text.trim();
    if text.eq_ignore_ascii_case("true") {
        return Look::Boolean(true);
    }
    if text.eq_ignore_ascii_case("false") {
        return Look::Boolean(false);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    // `inf`, `nan` and hexadecimal are no numbers here.
    if !unsigned.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte)) {
        return Look::Text;
    }
    let Some(number) = text.parse::<f64>().ok().filter(|number| number.is_finite()) else {
        return Look::Text;
    };
    let is_integer = unsigned.bytes().all(|byte| byte.is_ascii_digit());
    let has_zeros = unsigned.as_bytes().first() == Some(&b'0')
        && unsigned.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if has_zeros || is_integer && text.starts_with('+') && unsigned.len() >= TELEPHONE_DIGITS {
        return Look::Padded;
    }
    if is_large(unsigned) { Look::Large } else { Look::Number(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[&str]) -> Evidence {
        let mut evidence = Evidence::default();
        values.iter().for_each(|value| evidence.add(value));
        evidence
    }

    #[test]
    fn numbers_are_read_however_they_are_written() {
        let texts = ["5.00", "10.50", "+5", "1e3", ".5", "5.", " 5", "-0.25", "0", "0.5", "2E-2", ""];
        let numbers = [5.0, 10.5, 5.0, 1000.0, 0.5, 5.0, 5.0, -0.25, 0.0, 0.5, 0.02];
        assert_eq!(column(&texts).column_type(), ColumnType::Number);
        for (text, number) in texts.iter().zip(numbers) {
            let value = ColumnType::Number.value(text).unwrap();
            assert_eq!(value.kind, Some(Kind::NumberValue(number)), "{text}");
        }
        for text in
            ["1,5", "0x10", "nan", "inf", "Infinity", "1e999", "12e", "e5", "--1", "5 €", "1_000", "½"]
        {
            assert_eq!(look(text), Look::Text, "{text}");
        }
    }

    #[test]
    fn true_and_false_are_read_in_any_case() {
        let evidence = column(&["TRUE", "True", "true", "FALSE", "False", "false", ""]);
        assert_eq!(evidence.column_type(), ColumnType::Boolean);
        assert_eq!(ColumnType::Boolean.value("TRUE").unwrap().kind, Some(Kind::BoolValue(true)));
        assert_eq!(column(&["true", "yes"]).column_type(), ColumnType::Text);
    }

    #[test]
    fn one_value_that_is_a_name_makes_all_of_them_text() {
        for values in [
            ["0010", "02138", "10"],
            ["10", "10", "00"],
            ["-007", "1", "2"],
            ["+491701234567", "1", "2"],
            ["00.5", "1", "2"],
        ] {
            assert_eq!(column(&values).column_type(), ColumnType::Text, "{values:?}");
            assert_eq!(column(&values).note(), None, "post codes are nothing to report");
        }
    }

    #[test]
    fn integers_that_no_double_holds_make_all_of_them_text() {
        let evidence = column(&["1", "987654321012345678"]);
        assert_eq!(evidence.column_type(), ColumnType::Text);
        assert!(evidence.note().unwrap().contains("2^53"));
        assert_eq!(column(&["9007199254740992"]).column_type(), ColumnType::Number);
        assert_eq!(column(&["9007199254740993"]).column_type(), ColumnType::Text);
    }

    #[test]
    fn values_that_disagree_are_reported() {
        let note = column(&["5.00", "free", "7", "n/a"]).note().unwrap();
        assert!(note.contains("2 of 4 look like numbers, kept as text"), "{note}");
        assert!(column(&["1", "NA"]).note().unwrap().contains("--null 'NA'"));
        assert!(column(&["true", "maybe"]).note().unwrap().contains("true or false"));
        assert!(column(&["1", "true"]).note().is_some());
        let mut names = vec!["name"; 100];
        names.push("7");
        assert_eq!(column(&names).note(), None, "a name of digits among many is none");
        assert_eq!(column(&[]).note(), None);
    }
}
