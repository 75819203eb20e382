//! The processor of one partition, pure: records in, decided events to the sinks, micro-batches out. No I/O and no clock; time
//! comes with the records.

use weir_log::{Offset, RecordBatch, RecordRef};
use weir_proto::record::{self, Event, Parts};

use crate::{
    dedup::{Arrival, Fingerprinter, Window},
    plan::{Plan, Slot},
    reject::{self, Rejection},
    sink::{Chunk, Events, Imported, Outcome, Rollups, Sink},
};

/// Records that go through all stages together: enough for lookups to overlap, few enough to stay in the cache.
const CHUNK: usize = 128;

/// Decides about records: decodes, checks and deduplicates them.
#[derive(Debug)]
pub struct Decider {
    plan: Plan,
    window: Window,
    fingerprinter: Fingerprinter,
    arrivals: Vec<Arrival>,
    duplicate: Vec<bool>,
}

impl Decider {
    /// A decider that fills the plan's slots.
    pub fn new(plan: Plan, window: Window) -> Self {
        let fingerprinter = Fingerprinter::default();
        Self {
            plan,
            window,
            fingerprinter,
            arrivals: Vec::with_capacity(CHUNK),
            duplicate: Vec::with_capacity(CHUNK),
        }
    }

    /// Rebuilds the deduplication window: takes records that were decided before in, for what they leave in it.
    pub fn recall(&mut self, batch: &RecordBatch, below: Offset) {
        let Self { window, fingerprinter, arrivals, duplicate, .. } = self;
        let mut records = batch.iter().take_while(|record| record.offset < below).peekable();
        while records.peek().is_some() {
            arrivals.clear();
            let mut parts = Parts::default();
            arrivals.extend(records.by_ref().take(CHUNK).map(|record| {
                let event = accept(&record, &mut parts);
                arrival(&record, event.as_ref().ok(), fingerprinter)
            }));
            window.admit(arrivals, duplicate);
        }
    }

    /// See [`Window::rebuild_before_set_back_ms`].
    pub(crate) fn rebuild_before_set_back_ms(&self) -> Option<i64> {
        self.window.rebuild_before_set_back_ms()
    }

    /// Decides about the records of `chunk`, filling the rest of it.
    fn decide<'a>(&mut self, chunk: &mut Chunk<'a>) {
        let Self { plan, window, fingerprinter, arrivals, duplicate } = self;
        let count = chunk.records.len();
        (chunk.dimensions, chunk.numerics) = (plan.dimensions(), plan.numerics());
        chunk.slots.resize(count * chunk.dimensions, Slot::Missing);
        chunk.numbers.resize(count * chunk.numerics, None);
        chunk.outcomes.clear();
        chunk.imported.clear();
        arrivals.clear();
        for (index, record) in chunk.records.iter().enumerate() {
            let slots = &mut chunk.slots[index * chunk.dimensions..][..chunk.dimensions];
            let numbers = &mut chunk.numbers[index * chunk.numerics..][..chunk.numerics];
            let read = read(record, &mut chunk.parts);
            if let Ok(event) = &read
                && let Some(import) = event.import()
            {
                chunk.imported.push(Imported { index, import, project: event.project });
            }
            let accepted = read.and_then(check);
            if let Ok(event) = &accepted {
                plan.fill(event, &chunk.parts, slots, numbers);
            }
            arrivals.push(arrival(record, accepted.as_ref().ok(), fingerprinter));
            chunk.outcomes.push(accepted.map_or_else(Outcome::Rejected, Outcome::Fresh));
        }
        window.admit(arrivals, duplicate);
        for (outcome, duplicate) in chunk.outcomes.iter_mut().zip(duplicate.iter()) {
            if *duplicate {
                *outcome = Outcome::Duplicate;
            }
        }
    }
}

/// What counts as an event, while processing as well as while rebuilding.
#[inline]
fn accept<'a>(record: &RecordRef<'a>, parts: &mut Parts<'a>) -> Result<Event<'a>, Rejection> {
    read(record, parts).and_then(check)
}

#[inline]
fn read<'a>(record: &RecordRef<'a>, parts: &mut Parts<'a>) -> Result<Event<'a>, Rejection> {
    record::read(record.value, parts).map_err(Rejection::Malformed)
}

