//! What each stream adds up: by group and bucket, a cell of each measure.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, PrimitiveArray, RecordBatch, StringViewArray},
    buffer::BooleanBuffer,
    datatypes::{
        ArrowPrimitiveType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    },
};
use datafusion::{common::ScalarValue, logical_expr::lit};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_rollup::{
    field::Field,
    money::{Currency, Revenue},
    numeric::Summary,
};
use weir_store::{encode::NANOS, schema::column as name, view::Column};
use xxhash_rust::xxh3::xxh3_64;

use super::{Question, grid::Grid};
use crate::{
    Error,
    buckets::Buckets,
    fold::active::Sighting,
    gather::{PARTS, each_row, holds, part},
    measure::{Measure, Statistic},
    pile::Pile,
    scan::{Scan, Sink},
    texts::{Entries, Texts},
};

/// Groups times buckets up to which cells are found in a table, of 4 MB, instead of by hashing.
const TABLE: usize = 1 << 20;
/// Says that there is no cell yet.
const NO_CELL: u32 = u32::MAX;

/// Where the parts of a measure are in the batches of a scan.
#[derive(Debug, Clone)]
struct Spec {
    /// Only rows where this holds.
    filter: Option<usize>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Visits need all events of a user together.
    Elsewhere,
    Events,
    /// A column of hashes.
    Hashes(usize),
    /// A column of texts.
    Texts(usize),
    /// Columns of amounts and currencies, and the only currency that is wanted, if one is.
    Revenue(usize, usize, Option<Currency>),
    /// A column of numbers, added up.
    Summary(usize),
    /// A column of numbers, all kept.
    Values(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Layout {
    holds: usize,
    /// `None` where there is one bucket.
    time: Option<usize>,
    by: By,
    buckets: Arc<Buckets>,
    specs: Vec<Spec>,
}

/// Columns of what events are grouped by.
#[derive(Debug, Clone)]
enum By {
    Nothing,
    /// A dictionary.
    Text(usize),
    /// Texts.
    Texts(Vec<usize>),
}

/// What to read for a question.
pub(super) fn scan(question: &Question, grid: &Grid) -> (Scan, Layout) {
    let mut scan = Scan::of(&grid.reads(&question.range));
    if !question.filter.is_empty() {
        let condition = scan.filter(&question.filter);
        scan.keep(condition);
    }
    let holds = scan.select_holds();
    let time = (grid.read().len() > 1).then(|| scan.select_column(Column::Core(name::TIME)));
    let by = match question.by.as_slice() {
        [] => By::Nothing,
        [field] => By::Text(scan.select_column(Column::Numbered(Box::new(Column::text(field))))),
        fields => By::Texts(fields.iter().map(|field| scan.select_column(Column::text(field))).collect()),
    };
    let specs = question
        .measures
        .iter()
        .map(|measured| {
            let filter = (!measured.filter.is_empty()).then(|| {
                // Where few rows are wanted, only those are tested.
                let condition = scan.column(Column::Holds).and(scan.filter(&measured.filter));
                scan.select(condition)
            });
            Spec { filter, kind: kind(&measured.measure, &mut scan) }
        })
        .collect();
    let buckets = Arc::new(Buckets::new(grid.read()));
    (scan, Layout { holds, time, by, buckets, specs })
}

fn kind(measure: &Measure, scan: &mut Scan) -> Kind {
    let mut numbers = |field: &Field| match Column::number(field) {
        Some(column) => scan.select_column(column),
        None => scan.select(lit(ScalarValue::Float64(None))),
    };
    match measure {
        Measure::Events => Kind::Events,
        Measure::Numeric(field, Statistic::Quantile(_)) => Kind::Values(numbers(field)),
        Measure::Numeric(field, _) => Kind::Summary(numbers(field)),
        Measure::UniqueUsers => Kind::Hashes(scan.select_column(Column::Core(name::USER_HASH))),
        Measure::Sessions => Kind::Texts(scan.select_column(Column::Core(name::SESSION_ID))),
        Measure::UniqueValues(field) => Kind::Texts(scan.select_column(Column::text(field))),
        Measure::Visits => Kind::Elsewhere,
        Measure::Revenue(wanted) => {
            let amount = scan.select_column(Column::Core(name::REVENUE));
            Kind::Revenue(amount, scan.select_column(Column::Core(name::CURRENCY)), *wanted)
        }
    }
}

/// By cell: what a measure adds up to there.
#[derive(Debug)]
pub(super) enum Measurements {
    Events(Vec<u64>),
    Revenue(Vec<Revenue>),
    Summary(Vec<Summary>),
    Values(Vec<Vec<f64>>),
    Elsewhere,
    /// Not by cell: by part of the actors, where they were seen.
    Sightings(Vec<Pile<Sighting>>),
}

impl Measurements {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Elsewhere => Self::Elsewhere,
            Kind::Events => Self::Events(Vec::new()),
            Kind::Revenue(..) => Self::Revenue(Vec::new()),
            Kind::Summary(_) => Self::Summary(Vec::new()),
            Kind::Values(_) => Self::Values(Vec::new()),
            Kind::Hashes(_) | Kind::Texts(_) => {
                Self::Sightings((0..PARTS).map(|_| Pile::default()).collect())
            }
        }
    }

