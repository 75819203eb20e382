//! Random events, and a store that has them: in segments of all shapes, compacted ones among them, and in memory.

use std::sync::Arc;

use prost::Message as _;
use prost_types::value::Kind;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use weir_proto::{
    event::v1::{Context, Event, EventRecord, OperatingSystem},
    google::r#type::Money,
};
use weir_query::{Engine, Error, Events, engine};
use weir_store::{
    CleanBatch, EventStore as _, Reader, Settings, Snapshot, Store, Writer,
    encode::Encoder,
    table::Table,
    view::{Column, View},
};

use super::dice::Dice;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
const PROJECT: &str = "shop";

/// Zones, each with a moment (seconds since the Unix epoch) at which something happens to its clock.
pub(crate) const ZONES: &[(&str, i64)] = &[
    ("Europe/Berlin", 1_711_846_800),       // 2024-03-31 forward by an hour
    ("Europe/Berlin", 1_729_990_800),       // 2024-10-27 back by an hour
    ("America/New_York", 1_710_054_000),    // 2024-03-10 forward
    ("America/St_Johns", 1_730_608_200),    // 2024-11-03 back, half an hour from full hours
    ("America/St_Johns", 1_289_097_060),    // 2010-11-07 back at a minute past midnight, into the day before
    ("Australia/Lord_Howe", 1_712_415_600), // 2024-04-07 back by half an hour
    ("Australia/Lord_Howe", 1_728_142_200), // 2024-10-06 forward by half an hour
    ("Asia/Kathmandu", 1_710_000_000),      // never: 5:45 hours ahead
    ("Asia/Kolkata", 1_719_800_000),        // never: 5:30 hours ahead
    ("Pacific/Chatham", 1_712_412_000),     // 2024-04-07 back, 45 minutes from full hours
    ("Pacific/Apia", 1_325_239_200),        // 2011-12-30 left out
    ("America/Sao_Paulo", 1_541_300_400),   // 2018-11-04 forward over midnight
    ("Africa/Cairo", 1_714_082_400),        // 2024-04-26 forward over midnight
    ("Asia/Beirut", 1_729_976_400),         // 2024-10-27 back at midnight, into the day before
    ("UTC", 1_709_251_200),
];

pub(crate) const NAMES: &[&str] = &["view", "add", "buy", "Kauf für später", "view "];
pub(crate) const TEXTS: &[&str] =
    &["free", "pro", "Pro", "é", "", "10", "9.5", "1e3", "true", "it's", "用户 🦀", "-0"];
pub(crate) const NUMBER_TEXTS: &[&str] =
    &["9.5", "10", "1e3", " 1", "inf", "NaN", "-0", "+5", ".5", "5.", "0x1", "1_0"];
pub(crate) const CURRENCIES: &[&str] = &["EUR", "JPY", "USD"];
const USERS: &[&str] =
    &["ann", "bob", "Bob", "ünï 🦀", "用户", "o'x", "\"q\"", "u-7", "u-8", "u-9", "u-10", "u-11"];

/// An event as it goes to the oracle, and where it lies.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) json: Json,
    partition: u32,
    offset: u64,
    /// Which batch it comes in.
    part: usize,
    project: &'static str,
}

/// Random events and how they are stored.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) zone: &'static str,
    pub(crate) center: i64,
    pub(crate) events: Vec<Stored>,
    partitions: u32,
    parts: usize,
    /// Batches from this one on are in memory only.
    hot: usize,
    /// Batches after which segments are compacted.
    compacted: Vec<usize>,
    compact_files: usize,
    threads: usize,
}

