//! Funnels: [`fold::funnel`](crate::fold::funnel) asked of every user or session.

use std::{ops::Range, sync::Arc, time::Duration};

use datafusion::logical_expr::lit;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_rollup::field::Field;
use weir_store::{schema::column as name, view::Column};

use crate::{
    Engine, Error, Events,
    deadline::{Deadline, Pace},
    engine::Read,
    filter::Filter,
    fold::{
        Action,
        funnel::{Funnel, MAX_STEPS, Order, Passage},
    },
    gather::{self, Actions, Actor, Fold, Layout},
    scan::Scan,
    texts::Values,
};

/// The longest window, microseconds: 366 days.
pub const MAX_WINDOW: i64 = 366 * 86_400_000_000;
/// Exclusions at most: a column of the scan each.
const MAX_EXCLUSIONS: usize = 20;
/// Numbers that are copied in about the time of one other step.
const COPIED: usize = 64;

/// Events that end the way through a funnel.
#[derive(Debug, Clone)]
pub struct Exclusion {
    /// Which events.
    pub filter: Filter,
    /// After which step and before which later one, counted from 0; `None`: anywhere.
    pub between: Option<(usize, usize)>,
}

/// The question.
#[derive(Debug, Clone)]
pub struct Question {
    /// The events that are looked at, microseconds since the Unix epoch.
    pub range: Range<i64>,
    /// Of them: those that can be steps or exclusions.
    pub filter: Filter,
    /// The steps.
    pub steps: Vec<Filter>,
    /// What must not come between.
    pub exclusions: Vec<Exclusion>,
    /// From the first event of a chain to its last, microseconds.
    pub window: i64,
    /// Whether the steps must come in order.
    pub order: Order,
    /// Who goes through the funnel.
    pub actor: Actor,
    /// Fields of a chain's first event to break the answer down by.
    pub by: Vec<Field>,
    /// Groups of the answer at most: the greatest.
    pub max_groups: usize,
}

/// How many came how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Actors that reached this step.
    pub count: u64,
    /// Median of their times to it from the first event of their chains, microseconds (`percentile_disc`). `None` without any.
    pub median: Option<i64>,
    /// The 90th percentile.
    pub p90: Option<i64>,
    /// Likewise, of their times from the step before.
    pub median_from_previous: Option<i64>,
    /// Likewise.
    pub p90_from_previous: Option<i64>,
}

/// The funnel of those whose chains began alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The values of the fields of the breakdown.
    pub values: Values,
    /// By step.
    pub steps: Vec<Step>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// All actors, by step.
    pub total: Vec<Step>,
    /// With a breakdown: its groups, greatest first.
    pub groups: Vec<Group>,
    /// Groups left out.
    pub omitted_groups: usize,
    /// What was read.
    pub read: Read,
}

