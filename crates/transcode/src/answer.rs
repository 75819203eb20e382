//! Answers as ProtoJSON (<https://protobuf.dev/programming-guides/json/>), written as they are read.
//!
//! A tree of dynamic values takes a kilobyte for each point of a chart. So a large message is taken apart along its fields, and only
//! messages of at most [`DECODED_AT_ONCE`] bytes become such a tree, one after the other.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Buf as _;
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use tonic::Status;
use weir_runtime::status::Reason;

/// Encoded bytes of a message that is decoded as a whole: some hundred kilobytes as a tree.
const DECODED_AT_ONCE: usize = 4 << 10;

/// Answers show fields that hold their default: `"accepted": 0` is an answer, too.
const SERIALIZE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// A message of this type, encoded, or one field of it, as JSON.
///
/// # Errors
/// `INTERNAL` when it is no such message, or can't be written, such as an `Any` of an unknown type.
pub(crate) fn encode(
    output: &MessageDescriptor,
    bytes: &[u8],
    field: Option<&FieldDescriptor>,
) -> Result<Vec<u8>, Status> {
    let mut json = Vec::with_capacity(256);
    let written = match field {
        None => message(output, bytes, &mut json),
        Some(field) => one_field(output, bytes, field, &mut json),
    };
    written.map_err(|error| {
        Reason::Internal
            .status(format!("the answer is no {} that can be written as JSON: {error}", output.full_name()))
    })?;
    Ok(json)
}

/// The message as a JSON value.
///
/// # Errors
/// As [`encode`].
pub(crate) fn to_value(message: &DynamicMessage) -> Result<serde_json::Value, serde_json::Error> {
    message.serialize_with_options(serde_json::value::Serializer, &SERIALIZE)
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("field {0} has another type")]
    WrongType(u32),
}

/// A message that is not large, or has a form of its own in JSON.
fn whole(descriptor: &MessageDescriptor, bytes: &[u8], json: &mut Vec<u8>) -> Result<(), Error> {
    let message = DynamicMessage::decode(descriptor.clone(), bytes)?;
    message.serialize_with_options(&mut serde_json::Serializer::new(json), &SERIALIZE)?;
    Ok(())
}

fn message(descriptor: &MessageDescriptor, bytes: &[u8], json: &mut Vec<u8>) -> Result<(), Error> {
    if bytes.len() <= DECODED_AT_ONCE || descriptor.full_name().starts_with("google.protobuf.") {
        return whole(descriptor, bytes, json);
    }
    let Parts { messages, rest } = Parts::of(descriptor, bytes)?;
    let rest = to_value(&DynamicMessage::decode(descriptor.clone(), rest.as_slice())?)?;
    json.push(b'{');
    let begin = json.len();
    for field in descriptor.fields() {
        let written = json.len();
        if written > begin {
            json.push(b',');
        }
        serde_json::to_writer(&mut *json, field.json_name())?;
        json.push(b':');
        let contents = messages.get(&field.number()).map_or(&[][..], Vec::as_slice);
        let is_present = match held(&field) {
            Some(inner) => message_field(&field, &inner, contents, json)?,
            None => match rest.get(field.json_name()) {
                Some(value) => {
                    serde_json::to_writer(&mut *json, value)?;
                    true
                }
                None => false,
            },
        };
        if !is_present {
            json.truncate(written);
        }
    }
    json.push(b'}');
    Ok(())
}

/// The messages of a field; whether there is anything to show.
fn message_field(
    field: &FieldDescriptor,
    inner: &MessageDescriptor,
    contents: &[&[u8]],
    json: &mut Vec<u8>,
) -> Result<bool, Error> {
    if !field.is_list() {
        // Those that come again are merged, which is what one after the other they say.
        let content = match contents {
            [] => return Ok(false),
            [one] => Cow::Borrowed(*one),
            several => Cow::Owned(several.concat()),
        };
        return message(inner, &content, json).map(|()| true);
    }
    json.push(b'[');
    for (at, content) in contents.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        message(inner, content, json)?;
    }
    json.push(b']');
    Ok(true)
}

fn one_field(
    output: &MessageDescriptor,
    bytes: &[u8],
    field: &FieldDescriptor,
    json: &mut Vec<u8>,
) -> Result<(), Error> {
    let Parts { messages, rest } = Parts::of(output, bytes)?;
    let is_present = match held(field) {
        Some(inner) => {
            let contents = messages.get(&field.number()).map_or(&[][..], Vec::as_slice);
            message_field(field, &inner, contents, json)?
        }
        None => {
            let rest = to_value(&DynamicMessage::decode(output.clone(), rest.as_slice())?)?;
            serde_json::to_writer(&mut *json, &rest[field.json_name()])?;
            true
        }
    };
    if !is_present {
        json.extend_from_slice(b"null");
    }
    Ok(())
}

/// What a field holds if it holds messages. Maps are taken as a whole.
fn held(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(inner) if !field.is_map() => Some(inner),
        _ => None,
    }
}

