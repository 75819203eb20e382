//! Events that go in come out again, whichever of their properties became columns.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::{AsArray, RecordBatch};
use datafusion::{
    execution::object_store::ObjectStoreUrl,
    parquet::{arrow::ArrowWriter, file::properties::WriterProperties},
    prelude::{SessionConfig, SessionContext},
};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use proptest::prelude::*;
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use uuid::Uuid;
use weir_proto::{
    event::v1::{Context, Event, EventRecord, OperatingSystem},
    google::r#type::Money,
    record::{self, Parts},
    time::timestamp,
};
use weir_rollup::field::{Field, number_text};
use weir_store::{
    CleanBatch, Decoder, EventStore as _, Objects, Settings, Store,
    encode::{Encoder, Row},
    shape,
    table::{File, Table},
    view::{Column, View},
};

fn value() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![
        Just(Kind::NullValue(0)),
        any::<bool>().prop_map(Kind::BoolValue),
        prop_oneof![(-5i32..5).prop_map(f64::from), -1e20f64..1e20].prop_map(Kind::NumberValue),
        "[a-zä]{0,3}".prop_map(Kind::StringValue),
        Just(Kind::StringValue("a text that is too long to be kept in place".to_owned())),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        let value = inner.prop_map(|kind| Value { kind: Some(kind) });
        let lists = prop::collection::vec(value.clone(), 0..3)
            .prop_map(|values| Kind::ListValue(prost_types::ListValue { values }));
        let structs = prop::collection::btree_map("[ab]", value, 0..3)
            .prop_map(|fields| Kind::StructValue(Struct { fields }));
        prop_oneof![lists, structs]
    })
}

/// Keys of properties; some look like paths into others.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-e]".boxed(), 1 => Just("a.b".to_owned()).boxed()]
}

fn event() -> impl Strategy<Value = EventRecord> {
    let properties = prop::collection::btree_map(key(), value(), 0..5);
    let texts = ("[a-c]", "[u-w]{0,1}", "[s-t]{0,1}", prop_oneof![Just(""), Just("linux")]);
    let money = prop::option::of((any::<i64>(), 0i32..1_000_000_000));
    (properties, texts, money, -1_000_000i64..1_000_000, any::<u128>()).prop_map(
        |(properties, (name, user, session, os), money, time, id)| {
            let fields: std::collections::BTreeMap<_, _> =
                properties.into_iter().map(|(key, kind)| (key, Value { kind: Some(kind) })).collect();
            let event = Event {
                event_id: Uuid::from_u128(id).to_string(),
                event_name: name,
                event_type: 2,
                anonymous_id: if user.is_empty() { "anon".to_owned() } else { String::new() },
                user_id: user,
                session_id: session,
                sequence: (time.unsigned_abs() % 3),
                event_time: Some(timestamp(time / 2)),
                properties: (!fields.is_empty()).then_some(Struct { fields }),
                revenue: money.map(|(units, nanos)| Money {
                    currency_code: "EUR".to_owned(),
                    nanos: if units < 0 { -nanos } else { nanos },
                    units,
                }),
                context: (!os.is_empty()).then(|| Context {
                    os: Some(OperatingSystem { name: os.to_owned(), ..Default::default() }),
                    ..Default::default()
                }),
                ..Event::default()
            };
            EventRecord {
                receive_time_micros: 7,
                corrected_time_micros: time,
                event: Some(event),
                ..EventRecord::default()
            }
        },
    )
}

fn encode(records: &[EventRecord]) -> RecordBatch {
    let mut encoder = Encoder::default();
    push(&mut encoder, records);
    encoder.finish()
}

fn push(encoder: &mut Encoder, records: &[EventRecord]) {
    for (offset, record) in (0..).zip(records) {
        let record = record.encode_to_vec();
        let mut parts = Parts::default();
        let event = record::read(&record, &mut parts).unwrap();
        let (context, properties) = (parts.context(&event), parts.properties(&event));
        encoder.push(&Row { offset, late: false, event, context, properties });
    }
}

