//! A program that lacks one of its syncs is found out: all syncs of a kind are left out of the trace, kind by kind.

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::cuts::{Run, cut, recover, run, runtime, sites};

/// Workloads whose syncs are looked at.
const WORKLOADS: u64 = 6;
/// Power cuts after which a sync counts as needless. Most are found out within ten.
const CUTS: usize = 800;

/// Kinds of syncs that each protect something which no other does. What is left over guards against rarer chains of events, as a
/// process that dies between creating a name and syncing it.
const NEEDED: &[&str] = &[
    "entries of log/topics after a creation",
    "entries of log/topics/events after a rename",
    "entries of log/topics/events/* after a creation",
    "entries of log/topics/trimmed/* after a removal",
    "entries of store/events after a creation",
    "entries of store/events/project=shop after a creation",
    "entries of store/events/project=shop/partition=* after a link",
    "entries of store/manifest after a creation",
    "entries of store/manifest/* after a link",
    "file log/identity.new after a write",
    "file log/positions.json.new after a write",
    "file log/topics/events/*/*.log after a truncation",
    "file log/topics/events/*/*.log after a write",
    "file log/topics/events/topic.json.new after a write",
    "file store/events/project=shop/partition=*/*.parquet#* after a write",
    "file store/manifest/*/*.json#* after a write",
    "file store/manifest/*/checkpoint/*.json#* after a write",
    "file store/manifest/log#* after a write",
];

#[test]
fn each_missing_sync_is_found_out() {
    let runtime = runtime();
    let runs = (1000..1000 + WORKLOADS).map(|seed| run(&runtime, seed));
    let runs: Vec<Run> =
        runs.map(|run| Run { trace: run.trace.without_idle_syncs(), history: run.history }).collect();
    let mut rng = StdRng::seed_from_u64(7);
    let mut wrong = Vec::new();
    let counts = sites(&runs);
    for site in NEEDED {
        let of: Vec<&Run> = runs.iter().filter(|run| run.trace.sites().contains_key(*site)).collect();
        if of.is_empty() {
            wrong.push(format!("{site}: no workload does that"));
            continue;
        }
        let found = (1..=CUTS).find(|_| {
            let run = of[rng.random_range(0..of.len())];
            let first = run.trace.ops.iter().position(|op| op.site() == Some(*site)).unwrap_or_default();
            let position = rng.random_range(first..=run.trace.ops.len());
            let left = cut(&run.trace.without(site), position, rng.random());
            let recovered = recover(&runtime, &left, &run.history.until(position));
            // What could not be made sense of is of no use: a sync was left out.
            recovered.map_err(|(_, kept)| std::fs::remove_dir_all(kept)).is_err()
        });
        match found {
            Some(cuts) => println!("{site} (×{}): found out after {cuts} power cuts", counts[*site]),
            None => wrong.push(format!("{site}: {CUTS} power cuts do not tell that it is missing")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
