use std::{fmt, str::FromStr};

use uuid::Uuid;

use super::ChainState;
use crate::Error;

/// Where a fold may start instead of at the partition's beginning: the state after all records below an offset. It must come
/// from reading the partition, never from what was appended: then starting at a hint, however old, and starting at the
/// beginning come to the same.
///
/// As text it fits into the metadata of a committed position (Kafka allows 4096 bytes):
/// `weir/1 <metrics offset> <next source offset> <watermark> <owner or -> <address or nothing>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hint {
    /// The `metrics-data` offset to go on reading from.
    pub metrics_offset: u64,
    /// The state after all records below it.
    pub state: ChainState,
}

const FORMAT: &str = "weir/1";

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChainState { owner, address, next_source_offset, watermark } = &self.state;
        write!(f, "{FORMAT} {} {next_source_offset} {watermark} ", self.metrics_offset)?;
        match owner {
            Some(owner) => write!(f, "{owner} {address}"),
            None => write!(f, "- {address}"),
        }
    }
}

/// A text that is no hint is a reason to read from the beginning, not to stop.
impl FromStr for Hint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Hint, Error> {
        fn read(text: &str) -> Option<Hint> {
            let mut parts = text.splitn(6, ' ');
            if parts.next()? != FORMAT {
                return None;
            }
            let metrics_offset = parts.next()?.parse().ok()?;
            let next_source_offset = parts.next()?.parse().ok()?;
            let watermark = parts.next()?.parse().ok()?;
            let owner = match parts.next()? {
                "-" => None,
                id => Some(Uuid::parse_str(id).ok()?),
            };
            let address = parts.next()?.to_owned();
            let state = ChainState { owner, address, next_source_offset, watermark };
            Some(Hint { metrics_offset, state })
        }
        read(text).ok_or_else(|| {
            let shown: String = text.chars().take(100).collect();
            Error::Malformed(format!("`{}` is no hint of this version", shown.escape_debug()))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_texts_are_no_hints() {
        for text in ["", "weir/1", "weir/2 1 2 3 - ", "weir/1 1 2 3 nobody host:1", "weir/1 -1 2 3 - "] {
            assert!(text.parse::<Hint>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_text_holds_everything(
            metrics_offset: u64, next_source_offset: u64, watermark: i64,
            owner in proptest::option::of(any::<u128>().prop_map(Uuid::from_u128)), address in "[a-z0-9.:\\[\\]]{0,30}",
        ) {
            let state = ChainState { owner, address, next_source_offset, watermark };
            let hint = Hint { metrics_offset, state };
            prop_assert_eq!(hint.to_string().parse::<Hint>(), Ok(hint));
        }
    }
}
