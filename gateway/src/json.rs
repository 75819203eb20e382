//! ProtoJSON into messages and back (<https://protobuf.dev/programming-guides/json/>).

use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
    SerializeOptions, Value,
};
use serde::de::{DeserializeSeed as _, IgnoredAny};
use serde_path_to_error::{Path, Segment};
use tonic::Status;
use weir_runtime::status::{Reason, invalid_argument};

use crate::scalar;

/// How different a name may be from a known one to be a slip of it: one edit in three letters.
const EDITS: usize = 3;

/// Answers show fields that hold their default: `"accepted": 0` is an answer, too.
const SERIALIZE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// A message of this type.
///
/// # Errors
/// `INVALID_ARGUMENT`: not JSON at all, with line and column (`BODY_MALFORMED`); or a `BadRequest` naming the field that is
/// unknown, with the nearest known one, or whose value does not fit. `prefix` goes before the field's name.
pub(crate) fn decode(
    message: &MessageDescriptor,
    json: &[u8],
    prefix: &str,
) -> Result<DynamicMessage, Status> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    message
        .clone()
        .deserialize(&mut deserializer)
        .and_then(|message| deserializer.end().map(|()| message))
        .map_err(|error| explain(message, json, prefix, &error))
}

/// Sets one field from JSON.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_field(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    json: &[u8],
) -> Result<(), Status> {
    if let (Kind::Message(inner), false) = (field.kind(), field.is_list() || field.is_map()) {
        message.set_field(field, Value::Message(decode(&inner, json, field.name())?));
        return Ok(());
    }
    // Lists, maps and scalars have no type of their own to decode into: let their message do it. First it must be certain
    // that the text is one value, so that it cannot bring further fields.
    serde_json::from_slice::<IgnoredAny>(json).map_err(|error| malformed(&error))?;
    let wrapped = [b"{\"", field.json_name().as_bytes(), b"\":", json, b"}"].concat();
    let decoded = decode(&message.descriptor(), &wrapped, "")?;
    message.set_field(field, decoded.get_field(field).into_owned());
    Ok(())
}

/// The message, or one field of it, as JSON.
///
/// # Errors
/// `INTERNAL` when the message cannot be written, such as an `Any` of an unknown type.
pub(crate) fn encode(message: &DynamicMessage, field: Option<&FieldDescriptor>) -> Result<Vec<u8>, Status> {
    let failed = |error: serde_json::Error| {
        Reason::Internal.status(format!("the answer cannot be written as JSON: {error}"))
    };
    let mut json = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut json);
    let Some(field) = field else {
        message.serialize_with_options(&mut serializer, &SERIALIZE).map_err(failed)?;
        return Ok(json);
    };
    let whole = message.serialize_with_options(serde_json::value::Serializer, &SERIALIZE).map_err(failed)?;
    serde_json::to_vec(&whole[field.json_name()]).map_err(failed)
}

/// The message as a JSON value.
pub(crate) fn to_value(message: &DynamicMessage) -> Result<serde_json::Value, serde_json::Error> {
    message.serialize_with_options(serde_json::value::Serializer, &SERIALIZE)
}

/// The known field that a wrong name most likely means, written in the same style.
pub(crate) fn nearest(message: &MessageDescriptor, name: &str) -> Option<String> {
    let camel = name.bytes().any(|b| b.is_ascii_uppercase());
    let names = message.fields().map(|f| if camel { f.json_name().to_owned() } else { f.name().to_owned() });
    let allowed = (name.len() / 3).min(EDITS);
    names
        .map(|known| (strsim::damerau_levenshtein(&known, name), known))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, known)| known)
}

fn malformed(error: &serde_json::Error) -> Status {
    Reason::BodyMalformed
        .error(format!("the body is not valid JSON: {error}"))
        .with("line", error.line())
        .with("column", error.column())
        .into()
}

/// Reads again, now keeping track of the path, which would slow every good request.
fn explain(message: &MessageDescriptor, json: &[u8], prefix: &str, error: &serde_json::Error) -> Status {
    if !error.is_data() {
        return malformed(error);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    if message.clone().deserialize(tracked).is_ok() {
        return malformed(error);
    }
    let path = track.path();
    let text = error.to_string();
    let place = format!(" (line {}, column {})", error.line(), error.column());
    let text =
        text.strip_suffix(&format!(" at line {} column {}", error.line(), error.column())).unwrap_or(&text);
    let target = follow(message, &path);

    let quoted = |start: &str| text.strip_prefix(start).and_then(|rest| rest.strip_suffix('\''));
    let mut field = join(prefix, &path);
    let mut description =
        match (quoted("unrecognized field name '"), quoted("unrecognized enum value '"), target) {
            (Some(unknown), _, Some(Target::Message(within))) => {
                field = if field.is_empty() { unknown.to_owned() } else { format!("{field}.{unknown}") };
                match nearest(&within, unknown) {
                    Some(known) => format!("unknown field; did you mean {known:?}?"),
                    None => format!("unknown field; {} has no such field", within.name()),
                }
            }
            (_, Some(unknown), Some(Target::Enum(values))) => {
                format!("{unknown:?} is not one of {}", scalar::names(&values))
            }
            _ => text.to_owned(),
        };
    description.push_str(&place);
    if field.is_empty() {
        field = "(body)".to_owned();
    }
    invalid_argument([(field, description)])
}

enum Target {
    Message(MessageDescriptor),
    Enum(EnumDescriptor),
}

/// The type of what lies at the path; nothing for scalars and below types with a JSON form of their own.
fn follow(message: &MessageDescriptor, path: &Path) -> Option<Target> {
    let mut kind = Kind::Message(message.clone());
    for segment in path {
        let Segment::Map { key } = segment else { continue };
        let Kind::Message(message) = &kind else { return None };
        kind = if message.is_map_entry() {
            message.map_entry_value_field().kind()
        } else {
            message.get_field_by_json_name(key).or_else(|| message.get_field_by_name(key))?.kind()
        };
    }
    match kind {
        Kind::Message(message) => Some(Target::Message(message)),
        Kind::Enum(values) => Some(Target::Enum(values)),
        _ => None,
    }
}

fn join(prefix: &str, path: &Path) -> String {
    let mut text = prefix.to_owned();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Segment::Unknown => {}
        }
    }
    text
}
