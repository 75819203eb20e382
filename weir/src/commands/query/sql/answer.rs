//! An answer in SQL, as it arrives.

use anyhow::Result;
use jiff::tz::TimeZone;
use prost_types::{Value, value::Kind};
use tonic::Streaming;
use weir_proto::analytics::v1::{
    QuerySqlResponse, SqlColumn, SqlStatistics, query_sql_response::Part, result_info::Source,
};

use super::super::{form::Shape, note_lacking, show::records};
use crate::{
    client::Connection,
    output,
    render::{
        FAINT,
        figure::{bytes, duration, grouped, plain_value, value},
        paint,
        table::{self, numeric},
    },
};

/// Prints it: rows as they come, or, as a table, when all of them are there.
pub(super) async fn print(
    mut parts: Streaming<QuerySqlResponse>,
    shape: &Shape,
    connection: &Connection,
) -> Result<()> {
    let mut columns = Vec::new();
    let mut rows = Vec::new();
    // Written with the first rows: before them a statement may still fail.
    let mut header = None;
    while let Some(part) = parts.message().await.map_err(|status| connection.explain(status))? {
        match part.part {
            Some(Part::Columns(found)) => {
                columns = found.columns;
                header = shape
                    .csv
                    .then(|| records(vec![columns.iter().map(|column| column.name.clone()).collect()]));
            }
            Some(Part::Rows(more)) => {
                if let Some(header) = header.take() {
                    output::text(header)?;
                }
                let mut more = more.rows.into_iter().map(|row| row.values);
                if shape.json {
                    more.try_for_each(|row| output::line(object(&columns, row)))?;
                } else if shape.csv {
                    more.try_for_each(|row| output::text(record(&row)))?;
                } else {
                    rows.extend(more);
                }
            }
            Some(Part::Statistics(statistics)) => {
                if let Some(header) = header.take() {
                    output::text(header)?;
                }
                if !shape.json && !shape.csv {
                    output::text(tabulated(&columns, &rows))?;
                    output::line(paint(FAINT, summary(&statistics)))?;
                } else if statistics.truncated {
                    let rows = grouped(statistics.rows);
                    output::note(format!("there are more than {rows} rows: raise --limit"));
                }
                note_lacking(statistics.info.as_ref(), &TimeZone::UTC);
            }
            None => {}
        }
    }
    Ok(())
}

/// A row as a JSON object, its fields in the order of the columns.
fn object(columns: &[SqlColumn], row: Vec<Value>) -> String {
    let fields = columns.iter().zip(row);
    let fields: Vec<String> = fields
        .map(|(column, value)| format!("{}:{}", serde_json::Value::from(column.name.as_str()), json(value)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// A row as CSV. As PostgreSQL writes it, null is nothing and an empty text is `""`.
fn record(row: &[Value]) -> String {
    let mut record = String::new();
    for (at, value) in row.iter().enumerate() {
        if at > 0 {
            record.push(',');
        }
        match &value.kind {
            Some(Kind::StringValue(text)) if text.is_empty() => record.push_str("\"\""),
            None | Some(Kind::NullValue(_)) => {}
            _ => record.push_str(records(vec![vec![plain_value(value)]]).trim_end_matches('\n')),
        }
    }
    record.push('\n');
    record
}

fn json(value: Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(is)) => is.into(),
        Some(Kind::StringValue(text)) => text.into(),
        // A count is `7`, not `7.0`: beyond 2^53, where that would not be safe, numbers are text.
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() <= (1u64 << 53) as f64 => {
            (number as i64).into()
        }
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
        Some(Kind::StructValue(fields)) => serde_json::Value::Object(
            fields.fields.into_iter().map(|(key, value)| (key, json(value))).collect(),
        ),
    }
}

fn tabulated(columns: &[SqlColumn], rows: &[Vec<Value>]) -> String {
    let is_number = |column: &SqlColumn| {
        ["Int", "UInt", "Float", "Decimal"].iter().any(|prefix| column.r#type.starts_with(prefix))
    };
    let heads: Vec<_> = columns
        .iter()
        .map(|column| if is_number(column) { numeric(&column.name) } else { table::text(&column.name) })
        .collect();
    let cell = |cell: &Value| match &cell.kind {
        None | Some(Kind::NullValue(_)) => paint(FAINT, "null"),
        _ => value(cell),
    };
    table::table(&heads, rows.iter().map(|row| row.iter().map(cell).collect()))
}

/// `12 rows · 35 ms · 3 segments, 1.2 MB read · from the event store`.
fn summary(statistics: &SqlStatistics) -> String {
    let rows = if statistics.rows == 1 { "row" } else { "rows" };
    let more = if statistics.truncated { ", and there are more: raise --limit" } else { "" };
    let mut parts = vec![format!("{} {rows}{more}", grouped(statistics.rows))];
    parts.extend(statistics.elapsed_time.as_ref().map(duration));
    if let Some(info) = statistics.info.as_ref().filter(|info| info.source() == Source::Store) {
        parts.push(format!("{} segments, {} read", grouped(info.segments_read), bytes(info.bytes_read)));
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use weir_proto::analytics::v1::ResultInfo;

    use super::*;

    fn column(name: &str, of_type: &str) -> SqlColumn {
        SqlColumn { name: name.into(), r#type: of_type.into() }
    }

    fn of(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    #[test]
    fn rows_are_a_table() {
        let columns = [column("event_name", "Utf8View"), column("n", "Int64")];
        let row = |name: Kind, n: f64| vec![of(name), of(Kind::NumberValue(n))];
        let rows = [row(Kind::StringValue("a\nb\u{1b}[2J".into()), 12_000.0), row(Kind::NullValue(0), 0.5)];
        let shown = anstream::adapter::strip_str(&tabulated(&columns, &rows)).to_string();
        insta::assert_snapshot!(shown, @r"
        event_name         n
        a\nb\u{1b}[2J  12000
        null             0.5
        ");
    }

    #[test]
    fn rows_are_objects() {
        let columns = [column("n", "Int64"), column("share", "Float64"), column("plan", "Utf8View")];
        let row = vec![of(Kind::NumberValue(7.0)), of(Kind::NumberValue(0.5)), of(Kind::NullValue(0))];
        assert_eq!(object(&columns, row), r#"{"n":7,"share":0.5,"plan":null}"#);
    }

    #[test]
    fn null_and_an_empty_text_are_two_things_in_csv() {
        let row = [
            of(Kind::NullValue(0)),
            of(Kind::StringValue(String::new())),
            of(Kind::StringValue("a,\"b\"".into())),
            of(Kind::NumberValue(7.0)),
        ];
        assert_eq!(record(&row), ",\"\",\"a,\"\"b\"\"\",7\n");
    }

    #[test]
    fn what_it_took_is_one_line() {
        let statistics = SqlStatistics {
            rows: 10_000,
            truncated: true,
            elapsed_time: Some(prost_types::Duration { seconds: 0, nanos: 35_000_000 }),
            info: Some(ResultInfo {
                source: Source::Store.into(),
                segments_read: 3,
                bytes_read: 1_234_567,
                ..ResultInfo::default()
            }),
            ..SqlStatistics::default()
        };
        insta::assert_snapshot!(summary(&statistics), @"10,000 rows, and there are more: raise --limit · 35 ms · 3 segments, 1.2 MB read");
    }
}
