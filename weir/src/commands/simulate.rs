//! `weir simulate`: believable live traffic.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;

use weir_client::stream::{self, Acknowledged, Batch, MAX_BATCH_EVENTS};
use weir_simulate::{Spec, World};

use crate::{
    client::Connection,
    moment,
    output::{self, Meter},
    protojson,
    render::grouped,
    usage::Usage,
};

/// Batches that wait to be sent; beyond it the traffic slows down.
const MAX_WAITING: usize = 8;
/// Time between two batches: often enough to look alive, rarely enough to be cheap.
const TICK: Duration = Duration::from_millis(20);

/// Send made-up but believable traffic: a shop's visitors and some sensors
///
/// Users in eight time zones visit by web, Android and iOS, sleep at night, browse, search, put things into carts, and a few
/// buy; sensors report. Some events come late, some twice, some clocks are wrong: all of it as in life.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir simulate                                    100 events a second until Ctrl-C
  weir simulate --rate 5000 --users 200000 --duration 1m
  weir simulate --dry-run --json --count 1000 --seed 7 > events.ndjson")]
pub(crate) struct Simulate {
    /// Events a second
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = rate)]
    rate: f64,
    /// People and sensors
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    users: u32,
    /// How long; until Ctrl-C when left out
    #[arg(long, value_name = "DURATION", value_parser = moment::duration)]
    duration: Option<Duration>,
    /// How many events; until Ctrl-C when left out
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// The same seed makes the same users and, in a dry run, the same walks
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Share of events that are sent twice
    #[arg(long, value_name = "SHARE", default_value_t = 0.005, value_parser = share)]
    duplicates: f64,
    /// Share of events that come 1 to 30 minutes late
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    late: f64,
    /// Print the events instead of sending them, without waiting
    #[arg(long)]
    dry_run: bool,
    /// Print events (in a dry run) or the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.01..=10_000_000.0).contains(rate))
        .ok_or("expected 0.01 to 10000000".to_owned())
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("expected 0 to 1".to_owned())
}

impl Simulate {
    fn limit(&self) -> Option<u64> {
        let by_duration = self.duration.map(|duration| (duration.as_secs_f64() * self.rate).ceil() as u64);
        match (by_duration, self.count) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn world(&self) -> World {
        let spec = Spec::new(self.seed, self.users);
        World::new(Spec { duplicates: self.duplicates, late: self.late, ..spec })
    }
}

/// Runs it.
pub(crate) async fn run(args: Simulate) -> Result<()> {
    if args.dry_run { dry_run(&args) } else { live(&args).await }
}

/// The events of the next minutes, without waiting for them.
fn dry_run(args: &Simulate) -> Result<()> {
    let limit = args
        .limit()
        .ok_or_else(|| Usage::from("a dry run needs an end: --count or --duration".to_owned()))?;
    let (mut world, start) = (args.world(), Timestamp::now());
    for number in 0..limit {
        let offset = jiff::SignedDuration::from_secs_f64(number as f64 / args.rate);
        let emission = world.next(start + offset);
        if args.json {
            output::line(protojson::to_line(&emission.event))?;
        } else {
            output::line(super::tail::pretty(&emission.event, start + offset))?;
        }
    }
    Ok(())
}

async fn live(args: &Simulate) -> Result<()> {
    let limit = args.limit().unwrap_or(u64::MAX);
    let (batches, input) = mpsc::channel(MAX_WAITING);
    let (mut world, events_per_second) = (args.world(), args.rate);
    let stop = tokio_util::sync::CancellationToken::new();
    let stopping = stop.clone();
    let pacer = tokio::spawn(async move {
        let began = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        // Behind schedule it catches up by larger batches, not by a burst of ticks.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut made = 0_u64;
        while made < limit {
            tokio::select! {
                _ = tick.tick() => {}
                () = stopping.cancelled() => break,
            }
            let due = ((began.elapsed().as_secs_f64() * events_per_second) as u64).min(limit);
            while made < due {
                let count = (due - made).min(MAX_BATCH_EVENTS as u64);
                let now = Timestamp::now();
                let events = (0..count).map(|_| world.next(now).event).collect();
                made += count;
                if batches.send(Batch { events, tag: () }).await.is_err() {
                    return;
                }
            }
        }
    });

    let began = Instant::now();
    let (mut accepted, mut rejected, mut acknowledged) = (0_u64, 0_u64, 0_u64);
    let mut first_reason = None;
    let mut meter = Meter::new(args.limit(), "events", 0);
    let done = |batch: Acknowledged<()>| {
        accepted += u64::from(batch.accepted);
        acknowledged += u64::from(batch.accepted) + batch.exceptions.len() as u64;
        for error in batch.exceptions.iter().filter_map(|exception| exception.error.as_ref()) {
            rejected += 1;
            first_reason.get_or_insert_with(|| super::rejection(error));
        }
        meter.at(acknowledged, acknowledged);
    };
    let retrying = |status: &tonic::Status, _| output::note(format!("trying again: {}", status.message()));
    let options = stream::Options { import: None, patience: Duration::from_secs(60) };
    let sending =
        stream::send(args.connection.ingest()?, options, ReceiverStream::new(input), done, retrying);
    let sent = {
        let mut sending = std::pin::pin!(sending);
        tokio::select! {
            sent = &mut sending => sent,
            _ = tokio::signal::ctrl_c() => {
                stop.cancel();
                // A second Ctrl-C does not wait for what is under way.
                tokio::select! {
                    sent = sending => sent,
                    _ = tokio::signal::ctrl_c() => Ok(()),
                }
            }
        }
    };
    pacer.abort();
    meter.finish();
    let seconds = began.elapsed().as_secs_f64();
    sent.map_err(|status| args.connection.explain(status))?;
    let achieved = acknowledged as f64 / seconds.max(0.001);
    if args.json {
        output::line(serde_json::json!({
            "accepted": accepted, "rejected": rejected, "seconds": seconds, "eventsPerSecond": achieved,
        }))?;
    } else {
        output::line(format_args!(
            "{} events acknowledged in {seconds:.1} s: {} a second",
            grouped(accepted),
            grouped(achieved.round() as u64)
        ))?;
    }
    if let Some(reason) = first_reason {
        output::note(format!("{} events were rejected, the first because: {reason}", grouped(rejected)));
    }
    Ok(())
}
