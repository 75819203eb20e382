//! `weir bench ingest`: how many events a second are taken in and acknowledged as durable.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use weir_client::{
    Endpoints, is_transient,
    stream::{self, Acknowledged, Batch},
};
use weir_proto::{
    event::v1::Event,
    ingest::v1::{IngestEventRequest, IngestEventsRequest},
};

use super::child::{self, Child, Ground};
use weir_simulate::{Spec, World};

use crate::{
    client::Connection,
    launch::Service,
    output,
    render::{
        grouped,
        table::{self, numeric, text},
    },
};

/// Connections that the load is spread over.
const CONNECTIONS: usize = 4;
/// Events that are made before, and sent again and again with ids of their own.
const TEMPLATES: usize = 20_000;
/// Warm-up that is not measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Ways to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// `IngestEvent`: one event a call, many calls at once
    Unary,
    /// `IngestEvents`: batches
    Batch,
    /// `StreamEvents`: batches in long-lived streams
    Stream,
}

/// What it is told.
#[derive(Args, Debug)]
pub(super) struct Ingest {
    /// Only this way of sending
    #[arg(long)]
    mode: Option<Mode>,
    /// How long for each, after a warm-up of 1 s
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Calls under way in the unary mode
    #[arg(long, value_name = "N", default_value_t = 512)]
    concurrency: usize,
    /// Events in a batch
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: u32,
    /// On this Kafka instead of the embedded log, host:port,…
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// Measure everything (`weir up`), not the producer alone
    #[arg(long)]
    up: bool,
    /// A producer that runs already, instead of one of its own
    #[arg(long, value_name = "URL", conflicts_with_all = ["kafka", "up"])]
    endpoint: Option<Endpoints>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What one way of sending achieved.
struct Outcome {
    mode: Mode,
    events_per_second: f64,
    /// Of the service and of this program, for a million events.
    service_cpu: Option<f64>,
    client_cpu: f64,
}

/// What all workers count together.
#[derive(Default)]
struct Score {
    acknowledged: AtomicU64,
    stopping: AtomicBool,
}

impl Score {
    fn add(&self, events: u32) {
        self.acknowledged.fetch_add(events.into(), Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed)
    }
}

/// Runs it.
pub(super) async fn run(args: Ingest) -> Result<()> {
    let templates = Arc::new(templates());
    let mut outcomes = Vec::new();
    for mode in args.mode.map_or(vec![Mode::Unary, Mode::Batch, Mode::Stream], |mode| vec![mode]) {
        outcomes.push(measure(&args, mode, &templates).await?);
    }
    let log = match (&args.kafka, &args.endpoint) {
        (Some(_), _) => "kafka",
        (None, Some(_)) => "as configured",
        (None, None) => "embedded",
    };
    let name = |mode: Mode| match mode {
        Mode::Unary => "unary",
        Mode::Batch => "batch",
        Mode::Stream => "stream",
    };
    if args.json {
        let describe = |outcome: &Outcome| {
            json!({
                "mode": name(outcome.mode),
                "eventsPerSecond": outcome.events_per_second,
                "serviceCpuSecondsPerMillion": outcome.service_cpu,
                "clientCpuSecondsPerMillion": outcome.client_cpu,
            })
        };
        let outcomes: Vec<Value> = outcomes.iter().map(describe).collect();
        output::line(
            json!({ "log": log, "measured": if args.up { "up" } else { "producer" }, "modes": outcomes }),
        )?;
        return Ok(());
    }
    let columns = [
        text("mode"),
        numeric("acknowledged/s"),
        numeric("service CPU s per million"),
        numeric("per core/s"),
        numeric("client CPU s per million"),
    ];
    let rows = outcomes.iter().map(|outcome| {
        let per_core = outcome.service_cpu.map(|cpu| grouped((1e6 / cpu.max(0.001)) as u64));
        vec![
            name(outcome.mode).to_owned(),
            grouped(outcome.events_per_second as u64),
            outcome.service_cpu.map(|cpu| format!("{cpu:.2}")).unwrap_or_default(),
            per_core.unwrap_or_default(),
            format!("{:.2}", outcome.client_cpu),
        ]
    });
    output::text(table::table(&columns, rows))?;
    let measured = if args.up { "everything in one process" } else { "the producer alone" };
    output::line(format_args!("\nlog: {log}; {measured}; the client runs on the same machine"))?;
    Ok(())
}

fn templates() -> Vec<Event> {
    let mut world = World::new(Spec { duplicates: 0.0, skewed_clocks: false, ..Spec::new(1, 10_000) });
    let start = Timestamp::now();
    let tick = |index: usize| start + jiff::SignedDuration::from_micros(index as i64);
    (0..TEMPLATES).map(|index| world.next(tick(index)).event).collect()
}

/// The next events from the templates, with fresh ids.
struct Supply {
    templates: Arc<Vec<Event>>,
    next: usize,
}

impl Supply {
    fn event(&mut self) -> Event {
        let mut event = self.templates[self.next % self.templates.len()].clone();
        self.next += 1;
        event.event_id = uuid::Uuid::now_v7().to_string();
        event
    }

