//! The processor of one partition, pure: records in, decided events to the sinks, micro-batches out. No I/O and no clock; time
//! comes with the records.

use weir_log::{Offset, RecordBatch, RecordRef};

use crate::{
    decode::{self, Event, Plan, Slot},
    dedup::{Arrival, Fingerprinter, Window},
    reject::{self, Rejection},
    sink::{Chunk, Outcome, Rollups, Sink},
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
        let nothing = Plan::nothing();
        let Self { window, fingerprinter, arrivals, duplicate, .. } = self;
        let mut records = batch.iter().take_while(|record| record.offset < below).peekable();
        while records.peek().is_some() {
            arrivals.clear();
            arrivals.extend(records.by_ref().take(CHUNK).map(|record| {
                let event = accept(&nothing, &record, &mut [], &mut []);
                arrival(&record, event.as_ref().ok(), fingerprinter)
            }));
            window.admit(arrivals, duplicate);
        }
    }

    /// Decides about the records of `chunk`, filling the rest of it.
    fn decide<'a>(&mut self, chunk: &mut Chunk<'a>) {
        let Self { plan, window, fingerprinter, arrivals, duplicate } = self;
        let count = chunk.records.len();
        (chunk.dimensions, chunk.numerics) = (plan.dimensions(), plan.numerics());
        chunk.slots.resize(count * chunk.dimensions, Slot::Missing);
        chunk.numbers.resize(count * chunk.numerics, None);
        chunk.outcomes.clear();
        arrivals.clear();
        for (index, record) in chunk.records.iter().enumerate() {
            let slots = &mut chunk.slots[index * chunk.dimensions..][..chunk.dimensions];
            let numbers = &mut chunk.numbers[index * chunk.numerics..][..chunk.numerics];
            let accepted = accept(plan, record, slots, numbers);
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
fn accept<'a>(
    plan: &Plan,
    record: &RecordRef<'a>,
    slots: &mut [Slot<'a>],
    numbers: &mut [Option<f64>],
) -> Result<Event<'a>, Rejection> {
    let event = decode::decode(plan, record.value, slots, numbers).map_err(Rejection::Malformed)?;
    reject::check(&event)?;
    Ok(event)
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
    position: Offset,
}

impl Shard {
    /// Goes on where the sink that is furthest behind ended. `decider` has been through what was before.
    pub fn new(decider: Decider, rollups: Rollups) -> Self {
        let position = rollups.next_offset();
        Self { decider, rollups, position }
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
        self.rollups.take(&chunk);
        self.position = if end == batch.len() { batch.next_offset() } else { batch.get(end).offset };
        self.rollups.advance(self.position);
        end
    }

    /// Says that retention deleted the records below `until` before they could be read.
    pub fn lose(&mut self, until: Offset) {
        self.rollups.lose(until);
        self.position = self.position.max(until);
    }
}
