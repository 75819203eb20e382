//! `weir up` under attack, with other clients beside it.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use serde_json::json;
use weir_tests::system::System;

use crate::{
    bystander::Bystander,
    cases::{Case, Port, Scope},
    process::{Memory, rests},
    seed,
    send::{DEADLINE, GRACE, Sender},
    setting,
};

/// The bound on memory above what the idle process has, with default limits, MiB.
const BUDGET: u64 = 512;
/// Cases under way at once.
const AT_ONCE: usize = 4;
/// Cases between two looks at the process.
const BATCH: u64 = 20;
/// Batches between two checks that its threads rest.
const REST_EVERY: u64 = 5;
/// How long threads may work on after the last answer.
const REST_WITHIN: Duration = Duration::from_secs(5);
/// Problems after which there is no use in going on.
const MOST_PROBLEMS: usize = 20;
/// Fat events beside the shop's: 1,000 of 40 kB.
const FAT: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_leave_the_process_alone_and_other_clients_undisturbed() -> Result<()> {
    let system = System::one_binary_with(&[("WEIR__ANALYTICS__QUERY_TIMEOUT", "1s")])?;
    fill(&system).await?;
    let addresses = system.addresses;
    let local = |port: u16| format!("127.0.0.1:{port}");
    let sender = Sender::new(&[
        (Port::ProducerHttp, local(addresses.producer.http)),
        (Port::ProducerGrpc, local(addresses.producer.grpc)),
        (Port::ConsumerGrpc, local(addresses.consumer.grpc)),
        (Port::AnalyticsHttp, local(addresses.analytics.http)),
        (Port::AnalyticsGrpc, local(addresses.analytics.grpc)),
        (Port::Gateway, local(addresses.gateway)),
    ])?;
    let pid = system.processes["up"].pid();
    let memory = Memory::of(pid);
    let bystander = Bystander::start(&addresses.endpoint());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (_, quiet_median, quiet) = bystander.latencies();
    let idle = memory.resident().context("the process runs")?;
    println!("idle: {} MB; a bystander's median {quiet_median:?}, p99 {quiet:?}", idle >> 20);

    let (seed, from) = (seed(), setting("WEIR_HOSTILE_FROM", 0));
    let cases = setting("WEIR_HOSTILE_CASES", 2000);
    let budget = setting("WEIR_HOSTILE_BUDGET", BUDGET) << 20;
    let began = Instant::now();
    let (mut worst, mut found) = (0, Vec::new());
    for first in (from..from + cases).step_by(BATCH as usize) {
        memory.reset();
        let numbers = first..(first + BATCH).min(from + cases);
        let problems: Vec<String> = stream::iter(numbers.clone())
            .map(|number| attack(&sender, seed, number))
            .buffer_unordered(AT_ONCE)
            .filter_map(async |problem| problem.transpose())
            .collect::<Vec<Result<String>>>()
            .await
            .into_iter()
            .collect::<Result<_>>()?;
        found.extend(problems);
        let peak =
            memory.peak().with_context(|| format!("the process died in cases {numbers:?} of seed {seed}"))?;
        let above = peak.saturating_sub(idle);
        if above >= budget {
            let culprit = dearest(&sender, &memory, seed, numbers.clone()).await?;
            found.push(format!(
                "cases {numbers:?} of seed {seed} took {} MB above idle; {culprit}",
                above >> 20
            ));
        }
        worst = worst.max(above);
        if (first / BATCH).is_multiple_of(REST_EVERY) {
            let rested = tokio::task::spawn_blocking(move || rests(pid, REST_WITHIN)).await?;
            found.extend(
                rested.err().map(|busy| format!("cases {numbers:?} of seed {seed} or some before: {busy}")),
            );
        }
        if found.len() >= MOST_PROBLEMS {
            break;
        }
        if first.is_multiple_of(1000) {
            let now = memory.resident().unwrap_or(0);
            println!(
                "{first} cases in {:.0?}: at most {} MB above idle, {} MB now",
                began.elapsed(),
                worst >> 20,
                now >> 20
            );
        }
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    println!("at most {} MB above idle", worst >> 20);
    let (asked, median, p99) = bystander.latencies();
    println!("a bystander's {asked} requests: median {median:?}, p99 {p99:?}");
    if setting("WEIR_HOSTILE_LATENCY", 0) == 1 {
        let bound = (3 * quiet).max(Duration::from_millis(50));
        ensure!(p99 <= bound, "other clients notice: p99 {p99:?}, quiet {quiet:?}");
    }
    bystander.settle().await?;
    let mut system = system;
    let process = system.processes.remove("up").context("it runs")?;
    let status = tokio::task::spawn_blocking(|| process.terminate()).await??;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

/// Which of some cases takes most memory by itself. What was answered from the cache then takes less than it did.
async fn dearest(sender: &Sender, memory: &Memory, seed: u64, numbers: Range<u64>) -> Result<String> {
    let mut dearest = (0, String::new());
    for number in numbers {
        memory.reset();
        let before = memory.resident().unwrap_or(0);
        attack(sender, seed, number).await?;
        let took = memory.peak().unwrap_or(u64::MAX).saturating_sub(before);
        if took >= dearest.0 {
            let case = Case::new(seed, number, Scope::Everything);
            dearest = (took, format!("by itself case {number}, {}, takes {} MB", case.family, took >> 20));
        }
    }
    Ok(dearest.1)
}

/// Sends a case. What is late is sent once more by itself: this machine is shared.
async fn attack(sender: &Sender, seed: u64, number: u64) -> Result<Option<String>> {
    let case = Case::new(seed, number, Scope::Everything);
    let mut answer = sender.send(&case).await?;
    if answer.elapsed > DEADLINE + GRACE && answer.problem.is_some() {
        tokio::time::sleep(DEADLINE).await;
        answer = sender.send(&case).await?;
    }
    let problem = answer.problem;
    Ok(problem.map(|problem| {
        format!("case {number} of seed {seed}, {} to {:?}: {problem}", case.family, case.port)
    }))
}

/// The shop's events, and some that are nearly as large as events may be.
async fn fill(system: &System) -> Result<()> {
    let endpoint = system.addresses.endpoint();
    let client = reqwest::Client::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/data/ecom.csv.gz");
    tokio::task::block_in_place(|| {
        let maps = ["user_id=user_id", "session_id=session_id", "event_name=event", "event_time=timestamp"];
        let maps = maps.iter().flat_map(|map| ["--map", map]);
        system.weir(&["import", file].into_iter().chain(maps).collect::<Vec<_>>())
    })?;
    for batch in 0..FAT / 50 {
        let event = |number: usize| {
            let text = format!("{number} ").repeat(7000);
            let parts: Vec<_> = text.as_bytes().chunks(7000).map(String::from_utf8_lossy).collect();
            json!({"eventName": "fat", "userId": format!("u{number}"), "properties": {"text": parts}})
        };
        let events: Vec<_> = (0..50).map(|number| event(batch * 50 + number)).collect();
        let url = format!("{endpoint}/v1/events:batch");
        let answer: serde_json::Value =
            client.post(url).json(&json!({"events": events})).send().await?.json().await?;
        ensure!(answer["accepted"] == 50, "{answer}");
    }
    Ok(())
}
