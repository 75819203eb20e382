//! Rows that are lines of JSON.

use std::io::{BufRead, Read as _};

use anyhow::{Context as _, Result};
use prost_types::{ListValue, Struct, value::Kind};
use serde_json::{Map, Value};
use weir_proto::event::v1::Event;

use super::{
    columns::{self, Reading, Target},
    json,
    layout::{self, Layout},
    source::{Content, Source},
};
use crate::protojson;

/// A longer line is not read; an event is at most 64 KiB.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The lines of a file.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    line: u64,
    buffer: Vec<u8>,
}

/// A line that is not blank.
pub(super) struct Line {
    pub(super) raw: Vec<u8>,
    /// Its object, without what a rejects file added.
    pub(super) row: Result<Map<String, Value>, String>,
}

impl Lines {
    /// # Errors
    /// When columns that the file tells don't fit the layout.
    pub(super) fn new(source: Source, layout: &Layout) -> Result<Self> {
        if let Content::Lines(Some(columns)) = &source.content {
            layout.resolve(columns).map_err(anyhow::Error::msg)?;
        }
        Ok(Self { reader: source.reader, line: 0, buffer: Vec::new() })
    }

    /// The next line and its number; `None` at the end.
    ///
    /// # Errors
    /// When the file can't be read further.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Line)>> {
        loop {
            self.buffer.clear();
            let line = self.line + 1;
            let unread = || format!("cannot read on in line {line}");
            let reader = &mut self.reader;
            let read = reader
                .by_ref()
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut self.buffer)
                .with_context(unread)?;
            if read == 0 {
                return Ok(None);
            }
            self.line = line;
            let is_cut = read as u64 == MAX_LINE_BYTES && self.buffer.last() != Some(&b'\n');
            if is_cut {
                reader.skip_until(b'\n').with_context(unread)?;
            }
            let raw = self.buffer.trim_ascii().to_vec();
            if raw.is_empty() {
                continue;
            }
            let row = match is_cut {
                true => Err(format!("the line is longer than {MAX_LINE_BYTES} bytes")),
                false => json::object(&raw),
            };
            let row = row.map(|mut row| {
                row.retain(|column, _| !layout::is_added(column));
                row
            });
            return Ok(Some((line, Line { raw, row })));
        }
    }
}

/// Keys of an event's JSON that hold more than a text: read as ProtoJSON.
const STRUCTURED: &[&str] = &["context", "revenue", "sent_time", "sentTime", "clock_offset", "clockOffset"];

/// A row as an event.
///
/// # Errors
/// In words: what is wrong with it.
pub(super) fn event(
    mut row: Map<String, Value>,
    layout: &Layout,
    reading: &Reading,
) -> Result<Event, String> {
    let is_mapped = |key: &str| layout.mappings.iter().any(|mapping| mapping.column == key);
    let mut structured = Map::new();
    for key in STRUCTURED {
        // An event's own `revenue` is an object; a bare number is a property unless mapped.
        let is_event_field =
            row.get(*key).is_some_and(|value| value.is_object() || !matches!(*key, "context" | "revenue"));
        if is_event_field && !is_mapped(key) {
            structured.extend(row.remove_entry(*key));
        }
    }
    let mut event: Event =
        protojson::from_value(Value::Object(structured)).map_err(|error| error.to_string())?;
    if row.get("properties").is_some_and(Value::is_object)
        && !is_mapped("properties")
        && let Some(Value::Object(fields)) = row.remove("properties")
    {
        event.properties = Some(properties(fields));
    }
    let mut used = Vec::new();
    for mapping in &layout.mappings {
        if let Some(value) = lookup(&row, &mapping.column) {
            fill(&mut event, &mapping.target, value, layout, reading)?;
            used.push(mapping.column.clone());
        }
    }
    for (key, value) in row {
        let is_null = value.as_str().is_some_and(|text| layout.is_null(text));
        if is_null || used.contains(&key) || layout.is_skipped(&key) {
            continue;
        }
        match layout.by_name(&key) {
            Some(target) => fill(&mut event, &target, &value, layout, reading)?,
            None if !layout.properties => {}
            None if key.is_empty() => return Err(format!("a key without a name holds {value}")),
            None if layout.text.contains(&key) => set_text(&mut event, &key, &value),
            None => columns::set_property(&mut event, &key, proto_value(value)),
        }
    }
    Ok(event)
}

/// Properties as an event has them.
pub(super) fn properties(fields: Map<String, Value>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key, proto_value(value))).collect() }
}

/// The value at a key, or at a path of keys joined by dots.
fn lookup<'a>(row: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = row.get(path) {
        return Some(value);
    }
    let (key, rest) = path.split_once('.')?;
    lookup(row.get(key)?.as_object()?, rest)
}

/// A column that is to stay text: numbers and truth values as they are written.
fn set_text(event: &mut Event, key: &str, value: &Value) {
    let value = match value {
        Value::Number(number) => columns::string(&json::number_text(number)),
        Value::Bool(is) => columns::string(&is.to_string()),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => proto_value(value.clone()),
    };
    columns::set_property(event, key, value);
}

fn fill(
    event: &mut Event,
    target: &Target,
    value: &Value,
    layout: &Layout,
    reading: &Reading,
) -> Result<(), String> {
    match (target, value) {
        (_, Value::Null) => Ok(()),
        (_, Value::String(text)) if layout.is_null(text) => Ok(()),
        // JSON says itself what is a number.
        (Target::Property(key), value) => {
            columns::set_property(event, key, proto_value(value.clone()));
            Ok(())
        }
        (Target::Properties, Value::Object(fields)) => {
            columns::add_properties(event, properties(fields.clone()));
            Ok(())
        }
        (_, Value::String(text)) => columns::fill(event, target, text, reading),
        (_, Value::Number(number)) => columns::fill(event, target, &json::number_text(number), reading),
        (_, Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            Err(format!("expected a text or a number where {value} stands"))
        }
    }
}

fn proto_value(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(is) => Kind::BoolValue(is),
        // Every JSON number that serde reads without arbitrary precision has a double.
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(proto_value).collect() })
        }
        Value::Object(fields) => Kind::StructValue(properties(fields)),
    };
    prost_types::Value { kind: Some(kind) }
}