    fn events(&mut self, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.event()).collect()
    }
}

async fn measure(args: &Ingest, mode: Mode, templates: &Arc<Vec<Event>>) -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("weir-bench-").tempdir()?;
    let (service, connection) = match &args.endpoint {
        Some(endpoint) => (None, Connection::to(endpoint.clone())),
        None => {
            let ground = Ground::new(dir.path(), args.kafka.as_deref());
            let child = match args.up {
                true => Child::start("up", &Service::ALL, &ground).await?,
                false => Child::start(Service::Producer.name(), &[Service::Producer], &ground).await?,
            };
            let connection = child.connection();
            (Some(child), connection)
        }
    };
    let score = Arc::new(Score::default());
    let mut load = JoinSet::new();
    let workers = if mode == Mode::Unary { args.concurrency.max(1) } else { CONNECTIONS };
    let clients = (0..CONNECTIONS).map(|_| connection.ingest()).collect::<Result<Vec<_>>>()?;
    for worker in 0..workers {
        let supply = Supply { templates: templates.clone(), next: worker * TEMPLATES / workers };
        let (client, score, batch) =
            (clients[worker % CONNECTIONS].clone(), score.clone(), args.batch as usize);
        match mode {
            Mode::Unary => drop(load.spawn(unary(client, supply, score))),
            Mode::Batch => drop(load.spawn(batches(client, supply, score, batch))),
            Mode::Stream => drop(load.spawn(streams(client, supply, score, batch))),
        }
    }
    let read = || -> Result<(u64, Option<f64>, f64)> {
        let service = service.as_ref().map(Child::cpu_seconds).transpose()?;
        Ok((score.acknowledged.load(Ordering::Relaxed), service, child::cpu_seconds(std::process::id())?))
    };
    tokio::time::sleep(WARM_UP).await;
    let (began, before) = (Instant::now(), read()?);
    let failed = async {
        while let Some(ended) = load.join_next().await {
            ended.context("the load failed")?.map_err(|status| connection.explain(status))?;
        }
        bail!("the load ended by itself")
    };
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(args.seconds)) => {}
        failure = failed => return failure,
    }
    let (seconds, after) = (began.elapsed().as_secs_f64(), read()?);
    score.stopping.store(true, Ordering::Relaxed);
    load.shutdown().await;
    if let Some(service) = service {
        service.stop().await?;
    }
    let events = (after.0 - before.0) as f64;
    if events == 0.0 {
        bail!("nothing was acknowledged in {seconds:.0} s");
    }
    Ok(Outcome {
        mode,
        events_per_second: events / seconds,
        service_cpu: after.1.zip(before.1).map(|(after, before)| (after - before) / events * 1e6),
        client_cpu: (after.2 - before.2) / events * 1e6,
    })
}

type Client = weir_proto::ingest::v1::ingest_service_client::IngestServiceClient<weir_client::Wire>;

/// Being told to slow down is part of the game; anything else is not.
async fn tolerate(status: tonic::Status) -> Result<(), tonic::Status> {
    if !is_transient(&status) {
        return Err(status);
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(())
}

async fn unary(mut client: Client, mut supply: Supply, score: Arc<Score>) -> Result<(), tonic::Status> {
    while score.goes_on() {
        match client.ingest_event(IngestEventRequest { event: Some(supply.event()) }).await {
            Ok(_) => score.add(1),
            Err(status) => tolerate(status).await?,
        }
    }
    Ok(())
}

async fn batches(
    mut client: Client,
    mut supply: Supply,
    score: Arc<Score>,
    batch: usize,
) -> Result<(), tonic::Status> {
    while score.goes_on() {
        match client.ingest_events(IngestEventsRequest { events: supply.events(batch) }).await {
            Ok(answer) => score.add(answer.get_ref().accepted),
            Err(status) => tolerate(status).await?,
        }
    }
    Ok(())
}

async fn streams(
    client: Client,
    mut supply: Supply,
    score: Arc<Score>,
    batch: usize,
) -> Result<(), tonic::Status> {
    let stopping = score.clone();
    let input = futures::stream::iter(std::iter::from_fn(move || {
        stopping.goes_on().then(|| Batch { events: supply.events(batch), tag: () })
    }));
    let done = |batch: Acknowledged<()>| score.add(batch.accepted);
    let options = stream::Options { import: None, patience: Duration::from_secs(30) };
    stream::send(client, options, input, done, |_, _| {}).await
}
