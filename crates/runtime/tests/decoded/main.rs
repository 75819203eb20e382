//! What is estimated of a message before it is decoded, against what decoding it allocates.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod allocator;
mod wire;

use prost::Message;
use prost_types::FileDescriptorSet;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use weir_proto::{analytics::v1 as analytics, ingest::v1 as ingest, metrics::v1 as metrics};
use weir_runtime::server::decoded::Schema;

/// Random messages of each type; `WEIR_DECODER_CASES` sets another number.
const CASES: u64 = 400;
const SEED: u64 = 0x5eed_0001;
const LIMIT: usize = 32 << 20;

/// A type by its name, decoded and dropped: the peak of what was allocated meanwhile, and whether the bytes were such a message.
type Decode = fn(&[u8]) -> (usize, bool);

fn decode<M: Message + Default>(bytes: &[u8]) -> (usize, bool) {
    let mut decoded = false;
    let peak = allocator::peak(|| decoded = M::decode(bytes).is_ok());
    (peak + size_of::<M>(), decoded)
}

const TYPES: &[(&str, Decode)] = &[
    ("weir.ingest.v1.IngestEventRequest", decode::<ingest::IngestEventRequest>),
    ("weir.ingest.v1.IngestEventsRequest", decode::<ingest::IngestEventsRequest>),
    ("weir.ingest.v1.UploadEventsRequest", decode::<ingest::UploadEventsRequest>),
    ("weir.ingest.v1.StreamEventsRequest", decode::<ingest::StreamEventsRequest>),
    ("weir.ingest.v1.SyncClockRequest", decode::<ingest::SyncClockRequest>),
    ("weir.analytics.v1.GetSummaryRequest", decode::<analytics::GetSummaryRequest>),
    ("weir.analytics.v1.QueryTimeSeriesRequest", decode::<analytics::QueryTimeSeriesRequest>),
    ("weir.analytics.v1.QueryTimeSeriesResponse", decode::<analytics::QueryTimeSeriesResponse>),
    ("weir.analytics.v1.QueryBreakdownRequest", decode::<analytics::QueryBreakdownRequest>),
    ("weir.analytics.v1.QueryFunnelRequest", decode::<analytics::QueryFunnelRequest>),
    ("weir.analytics.v1.QueryRetentionRequest", decode::<analytics::QueryRetentionRequest>),
    ("weir.analytics.v1.QueryPathsRequest", decode::<analytics::QueryPathsRequest>),
    ("weir.analytics.v1.ExportEventsRequest", decode::<analytics::ExportEventsRequest>),
    ("weir.analytics.v1.QuerySqlRequest", decode::<analytics::QuerySqlRequest>),
    ("weir.analytics.v1.WatchQueryRequest", decode::<analytics::WatchQueryRequest>),
    ("weir.analytics.v1.WatchQueryResponse", decode::<analytics::WatchQueryResponse>),
    ("weir.metrics.v1.GetMetricsResponse", decode::<metrics::GetMetricsResponse>),
    ("google.protobuf.Value", decode::<prost_types::Value>),
    ("google.protobuf.Struct", decode::<prost_types::Struct>),
];

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(weir_proto::DESCRIPTORS).unwrap()
}

fn cases() -> u64 {
    std::env::var("WEIR_DECODER_CASES").map_or(CASES, |cases| cases.parse().unwrap())
}

#[test]
fn decoding_never_allocates_more_than_was_estimated() {
    let (set, mut valid) = (descriptors(), 0);
    let schema = Schema::new(&set);
    let generator = wire::Generator::new(&set);
    for (name, decode) in TYPES {
        let message = schema.message(name).unwrap_or_else(|| panic!("{name} is not in the schema"));
        for case in 0..cases() {
            let mut dice = StdRng::seed_from_u64(SEED + case);
            let mut bytes = generator.message(name, &mut dice);
            // One in four is damaged: what is decoded up to the damage counts as well.
            if case % 4 == 0 && !bytes.is_empty() {
                let at = dice.random_range(0..bytes.len());
                bytes[at] = dice.random();
            }
            let estimated = schema.measure(message, &bytes, usize::MAX).unwrap();
            let (peak, decoded) = decode(&bytes);
            let error = if decoded { 0 } else { wire::ERROR_BYTES };
            assert!(
                peak <= estimated + error,
                "{name}, case {case}: {} bytes were estimated to take {estimated}, and took {peak}",
                bytes.len()
            );
            valid += u64::from(decoded);
        }
    }
    assert!(valid > TYPES.len() as u64 * cases() / 2, "only {valid} messages were valid");
}

#[test]
fn garbage_is_measured_without_harm() {
    let schema = Schema::new(&descriptors());
    let mut dice = StdRng::seed_from_u64(SEED);
    for case in 0..cases() * 20 {
        let length = dice.random_range(0..200);
        let bytes: Vec<u8> = (0..length).map(|_| dice.random()).collect();
        let (name, decode) = TYPES[case as usize % TYPES.len()];
        let estimated = schema.measure(schema.message(name).unwrap(), &bytes, usize::MAX).unwrap();
        let (peak, _) = decode(&bytes);
        assert!(peak <= estimated + wire::ERROR_BYTES, "{name}: {bytes:02x?}: {estimated} < {peak}");
    }
}

