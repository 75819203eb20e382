//! What `weir import` says at its end is what became of each row, whatever was killed meanwhile; and what it remembers is about the
//! log that it sent to.

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::Write as _,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use uuid::Uuid;
use weir_tests::{
    process,
    system::{RESTLESS_STORE, System},
};

/// Rows with ids of their own, one in ten of which comes a second time, with what a plain reading of them says.
struct Rows {
    lines: Vec<String>,
    distinct: usize,
}

const HEADER: &str = "event_id,event_name,user_id,event_time\n";

impl Rows {
    fn new(count: usize, random: &mut StdRng) -> Self {
        let mut lines: Vec<String> = Vec::with_capacity(count);
        for number in 0..count {
            let line = match random.random_bool(0.1) && number > 0 {
                true => lines[random.random_range(0..number)].clone(),
                false => {
                    let id = Uuid::from_u64_pair(random.random(), number as u64);
                    let day = 1 + number % 28;
                    format!("{id},view,user-{},2024-02-{day:02}T12:00:00Z\n", number % 501)
                }
            };
            lines.push(line);
        }
        let distinct = lines.iter().collect::<HashSet<_>>().len();
        Self { lines, distinct }
    }
}

fn command(system: &System, file: &str) -> Command {
    let mut command = Command::new(process::binary());
    command
        .current_dir(system.dir.path())
        .args(["import", file, "--json", "--format", "csv"])
        .env("WEIR_ENDPOINT", system.addresses.endpoint())
        .env("XDG_STATE_HOME", system.dir.path().join("state"))
        .stdin(Stdio::null());
    command
}

/// What an import printed, which must have succeeded.
fn report(output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the import failed: {said}");
    serde_json::from_slice(&output.stdout).with_context(|| format!("it printed no JSON; {said}"))
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).with_context(|| format!("{value} is no number"))
}

/// Whether it is 0, which ProtoJSON may leave out.
fn is_none(value: &Value) -> bool {
    value.is_null() || number(value).is_ok_and(|number| number == 0)
}

#[test]
fn an_import_ends_with_what_became_of_each_row_whatever_is_killed() -> Result<()> {
    const KILLS: usize = 8;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut system = System::one_binary_with(&RESTLESS_STORE)?;
    let Rows { lines, distinct } = Rows::new(40_000, &mut random);

    let mut import =
        command(&system, "-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut input = import.stdin.take().context("its input is ours")?;
    input.write_all(HEADER.as_bytes())?;
    for share in lines.chunks(lines.len().div_ceil(KILLS)) {
        input.write_all(share.concat().as_bytes())?;
        std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
        system.kill("up");
        system.restart("up")?;
    }
    drop(input);
    let told = report(&import.wait_with_output()?)?;

    let rows = lines.len() as u64;
    let (accepted, nearby) = (number(&told["accepted"])?, number(&told["duplicates"])?);
    ensure!(accepted + nearby == rows && number(&told["rejected"])? == 0, "every row is accepted: {told}");
    let results = &told["results"];
    ensure!(
        number(&results["counted"])? == distinct as u64,
        "of {rows} rows {distinct} are different: {told}"
    );
    ensure!(
        number(&results["duplicates"])? == accepted - distinct as u64,
        "the others are duplicates: {told}"
    );
    for none in ["deadLettered", "unaccounted", "countedTwice"] {
        ensure!(number(&results[none])? == 0, "{none}: {told}");
    }

    // Who asks later is told the same, and so is who asks a process that has forgotten.
    let id = told["importId"].as_str().context("the import has an id")?.to_owned();
    let asked = |system: &System| -> Result<u64> {
        let answer: Value = serde_json::from_str(&system.weir(&["query", "import", &id, "--json"])?)?;
        number(&answer["counted"])
    };
    ensure!(asked(&system)? == distinct as u64);
    let up = system.processes.remove("up").context("it runs")?;
    ensure!(up.terminate()?.success(), "`weir up` drains and ends well on SIGTERM");
    system.restart("up")?;
    ensure!(asked(&system)? == distinct as u64, "after a restart from a snapshot");

    let range = ["query", "summary", "--json", "--from", "2024-01-01", "--to", "2024-07-01"];
    let summary: Value = serde_json::from_str(&system.weir(&range)?)?;
    ensure!(summary["current"]["events"]["value"].as_f64() == Some(distinct as f64), "{summary}");
    ensure!(is_none(&summary["info"]["lateEvents"]), "history that is imported is not late: {summary}");
    let status: Value = serde_json::from_str(&system.weir(&["status", "--json"])?)?;
    let late = status["partitions"].as_array().into_iter().flatten().filter(|p| !is_none(&p["late"]));
    ensure!(late.count() == 0, "{status}");
    Ok(())
}

#[test]
fn a_row_that_was_imported_before_is_told_to_be_a_duplicate() -> Result<()> {
    let system = System::one_binary()?;
    std::fs::write(system.dir.path().join("a.csv"), "event_name,user_id\nview,ada\nview,bob\n")?;
    let first = report(&command(&system, "a.csv").output()?)?;
    ensure!(number(&first["results"]["counted"])? == 2, "{first}");
    let again = command(&system, "a.csv").output()?;
    let second = report(&again)?;
    ensure!(
        number(&second["results"]["counted"])? == 0 && number(&second["results"]["duplicates"])? == 2,
        "{second}"
    );
    ensure!(first["importId"] != second["importId"]);

    let unknown = Uuid::new_v4().to_string();
    let error = system.weir(&["query", "import", &unknown]).unwrap_err().to_string();
    ensure!(error.contains("no event of the import") && error.contains("1000 imports"), "{error}");
    Ok(())
}

#[test]
fn an_import_into_another_log_at_the_same_address_begins_without_complaint() -> Result<()> {
    let mut system = System::one_binary()?;
    let mut text = HEADER.to_owned();
    for number in 1..=500 {
        writeln!(text, "{},view,u{number},2024-02-01T00:00:00Z", Uuid::from_u128(number))?;
    }
    std::fs::write(system.dir.path().join("a.csv"), text)?;
    let first = report(&command(&system, "a.csv").output()?)?;
    ensure!(number(&first["results"]["counted"])? == 500, "{first}");

    let up = system.processes.remove("up").context("it runs")?;
    ensure!(up.terminate()?.success());
    std::fs::remove_dir_all(system.dir.path().join("data"))?;
    system.restart("up")?;
    let output = command(&system, "a.csv").output()?;
    let second = report(&output)?;
    ensure!(number(&second["results"]["counted"])? == 500, "a fresh log has none of them: {second}");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !said.contains("imported") && !said.contains("deleted"),
        "this Weir has never seen the file: {said}"
    );
    ensure!(second["seconds"].as_f64() < Some(5.0), "it waits for nothing: {second}");
    Ok(())
}
