//! `weir import`: a file of history into a running Weir.
//!
//! ```text
//! source (bytes) ─ rows (events with ids) ─ batches ─ stream (in order, several in flight) ─ acknowledged: rejects, checkpoint
//!    ├ separated: CSV, whose columns get types from all of their values
//!    ├ lines: NDJSON, and the rows of Parquet and Arrow
//!    └ stored: exports of Weir's own
//! ```

mod checkpoint;
mod columnar;
mod columns;
mod compressed;
mod dialect;
mod dry_run;
mod identity;
mod json;
mod layout;
mod lines;
mod outcome;
mod reasons;
mod rejects;
mod rows;
mod separated;
mod source;
mod stored;
mod times;
mod types;

pub(crate) use columns::typed;
pub(crate) use rejects::reason as rejection;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use prost::Message as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;
use weir_client::{
    Covered,
    stream::{self, Acknowledged, Batch},
};
use weir_proto::ingest::v1::event_result::Outcome as Acceptance;

use self::{
    checkpoint::{Checkpoint, Progress},
    columns::{Constant, Mapping, Reading},
    layout::Layout,
    outcome::Outcome,
    reasons::Reasons,
    rejects::Rejects,
    rows::{Raw, Rows},
};
use crate::{
    client::Connection,
    commands::settled,
    moment,
    output::{self, Meter},
    render::{self, grouped},
    usage::Usage,
};

/// Batches read ahead of sending.
const READ_AHEAD: usize = 4;
/// How long the ids of rows are remembered at least, by default: `consumer.dedup_window`.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Time between two writings of the checkpoint.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Import a file: CSV, TSV or NDJSON, plain, gzip or zstd; Parquet or Arrow; or an export of Weir's own
///
/// Each row becomes an event. Columns named like parts of an event (user_id, event_name, event_time, session_id, …) are
/// taken as such; say with --map where the others come from. Columns that remain become properties. Try --dry-run first: it
/// shows what becomes of the columns and the first rows, and which rows would be rejected.
///
/// A column of CSV has one type: numbers if all of its values are numbers (5.00, +5, 1e3), true/false in any case if all are, text
/// otherwise. Numbers with leading zeros (02138) and integers beyond 2^53 stay text, and with them their column. A file is read
/// once to find the types; of standard input the first 10,000 rows are looked at. NDJSON, Parquet and Arrow have types.
///
/// Times are read without help when they have one meaning: RFC 3339, "2024-01-31 10:00:00 UTC", 20240131, Unix time of 9 digits
/// or more, …; for others use --time-format.
///
/// A row's event id follows from the event that it becomes, so that importing a file twice counts each row once, as long as the
/// second time comes within the deduplication window (1 to 2 hours of log time by default); later it is refused without
/// --restart. Imported with another mapping or time format, rows become other events, which count beside the first.
/// Identical rows count separately.
/// Rejected rows are collected in FILE.rejects.csv or .ndjson, which can be fixed and imported. After Ctrl-C, the same
/// command goes on where it stopped.
///
/// Files of `weir query export` and `weir store export` are recognised, and their events restored: ids, times as they were
/// corrected, context, revenue and typed properties. The time of receipt is that of the import.
///
/// Exits with an error when rows were rejected, unless --allow-rejects is given.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir import orders.csv --dry-run                        what becomes of each column; nothing is sent
  weir import orders.csv.gz --map user_id=customer --map event_name=action --map event_time=created_at
  weir import sales.csv --value event_name=purchase --map user_id=mail --map revenue=total:EUR --time-zone Europe/Berlin
  weir import export.ndjson.zst                          lines of Weir's own event JSON need no mapping
  weir import log.ndjson --map user_id=actor.id --map event_name=type --map event_time=ts
  weir import history.parquet --map user_id=customer --map event_name=action --map event_time=at
  zcat *.csv.gz | weir import - --map event_name=event")]
