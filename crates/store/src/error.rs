//! What can go wrong.

use arrow::{datatypes::DataType, error::ArrowError};

use crate::manifest::Refusal;

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A batch or segment has not the columns that it should have.
    #[error("the column {column} {problem}")]
    Column {
        /// Its name.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Arrow could not do what it was asked to do.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// The folder or bucket of the store can't be used as configured.
    #[error("the event store at {place} can't be opened: {problem}")]
    Location {
        /// The folder or bucket.
        place: String,
        /// What is wrong with it and what to write instead.
        problem: String,
    },
    /// The store holds the events of another log: the offsets of its chains mean nothing in this one.
    #[error(
        "the event store at {place} holds the events of the log {known}, and this is the log {log}: move it away, or set another \
         store.location; only if this log has the same records at the same offsets, delete {path} in it"
    )]
    OtherLog {
        /// The folder or bucket.
        place: String,
        /// The object that says whose events it holds.
        path: String,
        /// The identity of the log whose events it holds.
        known: String,
        /// The identity of this log.
        log: String,
    },
    /// The folder or bucket did not answer as it should. Retry with backoff.
    #[error("the event store can't {what}: {source}{}", remedy(&**.source))]
    Unavailable {
        /// What was being done, with the object's path.
        what: String,
        /// The answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A manifest can't be read, so what follows it in its partition is unknown.
    #[error(
        "{path} {problem}: put it back from a copy, or, if it is the last of its partition, delete it: its events are then read \
         from the log again"
    )]
    Manifest {
        /// The manifest's path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The partition's chain does not take the writer's next events, and won't: it became shorter under the writer, or the events are
    /// not of the offsets that they are said to be. It takes a new writer.
    #[error(
        "the manifests of partition {partition} do not take the next events: {refusal}: the partition is to be claimed anew, and \
         read from where they end"
    )]
    Refused {
        /// The partition.
        partition: u32,
        /// What the chain says.
        refusal: Refusal,
    },
    /// A segment is missing, torn or not what its manifest says. All other segments can be read.
    #[error(
        "segment {path} {problem}: put it back from a copy; until then its {rows} events are missing from answers that need it"
    )]
    Segment {
        /// The segment's path.
        path: String,
        /// What is wrong with it.
        problem: String,
        /// Events in it.
        rows: u64,
    },
    /// A user is erased from all segments but some that are damaged.
    #[error(
        "the user is erased from all segments but {left}, which may still hold him: {first}; when it is back, erase him again"
    )]
    NotErased {
        /// Segments that are damaged.
        left: usize,
        /// What is wrong with the first of them.
        first: Box<Error>,
    },
    /// No consumer owns the partition yet, or the one that was asked does not, so there are no recent events of it. Ask again: a
    /// partition is assigned within seconds.
    #[error("partition {partition} is being assigned to a consumer")]
    NotOwner {
        /// The partition.
        partition: u32,
    },
    /// The partition's owner moves on faster than its manifests could be followed. Ask again.
    #[error(
        "the recent events of partition {partition} begin at offset {start}, its manifests end at {end}: ask again"
    )]
    Outrun {
        /// The partition.
        partition: u32,
        /// Where the owner's recent events begin.
        start: u64,
        /// Where the manifests end.
        end: u64,
    },
    /// The writer's background work has stopped: the process is shutting down, or it panicked.
    #[error(
        "the store's writer of partition {partition} has stopped: its unflushed events are read from the log again"
    )]
    Stopped {
        /// The partition.
        partition: u32,
    },
}

/// What a reader of the message can do about it.
fn remedy(source: &(dyn std::error::Error + 'static)) -> &'static str {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let mut causes = std::iter::successors(Some(source), |cause| cause.source());
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
    };
    if causes.any(is_full) {
        "; free space on its disk, or shorten store.retention; it is tried again"
    } else {
        ""
    }
}

impl Error {
    /// A column that must be there is not.
    pub(crate) fn missing(column: &str) -> Self {
        Error::Column { column: column.to_owned(), problem: "is missing".to_owned() }
    }

    /// A column has another type than it should have.
    pub(crate) fn mistyped(column: &str, found: &DataType) -> Self {
        Error::Column { column: column.to_owned(), problem: format!("has the type {found}") }
    }

    /// An [`Error::Unavailable`]: `what` names the object and what was being done to it.
    pub(crate) fn unavailable(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Error::Unavailable { what: what.into(), source: source.into() }
    }

    /// Whether the same call can succeed later without anyone changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Unavailable { .. } | Error::Outrun { .. } | Error::NotOwner { .. } => true,
            Error::Column { .. }
            | Error::Arrow(_)
            | Error::Location { .. }
            | Error::OtherLog { .. }
            | Error::Manifest { .. }
            | Error::Refused { .. }
            | Error::Segment { .. }
            | Error::NotErased { .. }
            | Error::Stopped { .. } => false,
        }
    }
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
