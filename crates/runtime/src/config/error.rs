//! What can be wrong with a configuration, said so that it can be mended.

use std::{fmt, path::PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The embedded defaults.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable, by its name.
    Env(String),
    /// The command line.
    Override,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Override => f.write_str("the command line"),
        }
    }
}

/// Why a configuration is refused. None of these passes by trying again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or not readable.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected there.
        reason: String,
    },
    /// There is no such key.
    #[error("unknown key `{key}` in {origin}{}", hint(nearest.as_deref()))]
    UnknownKey {
        /// The dotted key.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// The existing key that looks most like it.
        nearest: Option<String>,
    },
    /// The value does not fit its key.
    #[error("`{key}` = {value} in {origin}: {reason}")]
    Invalid {
        /// The dotted key.
        key: String,
        /// The value as it was written; hidden for secrets.
        value: String,
        /// Where it was written.
        origin: Origin,
        /// What was expected.
        reason: String,
    },
    /// Values that are right one by one, but not together.
    #[error("{reason}")]
    Conflict {
        /// Which keys contradict each other, and the mend.
        reason: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(key) => format!("; did you mean `{key}`?"),
        None => "; `weir config` prints every key".to_owned(),
    }
}
