//! The map of properties: entries as texts, with their kinds in a column beside it.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayBuilder, ArrayRef, AsArray, MapArray, RecordBatch, StringArray, StringBuilder,
        StringViewArray, StringViewBuilder, StructArray,
    },
    buffer::OffsetBuffer,
};

use crate::{
    error::{Error, Result},
    schema::{self, Kind, column},
};

/// The entries of a batch's map of properties.
#[derive(Debug)]
pub struct Entries<'b> {
    map: &'b MapArray,
    keys: &'b StringArray,
    values: &'b StringArray,
    kinds: &'b StringViewArray,
}

impl<'b> Entries<'b> {
    /// Those of a batch; `None` when it has no such columns because there are no entries.
    ///
    /// # Errors
    /// As [`Entries::new`].
    pub fn of(batch: &'b RecordBatch) -> Result<Option<Self>> {
        let map = batch.column_by_name(column::PROPERTIES);
        let columns = map.zip(batch.column_by_name(column::PROPERTY_KINDS));
        columns.map(|(map, kinds)| Self::new(map, kinds)).transpose()
    }

    /// Those of the columns `properties` and `property_kinds`.
    ///
    /// # Errors
    /// [`Error::Column`] when one of them has another type.
    pub fn new(map: &'b ArrayRef, kinds: &'b ArrayRef) -> Result<Self> {
        let found = map.data_type();
        let map = map.as_map_opt().ok_or_else(|| Error::mistyped(column::PROPERTIES, found))?;
        let texts = (map.keys().as_string_opt::<i32>(), map.values().as_string_opt::<i32>());
        let (Some(keys), Some(values)) = texts else {
            return Err(Error::mistyped(column::PROPERTIES, found));
        };
        let found = kinds.data_type();
        let kinds =
            kinds.as_string_view_opt().ok_or_else(|| Error::mistyped(column::PROPERTY_KINDS, found))?;
        Ok(Self { map, keys, values, kinds })
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.map.len()
    }

    /// The value of the property `key` in a row.
    #[inline]
    pub(crate) fn get(&self, row: usize, key: &str) -> Option<(Kind, &'b str)> {
        let offsets = self.map.value_offsets();
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        let entry = (start..end).find(|entry| self.keys.value(*entry) == key)?;
        let letter = *self.kinds.value(row).as_bytes().get(entry - start)?;
        self.values.is_valid(entry).then(|| (Kind::of(letter), self.values.value(entry)))
    }

    /// Calls `take(row, key, kind, value)` for every entry in order.
    pub fn each(&self, mut take: impl FnMut(usize, &'b str, Kind, Option<&'b str>)) {
        for row in 0..self.map.len() {
            self.of_row(row, |key, kind, value| take(row, key, kind, value));
        }
    }

    /// Calls `take(key, kind, value)` for every entry of a row in order; a map that is null has none.
    pub(crate) fn of_row(&self, row: usize, mut take: impl FnMut(&'b str, Kind, Option<&'b str>)) {
        if self.map.is_null(row) {
            return;
        }
        let offsets = self.map.value_offsets();
        let entries = offsets[row] as usize..offsets[row + 1] as usize;
        for (entry, letter) in entries.zip(self.kinds.value(row).bytes()) {
            let value = self.values.is_valid(entry).then(|| self.values.value(entry));
            take(self.keys.value(entry), Kind::of(letter), value);
        }
    }
}

/// The entries of rows in the making. Rows that are passed over have none.
#[derive(Debug)]
pub(crate) struct Rest {
    keys: StringBuilder,
    values: StringBuilder,
    /// Where the entries of each row but the last begin and end.
    ends: Vec<i32>,
    kinds: StringViewBuilder,
    /// The kinds of the last row's entries.
    letters: String,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            keys: StringBuilder::new(),
            values: StringBuilder::new(),
            ends: vec![0],
            kinds: StringViewBuilder::new(),
            letters: String::new(),
        }
    }
}

impl Rest {
    /// Adds an entry to a row, which is not before the last that has one.
    pub(crate) fn push(&mut self, row: usize, key: &str, kind: Kind, value: Option<&str>) {
        self.end_rows_before(row);
        self.keys.append_value(key);
        self.values.append_option(value);
        self.letters.push(char::from(kind.letter()));
    }

    /// Whether there are no entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The columns `properties` and `property_kinds` with so many rows; begins anew.
    pub(crate) fn finish(&mut self, rows: usize) -> (ArrayRef, ArrayRef) {
        self.end_rows_before(rows);
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        (Arc::new(map(self.keys.finish(), self.values.finish(), ends)), Arc::new(self.kinds.finish()))
    }

    fn end_rows_before(&mut self, row: usize) {
        while self.ends.len() <= row {
            let end = self.keys.len();
            self.ends.push(i32::try_from(end).expect("batches are far smaller than 2^31 entries"));
            self.kinds.append_value(&self.letters);
            self.letters.clear();
        }
    }
}

/// The columns of rows without entries.
pub(crate) fn empty(rows: usize) -> (ArrayRef, ArrayRef) {
    Rest::default().finish(rows)
}

/// A map of properties; the entries of row `i` end at `ends[i + 1]`.
fn map(keys: StringArray, values: StringArray, ends: Vec<i32>) -> MapArray {
    let entries = StructArray::new(schema::map_fields(), vec![Arc::new(keys), Arc::new(values)], None);
    MapArray::new(schema::map_entries(), OffsetBuffer::new(ends.into()), entries, None, false)
}
