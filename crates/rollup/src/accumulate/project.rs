use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use weir_proto::rollup::v1 as proto;

use super::{
    Observation,
    dictionary::{Dictionary, MISSING, ValueId},
};
use crate::{
    cell::{Cell, Placed, Value},
    definition::{Catalog, MAX_DIMENSIONS},
    distinct::Union,
    level::Level,
    money::Revenue,
    numeric::Summary,
};

/// Values of a definition's dimensions; unused places are 0.
type Combination = [ValueId; MAX_DIMENSIONS];

/// What tells one cell from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    bucket: i64,
    combination: Combination,
    definition: u32,
    level: Level,
}

/// A cell that is being filled.
#[derive(Debug)]
struct Filling {
    key: Key,
    /// The coarser cell that it is a part of.
    whole: Option<u32>,
    count: u64,
    late: u64,
    users: Union,
    sessions: Union,
    revenue: Revenue,
    numerics: Vec<(u32, Summary)>,
}

/// The cells of one project.
#[derive(Debug)]
pub(super) struct Project {
    name: String,
    /// One per slot.
    dictionaries: Vec<Dictionary>,
    /// The event at hand: its value in each slot.
    values: Vec<ValueId>,
    /// Indexes into `cells`.
    index: HashTable<u32>,
    cells: Vec<Filling>,
}

impl Project {
    pub(super) fn new(name: &str, catalog: &Catalog) -> Project {
        let slots = catalog.dimension_fields().len();
        Project {
            name: name.to_owned(),
            dictionaries: vec![Dictionary::default(); slots],
            values: vec![0; slots],
            index: HashTable::new(),
            cells: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns how many cells came to be.
    #[inline]
    pub(super) fn add(&mut self, catalog: &Catalog, event: &Observation<'_>) -> usize {
        for ((number, dictionary), text) in
            self.values.iter_mut().zip(&mut self.dictionaries).zip(event.dimensions)
        {
            *number = dictionary.number(*text);
        }
        let before = self.cells.len();
        let (level, bucket) = (event.level, event.level.bucket_of(event.time_micros));
        for &definition in catalog.finest() {
            let mut combination = Combination::default();
            for (place, slot) in combination.iter_mut().zip(catalog.slots(definition)) {
                *place = self.values[*slot];
            }
            let key = Key { bucket, combination, definition: definition as u32, level };
            let at = match self.find(&key) {
                Ok(at) => at,
                Err(hash) => self.create(key, hash, catalog),
            };
            self.cells[at].add(event);
        }
        self.cells.len() - before
    }

    #[inline]
    fn find(&self, key: &Key) -> Result<usize, u64> {
        let hash = hash(key);
        self.index.find(hash, |at| self.cells[*at as usize].key == *key).map(|at| *at as usize).ok_or(hash)
    }

    /// Makes a cell, and the coarser ones that it is a part of.
    #[cold]
    fn create(&mut self, key: Key, hash: u64, catalog: &Catalog) -> usize {
        let definition = key.definition as usize;
        let whole = match catalog.feeds(definition) {
            Some(coarser) => {
                let mut whole = Key { definition: coarser as u32, ..key };
                whole.combination[catalog.slots(coarser).len()..].fill(MISSING);
                let at = match self.find(&whole) {
                    Ok(at) => at,
                    Err(hash) => self.create(whole, hash, catalog),
                };
                Some(number(at))
            }
            None => None,
        };
        let at = self.cells.len();
        self.cells.push(Filling::new(key, whole));
        self.index.insert_unique(hash, number(at), |at| self::hash(&self.cells[*at as usize].key));
        at
    }

    /// Adds the cells of finer definitions up to those that are their sums.
    fn sum_up(&mut self, catalog: &Catalog) {
        // Finest first: what has been added to is added on.
        for dimensions in (1..=MAX_DIMENSIONS).rev() {
            for at in 0..self.cells.len() {
                let Filling { key, whole: Some(whole), .. } = self.cells[at] else { continue };
                if catalog.slots(key.definition as usize).len() == dimensions {
                    let cells = self.cells.get_disjoint_mut([at, whole as usize]);
                    let [part, whole] = cells.expect("a cell is not a part of itself");
                    whole.absorb(part);
                }
            }
        }
    }

    /// `None` when nothing was added.
    pub(super) fn drain(&mut self, catalog: &Catalog) -> Option<proto::ProjectDelta> {
        if self.cells.is_empty() {
            return None;
        }
        self.sum_up(catalog);
        let mut rollups: Vec<_> = catalog
            .ids()
            .iter()
            .map(|id| proto::RollupDelta { definition: *id, cells: Vec::new() })
            .collect();
        for cell in self.cells.drain(..) {
            let definition = cell.key.definition as usize;
            let slots = catalog.slots(definition).iter().zip(cell.key.combination);
            let dimensions = slots.map(|(slot, number)| self.dictionaries[*slot].value(number)).collect();
            rollups[definition].cells.push(cell.finish(dimensions).into_proto());
        }
        rollups.retain(|rollup| !rollup.cells.is_empty());
        self.index.clear();
        self.dictionaries.iter_mut().for_each(Dictionary::next_batch);
        Some(proto::ProjectDelta { project: self.name.clone(), rollups })
    }
}

impl Filling {
    fn new(key: Key, whole: Option<u32>) -> Filling {
        Filling {
            key,
            whole,
            count: 0,
            late: 0,
            users: Union::for_cell(),
            sessions: Union::for_cell(),
            revenue: Revenue::default(),
            numerics: Vec::new(),
        }
    }

    #[inline]
    fn add(&mut self, event: &Observation<'_>) {
        self.count += 1;
        self.late += u64::from(event.late);
        self.users.insert(event.user);
        if let Some(session) = event.session {
            self.sessions.insert(session);
        }
        if let Some(revenue) = &event.revenue {
            revenue.add_to(&mut self.revenue);
        }
        for (index, value) in event.numerics.iter().enumerate() {
            if let Some(value) = value
                && value.is_finite()
            {
                self.summary(index as u32).add(*value);
            }
        }
    }

    /// Adds what another cell holds, with other events.
    fn absorb(&mut self, part: &Filling) {
        self.count += part.count;
        self.late += part.late;
        self.users.merge(&part.users);
        self.sessions.merge(&part.sessions);
        self.revenue.merge(&part.revenue);
        for (index, summary) in &part.numerics {
            self.summary(*index).merge(summary);
        }
    }

    #[inline]
    fn summary(&mut self, index: u32) -> &mut Summary {
        let place = self.numerics.partition_point(|(known, _)| *known < index);
        if self.numerics.get(place).is_none_or(|(known, _)| *known != index) {
            self.numerics.insert(place, (index, Summary::default()));
        }
        &mut self.numerics[place].1
    }

    fn finish(self, dimensions: Vec<Value>) -> Placed {
        let Key { level, bucket, .. } = self.key;
        let cell = Cell {
            count: self.count,
            late: self.late,
            users: self.users.into_distinct(),
            sessions: self.sessions.into_distinct(),
            revenue: self.revenue,
            numerics: self.numerics,
        };
        Placed { dimensions, level, bucket, cell }
    }
}

fn number(cell: usize) -> u32 {
    u32::try_from(cell).expect("a batch has fewer than 2^32 cells")
}

/// A fixed seed: keys are numbers of our own making.
#[inline]
fn hash(key: &Key) -> u64 {
    let [a, b, c, d] = key.combination.map(u64::from);
    let rollup = u64::from(key.definition) << 8 | key.level as u64;
    FixedState::with_seed(0).hash_one((key.bucket, a << 32 | b, c << 32 | d, rollup))
}