    /// Makes room for cells.
    pub(super) fn resize(&mut self, cells: usize) {
        match self {
            Self::Events(all) => all.resize(cells, 0),
            Self::Revenue(all) => all.resize(cells, Revenue::default()),
            Self::Summary(all) => all.resize_with(cells, Summary::default),
            Self::Values(all) => all.resize_with(cells, Vec::new),
            Self::Sightings(_) | Self::Elsewhere => {}
        }
    }

    /// A column of the same kind, empty.
    pub(super) fn alike(&self) -> Self {
        match self {
            Self::Elsewhere => Self::Elsewhere,
            Self::Events(_) => Self::Events(Vec::new()),
            Self::Revenue(_) => Self::Revenue(Vec::new()),
            Self::Summary(_) => Self::Summary(Vec::new()),
            Self::Values(_) => Self::Values(Vec::new()),
            Self::Sightings(_) => Self::Sightings(Vec::new()),
        }
    }

    /// Adds the cells of another column of the same kind; `places` are their positions here. Sightings are left alone.
    pub(super) fn absorb(&mut self, other: Self, places: &[u32]) {
        match (self, other) {
            (Self::Events(mine), Self::Events(theirs)) => {
                places.iter().zip(theirs).for_each(|(place, more)| mine[*place as usize] += more);
            }
            (Self::Revenue(mine), Self::Revenue(theirs)) => {
                places.iter().zip(&theirs).for_each(|(place, more)| mine[*place as usize].merge(more));
            }
            (Self::Summary(mine), Self::Summary(theirs)) => {
                places.iter().zip(&theirs).for_each(|(place, more)| mine[*place as usize].merge(more));
            }
            (Self::Values(mine), Self::Values(theirs)) => {
                places
                    .iter()
                    .zip(theirs)
                    .for_each(|(place, mut more)| mine[*place as usize].append(&mut more));
            }
            (
                Self::Events(_)
                | Self::Revenue(_)
                | Self::Summary(_)
                | Self::Values(_)
                | Self::Sightings(_)
                | Self::Elsewhere,
                _,
            ) => {}
        }
    }
}

/// The cells of one stream.
#[derive(Debug)]
pub(super) struct Cells {
    layout: Layout,
    pub(super) texts: Texts,
    entries: Entries,
    pub(super) index: Index,
    pub(super) columns: Vec<Measurements>,
    /// Numbers kept, bytes.
    kept: usize,
    /// Of the batch at hand, the rows that are wanted; `None`: all.
    wanted: Option<Vec<u32>>,
    /// And by row: its group, its bucket, and its cell.
    groups: Vec<u32>,
    buckets: Vec<u32>,
    places: Vec<u32>,
}

/// Which groups and buckets have cells, and which.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) cells: HashMap<(u32, u32), u32, FixedState>,
    /// The same where there are few groups and buckets: by group, the cells of all buckets.
    table: Vec<u32>,
    /// By cell: its group and bucket.
    keys: Vec<(u32, u32)>,
}

impl Index {
    /// The cell of a group and one of so many buckets.
    #[inline]
    fn cell(&mut self, group: u32, bucket: u32, buckets: usize) -> u32 {
        let at = group as usize * buckets + bucket as usize;
        match self.table.get(at) {
            Some(cell) if *cell != NO_CELL => *cell,
            Some(_) | None => self.find(group, bucket, at),
        }
    }

