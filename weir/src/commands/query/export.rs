//! `weir query export`: events into a file.

use std::{io::Write as _, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use weir_proto::analytics::v1::{ExportEventsRequest, export_events_request};

use super::{form::Which, note_lacking, show::footer};
use crate::{
    ask::{filter, range::Range},
    client::Connection,
    output::{self, Meter},
    render::{figure::bytes, grouped},
    usage::Usage,
};

/// Take events out: NDJSON, CSV, Parquet, Arrow
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query export --from 2024-01-01 --to 2024-02-01 --output january.parquet
  weir query export --event purchase --format csv --field platform --field amount > purchases.csv
  weir query export --last 1h | jq .eventName
`weir import` restores the events of all formats (of CSV only without --field); Parquet and Arrow have the columns of the event
store.")]
pub(super) struct Export {
    /// The format; after the end of --output when left out, else NDJSON
    #[arg(long)]
    format: Option<Format>,
    /// The file to write; standard output when left out. It appears when it is whole
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// For CSV: this field, beside event_id, time and revenue; repeatable; all when left out
    #[arg(long = "field", value_name = "FIELD")]
    fields: Vec<String>,
    /// Events at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Wait until the events of this consistency token are counted
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    token: String,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One event a line in JSON
    Ndjson,
    /// Comma-separated values
    Csv,
    /// Apache Parquet
    Parquet,
    /// Apache Arrow's stream format
    Arrow,
}

impl Format {
    fn is_text(self) -> bool {
        matches!(self, Self::Ndjson | Self::Csv)
    }

    /// Told by how a file's name ends.
    fn of(path: &std::path::Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            "arrow" | "arrows" => Some(Self::Arrow),
            _ => None,
        }
    }
}

impl From<Format> for export_events_request::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Ndjson => Self::Ndjson,
            Format::Csv => Self::Csv,
            Format::Parquet => Self::Parquet,
            Format::Arrow => Self::Arrow,
        }
    }
}

/// Runs it.
pub(super) async fn run(args: Export, now: Timestamp) -> Result<()> {
    let format = args.format.or_else(|| Format::of(args.output.as_deref()?)).unwrap_or(Format::Ndjson);
    if args.output.is_none() && !format.is_text() && output::is_terminal() {
        return Err(
            Usage::from("this format is not for a terminal: name a file with --output".to_owned()).into()
        );
    }
    let request = ExportEventsRequest {
        format: export_events_request::Format::from(format).into(),
        time_range: args.range.resolve(now).map_err(Usage::from)?,
        event_names: args.which.events,
        filter: filter::all_of(args.which.passing.filters),
        fields: args.fields,
        max_events: args.limit.unwrap_or(0),
        min_consistency_token: args.token,
    };
    let explain = |status| args.connection.explain(status);
    let mut stream = args.connection.analytics()?.export_events(request).await.map_err(explain)?.into_inner();
    let mut target = Target::open(args.output.as_deref())?;
    let mut meter = args.output.is_some().then(|| Meter::new(None, "bytes", 0));
    let (mut written, mut events, mut info) = (0, 0, None);
    while let Some(piece) = stream.message().await.map_err(explain)? {
        let data = piece.body.map(|body| body.data).unwrap_or_default();
        target.write(&data)?;
        written += data.len() as u64;
        events += piece.events;
        info = piece.info.or(info);
        if let Some(meter) = &mut meter {
            meter.at(written, written);
        }
    }
    if let Some(meter) = &meter {
        meter.finish();
    }
    target.finish()?;
    if let Some(path) = &args.output {
        let file = path.display();
        output::line(format!("{} events, {} in {file}", grouped(events), bytes(written)))?;
        if let Some(info) = &info {
            output::text(footer(info, &args.range.zone))?;
        }
    } else {
        note_lacking(info.as_ref(), &args.range.zone);
    }
    Ok(())
}

/// Where the bytes go. A file is written beside its place and moved there when it is whole.
enum Target {
    Standard,
    File { part: tempfile::NamedTempFile, path: PathBuf },
}

impl Target {
    fn open(path: Option<&std::path::Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::Standard) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // As any new file, not only for its owner as temporary ones are.
        let permissions = std::fs::Permissions::from_mode(0o666);
        let mut part = tempfile::Builder::new();
        let part =
            part.prefix(".weir-export-").permissions(permissions).tempfile_in(folder.unwrap_or(".".as_ref()));
        let part = part.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self::File { part, path: path.to_owned() })
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        match self {
            Self::Standard => Ok(std::io::stdout().lock().write_all(data)?),
            Self::File { part, path } => {
                part.write_all(data).with_context(|| format!("cannot write {}", path.display()))
            }
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Standard => Ok(std::io::stdout().flush()?),
            Self::File { part, path } => {
                part.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_told_by_the_name() {
        let of = |name: &str| Format::of(name.as_ref());
        assert_eq!(of("a/b.parquet"), Some(Format::Parquet));
        assert_eq!(of("b.jsonl"), Some(Format::Ndjson));
        assert_eq!(of("b"), None);
    }

    #[test]
    fn a_file_appears_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.csv");
        let mut target = Target::open(Some(&path)).unwrap();
        target.write(b"a\n").unwrap();
        assert!(!path.exists());
        target.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a\n");

        let mut broken = Target::open(Some(&path)).unwrap();
        broken.write(b"half").unwrap();
        drop(broken);
        assert_eq!(std::fs::read(&path).unwrap(), b"a\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left of what broke off");
    }
}
