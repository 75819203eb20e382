//! The cells of one rollup of one project: by level, bucket and combination of values.
//!
//! Everything that readers see hangs on `Arc`s: a view or a snapshot clones the pointers of the buckets it needs, and
//! whoever adds to a bucket or cell while somebody still reads it works on a copy of just that. So neither queries nor
//! snapshots stop the partition, and each of them sees one moment.
//!
//! How many values are told apart is limited by day: in the widest bucket that a cell belongs to, which is that of its day,
//! the first values of each dimension have rows of their own, and the others are folded together, there and in every
//! narrower bucket. That is a function of the records alone, in their order: whoever reads them, or a snapshot of them,
//! folds the same. Rows go with their last cell, and texts with their last row.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use hashbrown::{HashMap, HashSet};
use weir_rollup::{
    cell::{Cell, Placed, Value},
    level::{Level, Whole},
};

use super::names::{Names, Symbol};

/// Combinations of values that one bucket tells apart at most; beyond it, only the first value is told apart and the others
/// are folded together. Bounds the memory of rollups with several dimensions, whose limits multiply.
const MAX_COMBINATIONS: usize = 100_000;

/// The number of a combination of values within its cube.
pub(crate) type Row = u32;

/// The values of every row; none where a number is not in use. Cloning is cheap.
pub(crate) type Rows = Arc<Vec<Arc<[Symbol]>>>;

/// The cells of one bucket, by row, ascending.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bucket {
    cells: Vec<(Row, Arc<Cell>)>,
    /// By dimension: the values that are told apart here, once there may be as many as the limit.
    known: Option<Box<[HashSet<Symbol>]>>,
}

impl Bucket {
    /// Its cells, by row.
    pub(crate) fn cells(&self) -> &[(Row, Arc<Cell>)] {
        &self.cells
    }

    /// Adds to the row's cell; returns whether it is new. The pointer is kept then, so that the levels share cells until
    /// they differ.
    fn add(&mut self, row: Row, values: &[Symbol], cell: &Arc<Cell>) -> bool {
        match self.cells.binary_search_by_key(&row, |(row, _)| *row) {
            Ok(index) => Arc::make_mut(&mut self.cells[index].1).merge(cell),
            Err(index) => {
                self.cells.insert(index, (row, cell.clone()));
                for (known, value) in self.known.iter_mut().flatten().zip(values) {
                    known.extend(value.is_text().then_some(*value));
                }
                return true;
            }
        }
        false
    }

    /// The values that are told apart, by dimension; `None` while they are fewer than `limit`.
    fn known(&mut self, rows: &Rows, limit: usize) -> Option<&[HashSet<Symbol>]> {
        if self.known.is_none() && self.cells.len() >= limit {
            let of = |row: &Row| &rows[*row as usize];
            let mut known = vec![HashSet::new(); self.cells.first().map_or(0, |(row, _)| of(row).len())];
            for (row, _) in &self.cells {
                for (known, value) in known.iter_mut().zip(of(row).iter()) {
                    known.extend(value.is_text().then_some(*value));
                }
            }
            self.known = Some(known.into());
        }
        self.known.as_deref()
    }
}

/// The place of a level in arrays by level, finest first.
pub(crate) const fn index(level: Level) -> usize {
    level as usize - 1
}

/// The buckets of one level.
pub(crate) type Buckets = BTreeMap<i64, Arc<Bucket>>;

/// The cells of one rollup of one project.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cube {
    rows: Rows,
    by_values: HashMap<Arc<[Symbol]>, Row>,
    /// By row: the cells that it has.
    uses: Vec<u32>,
    unused: Vec<Row>,
    levels: [Buckets; Level::ALL.len()],
}