    #[inline(never)]
    fn find(&mut self, group: u32, bucket: u32, at: usize) -> u32 {
        let Self { cells, table, keys } = self;
        let (key, next) = ((group, bucket), keys.len() as u32);
        let cell = *cells.entry(key).or_insert_with(|| {
            keys.push(key);
            next
        });
        if at < TABLE {
            table.resize(table.len().max((at + 1).next_power_of_two()), NO_CELL);
            table[at] = cell;
        }
        cell
    }
}

impl Cells {
    pub(super) fn new(layout: Layout) -> Self {
        let columns = layout.specs.iter().map(|spec| Measurements::new(spec.kind)).collect();
        let (texts, entries, index) = (Texts::default(), Entries::default(), Index::default());
        let (groups, buckets, places) = (Vec::new(), Vec::new(), Vec::new());
        Self { layout, texts, entries, index, columns, kept: 0, wanted: None, groups, buckets, places }
    }

    /// Finds the rows that are wanted and their cells. One thing after the other of all rows, so that each is a short loop.
    fn place(&mut self, batch: &RecordBatch) {
        let wanted = holds(batch.column(self.layout.holds).as_boolean());
        self.wanted = (wanted.count_set_bits() < wanted.len())
            .then(|| wanted.set_indices().map(|row| row as u32).collect());
        for of_rows in [&mut self.groups, &mut self.buckets, &mut self.places] {
            of_rows.resize(batch.num_rows(), 0);
        }
        self.group(batch);
        let Self { layout, wanted, groups, buckets, index, places, .. } = self;
        if let Some(at) = layout.time {
            let times = batch.column(at).as_primitive::<TimestampMicrosecondType>().values();
            layout.buckets.find_all(times, wanted.as_deref(), buckets);
        }
        let count = layout.buckets.len();
        each_row(places.len(), wanted.as_deref(), |row| {
            places[row] = index.cell(groups[row], buckets[row], count);
        });
    }

    fn group(&mut self, batch: &RecordBatch) {
        let Self { layout, texts, entries, wanted, groups, .. } = self;
        let wanted = wanted.as_deref();
        match &layout.by {
            By::Nothing => {}
            By::Text(at) => {
                let column = batch.column(*at).as_dictionary::<Int32Type>();
                entries.begin_batch(column.values().as_string_view(), texts);
                let keys = column.keys().values();
                match column.nulls() {
                    None => each_row(groups.len(), wanted, |row| {
                        groups[row] = entries.number(Some(keys[row] as usize), texts);
                    }),
                    Some(nulls) => each_row(groups.len(), wanted, |row| {
                        let entry = nulls.is_valid(row).then(|| keys[row] as usize);
                        groups[row] = entries.number(entry, texts);
                    }),
                }
            }
            By::Texts(columns) => {
                texts.begin_batch();
                let columns: Vec<&StringViewArray> =
                    columns.iter().map(|at| batch.column(*at).as_string_view()).collect();
                each_row(groups.len(), wanted, |row| groups[row] = texts.number(&columns, row));
            }
        }
    }
}

