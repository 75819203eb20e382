//! Random questions about random events, answered by the product from its store and by an oracle that shares no code with it:
//! DuckDB and plain Python, in `tests/python/oracle`.
//!
//! Each run has a seed of its own and prints it. `WEIR_TEST_SEED` repeats one, `WEIR_TEST_WORLDS` says how many worlds of events are
//! made; each is asked [`QUESTIONS`] questions.

use std::{
    collections::hash_map::RandomState,
    env,
    hash::BuildHasher as _,
    io::{BufRead as _, BufReader, Lines, Write as _},
    ops::Range,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Instant,
};

use serde_json::{Value as Json, json};
use weir_tests::python;

use crate::events::run;

mod dice;
mod product;
mod questions;
mod world;

use dice::Dice;
use world::World;

/// Worlds of a run. With so many a run takes about a minute on two cores.
const WORLDS: u64 = 40;
const QUESTIONS: usize = 100;
/// Numbers are the same when they differ by no more than this, relatively: sums of doubles depend on their order.
const ALIKE: f64 = 1e-9;

#[test]
fn random_questions_have_the_answers_of_other_engines() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("WEIR_TEST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
    let worlds = number("WEIR_TEST_WORLDS").unwrap_or(WORLDS);
    let started = Instant::now();
    // Also where the harness keeps back what tests print.
    let mut terminal = std::io::stderr();
    writeln!(terminal, "random questions with WEIR_TEST_SEED={seed}").unwrap();
    let mut oracle = Oracle::start();
    for number in 0..worlds {
        // Each world can be had by itself: as the first one of its seed.
        let seed = seed + number;
        let mut dice = Dice::new(seed);
        let world = World::random(&mut dice);
        let asked: Vec<_> = (0..QUESTIONS).map(|_| questions::random(&mut dice, &world)).collect();
        for (question, found, expected) in oracle.compare(&world, &asked) {
            if let Err(difference) = same(&found, &expected, "") {
                let (world, difference) = smallest(&mut oracle, world, &question, difference);
                let events: Vec<_> = world.asked_about().iter().map(ToString::to_string).collect();
                panic!(
                    "{difference}\nasked {question}\nabout\n{}\nWEIR_TEST_SEED={seed} WEIR_TEST_WORLDS=1 asks again",
                    events.join("\n")
                );
            }
        }
    }
    let count = worlds * QUESTIONS as u64;
    writeln!(terminal, "{count} questions about {worlds} worlds in {:.1?}", started.elapsed()).unwrap();
}

/// Where the answers differ, if they do.
fn same(found: &Json, expected: &Json, at: &str) -> Result<(), String> {
    let differ = || Err(format!("at {at}: the product says {found}, the oracle {expected}"));
    match (found, expected) {
        (Json::Number(a), Json::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            if (a - b).abs() <= ALIKE * a.abs().max(b.abs()) { Ok(()) } else { differ() }
        }
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            (0..).zip(a.iter().zip(b)).try_for_each(|(place, (a, b))| same(a, b, &format!("{at}[{place}]")))
        }
        (Json::Object(a), Json::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().try_for_each(|(name, a)| same(a, &b[name], &format!("{at}.{name}")))
        }
        _ if found == expected => Ok(()),
        _ => differ(),
    }
}

/// A world with as few events as still lead to different answers.
fn smallest(
    oracle: &mut Oracle,
    mut world: World,
    question: &Json,
    mut difference: String,
) -> (World, String) {
    let mut piece = world.events.len().div_ceil(2);
    while piece > 0 {
        let mut start = 0;
        while start < world.events.len() {
            let left_out: Range<usize> = start..(start + piece).min(world.events.len());
            let fewer = world.without(left_out);
            let (_, found, expected) = oracle.compare(&fewer, std::slice::from_ref(question)).remove(0);
            match same(&found, &expected, "") {
                Ok(()) => start += piece,
                Err(still) => (world, difference) = (fewer, still),
            }
        }
        piece /= 2;
    }
    (world, difference)
}

/// The other engines, in a process that answers line by line.
struct Oracle {
    process: Child,
    asks: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
}

impl Oracle {
    fn start() -> Self {
        let mut command = python::script("oracle").unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (asks, says) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, asks, says: BufReader::new(says).lines() }
    }

    fn ask(&mut self, line: &Json) {
        writeln!(self.asks, "{line}").unwrap();
    }

    fn said(&mut self, to: &Json) -> Json {
        let line = self.says.next().unwrap_or_else(|| panic!("the oracle ended, asked {to}")).unwrap();
        let mut said: Json = serde_json::from_str(&line).unwrap();
        match said["failed"].as_str() {
            Some(failed) => panic!("the oracle failed, asked {to}: {failed}"),
            None => said["answer"].take(),
        }
    }

    /// Questions about a world, with the answers of the product and of the oracle.
    fn compare(&mut self, world: &World, questions: &[Json]) -> Vec<(Json, Json, Json)> {
        self.ask(&json!({"events": world.asked_about()}));
        let laid = run(world.store());
        self.said(&Json::Null);
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions {
            self.ask(&json!({"question": question}));
            // Both work at the same time.
            let found = run(product::answer(&laid, question));
            let found = found.unwrap_or_else(|error| panic!("asked {question}, the product fails: {error}"));
            answers.push((question.clone(), found, self.said(question)));
        }
        answers
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It has nothing to finish; when it is gone already, so much the better.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
