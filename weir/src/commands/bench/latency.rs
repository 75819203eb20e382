//! `weir bench latency`: from the call that sends an event until a live query counts it, and until an ad-hoc funnel does.
//!
//! Events are spread over many names. Those of a name are sent some 30 ms apart, so they are counted in the order in which
//! they were sent; when a live answer says that *n* events of a name are counted, the *n*-th call's time is known.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet, time::MissedTickBehavior};
use weir_client::Endpoints;
use weir_proto::{
    analytics::v1::{
        QueryBreakdownRequest, QueryBreakdownResponse, TimeRange, WatchQueryRequest,
        watch_query_request::Query as Question, watch_query_response::Result as Answer,
    },
    ingest::v1::IngestEventRequest,
};

use super::{
    child::{Fleet, Ground},
    funnels,
};
use weir_simulate::{Spec, World};

use crate::{
    client::Connection,
    commands::settled,
    moment, output,
    render::{
        figure, grouped,
        table::{self, numeric, text},
    },
};

/// Names that the events are spread over; a question may name 100.
const NAMES: usize = 64;
/// Connections for sending: one is one lock.
const CONNECTIONS: usize = 4;
/// Calls under way at most; a service that is slower than that is overloaded, and its latency has no meaning.
const MAX_CALLS: usize = 4096;
/// How long the very first event may take: on a new Kafka the topics and the group come about with it.
const FIRST: Duration = Duration::from_secs(60);
/// What was sent within this time after it is not measured: connections come about, code is first run.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the last events may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// What it is told.
#[derive(Args, Debug)]
pub(super) struct Latency {
    /// Events a second, each in a call of its own
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long, after a warm-up of 2 s
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// On this Kafka instead of the embedded log, host:port,…
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// Each service in a process of its own
    #[arg(long, requires = "kafka")]
    apart: bool,
    /// A Weir that runs already, instead of one of its own; an URL as of WEIR_ENDPOINT
    #[arg(long, value_name = "URL", conflicts_with = "kafka")]
    endpoint: Option<Endpoints>,
    /// A setting of the measured Weir, such as log.kafka.linger_ms=1
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Times of calls whose events are not visible yet, by name.
type Waiting = Vec<Mutex<VecDeque<Instant>>>;

/// Runs it.
pub(super) async fn run(args: Latency) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("weir-bench-").tempdir()?;
    let (fleet, connection) = match &args.endpoint {
        Some(endpoint) => (None, Connection::to(endpoint.clone())),
        None => {
            let mut ground = Ground::new(dir.path(), args.kafka.as_deref());
            for setting in &args.set {
                let (key, value) = setting.split_once('=').context("--set takes SECTION.KEY=VALUE")?;
                ground = ground.with(key, value);
            }
            let fleet = match args.apart {
                false => Fleet::together(&ground).await?,
                true => Fleet::apart(&ground).await?,
            };
            let connection = fleet.connection();
            (Some(fleet), connection)
        }
    };
    let run = uuid::Uuid::new_v4().simple().to_string();
    let names: Vec<String> = (0..NAMES).map(|name| format!("bench_{}_{name}", &run[..8])).collect();
    let waiting: Arc<Waiting> = Arc::new((0..NAMES).map(|_| Mutex::default()).collect());

    let today = Timestamp::now().as_second().div_euclid(86_400) * 86_400;
    let question = QueryBreakdownRequest {
        time_range: Some(TimeRange {
            start_time: Some(prost_types::Timestamp { seconds: today, nanos: 0 }),
            ..TimeRange::default()
        }),
        group_by: vec!["event_name".to_owned()],
        event_names: names.clone(),
        max_rows: NAMES as u32,
        ..QueryBreakdownRequest::default()
    };
    let request = WatchQueryRequest {
        query: Some(Question::Breakdown(question)),
        min_interval: Some(moment::duration_to_proto(Duration::from_millis(10))),
    };
    let explain = |status| connection.explain(status);
    let mut updates = connection.analytics()?.watch_query(request).await.map_err(explain)?.into_inner();
    updates.message().await.map_err(explain)?.context("the live query ended")?;

