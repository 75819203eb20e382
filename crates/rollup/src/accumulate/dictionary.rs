use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::{cell::Value, definition::MAX_VALUE_BYTES};

/// Number of a dimension value within a project and a slot.
pub(super) type ValueId = u32;
/// The event has no value.
pub(super) const MISSING: ValueId = 0;
/// A value beyond the limit.
pub(super) const OTHER: ValueId = 1;
/// Number of the first text.
const FIRST: ValueId = 2;

/// The texts of one slot, numbered. At most `limit` different ones per batch; texts stay known from batch to batch, so that
/// the usual ones are not allocated again.
#[derive(Debug)]
pub(super) struct Dictionary {
    limit: usize,
    /// Indexes into `texts`.
    index: HashTable<u32>,
    texts: Vec<Text>,
    batch: u32,
    used: usize,
}

#[derive(Debug)]
struct Text {
    hash: u64,
    /// The last batch that used it.
    batch: u32,
    text: Box<str>,
}

impl Dictionary {
    pub(super) fn new(limit: usize) -> Dictionary {
        Dictionary { limit, index: HashTable::new(), texts: Vec::new(), batch: 0, used: 0 }
    }

    /// The number of a value, cut at [`MAX_VALUE_BYTES`].
    #[inline]
    pub(super) fn number(&mut self, value: Option<&str>) -> ValueId {
        let Some(text) = value else { return MISSING };
        let text = &text[..text.floor_char_boundary(MAX_VALUE_BYTES)];
        // A fixed seed: values are bounded in number, so that chosen collisions gain nothing.
        let hash = FixedState::with_seed(0).hash_one(text);
        let same = |at: &u32| {
            let known = &self.texts[*at as usize];
            known.hash == hash && *known.text == *text
        };
        match self.index.find(hash, same) {
            Some(&at) => {
                let known = &mut self.texts[at as usize];
                if known.batch != self.batch {
                    if self.used == self.limit {
                        return OTHER;
                    }
                    known.batch = self.batch;
                    self.used += 1;
                }
                at + FIRST
            }
            None => self.learn(hash, text),
        }
    }

    #[cold]
    fn learn(&mut self, hash: u64, text: &str) -> ValueId {
        if self.used == self.limit {
            return OTHER;
        }
        let at = u32::try_from(self.texts.len()).expect("at most twice the limit are known");
        self.texts.push(Text { hash, batch: self.batch, text: text.into() });
        self.index.insert_unique(hash, at, |at| self.texts[*at as usize].hash);
        self.used += 1;
        at + FIRST
    }

    pub(super) fn value(&self, number: ValueId) -> Value {
        match number {
            MISSING => Value::Missing,
            OTHER => Value::Other,
            text => Value::Text(self.texts[(text - FIRST) as usize].text.clone()),
        }
    }

    /// After the cells of a batch were taken out: numbers given before are void.
    pub(super) fn next_batch(&mut self) {
        self.used = 0;
        self.batch = self.batch.wrapping_add(1);
        // Texts of former batches are forgotten before they outnumber those that a batch may have.
        if self.texts.len() > self.limit {
            self.texts.clear();
            self.index.clear();
        }
    }
}
