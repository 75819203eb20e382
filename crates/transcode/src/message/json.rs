//! ProtoJSON into messages (<https://protobuf.dev/programming-guides/json/>).

use std::borrow::Cow;

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{DeserializeSeed as _, IgnoredAny};
use serde_path_to_error::{Path, Segment};
use tonic::Status;
use weir_runtime::{
    config,
    status::{Reason, invalid_argument},
};

use super::{
    exact, scalar, shortened,
    wire::{Message, Wire},
};

/// How different a name may be from a known one to be a slip of it: one edit in three letters.
const EDITS: usize = 3;
/// A longer name than any schema has is no slip, and comparing it would cost.
const MAX_SLIP: usize = 100;

/// Levels of objects and lists that are read. Decoders give up at about 33 within a `google.protobuf.Struct` and at 128 in JSON,
/// and then on the whole request, for the one event in it that nests so deep. No schema of ours lets values nest more than 5.
const MAX_LEVELS: usize = 20;

/// Bytes of a field's number or length, at most.
const MAX_VARINT_BYTES: usize = 10;

/// What a message may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes on the wire.
    pub(crate) bytes: usize,
    /// Values, those within objects and lists counted.
    pub(crate) values: usize,
}

/// Memory of one decoded value, at least.
const VALUE_BYTES: usize = 64;

impl Limits {
    pub(crate) fn new(server: &config::Server) -> Self {
        Self { bytes: server.max_message_bytes, values: server.message_memory_bytes / VALUE_BYTES }
    }
}

/// A message of this type, encoded.
///
/// # Errors
/// `INVALID_ARGUMENT`: not JSON at all, with line and column (`BODY_MALFORMED`); or a `BadRequest` naming the field that is
/// unknown, with the nearest known one, or whose value does not fit. `prefix` goes before the field's name.
pub(crate) fn decode(
    message: &MessageDescriptor,
    json: &[u8],
    prefix: &str,
    limits: Limits,
) -> Result<Vec<u8>, Status> {
    let json = &*scan(json, limits.values)?;
    let json = &*exact::quote_large_numbers(json);
    let mut wire = Wire::new(limits.bytes);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Message { descriptor: message, wire: &mut wire }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| match wire.is_full() {
            true => too_large(format!("the message exceeds {} bytes as Protobuf", limits.bytes)),
            false => explain(message, json, prefix, &error, limits),
        })?;
    Ok(wire.into_bytes())
}

fn too_large(what: String) -> Status {
    Reason::BodyTooLarge.status(format!("{what}; send it in parts"))
}

/// The text with `null` for what lies deeper than [`MAX_LEVELS`]. The service still sees more levels than it allows, and says so
/// of the one event that has them.
///
/// # Errors
/// More than `max_values`: counted before anything is built of them.
fn scan(json: &[u8], max_values: usize) -> Result<Cow<'_, [u8]>, Status> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut values = 0;
    let (mut kept, mut from) = (Vec::new(), 0);
    for (at, &byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b',' => values += 1,
            b'{' | b'[' => {
                values += 1;
                if depth == MAX_LEVELS {
                    kept.extend_from_slice(&json[from..at]);
                    kept.extend_from_slice(b"null");
                }
                depth += 1;
            }
            b'}' | b']' => {
                if depth == MAX_LEVELS + 1 {
                    from = at + 1;
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        if values > max_values {
            return Err(too_large(format!("the body holds more than {max_values} values")));
        }
    }
    // What does not end is left to the parser to refuse.
    if from == 0 || depth > MAX_LEVELS {
        return Ok(Cow::Borrowed(json));
    }
    kept.extend_from_slice(&json[from..]);
    Ok(Cow::Owned(kept))
}

/// One field from JSON, encoded as its message would be.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_field(field: &FieldDescriptor, json: &[u8], limits: Limits) -> Result<Vec<u8>, Status> {
    if let (Kind::Message(inner), false) = (field.kind(), field.is_list() || field.is_map()) {
        let content = decode(&inner, json, field.name(), limits)?;
        let mut encoded = Vec::with_capacity(content.len() + 2 * MAX_VARINT_BYTES);
        encode_key(field.number(), WireType::LengthDelimited, &mut encoded);
        encode_varint(content.len() as u64, &mut encoded);
        encoded.extend_from_slice(&content);
        return Ok(encoded);
    }
    // Lists, maps and scalars have no type of their own to decode into: let their message do it. First it must be certain
    // that the text is one value, so that it cannot bring further fields.
    serde_json::from_slice::<IgnoredAny>(json).map_err(|error| malformed(&error))?;
    let wrapped = [b"{\"", field.json_name().as_bytes(), b"\":", json, b"}"].concat();
    decode(field.parent_message(), &wrapped, "", limits)
}