impl Question {
    /// Checks the rules of funnels.
    ///
    /// # Errors
    /// [`Error::Question`] saying what to mend.
    pub fn check(&self) -> Result<(), Error> {
        let steps = self.steps.len();
        if !(1..=MAX_STEPS).contains(&steps) {
            return Err(Error::question("steps", format_args!("must be 1 to {MAX_STEPS}, not {steps}")));
        }
        if !(1..=MAX_WINDOW).contains(&self.window) {
            return Err(Error::question("window", "must be longer than 0 and at most 366 days"));
        }
        if self.exclusions.len() > MAX_EXCLUSIONS {
            return Err(Error::question("exclusions", format_args!("must be at most {MAX_EXCLUSIONS}")));
        }
        for exclusion in &self.exclusions {
            if self.order == Order::Any {
                let problem = "need steps in order: in any order there is no between";
                return Err(Error::question("exclusions", problem));
            }
            match exclusion.between {
                Some((after, before)) if after >= before || before >= steps => {
                    let problem = format_args!("must stand between a step and a later one of the {steps}");
                    return Err(Error::question("exclusions", problem));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    fn gaps(&self, exclusion: &Exclusion) -> u32 {
        let (after, before) = exclusion.between.unwrap_or((0, self.steps.len() - 1));
        // For a funnel of one step there is nothing to break.
        (after..before).fold(0, |gaps, gap| gaps | 1 << gap)
    }
}

impl Engine {
    /// Answers a question about a funnel.
    ///
    /// # Errors
    /// When the question breaks a rule, or is not answered within `limit` or in the memory there is.
    pub async fn funnel(
        &self,
        events: Arc<dyn Events>,
        question: Question,
        limit: Duration,
    ) -> Result<Answer, Error> {
        question.check()?;
        self.run(limit, move |engine| async move { answer(&engine, &*events, question).await }).await
    }
}

async fn answer(engine: &Engine, events: &dyn Events, question: Question) -> Result<Answer, Error> {
    let mut scan = Scan::of(&question.range);
    let passes = scan.filter(&question.filter);
    let mut condition = |filter| scan.filter(filter).and(passes.clone());
    let steps: Vec<_> =
        question.steps.iter().enumerate().map(|(step, filter)| (condition(filter), 1 << step)).collect();
    let exclusions = question.exclusions.iter();
    let exclusions: Vec<_> =
        exclusions.map(|exclusion| (condition(&exclusion.filter), question.gaps(exclusion))).collect();
    let mut needed =
        steps.iter().chain(&exclusions).fold(lit(false), |any, (condition, _)| any.or(condition.clone()));
    let mut layout = Layout::new(&mut scan, question.actor, steps);
    layout.breaks(&mut scan, exclusions);
    if question.actor == Actor::Session {
        // Silence can only be measured between all events.
        needed = needed.or(scan.column(Column::Core(name::SESSION_ID)).is_null());
    }
    scan.keep(needed);
    let first = if question.order == Order::Strict { 1 } else { (1 << question.steps.len()) - 1 };
    layout.group(&mut scan, &question.by, first);
    let (streams, read) = scan.run(engine, events, || Actions::new(layout.clone())).await?;

    let funnel = Funnel::new(question.order, question.steps.len(), question.window);
    let new = move || Tally { funnel: funnel.clone(), groups: HashMap::default() };
    let (tally, texts) = gather::fold(engine, streams, question.actor, new).await?;
    let mut groups: Vec<_> = tally.groups.into_iter().collect();
    let steps = question.steps.len();
    let (mut total, mut pace) = (Times::default(), engine.deadline().pace());
    groups.iter().try_for_each(|(_, times)| total.merge(times, &mut pace))?;
    if question.by.is_empty() {
        groups.clear();
    }
    let by_count = |(one, times): &(u32, Times), (other, fewer): &(u32, Times)| {
        fewer.count().cmp(&times.count()).then_with(|| texts.order(*one, *other))
    };
    engine.deadline().sort_by(&mut groups, by_count)?;
    let omitted_groups = groups.len().saturating_sub(question.max_groups);
    groups.truncate(question.max_groups);
    texts.fit(groups.iter().map(|(group, _)| *group))?;
    let groups = groups.into_iter().map(|(group, times)| {
        Ok(Group { values: texts.values(group), steps: times.steps(steps, engine.deadline())? })
    });
    let groups = groups.collect::<Result<_, Error>>()?;
    Ok(Answer { groups, total: total.steps(steps, engine.deadline())?, omitted_groups, read })
}

/// By step that anybody has reached: the times that it took from the first event, and from the step before, microseconds.
#[derive(Debug, Clone, Default)]
struct Times(Vec<(Vec<i64>, Vec<i64>)>);

impl Times {
    fn count(&self) -> usize {
        self.0.first().map_or(0, |(first, _)| first.len())
    }

    fn add(&mut self, passage: &Passage) {
        let times = passage.times();
        self.reach(times.len());
        let mut before = 0;
        for ((first, previous), time) in self.0.iter_mut().zip(times) {
            first.push(*time);
            previous.push(time - before);
            before = *time;
        }
    }

    fn merge(&mut self, other: &Self, pace: &mut Pace<'_>) -> Result<(), Error> {
        self.reach(other.0.len());
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            pace.step(1 + theirs.0.len() / COPIED)?;
            mine.0.extend_from_slice(&theirs.0);
            mine.1.extend_from_slice(&theirs.1);
        }
        Ok(())
    }

    fn reach(&mut self, steps: usize) {
        if self.0.len() < steps {
            self.0.resize_with(steps, Default::default);
        }
    }

    fn steps(mut self, steps: usize, deadline: &Deadline) -> Result<Vec<Step>, Error> {
        self.reach(steps);
        let step = |(mut first, mut previous): (Vec<i64>, Vec<i64>)| {
            deadline.check()?;
            Ok(Step {
                count: first.len() as u64,
                median: at_rank(&mut first, 0.5),
                p90: at_rank(&mut first, 0.9),
                median_from_previous: at_rank(&mut previous, 0.5),
                p90_from_previous: at_rank(&mut previous, 0.9),
            })
        };
        self.0.into_iter().map(step).collect()
    }
}

/// The least value that at least this fraction of all is not greater than.
fn at_rank(values: &mut [i64], rank: f64) -> Option<i64> {
    let at = place(rank, values.len())?;
    Some(*values.select_nth_unstable(at).1)
}

/// How many of so many sorted values come before that one.
pub(crate) fn place(rank: f64, count: usize) -> Option<usize> {
    let last = count.checked_sub(1)?;
    Some(((rank * count as f64).ceil() as usize).saturating_sub(1).min(last))
}

struct Tally {
    funnel: Funnel,
    groups: HashMap<u32, Times, FixedState>,
}

impl Fold for Tally {
    fn add(&mut self, actions: &[Action]) {
        if let Some(passage) = self.funnel.pass(actions) {
            self.groups.entry(actions[passage.first].group).or_default().add(&passage);
        }
    }

    fn merge(&mut self, other: Self, pace: &mut Pace<'_>) -> Result<(), Error> {
        for (group, times) in other.groups {
            self.groups.entry(group).or_default().merge(&times, pace)?;
        }
        Ok(())
    }
}
