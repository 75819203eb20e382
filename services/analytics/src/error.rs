//! What can go wrong when a question is asked, and the one place where it becomes a `tonic::Status`.

use std::time::Duration;

use tonic::Status;
use weir_proto::validate::{Path, Violations};
use weir_runtime::status::{self, Reason};

/// Why a question was not answered. Messages say what to do next.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    /// The request itself is wrong.
    #[error("the request is invalid")]
    Invalid(Violations),
    /// The question is about events, which are not read here.
    #[error("{0} is answered from the events themselves, which this service does not read yet")]
    NeedsEvents(&'static str),
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
    /// The log can't be read.
    #[error("the log is unavailable: {0}; retry in a moment")]
    LogUnavailable(String),
    /// The service is stopping.
    #[error("shutting down; reconnect")]
    ShuttingDown,
}

impl Error {
    /// The `kind` label of `errors_total`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NeedsEvents(_) => "needs_events",
            Self::NotCovered { .. } => "not_covered",
            Self::TooFine(_) => "too_fine",
            Self::TooLarge { .. } => "too_large",
            Self::Behind { .. } => "behind",
            Self::TooSlow(_) => "too_slow",
            Self::TooManyWatches { .. } => "too_many_watches",
            Self::Unavailable { .. } => "unavailable",
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
            Error::NeedsEvents(_) => Self::unimplemented(message),
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
            Error::LogUnavailable(_) => Reason::LogUnavailable.status(message),
            Error::ShuttingDown => Reason::Draining.status(message),
        }
    }
}
