//! A store's folder, read by DuckDB as it lies, in the way that the README shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::Stdio,
    sync::Arc,
};

use prost::Message as _;
use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Value as Json, json};
use uuid::Uuid;
use weir_proto::{
    event::v1::{Context, Event, EventRecord, OperatingSystem},
    google::r#type::Money,
    time::timestamp,
};
use weir_store::{CleanBatch, EventStore as _, Settings, Store, encode::Encoder};
use weir_tests::python;

const PROJECTS: [&str; 2] = ["shop", "other shop/ü"];
/// 9 March 2024, 12:00 UTC.
const NOON: i64 = 1_709_985_600_000_000;
const HOUR: i64 = 3_600_000_000;

/// The event at an offset of a partition: 3 users in each, one an hour.
fn event(partition: u32, offset: u64) -> EventRecord {
    let user = format!("üser {partition}/{}", offset % 3);
    let platform = ["web", "it's", "ios 📱"][offset as usize % 3];
    let mut fields = BTreeMap::new();
    // Frequent in some segments, where it is a column, and rare in others, where it stays in the map.
    if offset < 120 || offset % 30 == 3 {
        fields.insert("platform", Kind::StringValue(platform.to_owned()));
    }
    fields.insert("price", Kind::NumberValue(offset as f64 / 8.0 - 2.0));
    if offset.is_multiple_of(50) {
        fields.insert("seldom", Kind::NumberValue(0.1));
        fields.insert("trial", Kind::BoolValue(true));
        fields.insert("gone", Kind::NullValue(0));
        let list = vec![Value { kind: Some(Kind::NumberValue(1.0)) }];
        fields.insert("tags", Kind::ListValue(ListValue { values: list }));
    }
    let fields = fields.into_iter().map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) }));
    let time = time(offset);
    let (user_id, anonymous_id) =
        if offset.is_multiple_of(3) { (String::new(), user) } else { (user, String::new()) };
    let earned =
        |units| Money { currency_code: "EUR".to_owned(), units, nanos: units.signum() as i32 * 10_000_000 };
    EventRecord {
        receive_time_micros: time + 5,
        corrected_time_micros: time,
        event: Some(Event {
            event_id: id(partition, offset).to_string(),
            event_name: ["view", "buy"][offset as usize % 2].to_owned(),
            event_type: 1,
            user_id,
            anonymous_id,
            event_time: Some(timestamp(time - 11)),
            properties: Some(Struct { fields: fields.collect() }),
            revenue: (offset % 2 == 1).then(|| earned(if offset.is_multiple_of(7) { -3 } else { 19 })),
            context: Some(Context {
                os: Some(OperatingSystem { name: "Androïd".to_owned(), ..OperatingSystem::default() }),
                ..Context::default()
            }),
            ..Event::default()
        }),
        ..EventRecord::default()
    }
}

fn time(offset: u64) -> i64 {
    NOON + offset as i64 * HOUR + 7
}

fn id(partition: u32, offset: u64) -> Uuid {
    Uuid::from_u64_pair(partition.into(), offset)
}

fn project(offset: u64) -> &'static str {
    PROJECTS[usize::from(offset % 10 == 9)]
}

/// Offsets of each partition, in segments of this many.
const OFFSETS: u64 = 240;
const SEGMENT: u64 = 30;
const PARTITIONS: u32 = 2;
const EVENTS: u64 = PARTITIONS as u64 * OFFSETS;

/// A store with segments of several shapes: those of the beginning are compacted, and lie beside what came of them.
async fn filled(folder: &Path) -> Store {
    let mut settings = Settings::folder(folder);
    settings.compact_files = 4;
    let store = Store::open(settings).await.unwrap();
    for partition in 0..PARTITIONS {
        for start in (0..OFFSETS).step_by(SEGMENT as usize) {
            let offsets = start..start + SEGMENT;
            let of_project = |of: &'static str| {
                let mut encoder = Encoder::default();
                for offset in offsets.clone().filter(|offset| project(*offset) == of) {
                    let record = event(partition, offset).encode_to_vec();
                    encoder.push_record(&record, offset, false).unwrap();
                }
                (Arc::from(of), encoder.finish())
            };
            let events = PROJECTS.map(of_project).into();
            let batch = CleanBatch { start, end: offsets.end, watermark_micros: 0, events };
            store.append(partition, Uuid::now_v7(), batch).await.unwrap();
            if start == 4 * SEGMENT {
                assert!(store.compact(partition).await.unwrap().fewer > 0);
            }
        }
    }
    store
}

/// All events that were stored.
fn stored() -> impl Iterator<Item = (u32, u64, Event)> {
    let offsets = (0..PARTITIONS).flat_map(|partition| (0..OFFSETS).map(move |offset| (partition, offset)));
    offsets.map(|(partition, offset)| (partition, offset, event(partition, offset).event.unwrap()))
}

/// DuckDB's answers to statements, each after those before it.
fn duckdb(statements: &[String]) -> Vec<Json> {
    let mut command = python::script("duckdb_shell.py").unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut asks = process.stdin.take().unwrap();
    let lines: String = statements.iter().map(|statement| format!("{}\n", json!(statement))).collect();
    asks.write_all(lines.as_bytes()).unwrap();
    drop(asks);
    let said = BufReader::new(process.stdout.take().unwrap()).lines();
    let answers: Vec<Json> = said.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(process.wait().unwrap().success());
    assert_eq!(answers.len(), statements.len());
    for (statement, answer) in statements.iter().zip(&answers) {
        assert!(answer.is_array(), "{statement}: {answer}");
    }
    answers
}

