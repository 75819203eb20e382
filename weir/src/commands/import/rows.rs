//! Rows of a file as events.

use anyhow::Result;
use csv::ByteRecord;
use weir_proto::event::v1::Event;

use super::{
    columns::{self, Reading, Target},
    identity::Ids,
    layout::{Layout, Use},
    lines::Lines,
    separated::{Column, Separated},
    source::{Content, Source},
    stored::Stored,
};

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
}

enum Kind {
    Separated(Box<Separated>),
    Lines(Lines),
    /// An export of Weir's own with the columns of its store.
    Stored(Stored),
}

impl Rows {
    /// Reads the header, if there is one, and applies the layout to it.
    ///
    /// # Errors
    /// When the header cannot be read or does not fit the layout.
    pub(crate) fn new(source: Source, layout: Layout, reading: Reading) -> Result<Self> {
        let rows = match source.content {
            Content::Separated => Kind::Separated(Box::new(Separated::new(source, &layout)?)),
            Content::Lines(_) => Kind::Lines(Lines::new(source, &layout)?),
            Content::Stored(batches) => {
                layout.refuse_for_stored().map_err(anyhow::Error::msg)?;
                Kind::Stored(Stored::new(batches))
            }
        };
        Ok(Self { rows, ids: Ids::default(), layout, reading })
    }

    /// The columns; none where each row names its own.
    pub(crate) fn header(&self) -> Option<&[String]> {
        match &self.rows {
            Kind::Separated(rows) => Some(&rows.header),
            Kind::Lines(_) | Kind::Stored(_) => None,
        }
    }

    /// What is known of each column: its name, what it becomes, and why; none where each row names its own.
    pub(crate) fn columns(&self) -> Option<impl Iterator<Item = (&String, &Column)>> {
        match &self.rows {
            Kind::Separated(rows) => Some(rows.header.iter().zip(&rows.columns)),
            Kind::Lines(_) | Kind::Stored(_) => None,
        }
    }

    /// What the user has to know of the file before its rows are sent.
    pub(crate) fn notes(&self) -> Vec<String> {
        match &self.rows {
            Kind::Separated(rows) => rows.notes.clone(),
            Kind::Lines(_) => Vec::new(),
            Kind::Stored(_) => vec!["the file is an export of Weir's: its events are restored".to_owned()],
        }
    }

    /// What the user has to know at the end.
    pub(crate) fn closing_notes(&self) -> Vec<String> {
        match &self.rows {
            Kind::Separated(rows) => rows.closing_notes(),
            Kind::Lines(_) | Kind::Stored(_) => Vec::new(),
        }
    }

    /// Whether rows have a time; without one they get that of their receipt.
    pub(crate) fn has_times(&self) -> bool {
        let constant = self.layout.constants.iter().any(|constant| constant.target == Target::EventTime);
        match &self.rows {
            Kind::Separated(rows) => {
                let mut uses = rows.columns.iter().flat_map(|column| &column.uses);
                constant || uses.any(|used| *used == Use::Fill(Target::EventTime))
            }
            Kind::Lines(_) | Kind::Stored(_) => true,
        }
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read further. A bad row is no error here but in the row.
    pub(crate) fn next(&mut self) -> Result<Option<Row>> {
        let Self { rows, ids, layout, reading } = self;
        let (line, raw, event) = match rows {
            Kind::Separated(rows) => {
                let Some(cells) = rows.next()? else { return Ok(None) };
                let line = cells.position().map_or(0, csv::Position::line);
                let event = rows.event(&cells, layout, reading);
                (line, Raw::Cells(cells), event)
            }
            Kind::Lines(rows) => {
                let Some((line, text)) = rows.next()? else { return Ok(None) };
                let event = text.row.and_then(|row| super::lines::event(row, layout, reading));
                (line, Raw::Line(text.raw), event)
            }
            Kind::Stored(rows) => {
                let Some((line, event)) = rows.next()? else { return Ok(None) };
                let raw = crate::protojson::to_line(&event).into_bytes();
                (line, Raw::Line(raw), Ok(event))
            }
        };
        let event = event.and_then(|mut event| {
            for constant in &layout.constants {
                columns::fill(&mut event, &constant.target, &constant.text, reading)?;
            }
            if event.event_id.is_empty() {
                event.event_id = ids.next(&event).to_string();
            }
            match prost::Message::encoded_len(&event) {
                0..=MAX_EVENT_BYTES => Ok(event),
                bytes => Err(format!("the event takes {bytes} bytes; at most 65536 are accepted")),
            }
        });
        Ok(Some(Row { line, event, raw }))
    }
}

#[cfg(test)]
mod tests;
