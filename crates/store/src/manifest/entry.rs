//! What an entry of the chain says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    schema::Kind,
    segment::{ROW_GROUP, ROW_GROUP_BYTES},
};

/// One numbered file of a partition's chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// [`FORMAT`](super::FORMAT) when it was written.
    pub format: u32,
    /// Its number in the chain, from 1.
    pub version: u64,
    /// Who wrote it.
    pub writer: Uuid,
    /// When, microseconds since the Unix epoch by the writer's clock.
    pub time_micros: i64,
    /// What changes.
    pub change: Change,
}

/// A change of the set of live segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// Events of the log's offsets `start..end` of the partition: all of them, and no others. Valid only where the chain ends at
    /// `start`.
    Append {
        /// First offset.
        start: u64,
        /// Offset after the last.
        end: u64,
        /// No event before this moment is expected anymore, microseconds since the Unix epoch.
        watermark_micros: i64,
        /// As [`State::complete_since_micros`](super::State::complete_since_micros).
        #[serde(default = "always", skip_serializing_if = "is_always")]
        complete_since_micros: i64,
        /// Where the events are; empty where none of the offsets held one that counts.
        segments: Vec<Segment>,
    },
    /// Other segments in place of some. Valid only while all removed ones are live.
    Replace {
        /// Segments that are no longer live.
        removed: Vec<Uuid>,
        /// Segments that hold what is to stay of their events.
        added: Vec<Segment>,
        /// Why.
        reason: Reason,
    },
    /// Files that no entry names, and none may name from now on: they are about to be deleted. Valid only while none of them is
    /// live.
    Discard {
        /// Their names, relative to the store's root.
        paths: Vec<String>,
    },
}

/// Why segments were replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// To have fewer, larger ones with the same events.
    Compaction,
    /// Because their events are older than they are kept.
    Retention,
    /// Because a user is to be forgotten.
    Erasure,
}

/// An immutable Parquet file with events of one project and partition, in the order (user hash, time, log offset).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Its identity; UUIDv7, so that names sort by time of writing.
    pub id: Uuid,
    /// The project.
    pub project: String,
    /// The object's name, relative to the store's root.
    pub path: String,
    /// Events.
    pub rows: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// XXH3 (64 bit) of the file, 16 hexadecimal digits.
    pub checksum: String,
    /// First and last offset of its events in the log.
    pub offsets: Span<u64>,
    /// Earliest and latest time of its events, microseconds since the Unix epoch.
    pub times: Span<i64>,
    /// Least and greatest user hash.
    pub users: Span<i64>,
    /// Events that came late.
    pub late: u64,
    /// Names of the columns of chosen properties: `p_plan`, `n_price`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Events by name, unless there are too many names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<BTreeMap<String, u64>>,
    /// How often each property occurs, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Kinds>,
    /// Whether further properties occur that are not in `properties`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_properties: bool,
    /// Columns with values that take more than [`Segment::NARROW`] bytes a row, on average over some row group, and how many. `None`
    /// in segments that were written before this was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wide: Option<BTreeMap<String, u64>>,
}

#[cfg(test)]
impl Segment {
    /// One with a row, of which nothing else is known.
    pub(crate) fn example(path: &str) -> Self {
        Self {
            id: Uuid::now_v7(),
            project: String::new(),
            path: path.to_owned(),
            rows: 1,
            bytes: 1,
            checksum: String::new(),
            offsets: Span::of(0),
            times: Span::of(0),
            users: Span::of(0),
            late: 0,
            columns: Vec::new(),
            names: None,
            properties: BTreeMap::new(),
            more_properties: false,
            wide: None,
        }
    }
}

impl Segment {
    /// Names in [`Segment::names`] at most: the rest of a product's events is counted from the file.
    pub const MAX_NAMES: usize = 200;
    /// Keys in [`Segment::properties`] at most; the most frequent ones are named.
    pub const MAX_PROPERTIES: usize = 200;
    /// Columns that take up to so many bytes a row are not in [`Segment::wide`].
    pub const NARROW: u64 = 64;

    /// What a reader holds of the file at most: a row group as it is in the file. Bytes.
    pub(crate) fn row_group_bytes(&self) -> u64 {
        row_group_bytes(self.bytes, self.rows)
    }
}

/// What a reader holds at most of a file with so many bytes and rows: a row group. Bytes.
pub(crate) fn row_group_bytes(bytes: u64, rows: u64) -> u64 {
    let of_rows = bytes.saturating_mul(ROW_GROUP as u64) / rows.max(1);
    of_rows.min(bytes).min(ROW_GROUP_BYTES as u64)
}

/// Least and greatest of some values, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span<T> {
    /// The least.
    pub min: T,
    /// The greatest.
    pub max: T,
}

impl<T: Ord + Copy> Span<T> {
    /// The span of one value.
    pub fn of(value: T) -> Self {
        Self { min: value, max: value }
    }

    /// The span that holds both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// Whether it holds the value.
    pub fn holds(&self, value: T) -> bool {
        self.min <= value && value <= self.max
    }
}

impl Span<i64> {
    /// Whether a range has one of the values.
    pub fn meets(&self, range: &std::ops::Range<i64>) -> bool {
        self.min < range.end && range.start <= self.max
    }
}

/// Values of a property by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kinds {
    /// Texts.
    #[serde(skip_serializing_if = "zero")]
    pub text: u64,
    /// Numbers.
    #[serde(skip_serializing_if = "zero")]
    pub number: u64,
    /// Booleans.
    #[serde(skip_serializing_if = "zero")]
    pub boolean: u64,
    /// Lists and structs.
    #[serde(skip_serializing_if = "zero")]
    pub json: u64,
    /// Nulls.
    #[serde(skip_serializing_if = "zero")]
    pub null: u64,
}

impl Kinds {
    /// The count of one kind.
    pub fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Text => &mut self.text,
            Kind::Number => &mut self.number,
            Kind::Boolean => &mut self.boolean,
            Kind::Json => &mut self.json,
            Kind::Null => &mut self.null,
        }
    }

    /// Values of any kind.
    pub fn total(&self) -> u64 {
        self.text + self.number + self.boolean + self.json + self.null
    }

    /// Adds another segment's counts.
    pub fn add(&mut self, mut other: Kinds) {
        for kind in Kind::ALL {
            *self.of(kind) += *other.of(kind);
        }
    }
}

pub(super) fn always() -> i64 {
    i64::MIN
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_always(micros: &i64) -> bool {
    *micros == i64::MIN
}

fn zero(count: &u64) -> bool {
    *count == 0
}
