//! `weir import --dry-run`: what a file would become. Nothing is sent, and no Weir has to run.

use anyhow::Result;
use serde_json::json;
use weir_proto::{
    event::v1::Event,
    validate::{Path, Validate as _, Violations},
};

use super::{layout::Use, reasons::Reasons, rows::Rows, separated::Column};
use crate::{
    output, protojson,
    render::{
        self, grouped,
        table::{table, text},
    },
};

/// Events that are shown.
const SHOWN_EVENTS: usize = 3;

/// Reads all rows and shows what they would become.
///
/// # Errors
/// When the file can't be read to its end.
pub(super) fn run(mut rows: Rows, as_json: bool) -> Result<()> {
    let (mut events, mut reasons) = (Vec::new(), Reasons::default());
    let (mut read, mut rejected) = (0_u64, 0_u64);
    let mut broken = None;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) => {
                broken = Some(error);
                break;
            }
        };
        read += 1;
        match row.event.and_then(checked) {
            Ok(event) if events.len() < SHOWN_EVENTS => events.push(event),
            Ok(_) => {}
            Err(reason) => {
                rejected += 1;
                reasons.add(row.line, &reason);
            }
        }
    }
    let notes: Vec<String> = rows.notes().into_iter().chain(rows.closing_notes()).collect();
    let columns: Vec<[String; 4]> = rows
        .columns()
        .map(|columns| columns.map(|(name, column)| described(name, column)).collect())
        .unwrap_or_default();
    if as_json {
        let events = events.iter().map(|event| serde_json::from_str(&protojson::to_line(event)));
        let columns = columns.iter().map(|[name, becomes, kind, why]| {
            json!({"column": name, "becomes": becomes, "type": kind, "evidence": why})
        });
        output::line(json!({
            "rows": read,
            "rejected": rejected,
            "reasons": reasons.json(),
            "columns": columns.collect::<Vec<_>>(),
            "firstEvents": events.collect::<Result<Vec<serde_json::Value>, _>>()?,
            "notes": notes,
        }))?;
    } else {
        if !columns.is_empty() {
            let header = [text("column"), text("becomes"), text("type"), text("because")];
            output::text(table(&header, columns.into_iter().map(Vec::from)))?;
            output::line("")?;
        }
        for event in &events {
            output::line(protojson::to_line(event))?;
        }
        output::line("")?;
        output::facts([
            ("rows".to_owned(), grouped(read)),
            ("would be rejected".to_owned(), grouped(rejected)),
        ])?;
        for line in reasons.lines() {
            output::line(format!("  {line}"))?;
        }
        for note in notes {
            output::line(render::paint(render::FAINT, render::escaped(&note)))?;
        }
        output::line(render::paint(
            render::FAINT,
            "nothing was sent; the service also checks times, ids and its settings for placeholders",
        ))?;
    }
    broken.map_or(Ok(()), Err)
}

/// The event if it holds the rules of the schema, which the service checks too.
fn checked(event: Event) -> Result<Event, String> {
    let mut found = Violations::default();
    event.check(&Path::ROOT, &mut found);
    if event.actor().is_empty() {
        return Err("the event has no user_id and no anonymous_id".to_owned());
    }
    let found: Vec<String> = match found.into_result() {
        Ok(()) => return Ok(event),
        Err(found) => found.into_iter().map(|(field, problem)| format!("{field}: {problem}")).collect(),
    };
    Err(found.join("; "))
}

/// A column, what it becomes, its type and why it is that.
fn described(name: &str, column: &Column) -> [String; 4] {
    let uses: Vec<String> = column.uses.iter().map(Use::to_string).collect();
    let (kind, why) = match (column.is_typed(), column.uses.first()) {
        (true, _) => (column.column_type.name().to_owned(), column.evidence.reason()),
        (false, Some(Use::Text(_))) => ("text".to_owned(), "--text".to_owned()),
        (false, _) => (String::new(), String::new()),
    };
    let uses = if uses.is_empty() { "left out".to_owned() } else { uses.join(", ") };
    [name.to_owned(), uses, kind, why].map(|text| render::escaped(&text).into_owned())
}
