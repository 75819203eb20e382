//! Columns of texts in memory. Most have few distinct texts: those are numbered, which takes 2 bytes a row instead of 16 and more, and
//! makes rows cheap to join and to sort. The others are as Arrow has them, Utf8View.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayBuilder, ArrayRef, AsArray, DictionaryArray, NullBufferBuilder, PrimitiveBuilder,
        StringArray, StringViewBuilder, UInt16Array, new_null_array,
    },
    buffer::OffsetBuffer,
    compute::{cast, concat, take},
    datatypes::{ArrowPrimitiveType, DataType, FieldRef, Schema, UInt16Type},
};
use hashbrown::{HashMap, HashTable};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;

/// Distinct texts up to which a column numbers them, and their bytes: they stay in the processor's cache, and in memory for as long as
/// the column's encoder does, and whoever reads a few rows over the network gets them all.
const DISTINCT: usize = 1024;
const DISTINCT_BYTES: usize = 128 << 10;

/// The type of a column with numbered texts.
pub(crate) fn numbered_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8))
}

/// Whether a column holds texts in one of the two forms that they have in memory.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    *data_type == DataType::Utf8View || *data_type == numbered_type()
}

/// A column of texts as Utf8View; any other as it is.
pub(crate) fn plain(array: &ArrayRef) -> Result<ArrayRef> {
    let Some(numbered) = array.as_any_dictionary_opt() else { return Ok(Arc::clone(array)) };
    let texts = cast(numbered.values(), &DataType::Utf8View)?;
    Ok(take(&texts, numbered.keys(), None)?)
}

/// The texts that a column's numbers stand for, which other columns may share.
pub(crate) fn shared(array: &dyn Array) -> Option<&StringArray> {
    array.as_dictionary_opt::<UInt16Type>()?.values().as_string_opt()
}

/// A schema with columns as [`plain`] makes them.
pub(crate) fn plain_schema(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Dictionary(..) => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    });
    Schema::new(fields.collect::<Vec<FieldRef>>())
}

/// How often each text is in a column; `None` for a column of another type.
pub fn counts(array: &ArrayRef) -> Option<HashMap<&str, u64>> {
    let mut counts = HashMap::new();
    if let Some(texts) = array.as_string_view_opt() {
        texts.iter().flatten().for_each(|text| *counts.entry(text).or_default() += 1);
        return Some(counts);
    }
    let numbered = array.as_dictionary_opt::<UInt16Type>()?;
    let mut by_number = vec![0; numbered.values().len()];
    numbered.keys().iter().flatten().for_each(|number| by_number[usize::from(number)] += 1);
    let texts = numbered.values().as_string_opt::<i32>()?.iter().flatten();
    for (text, count) in texts.zip(by_number).filter(|(_, count)| *count > 0) {
        *counts.entry(text).or_default() += count;
    }
    Some(counts)
}

/// Texts and their numbers.
#[derive(Debug, Default)]
struct Numbering {
    /// Numbers by the hash of their texts.
    numbers: HashTable<u16>,
    /// All texts, one after the other.
    texts: String,
    /// Where each ends.
    ends: Vec<i32>,
    /// The texts as an array, if there are no newer ones. Batches made after each other share it, so that joining them is cheap.
    shared: Option<StringArray>,
}

impl Numbering {
    fn get(&self, number: u16) -> &str {
        text_of(&self.texts, &self.ends, number)
    }

    /// The number of a text; `None` if it is new and there are too many.
    #[inline]
    fn number(&mut self, text: &str) -> Option<u16> {
        let hash = xxh3_64(text.as_bytes());
        if let Some(number) = self.numbers.find(hash, |number| self.get(*number) == text) {
            return Some(*number);
        }
        self.add(text, hash)
    }

    #[cold]
    fn add(&mut self, text: &str, hash: u64) -> Option<u16> {
        if self.ends.len() == DISTINCT || self.texts.len() + text.len() > DISTINCT_BYTES {
            return None;
        }
        let end = i32::try_from(self.texts.len() + text.len()).ok()?;
        let number = self.ends.len() as u16;
        self.texts.push_str(text);
        self.ends.push(end);
        self.shared = None;
        let Self { numbers, texts, ends, .. } = self;
        numbers.insert_unique(hash, number, |number| xxh3_64(text_of(texts, ends, *number).as_bytes()));
        Some(number)
    }

    fn array(&mut self) -> StringArray {
        let Self { texts, ends, shared, .. } = self;
        let make = || {
            let offsets: Vec<i32> = std::iter::once(0).chain(ends.iter().copied()).collect();
            let bytes = texts.as_bytes().to_vec();
            StringArray::new(OffsetBuffer::new(offsets.into()), bytes.into(), None)
        };
        shared.get_or_insert_with(make).clone()
    }
}

#[inline]
fn text_of<'t>(texts: &'t str, ends: &[i32], number: u16) -> &'t str {
    let number = usize::from(number);
    let start = number.checked_sub(1).map_or(0, |before| ends[before] as usize);
    &texts[start..ends[number] as usize]
}

