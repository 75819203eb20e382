//! All events of an actor together, in order: batches are split by the actor's hash as they come, then each part is sorted and
//! folded on its own. Stored events are sorted already, so a part is a few sorted runs, which the standard library's sort finds
//! and merges.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch, StringViewArray},
    datatypes::{Int64Type, TimestampMicrosecondType, UInt32Type},
};
use datafusion::logical_expr::Expr;
use tokio::task::JoinSet;
use weir_rollup::field::Field;
use weir_store::{schema::column as name, view::Column};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    Engine, Error,
    deadline::{Deadline, Pace},
    engine::stopped,
    fold::{Action, NO_SESSION, actors, session::sessions},
    marks::marks,
    pile::Pile,
    scan::{Scan, Sink},
    texts::Texts,
};

/// Parts: enough that one fits into a core's cache where all of them take a gigabyte.
pub(crate) const PARTS: usize = 256;

/// The part of an actor. By the high bits, so that parts keep the order of hashes.
pub(crate) fn part(actor: i64) -> usize {
    (actor as u64 >> (64 - PARTS.trailing_zeros())) as usize
}

/// Whom a question counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Users: `user_id`, else `anonymous_id`.
    User,
    /// Sessions of a user: `session_id`, else what 30 minutes of silence don't interrupt.
    Session,
}

/// Where an action's parts are in the batches of a scan.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    user: usize,
    time: usize,
    offset: usize,
    session: Option<usize>,
    marks: usize,
    breaks: Option<usize>,
    groups: Vec<usize>,
    /// Only events with one of these marks have a group.
    grouped: u32,
}

impl Layout {
    /// Selects what every action has, and marks where conditions hold.
    pub(crate) fn new(scan: &mut Scan, actor: Actor, conditions: Vec<(Expr, u32)>) -> Self {
        Self {
            user: scan.select_column(Column::Core(name::USER_HASH)),
            time: scan.select_column(Column::Core(name::TIME)),
            offset: scan.select_column(Column::Core(name::LOG_OFFSET)),
            session: (actor == Actor::Session).then(|| scan.select_column(Column::Core(name::SESSION_ID))),
            marks: scan.select(marks(conditions)),
            breaks: None,
            groups: Vec::new(),
            grouped: 0,
        }
    }

    /// Breaks gaps where conditions hold.
    pub(crate) fn breaks(&mut self, scan: &mut Scan, conditions: Vec<(Expr, u32)>) {
        self.breaks = (!conditions.is_empty()).then(|| scan.select(marks(conditions)));
    }

    /// Groups events with one of these marks by fields.
    pub(crate) fn group(&mut self, scan: &mut Scan, fields: &[Field], grouped: u32) {
        self.groups = fields.iter().map(|field| scan.select_column(Column::text(field))).collect();
        self.grouped = if fields.is_empty() { 0 } else { grouped };
    }
}

/// The actions of one stream.
#[derive(Debug)]
pub(crate) struct Actions {
    layout: Layout,
    parts: Vec<Pile<Action>>,
    texts: Texts,
}

impl Actions {
    pub(crate) fn new(layout: Layout) -> Self {
        let parts = (0..PARTS).map(|_| Pile::default()).collect();
        Self { layout, parts, texts: Texts::default() }
    }
}

impl Sink for Actions {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let Self { layout, parts, texts } = self;
        texts.begin_batch();
        let marks = batch.column(layout.marks).as_primitive::<UInt32Type>().values();
        let breaks = layout.breaks.map(|at| batch.column(at).as_primitive::<UInt32Type>().values());
        let users = batch.column(layout.user).as_primitive::<Int64Type>().values();
        let times = batch.column(layout.time).as_primitive::<TimestampMicrosecondType>().values();
        let offsets = batch.column(layout.offset).as_primitive::<Int64Type>().values();
        let session = layout.session.map(|at| batch.column(at).as_string_view());
        let groups: Vec<&StringViewArray> =
            layout.groups.iter().map(|at| batch.column(*at).as_string_view()).collect();
        for row in 0..batch.num_rows() {
            let mut action = Action {
                actor: users[row],
                time: times[row],
                offset: offsets[row],
                marks: marks[row],
                breaks: breaks.map_or(0, |breaks| breaks[row]),
                group: 0,
            };
            if let Some(session) = session {
                if session.is_null(row) {
                    action.marks |= NO_SESSION;
                } else {
                    let id = session.value(row).as_bytes();
                    action.actor = xxh3_64_with_seed(id, users[row] as u64) as i64;
                }
            }
            if action.marks & layout.grouped != 0 {
                action.group = texts.number(&groups, row);
            }
            parts[part(action.actor)].push(action);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(Pile::bytes).sum::<usize>() + self.texts.bytes()
    }
}

/// The rows where a condition holds.
pub(crate) fn holds(condition: &BooleanArray) -> arrow::buffer::BooleanBuffer {
    match condition.nulls() {
        Some(nulls) => condition.values() & nulls.inner(),
        None => condition.values().clone(),
    }
}

