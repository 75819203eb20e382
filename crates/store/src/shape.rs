//! The shape of a batch: which properties are columns.
//!
//! Frequent properties are columns, which are read 10 times as fast and take less space than the map of all others. Which ones those
//! are may differ from batch to batch and from segment to segment; [`view`](crate::view) makes one table of them again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array},
    compute::concat,
    datatypes::{Field, FieldRef, Float64Type, Schema},
};
use hashbrown::HashMap;
use weir_rollup::field::write_number;

use crate::{
    chosen::{self, Columns},
    error::{Error, Result},
    map::{self, Rest},
    schema::{self, Kind, column},
    texts,
};
pub use crate::{
    chosen::{column as chosen_column, columns as chosen_columns},
    map::Entries,
    texts::counts as text_counts,
};

/// The keys that are worth columns: those of `always` that occur, and of those that are columns already or frequent the most frequent
/// ones, 64 at most.
///
/// # Errors
/// [`Error::Column`] when the properties are of another type.
pub fn choose(batches: &[RecordBatch], always: &[String]) -> Result<BTreeSet<String>> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut columns = BTreeSet::new();
    let mut maps = Vec::new();
    for batch in batches {
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if let Some((_, key)) = chosen_column(field.name()) {
                *counts.entry(key).or_default() += array.len() - array.null_count();
                columns.insert(key);
            }
        }
        maps.extend(Entries::of(batch)?);
    }
    for entries in &maps {
        entries.each(|_, key, kind, _| {
            if kind.prefix().is_some() {
                *counts.entry(key).or_default() += 1;
            }
        });
    }
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    Ok(chosen::choose(counts, &columns, rows, always))
}

fn chosen_keys(batches: &[RecordBatch]) -> BTreeSet<String> {
    let schemas = batches.iter().map(RecordBatch::schema_ref);
    schemas.flat_map(|schema| chosen_columns(schema)).map(|(_, key)| key.to_owned()).collect()
}

/// Moves the texts, numbers and booleans of these properties from the map to columns of their own, and those of other properties that
/// are columns back; a map that is empty then is left out. Of a property that is a column, the map has none.
///
/// # Errors
/// [`Error::Column`] when the properties are of another type.
pub fn promote(batch: &RecordBatch, keys: &BTreeSet<String>) -> Result<RecordBatch> {
    let batch = &demote(batch, keys)?;
    let there: BTreeSet<&str> = chosen_columns(batch.schema_ref()).map(|(_, key)| key).collect();
    let new = keys.iter().map(String::as_str).filter(|key| !there.contains(key));
    let mut moved: HashMap<&str, Columns> = new.map(|key| (key, Columns::default())).collect();
    let Some(entries) = Entries::of(batch)?.filter(|_| !moved.is_empty()) else { return Ok(batch.clone()) };
    let mut rest = Rest::default();
    entries.each(|row, key, kind, value| match (moved.get_mut(key), kind, value) {
        (Some(columns), Kind::Text, Some(text)) => columns.text(row, text),
        (Some(columns), Kind::Boolean, Some(text)) => columns.boolean(row, text == "true"),
        (Some(columns), Kind::Number, Some(text)) => match text.parse() {
            Ok(number) => columns.number(row, number),
            Err(_) => rest.push(row, key, kind, value),
        },
        _ => rest.push(row, key, kind, value),
    });

    let rows = batch.num_rows();
    let (mut map, mut kinds) = (!rest.is_empty()).then(|| rest.finish(rows)).unzip();
    let mut columns: Vec<(FieldRef, ArrayRef)> = Vec::new();
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let array = match field.name().as_str() {
            column::PROPERTIES => map.take(),
            column::PROPERTY_KINDS => kinds.take(),
            _ => Some(Arc::clone(array)),
        };
        columns.extend(array.map(|array| (Arc::clone(field), array)));
    }
    for key in keys {
        let moved = moved.get_mut(key.as_str()).into_iter().flat_map(|columns| columns.finish(rows));
        columns.extend(moved.map(|(prefix, array)| {
            let field = Field::new(format!("{prefix}{key}"), array.data_type().clone(), true);
            (Arc::new(field) as FieldRef, array)
        }));
    }
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
}

