//! The cells of one rollup of one project: by level, bucket and combination of values.
//!
//! Everything that readers see hangs on `Arc`s: a view or a snapshot clones the pointers of the buckets it needs, and
//! whoever adds to a bucket or cell while somebody still reads it works on a copy of just that. So neither queries nor
//! snapshots stop the partition, and each of them sees one moment.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use hashbrown::{HashMap, HashSet};
use weir_rollup::{
    cell::{Cell, Value},
    level::Level,
};

use super::names::{Names, Symbol};

/// Combinations of values that a rollup tells apart at most; beyond it, only the first value is told apart and the others are
/// folded together. Bounds the memory of rollups with several dimensions, whose limits multiply.
const MAX_ROWS: usize = 100_000;

/// The number of a combination of values within its cube.
pub(crate) type Row = u32;

/// The values of every row. Cloning is cheap.
pub(crate) type Rows = Arc<Vec<Arc<[Symbol]>>>;

/// The cells of one bucket, by row, ascending.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bucket {
    cells: Vec<(Row, Arc<Cell>)>,
}

impl Bucket {
    /// Its cells, by row.
    pub(crate) fn cells(&self) -> &[(Row, Arc<Cell>)] {
        &self.cells
    }

    /// Adds to the row's cell. The pointer is kept where the row is new, so that the levels share cells until they differ.
    fn add(&mut self, row: Row, cell: &Arc<Cell>) {
        match self.cells.binary_search_by_key(&row, |(row, _)| *row) {
            Ok(index) => Arc::make_mut(&mut self.cells[index].1).merge(cell),
            Err(index) => self.cells.insert(index, (row, cell.clone())),
        }
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
    /// By dimension: the values that are told apart.
    known: Vec<HashSet<Symbol>>,
    levels: [Buckets; Level::ALL.len()],
}

impl Cube {
    /// The row of a combination of values, which is new or known or, beyond `max_values` of a dimension, has `Other`
    /// instead of the value.
    pub(crate) fn row(&mut self, values: &[Value], max_values: usize, names: &mut Names) -> Row {
        self.known.resize_with(self.known.len().max(values.len()), HashSet::new);
        let mut symbols: Vec<Symbol> = values
            .iter()
            .zip(&mut self.known)
            .map(|(value, known)| match value {
                Value::Missing => Symbol::MISSING,
                Value::Other => Symbol::OTHER,
                Value::Text(text) => match names.get(text) {
                    Some(symbol) if known.contains(&symbol) => symbol,
                    _ if known.len() >= max_values => Symbol::OTHER,
                    found => {
                        let symbol = found.unwrap_or_else(|| names.intern(text));
                        known.insert(symbol);
                        symbol
                    }
                },
            })
            .collect();
        if let Some(row) = self.by_values.get(symbols.as_slice()) {
            return *row;
        }
        if self.rows.len() >= MAX_ROWS && symbols.len() > 1 {
            // The first value is bounded by itself, so the limit is exceeded by little. As the accumulator does it.
            symbols[1..].fill(Symbol::OTHER);
            if let Some(row) = self.by_values.get(symbols.as_slice()) {
                return *row;
            }
        }
        self.push_row(symbols.into())
    }

    fn push_row(&mut self, symbols: Arc<[Symbol]>) -> Row {
        let rows = Arc::make_mut(&mut self.rows);
        let row = Row::try_from(rows.len()).expect("MAX_ROWS is far below 2^32");
        rows.push(symbols.clone());
        self.by_values.insert(symbols, row);
        row
    }

    /// Adds to one cell of one level.
    pub(crate) fn add(&mut self, level: Level, bucket: i64, row: Row, cell: &Arc<Cell>) {
        Arc::make_mut(self.levels[index(level)].entry(bucket).or_default()).add(row, cell);
    }

    /// Forgets the level's buckets before `bucket`.
    pub(crate) fn drop_before(&mut self, level: Level, bucket: i64) {
        let buckets = &mut self.levels[index(level)];
        while let Some(first) = buckets.first_entry()
            && *first.key() < bucket
        {
            first.remove();
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
