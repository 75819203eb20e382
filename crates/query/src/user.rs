//! What is known of one user.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use weir_rollup::field::ContextField;
use weir_store::{
    schema::{Kind, column as name, context_column},
    view::Column,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Engine, Error, Events,
    engine::Read,
    export::of_user,
    fold::{Action, NO_SESSION, session::sessions},
    names::each_property,
    scan::{Scan, Sink},
};

/// What is known of a user.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// Time of the first event, microseconds since the Unix epoch; `None`: there is none.
    pub first_seen: Option<i64>,
    /// Time of the last one.
    pub last_seen: Option<i64>,
    /// Events.
    pub events: u64,
    /// Sessions: named by the client, or not interrupted by 30 minutes of silence.
    pub sessions: u64,
    /// Events by name, most frequent first.
    pub names: Vec<(String, u64)>,
    /// The last known texts of the context.
    pub context: BTreeMap<ContextField, String>,
    /// The last known values of properties, as texts; lists and structs as JSON.
    pub properties: BTreeMap<String, (Kind, Option<String>)>,
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
        let engine = self.clone();
        self.run(limit, async move { profile(&engine, &*events, &user).await }).await
    }
}

async fn profile(engine: &Engine, events: &dyn Events, user: &str) -> Result<Profile, Error> {
    let mut scan = Scan::of(&(i64::MIN..i64::MAX));
    of_user(&mut scan, user);
    for column in [name::TIME, name::LOG_OFFSET, name::EVENT_NAME, name::SESSION_ID] {
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
    all.actions.sort();
    let sessions = crate::fold::actors(&all.actions).map(|actor| sessions(actor).count() as u64).sum();
    let times = || all.actions.iter().map(|action| action.time);
    let mut names: Vec<_> = all.names.into_iter().collect();
    names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(Profile {
        first_seen: times().min(),
        last_seen: times().max(),
        events: all.actions.len() as u64,
        sessions,
        names,
        context: all.context.into_iter().map(|(field, (_, text))| (field, text)).collect(),
        properties: all.properties.into_iter().map(|(key, (_, value))| (key, value)).collect(),
        read,
    })
}

/// Time and offset: what came later counts.
type Moment = (i64, i64);

#[derive(Debug, Default)]
struct Seen {
    actions: Vec<Action>,
    names: BTreeMap<String, u64>,
    context: BTreeMap<ContextField, (Moment, String)>,
    properties: BTreeMap<String, (Moment, (Kind, Option<String>))>,
}

fn note<K: Ord, V>(known: &mut BTreeMap<K, (Moment, V)>, key: K, at: Moment, value: V) {
    if known.get(&key).is_none_or(|(before, _)| *before <= at) {
        known.insert(key, (at, value));
    }
}

impl Seen {
    fn merge(&mut self, other: Self) {
        self.actions.extend(other.actions);
        for (name, count) in other.names {
            *self.names.entry(name).or_default() += count;
        }
        other.context.into_iter().for_each(|(key, (at, value))| note(&mut self.context, key, at, value));
        other
            .properties
            .into_iter()
            .for_each(|(key, (at, value))| note(&mut self.properties, key, at, value));
    }
}

impl Sink for Seen {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>().values();
        let offsets = batch.column(1).as_primitive::<Int64Type>().values();
        let (names, sessions) = (batch.column(2).as_string_view(), batch.column(3).as_string_view());
        for row in 0..batch.num_rows() {
            let named = sessions.is_valid(row);
            let actor = if named { xxh3_64(sessions.value(row).as_bytes()) as i64 } else { 0 };
            let marks = if named { 0 } else { NO_SESSION };
            let (time, offset) = (times[row], offsets[row]);
            self.actions.push(Action { actor, time, offset, marks, breaks: 0, group: 0 });
            match self.names.get_mut(names.value(row)) {
                Some(count) => *count += 1,
                None => drop(self.names.insert(names.value(row).to_owned(), 1)),
            }
            for (field, at) in ContextField::ALL.iter().zip(4..) {
                let texts = batch.column(at).as_string_view();
                if texts.is_valid(row) {
                    note(&mut self.context, *field, (time, offset), texts.value(row).to_owned());
                }
            }
        }
        let map = 4 + ContextField::ALL.len();
        each_property(batch.column(map), batch.column(map + 1), |row, key, kind, value| {
            let value = (kind, value.map(str::to_owned));
            note(&mut self.properties, key.to_owned(), (times[row], offsets[row]), value);
        });
        Ok(())
    }

    fn bytes(&self) -> usize {
        let properties: usize = self
            .properties
            .iter()
            .map(|(key, (_, (_, value)))| key.len() + value.as_ref().map_or(0, String::len) + 120)
            .sum();
        self.actions.capacity() * size_of::<Action>() + 300 * self.names.len() + properties
    }
}
