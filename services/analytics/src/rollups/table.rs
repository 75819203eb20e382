//! The cells of a question, sorted by group and slot, and what they add up to.
//!
//! Only pointers are gathered; sums are made one after the other from the sorted pointers. So the memory that a query
//! takes is 24 bytes a cell and what its answer holds, however large the sets of users are.

use hashbrown::HashMap;
use weir_query::filter::{Filter, Operand, Truth};
use weir_rollup::{
    cell::Cell,
    definition::{Definition, may_be_cut},
    field::Field,
};

use super::{
    flaw::{Flaw, Flaws},
    measure::{Needs, Sum},
};
use crate::{
    error::Error,
    materialise::{PartView, Symbol, Texts, Value, View},
};

/// Asked now and then whether to go on; the error ends the evaluation.
pub(crate) type Patience<'a> = &'a (dyn Fn() -> Result<(), Error> + Sync);

/// How many cells are read between two questions to the [`Patience`].
const STRIDE: usize = 4096;

/// Cells that a question may gather: 240 MB of pointers.
const MAX_CELLS: usize = 10_000_000;

/// The position of a group among the groups of a table.
pub(crate) type Group = usize;

/// The cells that pass a filter.
#[derive(Debug)]
pub(crate) struct Table<'v> {
    groups: Vec<Box<[Value]>>,
    /// By group and slot.
    cells: Vec<Found<'v>>,
    /// By group: where its cells begin; and the end of the last one.
    starts: Vec<usize>,
    /// Groups with values that were folded together, and the slots where they have events.
    folded: Vec<(Group, Vec<(u32, u64)>)>,
    rows_read: u64,
}

#[derive(Debug, Clone, Copy)]
struct Found<'v> {
    group: u32,
    slot: u32,
    doubtful: bool,
    cell: &'v Cell,
}

impl<'v> Table<'v> {
    /// Gathers the cells of part `part` of all views that pass the filter, by the values of `group_by`. The definition has
    /// all these fields.
    pub(crate) fn gather(
        views: &'v [View],
        part: usize,
        definition: &Definition,
        filter: &Filter,
        group_by: &[Field],
        flaws: &Flaws,
        patience: Patience<'_>,
    ) -> Result<Self, Error> {
        let position = |field: &Field| {
            let found = definition.dimensions.iter().position(|known| known == field);
            found.expect("the plan chose a rollup with this dimension")
        };
        let tested: Vec<usize> = filter.fields().iter().map(position).collect();
        let grouped: Vec<usize> = group_by.iter().map(position).collect();

        let mut groups = Groups::default();
        let mut cells = Vec::new();
        let mut rows_read: u64 = 0;
        for view in views {
            let PartView { rows, buckets, .. } = &view.parts[part];
            // What becomes of a row is decided once, not for each of its cells.
            let fates: Vec<Option<Fate>> =
                rows.iter().map(|row| groups.fate(row, &view.texts, filter, &tested, &grouped)).collect();
            for (slot, bucket) in buckets {
                rows_read += bucket.cells().len() as u64;
                for (row, cell) in bucket.cells() {
                    if let Some(Fate { group, doubtful, cut, folded }) = fates[*row as usize] {
                        flaws.note_if(cut, Flaw::CutValues);
                        flaws.note_if(folded, Flaw::FoldedValues);
                        if cells.len() % STRIDE == 0 {
                            patience()?;
                        }
                        if cells.len() == MAX_CELLS {
                            return Err(Error::TooLarge {
                                rows: "to read too many cells".to_owned(),
                                limit: MAX_CELLS as u64,
                                mend: "shorten the range, filter, or begin and end at full days",
                            });
                        }
                        cells.push(Found { group, slot: *slot, doubtful, cell });
                    }
                }
            }
        }
        // Stable, so that sums add up in one order for one state.
        cells.sort_by_key(|found| (found.group, found.slot));
        let groups = groups.values;
        let starts: Vec<usize> = (0..=groups.len())
            .map(|group| cells.partition_point(|found| (found.group as usize) < group))
            .collect();
        let mut table = Self { groups, cells, starts, folded: Vec::new(), rows_read };
        table.folded = table.find_folded();
        Ok(table)
    }

    fn find_folded(&self) -> Vec<(Group, Vec<(u32, u64)>)> {
        let has_other = |group: &Group| self.groups[*group].contains(&Value::Other);
        (0..self.groups.len())
            .filter(has_other)
            .map(|group| {
                let by_slot = self.of(group).chunk_by(|a, b| a.slot == b.slot);
                let events =
                    by_slot.map(|cells| (cells[0].slot, cells.iter().map(|found| found.cell.count).sum()));
                (group, events.collect())
            })
            .collect()
    }

    fn of(&self, group: Group) -> &[Found<'v>] {
        &self.cells[self.starts[group]..self.starts[group + 1]]
    }

