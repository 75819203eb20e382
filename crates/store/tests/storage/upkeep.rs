//! Compaction, retention, erasure and verification: the events that are to stay do, as they were.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use uuid::{NoContext, Timestamp, Uuid};
use weir_proto::record::{self, Value};
use weir_store::{
    CleanBatch, Error, EventStore, Reader, Settings, Store,
    encode::{Encoder, Row},
    manifest::{Change, Entry, FORMAT, Published, Reason, Segment, Span},
};

use crate::{
    depot::{depots, faulty},
    fixture::{PROJECT, START_MICROS, assert_whole, batch, event, events, project, soon, user},
};

fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

/// A store with so many appended batches of 30 offsets.
async fn filled(store: &Store, batches: u64) {
    for start in (0..batches * 30).step_by(30) {
        store.append(0, Uuid::now_v7(), batch(start..start + 30)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compaction_keeps_every_event_under_concurrent_readers() {
    for depot in depots() {
        let store = depot.store(|settings| settings.compact_files = 4).await;
        filled(&store, 30).await;
        let before = store.scan(PROJECT, 1).await.unwrap();
        let (done, stop) = tokio::sync::watch::channel(false);
        let (look, mut looks) = tokio::sync::watch::channel(0);
        let reading = tokio::spawn({
            let store = store.clone();
            async move {
                let reader = Reader::new(store.clone(), 1, Arc::new(store.clone()));
                while !*stop.borrow() || *look.borrow() < 4 {
                    let snapshot = reader.snapshot(PROJECT).await.unwrap();
                    assert_whole(&store, &snapshot).await;
                    look.send_modify(|looks| *looks += 1);
                }
            }
        });
        soon("somebody reads", looks.wait_for(|looks| *looks > 0)).await.unwrap();
        // Two compactors at a time: the work of one may be in vain, but nothing else.
        let others = depot.store(|settings| settings.compact_files = 4).await;
        let (some, more) = tokio::join!(store.compact(0), others.compact(0));
        assert!(some.unwrap().fewer + more.unwrap().fewer > 0);
        done.send(true).unwrap();
        reading.await.unwrap();

        let after = store.scan(PROJECT, 1).await.unwrap();
        assert!(after.segments.len() < before.segments.len() / 2, "{} segments", after.segments.len());
        assert_whole(&store, &after).await;
        assert_eq!(
            events(&store, &after).await,
            events(&store, &before).await,
            "old snapshots can still be read"
        );
        for segment in &after.segments {
            store.verify(segment).await.unwrap();
        }
        let columns = &after.segments.iter().max_by_key(|segment| segment.rows).unwrap().columns;
        assert_eq!(*columns, ["b_trial", "n_price", "p_plan"]);
    }
}

#[tokio::test]
async fn compaction_passes_over_a_torn_segment_and_names_it() {
    for depot in depots() {
        let store = depot.store(|settings| settings.compact_files = 4).await;
        filled(&store, 8).await;
        let snapshot = store.scan(PROJECT, 1).await.unwrap();
        let torn = Arc::clone(&snapshot.segments[2]);
        let whole = store.objects().get(&torn.path).await.unwrap().unwrap();
        let mut bytes = whole.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        for problem in [Bytes::from(bytes), whole.slice(..whole.len() - 9)] {
            store.objects().delete(&torn.path).await.unwrap();
            let _ = store.objects().create(&torn.path, problem).await.unwrap();
            let error = store.verify(&torn).await.unwrap_err();
            assert!(matches!(&error, Error::Segment { path, .. } if *path == torn.path), "{error}");
            store.compact(0).await.unwrap();
            let after = store.scan(PROJECT, 1).await.unwrap();
            assert!(after.segments.len() < snapshot.segments.len());
            assert!(
                after.segments.iter().any(|segment| segment.id == torn.id),
                "the torn one stays as it is"
            );
        }
        let after = store.scan(PROJECT, 1).await.unwrap();

        store.objects().delete(&torn.path).await.unwrap();
        let error = store.verify(&torn).await.unwrap_err().to_string();
        assert!(error.contains(&torn.path) && error.contains("missing"), "{error}");
        let _ = store.objects().create(&torn.path, whole).await.unwrap();
        store.verify(&torn).await.unwrap();
        assert_whole(&store, &after).await;
    }
}

/// The bytes with one of them changed so that the file can still be read, with another content.
fn altered(whole: &Bytes) -> Bytes {
    let rows = |file: &Bytes| -> Option<Vec<RecordBatch>> {
        let rows = ParquetRecordBatchReaderBuilder::try_new(file.clone()).ok()?.build().ok()?;
        rows.collect::<Result<_, _>>().ok()
    };
    let as_it_was = rows(whole);
    let alterations = (64..whole.len()).map(|place| {
        let mut bytes = whole.to_vec();
        bytes[place] ^= 1;
        Bytes::from(bytes)
    });
    let mut readable = alterations.filter(|file| rows(file).is_some_and(|rows| Some(rows) != as_it_was));
    readable.next().expect("numbers are stored as they are")
}

/// What compaction and erasure write has a checksum of its own: nobody could tell any more that its source was damaged.
#[tokio::test]
async fn what_is_damaged_is_not_written_anew() {
    for depot in depots() {
        let store = depot.store(|settings| settings.compact_files = 4).await;
        filled(&store, 4).await;
        let before = store.scan(PROJECT, 1).await.unwrap();
        let torn = Arc::clone(&before.segments[2]);
        let whole = store.objects().get(&torn.path).await.unwrap().unwrap();
        store.objects().delete(&torn.path).await.unwrap();
        let _ = store.objects().create(&torn.path, altered(&whole)).await.unwrap();
        store.compact(0).await.unwrap();
        let erased = store.delete_user(0, PROJECT, &user(torn.offsets.min)).await;
        assert!(matches!(erased, Err(Error::NotErased { left: 1, .. })), "{erased:?}");
        let after = store.scan(PROJECT, 1).await.unwrap();
        assert!(after.segments.iter().any(|segment| segment.id == torn.id), "it can be put back");
    }
}

#[tokio::test]
async fn a_user_is_erased_from_all_segments_but_a_damaged_one() {
    let (_faults, store) = faulty(|_| ());
    filled(&store, 3).await;
    let torn = Arc::clone(&store.scan(PROJECT, 1).await.unwrap().segments[1]);
    let whole = store.objects().get(&torn.path).await.unwrap().unwrap();
    store.objects().delete(&torn.path).await.unwrap();
    let error = store.delete_user(0, PROJECT, &user(3)).await.unwrap_err().to_string();
    assert!(
        error.contains(&torn.path) && error.contains("missing") && error.contains("all segments but 1"),
        "{error}"
    );

    let _ = store.objects().create(&torn.path, whole).await.unwrap();
    let left = events(&store, &store.scan(PROJECT, 1).await.unwrap()).await.into_iter();
    let left: Vec<u64> = left.map(|(offset, _)| offset).filter(|offset| user(*offset) == user(3)).collect();
    assert!(!left.is_empty() && left.iter().all(|offset| torn.offsets.holds(*offset)), "{left:?}");
    let erased = store.delete_user(0, PROJECT, &user(3)).await.unwrap();
    assert_eq!((erased.segments, erased.events), (1, left.len() as u64));
}

/// Whatever is wrong with a segment, the others are compacted.
#[tokio::test]
async fn compaction_goes_on_without_what_it_can_not_read_or_merge() {
    let (faults, store) = faulty(|settings| settings.compact_files = 4);
    filled(&store, 8).await;
    let segments = store.scan(PROJECT, 1).await.unwrap().segments;
    faults.spoil(&segments[2].path);
    store.compact(0).await.unwrap();
    let after = store.scan(PROJECT, 1).await.unwrap().segments;
    assert_eq!(after.len(), 2, "the lost one stays as it is, and all others are one: {after:?}");

    // Two with the same events: each is as its manifest says.
    let mut twin = (*after[1]).clone();
    (twin.id, twin.offsets) = (Uuid::now_v7(), Span { min: 240, max: 240 + twin.offsets.max });
    let mut chain = store.chain(0).await.unwrap();
    let change = Change::Append {
        start: 240,
        end: 1000,
        watermark_micros: 0,
        complete_since_micros: i64::MIN,
        segments: vec![twin],
    };
    assert_eq!(chain.publish(Uuid::now_v7(), &change).await.unwrap(), Published::Done);
    let settings = Settings { compact_files: 2, ..store.settings().clone() };
    let pairs = Store::over(store.objects().clone(), settings);
    pairs.compact(0).await.unwrap();
    assert_eq!(store.scan(PROJECT, 1).await.unwrap().segments.len(), 3, "they stay as they are");
}

#[tokio::test]
async fn the_status_names_what_compaction_passes_over() {
    let (_faults, store) = faulty(|settings| {
        settings.compact_files = 2;
        settings.flush_interval = Duration::from_millis(5);
    });
    filled(&store, 2).await;
    let lost = Arc::clone(&store.scan(PROJECT, 1).await.unwrap().segments[0]);
    store.objects().delete(&lost.path).await.unwrap();
    let problems = store.compact(0).await.unwrap().passed_over;
    assert!(matches!(&problems[..], [problem] if problem.contains(&lost.path)), "{problems:?}");

    let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
    writer.append(batch(60..90));
    soon("the trouble is reported", async {
        while !writer.status().trouble.is_some_and(|trouble| trouble.contains(&lost.path)) {
            writer.changed().await.unwrap();
        }
    })
    .await;
}

/// A disk that takes nothing more: deleting what nobody needs must not wait for what can't be written.
#[tokio::test]
async fn what_nobody_needs_is_deleted_though_nothing_can_be_compacted() {
    let (faults, store) = faulty(|settings| {
        settings.compact_files = 4;
        settings.flush_interval = Duration::from_millis(5);
    });
    filled(&store, 5).await;
    let chain = store.chain(0).await.unwrap();
    let old = Arc::clone(chain.state().of_project(PROJECT).next().unwrap());
    // Removed for longer than any reader takes.
    let entry = Entry {
        format: FORMAT,
        version: chain.state().version + 1,
        writer: Uuid::nil(),
        time_micros: now_micros() - 5_000_000_000,
        change: Change::Replace { removed: vec![old.id], added: Vec::new(), reason: Reason::Retention },
    };
    let path = format!("manifest/0/{:020}.json", entry.version);
    let _ = store.objects().create(&path, serde_json::to_vec(&entry).unwrap().into()).await.unwrap();
    assert!(store.objects().size(&old.path).await.unwrap().is_some());

    faults.refuse(Some("events/"));
    let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
    // Without events it can be made durable, and upkeep begins.
    let mut empty = batch(150..160);
    empty.events.clear();
    writer.append(empty);
    soon("the trouble is reported", async {
        while !writer.status().trouble.is_some_and(|trouble| trouble.contains("the disk is full")) {
            writer.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(store.objects().size(&old.path).await.unwrap(), None);
}

#[tokio::test]
async fn a_manifest_that_says_something_else_is_found_out() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        filled(&store, 1).await;
        let segment = Arc::clone(&store.scan(PROJECT, 1).await.unwrap().segments[0]);
        let lies: [fn(&mut Segment); 5] = [
            |segment| segment.rows += 1,
            |segment| segment.offsets.max += 1,
            |segment| segment.times.min -= 1,
            |segment| segment.late += 1,
            |segment| segment.names = None,
        ];
        for lie in lies {
            let mut lying = (*segment).clone();
            lie(&mut lying);
            assert!(matches!(store.verify(&lying).await, Err(Error::Segment { .. })));
        }
    }
}

/// Keys that come and go, each frequent for a while.
#[tokio::test]
async fn segments_have_a_bounded_number_of_columns() {
    let (_faults, store) = faulty(|settings| settings.compact_files = 4);
    let of = |offset: u64| (10..50).map(move |key| format!("key {} {key}", offset / 30));
    for start in [0, 30, 60, 90] {
        let mut encoder = Encoder::default();
        for offset in start..start + 30 {
            let keys: Vec<String> = of(offset).collect();
            let properties: Vec<_> =
                keys.iter().map(|key| (key.as_str(), Value::Number(offset as f64))).collect();
            let event = record::Event { event_name: "view", ..Default::default() };
            encoder.push(&Row { offset, event, properties: &properties, ..Row::default() });
        }
        let events = vec![(PROJECT.into(), encoder.finish())];
        let batch = CleanBatch { start, end: start + 30, watermark_micros: 0, events };
        store.append(0, Uuid::now_v7(), batch).await.unwrap();
    }
    let before = store.scan(PROJECT, 1).await.unwrap();
    assert!(before.segments.iter().all(|segment| segment.columns.len() == 40));
    store.compact(0).await.unwrap();
    let after = store.scan(PROJECT, 1).await.unwrap();
    let [merged] = &after.segments[..] else { panic!("four are one now: {:?}", after.segments) };
    assert_eq!(merged.columns.len(), 64);
    store.verify(merged).await.unwrap();
    for (offset, record) in events(&store, &after).await {
        let fields = record.event.unwrap().properties.unwrap().fields;
        assert!(of(offset).eq(fields.into_keys()), "of offset {offset}");
    }
}

/// More keys than are counted, and one that becomes frequent late: what is counted depends on how the rows are read.
#[tokio::test]
async fn a_segment_with_keys_that_never_repeat_is_as_its_manifest_says() {
    let (_faults, store) = faulty(|_| ());
    let mut encoder = Encoder::default();
    let offsets = 6000;
    for offset in 0..offsets {
        let once = format!("key {}", 9999 - offset);
        let mut properties = vec![(once.as_str(), Value::Boolean(true))];
        if offset > 4500 {
            properties.push(("late", Value::Boolean(true)));
        }
        let event = record::Event { event_name: "view", corrected_time_micros: offset, ..Default::default() };
        let properties = properties.as_slice();
        encoder.push(&Row { offset: offset as u64, event, properties, ..Row::default() });
    }
    let events = vec![(PROJECT.into(), encoder.finish())];
    let batch = CleanBatch { start: 0, end: offsets as u64, watermark_micros: 0, events };
    store.append(0, Uuid::now_v7(), batch).await.unwrap();
    let segment = Arc::clone(&store.scan(PROJECT, 1).await.unwrap().segments[0]);
    assert!(segment.more_properties && segment.columns == ["b_late"], "{:?}", segment.columns);
    store.verify(&segment).await.unwrap();
}

#[tokio::test]
async fn segments_that_are_too_old_are_dropped_whole() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        filled(&store, 4).await;
        // In the middle of the third batch: it stays.
        let dropped = store.retain(0, START_MICROS + 70_000_000).await.unwrap();
        assert_eq!(dropped, 4, "two batches of two projects");
        let found = events(&store, &store.scan(PROJECT, 1).await.unwrap()).await;
        let offsets: Vec<u64> = found.into_iter().map(|(offset, _)| offset).collect();
        let expected: Vec<u64> = (60..120).filter(|offset| project(*offset) == PROJECT).collect();
        assert_eq!(offsets, expected);
        assert_eq!(store.next_offset(0).await.unwrap(), 120);
        assert_eq!(store.retain(0, START_MICROS + 70_000_000).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_segment_of_which_half_is_too_old_loses_that() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        filled(&store, 2).await;
        seem_old(&store).await;
        let from = START_MICROS + 16_000_000;
        let store = depot
            .store(|settings| {
                settings.retention = Some(Duration::from_micros((now_micros() - from) as u64));
            })
            .await;
        store.compact(0).await.unwrap();
        let after = store.scan(PROJECT, 1).await.unwrap();
        let mut offsets = events(&store, &after).await.into_iter().map(|(offset, _)| offset);
        let first = offsets.next().unwrap();
        assert!((16..40).contains(&first), "the clock goes on while this runs: {first}");
        let expected: Vec<u64> = (first + 1..60).filter(|offset| project(*offset) == PROJECT).collect();
        assert_eq!(offsets.collect::<Vec<_>>(), expected);
    }
}

/// The store with its segments as if they had been written two days ago, which their ids tell.
async fn seem_old(store: &Store) {
    let mut chain = store.chain(0).await.unwrap();
    let removed: Vec<Uuid> = chain.state().live.keys().copied().collect();
    let written = now_micros().cast_unsigned() / 1_000_000 - 2 * 86_400;
    let old = |segment: &Arc<Segment>| {
        let id = Uuid::new_v7(Timestamp::from_unix(NoContext, written, 0));
        Segment { id, ..(**segment).clone() }
    };
    let added = chain.state().live.values().map(old).collect();
    let change = Change::Replace { removed, added, reason: Reason::Compaction };
    assert_eq!(chain.publish(Uuid::now_v7(), &change).await.unwrap(), Published::Done);
}

#[tokio::test]
async fn a_forgotten_user_is_gone_and_all_others_stay() {
    for depot in depots() {
        let store = depot.store(|settings| settings.compact_files = 4).await;
        filled(&store, 5).await;
        store.compact(0).await.unwrap();
        for forgotten in [3, 6] {
            let before = events(&store, &store.scan(PROJECT, 1).await.unwrap()).await;
            let (gone, stay): (Vec<_>, Vec<_>) =
                before.into_iter().partition(|(offset, _)| user(*offset) == user(forgotten));
            let erased = store.delete_user(0, PROJECT, &user(forgotten)).await.unwrap();
            assert_eq!((erased.events, erased.next_offset), (gone.len() as u64, 150));
            let after = store.scan(PROJECT, 1).await.unwrap();
            assert_eq!(events(&store, &after).await, stay);
            for segment in &after.segments {
                store.verify(segment).await.unwrap();
            }
        }
        assert_eq!(store.delete_user(0, PROJECT, "nobody").await.unwrap().segments, 0);
        let other = store.scan(project(0), 1).await.unwrap();
        assert_whole(&store, &other).await;
        assert!(events(&store, &other).await.iter().any(|(offset, _)| user(*offset) == user(3)));
    }
}

#[tokio::test]
async fn of_two_that_replace_the_same_segments_one_wins() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        filled(&store, 2).await;
        let mut chains = [store.chain(0).await.unwrap(), store.chain(0).await.unwrap()];
        let removed: Vec<Uuid> = chains[0].state().of_project(PROJECT).map(|segment| segment.id).collect();
        let change =
            Change::Replace { removed: removed.clone(), added: Vec::new(), reason: Reason::Retention };
        assert_eq!(chains[0].publish(Uuid::now_v7(), &change).await.unwrap(), Published::Done);
        let published = chains[1].publish(Uuid::now_v7(), &change).await.unwrap();
        assert!(
            matches!(published, Published::Refused(_)),
            "who removed them, and why, is not known: {published:?}"
        );
        let mut merged = event_segment();
        merged.id = Uuid::now_v7();
        let change = Change::Replace { removed, added: vec![merged], reason: Reason::Compaction };
        let published = chains[1].publish(Uuid::now_v7(), &change).await.unwrap();
        assert!(matches!(published, Published::Refused(_)), "{published:?}");
    }
}

fn event_segment() -> Segment {
    let time = event(0).corrected_time_micros;
    serde_json::from_value(serde_json::json!({
        "id": Uuid::nil(), "project": PROJECT, "path": "events/x.parquet", "rows": 1, "bytes": 1,
        "offsets": {"min": 0, "max": 0}, "times": {"min": time, "max": time}, "users": {"min": 0, "max": 0}, "late": 0, "checksum": "",
    }))
    .unwrap()
}
