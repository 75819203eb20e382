//! Texts, and lists of texts, as small numbers.

use arrow::array::{Array, StringViewArray};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::{cmp::Ordering, hash::BuildHasher};

use crate::{Error, recent::Recent};

/// The longest text that is within its view, bytes: such views are equal wherever their texts are.
const WITHIN_VIEW: u32 = 12;
/// Stands for the view of a missing text: none is that long.
const NULL: u128 = u128::MAX;
/// The key of a single missing text.
const MISSING: &[u8] = &[0];

/// Texts in an answer at most, bytes: it is held several times over while it is encoded.
pub(crate) const MAX_TEXTS: usize = 4 << 20;

/// The values of a group, `None` where an event has none.
pub type Values = Vec<Option<String>>;

/// Numbers every different list of texts from 0 on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts {
    numbers: HashTable<u32>,
    /// All keys, one after the other.
    arena: Vec<u8>,
    /// Where each key ends.
    ends: Vec<usize>,
    scratch: Vec<u8>,
    /// The numbers of texts of a single column, by their views.
    short: Recent,
    /// Of those whose views say where their bytes are, which holds for a batch: columns that were dictionaries have each text once.
    long: Recent,
}

/// Whether a view stands for the same text in every batch.
fn is_lasting(view: u128) -> bool {
    view as u32 <= WITHIN_VIEW || view == NULL
}

fn hash(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

impl Texts {
    /// What follows is asked of another batch.
    pub(crate) fn begin_batch(&mut self) {
        self.long.clear();
    }

    /// The number of a row of some columns.
    #[inline]
    pub(crate) fn number(&mut self, columns: &[&StringViewArray], row: usize) -> u32 {
        let [only] = columns else { return self.number_anew(columns, row) };
        let view = if only.is_null(row) { NULL } else { only.views()[row] };
        let recent = if is_lasting(view) { &self.short } else { &self.long };
        recent.get(view).unwrap_or_else(|| self.remembered(only, row, view))
    }

    #[cold]
    fn remembered(&mut self, column: &StringViewArray, row: usize, view: u128) -> u32 {
        let number = self.number_anew(&[column], row);
        let recent = if is_lasting(view) { &mut self.short } else { &mut self.long };
        recent.put(view, number);
        number
    }

    fn number_anew(&mut self, columns: &[&StringViewArray], row: usize) -> u32 {
        let mut key = std::mem::take(&mut self.scratch);
        key.clear();
        for column in columns {
            if column.is_null(row) {
                key.push(0);
            } else {
                let text = column.value(row).as_bytes();
                key.push(1);
                key.extend_from_slice(&(text.len() as u32).to_le_bytes());
                key.extend_from_slice(text);
            }
        }
        let number = self.number_of(&key);
        self.scratch = key;
        number
    }

    fn number_of(&mut self, key: &[u8]) -> u32 {
        let Self { numbers, arena, ends, .. } = self;
        let at = |number: u32| {
            let number = number as usize;
            &arena[number.checked_sub(1).map_or(0, |before| ends[before])..ends[number]]
        };
        let hashed = hash(key);
        if let Some(number) = numbers.find(hashed, |number| at(*number) == key) {
            return *number;
        }
        let number = ends.len() as u32;
        numbers.insert_unique(hashed, number, |number| hash(at(*number)));
        arena.extend_from_slice(key);
        ends.push(arena.len());
        number
    }

    fn key(&self, number: u32) -> &[u8] {
        let number = number as usize;
        &self.arena[number.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[number]]
    }

    /// The texts of a number, as bytes.
    fn parts(&self, number: u32) -> impl Iterator<Item = Option<&[u8]>> {
        let mut rest = self.key(number);
        std::iter::from_fn(move || {
            let (kind, after) = rest.split_first()?;
            if *kind == 0 {
                rest = after;
                return Some(None);
            }
            let (length, after) = after.split_first_chunk::<4>().expect("keys are written whole");
            let (text, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            rest = after;
            Some(Some(text))
        })
    }

    /// The texts of a number.
    pub(crate) fn values(&self, number: u32) -> Values {
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        self.parts(number).map(|part| part.map(text)).collect()
    }

    /// The order of the texts of two numbers.
    pub(crate) fn order(&self, one: u32, other: u32) -> Ordering {
        // UTF-8 orders texts as their characters do.
        self.parts(one).cmp(self.parts(other))
    }

    /// Checks that the texts of these numbers fit into an answer.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub(crate) fn fit(&self, numbers: impl Iterator<Item = u32>) -> Result<(), Error> {
        let bytes: usize = numbers.map(|number| self.key(number).len()).sum();
        if bytes > MAX_TEXTS {
            let mend = "ask for fewer groups, or break down by a field with shorter values";
            return Err(Error::TooLarge { what: "bytes of texts", limit: MAX_TEXTS, mend });
        }
        Ok(())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Takes another's texts in; their numbers here, by their numbers there.
    pub(crate) fn absorb(&mut self, other: &Self) -> Vec<u32> {
        (0..other.len() as u32).map(|number| self.number_of(other.key(number))).collect()
    }

    /// Memory it uses, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.arena.capacity()
            + 8 * self.ends.capacity()
            + 5 * self.numbers.capacity()
            + self.short.bytes()
            + self.long.bytes()
    }
}

/// Says that a number is not known yet.
const UNKNOWN: u32 = u32::MAX;

/// The numbers of a dictionary's texts, for as long as batch after batch has the same.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    dictionary: Option<StringViewArray>,
    /// By entry, and last that of a missing text. Found when first asked for: there may be entries that no row has.
    numbers: Vec<u32>,
}

