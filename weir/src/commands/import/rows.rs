//! Rows of a file as events.

use std::io::{self, BufRead, Read};

use anyhow::{Context as _, Result};
use csv::ByteRecord;
use serde_json::{Map, Value};
use weir_proto::event::v1::Event;

use super::{
    columns::{self, Reading, Target},
    identity::{self, Ids},
    layout::{self, Layout, Use},
    source::{Format, Source},
};
use crate::protojson;

/// A longer line of NDJSON is not read; an event is at most 64 KiB. At a longer row of CSV reading ends: most likely a quote
/// is not closed, and the rest of the file would be one row.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// An event this large is not sent: it could fill a batch, and no service takes it.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Where it begins, from 1.
    pub(crate) line: u64,
    pub(crate) event: Result<Event, String>,
    pub(crate) raw: Raw,
}

/// A row as it was read.
#[derive(Clone, Debug)]
pub(crate) enum Raw {
    Cells(ByteRecord),
    Line(Vec<u8>),
}

/// The rows of a file, in order.
pub(crate) struct Rows {
    rows: Kind,
    ids: Ids,
    layout: Layout,
    reading: Reading,
    buffer: Vec<u8>,
}

enum Kind {
    Separated {
        reader: csv::Reader<Limited>,
        header: Vec<String>,
        uses: Vec<Vec<Use>>,
        /// The columns that a rejects file added.
        added: Vec<usize>,
    },
    Lines {
        reader: Box<dyn BufRead + Send>,
        line: u64,
    },
}

