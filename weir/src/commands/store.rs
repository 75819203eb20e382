//! `weir store`: the segments of the event store, without any service.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use weir_proto::time::timestamp;
use weir_store::{Compacted, EventStore as _, Store, manifest::Segment};

use crate::{
    launch,
    output::{self, Meter},
    render::table::{numeric, table, text},
    settings::Settings,
};

/// Look after the segments of the event store
#[derive(Args, Debug)]
#[command(
    after_long_help = "It reads and writes the store itself ([store] location), whether services run or not.

Examples:
  weir store ls                        segments, events and bytes of each partition
  weir store verify                    reads every segment and compares it with its manifest
  weir store compact                   fewer, larger segments, without waiting for a consumer to do it
  weir store export copy/              the segments as they are, for DuckDB, ClickHouse or pandas"
)]
pub(crate) struct StoreCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List what there is
    Ls {
        /// Each segment
        #[arg(long, short)]
        long: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Compact what is worth it
    Compact {
        #[command(flatten)]
        settings: Settings,
    },
    /// Read every segment to its end and compare it with its manifest
    Verify {
        #[command(flatten)]
        settings: Settings,
    },
    /// Copy the live segments of every project to a folder
    Export {
        /// The folder; created if absent
        #[arg(value_hint = clap::ValueHint::DirPath)]
        folder: PathBuf,
        #[command(flatten)]
        settings: Settings,
    },
}

/// Runs it.
pub(crate) async fn run(args: StoreCommand) -> Result<()> {
    match args.action {
        Action::Ls { long, settings } => list(&open(&settings).await?, long).await,
        Action::Compact { settings } => compact(&open(&settings).await?).await,
        Action::Verify { settings } => verify(&open(&settings).await?).await,
        Action::Export { folder, settings } => export(&open(&settings).await?, folder).await,
    }
}

async fn open(settings: &Settings) -> Result<Store> {
    launch::open_store(&settings.load()?).await
}

/// The partitions that have a chain.
async fn partitions(store: &Store) -> Result<Vec<u32>> {
    let folders = store.objects().folders("manifest").await?;
    let numbers = folders.iter().filter_map(|folder| folder.rsplit('/').next()?.parse().ok());
    let mut partitions: Vec<u32> = numbers.collect();
    partitions.sort_unstable();
    if partitions.is_empty() {
        bail!(
            "the store is empty: nothing was written yet, or `store.location` (or --data-dir) names another place"
        );
    }
    Ok(partitions)
}

async fn segments(store: &Store) -> Result<Vec<(u32, Arc<Segment>)>> {
    let mut all = Vec::new();
    for partition in partitions(store).await? {
        let chain = store.chain(partition).await?;
        if let Some(damage) = chain.damage() {
            output::note(format!("partition {partition}: {damage}"));
        }
        all.extend(chain.state().live.values().map(|segment| (partition, Arc::clone(segment))));
    }
    Ok(all)
}

async fn list(store: &Store, long: bool) -> Result<()> {
    if long {
        let columns =
            [text("segment"), text("project"), numeric("events"), numeric("bytes"), text("from"), text("to")];
        let rows = segments(store).await?.into_iter().map(|(_, segment)| {
            let moment = |micros| timestamp(micros).to_string();
            vec![
                segment.path.clone(),
                segment.project.clone(),
                segment.rows.to_string(),
                segment.bytes.to_string(),
                moment(segment.times.min),
                moment(segment.times.max),
            ]
        });
        return Ok(output::text(table(&columns, rows))?);
    }
    let columns = [
        numeric("partition"),
        numeric("next offset"),
        numeric("version"),
        numeric("segments"),
        numeric("events"),
        numeric("bytes"),
    ];
    let mut rows = Vec::new();
    for partition in partitions(store).await? {
        let chain = store.chain(partition).await?;
        let state = chain.state();
        let sum = |of: fn(&Segment) -> u64| state.live.values().map(|segment| of(segment)).sum::<u64>();
        let figures = [
            u64::from(partition),
            state.next_offset,
            state.version,
            state.live.len() as u64,
            sum(|segment| segment.rows),
            sum(|segment| segment.bytes),
        ];
        rows.push(figures.map(|figure| figure.to_string()).to_vec());
    }
    Ok(output::text(table(&columns, rows))?)
}

async fn compact(store: &Store) -> Result<()> {
    let mut bad = 0;
    for partition in partitions(store).await? {
        let Compacted { fewer, passed_over } = store
            .compact(partition)
            .await
            .with_context(|| format!("cannot compact partition {partition}"))?;
        output::line(format_args!("partition {partition}: {fewer} segments fewer"))?;
        bad += passed_over.len();
        passed_over.into_iter().for_each(output::note);
    }
    if bad > 0 {
        bail!("{bad} segments could not be compacted; the others are");
    }
    Ok(())
}

async fn verify(store: &Store) -> Result<()> {
    let segments = segments(store).await?;
    let mut meter = Meter::new(Some(segments.len() as u64), "segments", 0);
    let (mut rows, mut bad) = (0, 0);
    for (index, (_, segment)) in segments.iter().enumerate() {
        match store.verify(segment).await {
            Ok(()) => rows += segment.rows,
            Err(error) => {
                bad += 1;
                output::note(error);
            }
        }
        meter.at(index as u64 + 1, index as u64 + 1);
    }
    meter.finish();
    output::line(format_args!(
        "{} segments with {rows} events are as their manifests say",
        segments.len() - bad
    ))?;
    if bad > 0 {
        bail!("{bad} segments are not: put them back from a copy");
    }
    Ok(())
}

async fn export(store: &Store, folder: PathBuf) -> Result<()> {
    let segments = segments(store).await?;
    let mut meter = Meter::new(Some(segments.len() as u64), "segments", 0);
    for (index, (_, segment)) in segments.iter().enumerate() {
        let bytes = store.objects().get(&segment.path).await?;
        let bytes = bytes
            .with_context(|| format!("{} was compacted away meanwhile; run this again", segment.path))?;
        let path = folder.join(&segment.path);
        let parent = path.parent().unwrap_or(&folder);
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        meter.at(index as u64 + 1, index as u64 + 1);
    }
    meter.finish();
    output::line(format_args!("{} segments copied to {}", segments.len(), folder.display()))?;
    Ok(())
}