impl Sink for Cells {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        self.place(batch);
        let cells = self.index.keys.len();
        let Self { layout, columns, index: Index { keys, .. }, wanted, places, kept, .. } = self;
        for (spec, column) in layout.specs.iter().zip(columns) {
            column.resize(cells);
            let filter = spec.filter.map(|at| holds(batch.column(at).as_boolean()));
            let rows = Rows { places, wanted: wanted.as_deref(), filter: filter.as_ref() };
            match (spec.kind, column) {
                (Kind::Events, Measurements::Events(counts)) => {
                    rows.each(|_, cell| counts[cell as usize] += 1)
                }
                (Kind::Hashes(at), column) => {
                    let hashes = batch.column(at).as_primitive::<Int64Type>().values();
                    let mut see = column.seeing(keys);
                    rows.each(|row, cell| see(hashes[row] as u64, cell));
                }
                (Kind::Texts(at), column) => {
                    let texts = batch.column(at).as_string_view();
                    let mut see = column.seeing(keys);
                    rows.each(|row, cell| {
                        if texts.is_valid(row) {
                            see(xxh3_64(texts.value(row).as_bytes()), cell);
                        }
                    });
                }
                (Kind::Revenue(amount, currency, only), Measurements::Revenue(sums)) => {
                    let amounts = batch.column(amount).as_primitive::<Decimal128Type>();
                    let currencies = batch.column(currency).as_string_view();
                    rows.values(amounts, |row, cell, nanos| {
                        let code = currencies.is_valid(row).then(|| Currency::parse(currencies.value(row)));
                        let currency = code.flatten().unwrap_or(Currency::NONE);
                        if only.is_none_or(|only| only == currency) {
                            sums[cell].add(currency, (nanos / NANOS) as i64, (nanos % NANOS) as i32);
                        }
                    });
                }
                (Kind::Summary(at), Measurements::Summary(sums)) => {
                    rows.values(batch.column(at).as_primitive::<Float64Type>(), |_, cell, value| {
                        sums[cell].add(value);
                    });
                }
                (Kind::Values(at), Measurements::Values(all)) => {
                    rows.values(batch.column(at).as_primitive::<Float64Type>(), |_, cell, value| {
                        if value.is_finite() {
                            all[cell].push(value);
                            // With the room that vectors keep for more.
                            *kept += 12;
                        }
                    });
                }
                (Kind::Elsewhere, _) => {}
                (Kind::Events | Kind::Revenue(..) | Kind::Summary(_) | Kind::Values(_), _) => {
                    unreachable!("columns are made after their kinds")
                }
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let cells = self.index.cells.capacity();
        let columns: usize = self
            .columns
            .iter()
            .map(|column| match column {
                Measurements::Elsewhere => 0,
                Measurements::Events(_) => 8 * cells,
                Measurements::Revenue(_) => 64 * cells,
                // A quantile sketch that has seen a few hundred values.
                Measurements::Summary(_) => 1024 * cells,
                Measurements::Values(_) => 24 * cells,
                Measurements::Sightings(parts) => parts.iter().map(Pile::bytes).sum(),
            })
            .sum();
        self.texts.bytes()
            + self.entries.bytes()
            + 4 * self.index.table.capacity()
            + 24 * cells
            + columns
            + self.kept
    }
}

impl Measurements {
    /// Takes hashes and the cells in which they were seen, whose groups and buckets are given. Stored events are sorted by user: most
    /// repetitions follow each other.
    fn seeing<'m>(&'m mut self, keys: &'m [(u32, u32)]) -> impl FnMut(u64, u32) + 'm {
        let mut last = None;
        move |hash, cell| {
            if last.replace((hash, cell)) != Some((hash, cell)) {
                self.see(hash, cell, keys);
            }
        }
    }

    fn see(&mut self, hash: u64, cell: u32, keys: &[(u32, u32)]) {
        match self {
            Self::Sightings(parts) => {
                let (group, bucket) = keys[cell as usize];
                let seen = Sighting { actor: hash as i64, group, bucket };
                let part = &mut parts[part(seen.actor)];
                if part.last() != Some(&seen) {
                    part.push(seen);
                }
            }
            Self::Elsewhere | Self::Events(_) | Self::Revenue(_) | Self::Summary(_) | Self::Values(_) => {
                unreachable!("columns are made after their kinds")
            }
        }
    }
}

/// The rows of a batch that a measure is about.
struct Rows<'b> {
    places: &'b [u32],
    /// `None`: all.
    wanted: Option<&'b [u32]>,
    /// Of the measure itself.
    filter: Option<&'b BooleanBuffer>,
}

impl Rows<'_> {
    #[inline]
    fn each(&self, mut take: impl FnMut(usize, u32)) {
        match self.filter {
            None => each_row(self.places.len(), self.wanted, |row| take(row, self.places[row])),
            Some(filter) => each_row(self.places.len(), self.wanted, |row| {
                if filter.value(row) {
                    take(row, self.places[row]);
                }
            }),
        }
    }

    #[inline]
    fn values<T: ArrowPrimitiveType>(
        &self,
        values: &PrimitiveArray<T>,
        mut take: impl FnMut(usize, usize, T::Native),
    ) {
        self.each(|row, cell| {
            if values.is_valid(row) {
                take(row, cell as usize, values.value(row));
            }
        });
    }
}