impl Cube {
    /// Adds a cell to its level and every coarser one, where the buckets are whole. Of each dimension, `max_values` are told
    /// apart in a day.
    pub(crate) fn count(&mut self, placed: Placed, whole: &Whole, max_values: usize, names: &mut Names) {
        let Placed { dimensions, level, bucket, cell } = placed;
        let places = level.and_coarser().map(|coarser| (coarser, level.bucket_at(bucket, coarser)));
        let places = places.filter(|(level, bucket)| level.start_micros(*bucket) >= whole.since(*level));
        let Some((widest, number)) = places.clone().last() else { return };
        let bucket = Arc::make_mut(self.levels[index(widest)].entry(number).or_default());
        let full = bucket.cells.len() >= MAX_COMBINATIONS;
        let known = bucket.known(&self.rows, max_values);
        let folded = dimensions.iter().enumerate().map(|(dimension, value)| {
            let known = known.and_then(|known| known.get(dimension));
            let room = known.is_none_or(|known| known.len() < max_values);
            held(value, names, |symbol| room || known.is_some_and(|known| known.contains(&symbol)), room)
        });
        let mut values: Vec<Symbol> = folded.collect();
        if full && values.len() > 1 {
            let row = self.by_values.get(values.as_slice());
            if row.is_none_or(|row| bucket.cells.binary_search_by_key(row, |(row, _)| *row).is_err()) {
                // The first value is bounded by itself, so the limit is exceeded by little.
                values[1..]
                    .iter_mut()
                    .for_each(|value| names.release(std::mem::replace(value, Symbol::OTHER)));
            }
        }
        let row = self.row(values, names);
        let cell = Arc::new(cell);
        for (level, number) in places {
            self.add(level, number, row, &cell);
        }
    }

    /// Brings back a cell of one level as it was counted.
    pub(crate) fn restore(&mut self, placed: Placed, names: &mut Names) {
        let Placed { dimensions, level, bucket, cell } = placed;
        let values = dimensions.iter().map(|value| held(value, names, |_| true, true)).collect();
        let row = self.row(values, names);
        self.add(level, bucket, row, &Arc::new(cell));
    }

    fn add(&mut self, level: Level, number: i64, row: Row, cell: &Arc<Cell>) {
        let bucket = Arc::make_mut(self.levels[index(level)].entry(number).or_default());
        self.uses[row as usize] += u32::from(bucket.add(row, &self.rows[row as usize], cell));
    }

    /// The row of a combination of values, which are held: by the row if it is new.
    fn row(&mut self, values: Vec<Symbol>, names: &mut Names) -> Row {
        if let Some(row) = self.by_values.get(values.as_slice()) {
            values.into_iter().for_each(|value| names.release(value));
            return *row;
        }
        let values: Arc<[Symbol]> = values.into();
        let rows = Arc::make_mut(&mut self.rows);
        let row = self.unused.pop().unwrap_or_else(|| {
            rows.push(values.clone());
            self.uses.push(0);
            Row::try_from(rows.len() - 1).expect("each has a cell, and memory ends before 2^32 cells")
        });
        rows[row as usize] = values.clone();
        self.by_values.insert(values, row);
        row
    }

    /// Forgets the level's buckets before `bucket`.
    pub(crate) fn drop_before(&mut self, level: Level, bucket: i64, names: &mut Names) {
        while let Some(first) = self.levels[index(level)].first_entry()
            && *first.key() < bucket
        {
            for (row, _) in first.remove().cells() {
                self.uses[*row as usize] -= 1;
                if self.uses[*row as usize] == 0 {
                    let values = std::mem::take(&mut Arc::make_mut(&mut self.rows)[*row as usize]);
                    self.by_values.remove(&values);
                    values.iter().for_each(|value| names.release(*value));
                    self.unused.push(*row);
                }
            }
        }
    }

    /// The values of every row.
    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The level's buckets.
    pub(crate) fn buckets(&self, level: Level) -> &Buckets {
        &self.levels[index(level)]
    }

    /// The level's buckets with these numbers, those that exist.
    pub(crate) fn range(
        &self,
        level: Level,
        buckets: Range<i64>,
    ) -> impl Iterator<Item = (i64, &Arc<Bucket>)> {
        // BTreeMap::range panics where the start lies behind the end.
        let range = buckets.start..buckets.end.max(buckets.start);
        self.buckets(level).range(range).map(|(number, bucket)| (*number, bucket))
    }

    /// Number of cells over all levels.
    pub(crate) fn cells(&self) -> usize {
        self.levels.iter().flat_map(BTreeMap::values).map(|bucket| bucket.cells.len()).sum()
    }
}

/// The symbol of a value, held by the caller: that of `Other` when it is neither `known` nor is there room for one more.
fn held(value: &Value, names: &mut Names, known: impl Fn(Symbol) -> bool, room: bool) -> Symbol {
    match value {
        Value::Missing => Symbol::MISSING,
        Value::Other => Symbol::OTHER,
        Value::Text(text) if room || names.get(text).is_some_and(known) => names.hold(text),
        Value::Text(_) => Symbol::OTHER,
    }
}
