//! The sink that aggregates: events become the cells of micro-batches.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use uuid::Uuid;
use weir_log::{Offset, RecordRef};
use weir_proto::{
    record::Event,
    rollup::v1::{MicroBatch, Tally},
};
use weir_rollup::{
    accumulate::{Accumulator, Observation, Revenue},
    definition::Catalog,
    field::write_number,
    imports::{self, Tallies},
    watermark,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Chunk, Imported, Lateness, Outcome, Sink};
use crate::{
    plan::Slot,
    reject::{DeadLetter, Rejection},
};

/// What a micro-batch holds at most; it is cut when any of these is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Source records.
    pub records: u64,
    /// Cells: some 100 bytes each, more with many users. The tally of an import counts as one.
    pub cells: usize,
    /// Bytes of dead letters that wait for it.
    pub dead_letter_bytes: usize,
}

/// What was cut off: dead letters first, then the batch that covers them.
#[derive(Debug, PartialEq)]
pub struct Cut {
    /// To be durable in the dead-letter topic before the batch is appended.
    pub dead_letters: Vec<DeadLetter>,
    /// The batch.
    pub batch: MicroBatch,
}

/// Aggregates events and keeps the tally of what became of every record.
#[derive(Debug)]
pub struct Rollups {
    catalog: Arc<Catalog>,
    accumulator: Accumulator,
    lateness: Lateness,
    /// Start of the batch in the making, and its end so far.
    start: Offset,
    next: Offset,
    watermark_micros: i64,
    tally: Tally,
    imports: Tallies,
    dead_letters: Vec<DeadLetter>,
    dead_letter_bytes: usize,
}

impl Rollups {
    /// Its name in `processing.v1.SinkStatus`.
    pub const NAME: &str = "rollups";

    /// Continues at the source offset `next` with the watermark so far. An event that reached the log more than
    /// `lateness` after its time is late.
    pub fn new(catalog: Arc<Catalog>, lateness: Duration, next: Offset, watermark_micros: i64) -> Self {
        Self {
            accumulator: Accumulator::new(Arc::clone(&catalog)),
            catalog,
            lateness: Lateness::new(lateness),
            start: next,
            next,
            watermark_micros,
            tally: Tally::default(),
            imports: Tallies::default(),
            dead_letters: Vec::new(),
            dead_letter_bytes: 0,
        }
    }

    /// Whether there is something to cut.
    pub fn is_pending(&self) -> bool {
        self.next > self.start
    }

    /// Whether the batch in the making has reached a limit.
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.tally.records >= limits.records
            || self.accumulator.cells() + self.imports.len() >= limits.cells
            || self.dead_letter_bytes >= limits.dead_letter_bytes
    }

    /// The highest append time taken since the log's clock was last set back, microseconds since the Unix epoch.
    pub fn watermark_micros(&self) -> i64 {
        self.watermark_micros
    }

    /// Says that retention deleted the records below `until` before they could be read.
    pub fn lose(&mut self, until: Offset) {
        self.tally.unavailable += until.saturating_sub(self.next);
        self.next = self.next.max(until);
    }

    /// Cuts the batch in the making off, as the micro-batch of `owner`.
    pub fn cut(&mut self, owner: Uuid) -> Cut {
        let batch = MicroBatch {
            owner: owner.as_bytes().to_vec(),
            start_offset: self.start,
            end_offset: self.next,
            watermark_micros: self.watermark_micros,
            tally: Some(std::mem::take(&mut self.tally)),
            definitions: self.catalog.ids().to_vec(),
            projects: self.accumulator.drain(),
            imports: self.imports.drain(),
        };
        self.start = self.next;
        self.dead_letter_bytes = 0;
        Cut { dead_letters: std::mem::take(&mut self.dead_letters), batch }
    }

    /// A batch without records that moves the watermark: nothing may be pending.
    pub fn heartbeat(&mut self, owner: Uuid, watermark_micros: i64) -> Cut {
        debug_assert!(!self.is_pending(), "a heartbeat covers no records");
        self.watermark_micros = watermark::advance(self.watermark_micros, watermark_micros);
        self.cut(owner)
    }

    fn reject(&mut self, record: &RecordRef<'_>, rejection: Rejection) {
        self.tally.dead_lettered += 1;
        self.dead_letter_bytes += record.key.len() + record.value.len();
        self.dead_letters.push(DeadLetter {
            offset: record.offset,
            key: Bytes::copy_from_slice(record.key),
            value: Bytes::copy_from_slice(record.value),
            rejection,
        });
    }
}

