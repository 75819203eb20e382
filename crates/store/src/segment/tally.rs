//! What the manifest says about a segment, collected while its rows pass. The same code writes and verifies.

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{ArrowPrimitiveType, Int64Type, TimestampMicrosecondType},
};
use hashbrown::{HashMap, hash_map::EntryRef};
use uuid::Uuid;

use crate::{
    chosen::MAX_COUNTED,
    error::{Error, Result},
    manifest::{Kinds, Segment, Span},
    schema::column,
    shape, texts,
};

/// What is known of a segment without its rows.
#[derive(Debug)]
pub(super) struct File {
    pub(super) id: Uuid,
    pub(super) project: String,
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) checksum: String,
    /// Names of the columns of chosen properties.
    pub(super) columns: Vec<String>,
    /// As [`Segment::wide`].
    pub(super) wide: Option<BTreeMap<String, u64>>,
}

/// What is known of the rows so far.
#[derive(Debug)]
pub(super) struct Tally {
    rows: u64,
    offsets: Option<Span<u64>>,
    times: Option<Span<i64>>,
    users: Option<Span<i64>>,
    late: u64,
    names: Option<HashMap<String, u64>>,
    properties: HashMap<String, Kinds>,
    more_properties: bool,
    last: Option<(i64, i64, i64)>,
    ordered: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            rows: 0,
            offsets: None,
            times: None,
            users: None,
            late: 0,
            names: Some(HashMap::new()),
            properties: HashMap::new(),
            more_properties: false,
            last: None,
            ordered: true,
        }
    }
}

impl Tally {
    /// Takes the next rows, in the shape in which they are written.
    ///
    /// # Errors
    /// [`Error::Column`] for a column that is missing or has another type.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let users = numbers::<Int64Type>(batch, column::USER_HASH)?;
        let times = numbers::<TimestampMicrosecondType>(batch, column::TIME)?;
        let offsets = numbers::<Int64Type>(batch, column::LOG_OFFSET)?;
        for ((user, time), offset) in users.iter().zip(times).zip(offsets) {
            let key = (*user, *time, *offset);
            self.ordered &= self.last.is_none_or(|last| last < key);
            self.last = Some(key);
            widen(&mut self.users, *user);
            widen(&mut self.times, *time);
            widen(&mut self.offsets, offset.cast_unsigned());
        }
        self.rows += batch.num_rows() as u64;
        let late = named(batch, column::LATE)?;
        let late = late.as_boolean_opt().ok_or_else(|| Error::mistyped(column::LATE, late.data_type()))?;
        self.late += late.true_count() as u64;
        self.count_names(batch)?;
        self.count_properties(batch)
    }

    fn count_names(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(names) = &mut self.names else { return Ok(()) };
        let texts = named(batch, column::EVENT_NAME)?;
        let mistyped = || Error::mistyped(column::EVENT_NAME, texts.data_type());
        for (name, count) in texts::counts(texts).ok_or_else(mistyped)? {
            *names.entry_ref(name).or_default() += count;
        }
        if names.len() > Segment::MAX_NAMES {
            self.names = None;
        }
        Ok(())
    }

    fn count_properties(&mut self, batch: &RecordBatch) -> Result<()> {
        for (kind, key) in shape::chosen_columns(batch.schema_ref()) {
            let name = format!("{}{key}", kind.prefix().expect("it is a column"));
            let array = named(batch, &name)?;
            let values = array.len() - array.null_count();
            if values > 0 {
                *self.properties.entry_ref(key).or_default().of(kind) += values as u64;
            }
        }
        let Some(entries) = shape::Entries::of(batch)? else { return Ok(()) };
        let (properties, more) = (&mut self.properties, &mut self.more_properties);
        entries.each(|_, key, kind, _| {
            let full = properties.len() >= MAX_COUNTED;
            match properties.entry_ref(key) {
                EntryRef::Vacant(_) if full => *more = true,
                entry => *entry.or_default().of(kind) += 1,
            }
        });
        Ok(())
    }

    /// Whether every row came after the one before it.
    pub(super) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// The manifest's description; `None` of no rows.
    pub(super) fn finish(self, file: File) -> Option<Segment> {
        let mut properties: Vec<(String, Kinds)> = self.properties.into_iter().collect();
        properties.sort_by(|(a, some), (b, more)| more.total().cmp(&some.total()).then_with(|| a.cmp(b)));
        let more_properties = self.more_properties || properties.len() > Segment::MAX_PROPERTIES;
        properties.truncate(Segment::MAX_PROPERTIES);
        let File { id, project, path, bytes, checksum, columns, wide } = file;
        Some(Segment {
            id,
            project,
            path,
            rows: self.rows,
            bytes,
            checksum,
            offsets: self.offsets?,
            times: self.times?,
            users: self.users?,
            late: self.late,
            columns,
            names: self.names.map(|names| names.into_iter().collect::<BTreeMap<_, _>>()),
            properties: properties.into_iter().collect(),
            more_properties,
            wide,
        })
    }
}

fn widen<T: Ord + Copy>(span: &mut Option<Span<T>>, value: T) {
    let one = Span::of(value);
    *span = Some(span.map_or(one, |span| span.join(one)));
}

fn named<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b arrow::array::ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::missing(name))
}

/// The values of a column of numbers without nulls.
pub(super) fn numbers<'b, T: ArrowPrimitiveType>(
    batch: &'b RecordBatch,
    name: &str,
) -> Result<&'b [T::Native]> {
    let array = named(batch, name)?;
    let numbers = array.as_primitive_opt::<T>().ok_or_else(|| Error::mistyped(name, array.data_type()))?;
    Ok(numbers.values())
}
