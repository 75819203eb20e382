//! The cells of all streams, merged, and sums of them.

use datafusion::execution::memory_pool::MemoryReservation;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_rollup::{
    Estimate,
    money::{Amount, Currency, Revenue},
    numeric::Summary,
};

use super::{
    Actors, Figure,
    cells::{Cells, Measurements},
    grid::Grid,
};
use crate::{
    Engine, Error,
    deadline::Deadline,
    fold::active::{Counts, Sighting, Span},
    funnel::place,
    gather::{PARTS, each_part},
    measure::{Measure, Statistic},
    pile::Pile,
    texts::Texts,
};

#[derive(Debug)]
pub(super) struct Merged {
    pub(super) texts: Texts,
    index: HashMap<(u32, u32), u32, FixedState>,
    /// How many there are; they are numbered from 0.
    pub(super) groups: u32,
    columns: Vec<Measurements>,
    /// By measure, where it counts actors exactly.
    actors: Vec<Option<Actors>>,
    /// Accounts for all of it as long as it is there.
    memory: MemoryReservation,
}

impl Merged {
    pub(super) async fn of(
        engine: &Engine,
        streams: Vec<Cells>,
        span: Span,
        grid: &Grid,
    ) -> Result<Self, Error> {
        let mut pace = engine.deadline().pace();
        let mut merged = Self {
            texts: Texts::default(),
            index: HashMap::default(),
            groups: 0,
            columns: Vec::new(),
            actors: Vec::new(),
            memory: engine.memory("series of a question"),
        };
        // By measure that counts actors, by part: what each stream saw, with groups as they are numbered here.
        let mut sightings: Vec<Vec<Vec<Pile<Sighting>>>> = Vec::new();
        for stream in streams {
            let bytes = crate::scan::Sink::bytes(&stream);
            merged.memory.try_grow(bytes).map_err(|error| engine.failure(error))?;
            let numbers = merged.texts.absorb(&stream.texts);
            let number = |group: u32| numbers.get(group as usize).copied().unwrap_or(0);
            let mut places = vec![0; stream.index.cells.len()];
            for ((group, bucket), cell) in &stream.index.cells {
                pace.step(1)?;
                merged.groups = merged.groups.max(number(*group) + 1);
                let next = merged.index.len() as u32;
                places[*cell as usize] = *merged.index.entry((number(*group), *bucket)).or_insert(next);
            }
            if merged.columns.is_empty() {
                merged.columns = stream.columns.iter().map(Measurements::alike).collect();
                sightings = merged.columns.iter().map(|_| (0..PARTS).map(|_| Vec::new()).collect()).collect();
            }
            let cells = merged.index.len();
            for ((mine, seen), theirs) in merged.columns.iter_mut().zip(&mut sightings).zip(stream.columns) {
                if let Measurements::Sightings(parts) = theirs {
                    for (all, mut part) in seen.iter_mut().zip(parts) {
                        part.iter_mut().for_each(|one| one.group = number(one.group));
                        all.push(part);
                    }
                } else {
                    mine.resize(cells);
                    mine.absorb(theirs, &places);
                }
            }
            tokio::task::yield_now().await;
        }
        for (column, parts) in merged.columns.iter().zip(sightings) {
            let counted = match column {
                Measurements::Sightings(_) => Some(count(engine, parts, span, grid).await?),
                Measurements::Events(_)
                | Measurements::Revenue(_)
                | Measurements::Summary(_)
                | Measurements::Values(_)
                | Measurements::Elsewhere => None,
            };
            merged.actors.push(counted);
        }
        Ok(merged)
    }

    pub(super) fn cell(&self, group: u32, bucket: u32) -> Option<u32> {
        self.index.get(&(group, bucket)).copied()
    }

    /// All cells from a bucket on, with their groups.
    pub(super) fn cells_of_groups(&self, from: usize) -> impl Iterator<Item = (u32, u32)> {
        let within = self.index.iter().filter(move |((_, bucket), _)| *bucket as usize >= from);
        within.map(|((group, _), cell)| (*group, *cell))
    }