fn decode(batch: &RecordBatch) -> Vec<EventRecord> {
    let batch = shape::plain(batch).unwrap();
    let decoder = Decoder::new(&batch).unwrap();
    (0..batch.num_rows()).map(|row| decoder.record(row)).collect()
}

/// What a property is as a text and as a number, straight from the event: by its whole name or, if that says nothing, by path.
fn expected(record: &EventRecord, key: &str) -> (Option<String>, Option<f64>) {
    fn within<'a>(fields: &'a Struct, path: &str) -> Option<&'a Kind> {
        match path.split_once('.') {
            None => fields.fields.get(path)?.kind.as_ref(),
            Some((outer, path)) => match fields.fields.get(outer)?.kind.as_ref()? {
                Kind::StructValue(inner) => within(inner, path),
                _ => None,
            },
        }
    }
    let Some(fields) = record.event.as_ref().unwrap().properties.as_ref() else { return (None, None) };
    let whole = scalar(fields.fields.get(key).and_then(|value| value.kind.as_ref()));
    let nested = scalar(key.contains('.').then(|| within(fields, key)).flatten());
    (whole.0.or(nested.0), whole.1.or(nested.1))
}

fn scalar(kind: Option<&Kind>) -> (Option<String>, Option<f64>) {
    match kind {
        Some(Kind::StringValue(text)) => (Some(text.clone()), None),
        Some(Kind::NumberValue(number)) => (Some(number_text(*number)), Some(*number)),
        Some(Kind::BoolValue(boolean)) => (Some(boolean.to_string()), None),
        _ => (None, None),
    }
}

/// Properties that are asked for.
const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "a.b", "c.a.b", "d.x"];

/// Columns that make up the events of these tests.
const CORE: [&str; 15] = [
    "late",
    "time",
    "log_offset",
    "event_name",
    "event_type",
    "user_id",
    "anonymous_id",
    "session_id",
    "sequence",
    "event_id",
    "client_time",
    "receive_time",
    "properties",
    "property_kinds",
    "context_os_name",
];

proptest! {
    #[test]
    fn events_survive_every_shape(
        learnt in any::<bool>(),
        records in prop::collection::vec(event(), 0..20),
        first in prop::collection::btree_set(key(), 0..4),
        second in prop::collection::btree_set(key(), 0..4),
    ) {
        // What an encoder has learnt from many events shows in the batches that come.
        let before: Vec<_> = records.iter().cycle().take(if learnt { 200 } else { 0 }).cloned().collect();
        let mut encoder = Encoder::default();
        push(&mut encoder, &before);
        prop_assert_eq!(&decode(&encoder.finish()), &before);
        push(&mut encoder, &records);
        let batch = encoder.finish();
        prop_assert_eq!(&decode(&batch), &records);
        let promoted = shape::promote(&batch, &first).unwrap();
        prop_assert_eq!(&decode(&promoted), &records);
        let again = shape::promote(&promoted, &first.union(&second).cloned().collect()).unwrap();
        prop_assert_eq!(&decode(&again), &records);
        prop_assert_eq!(&decode(&shape::trim(&again)), &records);

        let fresh = encode(&records);
        let joined = shape::join(&[shape::trim(&promoted), batch.clone(), fresh, shape::trim(&again)]).unwrap();
        let all: Vec<_> = records.iter().cycle().take(4 * records.len()).cloned().collect();
        prop_assert_eq!(&decode(&joined), &all);
        let chosen = shape::choose(std::slice::from_ref(&joined), &["a".to_owned()]).unwrap();
        let settled = shape::promote(&joined, &chosen).unwrap();
        prop_assert_eq!(&decode(&settled), &all);

        let view = View::new(KEYS.iter().flat_map(|key| [Column::Text((*key).into()), Column::Number((*key).into())]));
        let whole = View::new(weir_store::schema::schema().fields().iter().filter_map(|field| {
            let text = |of: &'static str| (of == field.name()).then_some(Column::Core(of));
            CORE.iter().find_map(|of| text(of))
        }));
        for batch in [&batch, &promoted, &shape::trim(&again)] {
            let without_revenue = |record: &EventRecord| {
                let event = record.event.clone().map(|event| Event { revenue: None, ..event });
                EventRecord { event, ..record.clone() }
            };
            let expected_events: Vec<_> = records.iter().map(without_revenue).collect();
            prop_assert_eq!(&decode(&whole.of(batch).unwrap()), &expected_events, "the view has every property");
            let seen = view.of(batch).unwrap();
            for (row, record) in records.iter().enumerate() {
                for (index, key) in KEYS.iter().enumerate() {
                    let texts = seen.column(2 * index).as_string_view();
                    let numbers = seen.column(2 * index + 1).as_primitive::<arrow::datatypes::Float64Type>();
                    let text = texts.iter().nth(row).unwrap().map(str::to_owned);
                    let found = (text, numbers.iter().nth(row).unwrap());
                    prop_assert_eq!(found, expected(record, key), "{}", key);
                }
            }
        }
    }
}

