//! Exhaustive check of the machine in small worlds.
//!
//! A world has a few source records, a log, and workers that do what consumers do: claim, read up to the own claim, append
//! batches without waiting for the ones before to be acknowledged, tail-read, commit hints, crash and come back. Whatever
//! they sent lands later, twice, or never, also long after they crashed or were superseded. Every interleaving is tried
//! (breadth first, so that the counterexample of a violation is a shortest one).
//!
//! What must hold in every world is in [`World::check`]. Each rule is then removed in turn, and the search must find a world
//! where something does not hold: otherwise the model would not notice a machine without that rule.

mod world;

use std::{collections::VecDeque, fmt};

use hashbrown::{HashMap, hash_map::Entry};
use xxhash_rust::xxh3::xxh3_128;

use super::Rules;
use world::{Action, Violation, World};

/// What the workers do, and how much of it fits into a world.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    pub(super) rules: Rules,
    /// What a worker does before its first batch.
    pub(super) start: Start,
    /// Whether a hint holds what was read (as it must) or what was sent.
    pub(super) hints_from_reading: bool,
    /// Workers.
    pub(super) workers: usize,
    /// Source records.
    pub(super) records: u8,
    /// Starts of workers, each with a fresh owner.
    pub(super) starts: u8,
    /// Crashes at most.
    pub(super) crashes: u8,
    /// Sent records that never land, at most.
    pub(super) losses: u8,
    /// Sent records that land twice, at most.
    pub(super) repeats: u8,
}

/// What a worker does before its first batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Appends a claim and reads up to it.
    ClaimAndRead,
    /// Appends a claim and goes on from what it knew before.
    ClaimOnly,
    /// Reads to the end of the log and appends no claim.
    ReadOnly,
}

/// Everything that can go wrong, once.
const FAULTY: Scope = Scope {
    rules: Rules::ALL,
    start: Start::ClaimAndRead,
    hints_from_reading: true,
    workers: 2,
    records: 2,
    starts: 2,
    crashes: 1,
    losses: 1,
    repeats: 1,
};

/// The partition changes hands once more, and back.
const RESTLESS: Scope = Scope { starts: 3, losses: 0, repeats: 0, ..FAULTY };

/// Three workers at once.
const CROWDED: Scope = Scope { workers: 3, records: 1, starts: 3, crashes: 0, repeats: 0, ..FAULTY };

/// A violation and the shortest way to it.
struct Counterexample {
    violation: Violation,
    actions: Vec<Action>,
    world: World,
}

impl fmt::Debug for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        self.actions.iter().try_for_each(|action| writeln!(f, "  {action:?}"))?;
        write!(f, "  leads to the log {:?}", self.world.log)
    }
}

/// Visits every world that can be reached; returns how many there are.
fn explore(scope: Scope) -> Result<usize, Counterexample> {
    let start = World::new(&scope);
    // Worlds are known by 128-bit fingerprints: a collision among a few million is out of the question.
    let mut parents: HashMap<u128, Option<(u128, Action)>> = HashMap::new();
    parents.insert(fingerprint(&start), None);
    let mut frontier = VecDeque::from([start]);
    while let Some(world) = frontier.pop_front() {
        let parent = fingerprint(&world);
        for action in world.actions(&scope) {
            let mut next = world.clone();
            next.apply(action, &scope);
            let Entry::Vacant(unknown) = parents.entry(fingerprint(&next)) else { continue };
            unknown.insert(Some((parent, action)));
            if let Err(violation) = next.check(&scope) {
                let mut actions = Vec::new();
                let mut at = fingerprint(&next);
                while let Some(Some((earlier, action))) = parents.get(&at) {
                    actions.push(*action);
                    at = *earlier;
                }
                actions.reverse();
                return Err(Counterexample { violation, actions, world: next });
            }
            frontier.push_back(next);
        }
    }
    Ok(parents.len())
}

fn fingerprint(world: &World) -> u128 {
    xxh3_128(&world.encode())
}

#[track_caller]
fn holds(scope: Scope, at_least: usize) {
    match explore(scope) {
        Ok(worlds) => {
            println!("{worlds} worlds");
            assert!(worlds >= at_least, "only {worlds} worlds: the scope has shrunk");
        }
        Err(counterexample) => panic!("{counterexample:?}"),
    }
}

#[track_caller]
fn is_caught(mutant: Scope) -> Violation {
    match explore(mutant) {
        Ok(worlds) => panic!("nothing noticed in {worlds} worlds: {mutant:?}"),
        Err(counterexample) => {
            println!("{counterexample:?}");
            counterexample.violation
        }
    }
}

#[test]
fn every_source_offset_counts_once_whatever_fails() {
    holds(FAULTY, 200_000);
}

#[test]
fn every_source_offset_counts_once_when_owners_come_back() {
    holds(RESTLESS, 200_000);
}

#[test]
fn every_source_offset_counts_once_with_three_at_once() {
    holds(CROWDED, 36_000);
}

#[test]
fn without_fencing_an_owner_is_robbed_of_its_batch() {
    let rules = Rules { fencing: false, ..Rules::ALL };
    assert_eq!(is_caught(Scope { rules, ..FAULTY }), Violation::VoidWithoutCause);
}

#[test]
fn without_the_sequence_check_offsets_count_twice_or_never() {
    let rules = Rules { sequence: false, ..Rules::ALL };
    assert_eq!(is_caught(Scope { rules, ..FAULTY }), Violation::NotOnceInOrder);
    let no_losses = Scope { rules, losses: 0, ..FAULTY };
    assert_eq!(is_caught(no_losses), Violation::NotOnceInOrder);
    let no_repeats = Scope { rules, repeats: 0, ..FAULTY };
    assert_eq!(is_caught(no_repeats), Violation::NotOnceInOrder);
}

#[test]
fn without_a_claim_nothing_counts() {
    assert_eq!(is_caught(Scope { start: Start::ReadOnly, ..FAULTY }), Violation::VoidWithoutCause);
}

#[test]
fn without_claims_and_fencing_owners_void_each_others_batches() {
    // A machine that knows no owners at all: whoever starts at the next offset counts.
    let rules = Rules { fencing: false, ..Rules::ALL };
    let mutant = Scope { rules, start: Start::ReadOnly, ..FAULTY };
    assert_eq!(is_caught(mutant), Violation::VoidWithoutCause);
}

#[test]
fn without_reading_up_to_the_claim_an_owner_starts_at_the_wrong_offset() {
    assert_eq!(is_caught(Scope { start: Start::ClaimOnly, ..FAULTY }), Violation::VoidWithoutCause);
}

#[test]
fn hints_of_what_was_sent_mislead_readers() {
    let mutant = Scope { hints_from_reading: false, ..FAULTY };
    assert_eq!(is_caught(mutant), Violation::ReadersDisagree);
}
