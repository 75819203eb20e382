//! CPU seconds that a consumer takes per million events that lie in an embedded log, everything included: reading, decoding,
//! deduplicating, aggregating, appending, and storing the events until all of them are in segments.
//!
//! `cargo run --release -p weir-consumer --example catch_up [million events] [partitions]`

#[path = "../benches/support/events.rs"]
mod events;

use std::{collections::BTreeMap, error::Error, fs, sync::Arc, time::Duration, time::Instant};

use prost::Message;
use weir_log::{EmbeddedConfig, EmbeddedLog, EventLog, Record, Retention, TopicPolicy, TopicSpec};
use weir_runtime::{Config, Context, Listeners, Shutdown};
use weir_store::{EventStore, HotSource, Store};

/// One event in this many repeats an earlier one.
const DUPLICATE_EVERY: u64 = 50;

/// CPU time, seconds, from a `stat` file in /proc: fields 14 and 15 count ticks of 10 ms.
fn cpu_seconds(stat: &str) -> f64 {
    let stat = fs::read_to_string(stat).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_ascii_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// That of the process's threads which live, by their names without numbers.
fn by_thread() -> Result<BTreeMap<String, f64>, Box<dyn Error>> {
    let mut seconds = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?;
        let name = name.trim_end().trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ');
        *seconds.entry(name.to_owned()).or_default() += cpu_seconds(&task.join("stat").to_string_lossy());
    }
    Ok(seconds)
}

/// Rows in memory and the bytes they take.
async fn hot(store: &Store, partitions: u32) -> Result<(usize, usize), Box<dyn Error>> {
    let (mut rows, mut bytes) = (0, 0);
    for partition in 0..partitions {
        for batch in store.read(partition, 0).await?.parts.iter().flat_map(|part| part.events.values()) {
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
        }
    }
    Ok((rows, bytes))
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
    let store = Store::open(weir_store::Settings::folder(dir.path().join("store"))).await?;
    let (before, started) = (by_thread()?, Instant::now());
    let cpu = cpu_seconds("/proc/self/stat");
    let consumer =
        tokio::spawn(weir_consumer::serve(context.clone(), Arc::clone(&log), store.clone(), listeners));
    // The counters move when a micro-batch is durable; the committed position would only follow once a second.
    let outcomes = ["processed", "duplicate", "dead_lettered"]
        .map(|outcome| context.metrics.events_processed("consumer", &context.config.topics.events, outcome));
    while outcomes.iter().map(|counter| counter.get()).sum::<u64>() < next {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (took, (rows, bytes)) = (started.elapsed().as_secs_f64(), hot(&store, partitions).await?);
    let per_million = 1e6 / next as f64;
    println!("caught up in {took:.2} s ({:.0} events/s)", next as f64 / took);
    println!("{rows} events in memory, {:.0} bytes each", bytes as f64 / rows.max(1) as f64);
    for (thread, seconds) in by_thread()? {
        let seconds = seconds - before.get(&thread).copied().unwrap_or_default();
        if seconds > 0.0 {
            println!("  {:.3} CPU seconds per million events so far: {thread}", seconds * per_million);
        }
    }
    // Stopped in order, it makes durable what is in memory.
    context.shutdown.trigger();
    consumer.await??;
    let cpu = cpu_seconds("/proc/self/stat") - cpu;
    let [processed, duplicate, dead_lettered] = outcomes.map(|counter| counter.get());
    assert_eq!((processed + duplicate, dead_lettered), (next, 0), "every event is accounted for");
    assert_eq!(duplicate, next / DUPLICATE_EVERY, "exactly the repetitions are duplicates");
    let segments = store.scan("default", partitions).await?.segments;
    let stored: u64 = segments.iter().map(|segment| segment.rows).sum();
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    assert_eq!(stored, processed, "every event is in one segment");
    println!("{} segments, {:.1} bytes an event", segments.len(), bytes as f64 / stored as f64);
    println!("{:.3} CPU seconds per million events", cpu * per_million);
    Ok(())
}
