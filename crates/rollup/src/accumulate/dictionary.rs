use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::{cell::Value, definition::MAX_VALUE_BYTES};

/// Number of a dimension value within a project and a slot.
pub(super) type ValueId = u32;
/// The event has no value.
pub(super) const MISSING: ValueId = 0;
/// Number of the first text.
const FIRST: ValueId = 1;

/// Texts that are kept from one batch to the next.
const MAX_WARM: usize = 10_000;

/// The texts of one slot, numbered. They stay known from batch to batch, so that the usual ones are not allocated again.
#[derive(Debug, Clone, Default)]
pub(super) struct Dictionary {
    /// Indexes into `texts`.
    index: HashTable<u32>,
    texts: Vec<Text>,
}

#[derive(Debug, Clone)]
struct Text {
    hash: u64,
    text: Box<str>,
}

impl Dictionary {
    /// The number of a value, cut at [`MAX_VALUE_BYTES`].
    #[inline]
    pub(super) fn number(&mut self, value: Option<&str>) -> ValueId {
        let Some(text) = value else { return MISSING };
        let text = &text[..text.floor_char_boundary(MAX_VALUE_BYTES)];
        // A fixed seed: cells are bounded in number, so that chosen collisions gain little.
        let hash = FixedState::with_seed(0).hash_one(text);
        let same = |at: &u32| {
            let known = &self.texts[*at as usize];
            known.hash == hash && *known.text == *text
        };
        match self.index.find(hash, same) {
            Some(&at) => at + FIRST,
            None => self.learn(hash, text),
        }
    }

    #[cold]
    fn learn(&mut self, hash: u64, text: &str) -> ValueId {
        let at = u32::try_from(self.texts.len()).expect("a batch has fewer than 2^32 events");
        self.texts.push(Text { hash, text: text.into() });
        self.index.insert_unique(hash, at, |at| self.texts[*at as usize].hash);
        at + FIRST
    }

    pub(super) fn value(&self, number: ValueId) -> Value {
        match number {
            MISSING => Value::Missing,
            text => Value::Text(self.texts[(text - FIRST) as usize].text.clone()),
        }
    }

    /// After the cells of a batch were taken out: numbers given before are void.
    pub(super) fn next_batch(&mut self) {
        if self.texts.len() > MAX_WARM {
            *self = Self::default();
        }
    }
}
