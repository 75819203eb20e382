//! The shape of a batch: which properties are columns.
//!
//! Events come with all properties in one map. A segment has the frequent ones as columns, which are read 10 times as fast and take
//! less space. Which ones those are may differ from segment to segment; [`view`](crate::view) makes one table of them again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayBuilder, ArrayRef, AsArray, BooleanBuilder, Float64Builder, MapArray, RecordBatch,
        RecordBatchOptions, StringArray, StringBuilder, StringViewArray, StringViewBuilder, new_empty_array,
        new_null_array,
    },
    compute::{concat, is_not_null, kernels::zip::zip},
    datatypes::{DataType, Field, FieldRef, Float64Type, Schema},
};
use weir_rollup::field::write_number;

use crate::{
    encode,
    error::{Error, Result},
    schema::{self, Kind, column},
};

/// Chosen properties at most: each costs every segment some 100 bytes of metadata and every reader a look.
pub(crate) const MAX_CHOSEN: usize = 64;
/// A property is chosen when at least one in so many events has it.
pub(crate) const ONE_IN: usize = 20;
/// Bytes of a key that can be chosen at most.
pub(crate) const MAX_KEY: usize = 200;

/// The keys that are worth columns: those that are columns already, those of `always` that occur, and the most frequent ones.
///
/// # Errors
/// [`Error::Column`] for a batch without properties.
pub fn choose(batch: &RecordBatch, always: &[String]) -> Result<BTreeSet<String>> {
    let mut chosen: BTreeSet<String> =
        chosen_columns(batch.schema_ref()).map(|(_, key)| key.to_owned()).collect();
    let entries = Entries::of(batch)?;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    entries.each(|_, key, kind, _| {
        if kind.prefix().is_some() && key.len() <= MAX_KEY {
            *counts.entry(key).or_default() += 1;
        }
    });
    chosen.extend(always.iter().filter(|key| counts.contains_key(key.as_str())).cloned());
    let mut frequent: Vec<_> =
        counts.into_iter().filter(|(_, count)| count * ONE_IN >= batch.num_rows()).collect();
    frequent.sort_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
    for (key, _) in frequent {
        if chosen.len() >= MAX_CHOSEN {
            break;
        }
        chosen.insert(key.to_owned());
    }
    Ok(chosen)
}

/// Moves the texts, numbers and booleans of these properties from the map to columns of their own. Columns that are there
/// already stay and are added to.
///
/// # Errors
/// [`Error::Column`] for a batch without properties.
pub fn promote(batch: &RecordBatch, keys: &BTreeSet<String>) -> Result<RecordBatch> {
    let entries = Entries::of(batch)?;
    let places: HashMap<&str, usize> =
        keys.iter().enumerate().map(|(place, key)| (key.as_str(), place)).collect();
    let mut moved: Vec<Moved> = keys.iter().map(|_| Moved::default()).collect();
    let mut rest = Rest::default();
    let mut last = 0;
    entries.each(|row, key, kind, value| {
        while last < row {
            rest.end_row();
            last += 1;
        }
        let place = kind.prefix().and_then(|_| places.get(key));
        match (place, kind, value) {
            (Some(place), Kind::Text, Some(text)) => moved[*place].text(row, text),
            (Some(place), Kind::Number, Some(text)) if text.parse::<f64>().is_ok() => {
                moved[*place].number(row, text.parse().unwrap_or_default());
            }
            (Some(place), Kind::Boolean, Some(text)) => moved[*place].boolean(row, text == "true"),
            _ => rest.push(key, kind, value),
        }
    });
    (last..batch.num_rows()).for_each(|_| rest.end_row());

    let rows = batch.num_rows();
    let mut columns: BTreeMap<String, ArrayRef> = BTreeMap::new();
    for (key, moved) in keys.iter().zip(moved) {
        for (prefix, array) in moved.finish(rows) {
            columns.insert(format!("{prefix}{key}"), array);
        }
    }
    let mut fields: Vec<(FieldRef, ArrayRef)> = Vec::new();
    let (map, kinds) = rest.finish();
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let array = match field.name().as_str() {
            column::PROPERTIES => Arc::clone(&map),
            column::PROPERTY_KINDS => Arc::clone(&kinds),
            name => match columns.remove(name) {
                Some(new) => zip(&is_not_null(&new)?, &new, array)?,
                None => Arc::clone(array),
            },
        };
        fields.push((Arc::clone(field), array));
    }
    fields.extend(columns.into_iter().map(|(name, array)| {
        let field = Field::new(name, array.data_type().clone(), true);
        (Arc::new(field), array)
    }));
    let (fields, arrays): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// The batches as one, with all columns that any of them has: those that another lacks are null there.
