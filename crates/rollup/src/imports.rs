//! What became of imports: tallies that travel in micro-batches, and the memory that readers keep of them.
//!
//! An importer marks its events with an identifier of its own. The consumer counts by it what becomes of each record, and the
//! counts travel in the micro-batch that covers the record, so they are as exactly-once as the results are: a reader adds up the
//! tallies of the batches that count. A replay makes the same tallies in the same order.

use std::collections::{BTreeMap, HashMap};

use weir_proto::rollup::v1 as pb;

/// The 16 bytes of an import's UUID.
pub type ImportId = [u8; 16];

/// Imports that are remembered of a project: a tally takes some 100 bytes in memory and 60 in a snapshot, so a project takes
/// 100 kB at most, and who imports a file every hour can ask for six weeks.
pub const REMEMBERED: usize = 1000;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the results.
    Counted,
    /// An event with its `event_id` came before it.
    Duplicate,
    /// It is in the dead-letter topic.
    DeadLettered,
}

/// Numbers of records by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the results.
    pub counted: u64,
    /// Suppressed.
    pub duplicates: u64,
    /// In the dead-letter topic.
    pub dead_lettered: u64,
}

impl Counts {
    fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Counted => self.counted += 1,
            Outcome::Duplicate => self.duplicates += 1,
            Outcome::DeadLettered => self.dead_lettered += 1,
        }
    }

    /// Adds more of them.
    pub fn add(&mut self, more: Counts) {
        self.counted += more.counted;
        self.duplicates += more.duplicates;
        self.dead_lettered += more.dead_lettered;
    }

    fn of(tally: &pb::ImportTally) -> Self {
        let pb::ImportTally { counted, duplicates, dead_lettered, .. } = *tally;
        Self { counted, duplicates, dead_lettered }
    }

    fn into_tally(self, id: &ImportId, project: &str) -> pb::ImportTally {
        let Self { counted, duplicates, dead_lettered } = self;
        pb::ImportTally {
            import_id: id.to_vec(),
            project: project.to_owned(),
            counted,
            duplicates,
            dead_lettered,
        }
    }
}

/// The tallies of the micro-batch in the making.
#[derive(Debug, Default)]
pub struct Tallies {
    counts: BTreeMap<ImportId, BTreeMap<String, Counts>>,
}

impl Tallies {
    /// Counts a record of an import.
    pub fn note(&mut self, id: &ImportId, project: &str, outcome: Outcome) {
        let projects = self.counts.entry(*id).or_default();
        match projects.get_mut(project) {
            Some(counts) => counts.note(outcome),
            None => projects.entry(project.to_owned()).or_default().note(outcome),
        }
    }

    /// Imports that were noted: what they add to a batch.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether no record of an import was noted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Takes the tallies, ascending by import and project.
    pub fn drain(&mut self) -> Vec<pb::ImportTally> {
        let counts = std::mem::take(&mut self.counts);
        let of = |(id, projects): (ImportId, BTreeMap<String, Counts>)| {
            projects.into_iter().map(move |(project, counts)| counts.into_tally(&id, &project))
        };
        counts.into_iter().flat_map(of).collect()
    }
}

/// What a partition knows of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Import {
    /// What became of its records.
    pub counts: Counts,
    /// When the log took the first batch with a record of it, microseconds since the epoch.
    pub first_micros: i64,
    /// When the log took the last one, microseconds since the epoch.
    pub last_micros: i64,
    /// Its place among the imports of the project by their last batches.
    turn: u64,
}

/// The imports of a partition that are remembered: the last [`REMEMBERED`] of each project.
#[derive(Debug, Clone, Default)]
pub struct Imports {
    projects: BTreeMap<String, Memory>,
}

#[derive(Debug, Clone)]
struct Memory {
    imports: HashMap<ImportId, Import>,
    /// By their turns, the next to be forgotten first.
    order: BTreeMap<u64, ImportId>,
    turns: u64,
    /// Imports of which the log took the first batch up to this moment may be forgotten.
    forgotten_micros: i64,
}

impl Default for Memory {
    fn default() -> Self {
        Self { imports: HashMap::new(), order: BTreeMap::new(), turns: 0, forgotten_micros: i64::MIN }
    }
}

impl Memory {
    fn add(&mut self, id: ImportId, counts: Counts, first_micros: i64, last_micros: i64) {
        self.turns += 1;
        let turn = self.turns;
        let import = self.imports.entry(id).or_insert(Import {
            counts: Counts::default(),
            first_micros,
            last_micros,
            turn,
        });
        self.order.remove(&import.turn);
        self.order.insert(turn, id);
        import.turn = turn;
        import.counts.add(counts);
        import.first_micros = import.first_micros.min(first_micros);
        import.last_micros = import.last_micros.max(last_micros);
        while self.imports.len() > REMEMBERED
            && let Some((_, oldest)) = self.order.pop_first()
        {
            if let Some(forgotten) = self.imports.remove(&oldest) {
                self.forgotten_micros = self.forgotten_micros.max(forgotten.last_micros);
            }
        }
    }
}

impl Imports {
    /// Adds a tally of a batch that counts and that the log took at `append_micros`. One without a proper identifier belongs to
    /// no import.
    pub fn add(&mut self, tally: &pb::ImportTally, append_micros: i64) {
        self.restore_one(tally, append_micros, append_micros);
    }

    fn restore_one(&mut self, tally: &pb::ImportTally, first_micros: i64, last_micros: i64) {
        let Ok(id) = ImportId::try_from(tally.import_id.as_slice()) else { return };
        if !self.projects.contains_key(&tally.project) {
            self.projects.insert(tally.project.clone(), Memory::default());
        }
        if let Some(memory) = self.projects.get_mut(&tally.project) {
            memory.add(id, Counts::of(tally), first_micros, last_micros);
        }
    }