/// A column in the making. Rows that are passed over are null. It remembers the numbers, for the batches that come.
#[derive(Debug)]
pub(crate) struct Texts(Form);

#[derive(Debug)]
enum Form {
    Numbered { numbering: Numbering, column: PrimitiveBuilder<UInt16Type>, last: Option<u16> },
    Plain(StringViewBuilder),
}

impl Default for Texts {
    fn default() -> Self {
        Self(Form::Numbered { numbering: Numbering::default(), column: PrimitiveBuilder::new(), last: None })
    }
}

impl Texts {
    /// Adds the text of a row; the rows before that have none yet are null.
    #[inline]
    pub(crate) fn push(&mut self, row: usize, text: &str) {
        match &mut self.0 {
            Form::Numbered { numbering, column, last } => {
                let number = match *last {
                    Some(last) if numbering.get(last) == text => Some(last),
                    _ => numbering.number(text),
                };
                *last = number;
                match number {
                    Some(number) => {
                        pad(column, row);
                        column.append_value(number);
                    }
                    None => {
                        self.spell_out();
                        self.push(row, text);
                    }
                }
            }
            Form::Plain(column) => {
                pad_texts(column, row);
                column.append_value(text);
            }
        }
    }

    /// There are too many distinct texts for numbers.
    #[cold]
    fn spell_out(&mut self) {
        let Form::Numbered { numbering, column, .. } = &mut self.0 else { return };
        let mut texts = StringViewBuilder::with_capacity(column.len());
        for number in &column.finish() {
            texts.append_option(number.map(|number| numbering.get(number)));
        }
        self.0 = Form::Plain(texts);
    }

    /// The column with so many rows, `None` if all are null; begins anew.
    pub(crate) fn finish(&mut self, rows: usize) -> Option<ArrayRef> {
        match &mut self.0 {
            Form::Numbered { column, .. } if column.is_empty() => None,
            Form::Numbered { numbering, column, .. } => {
                pad(column, rows);
                let texts = DictionaryArray::new(column.finish(), Arc::new(numbering.array()));
                Some(Arc::new(texts))
            }
            Form::Plain(column) if column.is_empty() => None,
            Form::Plain(column) => {
                pad_texts(column, rows);
                Some(Arc::new(column.finish()))
            }
        }
    }
}

/// Makes the rows up to `row` null that are not there.
#[inline]
pub(crate) fn pad<T: ArrowPrimitiveType>(column: &mut PrimitiveBuilder<T>, row: usize) {
    if column.len() < row {
        column.append_nulls(row - column.len());
    }
}

/// The column with so many rows, `None` if all are null; begins anew.
pub(crate) fn filled<T: ArrowPrimitiveType>(
    column: &mut PrimitiveBuilder<T>,
    rows: usize,
) -> Option<ArrayRef> {
    if column.is_empty() {
        return None;
    }
    pad(column, rows);
    Some(Arc::new(column.finish()))
}

#[inline]
fn pad_texts(column: &mut StringViewBuilder, row: usize) {
    for _ in column.len()..row {
        column.append_null();
    }
}

/// Columns of texts as one; where there is none, so many rows are null.
///
/// # Errors
/// An overflow of what Arrow can hold.
pub(crate) fn join(columns: &[(usize, Option<&ArrayRef>)]) -> Result<ArrayRef> {
    if let Some(joined) = join_numbered(columns) {
        return Ok(Arc::new(joined));
    }
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .map(|(rows, array)| match array {
            Some(array) => plain(array),
            None => Ok(new_null_array(&DataType::Utf8View, *rows)),
        })
        .collect::<Result<_>>()?;
    let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    // Without the parts of buffers that no row needs.
    Ok(Arc::new(concat(&arrays)?.as_string_view().gc()))
}

/// With numbers, if all are numbered and the texts are few enough together.
fn join_numbered(columns: &[(usize, Option<&ArrayRef>)]) -> Option<DictionaryArray<UInt16Type>> {
    let mut numberings: Vec<&StringArray> = Vec::new();
    let mut numbered = Vec::with_capacity(columns.len());
    for (rows, array) in columns {
        let Some(array) = array else {
            numbered.push((*rows, None));
            continue;
        };
        let array = array.as_dictionary_opt::<UInt16Type>()?;
        let texts = array.values().as_string_opt::<i32>()?;
        let known = numberings.iter().position(|known| known.values().ptr_eq(texts.values()));
        let place = known.unwrap_or_else(|| {
            numberings.push(texts);
            numberings.len() - 1
        });
        numbered.push((*rows, Some((array.keys(), place))));
    }
    let (texts, renumbered) = merge(&numberings)?;
    let all = columns.iter().map(|(rows, _)| rows).sum();
    let mut keys: Vec<u16> = Vec::with_capacity(all);
    let mut nulls = NullBufferBuilder::new(all);
    for (rows, column) in numbered {
        let Some((numbers, place)) = column else {
            keys.resize(keys.len() + rows, 0);
            nulls.append_n_nulls(rows);
            continue;
        };
        match &renumbered[place] {
            None => keys.extend_from_slice(numbers.values()),
            // Where it is null, any number may stand.
            Some(new) => {
                let numbers = numbers.values().iter();
                keys.extend(numbers.map(|number| new.get(usize::from(*number)).copied().unwrap_or(0)));
            }
        }
        match numbers.nulls() {
            Some(those) => nulls.append_buffer(those),
            None => nulls.append_n_non_nulls(rows),
        }
    }
    DictionaryArray::try_new(UInt16Array::new(keys.into(), nulls.finish()), Arc::new(texts)).ok()
}