///
/// # Errors
/// [`Error::Column`] when a column has several types.
pub fn join(batches: &[RecordBatch]) -> Result<RecordBatch> {
    let mut extra: BTreeMap<&str, &FieldRef> = BTreeMap::new();
    let core = schema::schema();
    for field in batches.iter().flat_map(|batch| batch.schema_ref().fields()) {
        if core.index_of(field.name()).is_ok() {
            continue;
        }
        let known = extra.entry(field.name()).or_insert(field);
        if known.data_type() != field.data_type() {
            let problem = format!("has the types {} and {}", known.data_type(), field.data_type());
            return Err(Error::Column { column: field.name().clone(), problem });
        }
    }
    let fields: Vec<FieldRef> = core.fields().iter().chain(extra.into_values()).cloned().collect();
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut columns = Vec::with_capacity(fields.len());
    for field in &fields {
        let arrays: Vec<ArrayRef> = batches
            .iter()
            .map(|batch| match batch.column_by_name(field.name()) {
                Some(array) if array.data_type() == field.data_type() => Ok(Arc::clone(array)),
                Some(array) => {
                    let problem =
                        format!("has the type {} instead of {}", array.data_type(), field.data_type());
                    Err(Error::Column { column: field.name().clone(), problem })
                }
                None => absent(field, batch.num_rows()),
            })
            .collect::<Result<_>>()?;
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        columns.push(if arrays.is_empty() { new_empty_array(field.data_type()) } else { concat(&arrays)? });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// The map of all properties and the kinds of its entries: those of the map, and those that are columns.
///
/// # Errors
/// [`Error::Column`] when something is not of the type that it should be.
pub(crate) fn gather(
    map: &ArrayRef,
    kinds: &ArrayRef,
    chosen: &[(Kind, &str, ArrayRef)],
) -> Result<(ArrayRef, ArrayRef)> {
    let entries = Entries::new(map, kinds)?;
    let wrong = |key: &str, array: &ArrayRef| Error::Column {
        column: key.to_owned(),
        problem: format!("has the type {}", array.data_type()),
    };
    let mut all = Rest::default();
    let mut number_text = String::new();
    for row in 0..entries.rows() {
        for (kind, key, array) in chosen.iter().filter(|(_, _, array)| array.is_valid(row)) {
            match kind {
                Kind::Number => {
                    let numbers = array.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong(key, array))?;
                    number_text.clear();
                    write_number(numbers.value(row), &mut number_text);
                    all.push(key, *kind, Some(&number_text));
                }
                Kind::Boolean => {
                    let booleans = array.as_boolean_opt().ok_or_else(|| wrong(key, array))?;
                    all.push(key, *kind, Some(if booleans.value(row) { "true" } else { "false" }));
                }
                Kind::Text | Kind::Json | Kind::Null => {
                    let texts = array.as_string_view_opt().ok_or_else(|| wrong(key, array))?;
                    all.push(key, *kind, Some(texts.value(row)));
                }
            }
        }
        entries.of_row(row, |key, kind, value| all.push(key, kind, value));
        all.end_row();
    }
    Ok(all.finish())
}

/// Leaves the columns out that hold nothing: nullable ones without a value, and the map when it is empty in every row.
pub fn trim(batch: &RecordBatch) -> RecordBatch {
    let without_map = batch
        .column_by_name(column::PROPERTIES)
        .and_then(|map| map.as_map_opt())
        .is_some_and(|map| map.value_offsets().first() == map.value_offsets().last());
    let holds = |index: &usize| {
        let field = batch.schema_ref().field(*index);
        match field.name().as_str() {
            column::PROPERTIES | column::PROPERTY_KINDS => !without_map,
            _ => !field.is_nullable() || batch.column(*index).null_count() < batch.num_rows(),
        }
    };
    let kept: Vec<usize> = (0..batch.num_columns()).filter(holds).collect();
    batch.project(&kept).expect("these columns are there")
}

/// The columns of chosen properties in a schema: their kind and key.
pub fn chosen_columns(schema: &Schema) -> impl Iterator<Item = (Kind, &str)> {
    schema.fields().iter().filter_map(|field| chosen_column(field.name()))
}

/// The kind and key of the column of a chosen property; `None` for another column.
pub fn chosen_column(name: &str) -> Option<(Kind, &str)> {
    Kind::ALL.into_iter().find_map(|kind| Some((kind, name.strip_prefix(kind.prefix()?)?)))
}

/// What a column is that is left out.
fn absent(field: &Field, rows: usize) -> Result<ArrayRef> {
    match field.name().as_str() {
        column::PROPERTIES => {
            let nothing = StringArray::from(Vec::<&str>::new());
            Ok(Arc::new(encode::map(nothing.clone(), nothing, vec![0; rows + 1])))
        }
        column::PROPERTY_KINDS => {
            Ok(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n("", rows))))
        }
        _ if field.is_nullable() => Ok(new_null_array(field.data_type(), rows)),
        name => Err(Error::Column { column: name.to_owned(), problem: "is missing".to_owned() }),
    }
}