async fn put(store: &dyn ObjectStore, name: &str, batch: &RecordBatch) -> File {
    put_as(store, name, batch, WriterProperties::default()).await
}

async fn put_as(
    store: &dyn ObjectStore,
    name: &str,
    batch: &RecordBatch,
    properties: WriterProperties,
) -> File {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    let file = File {
        partition: 0,
        path: Path::from(name),
        bytes: bytes.len() as u64,
        rows: batch.num_rows() as u64,
        time: (i64::MIN, i64::MAX),
        users: (i64::MIN, i64::MAX),
        names: None,
        columns: shape::chosen_columns(&batch.schema())
            .map(|(kind, key)| format!("{}{key}", kind.prefix().unwrap()))
            .collect(),
        wide: None,
    };
    store.put(&file.path, bytes.into()).await.unwrap();
    file
}

async fn count(table: Table, query: &str) -> Vec<(Option<String>, i64)> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    session.register_object_store(table_url().as_ref(), OBJECTS.with(Arc::clone));
    session.register_table("events", Arc::new(table)).unwrap();
    let batches = session.sql(query).await.unwrap().collect().await.unwrap();
    let rows = |batch: &RecordBatch| -> Vec<(Option<String>, i64)> {
        let (texts, counts) = (batch.column(0).as_string_view(), batch.column(1).as_primitive());
        let counts: &arrow::array::Int64Array = counts;
        texts.iter().map(|text| text.map(str::to_owned)).zip(counts.values().iter().copied()).collect()
    };
    batches.iter().flat_map(rows).collect()
}

thread_local! {
    static OBJECTS: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
}

fn table_url() -> ObjectStoreUrl {
    ObjectStoreUrl::parse("memory://events").unwrap()
}

