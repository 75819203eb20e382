//! What the tests of several modules share: events, and the records that a consumer would make of them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use prost::Message as _;
use uuid::Uuid;
use weir_proto::{
    event::v1::{self as event, EventRecord},
    google::r#type::Money,
    rollup::v1::{self as pb, metrics_record},
};
use weir_rollup::{
    accumulate::{Accumulator, Observation, Revenue},
    definition::{Catalog, CatalogSpec},
    level::Retention,
};
use weir_store::encode::Encoder;

use crate::materialise::{Applied, Limits, State};

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const HOUR: i64 = 3600 * SECOND;
pub(crate) const DAY: i64 = 24 * HOUR;
/// When the first event of [`filled_state`] happened.
pub(crate) const FIRST_EVENT: i64 = 1_700_000_000 * SECOND;

/// `total`, `by_event`, `by_event_and_platform`, `by_platform_and_plan`; seconds for an hour, minutes for two days.
pub(crate) fn catalog() -> Arc<Catalog> {
    let keep = |micros: i64| Some(std::time::Duration::from_micros(micros.unsigned_abs()));
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let spec = CatalogSpec {
        dimensions: texts(&["platform"]),
        numerics: texts(&["price"]),
        definitions: vec![("by_platform_and_plan".to_owned(), texts(&["platform", "plan"]))],
        retention: Retention::new(keep(HOUR), keep(2 * DAY), None, None, None).unwrap(),
    };
    Arc::new(Catalog::new(spec).unwrap())
}

pub(crate) fn limits() -> Limits {
    Limits { retention: catalog().retention().clone(), max_values: 1000 }
}

/// An event as the tests see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) time: i64,
    /// When the log took it.
    pub(crate) append: i64,
    pub(crate) name: &'static str,
    pub(crate) user: u64,
    pub(crate) session: Option<u64>,
    pub(crate) platform: Option<&'static str>,
    pub(crate) plan: Option<&'static str>,
    pub(crate) price: Option<f64>,
    /// In cents of a euro.
    pub(crate) revenue: Option<i64>,
    /// Or in whole units of any currency.
    pub(crate) money: Option<(&'static str, i64)>,
}

impl Event {
    pub(crate) fn at(time: i64) -> Self {
        Self {
            time,
            append: time,
            name: "page_view",
            user: 1,
            session: None,
            platform: None,
            plan: None,
            price: None,
            revenue: None,
            money: None,
        }
    }
}

impl Event {
    fn earned(&self) -> Option<Revenue<'static>> {
        let cents = self.revenue.map(|cents| Revenue {
            currency: "EUR",
            units: cents / 100,
            nanos: i32::try_from(cents % 100 * 10_000_000).unwrap(),
        });
        cents.or(self.money.map(|(currency, units)| Revenue { currency, units, nanos: 0 }))
    }

    /// The same as the producer writes it.
    fn record(&self) -> EventRecord {
        use prost_types::value::Kind;
        let text = |text: &str| Kind::StringValue(text.to_owned());
        let properties = [
            ("platform", self.platform.map(text)),
            ("plan", self.plan.map(text)),
            ("price", self.price.map(Kind::NumberValue)),
        ];
        let fields = properties
            .into_iter()
            .filter_map(|(key, kind)| Some((key.to_owned(), prost_types::Value { kind: Some(kind?) })));
        let revenue = self.earned().map(|Revenue { currency, units, nanos }| Money {
            currency_code: currency.to_owned(),
            units,
            nanos,
        });
        let event = event::Event {
            event_id: Uuid::new_v4().to_string(),
            event_name: self.name.to_owned(),
            user_id: format!("user-{}", self.user),
            session_id: self.session.map_or_else(String::new, |session| format!("session-{session}")),
            properties: Some(prost_types::Struct { fields: fields.collect() }),
            revenue,
            ..event::Event::default()
        };
        EventRecord {
            project: "default".to_owned(),
            receive_time_micros: self.append,
            corrected_time_micros: self.time,
            event: Some(event),
            import_id: Vec::new(),
        }
    }
}

/// Events as the store has them in memory, from this offset on.
pub(crate) fn stored(events: &[Event], first_offset: u64) -> RecordBatch {
    let mut encoder = Encoder::default();
    for (event, offset) in events.iter().zip(first_offset..) {
        let record = event.record().encode_to_vec();
        let late = event.append - event.time > 60 * SECOND;
        encoder.push_record(&record, offset, late).expect("it is an event");
    }
    encoder.finish()
}

/// Writes what the owner of a partition would write.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) owner: Uuid,
    pub(crate) next: u64,
    catalog: Arc<Catalog>,
}