pub(crate) struct Import {
    /// The file; - for standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Where a part of the event comes from: event_id, event_name, event_type, user_id, anonymous_id, session_id,
    /// install_id, sequence, event_time, revenue (COLUMN:USD), currency, context.os.name, …, properties.KEY. In NDJSON and
    /// Parquet a column may be a path of keys such as actor.id
    #[arg(long = "map", value_name = "TARGET=COLUMN")]
    mappings: Vec<Mapping>,
    /// The same value for every event, such as event_name=purchase
    #[arg(long = "value", value_name = "TARGET=TEXT")]
    constants: Vec<Constant>,
    /// A column to leave out
    #[arg(long, value_name = "COLUMN")]
    skip: Vec<String>,
    /// A column whose values stay text although they look like numbers
    #[arg(long, value_name = "COLUMN")]
    text: Vec<String>,
    /// A text that means no value, such as NA
    #[arg(long = "null", value_name = "TEXT")]
    nulls: Vec<String>,
    /// Leave out the columns that are not mapped
    #[arg(long)]
    no_properties: bool,
    /// Time zone of times without an offset
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = moment::zone)]
    time_zone: jiff::tz::TimeZone,
    /// Pattern of the times, as of strftime: "%d/%m/%Y %H:%M", or %s for Unix seconds of any length. Not needed for times with
    /// one meaning
    #[arg(long, value_name = "PATTERN")]
    time_format: Option<String>,
    /// The file's format; told from its first line when left out
    #[arg(long)]
    format: Option<source::Format>,
    /// Where rejected rows go; beside the file when left out
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Show what would become of the file, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Exit without an error although rows were rejected
    #[arg(long)]
    allow_rejects: bool,
    /// Begin at the first row, whether an earlier run was interrupted or imported all of the file
    #[arg(long)]
    restart: bool,
    /// Don't wait until the events are counted; `weir query import ID` tells later what became of them
    #[arg(long)]
    no_wait: bool,
    /// How long to retry when Weir is away, and to wait until the events are counted
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = moment::duration)]
    patience: Duration,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What a batch stands for.
struct Part {
    /// Rows up to the end of the batch, the rejected among them included.
    rows: u64,
    /// Line and row of each event.
    sources: Vec<(u64, Raw)>,
    /// Rows that are no events.
    rejected: Vec<(u64, String, Raw)>,
    /// Bytes of the file up to about here.
    bytes: u64,
}

