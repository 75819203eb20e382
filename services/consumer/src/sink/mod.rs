//! Where decided events go. Every sink remembers by itself how far it has come and skips what it has, so that one may be
//! ahead of another after a crash; the shard reads from the least of them.
//!
//! There are two: [`Rollups`] and the event store's [`Events`].

mod events;
mod rollups;

use std::time::Duration;

pub use events::Events;
pub use rollups::{Cut, Limits, Rollups};

use weir_log::{Offset, RecordRef};
use weir_proto::record::{Event, Parts};
use weir_rollup::imports::ImportId;

use crate::{plan::Slot, reject::Rejection};

/// Takes events in order.
pub trait Sink {
    /// The first source offset that it has not taken: earlier records are not its concern any more.
    fn next_offset(&self) -> Offset;

    /// Takes the records from [`Sink::next_offset`] on and passes over those before.
    fn take(&mut self, chunk: &Chunk<'_>);

    /// Says that there is nothing more below `next`, holes included.
    fn advance(&mut self, next: Offset);
}

/// When an event counts as late: lateness is about live traffic, so an event of an import never does.
#[derive(Clone, Copy, Debug)]
struct Lateness {
    micros: i64,
}

impl Lateness {
    fn new(lateness: Duration) -> Self {
        Self { micros: i64::try_from(lateness.as_micros()).unwrap_or(i64::MAX) }
    }

    /// How old an event was when the log took it, microseconds, and whether that was late.
    fn of(self, record: &RecordRef<'_>, event: &Event<'_>) -> (i64, bool) {
        let age = record.append_time_ms.saturating_mul(1000).saturating_sub(event.corrected_time_micros);
        (age, age > self.micros && !event.is_import())
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are fresh, and a box would be an allocation for each event"
)]
pub enum Outcome<'a> {
    /// A new event.
    Fresh(Event<'a>),
    /// Its `event_id` was there within the window.
    Duplicate,
    /// No event.
    Rejected(Rejection),
}

/// A record that belongs to an import.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Imported<'a> {
    /// Its index in the chunk.
    pub index: usize,
    /// The import.
    pub import: &'a ImportId,
    /// The project that the record names.
    pub project: &'a str,
}

/// Some records in order, with what became of each.
#[derive(Debug, Default)]
pub struct Chunk<'a> {
    /// The records.
    pub records: Vec<RecordRef<'a>>,
    /// For each what became of it.
    pub outcomes: Vec<Outcome<'a>>,
    /// Those that belong to imports, in order; none of them for live traffic.
    pub imported: Vec<Imported<'a>>,
    /// The contexts and properties of their events.
    pub parts: Parts<'a>,
    /// Dimension slots, `dimensions` for each record.
    pub slots: Vec<Slot<'a>>,
    /// Numeric slots, `numerics` for each record.
    pub numbers: Vec<Option<f64>>,
    /// Dimension slots of a record.
    pub dimensions: usize,
    /// Numeric slots of a record.
    pub numerics: usize,
}

impl<'a> Chunk<'a> {
    /// The dimension slots of the record at `index`.
    pub fn slots(&self, index: usize) -> &[Slot<'a>] {
        &self.slots[index * self.dimensions..][..self.dimensions]
    }

    /// The numeric slots of the record at `index`.
    pub fn numbers(&self, index: usize) -> &[Option<f64>] {
        &self.numbers[index * self.numerics..][..self.numerics]
    }
}
