//! The event log: partitioned, append-only, durable. It carries everything between Weir's services.
//!
//! One small trait, [`EventLog`], has two implementations: [`embedded`], a segment log for one machine, and
//! [`kafka`], Apache Kafka through librdkafka. Both pass the same conformance suite (`tests/`, module
//! `log_conformance`).
//!
//! What this crate deliberately does not do: it knows nothing of events, projects or Protobuf (keys and values are
//! bytes), it does not retry appends (the caller knows its deadline), and it does not decide who may write (fencing
//! is the claim protocol of `weir-rollup`, which needs only the order of one partition).
//!
//! Map: `record` the data that passes, `error` what can go wrong, `embedded/` and `kafka/` the implementations, `sync`
//! what these two share.

pub mod embedded;
mod error;
pub mod kafka;
mod record;
mod sync;

pub use embedded::{Clock, EmbeddedConfig, EmbeddedLog};
pub use error::{Error, Result};
pub use kafka::{KafkaConfig, KafkaLog};
pub use record::{Record, RecordBatch, RecordBatchBuilder, RecordRef};

use std::{fmt, time::Duration};

use async_trait::async_trait;

/// The position of a record in its partition: 0, 1, 2, …, possibly with holes (Kafka's control records).
pub type Offset = u64;

/// What a topic must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Topic name; the same characters as Kafka allows: `[a-zA-Z0-9._-]{1,249}`.
    pub name: String,
    /// Number of partitions, at least 1. It never changes: keys are mapped to partitions by it.
    pub partitions: u32,
    /// Which old records may be deleted.
    pub retention: Retention,
}

/// Limits after which the oldest whole segments of a partition are deleted. `None` keeps for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Age since append.
    pub age: Option<Duration>,
    /// Bytes per partition.
    pub bytes: Option<u64>,
}

/// What to do about a topic that is missing or differs from its [`TopicSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicPolicy {
    /// Create what is missing (development). What exists is not changed, and still an error when it has another number of
    /// partitions or, on Kafka, deletes records sooner than its [`Retention`] says.
    Create,
    /// Change nothing: a missing topic or unsafe settings are an error that lists every finding and its mend.
    Check,
}

/// The answer to an append: where the records are. All of them are durable when it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record appended.
    pub first: Offset,
    /// Offset of the last one. On Kafka other writers' records may lie between.
    pub last: Offset,
}

/// The readable range of a partition: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Oldest offset still kept.
    pub start: Offset,
    /// The offset that the next record will get.
    pub end: Offset,
}

/// A consumer group's position in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Next offset to read; lag is measured against it.
    pub position: Offset,
    /// The committer's own words, at most 4 KiB of UTF-8. Weir keeps its resume hint here.
    pub metadata: String,
}

/// A partitioned, durable log. Cheap to share (`Arc<dyn EventLog>`); safe for concurrent use.
#[async_trait]
pub trait EventLog: fmt::Debug + Send + Sync + 'static {
    /// Tells logs apart: the same text however often this log is opened, another one when it was wiped and begun anew,
    /// so that offsets remembered elsewhere are not taken for offsets of this log. At most 64 bytes of ASCII. The embedded
    /// log writes a UUID into its directory once; on Kafka it is the cluster's id, which a topic that is deleted and
    /// created again does *not* change: there only [`EventLog::bounds`] can show that a remembered offset lies ahead.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while Kafka is out of reach.
    async fn identity(&self) -> Result<String>;

    /// Makes sure that the topics exist as described.
    ///
    /// # Errors
    /// [`Error::Topic`] naming each difference and its mend; [`Error::Unavailable`] while the log is out of reach.
    async fn ensure_topics(&self, topics: &[TopicSpec], policy: TopicPolicy) -> Result<()>;

    /// The number of partitions of a topic.
    async fn partitions(&self, topic: &str) -> Result<u32>;

    /// Appends records in order to one partition and answers when all of them are durable (fsync of the embedded log,
    /// `acks=all` on Kafka). After an error other than [`Error::QueueFull`] and [`Error::TooLarge`] some or all of
    /// them may be in the log nevertheless: whoever retries must be idempotent.
    ///
    /// # Errors
    /// [`Error::QueueFull`] when the bounded queue has no room (nothing was appended); [`Error::TooLarge`];
    /// [`Error::Unavailable`]; [`Error::Io`].
    ///
    /// # Panics
    /// When there are no records.
    async fn append(&self, topic: &str, partition: u32, records: Vec<Record>) -> Result<Appended>;

    /// The readable range now.
    async fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds>;

    /// The first offset whose append time is at or after `time_ms` (Unix milliseconds); the end if there is none. Where the log's
    /// clock was set back, an earlier one may be given: no record before it is of that time.
    async fn offset_at_time(&self, topic: &str, partition: u32, time_ms: i64) -> Result<Offset>;

    /// A reader of one partition that starts at `from` and follows the tail. Outside any group.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] (here or from the reader) when `from` is below the start or above the end.
    async fn reader(&self, topic: &str, partition: u32, from: Offset) -> Result<Box<dyn PartitionReader>>;

    /// Joins a consumer group that shares the partitions of `topic` out among its members.
    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn GroupMember>>;

    /// What the group last committed for the partition, if anything.
    async fn committed(&self, topic: &str, group: &str, partition: u32) -> Result<Option<Committed>>;

    /// Answers when the log can be reached, with the reason when it can't: the readiness check.
    async fn ping(&self) -> Result<()>;

    /// Completes what is under way and releases the log. Later calls fail with [`Error::Closed`].
    async fn close(&self) -> Result<()>;
}

/// Reads one partition in order.
#[async_trait]
pub trait PartitionReader: Send + fmt::Debug {
    /// The next records: at least one, unless `max_wait` passes first, then an empty batch. It returns as soon as there
    /// is anything, with as much as is at hand (at most about 1 MiB or 65,536 records). Cancel-safe.
    async fn next(&mut self, max_wait: Duration) -> Result<RecordBatch>;

    /// The offset that the next call starts at.
    fn position(&self) -> Offset;
}

/// What a group tells its member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// These partitions are the member's from now on, in addition to those it has.
    Assigned(Vec<u32>),
    /// These must be given up: finish, commit, then call [`GroupMember::released`]. Others get them after that.
    Revoked(Vec<u32>),
    /// These are somebody else's already: drop them at once, commit nothing.
    Lost(Vec<u32>),
    /// The member has no partitions since the group does not take it in, and why. It goes on trying; the next
    /// [`Membership::Assigned`], which may be of none, says that it succeeded.
    Refused(String),
}

/// Membership in a consumer group. Dropping it leaves the group.
#[async_trait]
pub trait GroupMember: Send + Sync + fmt::Debug {
    /// The next change of what this member owns. Cancel-safe.
    async fn next(&mut self) -> Result<Membership>;

    /// Says that the partitions of the last [`Membership::Revoked`] are given up.
    fn released(&self);

    /// Records the group's position in a partition, asynchronously: a failure is logged, the next commit makes up for it.
    fn commit(&self, partition: u32, committed: Committed);

    /// Gives everything up, with what was committed flushed.
    async fn leave(self: Box<Self>) -> Result<()>;
}
