//! Hostile SQL: whatever a statement says, it is answered or refused shortly after its deadline, memory stays bounded, and the threads are
//! free for the next one.
//!
//! `WEIR_HOSTILE_STATEMENTS` sets how many statements there are, `WEIR_TEST_SEED` which ones, and `WEIR_HOSTILE_FROM` with which one to
//! begin (`make verify-sql`).

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../answers/events.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod events;
mod statements;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use weir_query::{Engine, Error, Events, engine::Settings, sql::Limits};

use crate::{
    events::{Event, Held, run},
    statements::Statements,
};

/// How long a statement may run.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long after the deadline there must be an answer, and the threads be free.
const GRACE: Duration = Duration::from_secs(1);
/// Memory for all questions, bytes.
const POOL: usize = 256 << 20;
/// Memory of the process above what it takes when idle, bytes.
const MEMORY: u64 = 512 << 20;

fn world() -> Arc<dyn Events> {
    let event = |number: i64| Event {
        user: format!("u{}", number % 5000),
        name: ["visit", "signup", "a", "b"][number as usize % 4].to_owned(),
        session: format!("s{}", number % 9000),
        time: number * 1_000_003,
        texts: vec![
            ("plan".to_owned(), if number % 2 == 0 { "pro" } else { "free" }.to_owned()),
            ("text".to_owned(), "abcdefghij klmno".repeat(if number % 100 == 0 { 500 } else { 4 })),
        ],
        numbers: vec![("price".to_owned(), number as f64 / 7.0)],
        ..Event::default()
    };
    Held::of(&(0..40_000).map(event).collect::<Vec<_>>(), 8192)
}

/// Resident memory of this process at most since [`forget_peak`], bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

async fn ask(engine: &Engine, events: &Arc<dyn Events>, text: &str) -> Result<usize, Error> {
    let limits = Limits { time: DEADLINE, rows: 10_000 };
    let mut rows = engine.sql(Arc::clone(events), text.to_owned(), limits).await?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += batch?.num_rows();
    }
    Ok(count)
}

/// The threads of the engine: whether one of them does not wait, and how long they have computed.
fn threads() -> (bool, Duration) {
    let (mut is_busy, mut computed) = (false, Duration::ZERO);
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        // A thread can end in between.
        let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
        let stat = read("stat");
        if !stat.contains("(weir-query)") {
            continue;
        }
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
        is_busy |= state != Some("S");
        let nanos = read("schedstat").split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        computed += Duration::from_nanos(nanos.unwrap_or_default());
    }
    (is_busy, computed)
}

/// How long the threads of the engine compute until they wait. By their own clocks: what else runs on the machine takes none of it.
fn computes_on() -> Duration {
    let (started, (_, before)) = (Instant::now(), threads());
    loop {
        let (is_busy, computed) = threads();
        let since = computed.saturating_sub(before);
        if !is_busy || since > GRACE || started.elapsed() > 30 * GRACE {
            return since;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What became of one statement.
fn judge(engine: &Engine, events: &Arc<dyn Events>, text: &str, seen: &mut Seen) -> Result<(), String> {
    forget_peak();
    let idle = peak();
    let started = Instant::now();
    let answer = run(ask(engine, events, text));
    let elapsed = started.elapsed();
    let computed = computes_on();
    let taken = peak().saturating_sub(idle);
    (seen.longest, seen.most) = (seen.longest.max(elapsed), seen.most.max(taken));
    match answer {
        Ok(_) => seen.answered += 1,
        Err(Error::TooSlow(_)) => seen.slow += 1,
        Err(Error::OutOfMemory { .. }) => seen.large += 1,
        Err(Error::Sql(message)) => {
            seen.refused += 1;
            if let Some(fault) = fault(&message) {
                return Err(fault);
            }
        }
        Err(other) => return Err(format!("{other:?}")),
    }
    if elapsed >= DEADLINE + GRACE {
        return Err(format!("it took {elapsed:?}"));
    }
    if computed >= GRACE {
        return Err(format!("the threads compute {computed:?} after the answer, which took {elapsed:?}"));
    }
    if taken >= MEMORY {
        return Err(format!("it took {} MB in {elapsed:?}", taken >> 20));
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Seen {
    answered: usize,
    slow: usize,
    large: usize,
    refused: usize,
    longest: Duration,
    most: u64,
}

#[test]
fn hostile_statements_end_in_time_within_memory() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let count = number("WEIR_HOSTILE_STATEMENTS").unwrap_or(150);
    let seed = number("WEIR_TEST_SEED").unwrap_or(11);
    let from = number("WEIR_HOSTILE_FROM").unwrap_or(0);
    println!("{count} statements with WEIR_TEST_SEED={seed} from WEIR_HOSTILE_FROM={from}");
    let engine = Engine::new(Settings { memory_bytes: POOL, threads: 2 }).unwrap();
    let events = world();
    let mut seen = Seen::default();
    let mut failures = 0;
    let started = Instant::now();
    for (at, text) in Statements::new(seed as u64).enumerate().skip(from).take(count) {
        if let Err(problem) = judge(&engine, &events, &text, &mut seen) {
            failures += 1;
            let shown: String = text.chars().take(500).collect();
            println!("statement {at} of seed {seed}: {problem}\n    {shown}");
        }
        if (at + 1).is_multiple_of(500) {
            println!(
                "{} statements in {:?}; WEIR_HOSTILE_FROM={} goes on here",
                at + 1 - from,
                started.elapsed(),
                at + 1
            );
        }
    }
    let Seen { answered, slow, large, refused, longest, most } = seen;
    println!(
        "{answered} answered, {slow} too slow, {large} too large, {refused} refused; longest {longest:?}, most {} MB",
        most >> 20
    );
    assert_eq!(failures, 0, "statements that were handled wrongly are shown above");
}

/// Words of the engine that no message has: its types, parts of its plans, and its own advice.
const OF_ENGINE: &[&str] = &[
    "DataFusion",
    "Arrow",
    "Utf8",
    "Int64",
    "Int32",
    "Float64",
    "Boolean",
    "Timestamp(",
    "Binary(",
    "List(",
    "Map(",
    "Struct(",
    "Dictionary(",
    "Value(",
    "Expr",
    "Span",
    "Some(",
    "Projection",
    "Schema",
    "Aliasing",
    "aliasing",
    "bug",
    "backtrace",
    "Candidate",
    "Internal",
    "nternal error",
    "rror during",
    "xecution error",
    "ignature",
    "oerc",
    "DataType",
    "physical type",
];

/// Messages that have a place in the statement. Others are about values, or about something that is there several times.
const WITH_PLACE: &[&str] =
    &["expected:", "unterminated", "there is no function", "can't be used", "must be a literal"];

/// What is wrong with a message, if anything is.
fn fault(message: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(OF_ENGINE) {
        return Some(format!("words of the engine: {message}"));
    }
    if message.chars().any(char::is_control) {
        return Some(format!("raw control characters: {message:?}"));
    }
    if !message.starts_with("line ") && has(WITH_PLACE) {
        return Some(format!("no position: {message}"));
    }
    None
}