/// Spreads a small number over 64 bits, as hashes are.
fn hash(number: u64) -> u64 {
    number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Writer {
    /// A new owner, which goes on at source offset `next`.
    pub(crate) fn new(next: u64) -> Self {
        Self { owner: Uuid::new_v4(), next, catalog: catalog() }
    }

    pub(crate) fn claim(&self) -> Vec<u8> {
        let claim = pb::Claim {
            owner: self.owner.as_bytes().to_vec(),
            address: "http://127.0.0.1:50052".to_owned(),
            claim_time_micros: 0,
            kept_micros: self.catalog.retention().to_micros(),
        };
        pb::MetricsRecord { record: Some(metrics_record::Record::Claim(claim)) }.encode_to_vec()
    }

    /// A batch of these events, whose watermark is the latest append time.
    pub(crate) fn batch(&mut self, events: &[Event]) -> Vec<u8> {
        let mut accumulator = Accumulator::new(self.catalog.clone());
        for event in events {
            let dimensions: Vec<_> = self
                .catalog
                .dimension_fields()
                .iter()
                .map(|field| match field.to_string().as_str() {
                    "event_name" => Some(event.name),
                    "properties.platform" => event.platform,
                    "properties.plan" => event.plan,
                    other => panic!("the tests know no {other}"),
                })
                .collect();
            accumulator.add(&Observation {
                project: "default",
                time_micros: event.time,
                level: self.catalog.retention().finest(event.append - event.time),
                late: event.append - event.time > 60 * SECOND,
                user: hash(event.user),
                session: event.session.map(hash),
                revenue: event.earned(),
                dimensions: &dimensions,
                numerics: &[event.price],
            });
        }
        let watermark = events.iter().map(|event| event.append).max().unwrap_or(0);
        self.record(events.len() as u64, watermark, accumulator.drain())
    }

    pub(crate) fn heartbeat(&mut self, watermark: i64) -> Vec<u8> {
        self.record(0, watermark, Vec::new())
    }

    fn record(&mut self, records: u64, watermark_micros: i64, projects: Vec<pb::ProjectDelta>) -> Vec<u8> {
        let start_offset = self.next;
        self.next += records;
        let batch = pb::MicroBatch {
            owner: self.owner.as_bytes().to_vec(),
            start_offset,
            end_offset: self.next,
            watermark_micros,
            tally: Some(pb::Tally { records, counted: records, ..pb::Tally::default() }),
            definitions: self.catalog.ids().to_vec(),
            projects,
            imports: Vec::new(),
        };
        pb::MetricsRecord { record: Some(metrics_record::Record::Batch(batch)) }.encode_to_vec()
    }
}

/// Applies the next record.
pub(crate) fn apply(state: &mut State, append: i64, record: &[u8]) -> Applied {
    state.apply(state.next_metrics_offset(), append, record)
}

/// A state that has counted these events in batches of `size`.
pub(crate) fn state_of(events: &[Event], size: usize) -> State {
    let mut state = State::new(limits());
    let mut writer = Writer::new(0);
    assert_eq!(apply(&mut state, 0, &writer.claim()), Applied::Claimed);
    for events in events.chunks(size) {
        let append = events.iter().map(|event| event.append).max().unwrap();
        let applied = apply(&mut state, append, &writer.batch(events));
        assert!(matches!(applied, Applied::Counted(_)), "{applied:?}");
    }
    state
}

/// A state with some of everything.
pub(crate) fn filled_state() -> State {
    state_of(&some_events(0..1500), 100)
}

/// Counts more events, some of them in buckets that exist.
pub(crate) fn apply_more(state: &mut State) {
    let mut writer = Writer::new(state.chain().next_source_offset);
    apply(state, 0, &writer.claim());
    let applied = apply(state, 0, &writer.batch(&some_events(1400..1700)));
    assert!(matches!(applied, Applied::Counted(_)), "{applied:?}");
}

fn some_events(numbers: std::ops::Range<i64>) -> Vec<Event> {
    let event = |n: i64| Event {
        name: ["page_view", "purchase", "sign_up"][(n % 3) as usize],
        user: n.unsigned_abs(),
        session: (n % 2 == 0).then_some(n.unsigned_abs() / 4),
        platform: [Some("web"), Some("ios"), None][(n % 3) as usize],
        plan: (n % 5 == 0).then_some("free"),
        price: (n % 4 == 0).then_some(n as f64 / 3.0),
        revenue: (n % 7 == 0).then_some(n),
        ..Event::at(FIRST_EVENT + n * 2 * SECOND)
    };
    numbers.map(event).collect()
}