impl World {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        let (zone, center) = dice.pick(ZONES);
        let parts = 1 + dice.below(12);
        let mut world = Self {
            zone,
            center: center * SECOND,
            events: Vec::new(),
            partitions: 1 + dice.below(3) as u32,
            parts,
            hot: dice.below(parts + 1),
            compacted: (0..parts).filter(|_| dice.percent(25)).collect(),
            compact_files: 2 + dice.below(3),
            threads: 1 + dice.below(3),
        };
        let habits = Habits::random(dice);
        let count = dice.pick(&[1, 20, 80, 250, 250, 400]);
        let mut next = [0; 3];
        for number in 0..count {
            let json = habits.event(dice, world.center);
            let user = [&json["user_id"], &json["anonymous_id"]];
            let user = user.iter().find_map(|id| id.as_str().filter(|id| !id.is_empty())).unwrap_or_default();
            let partition = user.len() as u32 % world.partitions;
            let next = &mut next[partition as usize];
            // Offsets of records that don't count lie between.
            *next += 1 + u64::from(dice.percent(10));
            let mut json = json;
            json["offset"] = (*next).into();
            world.events.push(Stored {
                json,
                partition,
                offset: *next,
                part: number * parts / count,
                project: if dice.percent(5) { "other" } else { PROJECT },
            });
        }
        world
    }

    /// The events that questions are about, as the oracle gets them.
    pub(crate) fn asked_about(&self) -> Vec<&Json> {
        let own = self.events.iter().filter(|event| event.project == PROJECT);
        own.map(|event| &event.json).collect()
    }

    fn batch(&self, part: usize, partition: u32) -> Option<CleanBatch> {
        let within = |event: &&Stored| event.part == part && event.partition == partition;
        let events: Vec<_> = self.events.iter().filter(within).collect();
        let (first, last) = (events.first()?, events.last()?);
        let by_project = |project: &'static str| {
            let mut encoder = Encoder::default();
            for event in events.iter().filter(|event| event.project == project) {
                push(&mut encoder, event);
            }
            (project.into(), encoder.finish())
        };
        Some(CleanBatch {
            start: first.offset,
            end: last.offset + 1,
            watermark_micros: 0,
            events: [PROJECT, "other"].map(by_project).into(),
        })
    }

    /// Stores everything; what can be asked about it.
    pub(crate) async fn store(&self) -> Laid {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::folder(folder.path());
        settings.compact_files = self.compact_files;
        settings.columns = vec!["seldom".to_owned()];
        let store = Store::open(settings).await.unwrap();
        let mut writers = Vec::new();
        for part in 0..self.parts {
            if part == self.hot {
                for partition in 0..self.partitions {
                    writers.push(store.writer(partition, Uuid::now_v7()).await.unwrap());
                }
            }
            for partition in 0..self.partitions {
                let Some(batch) = self.batch(part, partition) else { continue };
                match writers.get_mut(partition as usize) {
                    Some(writer) => writer.append(batch),
                    None => drop(store.append(partition, Uuid::now_v7(), batch).await.unwrap()),
                }
                if self.compacted.contains(&part) && part < self.hot {
                    store.compact(partition).await.unwrap();
                }
            }
        }
        let reader = Reader::new(store.clone(), self.partitions, Arc::new(store.clone()));
        let snapshot = reader.snapshot(PROJECT).await.unwrap();
        let own = self.events.iter().filter(|event| event.project == PROJECT).count();
        assert_eq!(snapshot.rows(), own as u64, "the store has every event once");
        let settings = engine::Settings { memory_bytes: 1 << 30, threads: self.threads };
        let engine = Engine::new(settings).unwrap();
        engine.environment().register_object_store(store.object_store_url().as_ref(), store.object_store());
        let seen = Arc::new(Seen { snapshot, store, _writers: writers, _folder: folder });
        Laid { engine, events: seen }
    }

    /// The same world without some of its events.
    pub(crate) fn without(&self, left_out: std::ops::Range<usize>) -> Self {
        let mut smaller = self.clone();
        smaller.events.drain(left_out);
        smaller
    }
}

/// How a world's users behave.
#[derive(Debug)]
struct Habits {
    users: usize,
    sessions: usize,
    /// Half-width of the time in which most happens.
    crowded: i64,
    currencies: usize,
    odd_numbers: bool,
}

impl Habits {
    fn random(dice: &mut Dice) -> Self {
        Self {
            users: 1 + dice.below(USERS.len()),
            sessions: dice.pick(&[0, 0, 30, 60, 100]),
            crowded: dice.pick(&[HOUR, 6 * HOUR, 2 * DAY, 10 * DAY]),
            currencies: dice.pick(&[1, 1, 3]),
            odd_numbers: dice.percent(50),
        }
    }

    fn time(&self, dice: &mut Dice, center: i64) -> i64 {
        match dice.below(10) {
            0 => center + dice.within(-40 * DAY, 40 * DAY),
            // Just before, at and just after where buckets may begin.
            1..=3 => center + dice.within(-6, 7) * 15 * MINUTE + dice.within(-1, 2),
            // Ties.
            4..=6 => center + dice.within(-self.crowded, self.crowded) / (10 * MINUTE) * (10 * MINUTE),
            _ => center + dice.within(-self.crowded, self.crowded),
        }
    }

    fn number(&self, dice: &mut Dice) -> f64 {
        match dice.below(12) {
            0 if self.odd_numbers => dice.pick(&[-0.0, 1e16, 1e15, 1e-5, 1e-6, 0.000_03, 123_456.789, 1e21]),
            1..=5 if self.odd_numbers => dice.within(-500, 500) as f64 / 10.0,
            _ => dice.within(-40, 80) as f64 / 8.0,
        }
    }

