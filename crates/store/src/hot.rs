//! The hot part of a partition: accepted events that no published segment holds yet. Queries see them at once.
//!
//! A value that its owner replaces: nothing here waits or locks. Parts are shared, never changed.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::Int64Type,
};
use weir_rollup::watermark;

use crate::{manifest::State, schema::column, shape, texts, width};

/// So many parts of similar size are joined: fewer would be copied more often, more would be many to read.
const JOINED: usize = 8;
/// Rows up to which parts are joined: at most some 6 MB copied at a time.
const JOIN_UP_TO: usize = 32 << 10;
/// Bytes up to which they are joined, where rows are wide.
const JOIN_UP_TO_BYTES: usize = 8 << 20;

/// Clean events of a range of the log's offsets: what is accepted at a time.
#[derive(Clone, Debug)]
pub struct CleanBatch {
    /// First offset.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
    /// No event before this moment is expected anymore, microseconds since the Unix epoch.
    pub watermark_micros: i64,
    /// The events by project, as [`encode`](crate::encode) makes them; empty where no offset holds one that counts.
    pub events: Vec<(Arc<str>, RecordBatch)>,
}

/// Events of a range of offsets, in memory.
#[derive(Clone, Debug)]
pub struct Part {
    /// First offset.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
    /// No event before this moment is expected anymore, microseconds since the Unix epoch.
    pub watermark_micros: i64,
    /// The events by project, as [`encode`](crate::encode) makes them; batches without rows are left out.
    pub events: BTreeMap<Arc<str>, RecordBatch>,
}

impl Part {
    fn rows(&self) -> usize {
        self.events.values().map(RecordBatch::num_rows).sum()
    }

    fn bytes(&self) -> usize {
        self.events.values().map(width::bytes).sum()
    }

    /// The part without offsets below `from`.
    fn from(self: &Arc<Self>, from: u64) -> Arc<Self> {
        if from <= self.start {
            return Arc::clone(self);
        }
        let events =
            self.events.iter().map(|(project, batch)| (Arc::clone(project), events_from(batch, from)));
        Arc::new(Self {
            start: from,
            end: self.end.max(from),
            watermark_micros: self.watermark_micros,
            events: events.filter(|(_, batch)| batch.num_rows() > 0).collect(),
        })
    }

    /// Consecutive parts as one; `None` of none, or when their batches don't fit together.
    fn join(parts: &[Arc<Part>]) -> Option<Self> {
        let (first, last) = (parts.first()?, parts.last()?);
        let mut batches: BTreeMap<&Arc<str>, Vec<RecordBatch>> = BTreeMap::new();
        for (project, batch) in parts.iter().flat_map(|part| &part.events) {
            batches.entry(project).or_default().push(batch.clone());
        }
        let mut events = BTreeMap::new();
        for (project, batches) in batches {
            events.insert(Arc::clone(project), shape::join(&batches).ok()?);
        }
        let watermark_micros =
            parts.iter().map(|part| part.watermark_micros).fold(i64::MIN, watermark::advance);
        Some(Self { start: first.start, end: last.end, watermark_micros, events })
    }
}

/// Bytes that parts take, as they are added. Texts that several share count once.
#[derive(Default)]
struct Size {
    bytes: usize,
    shared: HashSet<*const u8>,
}

impl Size {
    fn of(parts: &[Arc<Part>]) -> usize {
        let mut size = Self::default();
        parts.iter().for_each(|part| size.add(part));
        size.bytes
    }

    fn add(&mut self, part: &Part) {
        for array in part.events.values().flat_map(RecordBatch::columns) {
            self.bytes += array.get_array_memory_size();
            if let Some(texts) = texts::shared(array)
                && !self.shared.insert(texts.values().as_ptr())
            {
                self.bytes -= texts.get_array_memory_size();
            }
        }
    }
}

fn events_from(batch: &RecordBatch, from: u64) -> RecordBatch {
    let offsets =
        batch.column_by_name(column::LOG_OFFSET).expect("events have offsets").as_primitive::<Int64Type>();
    let kept: BooleanArray =
        offsets.values().iter().map(|offset| Some(offset.cast_unsigned() >= from)).collect();
    filter_record_batch(batch, &kept).expect("one decision for each row")
}

/// A reader's look at the hot part of a partition.
#[derive(Clone, Debug)]
pub struct HotRead {
    /// Where it begins: every event below is in published segments.
    pub start: u64,
    /// Offset after the last accepted event.
    pub end: u64,
    /// No event before this moment is expected anymore, microseconds since the Unix epoch.
    pub watermark_micros: i64,
    /// An entry of the manifest by which the segments below `start` are published; there may be later ones.
    pub manifest_version: u64,
    /// As [`State::complete_since_micros`](crate::manifest::State::complete_since_micros).
    pub complete_since_micros: i64,
    /// The parts from the offset that was asked for, in order, without gaps.
    pub parts: Vec<Arc<Part>>,
}

