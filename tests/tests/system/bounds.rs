//! What many slow readers, and the compaction of wide events, make a process hold: a bounded total, while others are served.
//!
//! In CI with tens of megabytes of events, in some seconds; `make verify-bounds` does the same with 40,000 events of 50 KB and 200
//! readers, in some minutes.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use weir_tests::{
    process::{PATIENCE, Process},
    system::System,
};

/// Peak of resident memory above idle, bytes.
const BOUND: u64 = 512 << 20;
/// Texts of an event, and their length in bytes: 50 KB together.
const TEXTS: usize = 7;
const TEXT: usize = 7200;
/// Events of a request.
const BATCH: usize = 64;
/// Time between two pieces that a slow reader takes.
const SLOW: Duration = Duration::from_millis(250);
/// Compaction has ended when the files have been the same for so long.
const QUIET: Duration = Duration::from_secs(3);

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
            Some(_) => Self { events: 40_000, readers: 200, read_for: Duration::from_secs(60) },
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
                ensure!(answer["accepted"] == body["events"].as_array().map_or(0, Vec::len), "{answer:.500}");
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
    let (mut numbers, mut rest, mut chunks) = (Vec::new(), Vec::new(), 0);
    while let Some(chunk) = response.chunk().await? {
        rest.extend_from_slice(&chunk);
        let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line)?;
            numbers.push(event["properties"]["number"].as_f64().context("a number")? as u64);
        }
        rest.drain(..end);
        chunks += 1;
        if chunks <= pauses {
            tokio::time::sleep(SLOW).await;
        }
    }
    ensure!(rest.is_empty(), "it ends with a line");
    Ok(numbers)
}

/// Takes a piece now and then for a while: how many bytes that were.
async fn read_slowly(mut response: Response, until: Instant) -> Result<usize> {
    let mut bytes = 0;
    while Instant::now() < until {
        bytes += response.chunk().await?.context("the export goes on")?.len();
        tokio::time::sleep(SLOW).await;
    }
    Ok(bytes)
}

/// Waits until the event store's files stay as they are: how many segments there are.
async fn compacted(system: &System) -> Result<usize> {
    fn segments(folder: &Path) -> Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true => found.extend(segments(&path)?),
                false => drop(found.insert(path)),
            }
        }
        Ok(found)
    }
    let folder = system.dir.path().join("data/store/events");
    let (mut known, mut since) = (BTreeSet::new(), Instant::now());
    let began = Instant::now();
    while since.elapsed() < QUIET {
        // A file may vanish while they are listed.
        if let Ok(found) = segments(&folder)
            && found != known
        {
            (known, since) = (found, Instant::now());
        }
        ensure!(began.elapsed() < PATIENCE, "compaction does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(known.len())
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
        println!("{}", report[report.len() - 1]);
        ensure!(above < BOUND, "{report:?}");
        reset_peak(process)
    };

    reset_peak(process)?;
    send(&client, &endpoint, events).await?;
    check("taking in, flushing and compacting")?;
    let segments = compacted(&system).await?;
    check(&format!("compacting to {segments} files"))?;

    let mut slow = try_join_all((0..readers).map(|_| export(&client, &endpoint))).await?;
    for response in &mut slow {
        ensure!(response.chunk().await?.is_some(), "every reader gets its first piece");
    }
    let began = Instant::now();
    let slow: Vec<_> =
        slow.into_iter().map(|response| tokio::spawn(read_slowly(response, began + read_for))).collect();
    // One that is slow at first, and one that is not.
    let (paused, quick) = tokio::join!(numbers(&client, &endpoint, 8), numbers(&client, &endpoint, 0));
    let quick_took = began.elapsed();
    let mut read = Vec::with_capacity(readers);
    for reader in slow {
        read.push(reader.await??);
    }
    read.sort_unstable();
    let (least, middle, most) = (read[0], read[readers / 2], read[readers - 1]);
    check(&format!("{readers} slow readers of {least} to {most} bytes, others done in {quick_took:.1?}"))?;
    ensure!(least * 2 >= middle, "readers of one pace get as much: {least}, {middle} and {most} bytes");
    let expected: BTreeSet<u64> = (0..events as u64).collect();
    for found in [paused?, quick?] {
        ensure!(found.len() == events, "{} events, not {events}", found.len());
        ensure!(found.into_iter().collect::<BTreeSet<_>>() == expected, "each once");
    }
    println!("{events} events of {} bytes: {}", TEXTS * TEXT, report.join("; "));
    Ok(())
}