impl Sink for Rollups {
    fn next_offset(&self) -> Offset {
        self.next
    }

    fn take(&mut self, chunk: &Chunk<'_>) {
        let texts = Texts::of(chunk);
        let mut dimensions = Vec::with_capacity(chunk.dimensions);
        let first = chunk.records.partition_point(|record| record.offset < self.next);
        for index in first..chunk.records.len() {
            let record = &chunk.records[index];
            let append_micros = record.append_time_ms.saturating_mul(1000);
            self.watermark_micros = watermark::advance(self.watermark_micros, append_micros);
            self.tally.records += 1;
            match &chunk.outcomes[index] {
                Outcome::Fresh(event) => {
                    dimensions.clear();
                    dimensions.extend((0..chunk.dimensions).map(|slot| texts.get(chunk, index, slot)));
                    let (age, late) = self.lateness.of(record, event);
                    self.tally.counted += 1;
                    self.tally.late += u64::from(late);
                    self.accumulator.add(&Observation {
                        project: event.project,
                        time_micros: event.corrected_time_micros,
                        level: self.catalog.retention().finest(age),
                        late,
                        user: xxh3_64(event.actor().as_bytes()),
                        session: (!event.session_id.is_empty()).then(|| xxh3_64(event.session_id.as_bytes())),
                        revenue: revenue(event),
                        dimensions: &dimensions,
                        numerics: chunk.numbers(index),
                    });
                }
                Outcome::Duplicate => self.tally.duplicates += 1,
                Outcome::Rejected(rejection) => self.reject(record, *rejection),
            }
        }
        for Imported { index, import, project } in chunk.imported.iter().filter(|i| i.index >= first) {
            let outcome = match &chunk.outcomes[*index] {
                Outcome::Fresh(_) => imports::Outcome::Counted,
                Outcome::Duplicate => imports::Outcome::Duplicate,
                Outcome::Rejected(_) => imports::Outcome::DeadLettered,
            };
            self.imports.note(import, project, outcome);
        }
        if let Some(last) = chunk.records.last() {
            self.advance(last.offset + 1);
        }
    }

    fn advance(&mut self, next: Offset) {
        self.next = self.next.max(next);
    }
}

fn revenue<'a>(event: &Event<'a>) -> Option<Revenue<'a>> {
    let money = event.revenue.filter(|money| !money.is_empty())?;
    Some(Revenue { currency: money.currency, units: money.units, nanos: money.nanos })
}

/// The texts of numeric dimension values, which are rare: most values are texts already and stay borrowed.
struct Texts {
    text: String,
    /// Position in the chunk's slots and end in `text`, ascending.
    ends: Vec<(usize, usize)>,
}

impl Texts {
    fn of(chunk: &Chunk<'_>) -> Self {
        let mut texts = Self { text: String::new(), ends: Vec::new() };
        for (position, slot) in chunk.slots.iter().enumerate() {
            if let Slot::Number(number) = slot {
                write_number(*number, &mut texts.text);
                texts.ends.push((position, texts.text.len()));
            }
        }
        texts
    }

    #[inline]
    fn get<'t, 'a: 't>(&'t self, chunk: &Chunk<'a>, record: usize, slot: usize) -> Option<&'t str> {
        let position = record * chunk.dimensions + slot;
        match chunk.slots[position] {
            Slot::Missing => None,
            Slot::Text(text) => Some(text),
            Slot::Number(_) => {
                let at = self.ends.partition_point(|(p, _)| *p < position);
                let start = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
                Some(&self.text[start..self.ends[at].1])
            }
        }
    }
}