/// A file of which no more than so many bytes are read until more are allowed.
struct Limited {
    file: Box<dyn BufRead + Send>,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(format!(
                "the row is longer than {MAX_LINE_BYTES} bytes: is a quote (\") in it not closed?"
            )));
        }
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut into[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Rows {
    /// Reads the header, if there is one, and applies the layout to it.
    ///
    /// # Errors
    /// When the header cannot be read or does not fit the layout.
    pub(crate) fn new(source: Source, layout: Layout, reading: Reading) -> Result<Self> {
        let mut buffer = Vec::new();
        let rows = match source.format {
            Format::Ndjson | Format::Parquet => {
                if let Some(columns) = &source.columns {
                    layout.resolve(columns).map_err(anyhow::Error::msg)?;
                }
                Kind::Lines { reader: source.reader, line: 0 }
            }
            Format::Csv | Format::Tsv => {
                let mut reader = csv::ReaderBuilder::new()
                    .delimiter(source.delimiter)
                    .flexible(true)
                    .from_reader(Limited { file: source.reader, left: MAX_LINE_BYTES });
                let header: Vec<String> =
                    reader.headers().context("cannot read the header")?.iter().map(str::to_owned).collect();
                let uses = layout.resolve(&header).map_err(anyhow::Error::msg)?;
                let own = header.iter().filter(|column| !layout::is_added(column));
                identity::canonical(own.map(String::as_bytes), &mut buffer);
                let added = (0..header.len()).filter(|&column| layout::is_added(&header[column])).collect();
                Kind::Separated { reader, header, uses, added }
            }
        };
        Ok(Self { rows, ids: Ids::new(&buffer), layout, reading, buffer })
    }

    /// The columns; none where each row names its own.
    pub(crate) fn header(&self) -> Option<&[String]> {
        match &self.rows {
            Kind::Separated { header, .. } => Some(header),
            Kind::Lines { .. } => None,
        }
    }

    /// Whether rows have a time; without one they get that of their receipt.
    pub(crate) fn has_times(&self) -> bool {
        let constant = self.layout.constants.iter().any(|constant| constant.target == Target::EventTime);
        match &self.rows {
            Kind::Separated { uses, .. } => {
                constant || uses.iter().flatten().any(|u| *u == Use::Fill(Target::EventTime))
            }
            Kind::Lines { .. } => true,
        }
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read further. A bad row is no error here but in the row.
    pub(crate) fn next(&mut self) -> Result<Option<Row>> {
        let Self { rows, ids, layout, reading, buffer } = self;
        let (line, raw, event) = match rows {
            Kind::Separated { reader, header, uses, added } => {
                let mut cells = ByteRecord::new();
                let begin = reader.position().line();
                reader.get_mut().left = MAX_LINE_BYTES;
                let read = reader.read_byte_record(&mut cells);
                if !read.with_context(|| format!("cannot read the row that begins in line {begin}"))? {
                    return Ok(None);
                }
                let line = cells.position().map_or(0, csv::Position::line);
                // A row that comes back from a rejects file is the row that it was.
                let own = cells.iter().enumerate().filter(|(column, _)| !added.contains(column));
                identity::canonical(own.map(|(_, cell)| cell), buffer);
                let event = from_cells(&cells, header.len(), uses, reading);
                (line, Raw::Cells(cells), event)
            }
            Kind::Lines { reader, line } => loop {
                buffer.clear();
                let read = reader
                    .by_ref()
                    .take(MAX_LINE_BYTES)
                    .read_until(b'\n', buffer)
                    .context("cannot read on")?;
                if read == 0 {
                    return Ok(None);
                }
                *line += 1;
                let is_cut = read as u64 == MAX_LINE_BYTES && buffer.last() != Some(&b'\n');
                if is_cut {
                    reader.skip_until(b'\n').context("cannot read on")?;
                }
                let text = buffer.trim_ascii();
                if text.is_empty() {
                    continue;
                }
                let raw = text.to_vec();
                let row = match is_cut {
                    true => Err(format!("the line is longer than {MAX_LINE_BYTES} bytes")),
                    false => object(&raw),
                };
                if let Ok(row) = &row {
                    // With sorted keys and one form of numbers, so that a line that comes back from a rejects file is the
                    // line that it was.
                    buffer.clear();
                    serde_json::to_writer(&mut *buffer, row).expect("JSON can be written to memory");
                }
                let event = row.and_then(|row| from_json(row, layout, reading));
                break (*line, Raw::Line(raw), event);
            },
        };
        let id = ids.next(buffer);
        let event = event.and_then(|mut event| {
            for constant in &layout.constants {
                columns::fill(&mut event, &constant.target, &constant.text, reading)?;
            }
            if event.event_id.is_empty() {
                event.event_id = id.to_string();
            }
            match prost::Message::encoded_len(&event) {
                0..=MAX_EVENT_BYTES => Ok(event),
                bytes => Err(format!("the event takes {bytes} bytes; at most 65536 are accepted")),
            }
        });
        Ok(Some(Row { line, event, raw }))
    }
}

fn from_cells(
    cells: &ByteRecord,
    columns: usize,
    uses: &[Vec<Use>],
    reading: &Reading,
) -> Result<Event, String> {
    if cells.len() != columns {
        return Err(format!("the row has {} values, the header {columns}", cells.len()));
    }
    let mut event = Event::default();
    for (cell, uses) in cells.iter().zip(uses) {
        if uses.is_empty() {
            continue;
        }
        let text = str::from_utf8(cell).map_err(|_| "the row is not UTF-8".to_owned())?;
        for used in uses {
            match used {
                Use::Fill(target) => columns::fill(&mut event, target, text, reading)?,
                // An empty cell is no value.
                Use::Text(_) if text.is_empty() => {}
                Use::Text(key) => columns::set_property(&mut event, key, string(text)),
            }
        }
    }
    Ok(event)
}

/// Keys of an event's JSON that hold more than a text: read as ProtoJSON.
const STRUCTURED: &[&str] =
    &["properties", "context", "revenue", "sent_time", "sentTime", "clock_offset", "clockOffset"];

/// A line's object, without what a rejects file added to it.
fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    let row: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    protojson::check_depth(&row).map_err(|error| error.to_string())?;
    let Value::Object(mut row) = row else {
        return Err("not a JSON object".to_owned());
    };
    row.retain(|column, _| !layout::is_added(column));
    Ok(row)
}

fn from_json(mut row: Map<String, Value>, layout: &Layout, reading: &Reading) -> Result<Event, String> {
    let mut structured = Map::new();
    for key in STRUCTURED {
        // An event's own `revenue` is an object; a bare number is a property unless mapped.
        let is_ours = row
            .get(*key)
            .is_some_and(|value| value.is_object() || !matches!(*key, "properties" | "context" | "revenue"));
        let is_mapped = layout.mappings.iter().any(|mapping| mapping.column == *key);
        if is_ours && !is_mapped {
            structured.extend(row.remove_entry(*key));
        }
    }
    let mut event: Event =
        protojson::from_value(Value::Object(structured)).map_err(|error| error.to_string())?;
    let mut used = Vec::new();
    for mapping in &layout.mappings {
        if let Some(value) = lookup(&row, &mapping.column) {
            fill(&mut event, &mapping.target, value, reading)?;
            used.push(mapping.column.clone());
        }
    }
    for (key, value) in row {
        if used.contains(&key) || layout.is_skipped(&key) {
            continue;
        }
        match layout.by_name(&key) {
            Some(target) => fill(&mut event, &target, &value, reading)?,
            None if layout.properties => columns::set_property(&mut event, &key, proto_value(value)),
            None => {}
        }
    }
    Ok(event)
}

/// The value at a key, or at a path of keys joined by dots.
fn lookup<'a>(row: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = row.get(path) {
        return Some(value);
    }
    let (key, rest) = path.split_once('.')?;
    lookup(row.get(key)?.as_object()?, rest)
}