    let mut first = World::new(Spec::new(1, 1)).next(Timestamp::now()).event;
    first.event_name = format!("bench_{}_first", &run[..8]);
    let answer = connection.ingest()?.ingest_event(IngestEventRequest { event: Some(first) }).await;
    let token = answer.map_err(explain)?.into_inner().consistency_token;
    settled::counted(&connection, &token, FIRST).await?;

    let measured_from = Instant::now() + WARM_UP;
    let until = measured_from + Duration::from_secs(args.seconds);
    let sent = Arc::new(AtomicU64::new(0));
    let mut sending = tokio::spawn(send(
        args.rate,
        measured_from..until,
        connection.clone(),
        names.clone(),
        waiting.clone(),
        sent.clone(),
    ));
    let asking =
        tokio::spawn(funnels::measure(connection.clone(), run[..8].to_owned(), measured_from..until));
    let mut seen: HashMap<String, (usize, u64)> =
        names.iter().enumerate().map(|(index, name)| (name.clone(), (index, 0))).collect();
    let mut visible = histogram()?;
    let (mut acknowledged, mut total_seen, mut answers) = (None, 0, 0_u64);
    let mut deadline = until + PATIENCE;
    while acknowledged.is_none() || total_seen < sent.load(Ordering::Relaxed) {
        tokio::select! {
            update = updates.message() => {
                let update = update.map_err(explain)?.context("the live query ended")?;
                let now = Instant::now();
                answers += 1;
                if let Some(Answer::Breakdown(answer)) = update.result {
                    total_seen += book(&answer, now, measured_from, &mut seen, &waiting, &mut visible)?;
                }
            }
            done = &mut sending, if acknowledged.is_none() => {
                acknowledged = Some(done.context("sending failed")??);
                deadline = Instant::now() + PATIENCE;
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                bail!("{} of {} events became visible", total_seen, sent.load(Ordering::Relaxed));
            }
        }
    }
    let acknowledged = acknowledged.context("the loop ends after sending has")?;
    let funnel = asking.await.context("asking failed")??;
    let cpu = fleet.as_ref().map(Fleet::cpu_seconds).transpose()?;
    if let Some(fleet) = fleet {
        fleet.stop().await?;
    }
    report(&args, &Took { acknowledged, visible, funnel }, answers, cpu)
}

/// Takes a live answer in: what it counts more than the one before became visible now.
fn book(
    answer: &QueryBreakdownResponse,
    now: Instant,
    measured_from: Instant,
    seen: &mut HashMap<String, (usize, u64)>,
    waiting: &Waiting,
    visible: &mut Histogram<u64>,
) -> Result<u64> {
    let mut more = 0;
    for row in &answer.rows {
        let name = row.group.first().map(figure::value).unwrap_or_default();
        let (index, before) = seen.get_mut(&name).context("the answer has a name that was not asked for")?;
        let count = row.figures.first().map_or(0.0, |figure| figure.value) as u64;
        let mut waiting = waiting[*index].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while *before < count {
            let called = waiting.pop_front().context("more events are counted than were sent")?;
            *before += 1;
            more += 1;
            if called >= measured_from {
                visible.saturating_record(now.saturating_duration_since(called).as_micros() as u64);
            }
        }
    }
    Ok(more)
}

