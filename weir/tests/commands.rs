//! The command line as a user meets it first: what it says when nothing runs yet and when something is wrong.

use std::process::{Command, Output, Stdio};

use uuid::Uuid;
use weir_proto::record;
use weir_store::{
    CleanBatch, EventStore as _, Settings, Store,
    encode::{Encoder, Row},
};

/// Runs `weir` without a terminal and without the caller's settings.
fn weir(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(args)
        .env_clear()
        // Nothing listens there: port 1 is reserved.
        .env("WEIR_ENDPOINT", "http://127.0.0.1:1")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn stdout(args: &[&str]) -> String {
    let output = weir(args);
    assert!(output.status.success(), "weir {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("output is text")
}

/// What it says on standard error when it fails, which it must.
fn failure(args: &[&str]) -> String {
    let output = weir(args);
    assert!(!output.status.success(), "weir {args:?} must fail: {output:?}");
    String::from_utf8(output.stderr).expect("errors are text")
}

#[test]
fn help_shows_every_command_with_an_example() {
    let help = stdout(&["--help"]);
    for command in [
        "up",
        "producer",
        "consumer",
        "analytics",
        "gateway",
        "send",
        "import",
        "query",
        "tail",
        "status",
        "simulate",
        "config",
        "bench",
        "completions",
    ] {
        assert!(help.contains(&format!("  {command} ")), "{command} is not in:\n{help}");
        let own = stdout(&[command, "--help"]);
        assert!(own.contains("Usage: weir"), "{own}");
    }
    assert!(help.contains("weir up"), "the first thing to try is shown:\n{help}");
}

#[test]
fn every_question_has_an_example() {
    let help = stdout(&["query", "--help"]);
    for question in [
        "time-series",
        "breakdown",
        "funnel",
        "retention",
        "paths",
        "user",
        "events",
        "properties",
        "export",
        "sql",
    ] {
        assert!(help.contains(&format!("  {question} ")), "{question} is not in:\n{help}");
        let own = stdout(&["query", question, "--help"]);
        assert!(own.contains(&format!("weir query {question}")) && own.contains("Examples:"), "{own}");
        assert!(!own.starts_with("How "), "help begins with what the command does:\n{own}");
    }
}

#[test]
fn completions_are_written_for_the_common_shells() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&["completions", shell]).contains("simulate"), "{shell}");
    }
}

#[test]
fn the_configuration_is_printed_with_its_comments_and_checks_itself() {
    let text = stdout(&["config"]);
    assert!(text.contains("# ") && text.contains("[log.kafka]"), "{text}");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("it can be written");
    stdout(&["config", "check", file.path().to_str().expect("its path is text")]);

    std::fs::write(file.path(), "[producer]\nmax_batch_event = 5\n").expect("it can be written");
    let said = failure(&["config", "check", file.path().to_str().expect("its path is text")]);
    assert!(said.contains("max_batch_event") && said.contains("max_batch_events"), "{said}");
}

#[test]
fn errors_say_what_to_do() {
    let said = failure(&["query", "summary"]);
    assert!(said.contains("127.0.0.1:1") && said.contains("weir up"), "nothing is running: {said}");
    let said = failure(&["import", "no-such-file.csv"]);
    assert!(said.contains("no-such-file.csv"), "{said}");
    let said = failure(&["query", "time-series", "--measure", "medain:price"]);
    assert!(said.contains("medain"), "{said}");
    let said = failure(&["query", "breakdown", "--by", "event_name", "--from", "yesterdy"]);
    assert!(said.contains("yesterdy"), "{said}");
    let said = failure(&["query", "funnel"]);
    assert!(said.contains("--steps"), "{said}");
    let said = failure(&["query", "funnel", "--steps", "cart,purchase", "--window", "soon"]);
    assert!(said.contains("soon") && said.contains("7d"), "{said}");
    let said = failure(&["query", "paths", "--after", "cart where price"]);
    assert!(said.contains("price"), "{said}");
    let said = failure(&["query", "time-series", "--formula", "a over b"]);
    assert!(said.contains("A / B"), "{said}");
    // Standard input is empty.
    let said = failure(&["query", "sql"]);
    assert!(said.contains("empty"), "{said}");
}

#[tokio::test]
async fn compaction_names_what_it_passes_over_and_fails() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let folder = data.path().join("store");
    let store = Store::open(Settings::folder(&folder)).await.expect("an empty store");
    for start in 0..2 {
        let mut encoder = Encoder::default();
        let event = record::Event { event_name: "view", ..Default::default() };
        encoder.push(&Row { offset: start, event, ..Row::default() });
        let events = vec![("shop".into(), encoder.finish())];
        let batch = CleanBatch { start, end: start + 1, watermark_micros: 0, events };
        store.append(0, Uuid::now_v7(), batch).await.expect("there is room");
    }
    let snapshot = store.scan("shop", 1).await.expect("it can be read");
    let lost = &snapshot.segments[0].path;
    std::fs::remove_file(folder.join(lost)).expect("it was there");
    let data_dir = data.path().to_str().expect("its path is text");
    let said = failure(&["store", "compact", "--data-dir", data_dir, "--set", "store.compact_files=2"]);
    assert!(said.contains(lost), "{said}");
}
