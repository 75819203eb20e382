//! Exports of Weir's own with the columns of its store: Parquet, Arrow, segments. Their events are restored as they were.

use anyhow::{Context as _, Result};
use arrow::{
    array::{ArrayRef, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, Schema},
};
use weir_proto::{
    event::v1::{Event, EventRecord},
    time::timestamp,
};
use weir_store::{
    Decoder,
    schema::{Kind, column, schema},
    shape::chosen_column,
};

use super::columns::clock_offset;

/// Batches of rows, whatever file they are in.
pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>> + Send>;

/// The columns that make a file an export: no other program has all of them.
const KNOWN_BY: [&str; 5] =
    [column::USER_HASH, column::TIME, column::LOG_OFFSET, column::EVENT_ID, column::RECEIVE_TIME];

/// Whether a file with these columns is an export.
pub(super) fn is_export(schema: &Schema) -> bool {
    KNOWN_BY.iter().all(|name| schema.column_with_name(name).is_some())
}

/// The events of an export.
pub(super) struct Stored {
    batches: Batches,
    events: std::vec::IntoIter<Event>,
    row: u64,
}

impl Stored {
    pub(super) fn new(batches: Batches) -> Self {
        Self { batches, events: Vec::new().into_iter(), row: 0 }
    }

    /// The next event and the number of its row; `None` at the end.
    ///
    /// # Errors
    /// When the file can't be read further.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Event)>> {
        loop {
            if let Some(event) = self.events.next() {
                self.row += 1;
                return Ok(Some((self.row, event)));
            }
            let Some(batch) = self.batches.next() else { return Ok(None) };
            let row = self.row + 1;
            let batch = batch.and_then(|batch| as_stored(&batch));
            let batch = batch.with_context(|| format!("cannot read on in row {row}"))?;
            let decoder = Decoder::new(&batch).with_context(|| format!("cannot read on in row {row}"))?;
            let events = (0..batch.num_rows()).map(|row| restored(decoder.record(row)));
            self.events = events.collect::<Vec<_>>().into_iter();
        }
    }
}

/// The event with what makes a producer correct its time as it was corrected.
fn restored(record: EventRecord) -> Event {
    let mut event = record.event.unwrap_or_default();
    let corrected = timestamp(record.corrected_time_micros);
    let client = event.event_time.get_or_insert(corrected);
    event.clock_offset = clock_offset(client, &corrected);
    event
}

/// The columns with the types that the store has; other programs that wrote the file anew may have changed them.
fn as_stored(batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let core = schema();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name();
        let wanted = match core.field_with_name(name) {
            Ok(known) => Some(known.data_type().clone()),
            Err(_) => property_type(name),
        };
        let Some(wanted) = wanted else { continue };
        columns.push(if *array.data_type() == wanted { array.clone() } else { cast(array, &wanted)? });
        fields.push(Field::new(name, wanted, true));
    }
    RecordBatch::try_new(Schema::new(fields).into(), columns)
}

fn property_type(column: &str) -> Option<DataType> {
    Some(match chosen_column(column)?.0 {
        Kind::Text => DataType::Utf8View,
        Kind::Number => DataType::Float64,
        Kind::Boolean => DataType::Boolean,
        Kind::Json | Kind::Null => return None,
    })
}
