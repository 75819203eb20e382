use std::time::Duration;

use datafusion::error::DataFusionError;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The question breaks a rule. Asking again does not help.
    #[error("{what} {problem}")]
    Question {
        /// The part of the question.
        what: &'static str,
        /// What is wrong with it, and what to write instead.
        problem: String,
    },
    /// A formula can't be read.
    #[error("formula `{formula}`: {problem}")]
    Formula {
        /// The formula.
        formula: String,
        /// What is wrong with it.
        problem: String,
    },
    /// SQL that can't be run, in the words of the planner.
    #[error("SQL: {0}")]
    Sql(String),
    /// The answer is larger than an answer may be.
    #[error("the answer has more than {limit} {what}: {mend}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
        /// How to get a smaller answer.
        mend: &'static str,
    },
    /// The deadline has passed.
    #[error("not done within {0:?}: shorten the time range, filter more, or allow more time")]
    TooSlow(Duration),
    /// Other questions read so much that this one could not begin.
    #[error(
        "the question could not begin within {0:?}: others are reading as much as there is memory for; retry in a moment"
    )]
    Busy(Duration),
    /// The memory for queries is used up.
    #[error(
        "the question needs more memory than there is ({limit} bytes for all questions together): shorten the time range, filter \
         more, break down by less, or ask again when fewer questions are running"
    )]
    OutOfMemory {
        /// Memory for all queries, bytes.
        limit: usize,
    },
    /// The events could not be read.
    #[error(transparent)]
    Store(#[from] weir_store::Error),
    /// A file with events could not be read, or was not what it should be.
    #[error("the events could not be read: {0}")]
    Unreadable(DataFusionError),
    /// Anything else that computing met with.
    #[error("the question could not be answered: {0}")]
    Execution(DataFusionError),
}

impl Error {
    pub(crate) fn question(what: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Question { what, problem: problem.to_string() }
    }

    /// Whether the same question can have an answer later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooSlow(_)
            | Self::Busy(_)
            | Self::OutOfMemory { .. }
            | Self::Store(_)
            | Self::Unreadable(_) => true,
            Self::Question { .. }
            | Self::Formula { .. }
            | Self::Sql(_)
            | Self::TooLarge { .. }
            | Self::Execution(_) => false,
        }
    }
}
