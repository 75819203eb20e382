//! Events of a log that every test knows by their offset.

use std::{ops::Range, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use uuid::Uuid;
use weir_proto::{
    event::v1::{Event, EventRecord},
    time::timestamp,
};
use weir_store::{CleanBatch, Decoder, Snapshot, Store, encode::Encoder, shape};

/// The project of most events; every fifth is another's.
pub(crate) const PROJECT: &str = "shop";
pub(crate) const START_MICROS: i64 = 1_780_000_000_000_000;
const STEP_MICROS: i64 = 1_000_000;

pub(crate) fn project(offset: u64) -> &'static str {
    if offset.is_multiple_of(5) { "other shop/ü" } else { PROJECT }
}

pub(crate) fn user(offset: u64) -> String {
    format!("user-{}", offset % 7)
}

/// The event at an offset of the log.
pub(crate) fn event(offset: u64) -> EventRecord {
    let mut fields = vec![("plan", Kind::StringValue(format!("plan {}", offset % 3)))];
    if offset.is_multiple_of(2) {
        fields.push(("price", Kind::NumberValue(offset as f64 / 4.0)));
    }
    if offset.is_multiple_of(11) {
        fields.push(("trial", Kind::BoolValue(offset.is_multiple_of(22))));
        fields.push(("plan 2", Kind::NullValue(0)));
    }
    let properties =
        fields.into_iter().map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) })).collect();
    let time = START_MICROS + offset as i64 * STEP_MICROS;
    let anonymous = offset % 7 == 6;
    let event = Event {
        event_id: Uuid::from_u128(u128::from(offset) << 64 | 7).to_string(),
        event_name: ["view", "add", "buy"][offset as usize % 3].to_owned(),
        event_type: 1,
        user_id: if anonymous { String::new() } else { user(offset) },
        anonymous_id: if anonymous { user(offset) } else { String::new() },
        event_time: Some(timestamp(time)),
        properties: Some(Struct { fields: properties }),
        ..Event::default()
    };
    EventRecord {
        receive_time_micros: time + 5,
        corrected_time_micros: time,
        event: Some(event),
        ..EventRecord::default()
    }
}

/// The clean batch of a range of offsets.
pub(crate) fn batch(offsets: Range<u64>) -> CleanBatch {
    let mut events: Vec<(Arc<str>, RecordBatch)> = Vec::new();
    for of in [PROJECT, "other shop/ü"] {
        let mut encoder = Encoder::default();
        for offset in offsets.clone().filter(|offset| project(*offset) == of) {
            let late = offset.is_multiple_of(13);
            encoder.push_record(&event(offset).encode_to_vec(), offset, late).unwrap();
        }
        events.push((of.into(), encoder.finish()));
    }
    let watermark_micros = START_MICROS + offsets.end as i64 * STEP_MICROS;
    CleanBatch { start: offsets.start, end: offsets.end, watermark_micros, events }
}

/// All events of a snapshot by offset, sorted; one that is there twice is there twice.
pub(crate) async fn events(store: &Store, snapshot: &Snapshot) -> Vec<(u64, EventRecord)> {
    let mut batches = snapshot.hot.clone();
    for segment in &snapshot.segments {
        let file =
            store.objects().get(&segment.path).await.unwrap().expect("the file of a live segment is there");
        let rows = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        batches.extend(rows.map(Result::unwrap));
    }
    let mut events = Vec::new();
    for batch in &batches {
        let batch = shape::plain(batch).unwrap();
        let decoder = Decoder::new(&batch).unwrap();
        events.extend((0..batch.num_rows()).map(|row| (decoder.offset(row), decoder.record(row))));
    }
    events.sort_by_key(|(offset, _)| *offset);
    events
}

/// Asserts that a snapshot holds exactly the events below each partition's end: here the one of partition 0.
pub(crate) async fn assert_whole(store: &Store, snapshot: &Snapshot) {
    let end = snapshot.next_offsets[&0];
    let found = events(store, snapshot).await;
    let offsets: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
    let expected: Vec<u64> = (0..end).filter(|offset| project(*offset) == &*snapshot.project).collect();
    assert_eq!(offsets, expected, "each offset below {end} is there once");
    for (offset, record) in found {
        assert_eq!(record, event(offset), "the event of offset {offset} is as it was");
    }
}

/// Awaits something that is bound to happen; a test that hangs says what it waited for.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(done) => done,
        Err(_) => panic!("waited in vain until {what}"),
    }
}
