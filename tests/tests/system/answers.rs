//! A shop's clickstream goes in by `weir import` and `weir query` gives the answers that DuckDB and plain Python gave
//! (`data/answers.py`): on one binary, on three services with Kafka, and with a consumer killed in mid-import.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;
use weir_tests::{kafka, process, system::System};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");
/// Half a year that holds all of the data in every zone asked about.
const RANGE: [&str; 4] = ["--from", "2024-01-01", "--to", "2024-07-01"];
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
fn three_services_on_kafka_answer_as_the_oracle_does() -> Result<()> {
    let mut system = System::on_kafka(&kafka::shared().bootstrap(), 1)?;
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
    let mut system = System::on_kafka(&kafka::shared().bootstrap(), 2)?;
    let second = format!("{}/v1/processing/status", system.addresses.second_consumer.http());
    until("the second consumer works on its share", || {
        Ok(process::get(&second).is_some_and(|status| status.contains("STATE_RUNNING")))
    })?;

    let mut rows = String::new();
    GzDecoder::new(std::fs::File::open(Path::new(DATA).join("ecom.csv.gz"))?).read_to_string(&mut rows)?;
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
        Ok(number(&query(system, "summary", &[])?["current"]["events"]) >= events as f64)
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

fn query(system: &System, kind: &str, more: &[&str]) -> Result<Value> {
    let mut args = vec!["query", kind, "--json"];
    args.extend(RANGE);
    args.extend(more);
    Ok(serde_json::from_str(&system.weir(&args)?)?)
}

fn check_answers(system: &System) -> Result<()> {
    let oracle: Value = serde_json::from_slice(&std::fs::read(Path::new(DATA).join("ecom-answers.json"))?)?;
    let both = ["--measure", "count", "--measure", "unique_users"];

    let summary = query(system, "summary", &[])?;
    let expected = &oracle["summary"];
    same("summary events", &summary["current"]["events"], &expected["events"])?;
    close("summary unique users", &summary["current"]["uniqueUsers"], &expected["unique_users"])?;
    close("summary sessions", &summary["current"]["sessions"], &expected["sessions"])?;

    for (name, interval, zone, more) in [
        ("daily_utc", "day", "UTC", &[][..]),
        ("daily_kolkata", "day", "Asia/Kolkata", &[]),
        ("weekly_new_york", "week", "America/New_York", &[]),
        (
            "monthly_mobile_purchases_utc",
            "month",
            "UTC",
            &["--event", "purchase", "--where", "platform=mobile"],
        ),
    ] {
        let args = [&["--interval", interval, "--zone", zone], &both[..], more].concat();
        let answer = query(system, "time-series", &args)?;
        let rows = answer["series"][0]["points"].as_array().context("a series has points")?;
        let day = |point: &Value| vec![point["localTime"].as_str().unwrap_or_default()[..10].to_owned()];
        check_rows(name, rows, day, &oracle[name])?;
    }

    for (name, more) in [
        ("by_event", &["--by", "event_name"][..]),
        ("purchases_by_platform", &["--by", "platform", "--event", "purchase"]),
        ("events_by_channel_and_lifecycle", &["--by", "acquisition_channel", "--by", "user_lifecycle"]),
    ] {
        let answer = query(system, "breakdown", &[more, &both].concat())?;
        let mut rows = answer["rows"].as_array().context("a breakdown has rows")?.clone();
        let group = |row: &Value| -> Vec<String> {
            row["group"]
                .as_array()
                .expect("a row has a group")
                .iter()
                .map(|v| v.as_str().unwrap_or("").to_owned())
                .collect()
        };
        if name == "events_by_channel_and_lifecycle" {
            rows.sort_by_key(group); // the oracle lists these by name
        }
        check_rows(name, &rows, group, &oracle[name])?;
    }
    Ok(())
}

/// Rows of the oracle are `[key…, events, unique users]`.
fn check_rows(name: &str, rows: &[Value], key: impl Fn(&Value) -> Vec<String>, oracle: &Value) -> Result<()> {
    let oracle = oracle.as_array().with_context(|| format!("the oracle knows {name}"))?;
    ensure!(rows.len() == oracle.len(), "{name}: {} rows, not {}: {rows:?}", rows.len(), oracle.len());
    for (row, expected) in rows.iter().zip(oracle) {
        let expected = expected.as_array().context("a row")?;
        let (keys, figures) = expected.split_at(expected.len() - 2);
        ensure!(key(row) == keys, "{name}: {row} where the oracle has {expected:?}");
        same(name, &row["figures"][0], &figures[0])?;
        close(name, &row["figures"][1], &figures[1])?;
    }
    Ok(())
}

fn number(figure: &Value) -> f64 {
    figure["value"].as_f64().unwrap_or_default()
}

/// Exactly equal, and said to be exact.
fn same(what: &str, figure: &Value, expected: &Value) -> Result<()> {
    ensure!(
        figure["exact"] == true && Some(number(figure)) == expected.as_f64(),
        "{what}: {figure}, not {expected}"
    );
    Ok(())
}

/// Equal where it is said to be exact, else within the bounds that are stated.
fn close(what: &str, figure: &Value, expected: &Value) -> Result<()> {
    if figure["exact"] == true {
        return same(what, figure, expected);
    }
    let (low, high) = (figure["lowerBound"].as_f64(), figure["upperBound"].as_f64());
    ensure!(
        low <= expected.as_f64() && expected.as_f64() <= high,
        "{what}: {figure} does not hold {expected}"
    );
    Ok(())
}
