//! How people write durations, limits and optional values, and how secrets are kept out of logs.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

/// Parses `"20ms"`, `"1h 30m"`, `"7d"` (days of 24 hours). Negative durations are refused.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration such as \"20ms\", \"1h\" or \"7d\"".to_owned();
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| wrong())
}

/// `#[serde(with = "duration")]` for a [`Duration`].
pub(super) mod duration {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(input)?).map_err(D::Error::custom)
    }
}

/// `#[serde(with = "retention")]`: a duration, or `"never"` for what does not expire.
pub(super) mod retention {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<Duration>, D::Error> {
        match String::deserialize(input)?.as_str() {
            "never" => Ok(None),
            text => {
                parse_duration(text).map(Some).map_err(|e| D::Error::custom(format!("{e}, or \"never\"")))
            }
        }
    }
}

/// `#[serde(with = "limit")]`: a number of bytes, 0 for no limit.
pub(super) mod limit {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<u64>, D::Error> {
        Ok(Some(u64::deserialize(input)?).filter(|&bytes| bytes > 0))
    }
}

/// `#[serde(with = "optional")]`: anything that is written as a string, `""` for not set.
pub(super) mod optional {
    use super::*;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>, T>(
        input: D,
    ) -> Result<Option<T>, D::Error>
    where
        T: From<String>,
    {
        Ok(Some(String::deserialize(input)?).filter(|text| !text.is_empty()).map(T::from))
    }
}

/// A password or key. It is never printed; [`Secret::expose`] is the one way to read it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Properties that are passed on, some of which are passwords and keys. Printing them shows only their names.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The properties themselves, for the client that needs them.
    pub fn expose(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