fn fill(event: &mut Event, target: &Target, value: &Value, reading: &Reading) -> Result<(), String> {
    match (target, value) {
        (_, Value::Null) => Ok(()),
        // JSON says itself what is a number.
        (Target::Property(key), value) => {
            columns::set_property(event, key, proto_value(value.clone()));
            Ok(())
        }
        (_, Value::String(text)) => columns::fill(event, target, text, reading),
        (_, Value::Number(number)) => columns::fill(event, target, &number.to_string(), reading),
        (_, Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            Err(format!("expected a text or a number where {value} stands"))
        }
    }
}

fn string(text: &str) -> prost_types::Value {
    prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) }
}

fn proto_value(value: Value) -> prost_types::Value {
    use prost_types::{ListValue, Struct, value::Kind};
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(is) => Kind::BoolValue(is),
        // Every JSON number that serde reads without arbitrary precision has a double.
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(proto_value).collect() })
        }
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key, proto_value(value)));
            Kind::StructValue(Struct { fields: fields.collect() })
        }
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn source(format: Format, text: &str) -> Source {
        Source {
            reader: Box::new(std::io::Cursor::new(text.as_bytes().to_vec())),
            format,
            columns: None,
            delimiter: b',',
            consumed: Arc::default(),
            bytes: None,
        }
    }

    fn rows(format: Format, text: &str, mappings: &[&str]) -> Vec<Row> {
        let layout = Layout {
            mappings: mappings.iter().map(|text| text.parse().unwrap()).collect(),
            properties: true,
            ..Layout::default()
        };
        let reading = Reading { time_format: crate::moment::Format::Auto, zone: jiff::tz::TimeZone::UTC };
        let mut rows = Rows::new(source(format, text), layout, reading).unwrap();
        std::iter::from_fn(|| rows.next().unwrap()).collect()
    }

    fn show(rows: &[Row]) -> String {
        let lines = rows.iter().map(|row| match &row.event {
            Ok(event) => {
                let event = Event { event_id: String::new(), ..event.clone() };
                format!("{}: {}", row.line, protojson::to_line(&event))
            }
            Err(reason) => format!("{}! {reason}", row.line),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn csv_rows_become_events() {
        let text = "user_id,event,timestamp,price,note\n\
                    u1,view,2024-03-13 10:21:14,9.5,\"two\nlines\"\n\
                    u2,buy,yesterday,,\n\
                    u3,buy\n\
                    u4,view,1710325274,,ok\n";
        let rows = rows(Format::Csv, text, &["event_name=event", "event_time=timestamp"]);
        insta::assert_snapshot!(show(&rows), @r#"
        2: {"eventName":"view","userId":"u1","eventTime":"2024-03-13T10:21:14Z","properties":{"note":"two\nlines","price":9.5}}
        4! event_time: `yesterday` is no time: expected RFC 3339, YYYY-MM-DD HH:MM:SS or Unix time
        5! the row has 2 values, the header 5
        6: {"eventName":"view","userId":"u4","eventTime":"2024-03-13T10:21:14Z","properties":{"note":"ok"}}
        "#);
    }

    #[test]
    fn our_own_json_needs_no_mapping() {
        let text = r#"
{"eventName":"a","userId":"u","eventTime":"2024-03-13T10:21:14Z","properties":{"k":[1,null]},"revenue":{"currencyCode":"EUR","units":"9"},"extra":7}
{"event_name":"b","anonymous_id":"x","event_time":1710325274250,"weir_line":3,"weir_reason":"mended"}
not json
[1]
{"event_name":"c","user_id":{"id":1}}
"#;
        insta::assert_snapshot!(show(&rows(Format::Ndjson, text, &[])), @r#"
        2: {"eventName":"a","userId":"u","eventTime":"2024-03-13T10:21:14Z","properties":{"extra":7.0,"k":[1.0,null]},"revenue":{"currencyCode":"EUR","units":"9"}}
        3: {"eventName":"b","anonymousId":"x","eventTime":"2024-03-13T10:21:14.250Z"}
        4! not JSON: expected ident at line 1 column 2
        5! not a JSON object
        6! expected a text or a number where {"id":1} stands
        "#);
    }

    #[test]
    fn mappings_reach_into_objects() {
        let text = r#"{"actor":{"id":42},"type":"push","total":"3.50","ts":1710325274}"#;
        let mappings = ["user_id=actor.id", "event_name=type", "revenue=total:usd", "event_time=ts"];
        insta::assert_snapshot!(show(&rows(Format::Ndjson, text, &mappings)), @r#"1: {"eventName":"push","userId":"42","eventTime":"2024-03-13T10:21:14Z","properties":{"actor":{"id":42.0}},"revenue":{"currencyCode":"USD","units":"3","nanos":500000000}}"#);
    }

    #[test]
    fn rows_from_a_rejects_file_keep_their_ids() {
        let ids = |format, text: &str| -> Vec<String> {
            rows(format, text, &[]).into_iter().map(|row| row.event.unwrap().event_id).collect()
        };
        let csv = ids(Format::Csv, "user_id,event_name\nu,a\n");
        assert_eq!(csv, ids(Format::Csv, "user_id,event_name,weir_line,weir_reason\nu,a,7,no\n"));
        let line = r#"{"user_id":"u","event_name":"a","properties":{"n":1.50}}"#;
        let rejected =
            r#"{"event_name":"a","properties":{"n":1.5},"user_id":"u","weir_line":7,"weir_reason":"no"}"#;
        assert_eq!(ids(Format::Ndjson, line), ids(Format::Ndjson, rejected));
        assert_ne!(ids(Format::Ndjson, line), ids(Format::Ndjson, &line.replace("1.50", "1.6")));
    }

    #[test]
    fn a_quote_that_is_not_closed_ends_the_reading_and_names_its_line() {
        let rest = "v,b\n".repeat(1 << 19);
        let text = format!("user_id,event_name\nu,a\n\"u,a\n{rest}");
        let layout = Layout { properties: true, ..Layout::default() };
        let reading = Reading { time_format: crate::moment::Format::Auto, zone: jiff::tz::TimeZone::UTC };
        let mut rows = Rows::new(source(Format::Csv, &text), layout, reading).unwrap();
        assert!(rows.next().unwrap().unwrap().event.is_ok());
        let error = format!("{:#}", rows.next().unwrap_err());
        assert!(error.contains("begins in line 3") && error.contains("quote"), "{error}");
    }

    #[test]
    fn a_row_that_nests_too_deep_fails_alone() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        let text = format!(
            "{{\"event_name\":\"a\",\"user_id\":\"u\",\"k\":{deep}}}\n{{\"event_name\":\"b\",\"user_id\":\"u\"}}\n"
        );
        let rows = rows(Format::Ndjson, &text, &[]);
        assert!(rows[0].event.as_ref().unwrap_err().contains("levels deep"), "{rows:?}");
        assert!(rows[1].event.is_ok());
    }

    #[test]
    fn ids_follow_from_the_content() {
        let text = "user_id,event_name\nu,a\nu,a\nv,a\n";
        let ids = |text: &str| -> Vec<String> {
            rows(Format::Csv, text, &[]).into_iter().map(|row| row.event.unwrap().event_id).collect()
        };
        let first = ids(text);
        assert_eq!(first, ids(text));
        assert_eq!(first, ids(&text.replace("v,a", "\"v\",a")));
        assert_ne!(first[0], first[1]);
    }
}
