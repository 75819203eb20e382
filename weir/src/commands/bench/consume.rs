//! `weir bench consume`: what processing costs, from events that lie in the log to results that are checked.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Value, json};
use weir_log::{EventLog, Record};
use weir_proto::{
    analytics::v1::{Measure, QueryBreakdownRequest, TimeRange, measure::Kind},
    event::v1::EventRecord,
    processing::v1::GetStatusRequest,
};
use weir_runtime::{
    Config, Shutdown,
    config::{LogKind, Sources},
};

use super::{
    child::{Child, Ground},
    oracle::{CURRENCIES, Oracle, PROPERTY, QUANTILES},
};
use weir_simulate::{Spec, World};

use crate::{
    commands::simulate::share,
    launch::{self, Service},
    moment, output,
    render::{
        figure::number,
        grouped,
        table::{self, numeric, text},
    },
};

/// Records in one append.
const APPEND: usize = 2000;
/// Appends under way.
const IN_FLIGHT: usize = 16;
/// The time that the events are about ends when they are written, and began this long before: 100,000 a second for five
/// million.
const SPAN_MICROS: i64 = 50_000_000;
/// Made-up users.
const USERS: u32 = 100_000;
/// How long a consumer may take.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What it is told.
#[derive(Args, Debug)]
pub(super) struct Consume {
    /// Events that are written, duplicates included; a fifth of it is measured first, and the difference counts
    #[arg(long, value_name = "N", default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    events: u64,
    /// Share of events that are there twice
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    duplicates: f64,
    /// Share of events that come 1 to 30 minutes late, and so add to buckets of their own
    #[arg(long, value_name = "SHARE", default_value_t = 0.001, value_parser = share)]
    late: f64,
    /// On this Kafka instead of the embedded log, host:port,…
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// Everything random follows from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the data goes meanwhile; a folder for temporary files when left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A setting of the measured consumer, such as consumer.micro_batch_events=16384
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One measured run.
struct Run {
    events: u64,
    bytes: u64,
    duplicates: u64,
    cpu_seconds: f64,
    seconds: f64,
    peak_mib: u64,
    compared: usize,
}

/// Runs it.
pub(super) async fn run(args: Consume) -> Result<()> {
    let mut runs = Vec::new();
    for events in [args.events / 5, args.events] {
        runs.push(measure(&args, events).await?);
    }
    let [small, large] = runs.as_slice() else { bail!("two runs are made") };
    let millions = (large.events - small.events) as f64 / 1e6;
    let cpu_per_million = (large.cpu_seconds - small.cpu_seconds) / millions;
    let per_core = 1.0 / cpu_per_million;
    let log = if args.kafka.is_some() { "kafka" } else { "embedded" };
    if args.json {
        let describe = |run: &Run| {
            json!({
                "events": run.events,
                "duplicates": run.duplicates,
                "bytesPerEvent": run.bytes as f64 / run.events as f64,
                "cpuSeconds": run.cpu_seconds,
                "seconds": run.seconds,
                "peakMib": run.peak_mib,
                "figuresCompared": run.compared,
            })
        };
        let runs: Vec<Value> = runs.iter().map(describe).collect();
        output::line(json!({
            "log": log,
            "runs": runs,
            "cpuSecondsPerMillion": cpu_per_million,
            "millionEventsPerSecondPerCore": per_core,
            "exact": true,
        }))?;
        return Ok(());
    }
    let columns = [
        text("log"),
        numeric("events"),
        numeric("duplicates"),
        numeric("bytes each"),
        numeric("CPU s"),
        numeric("wall s"),
        numeric("peak MiB"),
        text("answers"),
    ];
    let row = |run: &Run| {
        vec![
            log.to_owned(),
            grouped(run.events),
            grouped(run.duplicates),
            number((run.bytes as f64 / run.events as f64).round()),
            format!("{:.2}", run.cpu_seconds),
            format!("{:.2}", run.seconds),
            grouped(run.peak_mib),
            format!("{} figures equal the oracle's", run.compared),
        ]
    };
    output::text(table::table(&columns, runs.iter().map(row)))?;
    output::line(format_args!(
        "\n{cpu_per_million:.3} CPU seconds per million events: {} events a second per core",
        grouped((per_core * 1e6) as u64)
    ))?;
    Ok(())
}

async fn measure(args: &Consume, events: u64) -> Result<Run> {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("weir-bench-").tempdir_in(&parent)?;
    let mut ground = Ground::new(dir.path(), args.kafka.as_deref())
        .with("rollups.numeric", PROPERTY)
        // What the events are about is checked, not thrown away while it is measured.
        .with("topics.events_retention", "never");
    for setting in &args.set {
        let (key, value) = setting.split_once('=').context("--set takes SECTION.KEY=VALUE")?;
        ground = ground.with(key, value);
    }
    output::note(format!("writing {} events", grouped(events)));
    let (oracle, bytes) = write(args, events, &ground).await?;
    let unique = oracle.events();

    output::note("processing them");
    let began = Instant::now();
    let consumer = Child::start(Service::Consumer.name(), &[Service::Consumer], &ground).await?;
    let counted = caught_up(&consumer, events).await?;
    let (seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), consumer.cpu_seconds()?);
    let peak_mib = consumer.peak_mib()?;
    consumer.stop().await?;
    if counted != unique {
        bail!("the consumer counted {counted} events, but {unique} are different from each other");
    }