/// The fields of an encoded message.
struct Parts<'a> {
    /// Those that hold messages, by number.
    messages: BTreeMap<u32, Vec<&'a [u8]>>,
    /// The others, encoded.
    rest: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(descriptor: &MessageDescriptor, mut bytes: &'a [u8]) -> Result<Self, Error> {
        let mut parts = Self { messages: BTreeMap::new(), rest: Vec::new() };
        while !bytes.is_empty() {
            let start = bytes;
            let (number, wire) = decode_key(&mut bytes)?;
            let field = descriptor.get_field(number);
            if field.is_some_and(|field| held(&field).is_some()) {
                let length =
                    if wire == WireType::LengthDelimited { decode_varint(&mut bytes)? } else { u64::MAX };
                let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len());
                let (content, after) = bytes.split_at(length.ok_or(Error::WrongType(number))?);
                parts.messages.entry(number).or_default().push(content);
                bytes = after;
            } else {
                skip_field(wire, number, &mut bytes, DecodeContext::default())?;
                parts.rest.extend_from_slice(&start[..start.len() - bytes.remaining()]);
            }
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use prost::Message as _;
    use prost_reflect::DescriptorPool;
    use weir_proto::{
        analytics::v1::{Figure, QueryTimeSeriesResponse, ResultInfo, TimeSeries, TimeSeriesPoint},
        ingest::v1::IngestEventsRequest,
    };

    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(weir_proto::DESCRIPTORS).unwrap();
        pool.get_message_by_name(name).unwrap()
    }

    fn text(value: &str) -> prost_types::Value {
        prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(value.to_owned())) }
    }

    fn chart() -> QueryTimeSeriesResponse {
        let point = |second| TimeSeriesPoint {
            start_time: Some(prost_types::Timestamp { seconds: second, nanos: 5_000_000 }),
            local_time: format!("{second} \"by the clock\""),
            figures: (0..3)
                .map(|at| Figure { value: second as f64 / 3.0, exact: at == 0, ..Figure::default() })
                .collect(),
            previous_figures: vec![],
        };
        let series = |name: &str| TimeSeries {
            group: vec![text(name)],
            points: (0..1000).map(point).collect(),
            totals: vec![Figure::default()],
            ..TimeSeries::default()
        };
        QueryTimeSeriesResponse {
            series: vec![series("a"), TimeSeries::default(), series("(other)")],
            omitted_series: u64::MAX,
            info: Some(ResultInfo::default()),
            ..QueryTimeSeriesResponse::default()
        }
    }

    #[test]
    fn a_large_answer_is_written_as_a_small_one_is() {
        let chart = chart().encode_to_vec();
        let page = IngestEventsRequest {
            events: (0..200)
                .map(|at| weir_proto::event::v1::Event {
                    event_name: format!("event {at}"),
                    properties: Some(prost_types::Struct {
                        fields: [("long".to_owned(), text(&"x".repeat(at * 100)))].into(),
                    }),
                    ..Default::default()
                })
                .collect(),
        };
        for (name, bytes) in [
            ("weir.analytics.v1.QueryTimeSeriesResponse", chart.clone()),
            ("weir.analytics.v1.QueryTimeSeriesResponse", Vec::new()),
            ("weir.ingest.v1.IngestEventsRequest", page.encode_to_vec()),
        ] {
            let descriptor = descriptor(name);
            let mut expected = Vec::new();
            whole(&descriptor, &bytes, &mut expected).unwrap();
            let written = encode(&descriptor, &bytes, None).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), String::from_utf8(expected.clone()).unwrap());
            let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
            for field in descriptor.fields() {
                let written = encode(&descriptor, &bytes, Some(&field)).unwrap();
                let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
                assert_eq!(written, expected[field.json_name()], "{name}: {}", field.name());
            }
        }
    }

    #[test]
    fn a_message_that_comes_in_pieces_is_merged() {
        let descriptor = descriptor("weir.analytics.v1.QueryTimeSeriesResponse");
        let piece = |info| QueryTimeSeriesResponse { info: Some(info), ..Default::default() }.encode_to_vec();
        let mut bytes = chart().encode_to_vec();
        bytes.extend(piece(ResultInfo { exact: true, ..Default::default() }));
        bytes.extend(piece(ResultInfo { late_events: 7, ..Default::default() }));
        let mut expected = Vec::new();
        whole(&descriptor, &bytes, &mut expected).unwrap();
        assert_eq!(encode(&descriptor, &bytes, None).unwrap(), expected);
    }

    #[test]
    fn what_is_no_such_message_is_an_internal_error() {
        let descriptor = descriptor("weir.analytics.v1.QueryTimeSeriesResponse");
        let mut bytes = chart().encode_to_vec();
        bytes.truncate(bytes.len() - 1);
        for bytes in [bytes, [vec![0x08; 1], chart().encode_to_vec()].concat(), vec![0xff; 10_000]] {
            let status = encode(&descriptor, &bytes, None).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Internal);
        }
    }
}
