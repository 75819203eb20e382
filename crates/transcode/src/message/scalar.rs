//! Field values from the text of path variables and query parameters, in their ProtoJSON forms.

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE};
use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MessageDescriptor, Value};
use serde::de::{IntoDeserializer as _, value::Error as ValueError};

/// One value of a field of this kind.
///
/// # Errors
/// What was expected, in words.
pub(crate) fn parse(kind: &Kind, text: &str) -> Result<Value, String> {
    fn number<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("{text:?} is not {what}"))
    }
    Ok(match kind {
        Kind::Double => Value::F64(float(text)?),
        Kind::Float => Value::F32(float(text)? as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(text, "a 32-bit integer")?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(text, "a 64-bit integer")?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(text, "an integer from 0 to 4294967295")?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(text, "an integer from 0 to 2^64-1")?),
        Kind::Bool => Value::Bool(number(text, "true or false")?),
        Kind::String => Value::String(text.to_owned()),
        Kind::Bytes => Value::Bytes(
            BASE64_STANDARD
                .decode(text)
                .or_else(|_| BASE64_URL_SAFE.decode(text))
                .map_err(|error| format!("not base64: {error}"))?
                .into(),
        ),
        Kind::Enum(values) => Value::EnumNumber(enum_number(values, text)?),
        Kind::Message(message) => Value::Message(text_message(message, text)?),
    })
}

fn float(text: &str) -> Result<f64, String> {
    match text {
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        // `f64::from_str` also takes "inf" and "nan", which ProtoJSON does not know.
        _ if text.bytes().any(|b| b.is_ascii_alphabetic() && !b"eE".contains(&b)) => {
            Err(format!("{text:?} is not a number"))
        }
        _ => text.parse().map_err(|_| format!("{text:?} is not a number")),
    }
}

fn enum_number(values: &EnumDescriptor, text: &str) -> Result<i32, String> {
    if let Some(value) = values.get_value_by_name(text) {
        return Ok(value.number());
    }
    text.parse().map_err(|_| format!("{text:?} is not one of {}", names(values)))
}

/// The names of an enum, for messages.
pub(crate) fn names(values: &EnumDescriptor) -> String {
    values.values().map(|value| value.name().to_owned()).collect::<Vec<_>>().join(", ")
}

/// Messages that are a single text in JSON: timestamps, durations, field masks, wrappers of scalars.
fn text_message(message: &MessageDescriptor, text: &str) -> Result<DynamicMessage, String> {
    let name = message.full_name();
    let expected = match name {
        "google.protobuf.Timestamp" => "an RFC 3339 time such as 2026-01-31T12:00:00Z",
        "google.protobuf.Duration" => "a duration in seconds such as 1.5s",
        "google.protobuf.FieldMask" => "field names joined by commas",
        _ => match name.strip_prefix("google.protobuf.").and_then(|name| name.strip_suffix("Value")) {
            Some(inner) if !["", "List", "Null"].contains(&inner) => {
                let field = message.get_field(1).ok_or_else(|| format!("{name} has no value"))?;
                let mut wrapper = DynamicMessage::new(message.clone());
                wrapper.set_field(&field, parse(&field.kind(), text)?);
                return Ok(wrapper);
            }
            _ => {
                return Err(
                    "this field has no form as a query parameter; name one of its own fields".to_owned()
                );
            }
        },
    };
    DynamicMessage::deserialize(message.clone(), text.into_deserializer())
        .map_err(|error: ValueError| format!("{text:?} is not {expected}: {error}"))
}