/// Runs it.
pub(crate) async fn run(args: Import) -> Result<()> {
    let began = Instant::now();
    let layout = Layout {
        mappings: args.mappings.clone(),
        constants: args.constants.clone(),
        skip: args.skip.iter().cloned().collect(),
        text: args.text.iter().cloned().collect(),
        nulls: args.nulls.iter().cloned().collect(),
        properties: !args.no_properties,
    };
    let time_format = args.time_format.clone().map_or(times::Format::Auto, times::Format::Pattern);
    let reading = Reading { time_format, zone: args.time_zone.clone() };
    let source = source::open(&args.file, args.format)?;
    let (bytes, consumed) = (source.bytes, source.consumed.clone());
    let rows = Rows::new(source, layout.clone(), reading.clone())
        .map_err(|error| Usage::from(format!("{}: {error:#}", args.file.display())))?;
    if args.dry_run {
        let (file, json) = (args.file.display().to_string(), args.json);
        let shown = tokio::task::spawn_blocking(move || dry_run::run(rows, json)).await?;
        return shown.with_context(|| format!("{file} can't be read to its end"));
    }
    rows.notes().into_iter().for_each(output::note);
    if !rows.has_times() {
        output::note("no column is mapped to event_time: events get the time of their import");
    }

    let is_file = args.file.as_os_str() != "-";
    let described = format!("{layout:?} {reading:?} {:?}", args.format);
    let mut away = Some(|status: &tonic::Status| {
        output::note(format!("waiting for Weir: {:#}", args.connection.explain(status.clone())));
    });
    let log = settled::log(&args.connection, args.patience, |status| {
        away.take().into_iter().for_each(|say| say(status));
    });
    let log = log.await?;
    // A service that can't tell its log is known by its address.
    let identity =
        log.as_ref().map_or_else(|| args.connection.endpoint.to_string(), |log| log.identity.clone());
    let checkpoint = match is_file {
        true => Some(Checkpoint::of(&args.file, &identity, &described)?),
        false => None,
    };
    // A topic that was deleted and created again does not hold what an earlier run sent.
    let is_there =
        |earlier: &Progress| log.as_ref().is_none_or(|log| settled::holds(log, &earlier.consistency_token));
    let earlier = checkpoint.as_ref().filter(|_| !args.restart).and_then(Checkpoint::load).filter(is_there);
    let now = jiff::Timestamp::now().as_second();
    if let Some(progress) = earlier.as_ref().filter(|progress| progress.complete) {
        check_again(progress.began, now)?;
    }
    let resumed = earlier.filter(|progress| !progress.complete);
    let fresh = || Progress { began: now, import: Uuid::now_v7(), ..Progress::default() };
    let mut progress = resumed.clone().unwrap_or_else(fresh);
    if resumed.is_some() {
        output::note(format!(
            "going on after row {} of an earlier run (--restart begins anew)",
            grouped(progress.rows)
        ));
    }

    let mut rejects = Rejects::new(&args.file, args.rejects.clone(), rows.header(), resumed.is_some());
    let mut reasons = Reasons::default();
    let mut covered = Covered::default();
    covered.add(&progress.consistency_token);
    let mut meter = Meter::new(bytes, "rows", progress.rows);
    let mut saved = Instant::now();
    let mut failure = None;

    let (batches, input) = mpsc::channel(READ_AHEAD);
    let skip = progress.rows;
    let reader = tokio::task::spawn_blocking(move || read(rows, skip, &consumed, &batches));
    let options = stream::Options { import: Some(progress.import), patience: args.patience };
    let done = |batch: Acknowledged<Part>| {
        let mut settle = || -> Result<()> {
            take(&batch, &mut progress, &mut rejects, &mut reasons)?;
            covered.add(&batch.consistency_token);
            progress.consistency_token = covered.token();
            meter.at(progress.rows, batch.tag.bytes);
            if let Some(checkpoint) = checkpoint.as_ref().filter(|_| saved.elapsed() >= CHECKPOINT_EVERY) {
                rejects.flush()?;
                checkpoint.save(&progress)?;
                saved = Instant::now();
            }
            Ok(())
        };
        if failure.is_none() {
            failure = settle().err();
        }
    };
    let retrying = |status: &tonic::Status, _| {
        output::note(format!("trying again: {:#}", args.connection.explain(status.clone())));
    };
    let sent = {
        let sending =
            stream::send(args.connection.ingest()?, options, ReceiverStream::new(input), done, retrying);
        tokio::select! {
            sent = sending => Some(sent),
            _ = tokio::signal::ctrl_c() => None,
        }
    };
    meter.finish();
    rejects.flush()?;
    let mut broken = None;
    let end = match sent {
        Some(Ok(())) => {
            let read = reader.await.context("the reader of the file failed")?;
            read.notes.into_iter().for_each(output::note);
            broken = read.broken;
            Ok(())
        }
        Some(Err(status)) => Err(args.connection.explain(status)),
        None => Err(anyhow::anyhow!("interrupted")),
    };
    if let Some(error) = failure.or(end.err()) {
        if let Some(checkpoint) = &checkpoint {
            checkpoint.save(&progress)?;
            bail!("{error:#}\n  {} rows are done; the same command goes on there", grouped(progress.rows));
        }
        return Err(error);
    }
    let sending = began.elapsed();
    let outcome = match args.no_wait || progress.accepted == 0 {
        true => Outcome::NotAwaited,
        false => Outcome::of(&args.connection, &progress, args.patience).await?,
    };
    if let Some(checkpoint) = &checkpoint {
        if broken.is_some() {
            checkpoint.save(&progress)?;
        } else if progress.accepted > 0 {
            progress.complete = true;
            checkpoint.save(&progress)?;
        } else {
            // Likely a wrong mapping: with another, the file is imported from its first row.
            checkpoint.remove()?;
        }
    }
    report(&args, skip, &progress, &rejects, &reasons, &outcome, [sending, began.elapsed()])?;
    if let Some(error) = broken {
        bail!(
            "{error:#}\n  the {} rows before it are imported; repair the file and import it again: rows that are there already \
             count once while the service remembers their ids (consumer.dedup_window, 1 hour by default)",
            grouped(progress.rows)
        );
    }
    if progress.rejected > 0 && progress.accepted == 0 {
        bail!("no row was accepted; see {}", rejects.path().display());
    }
    if progress.rejected > 0 && !args.allow_rejects {
        bail!(
            "{} of {} rows were rejected; see {}, or accept that with --allow-rejects",
            grouped(progress.rejected),
            grouped(progress.rows),
            rejects.path().display()
        );
    }
    Ok(())
}

/// Whether a file that was imported completely may be imported again without counting twice.
fn check_again(began: i64, now: i64) -> Result<()> {
    let ago = Duration::from_secs(u64::try_from(now - began).unwrap_or_default());
    let minutes = grouped(ago.as_secs() / 60);
    if ago >= REMEMBERED {
        bail!(
            "this file was imported completely, {minutes} minutes ago. Its rows are recognised for 1 hour \
             (consumer.dedup_window) and would now count twice: --restart imports it all the same"
        );
    }
    output::note(format!(
        "this file was imported {minutes} minutes ago: its rows count once if the service still remembers their ids \
         (consumer.dedup_window, 1 hour unless configured)"
    ));
    Ok(())
}

/// How reading a file ended.
#[derive(Default)]
struct ReadFile {
    /// What was found out on the way.
    notes: Vec<String>,
    /// Why it can't be read further; the rows before that are sent.
    broken: Option<anyhow::Error>,
}