    output::note("checking every answer");
    let analytics = Child::start(Service::Analytics.name(), &[Service::Analytics], &ground).await?;
    let connection = analytics.connection();
    let day = |days: i64| {
        let today = Timestamp::now().as_second().div_euclid(86_400);
        Some(prost_types::Timestamp { seconds: (today + days) * 86_400, nanos: 0 })
    };
    let mut request = tonic::Request::new(QueryBreakdownRequest {
        time_range: Some(TimeRange { start_time: day(-1), end_time: day(2), last: None }),
        group_by: vec!["event_name".to_owned()],
        measures: measures(),
        max_rows: 1000,
        ..QueryBreakdownRequest::default()
    });
    request.set_timeout(Duration::from_secs(60));
    let answer = connection.analytics()?.query_breakdown(request).await;
    let answer = answer.map_err(|status| connection.explain(status))?.into_inner();
    analytics.stop().await?;
    let compared = oracle.check(&answer).map_err(|wrong| anyhow::anyhow!("answers are wrong:\n{wrong}"))?;
    Ok(Run { events, bytes, duplicates: events - unique, cpu_seconds, seconds, peak_mib, compared })
}

fn measures() -> Vec<Measure> {
    let plain = |kind: Kind| Measure { kind: kind.into(), ..Measure::default() };
    let property = || PROPERTY.to_owned();
    let mut measures = vec![plain(Kind::Events), plain(Kind::UniqueUsers)];
    measures.push(Measure { property: property(), ..plain(Kind::Sum) });
    measures.extend(QUANTILES.map(|quantile| Measure {
        property: property(),
        quantile,
        ..plain(Kind::Quantile)
    }));
    measures
        .extend(CURRENCIES.map(|currency| Measure { currency: currency.to_owned(), ..plain(Kind::Revenue) }));
    measures
}

/// Writes the events as the producer would, and counts them.
async fn write(args: &Consume, events: u64, ground: &Ground) -> Result<(Oracle, u64)> {
    let config = Config::load(Sources { overrides: ground.settings.clone(), ..Sources::default() })?;
    if config.log.kind == LogKind::Embedded {
        check_room(&config.data_dir, events)?;
    }
    let log = launch::open(&config, &Shutdown::new()).await?;
    let (topic, partitions) = (config.topics.events.clone(), config.topics.partitions);
    let spec = Spec {
        duplicates: args.duplicates,
        late: args.late,
        skewed_clocks: false,
        ..Spec::new(args.seed, USERS)
    };
    let (sender, mut batches) = tokio::sync::mpsc::channel::<(u32, Vec<Record>)>(IN_FLIGHT);
    let making = tokio::task::spawn_blocking(move || make(spec, events, partitions, &sender));
    // Partitions are appended to side by side, each in order.
    let mut waiting: HashMap<u32, tokio::sync::mpsc::Sender<Vec<Record>>> = HashMap::new();
    let mut appends = FuturesUnordered::new();
    for partition in 0..partitions {
        let (sender, receiver) = tokio::sync::mpsc::channel(IN_FLIGHT);
        waiting.insert(partition, sender);
        appends.push(append(Arc::clone(&log), topic.clone(), partition, receiver));
    }
    let distribute = async {
        while let Some((partition, records)) = batches.recv().await {
            if waiting[&partition].send(records).await.is_err() {
                break;
            }
        }
        waiting.clear();
    };
    let finish = async {
        while let Some(done) = appends.next().await {
            done?;
        }
        anyhow::Ok(())
    };
    let ((), finished) = tokio::join!(distribute, finish);
    finished?;
    let made = making.await.context("making the events failed")?;
    log.close().await?;
    Ok(made)
}