/// Those of so many rows that are wanted; `None`: all.
#[inline]
pub(crate) fn each_row(rows: usize, wanted: Option<&[u32]>, mut take: impl FnMut(usize)) {
    match wanted {
        None => (0..rows).for_each(take),
        Some(wanted) => wanted.iter().for_each(|row| take(*row as usize)),
    }
}

/// What folds actors, one after the other.
pub(crate) trait Fold: Send + 'static {
    /// Adds an actor.
    fn add(&mut self, actions: &[Action]);
    /// Adds what another one has folded.
    ///
    /// # Errors
    /// When the deadline has passed.
    fn merge(&mut self, other: Self, pace: &mut Pace<'_>) -> Result<(), Error>;
}

/// Folds all actors of all streams on the engine's threads; the result, and what its groups stand for.
pub(crate) async fn fold<F: Fold>(
    engine: &Engine,
    streams: Vec<Actions>,
    actor: Actor,
    new: impl Fn() -> F + Send + Sync + 'static,
) -> Result<(F, Texts), Error> {
    let mut texts = Texts::default();
    let mut parts: Vec<Vec<Pile<Action>>> = (0..PARTS).map(|_| Vec::new()).collect();
    let mut numbers = Vec::new();
    let mut held = 0;
    for stream in streams {
        held += stream.bytes();
        numbers.push(texts.absorb(&stream.texts));
        for (part, actions) in parts.iter_mut().zip(stream.parts) {
            part.push(actions);
        }
    }
    let memory = engine.memory("actions of a question");
    memory.try_grow(held + texts.bytes()).map_err(|error| engine.failure(error))?;
    let (numbers, new) = (Arc::new(numbers), Arc::new(new));
    let result = each_part(
        engine,
        parts,
        {
            let new = Arc::clone(&new);
            move || new()
        },
        move |folded: &mut F, streams: Vec<Pile<Action>>, deadline: &Deadline| {
            let mut all = Vec::with_capacity(streams.iter().map(Pile::len).sum());
            for (actions, numbers) in streams.into_iter().zip(&*numbers) {
                let first = all.len();
                actions.move_to(&mut all);
                // An event without a group has number 0, which need not exist.
                all[first..].iter_mut().for_each(|action: &mut Action| {
                    action.group = numbers.get(action.group as usize).copied().unwrap_or(0);
                });
            }
            each_actor(&all, deadline, |actions, pace| match actor {
                Actor::User => {
                    folded.add(actions);
                    pace.step(actions.len())
                }
                Actor::Session => sessions(actions).try_for_each(|session| {
                    folded.add(session);
                    pace.step(session.len())
                }),
            })
        },
    );
    let mut folded = result.await?.into_iter();
    let mut sum = folded.next().unwrap_or_else(|| new());
    let mut pace = engine.deadline().pace();
    for part in folded {
        sum.merge(part, &mut pace)?;
        tokio::task::yield_now().await;
    }
    Ok((sum, texts))
}

/// Takes the actions of each actor, in order. Those that lie together are moved together, and are mostly in order already.
fn each_actor(
    all: &[Action],
    deadline: &Deadline,
    mut take: impl FnMut(&[Action], &mut Pace<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut together: Vec<&[Action]> = actors(all).collect();
    deadline.sort_by_key(&mut together, |actions| actions[0].actor)?;
    let (mut sorted, mut pace) = (Vec::new(), deadline.pace());
    for of_actor in together.chunk_by(|one, next| one[0].actor == next[0].actor) {
        sorted.clear();
        of_actor.iter().for_each(|actions| sorted.extend_from_slice(actions));
        deadline.sort_by_key(&mut sorted, |action| (action.time, action.offset))?;
        take(&sorted, &mut pace)?;
    }
    Ok(())
}

/// Shares parts out among the engine's threads, each of which adds what it gets to a state of its own.
pub(crate) async fn each_part<P: Send + 'static, F: Send + 'static>(
    engine: &Engine,
    parts: Vec<P>,
    new: impl Fn() -> F,
    add: impl Fn(&mut F, P, &Deadline) -> Result<(), Error> + Send + Sync + 'static,
) -> Result<Vec<F>, Error> {
    let (parts, add) = (Arc::new(Mutex::new(VecDeque::from(parts))), Arc::new(add));
    let mut tasks = JoinSet::new();
    for _ in 0..engine.threads() {
        let (parts, add, mut state) = (Arc::clone(&parts), Arc::clone(&add), new());
        let deadline = engine.deadline().clone();
        tasks.spawn(async move {
            loop {
                let next = parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(part) = next else { break Ok::<_, Error>(state) };
                add(&mut state, part, &deadline)?;
                // Where a cancelled question stops.
                tokio::task::yield_now().await;
            }
        });
    }
    let mut states = Vec::new();
    while let Some(done) = tasks.join_next().await {
        states.push(done.map_err(stopped)??);
    }
    Ok(states)
}
