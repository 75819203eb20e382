//! Events to ask about, and short forms of questions.

use std::{ops::Range, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use datafusion::{catalog::TableProvider, execution::object_store::ObjectStoreUrl};
use object_store::memory::InMemory;
use prost_types::value::Kind;
use weir_proto::{
    analytics::v1::{self as pb, condition::Operator, filter::Expression},
    record::{self, Money, Value},
    validate::{Path, Violations},
};
use weir_query::{
    Actor, Engine, Error, Events,
    engine::Settings,
    filter::Filter,
    fold::funnel::Order,
    funnel,
    measure::Measure,
    series::{self, Measured, Shape},
};
use weir_rollup::{calendar::Zone, field::Field};
use weir_store::{
    encode::{Encoder, Row},
    table::Table,
    view::{Column, View},
};

pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// An event, as far as these tests need it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Event {
    pub(crate) user: String,
    pub(crate) session: String,
    pub(crate) name: String,
    /// Microseconds.
    pub(crate) time: i64,
    pub(crate) texts: Vec<(String, String)>,
    pub(crate) numbers: Vec<(String, f64)>,
    pub(crate) revenue: Option<(&'static str, i64, i32)>,
}

/// Batches of events: like a table without segments.
#[derive(Debug)]
pub(crate) struct Held(Vec<RecordBatch>);

impl Held {
    /// Events with their places as offsets, in batches of some size.
    pub(crate) fn of(events: &[Event], batch: usize) -> Arc<dyn Events> {
        let mut batches = Vec::new();
        let mut encoder = Encoder::default();
        for (number, chunk) in events.chunks(batch.max(1)).enumerate() {
            for (place, event) in chunk.iter().enumerate() {
                let money = |(currency, units, nanos)| Money { currency, units, nanos };
                let stored = record::Event {
                    corrected_time_micros: event.time,
                    receive_time_micros: event.time,
                    event_name: &event.name,
                    user_id: &event.user,
                    session_id: &event.session,
                    revenue: event.revenue.map(money),
                    ..record::Event::default()
                };
                let texts = event.texts.iter().map(|(key, text)| (key.as_str(), Value::Text(text.as_str())));
                let numbers =
                    event.numbers.iter().map(|(key, number)| (key.as_str(), Value::Number(*number)));
                let properties: Vec<_> = texts.chain(numbers).collect();
                encoder.push(&Row {
                    offset: (number * batch + place) as u64,
                    event: stored,
                    properties: &properties,
                    ..Row::default()
                });
            }
            batches.push(encoder.finish());
        }
        Arc::new(Self(batches))
    }
}

impl Events for Held {
    fn table(&self, columns: &[Column]) -> Result<Arc<dyn TableProvider>, Error> {
        let view = View::new(columns.iter().cloned());
        let url = ObjectStoreUrl::parse("memory://").unwrap();
        // Each batch is of a partition of its own.
        let hot = (0..).zip(self.0.iter().cloned()).collect();
        Ok(Arc::new(Table::new(view, Vec::new(), hot, url, Arc::new(InMemory::new()))))
    }
}

pub(crate) fn engine() -> Engine {
    Engine::new(Settings { memory_bytes: 1 << 30, threads: 2 }).unwrap()
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

pub(crate) fn field(name: &str) -> Field {
    Field::parse(name).unwrap()
}

pub(crate) fn is(field: &str, texts: &[&str]) -> pb::Filter {
    let value = |text: &&str| prost_types::Value { kind: Some(Kind::StringValue((*text).to_owned())) };
    let condition = pb::Condition {
        field: field.to_owned(),
        operator: Operator::In.into(),
        values: texts.iter().map(value).collect(),
    };
    pb::Filter { expression: Some(Expression::Condition(condition)) }
}

pub(crate) fn all(filters: Vec<pb::Filter>) -> pb::Filter {
    pb::Filter { expression: Some(Expression::AllOf(pb::FilterList { filters })) }
}

pub(crate) fn not(filter: pb::Filter) -> pb::Filter {
    pb::Filter { expression: Some(Expression::Not(Box::new(filter))) }
}

pub(crate) fn filter(filter: &pb::Filter) -> Filter {
    let mut found = Violations::default();
    let parsed = Filter::parse(Some(filter), &Path::ROOT, &mut found);
    found.into_result().unwrap();
    parsed
}

pub(crate) fn named(name: &str) -> Filter {
    filter(&is("event_name", &[name]))
}

pub(crate) fn of_all(measure: Measure) -> Measured {
    Measured { measure, filter: Filter::default() }
}

pub(crate) fn funnel(range: Range<i64>, steps: &[&str], window: i64) -> funnel::Question {
    funnel::Question {
        range,
        filter: Filter::default(),
        steps: steps.iter().map(|name| named(name)).collect(),
        exclusions: Vec::new(),
        window,
        order: Order::Strict,
        actor: Actor::User,
        by: Vec::new(),
        max_groups: 1000,
    }
}

pub(crate) fn series(range: Range<i64>, measures: Vec<Measure>) -> series::Question {
    series::Question {
        range,
        interval: None,
        zone: Zone::UTC,
        measures: measures.into_iter().map(of_all).collect(),
        formulas: Vec::new(),
        filter: Filter::default(),
        by: Vec::new(),
        shape: Shape::Plain,
        max_series: 1000,
        only: None,
        max_points: 100_000,
    }
}

/// The numbers of figures.
pub(crate) fn numbers(figures: &[series::Figure]) -> Vec<f64> {
    figures.iter().map(|figure| figure.estimate.map_or(f64::NAN, |estimate| estimate.value)).collect()
}
