//! Joining consistency tokens: services give one for each batch, a query takes one for all.

use std::collections::BTreeMap;

use weir_proto::token;

/// Everything that the tokens seen so far cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    last_by_partition: BTreeMap<u32, u64>,
}

impl Covered {
    /// Adds what a token covers. One that is not of this version's form is left out.
    pub fn add(&mut self, token: &str) {
        for (partition, offset) in token::decode(token).unwrap_or_default() {
            let last = self.last_by_partition.entry(partition).or_default();
            *last = offset.max(*last);
        }
    }

    /// The token for all of it; empty when it covers nothing.
    pub fn token(&self) -> String {
        token::encode(&self.last_by_partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_of_each_partition_is_kept() {
        let mut covered = Covered::default();
        assert_eq!(covered.token(), "");
        let token = |partitions: &[(u32, u64)]| token::encode(&partitions.iter().copied().collect());
        for part in [token(&[(0, 5), (2, 1)]), token(&[(0, 3), (1, 9)]), "not a token".into()] {
            covered.add(&part);
        }
        assert_eq!(covered.token(), token(&[(0, 5), (1, 9), (2, 1)]));
    }
}
