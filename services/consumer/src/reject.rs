//! What is no event: the reasons for which a record goes to the dead-letter topic.
//!
//! Only the bytes decide, never the configuration: deduplication forgets what was rejected, and has to forget the same
//! records whenever it is rebuilt.

use std::{fmt, ops::RangeInclusive};

use bytes::Bytes;
use weir_log::Offset;
use weir_proto::{
    event::v1::dead_letter::Reason,
    record::{Event, Malformed},
};

/// Years 1 to 9999, which every calendar and every Protobuf timestamp can express; microseconds since the Unix epoch.
const TIMES: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Longest `event_name`, bytes: as in `event.proto`.
const MAX_NAME: usize = 200;

/// Why a record could not be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The value is not an `EventRecord`.
    Malformed(Malformed),
    /// The event breaks a rule that the producer enforces: a sentence.
    Invalid(&'static str),
}

impl Rejection {
    /// The reason as the schema has it.
    pub fn reason(&self) -> Reason {
        match self {
            Rejection::Malformed(_) => Reason::Malformed,
            Rejection::Invalid(_) => Reason::Invalid,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::Malformed(malformed) => write!(f, "not an EventRecord: {malformed}"),
            Rejection::Invalid(rule) => f.write_str(rule),
        }
    }
}

/// Checks what processing relies on; the producer checks more.
///
/// # Errors
/// [`Rejection::Invalid`] with the rule that is broken.
pub fn check(event: &Event<'_>) -> Result<(), Rejection> {
    let broken = if event.project.is_empty() {
        "the record names no project"
    } else if event.event_id.is_empty() {
        "event_id is empty; the producer always sets it"
    } else if event.event_name.is_empty() || event.event_name.len() > MAX_NAME {
        "event_name must have 1 to 200 bytes"
    } else if event.actor().is_empty() {
        "neither user_id nor anonymous_id is set"
    } else if !TIMES.contains(&event.corrected_time_micros) {
        "corrected_time_micros lies outside the years 1 to 9999"
    } else {
        return Ok(());
    };
    Err(Rejection::Invalid(broken))
}

/// A record on its way to the dead-letter topic, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its offset in the source partition.
    pub offset: Offset,
    /// Its key, as it was.
    pub key: Bytes,
    /// Its value, as it was.
    pub value: Bytes,
    /// Why.
    pub rejection: Rejection,
}