/// The statements that the README shows, about another folder.
fn readme(folder: &Path) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, section) = text.split_once("\n## Read the files with other tools\n").unwrap();
    let (_, code) = section.split_once("```sql\n").unwrap();
    let (code, _) = code.split_once("```").unwrap();
    let code = code.replace(".weir/store", folder.to_str().unwrap());
    code.split_inclusive(";\n").map(str::to_owned).collect()
}

fn platform(event: &Event) -> Option<&str> {
    match event.properties.as_ref()?.fields.get("platform")?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn duckdb_answers_what_the_readme_asks() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let answers = duckdb(&readme(folder.path()));
    let [_view, days, revenue] = answers.as_slice() else { panic!("{answers:?}") };
    let mut by_day = BTreeMap::<(i64, String), (u64, BTreeSet<String>)>::new();
    // Null comes last.
    let mut by_platform = BTreeMap::<(bool, Option<String>), i64>::new();
    for (_, offset, event) in stored() {
        // Kolkata is 5:30 hours ahead.
        let local = time(offset) + 11 * HOUR / 2;
        let counted = by_day.entry((local.div_euclid(24 * HOUR), event.event_name.clone())).or_default();
        counted.0 += 1;
        counted.1.insert(format!("{}{}", event.user_id, event.anonymous_id));
        let platform = platform(&event).map(str::to_owned);
        if let Some(money) = &event.revenue {
            let cents = money.units * 100 + i64::from(money.nanos / 10_000_000);
            *by_platform.entry((platform.is_none(), platform)).or_default() += cents;
        }
    }
    let day = |((day, name), (count, users)): ((i64, String), (u64, BTreeSet<String>))| {
        let date = timestamp(day * 24 * HOUR).to_string();
        json!([format!("{} 00:00:00", &date[..10]), name, count, users.len()])
    };
    assert_eq!(days, &by_day.into_iter().map(day).collect::<Json>());
    let earned = |((_, platform), cents): ((bool, Option<String>), i64)| {
        json!([platform, "EUR", format!("{}.{:02}0000000", cents / 100, cents % 100)])
    };
    assert_eq!(revenue, &by_platform.into_iter().map(earned).collect::<Json>());
}

#[tokio::test]
async fn every_column_is_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let view = readme(folder.path()).remove(0);
    let answers = duckdb(&[
        view,
        "select project, count(*) from events group by all order by all".to_owned(),
        "select count(p_platform) > 0, count(properties['platform']) > 0 from events".to_owned(),
        "select hex(event_id), epoch_us(time), epoch_us(receive_time), epoch_us(client_time), event_type, late, \
         context_os_name, coalesce(n_price::varchar, properties['price']), properties['seldom'], properties['tags'], \
         properties['gone'], map_keys(properties), property_kinds \
         from events order by partition, log_offset"
            .to_owned(),
    ]);
    let [_view, projects, forms, rows] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(projects, &json!([["other shop/ü", EVENTS / 10], ["shop", EVENTS / 10 * 9]]));
    assert_eq!(forms, &json!([[true, true]]), "a column in some segments, in the map of others");
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len() as u64, EVENTS);
    for ((partition, offset, event), row) in stored().zip(rows) {
        let time = time(offset);
        assert_eq!(row[0], id(partition, offset).simple().to_string().to_uppercase());
        assert_eq!((&row[1], &row[2], &row[3]), (&json!(time), &json!(time + 5), &json!(time - 11)));
        assert_eq!((&row[4], &row[5], &row[6]), (&json!("TRACK"), &json!(false), &json!("Androïd")));
        assert_eq!(row[7].as_str().unwrap().parse(), Ok(offset as f64 / 8.0 - 2.0));
        let seldom = event.properties.unwrap().fields.contains_key("seldom");
        let text = |text: &str| if seldom { json!(text) } else { Json::Null };
        // Lists and rare properties are in the map.
        assert_eq!((&row[8], &row[9], &row[10]), (&text("0.1"), &text("[1.0]"), &Json::Null));
        let (in_map, kinds) = (row[11].as_array().map_or(0, Vec::len), row[12].as_str().unwrap_or_default());
        assert_eq!(in_map, kinds.len(), "one letter for each entry of the map");
    }
}

#[tokio::test]
async fn the_segments_that_count_hold_each_event_once() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(folder.path()).await;
    // As `weir store export` does.
    for partition in 0..PARTITIONS {
        for segment in store.chain(partition).await.unwrap().state().live.values() {
            let path = copy.path().join(&segment.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, store.objects().get(&segment.path).await.unwrap().unwrap()).unwrap();
        }
    }
    let counts = |folder: &Path| {
        let files = format!("read_parquet('{}/events/**/*.parquet', union_by_name = true)", folder.display());
        duckdb(&[format!("select count(*), count(distinct (partition, log_offset)) from {files}")]).remove(0)
    };
    assert_eq!(counts(copy.path()), json!([[EVENTS, EVENTS]]));
    let all = counts(folder.path());
    assert!(
        all[0][0].as_u64().unwrap() > EVENTS && all[0][1] == EVENTS,
        "compacted ones lie beside them: {all}"
    );
}
