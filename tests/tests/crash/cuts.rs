//! Many workloads, the power cut anywhere, once or twice.

use std::{
    env,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::runtime::Runtime;
use weir_log::EventLog;
use weir_tests::power::{Machine, Random, Recorder, Trace, Tree};

use crate::{
    history::{Ack, At, History},
    oracle,
    system::{EVENTS, Failure, record},
    workload::{Workload, scratch},
};

/// Things that a workload does.
const STEPS: usize = 30;
/// Power cuts for each workload.
const CUTS: usize = 120;
/// Workloads in CI: with their second cuts some 3,000 power cuts.
const WORKLOADS: u64 = 17;

/// A trace of a workload, and what it was told.
pub(crate) struct Run {
    pub(crate) trace: Trace,
    pub(crate) history: History,
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn run(runtime: &Runtime, seed: u64) -> Run {
    let (trace, history) = runtime.block_on(Workload::new(seed).run(STEPS));
    Run { trace, history }
}

/// What is left when the power is cut after so many operations.
pub(crate) fn cut(trace: &Trace, position: usize, seed: u64) -> Tree {
    let (mut machine, _) = Machine::new(&trace.start);
    trace.ops[..position].iter().for_each(|op| machine.apply(op));
    machine.cut(&mut Random::new(seed))
}

/// Opens what a power cut left, and checks it; the process then goes on. Returns that process's trace and what it was told.
pub(crate) fn recover(runtime: &Runtime, left: &Tree, history: &History) -> Result<Run, (Failure, PathBuf)> {
    let dir = scratch();
    left.write(dir.path()).unwrap();
    let disk = Arc::new(Recorder::new(dir.path()).unwrap());
    let checked = runtime.block_on(async {
        let root = dir.path().canonicalize()?;
        let system = oracle::check(&root, disk.clone(), history).await?;
        let mut history = history.clone().before();
        let mut acknowledge = |what| history.acks.push(At { position: disk.position(), what });
        let identity = system.bind().await?;
        acknowledge(Ack::Topics);
        acknowledge(Ack::Bound { identity });
        let number = history.next_number;
        let offset = system.log.append(EVENTS, 0, vec![record(number)]).await?.first;
        acknowledge(Ack::Appended { topic: EVENTS, offset, number });
        acknowledge(Ack::Stored { end: system.consume().await? });
        history.next_number = number + 1;
        drop(system);
        drop(oracle::check(&root, disk.clone(), &history).await?);
        Ok(history)
    });
    match checked {
        Ok(history) => Ok(Run { trace: disk.trace(), history }),
        // What could not be made sense of is kept.
        Err(error) => Err((error, dir.keep())),
    }
}

/// Cuts the power of one workload so often, and now and then again while the process that recovers runs. Returns how many cuts that were.
fn torment(runtime: &Runtime, seed: u64, cuts: usize) -> Result<u64, String> {
    let run = run(runtime, seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut done = 0;
    for _ in 0..cuts {
        let position = rng.random_range(0..=run.trace.ops.len());
        let choices = rng.random();
        let left = cut(&run.trace, position, choices);
        let failed = |(error, kept): (Failure, PathBuf), when: &str| {
            format!(
                "workload {seed}, cut after {position} operations{when}, choices {choices}: {error}; see {}",
                kept.display()
            )
        };
        let recovered =
            recover(runtime, &left, &run.history.until(position)).map_err(|failure| failed(failure, ""))?;
        done += 1;
        if rng.random_range(0..2) == 0 {
            let second = rng.random_range(0..=recovered.trace.ops.len());
            let left = cut(&recovered.trace, second, choices);
            let history = recovered.history.until(second);
            recover(runtime, &left, &history)
                .map_err(|failure| failed(failure, &format!(" and {second} of the next process")))?;
            done += 1;
        }
    }
    Ok(done)
}

/// `WEIR_CRASH_CUTS` at least so many power cuts, from the workload `WEIR_CRASH_SEED` on.
#[test]
fn whenever_the_power_is_cut_everything_acknowledged_is_there_once() {
    let number = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let first = number("WEIR_CRASH_SEED").unwrap_or(0);
    let wanted = number("WEIR_CRASH_CUTS");
    let (next, cuts) = (AtomicU64::new(first), AtomicU64::new(0));
    let begun = Instant::now();
    thread::scope(|scope| {
        let work = || {
            let runtime = runtime();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let enough = match wanted {
                    Some(wanted) => cuts.load(Ordering::Relaxed) >= wanted,
                    None => seed >= first + WORKLOADS,
                };
                if enough {
                    return Ok(());
                }
                let done = cuts.fetch_add(torment(&runtime, seed, CUTS)?, Ordering::Relaxed);
                if wanted.is_some() && seed.is_multiple_of(10) {
                    println!("workload {seed} done, {done} power cuts, {} s", begun.elapsed().as_secs());
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let failures: Vec<String> = workers
            .into_iter()
            .filter_map(|worker| worker.join().expect("it does not panic").err())
            .collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    });
    let (cuts, took) = (cuts.load(Ordering::Relaxed), begun.elapsed());
    println!(
        "{cuts} power cuts over {} workloads from {first} in {took:.0?}",
        next.load(Ordering::Relaxed) - first
    );
    assert!(cuts >= wanted.unwrap_or(WORKLOADS * CUTS as u64), "{cuts}");
    assert!(wanted.is_some() || took < Duration::from_secs(600), "{took:?}");
}
