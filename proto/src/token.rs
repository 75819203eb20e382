//! Consistency tokens as text: what ingest answers carry and queries wait for.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message as _;

use crate::event::v1::{ConsistencyToken, PartitionOffset};

/// The text is not a token that a Weir service made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("is not a consistency token; pass it on exactly as an answer gave it")
    }
}

impl std::error::Error for Malformed {}

/// The token for the last offset of each partition, in base64url without padding. Nothing appended: the empty text.
pub fn encode(offsets: &BTreeMap<u32, u64>) -> String {
    let partitions =
        offsets.iter().map(|(&partition, &offset)| PartitionOffset { partition, offset }).collect();
    URL_SAFE_NO_PAD.encode(ConsistencyToken { partitions }.encode_to_vec())
}

/// The last offset of each partition that the token covers; of the empty text, none.
///
/// # Errors
/// [`Malformed`], also when a partition occurs twice.
pub fn decode(token: &str) -> Result<BTreeMap<u32, u64>, Malformed> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Malformed)?;
    let token = ConsistencyToken::decode(bytes.as_slice()).map_err(|_| Malformed)?;
    let count = token.partitions.len();
    let offsets: BTreeMap<_, _> = token.partitions.into_iter().map(|p| (p.partition, p.offset)).collect();
    if offsets.len() == count { Ok(offsets) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_text() {
        let offsets = BTreeMap::from([(0, 0), (2, u64::MAX), (7, 42)]);
        let text = encode(&offsets);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
        assert_eq!(decode(&text), Ok(offsets));
        assert_eq!(decode(&encode(&BTreeMap::new())), Ok(BTreeMap::new()));
    }

    #[test]
    fn foreign_text_is_refused() {
        let twice = [PartitionOffset { partition: 1, offset: 2 }; 2];
        let twice = ConsistencyToken { partitions: twice.to_vec() };
        for text in ["not base64!", "AAAA", &URL_SAFE_NO_PAD.encode(twice.encode_to_vec())] {
            assert_eq!(decode(text), Err(Malformed), "{text}");
        }
    }
}
