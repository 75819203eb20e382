//! Measures over time and by the values of fields.

use std::{collections::HashSet, ops::Range, sync::Arc, time::Duration};

use weir_rollup::{
    Estimate,
    calendar::{Interval, Zone},
    field::Field,
    money::{Amount, Currency},
};

use crate::{
    Engine, Error, Events,
    engine::Read,
    filter::Filter,
    fold::active::{Counts, Sighting, Span},
    formula::Formula,
    measure::Measure,
    texts::Values,
};

mod cells;
mod grid;
mod merged;
mod preceding;
mod running;
mod summary;
mod visits;

use cells::Cells;
use grid::Grid;
use merged::{Merged, Sum};
use running::Running;
pub use summary::{Summary, TopEvent};

/// A measure of some of the events.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What is measured.
    pub measure: Measure,
    /// Of which events, among those that the question is about.
    pub filter: Filter,
}

/// What a point of a series is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Its bucket.
    Plain,
    /// Its bucket and those before it, this many in all: 7 with buckets of a day for users active in a week.
    Rolling(u32),
    /// Everything from the beginning of the range to the end of its bucket.
    Cumulative,
}

/// The question.
#[derive(Debug, Clone)]
pub struct Question {
    /// The events that are looked at, microseconds since the Unix epoch.
    pub range: Range<i64>,
    /// Width of the buckets; `None`: the range is one bucket, which makes the answer a breakdown.
    pub interval: Option<Interval>,
    /// By whose clock.
    pub zone: Zone,
    /// What is measured, at least one thing.
    pub measures: Vec<Measured>,
    /// What is computed from the measures.
    pub formulas: Vec<Formula>,
    /// The events that the question is about.
    pub filter: Filter,
    /// Fields to break the answer down by.
    pub by: Vec<Field>,
    /// What a point is about.
    pub shape: Shape,
    /// Series of the answer at most: the greatest by the first measure.
    pub max_series: usize,
    /// Only the series with these values, if given; totals are of all the same.
    pub only: Option<HashSet<Values>>,
    /// Points of the answer at most, and buckets.
    pub max_points: usize,
}

/// The value of a measure or formula.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figure {
    /// `None` where there is none: no number to average, a division by zero.
    pub estimate: Option<Estimate>,
    /// Of revenue: the exact amount.
    pub money: Option<Amount>,
}

/// Measures at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Position of the bucket in [`Answer::buckets`].
    pub bucket: usize,
    /// Of the measures, then of the formulas.
    pub figures: Vec<Figure>,
}

/// Measures of the events that have the same values.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The values of the fields of the breakdown.
    pub values: Values,
    /// By time. A plain series has no points where it has no events.
    pub points: Vec<Point>,
    /// Over the whole range.
    pub totals: Vec<Figure>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The measures, with currencies where they were left open.
    pub measures: Vec<Measure>,
    /// The buckets that the range touches.
    pub buckets: Vec<Range<i64>>,
    /// The greatest series first.
    pub series: Vec<Series>,
    /// Series left out.
    pub omitted_series: usize,
    /// Over all series and the whole range.
    pub totals: Vec<Figure>,
    /// What was read.
    pub read: Read,
}

/// Cells that are added up until others have a turn.
const AT_ONCE: usize = 16 << 10;
/// Widest rolling window, buckets.
const MAX_ROLLING: u32 = 1000;

impl Question {
    /// The buckets that the range touches.
    fn buckets(&self, interval: Interval) -> Result<Vec<Range<i64>>, Error> {
        self.zone.buckets(interval, self.range.clone(), self.max_points).map_err(|error| match error {
            weir_rollup::Error::TooManyBuckets(limit) => {
                let mend = "widen the interval or shorten the range";
                Error::TooLarge { what: "buckets", limit, mend }
            }
            other => Error::question("time_range", other),
        })
    }

    /// The moments of the events that the answer is read from: a rolling window reaches back before the range.
    ///
    /// # Errors
    /// As [`Engine::series`], where the question breaks a rule.
    pub fn reads(&self) -> Result<Range<i64>, Error> {
        Ok(self.grid()?.reads(&self.range))
    }

    /// The buckets of the answer and those to read for it.
    fn grid(&self) -> Result<Grid, Error> {
        if self.measures.is_empty() {
            return Err(Error::question("measures", "must be at least one"));
        }
        if self.range.is_empty() {
            return Err(Error::question("time_range", "must end after its start"));
        }
        let buckets = match self.interval {
            None => vec![self.range.clone()],
            Some(interval) => self.buckets(interval)?,
        };
        let lead = match (self.shape, self.interval) {
            (Shape::Plain | Shape::Cumulative, _) => 0,
            (Shape::Rolling(width), Some(_)) if (1..=MAX_ROLLING).contains(&width) => width as usize - 1,
            (Shape::Rolling(_), Some(_)) => {
                return Err(Error::question(
                    "rolling_buckets",
                    format_args!("must be 1 to {MAX_ROLLING} buckets"),
                ));
            }
            (Shape::Rolling(_), None) => return Err(Error::question("rolling_buckets", "needs an interval")),
        };
        let mut before = Vec::with_capacity(lead);
        let mut at = buckets.first().map_or(self.range.start, |first| first.start);
        for _ in 0..lead {
            let interval = self.interval.expect("only buckets of an interval have some before them");
            let earlier = self.zone.bucket(interval, at - 1);
            let earlier = earlier.map_err(|error| Error::question("time_range", error))?;
            at = earlier.start;
            before.push(earlier);
        }
        before.reverse();
        Ok(Grid::new(self.range.start, before, buckets))
    }

