//! Under load `weir up`, or a consumer of its own on Kafka, is killed again and again while the store is compacted and asked, or a
//! consumer is given up for dead and comes back. Clients retry what was not acknowledged, with the same `event_id`. Every answer
//! meanwhile counts what was acknowledged before it was asked, and afterwards every acknowledged event is counted once and none
//! twice.

mod load;
mod questions;

use std::{ops::Range, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use weir_tests::{
    kafka,
    process::{PATIENCE, Ports},
    system::{RESTLESS_STORE, SharedStore, System},
};

use load::{BATCH, Load};
use questions::{Questions, check};

const KILLS: usize = 50;
/// Of clients whose producer lives on. What they send meanwhile is what each new consumer reads again to know duplicates: at full
/// speed ever more of the test would be that.
const PAUSE: Duration = Duration::from_millis(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_event_counts_once_whatever_is_killed() -> Result<()> {
    let system = tokio::task::block_in_place(|| System::one_binary_with(&RESTLESS_STORE))?;
    let retries = kill_again_and_again(system, "up", Duration::ZERO).await?;
    ensure!(retries > 0, "no batch was cut by a kill: the test shows nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_event_counts_once_however_often_the_consumer_is_killed() -> Result<()> {
    // With a name of its own it has its partitions back at once; without, the group first waits for the one that was killed.
    let named = ("WEIR__CONSUMER__GROUP_INSTANCE_ID", "consumer-0");
    let settings = [&RESTLESS_STORE[..], &[named]].concat();
    let system = tokio::task::block_in_place(|| {
        System::on_kafka_with(&kafka::shared().bootstrap(), 1, SharedStore::Folder, &settings)
    })?;
    kill_again_and_again(system, "consumer", PAUSE).await?;
    Ok(())
}

/// Gives the number of batches that had to be sent more than once. Clients pause for so long after each.
async fn kill_again_and_again(mut system: System, victim: &'static str, pause: Duration) -> Result<u64> {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let load = Load::start(&system, seed, pause);
    let mut questions = Questions::start(&system, &load);
    for round in 0..KILLS {
        // Let some of the load through, then strike at a random moment.
        let some = random.random_range(1..40) * BATCH as u64;
        load.more(some)
            .await
            .with_context(|| format!("round {round}: the system takes events again after a kill"))?;
        // Some lives are too short for an answer.
        if random.random_bool(0.5) {
            questions.more().await.with_context(|| format!("round {round}"))?;
        }
        // Besides those that the store makes by itself, a compaction by another process, which may not end well either.
        let mut compactor =
            system.store_command("compact").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        system.kill(victim);
        if random.random_bool(0.5) {
            compactor.kill()?;
        }
        tokio::task::block_in_place(|| compactor.wait())?;
        tokio::task::block_in_place(|| system.restart(victim))?;
    }
    let [whole, at_once] = questions.stop().await.context("while the system was killed")?;
    let (expected, tokens) = load.stop().await?;
    println!(
        "{} events acknowledged over {KILLS} kills, {} batches sent more than once, {whole} answers about all that was \
         acknowledged, {at_once} about what there was",
        expected.events.values().sum::<u64>(),
        expected.retries
    );
    check(&system, &expected, &tokens).await?;
    Ok(expected.retries)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_was_given_up_for_dead_changes_nothing_when_it_comes_back() -> Result<()> {
    let mut system = tokio::task::block_in_place(|| {
        // It is publishing all the time, so it is also stopped in the middle of that.
        System::on_kafka_with(&kafka::shared().bootstrap(), 2, SharedStore::Folder, &RESTLESS_STORE)
    })?;
    let (zombie, heir) = (system.addresses.consumer, system.addresses.second_consumer);
    until_running(zombie, 1..3).await?;
    until_running(heir, 1..3).await?;
    let load = Load::start(&system, rand::random(), Duration::ZERO);
    load.more(1000).await?;

    // Longer than the group waits for a member, in the middle of its work.
    system.processes["consumer"].pause()?;
    until_running(heir, 3..4).await.context("the other consumer takes everything over")?;
    load.more(1000).await?;

    // It goes on where it was, with what it had read, and takes itself for the owner until it learns better.
    system.processes["consumer"].resume()?;
    load.more(1000).await?;
    until_running(heir, 1..3).await.context("the group gives it a share again")?;
    until_running(zombie, 1..3).await?;
    load.more(1000).await?;
    let (expected, tokens) = load.stop().await?;
    check(&system, &expected, &tokens).await?;

    // Nor has it written over anything: who reads the chains anew finds the same.
    system.kill("analytics");
    tokio::task::block_in_place(|| system.restart("analytics"))?;
    check(&system, &expected, &tokens).await.context("after a restart of analytics")
}

/// Waits until a consumer runs so many partitions.
async fn until_running(consumer: Ports, wanted: Range<usize>) -> Result<()> {
    let (client, url) = (reqwest::Client::new(), format!("{}/v1/processing/status", consumer.http()));
    let mut last = serde_json::Value::Null;
    let asking = async {
        loop {
            last = client.get(&url).send().await?.error_for_status()?.json().await?;
            let partitions = last["status"]["partitions"].as_array();
            let running = partitions.into_iter().flatten().filter(|p| p["state"] == "STATE_RUNNING").count();
            if wanted.contains(&running) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(asked) => asked,
        Err(_) => anyhow::bail!("{wanted:?} partitions do not run at {url}: {last}"),
    }
}