/// Sends at a steady rate until told to end; returns how long the calls took.
async fn send(
    rate: u32,
    measured: std::ops::Range<Instant>,
    connection: Connection,
    names: Vec<String>,
    waiting: Arc<Waiting>,
    sent: Arc<AtomicU64>,
) -> Result<Histogram<u64>> {
    let clients = (0..CONNECTIONS).map(|_| connection.ingest()).collect::<Result<Vec<_>>>()?;
    let mut world =
        World::new(Spec { duplicates: 0.0, late: 0.0, skewed_clocks: false, ..Spec::new(1, 10_000) });
    let began = Instant::now();
    let calls = Arc::new(Semaphore::new(MAX_CALLS));
    let mut tasks = JoinSet::new();
    let mut took = histogram()?;
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0_usize;
    while Instant::now() < measured.end {
        tick.tick().await;
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as usize;
        while number < due {
            let permit = calls.clone().try_acquire_owned().ok().context(
                "the service is too slow for this rate: thousands of calls are waiting; try a lower --rate",
            )?;
            let name = number % NAMES;
            let mut event = world.next(Timestamp::now()).event;
            event.event_name.clone_from(&names[name]);
            let mut client = clients[number % CONNECTIONS].clone();
            number += 1;
            let called = Instant::now();
            waiting[name].lock().unwrap_or_else(std::sync::PoisonError::into_inner).push_back(called);
            sent.fetch_add(1, Ordering::Relaxed);
            tasks.spawn(async move {
                let answer = client.ingest_event(IngestEventRequest { event: Some(event) }).await;
                drop(permit);
                answer.map(|_| (called, called.elapsed()))
            });
        }
        while let Some(done) = tasks.try_join_next() {
            record(done?.map_err(|status| connection.explain(status))?, measured.start, &mut took);
        }
    }
    while let Some(done) = tasks.join_next().await {
        record(done?.map_err(|status| connection.explain(status))?, measured.start, &mut took);
    }
    Ok(took)
}

pub(super) fn record(
    (called, took): (Instant, Duration),
    measured_from: Instant,
    histogram: &mut Histogram<u64>,
) {
    if called >= measured_from {
        histogram.saturating_record(took.as_micros() as u64);
    }
}

/// Microseconds up to a minute, to three digits.
pub(super) fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).context("the bounds of the histogram are constant")
}

/// What was measured, microseconds.
struct Took {
    acknowledged: Histogram<u64>,
    visible: Histogram<u64>,
    funnel: Histogram<u64>,
}

fn report(args: &Latency, took: &Took, answers: u64, cpu: Option<f64>) -> Result<()> {
    let Took { acknowledged, visible, funnel } = took;
    let log = match (&args.kafka, &args.endpoint) {
        (Some(_), _) => "kafka",
        (None, Some(_)) => "as configured",
        (None, None) => "embedded",
    };
    let achieved = visible.len() as f64 / args.seconds as f64;
    const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
    let ms = |micros: u64| micros as f64 / 1000.0;
    if args.json {
        let of = |histogram: &Histogram<u64>| {
            json!({
                "count": histogram.len(),
                "p50Ms": ms(histogram.value_at_quantile(0.5)),
                "p90Ms": ms(histogram.value_at_quantile(0.9)),
                "p99Ms": ms(histogram.value_at_quantile(0.99)),
                "p999Ms": ms(histogram.value_at_quantile(0.999)),
                "maxMs": ms(histogram.max()),
            })
        };
        output::line(json!({
            "log": log,
            "rate": args.rate,
            "eventsPerSecond": achieved,
            "updates": answers,
            "acknowledged": of(acknowledged),
            "visible": of(visible),
            "funnel": of(funnel),
            "serverCpuSeconds": cpu,
        }))?;
        return Ok(());
    }
    let columns = [
        text("from the call until"),
        numeric("events"),
        numeric("p50"),
        numeric("p90"),
        numeric("p99"),
        numeric("p99.9"),
        numeric("max"),
    ];
    let row = |what: &str, histogram: &Histogram<u64>| {
        let quantiles =
            QUANTILES.map(|quantile| format!("{:.1} ms", ms(histogram.value_at_quantile(quantile))));
        [what.to_owned(), grouped(histogram.len())]
            .into_iter()
            .chain(quantiles)
            .chain([format!("{:.1} ms", ms(histogram.max()))])
            .collect::<Vec<_>>()
    };
    let rows = [
        row("acknowledged (durable)", acknowledged),
        row("visible in a live query", visible),
        row("visible in an ad-hoc funnel", funnel),
    ];
    output::text(table::table(&columns, rows))?;
    output::line(format_args!(
        "\nlog: {log}; {} events a second in calls of their own, {} live answers",
        grouped(achieved.round() as u64),
        grouped(answers)
    ))?;
    Ok(())
}