    fn span(&self) -> Span {
        match self.shape {
            Shape::Plain => Span::Buckets(1),
            Shape::Rolling(width) => Span::Buckets(width),
            Shape::Cumulative => Span::Forever,
        }
    }
}

impl Engine {
    /// Answers a question about series.
    ///
    /// # Errors
    /// When the question breaks a rule, or is not answered within `limit` or in the memory there is.
    pub async fn series(
        &self,
        events: Arc<dyn Events>,
        question: Question,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let grid = question.grid()?;
        self.run(limit, move |engine| async move { answer(&engine, &*events, question, grid).await }).await
    }
}

async fn answer(
    engine: &Engine,
    events: &dyn Events,
    question: Question,
    grid: Grid,
) -> Result<Answer, Error> {
    let (scan, layout) = cells::scan(&question, &grid);
    let (streams, mut read) = scan.run(engine, events, || Cells::new(layout.clone())).await?;
    let mut merged = Merged::of(engine, streams, question.span(), &grid).await?;
    for (column, measured) in question.measures.iter().enumerate() {
        if measured.measure == Measure::Visits {
            let again =
                visits::count(engine, events, &question, measured, &grid, column, &mut merged).await?;
            read += Read { late: 0, ..again };
        }
    }
    let measures = settle_currencies(&question, &merged)?;
    let view = View { question: &question, measures: &measures, merged: &merged, grid: &grid, engine };

    // Without a breakdown there is one series, even of nothing.
    let mut groups = vec![0];
    if !question.by.is_empty() {
        let is_wanted = |group: &u32| {
            question.only.as_ref().is_none_or(|only| only.contains(&merged.texts.values(*group)))
        };
        groups = view.greatest_first().await?;
        groups.retain(is_wanted);
    }
    let omitted_series = groups.len().saturating_sub(question.max_series);
    groups.truncate(question.max_series);
    if !question.by.is_empty() {
        merged.texts.fit(groups.iter().copied())?;
    }
    let mut points = 0;
    let mut series = Vec::with_capacity(groups.len());
    for group in groups {
        let one = view.series(group)?;
        points += one.points.len();
        if points > question.max_points {
            let mend = "widen the interval, shorten the range or ask for fewer series";
            return Err(Error::TooLarge { what: "points", limit: question.max_points, mend });
        }
        series.push(one);
        tokio::task::yield_now().await;
    }
    let totals = match series.as_slice() {
        [only] if question.by.is_empty() => only.totals.clone(),
        _ => view.totals()?,
    };
    Ok(Answer { measures, buckets: grid.buckets(), series, omitted_series, totals, read })
}

/// Fills in the currency where a measure leaves it open, or asks which is meant.
fn settle_currencies(question: &Question, merged: &Merged) -> Result<Vec<Measure>, Error> {
    let settle = |(column, measured): (usize, &Measured)| match &measured.measure {
        Measure::Revenue(None) => {
            let currencies = merged.currencies(column);
            match currencies.as_slice() {
                [] => Ok(Measure::Revenue(None)),
                [only] => Ok(Measure::Revenue(Some(*only))),
                several => {
                    let codes: Vec<_> = several.iter().map(Currency::as_str).collect();
                    let problem =
                        format_args!("must say in which currency: there is revenue in {}", codes.join(", "));
                    Err(Error::question("measures", problem))
                }
            }
        }
        other => Ok(other.clone()),
    };
    question.measures.iter().enumerate().map(settle).collect()
}

/// What the answer is read from.
struct View<'a> {
    question: &'a Question,
    measures: &'a [Measure],
    merged: &'a Merged,
    grid: &'a Grid,
    engine: &'a Engine,
}