    /// The numbers of a cell, of a measure that keeps all of them.
    pub(super) fn numbers(&self, column: usize, cell: u32) -> &[f64] {
        match self.columns.get(column) {
            Some(Measurements::Values(cells)) => &cells[cell as usize],
            Some(
                Measurements::Events(_)
                | Measurements::Revenue(_)
                | Measurements::Summary(_)
                | Measurements::Sightings(_)
                | Measurements::Elsewhere,
            )
            | None => &[],
        }
    }

    /// The counts of a measure that counts actors exactly.
    pub(super) fn actors(&self, column: usize) -> Option<&Actors> {
        self.actors.get(column)?.as_ref()
    }

    /// Takes in what was counted elsewhere for a measure.
    pub(super) fn set_actors(&mut self, column: usize, actors: Actors) {
        if let Some(place) = self.actors.get_mut(column) {
            *place = Some(actors);
        }
    }

    /// All revenue of a measure of it.
    pub(super) fn revenue(&self, column: usize) -> Revenue {
        let mut all = Revenue::default();
        if let Some(Measurements::Revenue(sums)) = self.columns.get(column) {
            sums.iter().for_each(|sum| all.merge(sum));
        }
        all
    }

    /// The currencies of a measure of revenue.
    pub(super) fn currencies(&self, column: usize) -> Vec<Currency> {
        let all = self.revenue(column);
        let known = all.amounts().iter().map(|amount| amount.currency);
        known.filter(|currency| *currency != Currency::NONE).collect()
    }
}

async fn count(
    engine: &Engine,
    parts: Vec<Vec<Pile<Sighting>>>,
    span: Span,
    grid: &Grid,
) -> Result<Actors, Error> {
    let grid = grid.clone();
    let alone = grid.lead() == 0;
    let nobody = move || Actors { spans: Counts::new(span), totals: Counts::new(Span::Buckets(1)) };
    let add = move |counts: &mut Actors, streams: Vec<Pile<Sighting>>, deadline: &Deadline| {
        let mut all = Vec::with_capacity(streams.iter().map(Pile::len).sum());
        streams.into_iter().for_each(|pile| pile.move_to(&mut all));
        deadline.sort_by(&mut all, Ord::cmp)?;
        all.dedup();
        deadline.check()?;
        if alone {
            counts.spans.add(&all);
        } else {
            counts.add(&mut all, &grid);
        }
        Ok(())
    };
    let (mut counted, mut pace) = (nobody(), engine.deadline().pace());
    for part in each_part(engine, parts, nobody, add).await? {
        pace.step(part.size())?;
        counted.spans.merge(part.spans);
        counted.totals.merge(part.totals);
    }
    if alone {
        counted.totals.all = counted.spans.all;
        counted.totals.groups = counted.spans.groups.clone();
    }
    Ok(counted)
}

/// The quantile that a measure asks for, of so many numbers; `at` finds the one that has so many before it.
pub(super) fn quantile(measure: &Measure, count: usize, at: impl FnOnce(usize) -> Option<f64>) -> Figure {
    let Measure::Numeric(_, Statistic::Quantile(rank)) = measure else { return Figure::default() };
    let rank = if rank.is_nan() { 0.5 } else { rank.clamp(0.0, 1.0) };
    let estimate = place(rank, count).and_then(at).map(Estimate::exact);
    Figure { estimate, money: None }
}

/// Cells of a measure, added up.
#[derive(Debug, Clone)]
pub(super) enum Sum {
    Events(u64),
    Revenue(Revenue),
    Summary(Box<Summary>),
    Values(Vec<f64>),
    /// No events were read, or actors are counted elsewhere.
    Nothing,
}