#[inline]
fn check(event: Event<'_>) -> Result<Event<'_>, Rejection> {
    reject::check(&event).map(|()| event)
}

#[inline]
fn arrival(record: &RecordRef<'_>, event: Option<&Event<'_>>, fingerprinter: &mut Fingerprinter) -> Arrival {
    Arrival {
        append_time_ms: record.append_time_ms,
        fingerprint: event.map(|event| fingerprinter.of(event.project, event.event_id)),
    }
}

/// The processor of one partition.
#[derive(Debug)]
pub struct Shard {
    decider: Decider,
    rollups: Rollups,
    events: Events,
    position: Offset,
}

impl Shard {
    /// Goes on where the sink that is furthest behind ended. `decider` has been through what was before.
    pub fn new(decider: Decider, rollups: Rollups, events: Events) -> Self {
        let position = rollups.next_offset().min(events.next_offset());
        Self { decider, rollups, events, position }
    }

    /// Next source offset to be read.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// The rollups.
    pub fn rollups(&self) -> &Rollups {
        &self.rollups
    }

    /// The rollups, to cut a batch off.
    pub fn rollups_mut(&mut self) -> &mut Rollups {
        &mut self.rollups
    }

    /// The events on their way to the store.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The events on their way to the store, to cut a batch off.
    pub fn events_mut(&mut self) -> &mut Events {
        &mut self.events
    }

    /// Processes some records of a batch, from the one at `index` on, and returns the index to continue with: `batch.len()`
    /// when it is through. In between the caller may cut.
    pub fn step(&mut self, batch: &RecordBatch, index: usize) -> usize {
        let end = batch.len().min(index + CHUNK);
        let mut chunk = Chunk {
            records: (index..end).map(|i| batch.get(i)).collect(),
            outcomes: Vec::with_capacity(end - index),
            ..Chunk::default()
        };
        self.decider.decide(&mut chunk);
        self.position = if end == batch.len() { batch.next_offset() } else { batch.get(end).offset };
        for sink in [&mut self.rollups as &mut dyn Sink, &mut self.events] {
            sink.take(&chunk);
            sink.advance(self.position);
        }
        end
    }

    /// Says that retention deleted the records below `until` before they could be read. The batch of events in the making is cut off
    /// before. Where nothing follows, `log_time_micros` is a moment before which the log has taken everything.
    pub fn lose(&mut self, until: Offset, log_time_micros: Option<i64>) {
        self.rollups.lose(until);
        self.events.lose(until, log_time_micros);
        self.position = self.position.max(until);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use prost::Message;
    use uuid::Uuid;
    use weir_log::RecordBatchBuilder;
    use weir_proto::{event::v1 as proto, rollup::v1::Tally};
    use weir_rollup::{
        definition::{Catalog, CatalogSpec},
        level::Retention,
    };

    use super::*;
    use crate::sink::Limits;

    const LIMITS: Limits = Limits { records: 100, cells: 1000, dead_letter_bytes: 1000 };

    fn shard(next: Offset) -> Shard {
        let spec = CatalogSpec {
            dimensions: vec!["size".to_owned()],
            numerics: vec![],
            definitions: vec![],
            retention: Retention::FOREVER,
        };
        let catalog = Arc::new(Catalog::new(spec).unwrap());
        let plan = Plan::new(catalog.dimension_fields(), catalog.numeric_fields());
        let window = Window::new(Duration::from_secs(10), 1000);
        let rollups = Rollups::new(catalog, Duration::from_secs(60), next, 0);
        Shard::new(Decider::new(plan, window), rollups, Events::new(Duration::from_secs(60), 3))
    }

    fn event(id: u64) -> Vec<u8> {
        let size = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(0.5 + id as f64)) };
        let event = proto::Event {
            event_id: id.to_string(),
            event_name: "view".to_owned(),
            user_id: "u".to_owned(),
            properties: Some(prost_types::Struct { fields: [("size".to_owned(), size)].into() }),
            ..Default::default()
        };
        let record = proto::EventRecord { project: "p".to_owned(), event: Some(event), ..Default::default() };
        record.encode_to_vec()
    }

    fn batch(values: &[(Offset, Vec<u8>)], next: Offset) -> RecordBatch {
        let mut builder = RecordBatchBuilder::default();
        values.iter().for_each(|(offset, value)| builder.push(*offset, 1000, b"k", value));
        builder.build(next)
    }

    fn run(shard: &mut Shard, batch: &RecordBatch) {
        let mut index = 0;
        while index < batch.len() {
            index = shard.step(batch, index);
        }
    }

    #[test]
    fn holes_belong_to_the_batch_and_numbers_become_texts() {
        let mut shard = shard(0);
        run(&mut shard, &batch(&[(2, event(1)), (5, event(2)), (6, event(1))], 9));
        assert_eq!(shard.position(), 9);
        let cut = shard.rollups_mut().cut(Uuid::nil());
        assert_eq!((cut.batch.start_offset, cut.batch.end_offset), (0, 9));
        let tally = Tally { records: 3, counted: 2, duplicates: 1, late: 0, ..Default::default() };
        assert_eq!(cut.batch.tally.map(|t| Tally { late: 0, ..t }), Some(tally));
        let texts = format!("{:?}", cut.batch.projects);
        assert!(texts.contains("\"1.5\"") && texts.contains("\"2.5\""), "{texts}");
        assert!(!shard.rollups().is_pending());
    }

    #[test]
    fn a_sink_skips_what_it_has() {
        let mut shard = shard(5);
        assert_eq!(shard.position(), 3, "the least of both sinks");
        let records: Vec<_> = (0..10).map(|n| (n, event(n % 9))).collect();
        run(&mut shard, &batch(&records, 10));
        let stored = shard.events_mut().cut().unwrap();
        assert_eq!((stored.start, stored.end, stored.events[0].1.num_rows()), (3, 10, 6));
        assert!(shard.events_mut().cut().is_none());
        let cut = shard.rollups_mut().cut(Uuid::nil());
        assert_eq!((cut.batch.start_offset, cut.batch.end_offset), (5, 10));
        let tally = cut.batch.tally.unwrap();
        assert_eq!((tally.counted, tally.duplicates), (4, 1));
    }

    #[test]
    fn what_was_lost_is_a_gap_before_the_next_batch_of_events() {
        let mut shard = shard(0);
        run(&mut shard, &batch(&[(0, event(1)), (4, event(2))], 5));
        let before = shard.events_mut().cut().unwrap();
        assert_eq!((before.start, before.end), (3, 5));
        shard.lose(20, None);
        assert!(shard.events_mut().cut().is_none());
        run(&mut shard, &batch(&[(20, event(3))], 21));
        let after = shard.events_mut().cut().unwrap();
        assert_eq!((after.start, after.end), (20, 21));
        // Where nothing follows, a batch without events says so.
        shard.lose(30, Some(7_000_000));
        let nothing = shard.events_mut().cut().unwrap();
        assert_eq!((nothing.start, nothing.end, nothing.watermark_micros), (30, 30, 7_000_000));
        assert!(nothing.events.is_empty());
        assert!(shard.events_mut().cut().is_none());
    }

    #[test]
    fn what_was_recalled_is_a_duplicate() {
        let mut through = shard(0);
        run(&mut through, &batch(&[(0, event(1)), (1, b"\xff".to_vec()), (2, event(1)), (3, event(2))], 4));
        assert_eq!(through.rollups_mut().cut(Uuid::nil()).batch.tally.unwrap().duplicates, 1);

        let mut resumed = shard(2);
        resumed.decider.recall(&batch(&[(0, event(1)), (1, b"\xff".to_vec()), (2, event(1))], 3), 2);
        run(&mut resumed, &batch(&[(2, event(1)), (3, event(2))], 4));
        let tally = resumed.rollups_mut().cut(Uuid::nil()).batch.tally.unwrap();
        assert_eq!((tally.counted, tally.duplicates), (1, 1));
    }

    #[test]
    fn dead_letters_are_whole_and_fill_a_batch() {
        let mut shard = shard(0);
        run(&mut shard, &batch(&[(0, b"\xff".repeat(2000)), (1, event(1))], 2));
        assert!(shard.rollups().is_full(&LIMITS));
        let cut = shard.rollups_mut().cut(Uuid::nil());
        assert_eq!(cut.dead_letters.len(), 1);
        assert_eq!(cut.dead_letters[0].value.len(), 2000);
        assert!(cut.dead_letters[0].rejection.to_string().starts_with("not an EventRecord"));
        assert!(!shard.rollups().is_full(&LIMITS));
    }
}
