//! Retention: [`fold::retention`](crate::fold::retention) asked of every user.

use std::{ops::Range, sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch, StringViewArray},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use datafusion::logical_expr::{Expr, lit};
use weir_rollup::{
    calendar::{Interval, Zone},
    field::Field,
};
use weir_store::{schema::column as name, view::Column};

use crate::{
    Engine, Error, Events,
    buckets::Buckets,
    deadline::Deadline,
    engine::Read,
    filter::Filter,
    fold::retention::{Cohorts, Stay, Table},
    gather::{PARTS, each_part, holds, part},
    pile::Pile,
    scan::{Scan, Sink},
    texts::{Texts, Values},
};

/// Figures in all cohorts together at most: 32 MB.
const MAX_FIGURES: usize = 4 << 20;
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
            Interval::Day | Interval::Week | Interval::Month | Interval::Quarter | Interval::Year => {}
            Interval::Second | Interval::Minute | Interval::QuarterHour | Interval::Hour => {
                return Err(Error::question("period", "must be a day, a week, a month, a quarter or a year"));
            }
        }
        if !(1..=MAX_PERIODS).contains(&self.watched) {
            return Err(Error::question("periods", format_args!("must be 1 to {MAX_PERIODS}")));
        }
        let periods = self.zone.buckets(self.interval, self.range.clone(), MAX_PERIODS);
        periods.map_err(|error| Error::question("time_range", error))
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
        self.run(limit, move |engine| async move { answer(&engine, &*events, question, periods).await }).await
    }
}