/// The same property is a column in one file, in the map of another, absent from a third, and in the hot part: filters and groups
/// see one column.
#[tokio::test]
async fn a_question_sees_one_column_in_files_of_every_shape() {
    let event = |id: u128, plan: Option<Kind>| {
        let fields = plan.map(|kind| ("plan".to_owned(), Value { kind: Some(kind) })).into_iter().collect();
        EventRecord {
            event: Some(Event {
                event_id: Uuid::from_u128(id).to_string(),
                event_name: "view".to_owned(),
                user_id: format!("u{id}"),
                event_time: Some(timestamp(0)),
                properties: Some(Struct { fields }),
                ..Event::default()
            }),
            ..EventRecord::default()
        }
    };
    let text = |text: &str| Some(Kind::StringValue(text.to_owned()));
    let promoted =
        encode(&[event(1, text("pro")), event(2, text("free")), event(3, Some(Kind::NumberValue(7.0)))]);
    let promoted = shape::trim(&shape::promote(&promoted, &BTreeSet::from(["plan".to_owned()])).unwrap());
    assert!(promoted.column_by_name("p_plan").is_some() && promoted.column_by_name("properties").is_none());
    let mapped = shape::trim(&encode(&[event(4, text("pro")), event(5, Some(Kind::NumberValue(7.0)))]));
    let without = shape::trim(&encode(&[event(6, None)]));
    let hot = encode(&[event(7, text("pro")), event(8, None)]);

    let objects = OBJECTS.with(Arc::clone);
    let mut files = Vec::new();
    for (name, batch) in [("promoted", &promoted), ("mapped", &mapped), ("without", &without)] {
        files.push(put(objects.as_ref(), name, batch).await);
    }
    let plan = Field::parse("plan").unwrap();
    let view =
        View::new([Column::text(&Field::EventName), Column::text(&plan), Column::number(&plan).unwrap()]);
    let table = || {
        Table::new(view.clone(), files.clone(), vec![(0, hot.clone())], table_url(), OBJECTS.with(Arc::clone))
    };

    let some = |text: &str, count| (Some(text.to_owned()), count);
    let by = r#"select "properties.plan", count(*) from events group by 1 order by 2 desc, 1"#;
    assert_eq!(count(table(), by).await, [some("pro", 3), some("7", 2), (None, 2), some("free", 1)]);
    let filtered = r#"select event_name, count(*) from events where "properties.plan" = 'pro' group by 1"#;
    assert_eq!(count(table(), filtered).await, [some("view", 3)]);
    let numbers = r#"select event_name, count(*) from events where "numbers.plan" > 6 group by 1"#;
    assert_eq!(count(table(), numbers).await, [some("view", 2)]);
    let missing = r#"select event_name, count(*) from events where "properties.plan" is null group by 1"#;
    assert_eq!(count(table(), missing).await, [some("view", 2)]);
}

