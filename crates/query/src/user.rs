//! What is known of one user.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType},
};
use weir_rollup::{
    field::ContextField,
    money::{Currency, Revenue},
};
use weir_store::{
    encode::NANOS,
    schema::{Kind, column as name, context_column},
    shape::Entries,
    view::Column,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Engine, Error, Events,
    engine::Read,
    export::of_user,
    fold::{Action, NO_SESSION, actors, session::sessions},
    scan::{Scan, Sink},
};

/// What a user did, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Did {
    /// Name of the events.
    pub name: String,
    /// How many.
    pub events: u64,
    /// Time of the last one, microseconds since the Unix epoch.
    pub last: i64,
}

/// What is known of a user.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// Time of the first event, microseconds since the Unix epoch; `None`: there is none.
    pub first_seen: Option<i64>,
    /// Time of the last one.
    pub last_seen: Option<i64>,
    /// Events.
    pub events: u64,
    /// Visits: sessions, and where events have none, what 30 minutes without another such event don't interrupt.
    pub visits: u64,
    /// By name, most frequent first.
    pub did: Vec<Did>,
    /// Anonymous ids, the latest first.
    pub anonymous_ids: Vec<String>,
    /// Revenue by currency.
    pub revenue: Revenue,
    /// The context of the last event.
    pub context: BTreeMap<ContextField, String>,
    /// Properties of `IDENTIFY` events: of each key the last value, as text; lists and structs as JSON.
    pub traits: BTreeMap<String, (Kind, Option<String>)>,
    /// What was read.
    pub read: Read,
}

impl Engine {
    /// What is known of a user: `user_id`, or `anonymous_id` of one without.
    ///
    /// # Errors
    /// When the events can't be read, or not within `limit`.
    pub async fn user(
        &self,
        events: Arc<dyn Events>,
        user: String,
        limit: Duration,
    ) -> Result<Profile, Error> {
        self.run(limit, move |engine| async move { profile(&engine, &*events, &user).await }).await
    }
}

/// Columns before those of the context.
const FIXED: [&str; 8] = [
    name::TIME,
    name::LOG_OFFSET,
    name::EVENT_NAME,
    name::SESSION_ID,
    name::EVENT_TYPE,
    name::ANONYMOUS_ID,
    name::REVENUE,
    name::CURRENCY,
];

async fn profile(engine: &Engine, events: &dyn Events, user: &str) -> Result<Profile, Error> {
    let mut scan = Scan::of(&(i64::MIN..i64::MAX));
    of_user(&mut scan, user);
    for column in FIXED {
        scan.select_column(Column::Core(column));
    }
    for field in ContextField::ALL {
        scan.select_column(Column::Core(context_column(*field)));
    }
    scan.select_column(Column::Core(name::PROPERTIES));
    scan.select_column(Column::Core(name::PROPERTY_KINDS));
    let (streams, read) = scan.run(engine, events, Seen::default).await?;
    let mut all = Seen::default();
    streams.into_iter().for_each(|stream| all.merge(stream));

    // A session of the client's is an actor; events without one are one together.
    engine.deadline().sort_by(&mut all.actions, Ord::cmp)?;
    let visits = actors(&all.actions).map(|actor| sessions(actor).count() as u64).sum();
    let times = || all.actions.iter().map(|action| action.time);
    let mut did: Vec<_> =
        all.names.into_iter().map(|(name, (events, last))| Did { name, events, last }).collect();
    did.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.name.cmp(&b.name)));
    let mut anonymous: Vec<_> = all.anonymous.into_iter().collect();
    anonymous.sort_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(&b.0)));
    Ok(Profile {
        first_seen: times().min(),
        last_seen: times().max(),
        events: all.actions.len() as u64,
        visits,
        did,
        anonymous_ids: anonymous.into_iter().map(|(id, _)| id).collect(),
        revenue: all.revenue,
        context: all.context.map(|(_, context)| context).unwrap_or_default(),
        traits: all.traits.into_iter().map(|(key, (_, value))| (key, value)).collect(),
        read,
    })
}

/// Time and offset: what came later counts.
type Moment = (i64, i64);

