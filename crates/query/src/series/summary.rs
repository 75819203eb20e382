//! Key figures of a range: how many events, users and sessions, revenue by currency, and the most frequent events.

use std::{ops::Range, sync::Arc, time::Duration};

use weir_rollup::{calendar::Zone, field::Field, money::Revenue};

use super::{Measured, Question, Shape, cells, cells::Cells, grid::Grid, merged::Merged, merged::Sum};
use crate::{Engine, Error, Events, engine::Read, filter::Filter, measure::Measure};

/// The key figures, all exact.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Number of events.
    pub events: u64,
    /// Number of users.
    pub users: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Revenue by currency.
    pub revenue: Revenue,
    /// The most frequent events, the first ones by name of those alike.
    pub top: Vec<TopEvent>,
    /// What was read.
    pub read: Read,
}

/// How often an event happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopEvent {
    /// Its name.
    pub name: String,
    /// How often.
    pub events: u64,
    /// Users who did it.
    pub users: u64,
}

/// The places of the measures.
const EVENTS: usize = 0;
const USERS: usize = 1;
const SESSIONS: usize = 2;
const REVENUE: usize = 3;

impl Engine {
    /// The key figures of the events in a range, microseconds since the Unix epoch, and so many of the most frequent events.
    ///
    /// # Errors
    /// When the range is empty, or the question is not answered within `limit` or in the memory there is.
    pub async fn summary(
        &self,
        events: Arc<dyn Events>,
        range: Range<i64>,
        top: usize,
        limit: Duration,
    ) -> Result<Summary, Error> {
        let measures = [Measure::Events, Measure::UniqueUsers, Measure::Sessions, Measure::Revenue(None)];
        let question = Question {
            range,
            interval: None,
            zone: Zone::UTC,
            measures: measures.map(|measure| Measured { measure, filter: Filter::default() }).into(),
            formulas: Vec::new(),
            filter: Filter::default(),
            by: if top > 0 { vec![Field::EventName] } else { Vec::new() },
            shape: Shape::Plain,
            max_series: top,
            only: None,
            max_points: usize::MAX,
        };
        let grid = question.grid()?;
        self.run(limit, move |engine| async move { summary(&engine, &*events, question, grid).await }).await
    }
}

async fn summary(
    engine: &Engine,
    events: &dyn Events,
    question: Question,
    grid: Grid,
) -> Result<Summary, Error> {
    let (scan, layout) = cells::scan(&question, &grid);
    let (streams, read) = scan.run(engine, events, || Cells::new(layout.clone())).await?;
    let merged = Merged::of(engine, streams, question.span(), &grid).await?;
    let actors = |column| merged.actors(column).map_or(0, |actors| actors.totals.all);
    let mut by_group: Vec<(u64, u32)> =
        merged.cells_of_groups(0).map(|(group, cell)| (count(&merged, cell), group)).collect();
    let events = by_group.iter().map(|(events, _)| events).sum();

    // Names are looked up only of those that may be among the most frequent.
    by_group.sort_unstable_by(|one, other| other.cmp(one));
    let least = by_group.get(question.max_series.saturating_sub(1)).map_or(0, |(events, _)| *events);
    by_group.retain(|(events, _)| *events >= least && question.max_series > 0);
    let top = by_group.into_iter().filter_map(|(events, group)| {
        let name = merged.texts.values(group).pop().flatten()?;
        let users = merged.actors(USERS).and_then(|users| users.totals.groups.get(&group)).copied();
        Some(TopEvent { name, events, users: users.unwrap_or(0) })
    });
    let mut top: Vec<TopEvent> = top.collect();
    top.sort_by(|one, other| other.events.cmp(&one.events).then_with(|| one.name.cmp(&other.name)));
    top.truncate(question.max_series);
    Ok(Summary {
        events,
        users: actors(USERS),
        sessions: actors(SESSIONS),
        revenue: merged.revenue(REVENUE),
        top,
        read,
    })
}

/// Events in a cell.
fn count(merged: &Merged, cell: u32) -> u64 {
    match Sum::cell(merged, EVENTS, cell) {
        Sum::Events(count) => count,
        Sum::Revenue(_) | Sum::Summary(_) | Sum::Values(_) | Sum::Nothing => 0,
    }
}
