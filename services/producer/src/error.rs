//! Why events did not get into the log, and what callers are told.

use tonic::Status;
use weir_proto::rpc;
use weir_runtime::status::Reason;

/// Why events did not get into the log, or it is unknown whether they did.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// Too much is under way in this process.
    #[error(
        "{limit} bytes of events are received and not yet durable, which is the limit; slow down and retry"
    )]
    InFlightFull {
        /// `producer.max_in_flight_bytes`.
        limit: usize,
    },
    /// Too many long-lived calls.
    #[error("{limit} streams are open, which is the limit; retry later or send batches with IngestEvents")]
    TooManyStreams {
        /// `producer.max_streams`.
        limit: usize,
    },
    /// A stream sent more than it had credits for.
    #[error(
        "a batch of {events} events exceeds the {left} credits left; wait for a CreditGrant before sending more"
    )]
    CreditsExceeded {
        /// Events of the batch.
        events: usize,
        /// What the client had left.
        left: u32,
    },
    /// The log's own queue is full; nothing was appended.
    #[error("{0}")]
    LogFull(String),
    /// The log could not be reached for as long as it was tried.
    #[error("{0}; the events may or may not be in the log: send them again with the same event_id")]
    LogUnavailable(String),
    /// Time ran out with the append under way.
    #[error(
        "time ran out before the log answered; the events may or may not be in it: send them again with the same event_id"
    )]
    Unknown,
    /// The log refuses them, and would again.
    #[error("the log refuses the events: {0}")]
    LogRefused(String),
    /// The process is stopping.
    #[error("the producer is stopping; what was not acknowledged must be sent again, over a new connection")]
    Draining,
}

impl Error {
    /// The stable name of the kind, and its label in `errors_total`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::InFlightFull { .. } => "in_flight_full",
            Self::TooManyStreams { .. } => "too_many_streams",
            Self::CreditsExceeded { .. } => "credits_exceeded",
            Self::LogFull(_) => "log_full",
            Self::LogUnavailable(_) => "log_unavailable",
            Self::Unknown => "deadline",
            Self::LogRefused(_) => "log_refused",
            Self::Draining => "draining",
        }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::InFlightFull { .. } | Self::LogFull(_) => Reason::InFlightFull,
            Self::TooManyStreams { .. } => Reason::ConcurrencyExceeded,
            Self::CreditsExceeded { .. } => Reason::CreditsExceeded,
            Self::LogUnavailable(_) => Reason::LogUnavailable,
            Self::Unknown => Reason::DeadlineExceeded,
            Self::LogRefused(_) => Reason::Internal,
            Self::Draining => Reason::Draining,
        }
    }
}

impl From<&Error> for Status {
    fn from(error: &Error) -> Self {
        error.reason().status(error.to_string())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

/// The status as a message within an answer, details included.
pub(crate) fn to_proto(status: &Status) -> rpc::Status {
    use prost::Message as _;
    // The details' bytes are a `google.rpc.Status` as a whole; without them there is only code and message.
    let details = rpc::Status::decode(status.details()).map(|whole| whole.details).unwrap_or_default();
    rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details }
}