/// The known field that a wrong name most likely means, written in the same style.
pub(crate) fn nearest(message: &MessageDescriptor, name: &str) -> Option<String> {
    let camel = name.bytes().any(|b| b.is_ascii_uppercase());
    let names = message.fields().map(|f| if camel { f.json_name().to_owned() } else { f.name().to_owned() });
    if name.len() > MAX_SLIP {
        return None;
    }
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
fn explain(
    message: &MessageDescriptor,
    json: &[u8],
    prefix: &str,
    error: &serde_json::Error,
    limits: Limits,
) -> Status {
    if !error.is_data() {
        return malformed(error);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let mut wire = Wire::new(limits.bytes);
    if (Message { descriptor: message, wire: &mut wire }).deserialize(tracked).is_ok() {
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
                let unknown = &*shortened(unknown);
                field = if field.is_empty() { unknown.to_owned() } else { format!("{field}.{unknown}") };
                match nearest(&within, unknown) {
                    Some(known) => format!("unknown field; did you mean {known:?}?"),
                    None => format!("unknown field; {} has no such field", within.name()),
                }
            }
            (_, Some(unknown), Some(Target::Enum(values))) => {
                format!("{:?} is not one of {}", shortened(unknown), scalar::names(&values))
            }
            _ => shortened(text).into_owned(),
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
                text.push_str(&shortened(key));
            }
            Segment::Unknown => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _};
    use weir_proto::event::v1::{Context, Event, Page};

    use super::*;

    const LIMITS: Limits = Limits { bytes: 1 << 20, values: 200_000 };

    fn decode(message: &MessageDescriptor, json: &[u8], prefix: &str) -> Result<DynamicMessage, Status> {
        let wire = super::decode(message, json, prefix, LIMITS)?;
        Ok(DynamicMessage::decode(message.clone(), wire.as_slice()).unwrap())
    }

    fn encode(message: &DynamicMessage) -> Vec<u8> {
        crate::answer::encode(&message.descriptor(), &message.encode_to_vec(), None).unwrap()
    }

    fn shallow(json: &[u8]) -> Cow<'_, [u8]> {
        scan(json, LIMITS.values).unwrap()
    }

    fn descriptor() -> MessageDescriptor {
        static POOL: std::sync::OnceLock<DescriptorPool> = std::sync::OnceLock::new();
        let pool = POOL.get_or_init(|| DescriptorPool::decode(weir_proto::DESCRIPTORS).unwrap());
        pool.get_message_by_name("weir.event.v1.Event").unwrap()
    }

    fn json_value() -> impl Strategy<Value = prost_types::Value> {
        use prost_types::value::Kind;
        let leaf = prop_oneof![
            Just(Kind::NullValue(0)),
            any::<bool>().prop_map(Kind::BoolValue),
            (-1e300..1e300).prop_map(Kind::NumberValue),
            any::<String>().prop_map(Kind::StringValue),
        ];
        let leaf = leaf.prop_map(|kind| prost_types::Value { kind: Some(kind) });
        leaf.prop_recursive(4, 24, 4, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| Kind::ListValue(prost_types::ListValue { values }));
            let fields = proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|fields| Kind::StructValue(prost_types::Struct { fields }));
            prop_oneof![list, fields].prop_map(|kind| prost_types::Value { kind: Some(kind) })
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        let texts =
            (any::<String>(), any::<String>(), any::<String>(), proptest::option::of(any::<String>()));
        let properties =
            proptest::option::of(proptest::collection::btree_map(any::<String>(), json_value(), 0..5));
        // ProtoJSON has the years 0001 to 9999.
        let time = proptest::option::of((-62_135_596_800_i64..253_402_300_800, 0..1_000_000_000_i32));
        (texts, any::<u64>(), 0..9_i32, time, properties).prop_map(
            |((event_id, event_name, user_id, title), sequence, event_type, time, properties)| Event {
                event_id,
                event_name,
                user_id,
                sequence,
                event_type,
                event_time: time.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
                properties: properties.map(|fields| prost_types::Struct { fields }),
                context: title.map(|title| Context {
                    page: Some(Page { title, ..Page::default() }),
                    ..Context::default()
                }),
                ..Event::default()
            },
        )
    }

    proptest! {
        #[test]
        fn messages_survive_json(event in event()) {
            let message = DynamicMessage::decode(descriptor(), event.encode_to_vec().as_slice()).unwrap();
            let json = encode(&message);
            let back = decode(&descriptor(), &json, "").unwrap();
            prop_assert_eq!(Event::decode(back.encode_to_vec().as_slice()).unwrap(), event);
            prop_assert_eq!(encode(&back), json);
        }

        #[test]
        fn any_text_is_a_message_or_a_clear_error(text in any::<String>()) {
            if let Err(status) = decode(&descriptor(), text.as_bytes(), "") {
                prop_assert_eq!(status.code(), tonic::Code::InvalidArgument);
                prop_assert!(status.message().contains("line 1") || text.contains('\n'), "{}", status.message());
            }
        }

        #[test]
        fn damaged_json_never_panics(event in event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let message = DynamicMessage::decode(descriptor(), event.encode_to_vec().as_slice()).unwrap();
            let mut json = encode(&message);
            let at = at.index(json.len());
            json[at] = byte;
            if let Err(status) = decode(&descriptor(), &json, "event") {
                prop_assert_eq!(status.code(), tonic::Code::InvalidArgument);
            }
        }
    }

    #[test]
    fn only_what_nests_too_deep_is_left_out() {
        let deep = format!("{}1{}", "[".repeat(30), "]".repeat(30));
        let json = format!(r#"{{"a":{deep},"b":"[[\"{deep}","c":{{"d":{deep}}},"e":2}}"#);
        let kept = String::from_utf8(shallow(json.as_bytes()).into_owned()).unwrap();
        let list = |levels| format!("{}null{}", "[".repeat(levels), "]".repeat(levels));
        let (a, d) = (list(MAX_LEVELS - 1), list(MAX_LEVELS - 2));
        assert_eq!(kept, format!(r#"{{"a":{a},"b":"[[\"{deep}","c":{{"d":{d}}},"e":2}}"#));
        for same in ["", "[]", "}}}}", r#"{"a":[{"b":"{[\\"}]}"#, &"[".repeat(1000)] {
            assert!(matches!(shallow(same.as_bytes()), Cow::Borrowed(_)), "{same}");
        }
    }

    #[test]
    fn values_of_any_depth_become_messages_that_services_can_read() {
        for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
            for depth in [5, 6, 18, 33, 120, 100_000] {
                let nested = format!("{}1{}", open.repeat(depth - 1), close.repeat(depth - 1));
                let json = format!("{{\"properties\":{{\"a\":{nested}}}}}");
                let message = decode(&descriptor(), json.as_bytes(), "").unwrap();
                let event = Event::decode(message.encode_to_vec().as_slice()).unwrap();
                let mut found = weir_proto::validate::Violations::default();
                weir_proto::validate::Validate::check(&event, &weir_proto::validate::Path::ROOT, &mut found);
                let too_deep = found.into_iter().any(|(_, what)| what.contains("nest"));
                assert_eq!(too_deep, depth > 5, "{depth} times {open}");
            }
        }
    }

    #[test]
    fn errors_repeat_little_of_a_long_text() {
        let long = "k".repeat(100_000);
        for json in [
            format!(r#"{{"{long}":1}}"#),
            format!(r#"{{"eventName":1,"{long}":1}}"#),
            format!(r#"{{"sequence":"{long}"}}"#),
            format!(r#"{{"eventType":"{long}"}}"#),
            format!(r#"{{"eventTime":"{long}"}}"#),
            format!(r#"{{"properties":"{long}"}}"#),
            format!(r#"{{"properties":{{"{long}":1,"{long}":2}}}}"#),
            format!(r#"{{"properties":{{"{long}":{{"a":1,"a":2}}}}}}"#),
        ] {
            let status = decode(&descriptor(), json.as_bytes(), "").unwrap_err();
            let repeated = status.message().len() + status.details().len();
            assert!(repeated < 3000, "{repeated} bytes: {:.300}", status.message());
        }
    }

    #[test]
    fn numbers_keep_their_last_digit() {
        let json = br#"{"properties":{"n":-8.598820847849039e299}}"#;
        let message = decode(&descriptor(), json, "").unwrap();
        let text = String::from_utf8(encode(&message)).unwrap();
        assert!(text.contains("-8.598820847849039e+299"), "{text}");
    }

    #[test]
    fn whole_numbers_stay_apart_or_are_refused() {
        let properties = |number: &str| {
            let json = format!(r#"{{"properties":{{"n":{number}}}}}"#);
            let message = decode(&descriptor(), json.as_bytes(), "")?;
            let event = Event::decode(message.encode_to_vec().as_slice()).unwrap();
            Ok::<_, Status>(event.properties.unwrap().fields["n"].kind.clone().unwrap())
        };
        use prost_types::value::Kind::{NumberValue, StringValue};
        assert_eq!(properties("9007199254740993").unwrap(), StringValue("9007199254740993".into()));
        assert_eq!(properties("100000000000000000001").unwrap(), StringValue("100000000000000000001".into()));
        assert_eq!(properties("101.0").unwrap(), NumberValue(101.0));
        assert_eq!(properties("1e2").unwrap(), NumberValue(100.0));
        assert!(properties("1e400").is_err());
        assert!(properties(&"9".repeat(400)).is_err());

        let sequence = |number: &str| {
            let json = format!(r#"{{"sequence":{number}}}"#);
            let message = decode(&descriptor(), json.as_bytes(), "")?;
            Ok::<_, Status>(Event::decode(message.encode_to_vec().as_slice()).unwrap().sequence)
        };
        assert_eq!(sequence("18446744073709551615").unwrap(), u64::MAX);
        assert_eq!(sequence("9007199254740993").unwrap(), 9_007_199_254_740_993);
        assert!(sequence("36893488147419103232").is_err());
        assert!(sequence("-1").is_err());
        assert!(decode(&descriptor(), br#"{"userId":101.0}"#, "").is_err());
    }

    #[test]
    fn slips_are_matched_in_their_own_style() {
        let event = descriptor();
        assert_eq!(nearest(&event, "evnet_name").as_deref(), Some("event_name"));
        assert_eq!(nearest(&event, "eventNmae").as_deref(), Some("eventName"));
        assert_eq!(nearest(&event, "colour"), None);
        assert_eq!(nearest(&event, &"x".repeat(100_000)), None);
    }
}
