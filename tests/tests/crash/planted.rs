//! A program that lacks one of its syncs is found out: all syncs of a kind are left out of the trace, kind by kind. The same power
//! cuts do nothing to the program that has them.

use std::{collections::BTreeMap, env};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::cuts::{Run, cut, recover, run, runtime};

/// Workloads whose syncs are left out; with `WEIR_CRASH_CUTS`, the second number.
const WORKLOADS: [u64; 2] = [6, 60];
/// Power cuts after which a sync counts as needless. Most are found out within ten, all seen so far within 300.
const CUTS: usize = 2000;
/// More workloads for a sync that these do not find out. Threads decide what follows upon what, and now and then nothing does that tells.
const MORE: u64 = 12;
/// Operations after a sync within which half of the power cuts are.
const NEAR: usize = 40;

/// Syncs that every run of some workloads has and needs.
const NEEDED: &[&str] = &[
    "entries of log/topics after a creation",
    "entries of log/topics/events after a rename",
    "entries of log/topics/events/* after a creation",
    "entries of log/topics/trimmed/* after a removal",
    "entries of store/events after a creation",
    "entries of store/events/project=shop after a creation",
    "entries of store/events/project=shop/partition=* after a link",
    "entries of store/manifest after a creation",
    "entries of store/manifest after a link",
    "entries of store/manifest/* after a link",
    "entries of store/manifest/*/checkpoint after a link",
    "file log/format.new after a write",
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

/// Syncs whose work another sync does too before it matters, and which. The lines of the program that they are from are needed at
/// other moments, which are kinds of their own here or programs of `states`.
const SPARE: &[(&str, &str)] = &[
    ("entries of log after a creation", "`format` gets its name there next, before anything is acknowledged"),
    (
        "entries of log/topics/events after a creation",
        "`topic.json` gets its name there next, before there are records",
    ),
    (
        "entries of log/topics/trimmed after a creation",
        "`topic.json` gets its name there next, before there are records",
    ),
    (
        "entries of store/manifest/* after a creation",
        "entries are removed once there are two checkpoints, and one was created, and synced, between them",
    ),
    (
        "entries of store/manifest/*/checkpoint after a creation",
        "what a checkpoint covers is removed once there is a later one, which was synced there",
    ),
    ("entries of store/manifest after a removal", "what is removed may come back"),
    ("entries of store/manifest/* after a removal", "what is removed may come back"),
];

/// Looks for a power cut that tells that the syncs of a kind are missing: how many it took.
fn find(runs: &[&Run], site: &str, rng: &mut StdRng) -> Result<Option<usize>, String> {
    let runtime = runtime();
    for cuts in 1..=CUTS {
        let run = runs[rng.random_range(0..runs.len())];
        let ops = &run.trace.ops;
        let of_site: Vec<usize> = (0..ops.len()).filter(|op| ops[*op].site() == Some(site)).collect();
        let from = of_site[rng.random_range(0..of_site.len())];
        let to = if rng.random() { ops.len() } else { ops.len().min(from + NEAR) };
        let position = rng.random_range(from..=to);
        let (choices, history) = (rng.random(), run.history.until(position));
        let Err((_, kept)) = recover(&runtime, &cut(&run.trace.without(site), position, choices), &history)
        else {
            continue;
        };
        // What could not be made sense of is of no use: a sync was left out.
        std::fs::remove_dir_all(kept).map_err(|error| error.to_string())?;
        recover(&runtime, &cut(&run.trace, position, choices), &history).map_err(|(error, kept)| {
            format!(
                "{site}: cut after {position} operations with no sync left out: {error}; see {}",
                kept.display()
            )
        })?;
        return Ok(Some(cuts));
    }
    Ok(None)
}

#[test]
fn each_missing_sync_is_found_out() {
    let is_long = env::var_os("WEIR_CRASH_CUTS").is_some();
    let runtime = runtime();
    let workloads = |seeds: std::ops::Range<u64>| -> Vec<Run> {
        let runs = seeds.map(|seed| run(&runtime, seed));
        runs.map(|run| Run { trace: run.trace.without_idle_syncs(), history: run.history }).collect()
    };
    let runs = workloads(1000..1000 + WORKLOADS[usize::from(is_long)]);
    let mut of_site: BTreeMap<String, Vec<&Run>> = BTreeMap::new();
    for run in &runs {
        for site in run.trace.sites().into_keys() {
            of_site.entry(site).or_default().push(run);
        }
    }
    let mut rng = StdRng::seed_from_u64(7);
    let mut wrong = Vec::new();
    for site in NEEDED.iter().filter(|site| !of_site.contains_key(**site)) {
        wrong.push(format!("{site}: no workload does that"));
    }
    for (site, runs) in &of_site {
        if let Some((_, why)) = SPARE.iter().find(|(spare, _)| spare == site) {
            println!("{site}: not needed then, as {why}");
            continue;
        }
        let mut found = find(runs, site, &mut rng);
        if let Ok(None) = found {
            let more = workloads(2000..2000 + MORE);
            let more: Vec<&Run> = more.iter().filter(|run| run.trace.sites().contains_key(site)).collect();
            if !more.is_empty() {
                found = find(&more, site, &mut rng);
            }
        }
        match found {
            Ok(Some(cuts)) => println!("{site}: found out after {cuts} power cuts"),
            Ok(None) => wrong.push(format!("{site}: twice {CUTS} power cuts do not tell that it is missing")),
            Err(error) => wrong.push(error),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
