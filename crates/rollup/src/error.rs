use crate::level::Level;

/// What can be wrong with a definition, a question about time, or bytes from the log. None of them passes by itself:
/// trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name that names no field of an event.
    #[error("`{name}` is not a field of an event: {problem}")]
    Field {
        /// The name, as given.
        name: String,
        /// What is wrong with it and what to write instead.
        problem: String,
    },
    /// A rollup definition that breaks a rule.
    #[error("rollup `{name}`: {problem}")]
    Definition {
        /// Name of the definition.
        name: String,
        /// What is wrong with it and what to write instead.
        problem: String,
    },
    /// The catalog as a whole breaks a rule.
    #[error("rollups: {0}")]
    Catalog(String),
    /// A record of `metrics-data` that this version can't read.
    #[error("malformed rollup record: {0}")]
    Malformed(String),
    /// A name that is not in the IANA time zone database.
    #[error("`{0}` is not an IANA time zone: use a name such as `Europe/Berlin`, `Asia/Kolkata` or `UTC`")]
    TimeZone(String),
    /// A moment outside the years that calendars can express.
    #[error("{0} microseconds since 1970 is outside the years -9999 to 9999")]
    Moment(i64),
    /// A range with more buckets than asked for at most.
    #[error("the range has more than {0} buckets: choose a wider interval or a shorter range")]
    TooManyBuckets(usize),
    /// A boundary falls inside the finest bucket that is whole there.
    #[error(
        "{at} microseconds since 1970 falls inside a bucket: at that age only buckets of one {finest} and wider are kept; \
         begin and end on such a bucket"
    )]
    NotCovered {
        /// The boundary, microseconds since the Unix epoch.
        at: i64,
        /// The finest level that is whole there.
        finest: Level,
    },
}
