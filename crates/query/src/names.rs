//! What there is to ask about: names of events, properties with types, counts and frequent values.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::TimestampMicrosecondType,
};
use datasketches::frequencies::{ErrorType, FrequentItemsSketch};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_rollup::{
    Estimate,
    distinct::Union,
    field::{ContextField, Field},
};
use weir_store::{
    schema::{Kind, column as name, context_column},
    shape::Entries,
    view::Column,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Engine, Error, Events,
    engine::Read,
    filter::Filter,
    scan::{Scan, Sink},
};

/// Properties that are told apart at most, and names of events.
const MAX_KEYS: usize = 10_000;
/// Places for values of a property in the sketch that finds the frequent ones. While three quarters of them are enough, all values
/// are counted; beyond that the sketch tells how far off its counts can be.
const VALUES: usize = 2048;
/// Longer values are not counted each: nobody breaks down by them. Bytes.
const MAX_VALUE_BYTES: usize = 256;

/// Which events.
#[derive(Debug, Clone)]
pub struct Question {
    /// Their times, microseconds since the Unix epoch.
    pub range: Range<i64>,
    /// Which of them.
    pub filter: Filter,
    /// Frequent values of each property.
    pub values: usize,
}

/// A kind of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Its name.
    pub name: String,
    /// Events.
    pub events: u64,
    /// Time of the first one, microseconds since the Unix epoch.
    pub first_seen: i64,
    /// Time of the last one.
    pub last_seen: i64,
}

/// A property, or a text of the context.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// Which one.
    pub field: Field,
    /// Events that have it.
    pub events: u64,
    /// By type of its values.
    pub kinds: BTreeMap<Kind, u64>,
    /// Frequent values (texts, numbers and booleans), most frequent first.
    pub values: Vec<Frequent>,
    /// Whether there are more values than could be counted, so that some may be missing.
    pub more_values: bool,
    /// Different values (texts, numbers and booleans).
    pub distinct: Estimate,
}

/// A frequent value, and how many events have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frequent {
    /// The value as text.
    pub value: String,
    /// Events at most.
    pub events: u64,
    /// Events at least.
    pub lower_bound: u64,
}

impl Engine {
    /// The names of events, most frequent first.
    ///
    /// # Errors
    /// When the events can't be read, or not within `limit`.
    pub async fn event_names(
        &self,
        events: Arc<dyn Events>,
        question: Question,
        limit: Duration,
    ) -> Result<(Vec<Name>, Read), Error> {
        let work = move |engine: Self| async move {
            let mut scan = question.scan();
            scan.select_column(Column::Core(name::EVENT_NAME));
            scan.select_column(Column::Core(name::TIME));
            let (streams, read) = scan.run(&engine, &*events, Names::default).await?;
            let mut all = Names::default();
            for (name, seen) in streams.into_iter().flat_map(|stream| stream.0) {
                all.note(&name, seen);
            }
            let name = |(name, (events, first_seen, last_seen))| Name { name, events, first_seen, last_seen };
            let mut names: Vec<_> = all.0.into_iter().map(name).collect();
            names.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.name.cmp(&b.name)));
            Ok((names, read))
        };
        self.run(limit, work).await
    }

    /// The properties of events, most frequent first.
    ///
    /// # Errors
    /// When the events can't be read, or not within `limit`.
    pub async fn properties(
        &self,
        events: Arc<dyn Events>,
        question: Question,
        limit: Duration,
    ) -> Result<(Vec<Property>, Read), Error> {
        let work = move |engine: Self| async move {
            let top = question.values;
            let mut scan = question.scan();
            scan.select_column(Column::Core(name::PROPERTIES));
            scan.select_column(Column::Core(name::PROPERTY_KINDS));
            for field in ContextField::ALL {
                scan.select_column(Column::Core(context_column(*field)));
            }
            let (streams, read) = scan.run(&engine, &*events, Keys::default).await?;
            let mut all = Keys::default();
            let deadline = engine.deadline();
            for stream in streams {
                all.context.iter_mut().zip(&stream.context).for_each(|(mine, theirs)| mine.merge(theirs));
                for (key, seen) in stream.properties {
                    deadline.check()?;
                    if let Some(known) = all.property(&key) {
                        known.merge(&seen);
                    }
                }
            }
            let context = ContextField::ALL.iter().map(|field| Field::Context(*field)).zip(all.context);
            let properties = all.properties.into_iter().map(|(key, seen)| (Field::Property(key), seen));
            let mut found = Vec::new();
            for (field, seen) in properties.chain(context) {
                deadline.check()?;
                found.push(seen.into_property(field, top));
            }
            let mut properties = found;
            properties.retain(|property| property.events > 0);
            properties.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.field.cmp(&b.field)));
            Ok((properties, read))
        };
        self.run(limit, work).await
    }
}

