//! Joining consistency tokens: services give one for each batch, a query takes one for all.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message as _;
use weir_proto::event::v1::{ConsistencyToken, PartitionOffset};

/// Everything that the tokens seen so far cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Covered {
    last_by_partition: BTreeMap<u32, u64>,
}

impl Covered {
    /// Adds what a token covers. One that is not of this version's form is left out.
    pub(crate) fn add(&mut self, token: &str) {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return };
        let Ok(token) = ConsistencyToken::decode(bytes.as_slice()) else { return };
        for PartitionOffset { partition, offset } in token.partitions {
            let last = self.last_by_partition.entry(partition).or_default();
            *last = offset.max(*last);
        }
    }

    /// The token for all of it; empty when it covers nothing.
    pub(crate) fn token(&self) -> String {
        let partitions = self.last_by_partition.iter();
        let partitions = partitions.map(|(&partition, &offset)| PartitionOffset { partition, offset });
        URL_SAFE_NO_PAD.encode(ConsistencyToken { partitions: partitions.collect() }.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(partitions: &[(u32, u64)]) -> String {
        Covered { last_by_partition: partitions.iter().copied().collect() }.token()
    }

    #[test]
    fn the_last_offset_of_each_partition_is_kept() {
        let mut covered = Covered::default();
        assert_eq!(covered.token(), "");
        for part in [token(&[(0, 5), (2, 1)]), token(&[(0, 3), (1, 9)]), "not a token".into()] {
            covered.add(&part);
        }
        assert_eq!(covered.token(), token(&[(0, 5), (1, 9), (2, 1)]));
    }
}
