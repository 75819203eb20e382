//! Lines of JSON, without what a plain parser loses: digits of large numbers, and keys that occur twice.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{
    Map, Value,
    value::{Number, RawValue},
};

/// Levels of objects and lists that are read; events may nest values 5 deep.
const MAX_LEVELS: usize = 16;

/// Integers up to here, and down to its negative, are exact as the doubles that numbers of events are.
pub(super) const MAX_EXACT: u64 = 1 << 53;

/// Reads an object. An integer that no double holds becomes a text of its digits.
///
/// # Errors
/// In words: what is wrong with the line, or the key that occurs twice in one object.
pub(super) fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    let raw: &RawValue = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    match value(raw, MAX_LEVELS)? {
        Value::Object(row) => Ok(row),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err("not a JSON object".to_owned())
        }
    }
}

/// The keys and values of an object as they stand in the line.
pub(super) fn entries(line: &[u8]) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let Entries(entries) = serde_json::from_slice(line).ok()?;
    Some(entries.into_iter().map(|(key, value)| (key.0, value.get())).collect())
}

/// A number of an event as text where a text is asked for: `101` for `101.0` and `1e2` as `100`, so that one id is one user
/// however a program writes its numbers.
pub(super) fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() <= MAX_EXACT as f64 => {
            format!("{}", double as i64)
        }
        _ => number.to_string(),
    }
}

fn value(raw: &RawValue, levels: usize) -> Result<Value, String> {
    let text = raw.get();
    let wrong = |error: serde_json::Error| format!("not JSON: {error}");
    let too_deep = || format!("it nests more than {MAX_LEVELS} levels deep; properties may nest 5");
    Ok(match text.as_bytes().first() {
        Some(b'{') => {
            let inner = levels.checked_sub(1).ok_or_else(too_deep)?;
            let Entries(entries) = serde_json::from_str(text).map_err(wrong)?;
            let mut object = BTreeMap::new();
            for (Key(key), raw) in entries {
                let value = value(raw, inner)?;
                if object.insert(key.clone().into_owned(), value).is_some() {
                    return Err(format!("the key {key:?} occurs twice: which value counts is not known"));
                }
            }
            Value::Object(object.into_iter().collect())
        }
        Some(b'[') => {
            let inner = levels.checked_sub(1).ok_or_else(too_deep)?;
            let Items(items) = serde_json::from_str(text).map_err(wrong)?;
            Value::Array(items.into_iter().map(|raw| value(raw, inner)).collect::<Result<_, _>>()?)
        }
        Some(b'-' | b'0'..=b'9') if is_large(text) => Value::String(text.to_owned()),
        _ => serde_json::from_str(text).map_err(wrong)?,
    })
}

/// Whether digits stand for an integer beyond the exact ones.
pub(super) fn is_large(digits: &str) -> bool {
    let digits = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.parse::<u64>().map_or(true, |number| number > MAX_EXACT)
}

/// A key, copied only where it has escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

struct Entries<'a>(Vec<(Key<'a>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

struct Items<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        object(line.as_bytes())
            .map_or_else(|error| format!("! {error}"), |row| Value::Object(row).to_string())
    }

    #[test]
    fn integers_that_no_double_holds_become_text() {
        let line = r#"{"a":9007199254740992,"b":9007199254740993,"c":[-9007199254740993],"d":99999999999999999999999}"#;
        assert_eq!(
            read(line),
            r#"{"a":9007199254740992,"b":"9007199254740993","c":["-9007199254740993"],"d":"99999999999999999999999"}"#
        );
        assert_eq!(
            read(r#"{"a":1e20,"b":12345678901234567.0}"#),
            r#"{"a":1e+20,"b":1.2345678901234568e+16}"#
        );
    }

    #[test]
    fn whole_doubles_are_whole_numbers_as_text() {
        let text = |json: &str| number_text(&serde_json::from_str(json).unwrap());
        assert_eq!(
            ["101.0", "101", "1e2", "-0.0", "1.5", "9007199254740991"].map(text),
            ["101", "101", "100", "0", "1.5", "9007199254740991"]
        );
    }

    #[test]
    fn a_key_that_occurs_twice_is_named() {
        for (line, key) in [
            (r#"{"plan":"free","plan":"pro"}"#, "plan"),
            (r#"{"a":{"x":1,"y":[{"k":1,"k":1}]}}"#, "\"k\""),
            (r#"{"plan":1,"pl\u0061n":1}"#, "plan"),
        ] {
            assert!(read(line).starts_with('!') && read(line).contains(key), "{}", read(line));
        }
        assert_eq!(read(r#"{"a":{"x":1},"b":{"x":2}}"#), r#"{"a":{"x":1},"b":{"x":2}}"#);
    }

    #[test]
    fn what_is_no_object_says_so() {
        assert!(read("not json").contains("not JSON"));
        assert!(read(r#"{"a":1} x"#).contains("not JSON"));
        assert!(read("[1]").contains("not a JSON object"));
        let deep = format!("{{\"k\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).contains("levels deep"));
    }

    #[test]
    fn entries_stand_as_in_the_line() {
        let found = entries(br#"{"a": 1.50, "b":{"c":[1, 2]}, "a":2}"#).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (key.as_ref(), *value)).collect();
        assert_eq!(found, [("a", "1.50"), ("b", "{\"c\":[1, 2]}"), ("a", "2")]);
        assert_eq!(entries(b"oops"), None);
    }
}