/// Moves the columns of other properties than these to the map.
fn demote(batch: &RecordBatch, keys: &BTreeSet<String>) -> Result<RecordBatch> {
    let mut moved: Vec<(Kind, &str, ArrayRef)> = Vec::new();
    let (mut fields, mut columns): (Vec<FieldRef>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        match chosen_column(field.name()) {
            Some((kind, key)) if !keys.contains(key) => moved.push((kind, key, texts::plain(array)?)),
            _ => {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(array));
            }
        }
    }
    if moved.is_empty() {
        return Ok(batch.clone());
    }
    let mut whole = |name: &str, empty: ArrayRef| {
        let place = fields.iter().position(|field| field.name() == name).unwrap_or_else(|| {
            let field =
                schema::schema().field_with_name(name).expect("it is a column of every event").clone();
            fields.push(Arc::new(field));
            columns.push(empty);
            fields.len() - 1
        });
        (place, Arc::clone(&columns[place]))
    };
    let (no_map, no_kinds) = map::empty(batch.num_rows());
    let (map_place, map) = whole(column::PROPERTIES, no_map);
    let (kinds_place, kinds) = whole(column::PROPERTY_KINDS, no_kinds);
    (columns[map_place], columns[kinds_place]) = gather(&map, &kinds, &moved)?;
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The batches as one, with all columns that any of them has: those that another lacks are null there. What is a column in one and in
/// the map of another is a column.
///
/// # Errors
/// [`Error::Column`] when a column has several types, or lacks where there must be a value.
pub fn join(batches: &[RecordBatch]) -> Result<RecordBatch> {
    match batches {
        [] => return Ok(RecordBatch::new_empty(schema::schema())),
        [one] => return Ok(one.clone()),
        _ => {}
    }
    let keys = chosen_keys(batches);
    let batches: Vec<RecordBatch> =
        batches.iter().map(|batch| promote(batch, &keys)).collect::<Result<_>>()?;
    let columns = fields(&batches).into_iter().map(|field| {
        let column = join_column(&field, &batches)?;
        Ok(of_type(&field, column))
    });
    let (fields, columns): (Vec<_>, Vec<_>) = columns.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// The columns that any of the batches has, in the order of batches.
pub(crate) fn fields(batches: &[RecordBatch]) -> Vec<FieldRef> {
    let core = schema::schema();
    let found = batches.iter().flat_map(|batch| batch.schema_ref().fields());
    let chosen: BTreeMap<&str, &FieldRef> = found
        .map(|field| (field.name().as_str(), field))
        .filter(|(name, _)| core.index_of(name).is_err())
        .collect();
    let anywhere =
        |field: &&FieldRef| batches.iter().any(|batch| batch.column_by_name(field.name()).is_some());
    core.fields().iter().filter(anywhere).chain(chosen.values().copied()).cloned().collect()
}

/// A column of all batches; where one lacks it, it is null.
///
/// # Errors
/// As [`join`].
pub(crate) fn join_column(field: &FieldRef, batches: &[RecordBatch]) -> Result<ArrayRef> {
    let columns: Vec<(usize, Option<&ArrayRef>)> =
        batches.iter().map(|batch| (batch.num_rows(), batch.column_by_name(field.name()))).collect();
    if let [(_, Some(one))] = columns.as_slice() {
        return Ok(Arc::clone(one));
    }
    let types = || columns.iter().flat_map(|(_, array)| array).map(|array| array.data_type());
    let complete = columns.iter().all(|(_, array)| array.is_some());
    if types().all(texts::is_text) && (complete || field.is_nullable()) {
        return texts::join(&columns);
    }
    if let Some(other) = types().find(|other| *other != field.data_type()) {
        let problem = format!("has the types {} and {other}", field.data_type());
        return Err(Error::Column { column: field.name().clone(), problem });
    }
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .map(|(rows, array)| array.map_or_else(|| absent(field, *rows), |array| Ok(Arc::clone(array))))
        .collect::<Result<_>>()?;
    let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    Ok(concat(&arrays)?)
}

/// A column, with its field as it is but for the type.
pub(crate) fn of_type(field: &FieldRef, array: ArrayRef) -> (FieldRef, ArrayRef) {
    if field.data_type() == array.data_type() {
        return (Arc::clone(field), array);
    }
    (Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone())), array)
}

/// The batch with its texts as Utf8View, as segments have them.
///
/// # Errors
/// None that can be expected.
pub fn plain(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    let columns = columns.map(|(field, array)| Ok(of_type(field, texts::plain(array)?)));
    let (fields, columns): (Vec<_>, Vec<_>) = columns.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
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
    let wrong = |key: &str, array: &ArrayRef| Error::mistyped(key, array.data_type());
    let mut all = Rest::default();
    let mut number_text = String::new();
    for row in 0..entries.rows() {
        for (kind, key, array) in chosen.iter().filter(|(_, _, array)| array.is_valid(row)) {
            match kind {
                Kind::Number => {
                    let numbers = array.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong(key, array))?;
                    number_text.clear();
                    write_number(numbers.value(row), &mut number_text);
                    all.push(row, key, *kind, Some(&number_text));
                }
                Kind::Boolean => {
                    let booleans = array.as_boolean_opt().ok_or_else(|| wrong(key, array))?;
                    all.push(row, key, *kind, Some(if booleans.value(row) { "true" } else { "false" }));
                }
                Kind::Text | Kind::Json | Kind::Null => {
                    let texts = array.as_string_view_opt().ok_or_else(|| wrong(key, array))?;
                    all.push(row, key, *kind, Some(texts.value(row)));
                }
            }
        }
        entries.of_row(row, |key, kind, value| all.push(row, key, kind, value));
    }
    Ok(all.finish(entries.rows()))
}

/// Leaves the columns out that hold nothing: nullable ones without a value, and the map when it is empty in every row.
pub fn trim(batch: &RecordBatch) -> RecordBatch {
    let is_empty = |array: &ArrayRef| {
        let map = array.as_map_opt();
        map.is_some_and(|map| map.value_offsets().first() == map.value_offsets().last())
    };
    let without_map = batch.column_by_name(column::PROPERTIES).is_some_and(is_empty);
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

/// What a column is that is left out.
pub(crate) fn absent(field: &Field, rows: usize) -> Result<ArrayRef> {
    match field.name().as_str() {
        column::PROPERTIES => Ok(map::empty(rows).0),
        column::PROPERTY_KINDS => Ok(map::empty(rows).1),
        _ if field.is_nullable() => Ok(new_null_array(field.data_type(), rows)),
        name => Err(Error::missing(name)),
    }
}
