//! What can go wrong in the consumer.

use weir_rollup::chain::VoidReason;

/// What can go wrong in the consumer. Messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] weir_log::Error),
    /// The event store failed.
    #[error("the event store: {0}")]
    Store(#[from] weir_store::Error),
    /// The rollups' configuration is refused.
    #[error("rollups: {0}")]
    Rollups(#[from] weir_rollup::Error),
    /// The two topics have to be partitioned alike.
    #[error(
        "{events} has {of_events} partitions and {metrics} has {of_metrics}; they must have the same number: recreate \
         {metrics}, or set another topics.metrics"
    )]
    Partitions {
        /// Name of the events topic.
        events: String,
        /// Its partitions.
        of_events: u32,
        /// Name of the metrics topic.
        metrics: String,
        /// Its partitions.
        of_metrics: u32,
    },
    /// Results can't be continued, since their beginning is gone and nothing says what it came to.
    #[error(
        "{topic}/{partition} starts at offset {start}: what came before was deleted, and the consumer group holds no \
         position to continue from; set topics.metrics_retention = \"never\", and start over with an empty {topic}"
    )]
    HistoryDeleted {
        /// Name of the metrics topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Its first offset.
        start: u64,
    },
    /// Results are ahead of the events.
    #[error(
        "{topic}/{partition} ends at offset {end}, but {ahead} up to {counted}: the topic was recreated or lost its end; \
         restore it, or start over with both an empty {metrics} and, in place of {store}, an empty event store"
    )]
    SourceBehind {
        /// Name of the events topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Its end.
        end: u64,
        /// What is ahead: "the rollups go".
        ahead: &'static str,
        /// Where that ends.
        counted: u64,
        /// Name of the metrics topic.
        metrics: String,
        /// Where the event store lies.
        store: String,
    },
    /// A micro-batch of ours does not count.
    #[error("a micro-batch of this consumer is void: {0}")]
    Void(VoidReason),
    /// The server can't run.
    #[error(transparent)]
    Server(#[from] weir_runtime::server::Error),
}

impl Error {
    /// Short name for the label `kind` of `errors_total`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Error::Log(_) => "log",
            Error::Store(_) => "store",
            Error::Rollups(_) => "rollups",
            Error::Partitions { .. } => "partitions",
            Error::HistoryDeleted { .. } => "history_deleted",
            Error::SourceBehind { .. } => "source_behind",
            Error::Void(_) => "void",
            Error::Server(_) => "server",
        }
    }
}
