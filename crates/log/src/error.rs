//! What can go wrong in the log.

use crate::{Offset, TopicSpec};

/// A result with the log's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the log. Messages say what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bounded queue towards the log is full; nothing was appended. Retry after a moment.
    #[error("the log's queue is full ({limit} bytes); slow down and retry")]
    QueueFull {
        /// Bytes that may wait at most.
        limit: u64,
    },
    /// A record or batch is larger than the log takes.
    #[error("a record of {bytes} bytes is larger than the log's limit of {limit} bytes")]
    TooLarge {
        /// Size of the offending record.
        bytes: u64,
        /// The log's limit.
        limit: u64,
    },
    /// The log can't be reached or has lost its quorum for now. Retry with backoff.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// The topic does not exist.
    #[error("topic {0} does not exist; create it, or set log.create_topics = true")]
    UnknownTopic(String),
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}")]
    UnknownPartition {
        /// Topic name.
        topic: String,
        /// The partition that was asked for.
        partition: u32,
    },
    /// Topics differ from what they must be.
    #[error("topics are not as they must be:\n{findings}")]
    Topic {
        /// The topics as they should be.
        wanted: Vec<TopicSpec>,
        /// One line a finding, each with its mend.
        findings: String,
    },
    /// The offset is outside the partition's range.
    #[error("offset {offset} of {topic}/{partition} is outside the kept range [{start}, {end})")]
    OutOfRange {
        /// Topic name.
        topic: String,
        /// Partition number.
        partition: u32,
        /// The offset that was asked for.
        offset: Offset,
        /// Oldest kept offset.
        start: Offset,
        /// End of the partition.
        end: Offset,
    },
    /// Stored bytes fail their checksum or make no sense.
    #[error("the log is damaged: {0}")]
    Corrupt(String),
    /// The directory belongs to another process.
    #[error("{dir} is in use by another process{holder}; stop it or choose another --data-dir")]
    Locked {
        /// The data directory.
        dir: String,
        /// ` (pid N)` when it is known.
        holder: String,
    },
    /// The directory was written by a newer version.
    #[error(
        "{dir} was written by format version {found}; this build reads up to {supported}: use a newer weir"
    )]
    NewerVersion {
        /// The data directory.
        dir: String,
        /// Version found on disk.
        found: u32,
        /// Newest version this build knows.
        supported: u32,
    },
    /// Reading or writing a file failed.
    #[error("{what}: {source}{}", remedy(.source))]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The log's own configuration is refused (also wrong credentials and certificates).
    #[error("log configuration: {0}")]
    Config(String),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// What a reader of the message can do about it.
fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "; free space on the disk of --data-dir, or shorten the topics' retention, and retry"
        }
        _ => "",
    }
}

impl Error {
    /// An [`Error::Io`]: `what` names the file and what was being done to it.
    pub(crate) fn io(what: String, source: std::io::Error) -> Self {
        Error::Io { what, source }
    }

    /// Whether the same call can succeed later without anyone changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::QueueFull { .. } | Error::Unavailable(_) => true,
            Error::Io { source, .. } => {
                use std::io::ErrorKind::{Interrupted, QuotaExceeded, StorageFull};
                matches!(source.kind(), Interrupted | StorageFull | QuotaExceeded)
            }
            Error::TooLarge { .. }
            | Error::UnknownTopic(_)
            | Error::UnknownPartition { .. }
            | Error::Topic { .. }
            | Error::OutOfRange { .. }
            | Error::Corrupt(_)
            | Error::Locked { .. }
            | Error::NewerVersion { .. }
            | Error::Config(_)
            | Error::Closed => false,
        }
    }
}
