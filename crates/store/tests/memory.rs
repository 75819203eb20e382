//! What flushing and compacting hold at once, whatever the size of events: a few row groups.

#![allow(clippy::unwrap_used, reason = "a panic with the error in it is how these tests fail")]

use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use uuid::Uuid;
use weir_proto::{
    event::v1::{Event, EventRecord},
    time::timestamp,
};
use weir_store::{CleanBatch, EventStore as _, Settings, Store, encode::Encoder};
use weir_tests::allocations::{self, Counting};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes of events that are compacted, and segments that they are in.
const BYTES: usize = 128 << 20;
const SEGMENTS: usize = 16;
/// The most that may be held. Two inputs, the pages that are read of them, and the row group that is written take some 100 MB.
const BOUND: usize = 160 << 20;
const START_MICROS: i64 = 1_780_000_000_000_000;

/// Text that does not compress, different for each seed.
fn text(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letters = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state % 75) as u8)
    });
    letters.take(length).collect()
}

fn event(offset: u64, bytes: usize) -> EventRecord {
    let texts = bytes.div_ceil(8000);
    let property = |number: usize| {
        let text = text(offset * 16 + number as u64, bytes / texts);
        (format!("text {number}"), Value { kind: Some(Kind::StringValue(text)) })
    };
    let time = START_MICROS + offset as i64;
    let event = Event {
        event_id: Uuid::from_u128(u128::from(offset)).to_string(),
        event_name: "wide".to_owned(),
        event_type: 1,
        user_id: format!("user-{}", offset % 7),
        event_time: Some(timestamp(time)),
        properties: Some(Struct { fields: (0..texts).map(property).collect() }),
        ..Event::default()
    };
    EventRecord {
        receive_time_micros: time,
        corrected_time_micros: time,
        event: Some(event),
        ..EventRecord::default()
    }
}

fn batch(start: u64, end: u64, bytes: usize) -> CleanBatch {
    let mut encoder = Encoder::default();
    for offset in start..end {
        encoder.push_record(&event(offset, bytes).encode_to_vec(), offset, false).unwrap();
    }
    let watermark_micros = START_MICROS + end as i64;
    CleanBatch { start, end, watermark_micros, events: vec![("shop".into(), encoder.finish())] }
}

/// Stores events of a size and compacts them: the most bytes that compaction held.
async fn peak(bytes: usize) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { compact_files: 4, ..Settings::folder(dir.path().join("store")) };
    let store = Store::open(settings).await.unwrap();
    let rows = (BYTES / SEGMENTS / bytes) as u64;
    for segment in 0..SEGMENTS as u64 {
        let batch = batch(segment * rows, (segment + 1) * rows, bytes);
        store.append(0, Uuid::now_v7(), batch).await.unwrap();
    }
    let before = allocations::begin();
    let compacted = store.compact(0).await.unwrap();
    let peak = allocations::peak() - before;
    assert!(compacted.fewer > SEGMENTS / 2 && compacted.passed_over.is_empty(), "{compacted:?}");
    let live = store.scan("shop", 1).await.unwrap().segments;
    assert_eq!(live.iter().map(|segment| segment.rows).sum::<u64>(), rows * SEGMENTS as u64);
    peak
}

#[tokio::test]
async fn compaction_holds_a_bounded_total_whatever_the_size_of_events() {
    for bytes in [600, 6_000, 50_000] {
        let peak = peak(bytes).await;
        println!("events of {bytes} bytes: {} MiB at most", peak >> 20);
        assert!(peak < BOUND, "events of {bytes} bytes: {} MiB", peak >> 20);
    }
}