    /// All groups that have an event. Where there is one group by nothing, it may have one.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> {
        let has_events = |group: &Group| {
            self.groups[*group].is_empty() || self.of(*group).iter().any(|found| !found.doubtful)
        };
        (0..self.groups.len()).filter(has_events)
    }

    /// The values of a group.
    pub(crate) fn values(&self, group: Group) -> &[Value] {
        &self.groups[group]
    }

    /// Cells that were looked at.
    pub(crate) fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// Everything, over all groups and slots.
    pub(crate) fn total(&self, needs: &Needs, patience: Patience<'_>) -> Result<Sum, Error> {
        sum(&self.cells, needs, patience)
    }

    /// A group over all slots.
    pub(crate) fn group_total(
        &self,
        group: Group,
        needs: &Needs,
        patience: Patience<'_>,
    ) -> Result<Sum, Error> {
        let mut total = sum(self.of(group), needs, patience)?;
        self.qualify(&mut total, group, None);
        Ok(total)
    }

    /// What a group without cells in a slot may have there; nothing for sure if it is `None`.
    pub(crate) fn nothing(&self, group: Option<Group>, slot: u32, needs: &Needs) -> Sum {
        let mut nothing = Sum::new(needs);
        group.into_iter().for_each(|group| self.qualify(&mut nothing, group, Some(slot)));
        nothing
    }

    /// Whether it is sure that groups have no events where they have no cells.
    pub(crate) fn is_sure(&self) -> bool {
        self.folded.is_empty()
    }

    /// Notes how sure it is what belongs to a group, in one slot or all of them.
    fn qualify(&self, sum: &mut Sum, group: Group, slot: Option<u32>) {
        sum.doubt(self.doubts(group, slot));
        if self.groups[group].iter().any(stands_for_several) {
            sum.stands_for_several();
        }
    }

    /// A group's slots that have, or may have, events, in order.
    pub(crate) fn slots(
        &self,
        group: Group,
        needs: &Needs,
        patience: Patience<'_>,
    ) -> impl Iterator<Item = Result<(u32, Sum), Error>> {
        let chunks = self.of(group).chunk_by(|a, b| a.slot == b.slot);
        chunks.map(move |cells| {
            let slot = cells[0].slot;
            let mut sum = sum(cells, needs, patience)?;
            self.qualify(&mut sum, group, Some(slot));
            Ok((slot, sum))
        })
    }

    /// Events, in one slot or all of them, of which some may belong to the group: their values were folded together.
    fn doubts(&self, group: Group, slot: Option<u32>) -> u64 {
        let values = &self.groups[group];
        let may_hold = |folded: &Group| {
            *folded != group
                && self.groups[*folded]
                    .iter()
                    .zip(values)
                    .all(|(folded, value)| *folded == Value::Other || folded == value)
        };
        let folded = self.folded.iter().filter(|(folded, _)| may_hold(folded));
        folded
            .flat_map(|(_, slots)| slots)
            .filter(|(of, _)| slot.is_none_or(|slot| slot == *of))
            .map(|(_, events)| events)
            .sum()
    }
}

fn sum(cells: &[Found<'_>], needs: &Needs, patience: Patience<'_>) -> Result<Sum, Error> {
    let mut sum = Sum::new(needs);
    for (index, found) in cells.iter().enumerate() {
        if index % STRIDE == 0 {
            patience()?;
        }
        if found.doubtful {
            sum.doubt(found.cell.count);
        } else {
            sum.add(found.cell);
        }
    }
    Ok(sum)
}

/// Whether the value of a group is not one value: it was cut, or folded together with others.
fn stands_for_several(value: &Value) -> bool {
    match value {
        Value::Missing => false,
        Value::Text(text) => may_be_cut(text),
        Value::Other => true,
    }
}

/// What becomes of a row's cells.
#[derive(Debug, Clone, Copy)]
struct Fate {
    group: u32,
    /// Whether it is doubtful that they pass the filter.
    doubtful: bool,
    /// Whether that, or the group, depends on a value that was cut.
    cut: bool,
    /// Whether it depends on values that were folded together.
    folded: bool,
}

#[derive(Default)]
struct Groups {
    values: Vec<Box<[Value]>>,
    by_values: HashMap<Box<[Value]>, u32>,
}

impl Groups {
    /// What becomes of a row's cells; `None` if it does not pass the filter.
    fn fate(
        &mut self,
        row: &[Symbol],
        texts: &Texts,
        filter: &Filter,
        tested: &[usize],
        grouped: &[usize],
    ) -> Option<Fate> {
        // Cells of a wrong writer may have fewer values than their rollup has dimensions.
        let symbol = |dimension: usize| row.get(dimension).copied().unwrap_or(Symbol::MISSING);
        let truth = filter.evaluate(&|field| match symbol(tested[field]) {
            Symbol::MISSING => Operand::Missing,
            Symbol::OTHER => Operand::Unknown,
            symbol => texts.text(symbol).map_or(Operand::Missing, |text| {
                if may_be_cut(text) { Operand::Cut(text) } else { Operand::Text(text) }
            }),
        });
        let doubtful = match truth {
            Truth::No => return None,
            Truth::Maybe => true,
            Truth::Yes => false,
        };
        let is_cut = |dimension: &usize| texts.text(symbol(*dimension)).is_some_and(may_be_cut);
        let is_folded = |dimension: &usize| symbol(*dimension) == Symbol::OTHER;
        let deciding = || grouped.iter().chain(tested.iter().filter(|_| doubtful));
        let (cut, folded) = (deciding().any(is_cut), deciding().any(is_folded));
        let values: Box<[Value]> = grouped.iter().map(|dimension| texts.value(symbol(*dimension))).collect();
        let group = *self.by_values.entry(values).or_insert_with_key(|values| {
            self.values.push(values.clone());
            u32::try_from(self.values.len() - 1).expect("rows are far fewer than 2^32")
        });
        Some(Fate { group, doubtful, cut, folded })
    }
}
