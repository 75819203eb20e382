//! Retention: [`fold::retention`](crate::fold::retention) asked of every user.

use std::{ops::Range, sync::Arc, time::Duration};

use weir_rollup::{
    calendar::{Interval, Zone},
    field::Field,
};

use crate::{
    Engine, Error, Events,
    buckets::Buckets,
    engine::Read,
    filter::Filter,
    fold::{
        Action,
        retention::{Cohorts, RETURN, START, Table},
    },
    gather::{self, Actions, Actor, Fold, Layout},
    scan::Scan,
    texts::Values,
};

/// Periods in a range at most: two years of days.
pub const MAX_PERIODS: usize = 732;

/// The question.
#[derive(Debug, Clone)]
pub struct Question {
    /// The events that are looked at, microseconds since the Unix epoch: nothing before it makes a user an old one.
    pub range: Range<i64>,
    /// Length of a period: a day, a week (from Monday) or a month.
    pub interval: Interval,
    /// Whose days these are.
    pub zone: Zone,
    /// Which cohorts a user joins.
    pub cohorts: Cohorts,
    /// Events that make a user join.
    pub start: Filter,
    /// Events with which a user returns.
    pub returns: Filter,
    /// Periods for which a cohort is watched, its own included.
    pub watched: usize,
    /// Fields of the starting event to break the answer down by.
    pub by: Vec<Field>,
    /// Cohorts in an answer at most.
    pub max_cohorts: usize,
}

/// Those who began in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cohort {
    /// The values of the fields of the breakdown.
    pub values: Values,
    /// The first moment of its period, microseconds since the Unix epoch.
    pub start: i64,
    /// Users in it.
    pub size: u64,
    /// By number of periods after its own, as far as the range reaches: users that returned.
    pub returned: Vec<u64>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// By values of the breakdown, then by time. Periods in which nobody began are left out.
    pub cohorts: Vec<Cohort>,
    /// What was read.
    pub read: Read,
}

impl Question {
    fn periods(&self) -> Result<Vec<Range<i64>>, Error> {
        match self.interval {
            Interval::Day | Interval::Week | Interval::Month => {}
            Interval::Second | Interval::Minute | Interval::QuarterHour | Interval::Hour => {
                return Err(Error::question("period", "must be a day, a week or a month"));
            }
        }
        if !(1..=MAX_PERIODS).contains(&self.watched) {
            return Err(Error::question("periods", format_args!("must be 1 to {MAX_PERIODS}")));
        }
        let periods = self.zone.buckets(self.interval, self.range.clone(), MAX_PERIODS);
        periods.map_err(|error| Error::question("time range", error))
    }
}

impl Engine {
    /// Answers a question about retention.
    ///
    /// # Errors
    /// When the question breaks a rule, or is not answered within `limit` or in the memory there is.
    pub async fn retention(
        &self,
        events: Arc<dyn Events>,
        question: Question,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let periods = question.periods()?;
        let engine = self.clone();
        self.run(limit, async move { answer(&engine, &*events, question, periods).await }).await
    }
}

async fn answer(
    engine: &Engine,
    events: &dyn Events,
    question: Question,
    periods: Vec<Range<i64>>,
) -> Result<Answer, Error> {
    let within = Buckets::new(&periods);
    let mut scan = Scan::of(&question.range);
    let mut layout = Layout::new(&mut scan, Actor::User);
    let (start, returns) = (scan.filter(&question.start), scan.filter(&question.returns));
    scan.keep(start.clone().or(returns.clone()));
    layout.mark(&mut scan, start, START);
    layout.mark(&mut scan, returns, RETURN);
    layout.group(&mut scan, &question.by, START);
    layout.ends(within.clone());
    let (streams, read) = scan.run(engine, events, || Actions::new(layout.clone())).await?;

    let (cohorts, joined, watched) = (question.cohorts, within.len(), question.watched);
    let new = move || Cells(Table::new(cohorts, within.clone(), joined, watched));
    let (cells, texts) = gather::fold(engine, streams, Actor::User, new).await?;
    let found = cells.0.into_cohorts();
    if found.len() > question.max_cohorts {
        let mend = "use longer periods, a shorter range or a breakdown with fewer values";
        return Err(Error::TooLarge { what: "cohorts", limit: question.max_cohorts, mend });
    }
    let no_group = question.by.is_empty();
    let values = |group| if no_group { Values::new() } else { texts.values(group) };
    let mut cohorts: Vec<_> = found
        .into_iter()
        .map(|((group, period), cohort)| Cohort {
            values: values(group),
            start: periods[period as usize].start,
            size: cohort.size,
            returned: cohort.returned,
        })
        .collect();
    cohorts.sort_by(|a, b| (&a.values, a.start).cmp(&(&b.values, b.start)));
    Ok(Answer { cohorts, read })
}

struct Cells(Table);

impl Fold for Cells {
    fn add(&mut self, actions: &[Action]) {
        self.0.add(actions);
    }

    fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
    }
}