/// A batch of 4 MiB, which the producer takes by default.
fn batch(property: impl Fn(usize) -> prost_types::Value) -> Vec<u8> {
    let event = |number: usize| {
        let mut event = weir_proto::event::v1::Event {
            event_name: "purchase".into(),
            user_id: format!("user-{number}"),
            properties: Some(prost_types::Struct::default()),
            ..Default::default()
        };
        for at in 0..1_000 {
            if event.encoded_len() > 4_150 {
                break;
            }
            event.properties.as_mut().unwrap().fields.insert(format!("property_{at}"), property(at));
        }
        event
    };
    ingest::IngestEventsRequest { events: (0..1_000).map(event).collect() }.encode_to_vec()
}

#[test]
fn the_largest_batches_that_are_meant_to_pass_do() {
    use prost_types::value::Kind;
    let schema = Schema::new(&descriptors());
    let message = schema.message("weir.ingest.v1.IngestEventsRequest").unwrap();
    let text = |at: usize| Kind::StringValue(format!("a value of some length, number {at}"));
    let number = |at: usize| Kind::NumberValue(at as f64);
    let list = |at: usize| {
        let item = prost_types::Value { kind: Some(Kind::NumberValue(at as f64)) };
        Kind::ListValue(prost_types::ListValue { values: vec![item; 20] })
    };
    let kinds: [(&str, &dyn Fn(usize) -> Kind); 3] =
        [("text", &text), ("numbers", &number), ("lists", &list)];
    for (name, kind) in kinds {
        let bytes = batch(|at| prost_types::Value { kind: Some(kind(at)) });
        assert!(bytes.len() > 4_000_000, "{}", bytes.len());
        let estimated =
            schema.measure(message, &bytes, LIMIT).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let (peak, _) = decode::<ingest::IngestEventsRequest>(&bytes);
        assert!(peak <= estimated && estimated < 3 * peak, "{name}: estimated {estimated}, took {peak}");
    }
}

/// The bytes of `key value` again and again, up to 8 MiB: what a request may have.
fn many(piece: &[u8]) -> Vec<u8> {
    piece.repeat((8 << 20) / piece.len())
}

/// `value` as field `number` of a message.
fn nested(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encoding::encode_varint(value.len() as u64, &mut bytes);
    bytes.extend_from_slice(value);
    bytes
}

#[test]
fn a_few_bytes_that_become_gigabytes_are_refused_without_building_them() {
    let schema = Schema::new(&descriptors());
    let event_list_of = |values: Vec<u8>| {
        // events[0].properties.fields["a"].list_value.values
        let properties = event_field("properties");
        let entry = [nested(1, b"a"), nested(2, &nested(6, &values))].concat();
        nested(1, &nested(properties, &nested(1, &entry)))
    };
    for (name, bytes, field) in [
        ("weir.ingest.v1.IngestEventsRequest", many(&[0x0a, 0]), "events"),
        ("weir.analytics.v1.QueryTimeSeriesRequest", many(&[0x22, 0]), "measures"),
        ("weir.analytics.v1.QueryFunnelRequest", many(&[0x12, 0]), "steps"),
        (
            "weir.ingest.v1.IngestEventsRequest",
            event_list_of(many(&[0x0a, 0])),
            "events.properties.fields.value.list_value.values",
        ),
        ("google.protobuf.Struct", many(&nested(1, &[])), "fields"),
    ] {
        let message = schema.message(name).unwrap();
        let mut refused = None;
        let peak = allocator::peak(|| refused = schema.measure(message, &bytes, LIMIT).err());
        let refused = refused.unwrap_or_else(|| panic!("{name} {field} was accepted"));
        assert!(refused.field.starts_with(field), "{name}: {refused:?}");
        assert!(peak < 10_000, "{name} {field}: refusing it took {peak} bytes");
    }
}

#[test]
fn what_lies_beyond_the_message_around_it_is_counted() {
    // prost notices only afterwards that the list is longer than the event that it is in.
    let schema = Schema::new(&descriptors());
    let list = nested(event_field("properties"), &many(&nested(1, b"")));
    let bytes = [&[0x0a, 1], list.as_slice()].concat();
    let refused =
        schema.measure(schema.message("weir.ingest.v1.IngestEventsRequest").unwrap(), &bytes, LIMIT);
    assert_eq!(refused.unwrap_err().field, "events.properties.fields");
}

#[test]
fn what_is_repeated_but_kept_once_costs_once() {
    let schema = Schema::new(&descriptors());
    // `event` is no list: a second one is merged into the first.
    let bytes = [0x0a, 0].repeat(100_000);
    let estimated =
        schema.measure(schema.message("weir.ingest.v1.IngestEventRequest").unwrap(), &bytes, LIMIT);
    assert!(estimated.unwrap() < 10_000);
}

#[test]
fn nesting_costs_no_stack() {
    let schema = Schema::new(&descriptors());
    let message = schema.message("google.protobuf.Value").unwrap();
    let mut bytes = Vec::new();
    for _ in 0..3_000 {
        bytes = nested(6, &nested(1, &bytes));
    }
    let estimated = schema.measure(message, &bytes, LIMIT).unwrap();
    assert!(prost_types::Value::decode(bytes.as_slice()).is_err());
    assert!(decode::<prost_types::Value>(&bytes).0 <= estimated);
}

fn event_field(name: &str) -> u8 {
    let set = descriptors();
    let file = set.file.iter().find(|file| file.package() == "weir.event.v1").unwrap();
    let event = file.message_type.iter().find(|message| message.name() == "Event").unwrap();
    let field = event.field.iter().find(|field| field.name() == name).unwrap();
    u8::try_from(field.number()).unwrap()
}
