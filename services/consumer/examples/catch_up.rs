//! CPU seconds that a consumer takes per million events that lie in an embedded log, everything included: reading, decoding,
//! deduplicating, aggregating, appending.
//!
//! `cargo run --release -p weir-consumer --example catch_up [million events] [partitions]`

#[path = "../benches/support/events.rs"]
mod events;

use std::{error::Error, fs, sync::Arc, time::Duration, time::Instant};

use prost::Message;
use weir_log::{EmbeddedConfig, EmbeddedLog, EventLog, Record, Retention, TopicPolicy, TopicSpec};
use weir_runtime::{Config, Context, Listeners, Shutdown};

/// One event in this many repeats an earlier one.
const DUPLICATE_EVERY: u64 = 50;

/// CPU time of this process, seconds, from /proc: fields 14 and 15 count ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_ascii_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let count = arguments.first().unwrap_or(&1) * 1_000_000;
    let partitions = *arguments.get(1).unwrap_or(&3) as u32;

    let dir = tempfile::tempdir()?;
    let log: Arc<dyn EventLog> = EmbeddedLog::open(EmbeddedConfig::at(dir.path().join("log")))?;
    let mut config = Config::default();
    config.rollups.numeric = vec!["price".to_owned()];
    let topics = &config.topics;
    let topics = [&topics.events, &topics.metrics, &topics.dead_letters].map(|name| TopicSpec {
        name: name.clone(),
        partitions,
        retention: Retention::default(),
    });
    log.ensure_topics(&topics, TopicPolicy::Create).await?;

    let started = Instant::now();
    let mut next = 0;
    while next < count {
        for partition in 0..partitions {
            let records = (next..next + 2000).map(|n| {
                let n = if n % DUPLICATE_EVERY == 1 { n - 1 } else { n };
                Record::new("user", events::event(n).encode_to_vec())
            });
            log.append(&config.topics.events, partition, records.collect()).await?;
            next += 2000;
        }
    }
    println!("{next} events written in {:.1} s", started.elapsed().as_secs_f64());

    let any = "127.0.0.1:0".parse()?;
    let listeners = Listeners::bind(any, Some(any), false).await?;
    let context = Context::new(config, Shutdown::new());
    let store = weir_store::Store::open(weir_store::Settings::folder(dir.path().join("store"))).await?;
    let (cpu, started) = (cpu_seconds(), Instant::now());
    let consumer = tokio::spawn(weir_consumer::serve(context.clone(), Arc::clone(&log), store, listeners));
    // The counters move when a micro-batch is durable; the committed position would only follow once a second.
    let outcomes = ["processed", "duplicate", "dead_lettered"]
        .map(|outcome| context.metrics.events_processed("consumer", &context.config.topics.events, outcome));
    while outcomes.iter().map(|counter| counter.get()).sum::<u64>() < next {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (cpu, took) = (cpu_seconds() - cpu, started.elapsed().as_secs_f64());
    context.shutdown.trigger();
    consumer.await??;
    let [processed, duplicate, dead_lettered] = outcomes.map(|counter| counter.get());
    assert_eq!((processed + duplicate, dead_lettered), (next, 0), "every event is accounted for");
    assert_eq!(duplicate, next / DUPLICATE_EVERY, "exactly the repetitions are duplicates");
    println!(
        "caught up in {took:.2} s ({:.0} events/s): {:.3} CPU seconds per million events",
        next as f64 / took,
        cpu * 1e6 / next as f64
    );
    Ok(())
}
