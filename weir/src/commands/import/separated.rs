//! Rows of separated values.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use anyhow::{Context as _, Result};
use csv::ByteRecord;
use weir_proto::event::v1::Event;

use super::{
    columns::{self, Reading, Target},
    dialect::{self, WithoutBlanks},
    layout::{Layout, Use},
    source::Source,
    types::{ColumnType, Evidence},
};
use crate::output;

/// At a longer row reading ends: most likely a quote is not closed, and the rest of the file would be one row.
const MAX_ROW_BYTES: u64 = 1 << 20;
/// Rows of standard input that are looked at before the first is sent; and bytes of them.
const SAMPLE_ROWS: usize = 10_000;
const SAMPLE_BYTES: usize = 16 << 20;
/// Bytes of a file, as it is stored, from which on reading it for its types is announced: it takes some seconds.
const ANNOUNCED_BYTES: u64 = 256 << 20;

/// The rows of a file of separated values.
pub(super) struct Separated {
    reader: csv::Reader<Limited>,
    /// Names of the columns, each once.
    pub(super) header: Vec<String>,
    pub(super) columns: Vec<Column>,
    /// What was read to find the types and is not given out yet.
    sample: VecDeque<ByteRecord>,
    /// Why nothing can be read behind the sample.
    broken: Option<anyhow::Error>,
    /// What the user has to know of the file.
    pub(super) notes: Vec<String>,
    /// Whether the file is an export of Weir's own.
    is_export: bool,
}

/// What is known of a column.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    pub(super) uses: Vec<Use>,
    pub(super) evidence: Evidence,
    pub(super) column_type: ColumnType,
    /// Values behind the sample that are not of the type.
    strays: u64,
}

impl Column {
    /// Whether its values have a type of their own.
    pub(super) fn is_typed(&self) -> bool {
        self.uses.iter().any(|used| matches!(used, Use::Fill(Target::Property(_))))
    }
}