/// One numbering for several, and for each of these its new numbers, `None` where they stay. `None` when the texts are too many.
fn merge(numberings: &[&StringArray]) -> Option<(StringArray, Vec<Option<Vec<u16>>>)> {
    if let [one] = numberings {
        return Some(((*one).clone(), vec![None]));
    }
    let mut merged = Numbering::default();
    let mut renumbered = Vec::with_capacity(numberings.len());
    for texts in numberings {
        let new: Vec<u16> = texts.iter().map(|text| merged.number(text?)).collect::<Option<_>>()?;
        let stays = new.iter().enumerate().all(|(old, new)| old == usize::from(*new));
        renumbered.push((!stays).then_some(new));
    }
    // Mostly one grew out of the others.
    let whole = numberings
        .iter()
        .zip(&renumbered)
        .find(|(texts, renumbered)| renumbered.is_none() && texts.len() == merged.ends.len());
    let texts = whole.map_or_else(|| merged.array(), |(texts, _)| (*texts).clone());
    Some((texts, renumbered))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(array: &ArrayRef) -> Vec<Option<String>> {
        let plain = plain(array).unwrap();
        plain.as_string_view().iter().map(|text| text.map(str::to_owned)).collect()
    }

    fn push_all(column: &mut Texts, rows: &[Option<String>]) {
        for (row, text) in rows.iter().enumerate() {
            if let Some(text) = text {
                column.push(row, text);
            }
        }
    }

    fn rows() -> impl Strategy<Value = Vec<Option<String>>> {
        let few = prop::option::of("[a-c]{0,2}");
        // More than are numbered, some of them too long to be kept in place.
        let many =
            prop::option::of((0u32..3000).prop_map(|n| format!("{n:0width$}", width = 1 + n as usize % 20)));
        prop_oneof![prop::collection::vec(few, 0..50), prop::collection::vec(many, 0..2500)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn texts_are_what_they_were_however_they_are_kept_and_joined(
            batches in prop::collection::vec((any::<bool>(), rows()), 1..6),
        ) {
            let (mut one, mut other) = (Texts::default(), Texts::default());
            let mut columns = Vec::new();
            for (of_one, rows) in &batches {
                let column = if *of_one { &mut one } else { &mut other };
                push_all(column, rows);
                let array = column.finish(rows.len());
                prop_assert_eq!(array.is_none(), rows.iter().all(Option::is_none));
                if let Some(array) = &array {
                    prop_assert_eq!(&texts(array), rows);
                }
                columns.push((rows.len(), array));
            }
            let joined = join(&columns.iter().map(|(rows, array)| (*rows, array.as_ref())).collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(texts(&joined), batches.into_iter().flat_map(|(_, rows)| rows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn few_texts_are_numbered_and_many_are_not() {
        let mut column = Texts::default();
        (0..DISTINCT).for_each(|row| column.push(row, &row.to_string()));
        assert_eq!(column.finish(DISTINCT).unwrap().data_type(), &numbered_type());
        column.push(0, "7");
        column.push(1, "one more");
        let array = column.finish(3).unwrap();
        assert_eq!(array.data_type(), &DataType::Utf8View);
        assert_eq!(texts(&array), [Some("7".to_owned()), Some("one more".to_owned()), None]);
    }

    #[test]
    fn long_texts_are_not_numbered_for_ever() {
        let mut column = Texts::default();
        for row in 0..20 {
            column.push(row, &format!("{row:8192}"));
        }
        assert_eq!(column.finish(20).unwrap().data_type(), &DataType::Utf8View);
    }

    #[test]
    fn batches_of_one_column_share_their_texts_when_they_are_joined() {
        let mut column = Texts::default();
        let mut batch = |texts: &[&str]| {
            texts.iter().enumerate().for_each(|(row, text)| column.push(row, text));
            column.finish(texts.len()).unwrap()
        };
        let batches = [batch(&["a", "b"]), batch(&["b"]), batch(&["c"])];
        let joined = join(&batches.each_ref().map(|array| (array.len(), Some(array)))).unwrap();
        let values = |array: &ArrayRef| {
            array.as_dictionary::<UInt16Type>().values().as_string::<i32>().values().clone()
        };
        assert!(values(&joined).ptr_eq(&values(&batches[2])));
    }
}
