//! A map that forgets: bounded memory of what was seen lately.

use std::{collections::HashMap, hash::Hash, mem};

use foldhash::fast::RandomState;

/// Remembers at least the last `capacity` keys used and at most twice as many. Two generations: when the young one is full,
/// it becomes the old one and what was the old one is forgotten; a key that is used moves to the young one. That is nearly
/// least-recently-used, at the price of a hash map.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    capacity: usize,
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// # Panics
    /// When `capacity` is 0.
    pub(crate) fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a memory of nothing");
        Self { capacity, young: HashMap::default(), old: HashMap::default() }
    }

    /// What is remembered of the key; if nothing, `value` from now on. Tells whether it was remembered.
    pub(crate) fn remember(&mut self, key: K, value: V) -> (&V, bool) {
        if self.young.contains_key(&key) {
            return (&self.young[&key], true);
        }
        let earlier = self.old.remove(&key);
        if self.young.len() == self.capacity {
            self.old = mem::take(&mut self.young);
        }
        let known = earlier.is_some();
        (self.young.entry(key).or_insert(earlier.unwrap_or(value)), known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_stays() {
        let mut recent = Recent::new(10);
        assert_eq!(recent.remember("a", 1), (&1, false));
        assert_eq!(recent.remember("a", 2), (&1, true));
    }

    #[test]
    fn what_is_used_is_kept_and_the_rest_is_forgotten() {
        let mut recent = Recent::new(10);
        recent.remember(0, ());
        for key in 1..1000 {
            recent.remember(key, ());
            assert!(recent.remember(0, ()).1, "in use at {key}");
            assert!(recent.young.len() + recent.old.len() <= 20);
        }
        assert!(recent.remember(995, ()).1, "among the last ten");
        assert!(!recent.remember(500, ()).1);
    }
}