/// Offsets are numbers within a partition, which no file has as a column.
#[tokio::test]
async fn events_have_the_partition_that_they_are_in() {
    let event = |name: &str| EventRecord {
        event: Some(Event {
            event_id: Uuid::nil().to_string(),
            event_name: name.to_owned(),
            user_id: "u".to_owned(),
            ..Event::default()
        }),
        ..EventRecord::default()
    };
    let objects = OBJECTS.with(Arc::clone);
    let stored = async |name: &str, partition| {
        let batch = encode(&[event(name), event(name)]);
        File { partition, ..put(objects.as_ref(), &format!("{name} {partition}"), &batch).await }
    };
    let files = vec![stored("view", 0).await, stored("view", 3).await, stored("buy", 3).await];
    let hot = vec![(1, encode(&[event("view")])), (3, encode(&[event("view")]))];
    let view = View::new([Column::Partition, Column::Core("event_name"), Column::Core("log_offset")]);
    let table = |hot: &[(u32, RecordBatch)]| {
        Table::new(view.clone(), files.clone(), hot.to_vec(), table_url(), Arc::clone(&objects))
    };
    let shown = async |table, query: &str| {
        let rows = count(table, query).await.into_iter();
        rows.map(|(text, count)| format!("{} {count}", text.unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let by_partition = "select cast(partition as varchar), count(*) from events group by 1 order by 1";
    assert_eq!(shown(table(&hot), by_partition).await, "0 2, 1 1, 3 5");
    let of_one = "select event_name, count(*) from events where partition = 3 group by 1 order by 1";
    assert_eq!(shown(table(&hot), of_one).await, "buy 2, view 3");
    let both = "select event_name, count(*) from events where partition > 0 and log_offset = 0 and event_name = 'view' group by 1";
    assert_eq!(shown(table(&hot), both).await, "view 3");
    let none = "select event_name, count(*) from events where partition = 2 group by 1";
    assert_eq!(shown(table(&hot), none).await, "");
    let unasked = "select event_name, count(*) from events group by 1 order by 1";
    assert_eq!(shown(table(&hot), unasked).await, "buy 2, view 6");
    // Those of other partitions are not even opened: opening this one would fail.
    let gone = File { partition: 5, path: Path::from("gone"), ..files[0].clone() };
    let table =
        Table::new(view.clone(), vec![files[1].clone(), gone], vec![], table_url(), Arc::clone(&objects));
    assert_eq!(shown(table, of_one).await, "view 2");
}

/// A key may be any text.
#[test]
fn no_two_columns_of_a_view_have_one_name() {
    let view = View::new([Column::Text("x (number)".to_owned()), Column::Number("x".to_owned())]);
    assert_ne!(view.schema().field(0).name(), view.schema().field(1).name());
}

/// The folder of a project has its name in it, encoded once.
#[tokio::test]
async fn the_segments_of_a_project_with_an_unusual_name_are_found() {
    let objects = OBJECTS.with(Arc::clone);
    let store = Store::over(Objects::over(Arc::clone(&objects)), Settings::folder("unused"));
    let project = "other shop/ü %";
    let event = Event {
        event_id: Uuid::nil().to_string(),
        event_name: "view".to_owned(),
        user_id: "u".to_owned(),
        ..Event::default()
    };
    let events = encode(&[EventRecord { event: Some(event), ..EventRecord::default() }]);
    let batch = CleanBatch { start: 0, end: 1, watermark_micros: 0, events: vec![(project.into(), events)] };
    store.append(0, Uuid::now_v7(), batch).await.unwrap();
    let snapshot = store.scan(project, 1).await.unwrap();
    let files = snapshot.segments.iter().map(|segment| File::of(segment, 0)).collect();
    let table = Table::new(View::new([Column::Core("event_name")]), files, vec![], table_url(), objects);
    let by_name = "select event_name, count(*) from events group by 1";
    assert_eq!(count(table, by_name).await, [(Some("view".to_owned()), 1)]);
}

/// Files whose bounds or names exclude a filter are not even opened: here opening them would fail.
#[tokio::test]
async fn files_that_cannot_matter_are_not_read() {
    let objects = OBJECTS.with(Arc::clone);
    let batch = encode(&[EventRecord {
        corrected_time_micros: 5_000_000,
        event: Some(Event {
            event_id: Uuid::nil().to_string(),
            event_name: "view".to_owned(),
            user_id: "u".to_owned(),
            ..Event::default()
        }),
        ..EventRecord::default()
    }]);
    let real = File {
        time: (5_000_000, 5_000_000),
        names: Some(vec!["view".to_owned()]),
        ..put(objects.as_ref(), "real", &batch).await
    };
    let gone = |time, name: &str| File {
        path: Path::from("gone"),
        time,
        names: Some(vec![name.to_owned()]),
        ..real.clone()
    };
    let files = vec![real.clone(), gone((0, 1_000_000), "view"), gone((5_000_000, 5_000_000), "other")];
    let view = View::new([Column::Core("event_name"), Column::Core("time")]);
    let table = Table::new(view, files, vec![], table_url(), objects);
    let query = "select event_name, count(*) from events where event_name in ('view', 'click') \
                 and time >= '1970-01-01T00:00:03Z' group by 1";
    assert_eq!(count(table, query).await, [(Some("view".to_owned()), 1)]);
}

/// Whether a file has dictionaries, which differ from one group of rows to the next, or has given them up on the way; whether it has
/// the column at all; and however the hot part has it: filters find the same rows.
#[tokio::test]
async fn filters_find_the_same_rows_with_dictionaries_and_without() {
    let text = |text: String| Value { kind: Some(Kind::StringValue(text)) };
    let event = |row: u32| {
        let plan =
            (!row.is_multiple_of(3)).then(|| ("plan".to_owned(), text(format!("plan {}", row / 40 % 7))));
        let note = ("note".to_owned(), text(format!("note {}", row % 90)));
        EventRecord {
            event: Some(Event {
                event_id: Uuid::from_u128(row.into()).to_string(),
                event_name: format!("event {}", row % 5),
                user_id: format!("u{}", row / 10),
                event_time: Some(timestamp(0)),
                properties: Some(Struct { fields: plan.into_iter().chain([note]).collect() }),
                ..Event::default()
            }),
            ..EventRecord::default()
        }
    };
    let columns = BTreeSet::from(["plan", "note"].map(str::to_owned));
    let shaped = |rows: std::ops::Range<u32>| {
        let batch = encode(&rows.map(event).collect::<Vec<_>>());
        shape::trim(&shape::promote(&batch, &columns).unwrap())
    };
    let (all, some) = (shaped(0..600), shape::plain(&shaped(0..600)).unwrap());
    let without: Vec<usize> =
        (0..some.num_columns()).filter(|at| some.schema().field(*at).name() != "p_plan").collect();
    let without = some.project(&without).unwrap();

    let groups = || WriterProperties::builder().set_max_row_group_row_count(Some(150));
    let given_up = groups().set_dictionary_page_size_limit(60).set_write_batch_size(20);
    let objects = OBJECTS.with(Arc::clone);
    let kept = put_as(objects.as_ref(), "kept", &some, groups().build()).await;
    let numbered = put_as(objects.as_ref(), "numbered", &all, groups().build()).await;
    let given_up = put_as(objects.as_ref(), "given up", &some, given_up.build()).await;
    let plain = groups().set_dictionary_enabled(false).build();
    let plain = put_as(objects.as_ref(), "plain", &some, plain).await;
    let lacking = put_as(objects.as_ref(), "lacking", &without, groups().build()).await;

    let fields = ["plan", "note"].map(|name| Column::text(&Field::parse(name).unwrap()));
    let name = Column::Core("event_name");
    let others = [name.clone(), Column::Core("user_id"), Column::Numbered(Box::new(name)), Column::Holds];
    let view = View::new(fields.into_iter().chain(others));
    let count_in = async |files: Vec<File>, hot: Vec<RecordBatch>, filter: &str| {
        let hot: Vec<_> = hot.into_iter().map(|batch| (0, batch)).collect();
        let table =
            || Table::new(view.clone(), files.clone(), hot.clone(), table_url(), OBJECTS.with(Arc::clone));
        let query = format!("select event_name, count(*) from events where {filter} group by 1 order by 1");
        let left_out = count(table(), &query).await;
        let query = format!(
            r#"select cast("numbered.event_name" as varchar), sum(case when holds then 1 else 0 end) as wanted
               from events where {filter} group by 1 having wanted > 0 order by 1"#
        );
        assert_eq!(count(table(), &query).await, left_out, "rows that are passed over: {filter}");
        left_out
    };
    for filter in [
        r#"event_name = 'event 1'"#,
        r#"event_name in ('event 1', 'event 4') and "properties.plan" = 'plan 2'"#,
        r#""properties.plan" is null"#,
        r#"not ("properties.plan" = 'plan 2')"#,
        r#""properties.plan" is null or "properties.plan" like '%3'"#,
        r#""properties.plan" = 'plan 1' or "properties.note" like '%7'"#,
        r#""properties.plan" = 'plan 1' and user_id = 'u5'"#,
        r#"length("properties.note") = 7 and "properties.plan" <> event_name"#,
        r#"event_name = 'no such event'"#,
    ] {
        let expected = count_in(vec![], vec![some.clone()], filter).await;
        for file in [&kept, &numbered, &given_up, &plain] {
            assert_eq!(
                count_in(vec![file.clone()], vec![], filter).await,
                expected,
                "{filter} in {}",
                file.path
            );
        }
        assert_eq!(count_in(vec![], vec![all.clone()], filter).await, expected, "{filter} in memory");
        let of_lacking = count_in(vec![], vec![without.clone()], filter).await;
        assert_eq!(
            count_in(vec![lacking.clone()], vec![], filter).await,
            of_lacking,
            "{filter} without a plan"
        );
        let together = count_in(vec![kept.clone(), given_up.clone()], vec![all.clone()], filter).await;
        let thrice: Vec<_> = expected.iter().map(|(name, count)| (name.clone(), 3 * count)).collect();
        assert_eq!(together, thrice, "{filter} in several files and in memory");
    }
}