async fn append(
    log: Arc<dyn EventLog>,
    topic: String,
    partition: u32,
    mut batches: tokio::sync::mpsc::Receiver<Vec<Record>>,
) -> Result<()> {
    while let Some(records) = batches.recv().await {
        loop {
            match log.append(&topic, partition, records.clone()).await {
                Ok(_) => break,
                // Nothing was appended: the one error after which repeating cannot write twice.
                Err(weir_log::Error::QueueFull { .. }) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn make(
    spec: Spec,
    events: u64,
    partitions: u32,
    batches: &tokio::sync::mpsc::Sender<(u32, Vec<Record>)>,
) -> (Oracle, u64) {
    let (mut world, mut oracle, mut bytes) = (World::new(spec), Oracle::default(), 0);
    let mut records: Vec<Vec<Record>> = vec![Vec::new(); partitions as usize];
    let first = Timestamp::now().as_microsecond() - SPAN_MICROS;
    for index in 0..events {
        let micros = first + (index as i128 * i128::from(SPAN_MICROS) / i128::from(events)) as i64;
        let now = Timestamp::from_microsecond(micros).expect("now is within the range of time");
        let emission = world.next(now);
        if !emission.duplicate {
            oracle.count(&emission.event);
        }
        let event = emission.event;
        let key = if event.user_id.is_empty() { event.anonymous_id.clone() } else { event.user_id.clone() };
        let happened = event.event_time.as_ref().map_or(now, moment::from_proto).as_microsecond();
        let record = EventRecord {
            project: "default".to_owned(),
            receive_time_micros: micros,
            corrected_time_micros: happened,
            event: Some(event),
            import_id: Vec::new(),
        };
        let value = record.encode_to_vec();
        bytes += value.len() as u64;
        let partition = weir_producer::partition::partition(key.as_bytes(), partitions);
        let waiting = &mut records[partition as usize];
        waiting.push(Record::new(key, value));
        if waiting.len() == APPEND && batches.blocking_send((partition, std::mem::take(waiting))).is_err() {
            break;
        }
    }
    for (partition, rest) in (0..).zip(records).filter(|(_, rest)| !rest.is_empty()) {
        if batches.blocking_send((partition, rest)).is_err() {
            break;
        }
    }
    (oracle, bytes)
}

/// Waits until every record is processed; returns how many were counted.
async fn caught_up(consumer: &Child, events: u64) -> Result<u64> {
    let connection = consumer.connection();
    let mut client = connection.processing()?;
    let began = Instant::now();
    loop {
        let status =
            client.get_status(GetStatusRequest {}).await.map_err(|status| connection.explain(status))?;
        let status = status.into_inner().status.unwrap_or_default();
        let partitions = &status.partitions;
        let durable = |sinks: &[weir_proto::processing::v1::SinkStatus]| {
            sinks.iter().map(|sink| sink.next_offset).min()
        };
        let is_done =
            partitions.iter().all(|partition| durable(&partition.sinks) == Some(partition.end_offset));
        let processed: u64 = partitions
            .iter()
            .map(|partition| partition.counted + partition.duplicates + partition.dead_lettered)
            .sum();
        if is_done && processed >= events {
            let dead_lettered: u64 = partitions.iter().map(|partition| partition.dead_lettered).sum();
            if dead_lettered > 0 {
                bail!("{dead_lettered} events went to the dead letters");
            }
            return Ok(partitions.iter().map(|partition| partition.counted).sum());
        }
        if began.elapsed() > PATIENCE {
            bail!("{processed} of {events} events are processed after {} s", PATIENCE.as_secs());
        }
        // Rarely enough that being asked costs the consumer nothing, often enough for the wall time.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn check_room(dir: &Path, events: u64) -> Result<()> {
    // About 400 bytes an event with its frame, and as much again for results and the file system.
    let needed = events * 800;
    let parent = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(parent)?;
    let free = found.f_bavail * found.f_frsize;
    if free < needed {
        bail!(
            "{} has {} MiB left, {} are needed: choose another place with --dir, or fewer --events",
            parent.display(),
            grouped(free >> 20),
            grouped(needed >> 20)
        );
    }
    Ok(())
}