#[derive(Debug, Default)]
struct Seen {
    actions: Vec<Action>,
    names: BTreeMap<String, (u64, i64)>,
    anonymous: BTreeMap<String, (Moment, ())>,
    revenue: Revenue,
    context: Option<(Moment, BTreeMap<ContextField, String>)>,
    traits: BTreeMap<String, (Moment, (Kind, Option<String>))>,
}

fn note<V>(known: &mut BTreeMap<String, (Moment, V)>, key: &str, at: Moment, value: V) {
    match known.get_mut(key) {
        Some(before) if before.0 > at => {}
        Some(before) => *before = (at, value),
        None => drop(known.insert(key.to_owned(), (at, value))),
    }
}

impl Seen {
    fn did(&mut self, name: &str, events: u64, last: i64) {
        match self.names.get_mut(name) {
            Some(known) => *known = (known.0 + events, known.1.max(last)),
            None => drop(self.names.insert(name.to_owned(), (events, last))),
        }
    }

    fn merge(&mut self, other: Self) {
        self.actions.extend(other.actions);
        other.names.iter().for_each(|(name, (events, last))| self.did(name, *events, *last));
        other.anonymous.iter().for_each(|(id, (at, ()))| note(&mut self.anonymous, id, *at, ()));
        self.revenue.merge(&other.revenue);
        self.context = self.context.take().max(other.context);
        other.traits.into_iter().for_each(|(key, (at, value))| note(&mut self.traits, &key, at, value));
    }
}

impl Sink for Seen {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>().values();
        let offsets = batch.column(1).as_primitive::<Int64Type>().values();
        let texts = |at: usize| batch.column(at).as_string_view();
        let (names, sessions, types, anonymous) = (texts(2), texts(3), texts(4), texts(5));
        let (amounts, currencies) = (batch.column(6).as_primitive::<Decimal128Type>(), texts(7));
        for row in 0..batch.num_rows() {
            let named = sessions.is_valid(row);
            let actor = if named { xxh3_64(sessions.value(row).as_bytes()) as i64 } else { 0 };
            let marks = if named { 0 } else { NO_SESSION };
            let (time, offset) = (times[row], offsets[row]);
            self.actions.push(Action { actor, time, offset, marks, breaks: 0, group: 0 });
            self.did(names.value(row), 1, time);
            if anonymous.is_valid(row) {
                note(&mut self.anonymous, anonymous.value(row), (time, offset), ());
            }
            if amounts.is_valid(row) {
                let code = currencies.is_valid(row).then(|| Currency::parse(currencies.value(row)));
                let nanos = amounts.value(row);
                let currency = code.flatten().unwrap_or(Currency::NONE);
                self.revenue.add(currency, (nanos / NANOS) as i64, (nanos % NANOS) as i32);
            }
        }
        let last = (0..batch.num_rows()).max_by_key(|row| (times[*row], offsets[*row]));
        if let Some(row) = last {
            let text = |(field, at): (&ContextField, usize)| {
                let texts = texts(at);
                texts.is_valid(row).then(|| (*field, texts.value(row).to_owned()))
            };
            let context = ContextField::ALL.iter().zip(FIXED.len()..).filter_map(text).collect();
            let context = Some(((times[row], offsets[row]), context));
            self.context = self.context.take().max(context);
        }
        let map = FIXED.len() + ContextField::ALL.len();
        Entries::new(batch.column(map), batch.column(map + 1))?.each(|row, key, kind, value| {
            if types.is_valid(row) && types.value(row) == "IDENTIFY" {
                let value = (kind, value.map(str::to_owned));
                note(&mut self.traits, key, (times[row], offsets[row]), value);
            }
        });
        Ok(())
    }

    fn bytes(&self) -> usize {
        let traits: usize = self
            .traits
            .iter()
            .map(|(key, (_, (_, value)))| key.len() + value.as_ref().map_or(0, String::len) + 120)
            .sum();
        self.actions.capacity() * size_of::<Action>()
            + 300 * (self.names.len() + self.anonymous.len())
            + traits
    }
}
