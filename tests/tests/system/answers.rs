//! A shop's clickstream goes in by `weir import` and `weir query` gives the answers that DuckDB and plain Python gave
//! (`data/answers.py`): on one binary, restarted and compacted again and again, on three services with Kafka and a bucket, and with
//! a consumer killed in mid-import.

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
    ensure!(summary["info"]["exact"] == true, "so few users and sessions are exact: {}", summary["info"]);
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
    check_from_events(system, &oracle)
}

/// What only the events themselves tell.
fn check_from_events(system: &System, oracle: &Value) -> Result<()> {
    let steps = oracle["funnel_steps"].as_array().context("the oracle knows a funnel")?;
    let steps: Vec<&str> = steps.iter().filter_map(Value::as_str).collect();
    let steps = steps.join(",");
    for (name, window, more) in [
        ("funnel_1h", "1h", &[][..]),
        ("funnel_1d", "1d", &[]),
        ("funnel_7d_by_platform", "7d", &["--by", "platform"]),
    ] {
        let args = [&["--steps", steps.as_str(), "--window", window, "--order", "strict"], more].concat();
        let answer = query(system, "funnel", &args)?;
        let groups = answer["groups"].as_array().cloned().unwrap_or_default();
        for (group, expected) in oracle[name].as_object().context("funnels by group")? {
            let found = match group.as_str() {
                "all" => Some(&answer["total"]),
                _ => groups.iter().find(|found| found["group"][0] == group.as_str()),
            };
            let found = found.with_context(|| format!("{name}: {group} is missing: {answer}"))?;
            let counts: Vec<_> = found["steps"]
                .as_array()
                .context("steps")?
                .iter()
                .map(|step| count(&step["count"]))
                .collect();
            let expected: Vec<_> = expected.as_array().context("counts")?.iter().map(Value::as_u64).collect();
            ensure!(counts == expected, "{name}, {group}: {counts:?}, not {expected:?}");
        }
    }

    let answer = query(system, "retention", &["--period", "week"])?;
    let cohorts = answer["groups"][0]["cohorts"].as_array().context("cohorts")?;
    let expected = oracle["retention_weekly_utc"].as_array().context("the oracle knows retention")?;
    ensure!(cohorts.len() == expected.len(), "{} cohorts, not {}", cohorts.len(), expected.len());
    for (cohort, expected) in cohorts.iter().zip(expected) {
        let day = &cohort["localTime"].as_str().context("a day")?[..10];
        ensure!(
            expected[0] == day && count(&cohort["size"]) == expected[1].as_u64(),
            "{cohort}, not {expected}"
        );
        for (week, found) in cohort["counts"].as_array().context("weeks")?.iter().enumerate() {
            let expected = expected[2].get(week.to_string()).map_or(Some(0), Value::as_u64);
            ensure!(count(found) == expected, "cohort {day}, week {week}: {found}, not {expected:?}");
        }
    }

    let url = format!("{}/v1/users/user_0007/events?pageSize=10", system.addresses.endpoint());
    let response = process::get(&url).context("a timeline over REST")?;
    let (_, body) = response.split_once("\r\n\r\n").context("a head and a body")?;
    let timeline: Value = serde_json::from_str(body).with_context(|| format!("ProtoJSON, not {body}"))?;
    let found = timeline["events"].as_array().context("events")?.iter().map(|event| {
        let time = event["correctedTime"].as_str().unwrap_or_default();
        serde_json::json!([time.replace('T', " ").trim_end_matches('Z'), event["event"]["eventName"]])
    });
    let (found, expected) = (Value::Array(found.collect()), &oracle["timeline_user_0007_first_10"]);
    ensure!(found == *expected, "{found}, not {expected}");

    // Rollups and events agree where both can answer.
    for (kind, args) in [
        ("time-series", &["--interval", "day", "--zone", "Asia/Kolkata", "--measure", "unique_users"][..]),
        ("breakdown", &["--by", "platform", "--measure", "count", "--measure", "unique_users"]),
    ] {
        let rollup = query(system, kind, args)?;
        let events = query(system, kind, &[args, &["--exact"]].concat())?;
        ensure!(events["info"]["source"] == "SOURCE_STORE", "exact figures come from the events: {events}");
        let rows = |answer: &Value| match kind {
            "breakdown" => answer["rows"].clone(),
            _ => answer["series"].clone(),
        };
        ensure!(rows(&rollup) == rows(&events), "{kind}: {rollup} from a rollup, {events} from the events");
    }

    let sql = "select event_name, count(*) as events, count(distinct user_id) as users from events group by 1 order by 2 desc, 1";
    let answer = system.weir(&["query", "sql", "--csv", sql])?;
    let expected = oracle["by_event"].as_array().context("the oracle knows events")?;
    let lines: Vec<String> = expected
        .iter()
        .map(|row| format!("{},{},{}", row[0].as_str().unwrap_or_default(), row[1], row[2]))
        .collect();
    let found: Vec<&str> = answer.lines().skip(1).collect();
    ensure!(found == lines, "SQL: {answer}");
    Ok(())
}

/// A 64-bit number in ProtoJSON, which is a text.
fn count(number: &Value) -> Option<u64> {
    number.as_str().map_or(Some(0), |text| text.parse().ok())
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