impl Question {
    fn scan(&self) -> Scan {
        let mut scan = Scan::of(&self.range);
        if !self.filter.is_empty() {
            let condition = scan.filter(&self.filter);
            scan.keep(condition);
        }
        scan
    }
}

#[derive(Debug, Default)]
struct Names(HashMap<String, (u64, i64, i64), FixedState>);

impl Names {
    fn note(&mut self, name: &str, (count, first, last): (u64, i64, i64)) {
        let room = self.0.len() < MAX_KEYS;
        match self.0.get_mut(name) {
            Some(known) => *known = (known.0 + count, known.1.min(first), known.2.max(last)),
            None if room => drop(self.0.insert(name.to_owned(), (count, first, last))),
            None => {}
        }
    }
}

impl Sink for Names {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let names = batch.column(0).as_string_view();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
        for (row, time) in times.iter().enumerate() {
            self.note(names.value(row), (1, *time, *time));
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        300 * self.0.len()
    }
}

#[derive(Debug)]
struct Counted {
    kinds: [u64; Kind::ALL.len()],
    values: FrequentItemsSketch<String>,
    more: bool,
    distinct: Union,
}

impl Default for Counted {
    fn default() -> Self {
        let values = FrequentItemsSketch::new(VALUES).expect("a power of two");
        Self { kinds: [0; Kind::ALL.len()], values, more: false, distinct: Union::for_cell() }
    }
}

impl Counted {
    fn note(&mut self, kind: Kind, value: Option<&str>) {
        self.kinds[Kind::ALL.iter().position(|one| *one == kind).expect("ALL has every kind")] += 1;
        match (kind, value) {
            (Kind::Text | Kind::Number | Kind::Boolean, Some(value)) => {
                self.distinct.insert(xxh3_64(value.as_bytes()));
                if value.len() <= MAX_VALUE_BYTES {
                    self.values.update_ref(value);
                } else {
                    self.more = true;
                }
            }
            (Kind::Text | Kind::Number | Kind::Boolean | Kind::Json | Kind::Null, _) => {}
        }
    }

    fn merge(&mut self, other: &Self) {
        self.kinds.iter_mut().zip(&other.kinds).for_each(|(mine, theirs)| *mine += theirs);
        self.more |= other.more;
        self.distinct.merge(&other.distinct);
        self.values.merge(&other.values);
    }

    fn into_property(self, field: Field, top: usize) -> Property {
        let kinds = Kind::ALL.into_iter().zip(self.kinds).filter(|(_, count)| *count > 0).collect();
        let more_values = self.more || self.values.maximum_error() > 0;
        let frequent = self.values.frequent_items(ErrorType::NoFalseNegatives);
        let mut values: Vec<_> = frequent
            .iter()
            .map(|row| Frequent {
                value: row.item().clone(),
                events: row.upper_bound(),
                lower_bound: row.lower_bound(),
            })
            .collect();
        values.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.value.cmp(&b.value)));
        values.truncate(top);
        let (events, distinct) = (self.kinds.iter().sum(), self.distinct.estimate());
        Property { field, events, kinds, values, more_values, distinct }
    }
}

#[derive(Debug)]
struct Keys {
    properties: HashMap<String, Counted, FixedState>,
    /// In the order of [`ContextField::ALL`].
    context: Vec<Counted>,
}

impl Default for Keys {
    fn default() -> Self {
        let context = ContextField::ALL.iter().map(|_| Counted::default()).collect();
        Self { properties: HashMap::default(), context }
    }
}

impl Keys {
    fn property(&mut self, key: &str) -> Option<&mut Counted> {
        if !self.properties.contains_key(key) {
            if self.properties.len() >= MAX_KEYS {
                return None;
            }
            self.properties.insert(key.to_owned(), Counted::default());
        }
        self.properties.get_mut(key)
    }
}

impl Sink for Keys {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        Entries::new(batch.column(0), batch.column(1))?.each(|_, key, kind, value| {
            if let Some(counted) = self.property(key) {
                counted.note(kind, value);
            }
        });
        for (counted, at) in self.context.iter_mut().zip(2..) {
            for text in batch.column(at).as_string_view().iter().flatten() {
                counted.note(Kind::Text, Some(text));
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        // A set of different values takes up to 8 KB.
        let of = |counted: &Counted| {
            let values = &counted.values;
            8 * values.num_active_items().min(1000) + values.estimated_size() + 40 * values.num_active_items()
        };
        let properties = self.properties.iter().map(|(key, counted)| key.len() + 200 + of(counted));
        properties.sum::<usize>() + self.context.iter().map(of).sum::<usize>()
    }
}
