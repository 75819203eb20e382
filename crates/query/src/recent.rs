//! What was looked up recently, so that most look-ups are a comparison.

/// Entries: few enough to stay in a core's cache, enough for the names of a product's events or the values of most properties.
const ENTRIES: usize = 1 << 12;
/// Says that nothing is remembered in a place.
const NOTHING: u32 = u32::MAX;
/// Fibonacci hashing: 2^64 divided by the golden ratio spreads neighbours far apart.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Remembers a number for each of some keys, and forgets one where two share a place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    /// Both are empty until the first number is remembered.
    keys: Vec<u128>,
    numbers: Vec<u32>,
}

impl Recent {
    #[inline]
    fn place(key: u128) -> usize {
        let mixed = ((key as u64).rotate_left(29) ^ (key >> 64) as u64).wrapping_mul(SPREAD);
        (mixed >> (64 - ENTRIES.trailing_zeros())) as usize
    }

    /// The number of a key, if it is remembered.
    #[inline]
    pub(crate) fn get(&self, key: u128) -> Option<u32> {
        let place = Self::place(key);
        let number = *self.numbers.get(place)?;
        (number != NOTHING && self.keys[place] == key).then_some(number)
    }

    /// Remembers the number of a key.
    pub(crate) fn put(&mut self, key: u128, number: u32) {
        if self.numbers.is_empty() {
            (self.keys, self.numbers) = (vec![0; ENTRIES], vec![NOTHING; ENTRIES]);
        }
        let place = Self::place(key);
        (self.keys[place], self.numbers[place]) = (key, number);
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.numbers.fill(NOTHING);
    }

    /// Memory it uses, bytes.
    pub(crate) fn bytes(&self) -> usize {
        16 * self.keys.capacity() + 4 * self.numbers.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_right() {
        let key = |number: u32| u128::from(number) << 70 | u128::from(number / 7);
        let mut recent = Recent::default();
        assert_eq!(recent.get(key(0)), None);
        for number in 0..50_000 {
            recent.put(key(number), number);
            assert_eq!(recent.get(key(number)), Some(number));
        }
        let remembered = (0..50_000).filter(|number| match recent.get(key(*number)) {
            Some(found) => {
                assert_eq!(found, *number);
                true
            }
            None => false,
        });
        assert!((ENTRIES / 2..=ENTRIES).contains(&remembered.count()));
        recent.clear();
        assert!((0..50_000).all(|number| recent.get(key(number)).is_none()));
    }
}