impl Sum {
    /// Of no cells.
    pub(super) fn of(merged: &Merged, column: usize) -> Self {
        match merged.columns.get(column) {
            Some(Measurements::Events(_)) => Self::Events(0),
            Some(Measurements::Revenue(_)) => Self::Revenue(Revenue::default()),
            Some(Measurements::Summary(_)) => Self::Summary(Box::default()),
            Some(Measurements::Values(_)) => Self::Values(Vec::new()),
            Some(Measurements::Sightings(_) | Measurements::Elsewhere) | None => Self::Nothing,
        }
    }

    /// Of one cell.
    pub(super) fn cell(merged: &Merged, column: usize, cell: u32) -> Self {
        let mut sum = Self::of(merged, column);
        sum.add(merged, column, cell);
        sum
    }

    pub(super) fn add(&mut self, merged: &Merged, column: usize, cell: u32) {
        let cell = cell as usize;
        match (self, &merged.columns[column]) {
            (Self::Events(sum), Measurements::Events(cells)) => *sum += cells[cell],
            (Self::Revenue(sum), Measurements::Revenue(cells)) => sum.merge(&cells[cell]),
            (Self::Summary(sum), Measurements::Summary(cells)) => sum.merge(&cells[cell]),
            (Self::Values(sum), Measurements::Values(cells)) => sum.extend_from_slice(&cells[cell]),
            (Self::Events(_) | Self::Revenue(_) | Self::Summary(_) | Self::Values(_) | Self::Nothing, _) => {}
        }
    }

    /// Adds another sum of the same measure.
    pub(super) fn join(&mut self, other: &Self) {
        match (self, other) {
            (Self::Events(sum), Self::Events(more)) => *sum += more,
            (Self::Revenue(sum), Self::Revenue(more)) => sum.merge(more),
            (Self::Summary(sum), Self::Summary(more)) => sum.merge(more),
            (Self::Values(sum), Self::Values(more)) => sum.extend_from_slice(more),
            (Self::Events(_) | Self::Revenue(_) | Self::Summary(_) | Self::Values(_) | Self::Nothing, _) => {}
        }
    }

    /// The figure of the measure. Revenue of a measure that leaves the currency open is in the only one there is.
    pub(super) fn figure(&mut self, measure: &Measure) -> Figure {
        let figure = |estimate: Option<Estimate>| Figure { estimate, money: None };
        match self {
            Self::Events(count) => Figure::exact(*count as f64),
            Self::Revenue(sums) => {
                let Measure::Revenue(currency) = measure else { return Figure::default() };
                let amount = sums.amounts().iter().find(|amount| Some(amount.currency) == *currency).copied();
                let nothing = currency.map(|currency| Amount { currency, nanos: 0, count: 0 });
                let estimate = Some(amount.map_or(Estimate::exact(0.0), |amount| amount.estimate()));
                Figure { estimate, money: amount.or(nothing) }
            }
            Self::Values(values) => quantile(measure, values.len(), |rank| {
                Some(*values.select_nth_unstable_by(rank, f64::total_cmp).1)
            }),
            Self::Summary(summary) => {
                let Measure::Numeric(_, statistic) = measure else { return Figure::default() };
                figure(match statistic {
                    Statistic::Sum => Some(Estimate::exact(summary.sum())),
                    Statistic::Min => summary.min().map(Estimate::exact),
                    Statistic::Max => summary.max().map(Estimate::exact),
                    Statistic::Average => summary.average().map(Estimate::exact),
                    Statistic::Quantile(rank) => summary.quantile(*rank),
                })
            }
            // Without events: nothing of everything that counts.
            Self::Nothing => match measure {
                Measure::Events
                | Measure::UniqueUsers
                | Measure::Sessions
                | Measure::Visits
                | Measure::UniqueValues(_)
                | Measure::Revenue(_)
                | Measure::Numeric(_, Statistic::Sum) => Figure::exact(0.0),
                Measure::Numeric(
                    _,
                    Statistic::Min | Statistic::Max | Statistic::Average | Statistic::Quantile(_),
                ) => Figure::default(),
            },
        }
    }
}