/// The entries of a batch's map of properties.
#[derive(Debug)]
pub struct Entries<'b> {
    map: &'b MapArray,
    keys: &'b StringArray,
    values: &'b StringArray,
    kinds: &'b StringViewArray,
}

impl<'b> Entries<'b> {
    pub(crate) fn of(batch: &'b RecordBatch) -> Result<Self> {
        let map = batch.column_by_name(column::PROPERTIES);
        let kinds = batch.column_by_name(column::PROPERTY_KINDS);
        let missing =
            |column: &str| Error::Column { column: column.to_owned(), problem: "is missing".to_owned() };
        let map = map.ok_or_else(|| missing(column::PROPERTIES))?;
        Self::new(map, kinds.ok_or_else(|| missing(column::PROPERTY_KINDS))?)
    }

    /// Those of the columns `properties` and `property_kinds`.
    ///
    /// # Errors
    /// [`Error::Column`] when one of them has another type.
    pub fn new(map: &'b ArrayRef, kinds: &'b ArrayRef) -> Result<Self> {
        let wrong = |column: &str, found: &DataType| Error::Column {
            column: column.to_owned(),
            problem: format!("has the type {found}"),
        };
        let found = map.data_type();
        let map = map.as_map_opt().ok_or_else(|| wrong(column::PROPERTIES, found))?;
        let texts = (map.keys().as_string_opt::<i32>(), map.values().as_string_opt::<i32>());
        let (Some(keys), Some(values)) = texts else { return Err(wrong(column::PROPERTIES, found)) };
        let found = kinds.data_type();
        let kinds = kinds.as_string_view_opt().ok_or_else(|| wrong(column::PROPERTY_KINDS, found))?;
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
    fn of_row(&self, row: usize, mut take: impl FnMut(&'b str, Kind, Option<&'b str>)) {
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

/// The values of a property on their way to columns.
#[derive(Default)]
struct Moved {
    texts: Option<StringViewBuilder>,
    numbers: Option<Float64Builder>,
    booleans: Option<BooleanBuilder>,
}

impl Moved {
    fn text(&mut self, row: usize, text: &str) {
        let builder = self.texts.get_or_insert_default();
        (ArrayBuilder::len(builder)..row).for_each(|_| builder.append_null());
        builder.append_value(text);
    }

    fn number(&mut self, row: usize, number: f64) {
        let builder = self.numbers.get_or_insert_default();
        builder.append_nulls(row - ArrayBuilder::len(builder));
        builder.append_value(number);
    }

    fn boolean(&mut self, row: usize, boolean: bool) {
        let builder = self.booleans.get_or_insert_default();
        builder.append_nulls(row - ArrayBuilder::len(builder));
        builder.append_value(boolean);
    }

    fn finish(self, rows: usize) -> impl Iterator<Item = (&'static str, ArrayRef)> {
        let text = self.texts.map(|mut builder| {
            (ArrayBuilder::len(&builder)..rows).for_each(|_| builder.append_null());
            ("p_", Arc::new(builder.finish()) as ArrayRef)
        });
        let numbers = self.numbers.map(|mut builder| {
            builder.append_nulls(rows - ArrayBuilder::len(&builder));
            ("n_", Arc::new(builder.finish()) as ArrayRef)
        });
        let booleans = self.booleans.map(|mut builder| {
            builder.append_nulls(rows - ArrayBuilder::len(&builder));
            ("b_", Arc::new(builder.finish()) as ArrayRef)
        });
        text.into_iter().chain(numbers).chain(booleans)
    }
}

/// What stays in the map.
struct Rest {
    keys: StringBuilder,
    values: StringBuilder,
    ends: Vec<i32>,
    kinds: StringViewBuilder,
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
    fn push(&mut self, key: &str, kind: Kind, value: Option<&str>) {
        self.keys.append_value(key);
        self.values.append_option(value);
        self.letters.push(char::from(kind.letter()));
    }

    fn end_row(&mut self) {
        let end = ArrayBuilder::len(&self.keys);
        self.ends.push(i32::try_from(end).expect("no more entries than there were"));
        self.kinds.append_value(&self.letters);
        self.letters.clear();
    }

    fn finish(mut self) -> (ArrayRef, ArrayRef) {
        let map = encode::map(self.keys.finish(), self.values.finish(), self.ends);
        (Arc::new(map), Arc::new(self.kinds.finish()))
    }
}