    fn properties(&self, dice: &mut Dice) -> Json {
        let mut properties = serde_json::Map::new();
        let mut put = |key: &str, value: Json| drop(properties.insert(key.to_owned(), value));
        if dice.percent(70) {
            put("plan", dice.pick(TEXTS).into());
        }
        if dice.percent(30) {
            put("Plan", dice.pick(&TEXTS[..3]).into());
        }
        if dice.percent(60) {
            put("price", self.number(dice).into());
        }
        if dice.percent(60) {
            put(
                "mixed",
                match dice.below(8) {
                    0 | 1 => dice.pick(TEXTS).into(),
                    2..=4 => self.number(dice).into(),
                    5 => dice.percent(50).into(),
                    6 => Json::Null,
                    _ => dice.pick(&["[1, \"a\"]", "{\"a\": {\"b\": []}}"]).parse().unwrap(),
                },
            );
        }
        if dice.percent(3) {
            put("seldom", self.number(dice).into());
        }
        if dice.percent(2) {
            put("rare", if dice.percent(50) { self.number(dice).into() } else { dice.pick(TEXTS).into() });
        }
        if dice.percent(40) {
            put("Größe", dice.pick(NUMBER_TEXTS).into());
        }
        if dice.percent(30) {
            put("a.b", dice.percent(50).into());
        }
        properties.into()
    }

    fn event(&self, dice: &mut Dice, center: i64) -> Json {
        let user = USERS[dice.below(self.users)];
        let (user_id, anonymous_id) = match dice.below(10) {
            0..=5 => (user, ""),
            6 | 7 => (user, "visitor"),
            // The same person: what counts is the id.
            _ => ("", user),
        };
        let session = if dice.percent(self.sessions) { dice.pick(&["s1", "s2", "s3"]) } else { "" };
        let revenue = dice.percent(30).then(|| {
            let currency = CURRENCIES[dice.below(self.currencies)];
            let sign = if dice.percent(20) { -1 } else { 1 };
            json!([currency, sign * dice.within(0, 200), sign * dice.within(0, 100) * 10_000_000])
        });
        json!({
            "time": self.time(dice, center),
            "user_id": user_id,
            "anonymous_id": anonymous_id,
            "session_id": session,
            "event_name": NAMES[dice.below(NAMES.len()).min(dice.below(NAMES.len()))],
            "event_type": dice.pick(&["TRACK", "TRACK", "PAGE", "IDENTIFY"]),
            "context.os.name": dice.pick(&["", "Android", "iOS"]),
            "properties": self.properties(dice),
            "revenue": revenue,
            "late": dice.percent(10),
        })
    }
}

fn push(encoder: &mut Encoder, event: &Stored) {
    let json = &event.json;
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    let micros = json["time"].as_i64().unwrap();
    let fields = json["properties"].as_object().unwrap();
    let fields = fields.iter().map(|(key, value)| (key.clone(), property(value))).collect();
    let os = OperatingSystem { name: text("context.os.name"), ..OperatingSystem::default() };
    let record = EventRecord {
        corrected_time_micros: micros,
        receive_time_micros: micros,
        event: Some(Event {
            event_id: Uuid::from_u64_pair(event.partition.into(), event.offset).to_string(),
            event_name: text("event_name"),
            event_type: match json["event_type"].as_str().unwrap() {
                "TRACK" => 1,
                "PAGE" => 2,
                _ => 4,
            },
            user_id: text("user_id"),
            anonymous_id: text("anonymous_id"),
            session_id: text("session_id"),
            revenue: json["revenue"].as_array().map(|money| Money {
                currency_code: money[0].as_str().unwrap().to_owned(),
                units: money[1].as_i64().unwrap(),
                nanos: money[2].as_i64().unwrap() as i32,
            }),
            properties: Some(prost_types::Struct { fields }),
            context: Some(Context { os: Some(os), ..Context::default() }),
            ..Event::default()
        }),
        ..EventRecord::default()
    };
    encoder.push_record(&record.encode_to_vec(), event.offset, json["late"].as_bool().unwrap()).unwrap();
}

fn property(value: &Json) -> prost_types::Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(boolean) => Kind::BoolValue(*boolean),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.iter().map(property).collect() })
        }
        Json::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), property(value))).collect();
            Kind::StructValue(prost_types::Struct { fields })
        }
    };
    prost_types::Value { kind: Some(kind) }
}

/// A world that is stored.
#[derive(Debug)]
pub(crate) struct Laid {
    pub(crate) engine: Engine,
    pub(crate) events: Arc<Seen>,
}

/// What a reader sees of a store.
#[derive(Debug)]
pub(crate) struct Seen {
    snapshot: Snapshot,
    store: Store,
    _writers: Vec<Writer>,
    _folder: tempfile::TempDir,
}

impl Events for Seen {
    fn table(&self, columns: &[Column]) -> Result<Arc<dyn datafusion::catalog::TableProvider>, Error> {
        Ok(Arc::new(Table::of(View::new(columns.iter().cloned()), &self.snapshot, &self.store)))
    }
}