impl Entries {
    /// What follows is asked of a batch with this dictionary.
    pub(crate) fn begin_batch(&mut self, dictionary: &StringViewArray, texts: &mut Texts) {
        if self.dictionary.as_ref().is_some_and(|known| is_same(known, dictionary)) {
            return;
        }
        texts.begin_batch();
        self.numbers.clear();
        self.numbers.resize(dictionary.len() + 1, UNKNOWN);
        self.dictionary = Some(dictionary.clone());
    }

    /// The number of a row that has this entry, or none.
    #[inline]
    pub(crate) fn number(&mut self, entry: Option<usize>, texts: &mut Texts) -> u32 {
        let at = entry.unwrap_or(self.numbers.len() - 1);
        match self.numbers[at] {
            UNKNOWN => self.find(at, texts),
            known => known,
        }
    }

    #[inline(never)]
    fn find(&mut self, at: usize, texts: &mut Texts) -> u32 {
        let number = match &self.dictionary {
            Some(dictionary) if at < dictionary.len() => texts.number(&[dictionary], at),
            _ => texts.number_of(MISSING),
        };
        self.numbers[at] = number;
        number
    }

    /// Memory it uses, bytes.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.numbers.capacity()
            + self.dictionary.as_ref().map_or(0, StringViewArray::get_array_memory_size)
    }
}

/// Whether two dictionaries have the same texts: their views are equal, and what views of long texts point to lies in the same place.
fn is_same(one: &StringViewArray, other: &StringViewArray) -> bool {
    one.views() == other.views() && places(one).eq(places(other)) && one.nulls() == other.nulls()
}

fn places(array: &StringViewArray) -> impl Iterator<Item = *const u8> {
    array.data_buffers().iter().map(|bytes| bytes.as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_missing_from_empty_and_columns_apart() {
        let first: StringViewArray =
            [Some("ab"), Some("a"), None, Some(""), Some("ab")].into_iter().collect();
        let second: StringViewArray =
            [Some("c"), Some("bc"), Some(""), None, Some("c")].into_iter().collect();
        let mut texts = Texts::default();
        texts.begin_batch();
        let numbers: Vec<_> = (0..5).map(|row| texts.number(&[&first, &second], row)).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 0]);
        assert_eq!(texts.values(2), [None, Some(String::new())]);
        let mut other = Texts::default();
        other.number(&[&first, &second], 3);
        assert_eq!(other.absorb(&texts), [1, 2, 3, 0]);
        assert_eq!(other.values(0), texts.values(3));
    }

    #[test]
    fn entries_have_the_numbers_of_their_texts_whichever_dictionary_they_are_in() {
        let long = "a text that is too long to be kept in its view";
        let texts_of = |all: [&str; 3]| StringViewArray::from_iter_values(all);
        let (one, other) = (texts_of(["a", long, "never asked for"]), texts_of([long, "b", "a"]));
        let (mut entries, mut texts) = (Entries::default(), Texts::default());
        let mut numbers = Vec::new();
        for dictionary in [&one, &one.clone(), &other, &one] {
            entries.begin_batch(dictionary, &mut texts);
            numbers.extend([Some(1), None, Some(0), Some(1)].map(|entry| entries.number(entry, &mut texts)));
        }
        assert_eq!(numbers, [0, 1, 2, 0, 0, 1, 2, 0, 3, 1, 0, 3, 0, 1, 2, 0]);
        assert_eq!(texts.values(1), [None]);
        assert_eq!(texts.len(), 4, "entries that no row has are no texts");
    }

    #[test]
    fn a_text_has_one_number_in_all_batches() {
        let long = "a text that is too long to be kept in its view";
        let other = long.replace("too", "two");
        let batches: [StringViewArray; 2] = [
            [Some("a"), None, Some(long), Some("a"), Some(long)].into_iter().collect(),
            // Another text where the other batch has the long one.
            [Some(other.as_str()), Some(long), Some("a"), None, Some("")].into_iter().collect(),
        ];
        let mut texts = Texts::default();
        let mut numbers = Vec::new();
        for batch in &batches {
            texts.begin_batch();
            numbers.extend((0..batch.len()).map(|row| texts.number(&[batch], row)));
        }
        assert_eq!(numbers, [0, 1, 2, 0, 2, 3, 2, 0, 1, 4]);
    }
}