/// A file of which no more than so many bytes are read until more are allowed.
struct Limited {
    file: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(format!(
                "the row is longer than {MAX_ROW_BYTES} bytes: is a quote (\") in it not closed?"
            )));
        }
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut into[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Separated {
    /// Reads the header and the types of the columns.
    ///
    /// # Errors
    /// When the header can't be read or does not fit the layout.
    pub(super) fn new(source: Source, layout: &Layout) -> Result<Self> {
        let again = source.again();
        let bytes = source.bytes;
        let mut rows = Self::open(source, layout)?;
        if rows.columns.iter().any(Column::is_typed) {
            match again {
                Some(again) => {
                    if bytes.is_some_and(|bytes| bytes >= ANNOUNCED_BYTES) {
                        output::note(
                            "reading the file once to find the types of its columns, then to import it",
                        );
                    }
                    rows.survey(again()?, layout)?;
                }
                None => rows.sample(layout),
            }
        }
        for column in &mut rows.columns {
            column.column_type = column.evidence.column_type();
        }
        let notes = rows.columns.iter().zip(&rows.header).filter(|(column, _)| column.is_typed());
        let notes: Vec<String> =
            notes.filter_map(|(column, name)| Some(format!("{name}: {}", column.evidence.note()?))).collect();
        rows.notes.extend(notes);
        Ok(rows)
    }

    fn open(source: Source, layout: &Layout) -> Result<Self> {
        let delimiter = source.delimiter;
        let file: Box<dyn Read + Send> = match source.has_blanks {
            true => Box::new(WithoutBlanks::new(source.reader, delimiter)),
            false => Box::new(source.reader),
        };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .from_reader(Limited { file, left: MAX_ROW_BYTES });
        let raw = reader.headers().context("cannot read the header")?;
        let (header, mut notes) = dialect::column_names(raw.iter());
        if source.has_blanks {
            notes.push("blanks behind the separators are no part of the values".to_owned());
        }
        let uses = layout.resolve(&header).map_err(anyhow::Error::msg)?;
        let is_export = layout.is_export(&header);
        if is_export {
            notes.push("the file is an export of Weir's: its events are restored".to_owned());
        }
        let columns = uses.into_iter().map(|uses| Column { uses, ..Column::default() }).collect();
        Ok(Self { reader, header, columns, sample: VecDeque::new(), broken: None, notes, is_export })
    }

    /// Looks at every value of the file. What can't be read ends it here and is reported when its row is due.
    fn survey(&mut self, source: Source, layout: &Layout) -> Result<()> {
        let mut rows = Self::open(source, layout)?;
        while let Ok(Some(cells)) = rows.read() {
            self.look_at(&cells, layout);
        }
        Ok(())
    }

    fn sample(&mut self, layout: &Layout) {
        let mut bytes = 0;
        while self.sample.len() < SAMPLE_ROWS && bytes < SAMPLE_BYTES {
            let cells = match self.read() {
                Ok(Some(cells)) => cells,
                Ok(None) => return,
                Err(error) => {
                    self.broken = Some(error);
                    return;
                }
            };
            bytes += cells.as_slice().len();
            self.look_at(&cells, layout);
            self.sample.push_back(cells);
        }
    }

    fn look_at(&mut self, cells: &ByteRecord, layout: &Layout) {
        if cells.len() != self.columns.len() {
            return;
        }
        let typed = cells.iter().zip(&mut self.columns).filter(|(_, column)| column.is_typed());
        for (cell, column) in typed {
            if let Ok(text) = str::from_utf8(cell)
                && !layout.is_null(text)
            {
                column.evidence.add(text);
            }
        }
    }

    fn read(&mut self) -> Result<Option<ByteRecord>> {
        let mut cells = ByteRecord::new();
        let begin = self.reader.position().line();
        self.reader.get_mut().left = MAX_ROW_BYTES;
        let read = self.reader.read_byte_record(&mut cells);
        let is_row = read.with_context(|| format!("cannot read the row that begins in line {begin}"))?;
        Ok(is_row.then_some(cells))
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// When the file can't be read further.
    pub(super) fn next(&mut self) -> Result<Option<ByteRecord>> {
        match (self.sample.pop_front(), self.broken.take()) {
            (Some(cells), broken) => {
                self.broken = broken;
                Ok(Some(cells))
            }
            (None, Some(error)) => Err(error),
            (None, None) => self.read(),
        }
    }

    /// A row as an event.
    ///
    /// # Errors
    /// In words: what is wrong with it.
    pub(super) fn event(
        &mut self,
        cells: &ByteRecord,
        layout: &Layout,
        reading: &Reading,
    ) -> Result<Event, String> {
        if cells.len() != self.columns.len() {
            return Err(format!("the row has {} values, the header {}", cells.len(), self.columns.len()));
        }
        let mut event = Event::default();
        for (cell, column) in cells.iter().zip(&mut self.columns) {
            if column.uses.is_empty() {
                continue;
            }
            let text = str::from_utf8(cell).map_err(|_| "the row is not UTF-8".to_owned())?;
            // An empty cell is no value.
            if text.is_empty() || layout.is_null(text) {
                continue;
            }
            for used in &column.uses {
                match used {
                    Use::Fill(Target::Property(key)) => {
                        let value = column.column_type.value(text).unwrap_or_else(|| {
                            column.strays += 1;
                            columns::string(text)
                        });
                        columns::set_property(&mut event, key, value);
                    }
                    Use::Fill(target @ Target::Context(_)) => {
                        columns::fill(&mut event, target, text, reading)?
                    }
                    Use::Fill(target) => {
                        // Blanks around an id are nobody's intent, but what is stored is restored as it is.
                        let text = if self.is_export { text } else { text.trim() };
                        columns::fill(&mut event, target, text, reading)?;
                    }
                    Use::Text(key) => columns::set_property(&mut event, key, columns::string(text)),
                }
            }
        }
        Ok(event)
    }

    /// What is known at the end only: values behind the sample that are not of their column's type.
    pub(super) fn closing_notes(&self) -> Vec<String> {
        let strays = self.columns.iter().zip(&self.header).filter(|(column, _)| column.strays > 0);
        let note = |(column, name): (&Column, &String)| {
            let kind = column.column_type.name();
            format!(
                "{name}: {} values behind the first {SAMPLE_ROWS} rows are no {kind}, kept as text: import the file by its name \
                 to have all of the column looked at first",
                column.strays
            )
        };
        strays.map(note).collect()
    }
}
