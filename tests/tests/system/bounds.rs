//! What many slow readers, and the compaction of wide events, make a process hold: a bounded total, while others are served.
//!
//! In CI with tens of megabytes of events, in some seconds; `make verify-bounds` does the same with a gigabyte and 200 readers, in some
//! minutes.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use weir_tests::{process::Process, system::System};

/// Peak of resident memory above idle, bytes.
const BOUND: u64 = 512 << 20;
/// Texts of an event, and their length in bytes.
const TEXTS: usize = 6;
const TEXT: usize = 8000;
/// Events of a request.
const BATCH: usize = 80;

/// How much there is of everything.
struct Scale {
    events: usize,
    readers: usize,
    read_for: Duration,
}

impl Scale {
    fn get() -> Self {
        match std::env::var_os("WEIR_VERIFY_BOUNDS") {
            None => Self { events: 960, readers: 12, read_for: Duration::from_secs(5) },
            Some(_) => Self { events: 22_000, readers: 200, read_for: Duration::from_secs(60) },
        }
    }
}

/// A line of a process's status, bytes.
fn memory(process: &Process, line: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)).context("the kernel tells")?;
    let kilobytes: u64 = found.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}

/// Forgets the peak so far.
fn reset_peak(process: &Process) -> Result<()> {
    Ok(std::fs::write(format!("/proc/{}/clear_refs", process.pid()), "5")?)
}

/// Sends events with a text each that does not compress; some users have many of them.
async fn send(client: &Client, endpoint: &str, events: usize) -> Result<()> {
    let mut random = StdRng::seed_from_u64(11);
    for batch in 0..events.div_ceil(BATCH) {
        let numbers = batch * BATCH..events.min((batch + 1) * BATCH);
        let mut event = |number: usize| {
            let mut properties = json!({"number": number});
            for name in 0..TEXTS {
                let text: String = (0..TEXT).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
                properties[format!("text-{name}")] = text.into();
            }
            json!({"event_name": "wide", "user_id": format!("user-{}", number % 7), "properties": properties})
        };
        let body = json!({"events": numbers.map(&mut event).collect::<Vec<_>>()});
        loop {
            let sent = client.post(format!("{endpoint}/v1/events:batch")).json(&body).send().await?;
            if sent.status() != 429 {
                let answer: Value = sent.error_for_status()?.json().await?;
                ensure!(answer["consistencyToken"].is_string(), "they are accepted: {answer}");
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

async fn export(client: &Client, endpoint: &str) -> Result<Response> {
    Ok(client.get(format!("{endpoint}/v1/events:export")).send().await?.error_for_status()?)
}

/// Reads an export to its end, with a pause after each chunk up to a number of them: the numbers of the events.
async fn numbers(client: &Client, endpoint: &str, pauses: usize) -> Result<Vec<u64>> {
    let mut response = export(client, endpoint).await?;
    let (mut all, mut chunks) = (Vec::new(), 0);
    while let Some(chunk) = response.chunk().await? {
        all.extend_from_slice(&chunk);
        chunks += 1;
        if chunks <= pauses {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
    let number = |line: &str| {
        let event: Value = serde_json::from_str(line).with_context(|| format!("{line:.200}"))?;
        event["properties"]["number"].as_f64().map(|number| number as u64).context("a number")
    };
    std::str::from_utf8(&all)?.lines().map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_and_compactions_of_wide_events_hold_a_bounded_total() -> Result<()> {
    let Scale { events, readers, read_for } = Scale::get();
    // With compactions all the time.
    let settings = [("WEIR__STORE__FLUSH_INTERVAL", "1s"), ("WEIR__STORE__COMPACT_FILES", "4")];
    let system = tokio::task::block_in_place(|| System::one_binary_with(&settings))?;
    let (client, endpoint, process) = (Client::new(), system.addresses.endpoint(), &system.processes["up"]);
    let idle = memory(process, "VmRSS")?;
    let mut report = Vec::new();
    let mut check = |what: &str| -> Result<()> {
        let above = memory(process, "VmHWM")?.saturating_sub(idle);
        report.push(format!("{what}: {} MiB above idle at most", above >> 20));
        ensure!(above < BOUND, "{report:?}");
        reset_peak(process)
    };

    reset_peak(process)?;
    send(&client, &endpoint, events).await?;
    check("taking in, flushing and compacting")?;

    let mut slow = try_join_all((0..readers).map(|_| export(&client, &endpoint))).await?;
    for response in &mut slow {
        ensure!(response.chunk().await?.is_some(), "every reader gets its first piece");
    }
    let began = Instant::now();
    // One that is slow at first, and one that is not.
    let (paused, quick) = tokio::join!(numbers(&client, &endpoint, 8), numbers(&client, &endpoint, 0));
    let quick_took = began.elapsed();
    while began.elapsed() < read_for {
        for response in &mut slow {
            response.chunk().await?.context("the export goes on")?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    check(&format!("{readers} slow readers, others done in {quick_took:.1?}"))?;
    let expected: BTreeSet<u64> = (0..events as u64).collect();
    for found in [paused?, quick?] {
        ensure!(found.len() == events, "{} events, not {events}", found.len());
        ensure!(found.into_iter().collect::<BTreeSet<_>>() == expected, "each once");
    }
    println!("{events} events of {} bytes: {}", TEXTS * TEXT, report.join("; "));
    Ok(())
}