    /// What is known of an import.
    pub fn get(&self, project: &str, id: &ImportId) -> Option<Import> {
        self.projects.get(project)?.imports.get(id).copied()
    }

    /// Imports of the project of which the log took the first batch up to this moment may be forgotten; microseconds since the
    /// epoch.
    pub fn forgotten_micros(&self, project: &str) -> i64 {
        self.projects.get(project).map_or(i64::MIN, |memory| memory.forgotten_micros)
    }

    /// The memory as a snapshot has it.
    pub fn to_proto(&self) -> (Vec<pb::ImportState>, Vec<pb::ImportsForgotten>) {
        let states = self.projects.iter().flat_map(|(project, memory)| {
            memory.order.values().filter_map(|id| {
                let import = memory.imports.get(id)?;
                Some(pb::ImportState {
                    tally: Some(import.counts.into_tally(id, project)),
                    first_micros: import.first_micros,
                    last_micros: import.last_micros,
                })
            })
        });
        let forgotten = self.projects.iter().filter(|(_, memory)| memory.forgotten_micros > i64::MIN);
        let forgotten = forgotten.map(|(project, memory)| pb::ImportsForgotten {
            project: project.clone(),
            until_micros: memory.forgotten_micros,
        });
        (states.collect(), forgotten.collect())
    }

    /// The memory that a snapshot holds.
    pub fn from_proto(states: &[pb::ImportState], forgotten: &[pb::ImportsForgotten]) -> Self {
        let mut imports = Self::default();
        for state in states {
            let Some(tally) = &state.tally else { continue };
            imports.restore_one(tally, state.first_micros, state.last_micros);
        }
        for pb::ImportsForgotten { project, until_micros } in forgotten {
            let memory = imports.projects.entry(project.clone()).or_default();
            memory.forgotten_micros = memory.forgotten_micros.max(*until_micros);
        }
        imports
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> ImportId {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![Just(Outcome::Counted), Just(Outcome::Duplicate), Just(Outcome::DeadLettered)]
    }

    proptest! {
        /// However records fall into batches, and wherever a snapshot was read, the sums are those of the records.
        #[test]
        fn sums_do_not_depend_on_batches(
            records in prop::collection::vec((0..4u64, 0..2usize, outcome(), any::<bool>(), any::<bool>()), 0..200),
        ) {
            let (mut tallies, mut imports) = (Tallies::default(), Imports::default());
            let mut plain: BTreeMap<(&str, u64), Counts> = BTreeMap::new();
            for (time, (number, project, outcome, cut, restart)) in (0i64..).zip(records) {
                let project = ["a", "b"][project];
                tallies.note(&id(number), project, outcome);
                plain.entry((project, number)).or_default().note(outcome);
                if cut {
                    tallies.drain().iter().for_each(|tally| imports.add(tally, time));
                }
                if restart {
                    let (states, forgotten) = imports.to_proto();
                    imports = Imports::from_proto(&states, &forgotten);
                }
            }
            tallies.drain().iter().for_each(|tally| imports.add(tally, 1000));
            for project in ["a", "b"] {
                for number in 0..4 {
                    let found = imports.get(project, &id(number)).map(|import| import.counts);
                    prop_assert_eq!(found, plain.get(&(project, number)).copied());
                }
            }
        }
    }

    #[test]
    fn the_order_of_records_does_not_show_in_a_batch() {
        let records = [(2, "b"), (1, "b"), (2, "a"), (1, "b")];
        let drained = |records: &mut dyn Iterator<Item = &(u64, &str)>| {
            let mut tallies = Tallies::default();
            records.for_each(|(number, project)| tallies.note(&id(*number), project, Outcome::Counted));
            assert_eq!(tallies.len(), 2);
            tallies.drain()
        };
        let forwards = drained(&mut records.iter());
        assert_eq!(forwards, drained(&mut records.iter().rev()));
        let keys: Vec<_> =
            forwards.iter().map(|t| (t.import_id.clone(), t.project.as_str(), t.counted)).collect();
        assert_eq!(keys, [(id(1).to_vec(), "b", 2), (id(2).to_vec(), "a", 1), (id(2).to_vec(), "b", 1)]);
    }

    #[test]
    fn the_import_that_was_idle_longest_is_forgotten_first() {
        let mut imports = Imports::default();
        let add = |imports: &mut Imports, number: u64, time: i64| {
            let counts = Counts { counted: 1, ..Counts::default() };
            imports.add(&counts.into_tally(&id(number), "p"), time);
        };
        for number in 0..REMEMBERED as u64 {
            add(&mut imports, number, number.cast_signed());
        }
        assert_eq!(imports.forgotten_micros("p"), i64::MIN);
        // The oldest goes on, so the second is the one to go.
        add(&mut imports, 0, 5000);
        add(&mut imports, 7000, 7000);
        assert_eq!(imports.get("p", &id(0)).unwrap().counts.counted, 2);
        assert_eq!(imports.get("p", &id(1)), None);
        assert_eq!(imports.forgotten_micros("p"), 1);
        // A snapshot keeps the order.
        let (states, forgotten) = imports.to_proto();
        let mut imports = Imports::from_proto(&states, &forgotten);
        add(&mut imports, 7001, 7001);
        assert!(imports.get("p", &id(0)).is_some() && imports.get("p", &id(2)).is_none());
        assert_eq!(imports.forgotten_micros("p"), 2);
        // Another project's imports push nothing out.
        imports.add(&Counts::default().into_tally(&id(1), "other"), 8000);
        assert!(imports.get("p", &id(3)).is_some());
    }
}