impl View<'_> {
    fn series(&self, group: u32) -> Result<Series, Error> {
        // By bucket that is read, its cell.
        let cells: Vec<Option<u32>> =
            (0..self.grid.read().len() as u32).map(|bucket| self.merged.cell(group, bucket)).collect();
        let by_measure = (0..self.measures.len()).map(|column| match self.merged.actors(column) {
            Some(actors) => {
                let counts = actors.spans.series(group, self.grid.len() as u32).into_iter();
                Ok(counts.map(|count| Figure::exact(count as f64)).collect())
            }
            None => {
                let (merged, grid, measure) = (self.merged, self.grid, &self.measures[column]);
                let running = Running { merged, grid, column, measure, cells: &cells };
                running.figures(self.question.shape, self.engine)
            }
        });
        let by_measure: Vec<Vec<Figure>> = by_measure.collect::<Result<_, Error>>()?;
        let shown = |bucket: &usize| self.question.shape != Shape::Plain || cells[*bucket].is_some();
        let answered = self.grid.answered();
        let points = answered.clone().filter(shown).map(|bucket| {
            let figures = by_measure.iter().map(|figures| figures[bucket]).collect();
            Point { bucket: bucket - answered.start, figures: self.with_formulas(figures) }
        });
        let totals = (0..self.measures.len()).map(|column| self.total_of(group, column));
        let totals = totals.collect::<Result<_, Error>>()?;
        let values =
            if self.question.by.is_empty() { Values::new() } else { self.merged.texts.values(group) };
        Ok(Series { values, points: points.collect(), totals: self.with_formulas(totals) })
    }

    /// The groups by their totals of the first measure, those alike by their values.
    async fn greatest_first(&self) -> Result<Vec<u32>, Error> {
        let deadline = self.engine.deadline();
        let groups = 0..self.merged.groups;
        let totals: Vec<Figure> = if self.merged.actors(0).is_some() {
            groups.clone().map(|group| self.total_of(group, 0)).collect::<Result<_, _>>()?
        } else {
            let mut sums: Vec<Sum> = groups.clone().map(|_| Sum::of(self.merged, 0)).collect();
            for (done, (group, cell)) in self.merged.cells_of_groups(self.grid.lead()).enumerate() {
                sums[group as usize].add(self.merged, 0, cell);
                if done % AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let mut pace = deadline.pace();
            let figures = sums.iter_mut().map(|sum| {
                pace.step(1)?;
                Ok(sum.figure(&self.measures[0]))
            });
            figures.collect::<Result<_, Error>>()?
        };
        let first = |total: &Figure| total.estimate.map_or(f64::NEG_INFINITY, |first| first.value);
        let mut by_first: Vec<(f64, u32)> = totals.iter().map(first).zip(groups).collect();
        let order = |one: &(f64, u32), other: &(f64, u32)| {
            other.0.total_cmp(&one.0).then_with(|| self.merged.texts.order(one.1, other.1))
        };
        deadline.sort_by(&mut by_first, order)?;
        Ok(by_first.into_iter().map(|(_, group)| group).collect())
    }

    fn total_of(&self, group: u32, column: usize) -> Result<Figure, Error> {
        if let Some(actors) = self.merged.actors(column) {
            return Ok(Figure::exact(actors.totals.groups.get(&group).copied().unwrap_or(0) as f64));
        }
        let buckets = self.grid.lead()..self.grid.read().len();
        self.total(column, buckets.filter_map(|bucket| self.merged.cell(group, bucket as u32)))
    }

    fn totals(&self) -> Result<Vec<Figure>, Error> {
        let total = |column: usize| match self.merged.actors(column) {
            Some(actors) => Ok(Figure::exact(actors.totals.all as f64)),
            None => self.total(column, self.merged.cells_of_groups(self.grid.lead()).map(|(_, cell)| cell)),
        };
        Ok(self.with_formulas((0..self.measures.len()).map(total).collect::<Result<_, Error>>()?))
    }

    /// A measure of some cells.
    fn total(&self, column: usize, cells: impl Iterator<Item = u32>) -> Result<Figure, Error> {
        let (mut sum, mut pace) = (Sum::of(self.merged, column), self.engine.deadline().pace());
        for cell in cells {
            pace.step(1)?;
            sum.add(self.merged, column, cell);
        }
        Ok(sum.figure(&self.measures[column]))
    }

    fn with_formulas(&self, mut figures: Vec<Figure>) -> Vec<Figure> {
        let computed: Vec<_> =
            self.question.formulas.iter().map(|formula| combined(formula, &figures)).collect();
        figures.extend(computed);
        figures
    }
}

/// The value of a formula.
fn combined(formula: &Formula, figures: &[Figure]) -> Figure {
    let value = formula.evaluate(&|index| figures[index].estimate.map(|estimate| estimate.value));
    Figure { estimate: value.map(Estimate::exact), money: None }
}

impl Figure {
    fn exact(value: f64) -> Self {
        Self { estimate: Some(Estimate::exact(value)), money: None }
    }
}

/// Exact counts of actors: for points, and for totals over the range of the answer.
#[derive(Debug)]
struct Actors {
    spans: Counts,
    totals: Counts,
}

impl Actors {
    /// Numbers that it holds.
    fn size(&self) -> usize {
        self.spans.size() + self.totals.size()
    }

    /// Adds all sightings of some actors, sorted, in the buckets that are read; leaves nothing of use of them.
    fn add(&mut self, seen: &mut [Sighting], grid: &Grid) {
        let lead = grid.lead() as u32;
        let within: Vec<_> = seen.iter().filter(|one| one.bucket >= lead).copied().collect();
        self.totals.add(&within);
        seen.iter_mut().for_each(|one| one.bucket = grid.place(one.bucket));
        self.spans.add(seen);
    }
}
