//! What can go wrong when a question is asked, and the one place where it becomes a `tonic::Status`.

use std::time::Duration;

use tonic::Status;
use weir_proto::validate::{Path, Violations};
use weir_runtime::{
    auth::NotAuthenticated,
    status::{self, Reason},
};

/// Why a question was not answered. Messages say what to do next.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    /// The request itself is wrong.
    #[error("the request is invalid")]
    Invalid(Violations),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The events can't be read.
    #[error("{0}; retry in a moment")]
    StoreUnavailable(String),
    /// A segment is damaged. It is looked for and left out.
    #[error("{0}; ask again for an answer without what can't be read")]
    Unreadable(String),
    /// The question needs more memory than there is.
    #[error("{0}")]
    OutOfMemory(String),
    /// Others use what the question needs; it could not begin in time.
    #[error("{0}")]
    Busy(String),
    /// Evaluation failed for a reason that is ours.
    #[error("{0}")]
    Internal(String),
    /// No rollup has the dimensions or numeric properties that the question needs.
    #[error("{message}")]
    NotCovered {
        /// The whole story: what is missing, what to add to the configuration, what there is instead.
        message: String,
        /// Canonical names of the dimensions that no suitable rollup has.
        dimensions: Vec<String>,
        /// Canonical names of the numeric properties that no rollup keeps.
        numerics: Vec<String>,
        /// The lines of configuration that would add it.
        configuration: String,
    },
    /// The buckets that are still kept for that time are too wide for the edges of the range or of the intervals.
    #[error("{0}")]
    TooFine(String),
    /// The answer would be larger than allowed.
    #[error("the answer would have {rows}, more than the limit of {limit}; {mend}")]
    TooLarge {
        /// How large: `250000 points`.
        rows: String,
        /// The limit (`analytics.max_result_rows`).
        limit: u64,
        /// What to narrow.
        mend: &'static str,
    },
    /// The events of the consistency token were not counted in time.
    #[error(
        "partition {partition} has counted events up to offset {reached} (exclusive) after {waited:?}, the token asks for \
         offset {wanted}; ask again, without the token for what is counted so far, or with a longer deadline"
    )]
    Behind {
        /// The partition that is furthest behind.
        partition: u32,
        /// The offset that must be counted.
        wanted: u64,
        /// The next offset to be counted.
        reached: u64,
        /// How long the query waited.
        waited: Duration,
    },
    /// Evaluation took too long.
    #[error("the query was given up after {0:?}; narrow the range or widen the interval")]
    TooSlow(Duration),
    /// No more watches fit.
    #[error("{limit} watches are open, as many as analytics.max_watches allows; close some or retry later")]
    TooManyWatches {
        /// The limit.
        limit: usize,
    },
    /// A partition can't answer: it is not materialised, for the reason given.
    #[error("partition {partition} has no answers: {reason}")]
    Unavailable {
        /// The partition.
        partition: u32,
        /// Why.
        reason: String,
    },
    /// No consumer has taken a partition over yet.
    #[error("partition {partition} is being assigned to a consumer; retry in a few seconds")]
    Assigning {
        /// The partition.
        partition: u32,
    },
    /// The log can't be read.
    #[error("the log is unavailable: {0}; retry in a moment")]
    LogUnavailable(String),
    /// The service is stopping.
    #[error("the service is stopping; connect again")]
    ShuttingDown,
}

impl Error {
    /// The `kind` label of `errors_total`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotFound(_) => "not_found",
            Self::StoreUnavailable(_) => "store",
            Self::Unreadable(_) => "unreadable",
            Self::OutOfMemory(_) => "out_of_memory",
            Self::Busy(_) => "busy",
            Self::Internal(_) => "internal",
            Self::NotCovered { .. } => "not_covered",
            Self::TooFine(_) => "too_fine",
            Self::TooLarge { .. } => "too_large",
            Self::Behind { .. } => "behind",
            Self::TooSlow(_) => "too_slow",
            Self::TooManyWatches { .. } => "too_many_watches",
            Self::Unavailable { .. } => "unavailable",
            Self::Assigning { .. } => "assigning",
            Self::LogUnavailable(_) => "log",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// One field of the request that breaks a rule.
    pub(crate) fn invalid(at: &Path<'_>, description: impl std::fmt::Display) -> Self {
        let mut found = Violations::default();
        found.add(at, description);
        Self::Invalid(found)
    }
}

impl From<weir_store::Error> for Error {
    fn from(error: weir_store::Error) -> Self {
        Self::StoreUnavailable(error.to_string())
    }
}

impl From<weir_query::Error> for Error {
    fn from(error: weir_query::Error) -> Self {
        let message = error.to_string();
        match error {
            weir_query::Error::Question { what, problem } => {
                let root = Path::ROOT;
                Self::invalid(&root.field(what), problem)
            }
            weir_query::Error::Formula { .. } => {
                let root = Path::ROOT;
                Self::invalid(&root.field("formulas"), message)
            }
            weir_query::Error::Sql(problem) => {
                let root = Path::ROOT;
                Self::invalid(&root.field("statement"), problem)
            }
            weir_query::Error::TooLarge { what, limit, mend } => {
                Self::TooLarge { rows: format!("more than {limit} {what}"), limit: limit as u64, mend }
            }
            weir_query::Error::TooSlow(after) => Self::TooSlow(after),
            weir_query::Error::Busy(_) => Self::Busy(message),
            weir_query::Error::OutOfMemory { .. } => Self::OutOfMemory(message),
            weir_query::Error::Store(error) => error.into(),
            weir_query::Error::Unreadable(_) => Self::Unreadable(message),
            weir_query::Error::Execution(_) => Self::Internal(message),
        }
    }
}

impl From<NotAuthenticated> for Error {
    fn from(error: NotAuthenticated) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<Violations> for Error {
    fn from(found: Violations) -> Self {
        Self::Invalid(found)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid(violations) => status::invalid_argument(violations),
            Error::NotFound(_) => Reason::ResourceNotFound.status(message),
            Error::StoreUnavailable(_) | Error::Unreadable(_) => Reason::StoreUnavailable.status(message),
            Error::OutOfMemory(_) => Reason::ResultTooLarge.status(message),
            Error::Busy(_) => Reason::ConcurrencyExceeded.status(message),
            Error::Internal(_) => Reason::Internal.status(message),
            Error::NotCovered { dimensions, numerics, configuration, .. } => Reason::DimensionNotCovered
                .error(message)
                .with("missingDimensions", dimensions.join(","))
                .with("missingNumerics", numerics.join(","))
                .with("configuration", configuration)
                .into(),
            Error::TooFine(_) => Reason::RangeTooFine.status(message),
            Error::TooLarge { limit, .. } => {
                Reason::ResultTooLarge.error(message).with("limit", limit).into()
            }
            Error::Behind { partition, wanted, reached, .. } => Reason::DeadlineExceeded
                .error(message)
                .with("partition", partition)
                .with("wantedOffset", wanted)
                .with("countedOffset", reached)
                .into(),
            Error::TooSlow(_) => Reason::DeadlineExceeded.status(message),
            Error::TooManyWatches { limit } => {
                Reason::ConcurrencyExceeded.error(message).with("limit", limit).into()
            }
            Error::Unavailable { .. } => Reason::NotReady.status(message),
            Error::Assigning { partition } => Reason::NotReady
                .error(message)
                .with("partition", partition)
                .retry_after(Duration::from_secs(3))
                .into(),
            Error::LogUnavailable(_) => Reason::LogUnavailable.status(message),
            Error::ShuttingDown => Reason::Draining.status(message),
        }
    }
}
