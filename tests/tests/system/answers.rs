//! A shop's clickstream goes in by `weir import`, and `weir query` and REST give the answers that DuckDB and plain Python gave
//! (`data/answers.py`): on one binary, restarted and compacted again and again, on three services with Kafka and a bucket, and with
//! a consumer killed in mid-import.

mod questions;

use std::{
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use weir_tests::{
    kafka, process,
    system::{RESTLESS_STORE, SharedStore, System},
};

use questions::check_answers;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");
const IMPORT: [&str; 8] = [
    "--map",
    "user_id=user_id",
    "--map",
    "session_id=session_id",
    "--map",
    "event_name=event",
    "--map",
    "event_time=timestamp",
];

#[test]
fn one_binary_answers_as_the_oracle_does_and_a_second_import_changes_nothing() -> Result<()> {
    let mut system = System::one_binary()?;
    let wrong = IMPORT.map(|arg| if arg == "event_time=timestamp" { "event_time=platform" } else { arg });
    ensure!(import_as(&system, wrong).is_err(), "a mapping that fits no row is an error, and is forgotten");
    import(&system)?;
    check_answers(&system)?;

    import(&system)?;
    check_answers(&system).context("after a second import of the same file")?;

    // A restart answers from its snapshot and the log; a third import meets a rebuilt deduplication window.
    let up = system.processes.remove("up").expect("`weir up` runs");
    ensure!(up.terminate()?.success(), "`weir up` drains and ends well on SIGTERM");
    system.restart("up")?;
    check_answers(&system).context("after a restart")?;
    import(&system)?;
    check_answers(&system).context("after a restart and another import")
}

#[test]
fn restarts_and_compactions_at_random_moments_change_no_answer() -> Result<()> {
    const ROUNDS: usize = 50;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut system = System::one_binary_with(&RESTLESS_STORE)?;
    let rows = rows()?;
    let lines: Vec<&str> = rows.split_inclusive('\n').collect();
    let mut import = import_command(&system, "-", IMPORT).stdin(Stdio::piped()).spawn()?;
    let mut input = import.stdin.take().context("its input is ours")?;
    for share in lines.chunks(lines.len().div_ceil(ROUNDS)) {
        input.write_all(share.concat().as_bytes())?;
        let compactor = random
            .random_bool(0.5)
            .then(|| system.store_command("compact").stdout(Stdio::null()).stderr(Stdio::null()).spawn());
        std::thread::sleep(Duration::from_millis(random.random_range(0..150)));
        if random.random_bool(0.7) {
            system.kill("up");
        } else {
            let up = system.processes.remove("up").context("it runs")?;
            ensure!(up.terminate()?.success(), "`weir up` drains and ends well on SIGTERM");
        }
        if let Some(compactor) = compactor {
            let mut compactor = compactor?;
            if random.random_bool(0.5) {
                compactor.kill()?;
            }
            compactor.wait()?;
        }
        system.restart("up")?;
    }
    drop(input);
    let status = import.wait()?;
    ensure!(status.success(), "the import ends well whatever was restarted: {status}");
    check_answers(&system)?;
    let verified = system.store_command("verify").output()?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let compacted = system.store_command("compact").output()?;
    ensure!(compacted.status.success(), "{}", String::from_utf8_lossy(&compacted.stderr));
    check_answers(&system).context("after a last compaction")
}

#[test]
fn three_services_on_kafka_answer_as_the_oracle_does() -> Result<()> {
    let mut system = System::on_kafka(&kafka::shared().bootstrap(), 1, SharedStore::Bucket)?;
    import(&system)?;
    check_answers(&system)?;

    for service in ["consumer", "analytics"] {
        let process = system.processes.remove(service).context("it runs")?;
        ensure!(process.terminate()?.success(), "the {service} drains and ends well on SIGTERM");
        system.restart(service)?;
    }
    check_answers(&system).context("after a restart")?;
    import(&system)?;
    check_answers(&system).context("after a second import of the same file")
}

#[test]
fn a_consumer_killed_in_mid_import_changes_no_answer() -> Result<()> {
    let mut system = System::on_kafka(&kafka::shared().bootstrap(), 2, SharedStore::Folder)?;
    let second = format!("{}/v1/processing/status", system.addresses.second_consumer.http());
    until("the second consumer works on its share", || {
        Ok(process::get(&second).is_some_and(|status| status.contains("STATE_RUNNING")))
    })?;

    let rows = rows()?;
    let middle = rows.len() / 2 + rows[rows.len() / 2..].find('\n').context("there are many rows")?;
    let mut import = import_command(&system, "-", IMPORT).stdin(Stdio::piped()).spawn()?;
    let mut input = import.stdin.take().context("its input is ours")?;
    input.write_all(&rows.as_bytes()[..middle])?;
    until_counted(&system, 3_000)?;
    system.kill("second_consumer");
    input.write_all(&rows.as_bytes()[middle..])?;
    drop(input);
    until_counted(&system, 9_000)?;
    system.restart("second_consumer")?;
    let status = import.wait()?;
    ensure!(status.success(), "the import ends well although a consumer was killed: {status}");
    check_answers(&system)
}

fn import_command(system: &System, file: &str, maps: [&str; 8]) -> Command {
    let mut command = Command::new(process::binary());
    command
        .current_dir(system.dir.path())
        .arg("import")
        .arg(file)
        .args(maps)
        .env("WEIR_ENDPOINT", system.addresses.endpoint())
        .stdin(Stdio::null());
    command
}

/// The clickstream, as CSV.
fn rows() -> Result<String> {
    let mut rows = String::new();
    GzDecoder::new(std::fs::File::open(Path::new(DATA).join("ecom.csv.gz"))?).read_to_string(&mut rows)?;
    Ok(rows)
}

fn import(system: &System) -> Result<()> {
    import_as(system, IMPORT)
}

fn import_as(system: &System, maps: [&str; 8]) -> Result<()> {
    let file = "ecom.csv.gz";
    std::fs::copy(Path::new(DATA).join(file), system.dir.path().join(file))?;
    let output = import_command(system, file, maps).output()?;
    ensure!(output.status.success(), "import failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Waits until that many events of the import are counted.
fn until_counted(system: &System, events: u64) -> Result<()> {
    until(&format!("{events} events are counted"), || {
        let summary: Value =
            serde_json::from_str(&system.weir(&["query", "summary", "--json", "--from", "2024-01-01"])?)?;
        Ok(summary["current"]["events"]["value"].as_f64() >= Some(events as f64))
    })
}

/// Polls, since the running system itself is what is watched.
fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + process::PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "in {:?} it has not come about that {what}", process::PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