/// Reads the file into batches until it ends or nobody takes them any more.
fn read(
    mut rows: Rows,
    skip: u64,
    consumed: &Arc<AtomicU64>,
    batches: &mpsc::Sender<Batch<Part>>,
) -> ReadFile {
    let mut row_number = 0;
    let mut broken = None;
    loop {
        let mut part = Part { rows: 0, sources: Vec::new(), rejected: Vec::new(), bytes: 0 };
        let (mut events, mut bytes, mut ended) = (Vec::new(), 0, false);
        // Rows that are no events count too, so that a file full of them is reported as it goes.
        while events.len() + part.rejected.len() < stream::MAX_BATCH_EVENTS && bytes < stream::MAX_BATCH_BYTES
        {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => {
                    ended = true;
                    break;
                }
                Err(error) => {
                    (ended, broken) = (true, Some(error));
                    break;
                }
            };
            row_number += 1;
            if row_number <= skip {
                continue;
            }
            match row.event {
                Ok(event) => {
                    bytes += event.encoded_len();
                    events.push(event);
                    part.sources.push((row.line, row.raw));
                }
                Err(reason) => part.rejected.push((row.line, reason, row.raw)),
            }
        }
        part.rows = row_number;
        part.bytes = consumed.load(Ordering::Relaxed);
        if batches.blocking_send(Batch { events, tag: part }).is_err() || ended {
            return ReadFile { notes: rows.closing_notes(), broken };
        }
    }
}

/// Books a batch that is done with.
fn take(
    batch: &Acknowledged<Part>,
    progress: &mut Progress,
    rejects: &mut Rejects,
    reasons: &mut Reasons,
) -> Result<()> {
    progress.rows = progress.rows.max(batch.tag.rows);
    progress.accepted += u64::from(batch.accepted);
    progress.rejected += batch.tag.rejected.len() as u64;
    for (line, reason, raw) in &batch.tag.rejected {
        rejects.add(*line, reason, raw)?;
        reasons.add(*line, reason);
    }
    for exception in &batch.exceptions {
        match exception.outcome() {
            Acceptance::Duplicate => progress.duplicates += 1,
            Acceptance::Rejected | Acceptance::Unspecified | Acceptance::Accepted => {
                progress.rejected += 1;
                let Some((line, raw)) = batch.tag.sources.get(exception.index as usize) else { continue };
                let reason = exception.error.as_ref().map(rejects::reason).unwrap_or_default();
                // Where the event was in its batch says nothing of the file.
                let reason = reason.replace(&format!("events[{}].", exception.index), "");
                rejects.add(*line, &reason, raw)?;
                reasons.add(*line, &reason);
            }
        }
    }
    Ok(())
}

fn report(
    args: &Import,
    already: u64,
    progress: &Progress,
    rejects: &Rejects,
    reasons: &Reasons,
    outcome: &Outcome,
    [sending, all]: [Duration; 2],
) -> Result<()> {
    let rate = (progress.rows - already) as f64 / sending.as_secs_f64().max(0.001);
    let rejects_file = (progress.rejected > 0).then(|| rejects.path().display().to_string());
    if args.json {
        output::line(json!({
            "rows": progress.rows,
            "accepted": progress.accepted,
            "duplicates": progress.duplicates,
            "rejected": progress.rejected,
            "rejectsFile": rejects_file,
            "reasons": reasons.json(),
            "importId": progress.import,
            "results": outcome.to_json(),
            "consistencyToken": progress.consistency_token,
            "seconds": all.as_secs_f64(),
            "rowsPerSecond": rate,
        }))?;
    } else {
        let number = |number: u64| grouped(number);
        let mut facts = vec![
            ("rows".to_owned(), number(progress.rows)),
            ("accepted".to_owned(), number(progress.accepted)),
        ];
        if progress.duplicates > 0 {
            facts.push(("same event_id as a row nearby".to_owned(), number(progress.duplicates)));
        }
        facts.push((
            "rejected".to_owned(),
            match &rejects_file {
                Some(path) => format!("{}  see {path}", number(progress.rejected)),
                None => number(0),
            },
        ));
        if progress.accepted > 0 {
            facts.push(("in the results".to_owned(), outcome.describe(progress.import)));
        }
        facts
            .push(("time".to_owned(), format!("{:.1} s, {} rows/s", all.as_secs_f64(), number(rate as u64))));
        output::facts(facts)?;
        for line in reasons.lines() {
            output::line(format!("  {line}"))?;
        }
        outcome.notes().into_iter().for_each(output::note);
        if progress.accepted > 0 {
            output::line(render::paint(
                render::FAINT,
                "if imported again while the service remembers the ids (consumer.dedup_window, 1 hour by default), each row \
                 still counts once",
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_imported_again_only_while_its_rows_are_recognised() {
        assert!(check_again(1_000_000, 1_000_000 + 3_599).is_ok());
        let error = check_again(1_000_000, 1_000_000 + 3_600).unwrap_err().to_string();
        assert!(error.contains("60 minutes ago") && error.contains("--restart"), "{error}");
    }
}
