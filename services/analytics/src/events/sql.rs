//! `QuerySql`: batches of rows become lists of values.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Float32Type, Float64Type, Int64Type, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use futures::{Stream, StreamExt as _, stream};
use prost_types::{ListValue, Value, value};
use tokio::time::Instant;
use weir_proto::{
    analytics::v1::{self as pb, query_sql_response::Part},
    time::duration,
};
use weir_query::Rows;

use super::Seen;
use crate::error::Error;

/// Rows when the request says nothing.
pub(crate) const ROWS: usize = 10_000;
/// Rows in one response.
const ROWS_AT_ONCE: usize = 1000;
/// Integers up to here, in both directions, are doubles.
const EXACT: u64 = 1 << 53;

/// The parts of an answer, made as they are read.
pub(crate) fn parts(
    rows: Rows,
    seen: Arc<Seen>,
    started: Instant,
) -> impl Stream<Item = Result<pb::QuerySqlResponse, Error>> + Send {
    let columns = Part::Columns(columns(rows.schema()));
    let state = Some((rows, seen, 0));
    let rest = stream::unfold(state, move |state| async move {
        let (mut rows, seen, sent) = state?;
        match rows.next().await {
            Some(Ok(batch)) => match lists(&batch) {
                Ok(parts) => {
                    let sent = sent + batch.num_rows() as u64;
                    Some((parts.into_iter().map(Ok).collect(), Some((rows, seen, sent))))
                }
                Err(error) => Some((vec![Err(error)], None)),
            },
            Some(Err(error)) => Some((vec![Err(error.into())], None)),
            None => {
                let statistics = pb::SqlStatistics {
                    rows: sent,
                    truncated: rows.truncated(),
                    elapsed_time: Some(duration(
                        i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX),
                    )),
                    peak_memory_bytes: rows.peak_memory(),
                    info: Some(seen.info(&(i64::MIN..i64::MAX), rows.read(), true)),
                };
                Some((vec![Ok(Part::Statistics(statistics))], None))
            }
        }
    });
    let parts = stream::iter([Ok(columns)]).chain(rest.flat_map(stream::iter::<Vec<_>>));
    parts.map(|part| part.map(|part| pb::QuerySqlResponse { part: Some(part) }))
}

/// How many rows and how long a question may take.
pub(crate) fn limits(request: &pb::QuerySqlRequest, time: Duration) -> weir_query::sql::Limits {
    let rows = if request.max_rows == 0 { ROWS } else { request.max_rows as usize };
    weir_query::sql::Limits { time, rows }
}

fn columns(schema: &Schema) -> pb::SqlColumns {
    let column = |field: &Arc<arrow::datatypes::Field>| pb::SqlColumn {
        name: field.name().clone(),
        r#type: field.data_type().to_string(),
    };
    pb::SqlColumns { columns: schema.fields().iter().map(column).collect() }
}

fn lists(batch: &RecordBatch) -> Result<Vec<Part>, Error> {
    let columns: Vec<Cells<'_>> = batch.columns().iter().map(Cells::new).collect::<Result<_, _>>()?;
    let starts = (0..batch.num_rows()).step_by(ROWS_AT_ONCE);
    let rows = starts.map(|start| {
        let rows = start..batch.num_rows().min(start + ROWS_AT_ONCE);
        let row = |row| ListValue { values: columns.iter().map(|cells| cells.value(row)).collect() };
        Part::Rows(pb::SqlRows { rows: rows.map(row).collect() })
    });
    Ok(rows.collect())
}

/// A column whose values can be read.
struct Cells<'b> {
    array: &'b ArrayRef,
    texts: ArrayFormatter<'b>,
}

impl<'b> Cells<'b> {
    fn new(array: &'b ArrayRef) -> Result<Self, Error> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let texts = ArrayFormatter::try_new(array, &OPTIONS);
        let texts = texts.map_err(|error| Error::Internal(format!("a column can't be written: {error}")))?;
        Ok(Self { array, texts })
    }

    fn value(&self, row: usize) -> Value {
        Value { kind: Some(self.kind(row)) }
    }

    fn kind(&self, row: usize) -> value::Kind {
        if self.array.is_null(row) {
            return value::Kind::NullValue(0);
        }
        let text = || value::Kind::StringValue(self.texts.value(row).to_string());
        match self.array.data_type() {
            DataType::Boolean => value::Kind::BoolValue(self.array.as_boolean().value(row)),
            DataType::Float64 => {
                finite(self.array.as_primitive::<Float64Type>().value(row)).unwrap_or_else(text)
            }
            DataType::Float32 => {
                finite(self.array.as_primitive::<Float32Type>().value(row).into()).unwrap_or_else(text)
            }
            DataType::Int64 => match self.array.as_primitive::<Int64Type>().value(row) {
                whole if whole.unsigned_abs() <= EXACT => value::Kind::NumberValue(whole as f64),
                _ => text(),
            },
            other if other.is_integer() => match self.texts.value(row).to_string().parse::<i64>() {
                Ok(whole) if whole.unsigned_abs() <= EXACT => value::Kind::NumberValue(whole as f64),
                _ => text(),
            },
            _ => text(),
        }
    }
}

/// JSON and Protobuf values know no infinity.
fn finite(number: f64) -> Option<value::Kind> {
    number.is_finite().then_some(value::Kind::NumberValue(number))
}
