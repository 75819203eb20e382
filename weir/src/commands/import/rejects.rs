//! The rows that were not taken, with the reason: a file that can be mended and imported like the first.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use prost::Message as _;
use serde_json::json;
use weir_proto::rpc;

use super::{
    json::entries,
    layout::{self, LINE_COLUMN, REASON_COLUMN},
    rows::Raw,
};

/// Where rejected rows go. The file comes into being with the first of them.
pub(crate) struct Rejects {
    path: PathBuf,
    /// The columns of a file that has them.
    header: Option<Vec<String>>,
    /// Whether to keep what an earlier run wrote.
    append: bool,
    out: Option<BufWriter<File>>,
}

impl Rejects {
    /// Beside `file`, or at `path`.
    pub(crate) fn new(file: &Path, path: Option<PathBuf>, header: Option<&[String]>, append: bool) -> Self {
        let path = path.unwrap_or_else(|| {
            let name = if file.as_os_str() == "-" { Path::new("stdin") } else { file };
            let extension = if header.is_some() { ".rejects.csv" } else { ".rejects.ndjson" };
            let mut name = name.as_os_str().to_owned();
            name.push(extension);
            PathBuf::from(name)
        });
        Self { path, header: header.map(<[String]>::to_vec), append, out: None }
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn add(&mut self, line: u64, reason: &str, raw: &Raw) -> Result<()> {
        let context = || format!("cannot write {}", self.path.display());
        let out = match &mut self.out {
            Some(out) => out,
            None => {
                let is_new = !(self.append && self.path.exists());
                let file = OpenOptions::new()
                    .create(true)
                    .write(true)
                    .append(self.append)
                    .truncate(!self.append)
                    .open(&self.path);
                let mut out = BufWriter::new(file.with_context(context)?);
                if let Some(header) = self.header.as_deref().filter(|_| is_new) {
                    let columns = header.iter().map(String::as_bytes);
                    let columns = columns.chain([LINE_COLUMN.as_bytes(), REASON_COLUMN.as_bytes()]);
                    out.write_all(&csv_line(columns)).with_context(context)?;
                }
                self.out.insert(out)
            }
        };
        let bytes = match raw {
            Raw::Cells(cells) => {
                // A row of the wrong length keeps its cells; the two columns stand where the header has them.
                let columns = self.header.as_ref().map_or(cells.len(), Vec::len);
                let padding = std::iter::repeat_n(b"".as_slice(), columns.saturating_sub(cells.len()));
                let line = line.to_string();
                csv_line(cells.iter().chain(padding).chain([line.as_bytes(), reason.as_bytes()]))
            }
            Raw::Line(text) => marked(text, line, reason).into_bytes(),
        };
        out.write_all(&bytes).with_context(context)
    }

    /// Writes out what is held back.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

/// A line with why it was rejected: its own keys and values stay as they are written, repeated keys and all.
fn marked(text: &[u8], line: u64, reason: &str) -> String {
    let own = entries(text);
    let mut fields: Vec<String> = match own {
        Some(entries) => {
            let own = entries.into_iter().filter(|(key, _)| !layout::is_added(key));
            own.map(|(key, value)| format!("{}:{value}", json!(key))).collect()
        }
        None => vec![format!("\"weir_text\":{}", json!(String::from_utf8_lossy(text)))],
    };
    fields.push(format!("{}:{line}", json!(LINE_COLUMN)));
    fields.push(format!("{}:{}", json!(REASON_COLUMN), json!(reason)));
    format!("{{{}}}\n", fields.join(","))
}

fn csv_line<'a>(cells: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).expect("a line in memory can be written");
    writer.into_inner().expect("a line in memory can be written")
}

/// Why an event was rejected, in words: the message with what its details add.
pub(crate) fn reason(status: &rpc::Status) -> String {
    let mut text = status.message.clone();
    for detail in status.details.iter().filter(|detail| detail.type_url.ends_with("google.rpc.BadRequest")) {
        for violation in rpc::BadRequest::decode(detail.value.as_slice())
            .map(|bad| bad.field_violations)
            .unwrap_or_default()
        {
            if !text.contains(&violation.description) {
                let separator = if text.is_empty() { "" } else { "; " };
                text.push_str(&format!("{separator}{}: {}", violation.field, violation.description));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(raw: &[(u64, Raw)], header: Option<&[String]>, append: bool, dir: &Path) -> String {
        let mut rejects = Rejects::new(&dir.join("rows"), None, header, append);
        for (line, raw) in raw {
            rejects.add(*line, "no, \"why\"", raw).unwrap();
        }
        rejects.flush().unwrap();
        std::fs::read_to_string(rejects.path()).unwrap()
    }

    #[test]
    fn rows_keep_their_columns() {
        let dir = tempfile::tempdir().unwrap();
        let header = ["a".to_owned(), "b".to_owned()];
        let row = |cells: &[&str]| Raw::Cells(cells.to_vec().into());
        written(&[(2, row(&["1", "x,y"]))], Some(&header), false, dir.path());
        let text = written(&[(9, row(&["2"]))], Some(&header), true, dir.path());
        insta::assert_snapshot!(text, @r#"
        a,b,weir_line,weir_reason
        1,"x,y",2,"no, ""why"""
        2,,9,"no, ""why"""
        "#);
        assert!(dir.path().join("rows.rejects.csv").exists());
    }

    #[test]
    fn lines_stay_json() {
        let dir = tempfile::tempdir().unwrap();
        let raw = [(1, Raw::Line(br#"{"a":1}"#.to_vec())), (2, Raw::Line(b"oops".to_vec()))];
        insta::assert_snapshot!(written(&raw, None, false, dir.path()), @r#"
        {"a":1,"weir_line":1,"weir_reason":"no, \"why\""}
        {"weir_text":"oops","weir_line":2,"weir_reason":"no, \"why\""}
        "#);
    }

    #[test]
    fn no_reject_no_file() {
        let dir = tempfile::tempdir().unwrap();
        Rejects::new(&dir.path().join("rows"), None, None, false).flush().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