impl HotRead {
    /// The same without what is below an offset.
    #[must_use]
    pub fn beyond(mut self, from: u64) -> Self {
        self.parts.retain(|part| part.end > from);
        for part in &mut self.parts {
            *part = part.from(from);
        }
        self
    }
}

/// The hot part of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Hot {
    start: u64,
    end: u64,
    watermark_micros: i64,
    manifest_version: u64,
    complete_since_micros: i64,
    parts: Vec<Arc<Part>>,
    /// Parts in front that are being flushed: they stay as they are.
    sealed: usize,
    bytes: usize,
}

impl Hot {
    /// Nothing yet, after a manifest's end.
    pub(crate) fn new(published: &State) -> Self {
        Self {
            start: published.next_offset,
            end: published.next_offset,
            watermark_micros: published.watermark_micros,
            manifest_version: published.version,
            complete_since_micros: published.complete_since_micros,
            parts: Vec::new(),
            sealed: 0,
            bytes: 0,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that the events take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events that the log took before this moment are missing, microseconds since the Unix epoch.
    pub(crate) fn complete_since_micros(&self) -> i64 {
        self.complete_since_micros
    }

    /// Takes the next batch; what it has below the end is here or published already. Offsets between the end and the batch's start,
    /// which the log has no longer, count as empty, and it is remembered that what came before the batch is not complete.
    pub(crate) fn push(&mut self, batch: CleanBatch) {
        let CleanBatch { start, end, watermark_micros, events } = batch;
        if end <= self.end {
            self.watermark_micros = self.watermark_micros.max(watermark_micros);
            return;
        }
        self.watermark_micros = watermark::advance(self.watermark_micros, watermark_micros);
        if start > self.end {
            self.complete_since_micros = self.complete_since_micros.max(watermark_micros);
        }
        let mut part = Part { start, end, watermark_micros, events: BTreeMap::new() };
        for (project, batch) in events.into_iter().filter(|(_, batch)| batch.num_rows() > 0) {
            part.events.insert(project, batch);
        }
        let mut part =
            if start < self.end { Arc::unwrap_or_clone(Arc::new(part).from(self.end)) } else { part };
        part.start = self.end;
        self.end = end;
        self.parts.push(Arc::new(part));
        self.join_small();
        self.bytes = Size::of(&self.parts);
    }

    /// Joins the last parts wherever enough are of one size or smaller, as a counter carries: each event is copied a few times, and
    /// few parts are left.
    fn join_small(&mut self) {
        for size in 0..=JOIN_UP_TO.ilog(JOINED) {
            let small = |part: &&Arc<Part>| part.rows().max(1).ilog(JOINED) <= size;
            let count = self.parts[self.sealed..].iter().rev().take_while(small).count();
            let joined = &self.parts[self.parts.len() - count..];
            let rows: usize = joined.iter().map(|part| part.rows()).sum();
            if count < JOINED || rows > JOIN_UP_TO {
                continue;
            }
            if joined.iter().map(|part| part.bytes()).sum::<usize>() > JOIN_UP_TO_BYTES {
                continue;
            }
            let Some(part) = Part::join(joined) else { return };
            self.parts.truncate(self.parts.len() - count);
            self.parts.push(Arc::new(part));
        }
    }

    /// The first parts, up to about so many bytes and at least one if there are any: they stay as they are from now on.
    pub(crate) fn seal(&mut self, bytes: usize) -> Vec<Arc<Part>> {
        let mut sum = Size::default();
        let within = |part: &&Arc<Part>| {
            let first = sum.bytes == 0;
            sum.add(part);
            first || sum.bytes <= bytes
        };
        let sealed: Vec<_> = self.parts.iter().take_while(within).cloned().collect();
        self.sealed = self.sealed.max(sealed.len());
        sealed
    }

    /// Forgets what is below an offset because segments hold it, published by this entry of the manifest.
    pub(crate) fn published(&mut self, below: u64, watermark_micros: i64, manifest_version: u64) {
        self.manifest_version = self.manifest_version.max(manifest_version);
        self.watermark_micros = self.watermark_micros.max(watermark_micros);
        if below <= self.start {
            return;
        }
        let before = self.parts.len();
        self.parts.retain(|part| part.end > below);
        if let Some(first) = self.parts.first_mut() {
            *first = first.from(below);
        }
        self.sealed = self.sealed.saturating_sub(before - self.parts.len());
        self.bytes = Size::of(&self.parts);
        self.start = below;
        self.end = self.end.max(below);
    }

    /// What there is from an offset on.
    pub(crate) fn read(&self, from: u64) -> HotRead {
        let parts = self.parts.iter().filter(|part| part.end > from).map(|part| part.from(from)).collect();
        HotRead {
            start: self.start,
            end: self.end,
            watermark_micros: self.watermark_micros,
            manifest_version: self.manifest_version,
            complete_since_micros: self.complete_since_micros,
            parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_proto::record::Event;

    use super::*;
    use crate::encode::{Encoder, Row};

    fn batch(start: u64, end: u64) -> CleanBatch {
        let mut encoder = Encoder::default();
        for offset in start..end {
            let user = format!("a user with a name of more than twelve bytes: {offset}");
            let event = Event { event_name: "view", user_id: &user, ..Event::default() };
            encoder.push(&Row { offset, event, ..Row::default() });
        }
        CleanBatch {
            start,
            end,
            watermark_micros: end.cast_signed(),
            events: vec![("p".into(), encoder.finish())],
        }
    }

    fn offsets(read: &HotRead) -> Vec<u64> {
        let batches = read.parts.iter().flat_map(|part| part.events.values());
        let columns = batches
            .map(|batch| batch.column_by_name(column::LOG_OFFSET).unwrap().as_primitive::<Int64Type>());
        columns.flat_map(|column| column.values().iter().map(|offset| offset.cast_unsigned())).collect()
    }

    #[test]
    fn small_parts_are_joined_and_have_no_spare_room() {
        let mut hot = Hot::new(&State::default());
        for start in 0..1000 {
            hot.push(batch(start, start + 1));
        }
        assert!(hot.parts.len() < 4 * JOINED, "{} parts", hot.parts.len());
        assert!(
            hot.bytes() < 1000 * 150,
            "{} bytes for 1000 rows of numbers and a name of 50 bytes",
            hot.bytes()
        );
        assert_eq!(offsets(&hot.read(0)), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn texts_that_parts_share_are_counted_once() {
        let mut encoder = Encoder::default();
        let names: Vec<String> = (0..100).map(|name| format!("{name:1000}")).collect();
        let mut part = |start: u64| {
            for (offset, name) in (start..).zip(&names) {
                encoder.push(&Row {
                    offset,
                    event: Event { event_name: name, ..Event::default() },
                    ..Row::default()
                });
            }
            let events = [("p".into(), encoder.finish())].into();
            Arc::new(Part { start, end: start + 100, watermark_micros: 0, events })
        };
        let parts = [part(0), part(100), part(200)];
        let (one, all) = (Size::of(&parts[..1]), Size::of(&parts));
        assert!(one > 100_000 && all < one + 20_000, "{one} bytes of one, {all} of three");
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A batch that begins so far before the end, with so many offsets.
        Push(u64, u64),
        Seal(usize),
        /// The chain reaches so far beyond the start.
        Published(u64),
        Read(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..4, 0u64..9).prop_map(|(before, count)| Step::Push(before, count)),
            1 => (0usize..40_000).prop_map(Step::Seal),
            1 => (0u64..12).prop_map(Step::Published),
            1 => (0u64..30).prop_map(Step::Read),
        ]
    }

    proptest! {
        #[test]
        fn every_accepted_offset_is_there_once_until_it_is_published(steps in prop::collection::vec(step(), 0..40)) {
            let mut hot = Hot::new(&State::default());
            let mut sealed: Vec<Arc<Part>> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(before, count) => {
                        let start = hot.end().saturating_sub(before);
                        hot.push(batch(start, start + count));
                    }
                    Step::Seal(bytes) => {
                        sealed = hot.seal(bytes);
                        prop_assert_eq!(sealed.is_empty(), hot.start == hot.end);
                    }
                    Step::Published(beyond) => {
                        let below = hot.start + beyond;
                        hot.published(below, 0, 1);
                        sealed.retain(|part| part.start >= below);
                    }
                    Step::Read(from) => {
                        let read = hot.read(from);
                        prop_assert_eq!(offsets(&read), (from.max(hot.start)..hot.end).collect::<Vec<_>>());
                    }
                }
                let ends: Vec<u64> = hot.parts.iter().map(|part| part.end).collect();
                let starts: Vec<u64> = hot.parts.iter().map(|part| part.start).collect();
                let gapless: Vec<u64> = std::iter::once(hot.start).chain(ends.iter().copied()).collect();
                prop_assert_eq!(&gapless[..starts.len()], &starts[..]);
                prop_assert_eq!(*gapless.last().unwrap(), hot.end);
                for part in &sealed {
                    prop_assert!(hot.parts.iter().any(|held| Arc::ptr_eq(held, part)), "sealed parts stay as they are");
                }
                prop_assert_eq!(hot.bytes, Size::of(&hot.parts));
            }
        }
    }
}