async fn answer(
    engine: &Engine,
    events: &dyn Events,
    question: Question,
    periods: Vec<Range<i64>>,
) -> Result<Answer, Error> {
    let (scan, layout) = scan(&question, Buckets::new(&periods));
    let (streams, read) = scan.run(engine, events, || Stays::new(layout.clone())).await?;

    let memory = engine.memory("retention of a question");
    let mut texts = Texts::default();
    let mut parts: Vec<Vec<Pile<Stay>>> = (0..PARTS).map(|_| Vec::new()).collect();
    for stream in streams {
        memory.try_grow(stream.bytes()).map_err(|error| engine.failure(error))?;
        let numbers = texts.absorb(&stream.texts);
        for (all, mut part) in parts.iter_mut().zip(stream.into_parts()) {
            part.iter_mut().for_each(|stay| {
                // One without a start has number 0, which need not exist.
                stay.group = numbers.get(stay.group as usize).copied().unwrap_or(0);
            });
            all.push(part);
        }
        tokio::task::yield_now().await;
    }
    let table = Table::new(question.cohorts, periods.len(), question.watched);
    let most = question.max_cohorts;
    let add = move |table: &mut Table, piles, deadline: &Deadline| add_part(table, piles, most, deadline);
    let tables = each_part(engine, parts, || table.clone(), add).await?;
    let (mut found, mut pace) = (table, engine.deadline().pace());
    for part in tables {
        pace.step(part.figures())?;
        found.merge(part);
    }
    if is_full(&found, most) {
        let mend = "use longer periods, a shorter range or a breakdown with fewer values";
        return Err(Error::TooLarge { what: "cohorts", limit: most.min(found.len()), mend });
    }
    let found = found.into_cohorts();
    let no_group = question.by.is_empty();
    if !no_group {
        texts.fit(found.iter().map(|((group, _), _)| *group))?;
    }
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

/// Whether a table has more than an answer may have: more is not added.
fn is_full(table: &Table, max_cohorts: usize) -> bool {
    table.len() > max_cohorts || table.figures() > MAX_FIGURES
}

/// Adds all stays of some actors.
fn add_part(
    table: &mut Table,
    piles: Vec<Pile<Stay>>,
    max_cohorts: usize,
    deadline: &Deadline,
) -> Result<(), Error> {
    let mut stays = Vec::with_capacity(piles.iter().map(Pile::len).sum());
    piles.into_iter().for_each(|pile| pile.move_to(&mut stays));
    deadline.sort_by_key(&mut stays, |stay: &Stay| (stay.actor, stay.period))?;
    stays.dedup_by(|next, one| {
        let same = one.is_of(next.actor, next.period);
        if same {
            one.merge(next);
        }
        same
    });
    let mut pace = deadline.pace();
    for actor in stays.chunk_by(|one, next| one.actor == next.actor) {
        if is_full(table, max_cohorts) {
            break;
        }
        pace.step(actor.len())?;
        table.add(actor);
    }
    Ok(())
}

/// Where an event's parts are in the batches of a scan.
#[derive(Debug, Clone)]
struct Layout {
    periods: Arc<Buckets>,
    user: usize,
    time: usize,
    /// What is to be known of each event; `None` where every one both starts and returns.
    event: Option<EventLayout>,
}

#[derive(Debug, Clone)]
struct EventLayout {
    offset: usize,
    /// Whether it starts; left out where every event does.
    start: Option<usize>,
    /// Likewise, whether it returns.
    returns: Option<usize>,
    groups: Vec<usize>,
}

fn scan(question: &Question, periods: Buckets) -> (Scan, Layout) {
    let mut scan = Scan::of(&question.range);
    let (start, returns) = (scan.filter(&question.start), scan.filter(&question.returns));
    scan.keep(start.clone().or(returns.clone()));
    let (user, time) = (Column::Core(name::USER_HASH), Column::Core(name::TIME));
    let (user, time) = (scan.select_column(user), scan.select_column(time));
    let has_one_kind = start == returns && question.by.is_empty();
    let event = (!has_one_kind).then(|| {
        let mut condition = |condition: Expr| (condition != lit(true)).then(|| scan.select(condition));
        let (start, returns) = (condition(start), condition(returns));
        let groups = question.by.iter().map(|field| scan.select_column(Column::text(field))).collect();
        EventLayout { offset: scan.select_column(Column::Core(name::LOG_OFFSET)), start, returns, groups }
    });
    (scan, Layout { periods: Arc::new(periods), user, time, event })
}

/// What the users of one stream did.
#[derive(Debug)]
struct Stays {
    layout: Layout,
    done: Done,
    texts: Texts,
    /// Of the batch at hand: the period of each row.
    periods: Vec<u32>,
}

/// Stays, by part, and the one at hand. Stored events are sorted by user and time: most rows belong to the same as the row before.
#[derive(Debug)]
struct Done {
    parts: Vec<Pile<Stay>>,
    open: Option<Stay>,
}

impl Done {
    /// The stay of a row; a new one is begun with `begin`.
    #[inline]
    fn at(&mut self, actor: i64, period: u32, begin: impl FnOnce(&mut Stay)) -> &mut Stay {
        if self.open.is_none_or(|stay| !stay.is_of(actor, period)) {
            self.end();
            begin(self.open.insert(Stay::new(actor, period)));
        }
        self.open.as_mut().expect("there is one now")
    }

    fn end(&mut self) {
        if let Some(stay) = self.open.take() {
            self.parts[part(stay.actor)].push(stay);
        }
    }
}

impl Stays {
    fn new(layout: Layout) -> Self {
        let done = Done { parts: (0..PARTS).map(|_| Pile::default()).collect(), open: None };
        Self { layout, done, texts: Texts::default(), periods: Vec::new() }
    }

    fn into_parts(mut self) -> Vec<Pile<Stay>> {
        self.done.end();
        self.done.parts
    }
}

impl Sink for Stays {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let Self { layout, done, texts, periods } = self;
        let users = batch.column(layout.user).as_primitive::<Int64Type>().values();
        let times = batch.column(layout.time).as_primitive::<TimestampMicrosecondType>().values();
        periods.resize(times.len(), 0);
        layout.periods.find_all(times, None, periods);
        let rows = users.iter().zip(&*periods);
        let Some(event) = &layout.event else {
            // Each one is a start and a return.
            rows.for_each(|(actor, period)| {
                done.at(*actor, *period, |stay| {
                    stay.start((0, 0), || 0);
                    stay.come_back((0, 0));
                });
            });
            return Ok(());
        };
        texts.begin_batch();
        let offsets = batch.column(event.offset).as_primitive::<Int64Type>().values();
        let condition = |at: Option<usize>| at.map(|at| holds(batch.column(at).as_boolean()));
        let (starts, returns) = (condition(event.start), condition(event.returns));
        let groups: Vec<&StringViewArray> =
            event.groups.iter().map(|at| batch.column(*at).as_string_view()).collect();
        for (row, (actor, period)) in rows.enumerate() {
            let stay = done.at(*actor, *period, |_| {});
            let at = (times[row], offsets[row]);
            if starts.as_ref().is_none_or(|starts| starts.value(row)) {
                stay.start(at, || if groups.is_empty() { 0 } else { texts.number(&groups, row) });
            }
            if returns.as_ref().is_none_or(|returns| returns.value(row)) {
                stay.come_back(at);
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.done.parts.iter().map(Pile::bytes).sum::<usize>() + self.texts.bytes()
    }
}
