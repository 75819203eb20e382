//! Hostile SQL: whatever a statement says, it is answered or refused shortly after its deadline, memory stays bounded, and the threads are
//! free for the next one.
//!
//! `WEIR_HOSTILE_STATEMENTS` sets how many statements there are, `WEIR_TEST_SEED` which ones.

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

#[test]
fn hostile_statements_end_in_time_within_memory() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = number("WEIR_HOSTILE_STATEMENTS").unwrap_or(150);
    let seed = number("WEIR_TEST_SEED").unwrap_or(11);
    println!("{count} statements with WEIR_TEST_SEED={seed}");
    let engine = Engine::new(Settings { memory_bytes: POOL, threads: 2 }).unwrap();
    let events = world();
    let (mut answered, mut slow, mut large, mut refused) = (0, 0, 0, 0);
    let (mut longest, mut most) = (Duration::ZERO, 0);
    for (at, text) in Statements::new(seed).take(count as usize).enumerate() {
        let shown: String = text.chars().take(300).collect();
        forget_peak();
        let idle = peak();
        let started = Instant::now();
        let answer = run(ask(&engine, &events, &text));
        let elapsed = started.elapsed();
        match &answer {
            Ok(_) => answered += 1,
            Err(Error::TooSlow(_)) => slow += 1,
            Err(Error::OutOfMemory { .. }) => large += 1,
            Err(Error::Sql(message)) => {
                assert!(!leaks(message), "statement {at} of seed {seed}: {message}\n{shown}");
                refused += 1;
            }
            Err(other) => panic!("statement {at} of seed {seed}: {other:?}\n{shown}"),
        }
        assert!(elapsed < DEADLINE + GRACE, "statement {at} of seed {seed} took {elapsed:?}\n{shown}");
        let next = Instant::now();
        run(ask(&engine, &events, "select 1 as one"))
            .unwrap_or_else(|error| panic!("after {at}: {error}\n{shown}"));
        assert!(next.elapsed() < GRACE, "after statement {at} of seed {seed} the threads are busy\n{shown}");
        let taken = peak().saturating_sub(idle);
        assert!(taken < MEMORY, "statement {at} of seed {seed} took {taken} bytes\n{shown}");
        (longest, most) = (longest.max(elapsed), most.max(taken));
    }
    println!(
        "{answered} answered, {slow} too slow, {large} too large, {refused} refused; longest {longest:?}, most {} MB",
        most >> 20
    );
}

/// Whether a message is the engine's own and not Weir's.
fn leaks(message: &str) -> bool {
    ["DataFusion", "Utf8", "Int64", "Float64", "bug", "backtrace", "Candidate"]
        .iter()
        .any(|word| message.contains(word))
}
