//! Writers: visible at once, durable soon, whatever fails.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use uuid::Uuid;
use weir_store::{CleanBatch, Error, EventStore, HotSource, Reader, Settings, Store, Writer};

use crate::{
    depot::{depots, faulty},
    fixture::{PROJECT, assert_whole, batch, soon},
};

fn at_once(settings: &mut Settings) {
    settings.flush_interval = Duration::from_millis(5);
}

fn never(settings: &mut Settings) {
    settings.flush_interval = Duration::from_secs(3600);
}

async fn durable(writer: &mut Writer, offset: u64) {
    soon("the events are durable", async {
        while writer.status().durable < offset {
            writer.changed().await.unwrap();
        }
    })
    .await;
}

async fn assert_reader_sees_all(store: &Store, end: u64) {
    let reader = Reader::new(store.clone(), 1, Arc::new(store.clone()));
    let snapshot = reader.snapshot(PROJECT).await.unwrap();
    assert_eq!(snapshot.next_offsets[&0], end);
    assert_whole(store, &snapshot).await;
}

#[tokio::test]
async fn events_are_visible_at_once_and_durable_soon() {
    for depot in depots() {
        let store = depot.store(at_once).await;
        let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        writer.append(batch(0..50));
        assert_eq!(writer.next_offset(), 50);
        assert_reader_sees_all(&store, 50).await;
        durable(&mut writer, 50).await;
        assert_eq!(writer.status().hot_bytes, 0);
        writer.append(batch(50..70));
        assert_reader_sees_all(&store, 70).await;
        durable(&mut writer, 70).await;
        drop(writer);

        let other = depot.store(at_once).await;
        assert_eq!(other.writer(0, Uuid::now_v7()).await.unwrap().next_offset(), 70);
        assert_reader_sees_all(&other, 70).await;
        for segment in store.chain(0).await.unwrap().state().live.values() {
            store.verify(segment).await.unwrap();
        }
    }
}

#[tokio::test]
async fn enough_bytes_are_written_without_waiting() {
    let (_faults, store) = faulty(|settings| {
        never(settings);
        settings.flush_bytes = 50_000;
    });
    let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
    for start in (0..4000).step_by(20) {
        writer.append(batch(start..start + 20));
    }
    durable(&mut writer, 1).await;
    assert_reader_sees_all(&store, 4000).await;
}

#[tokio::test]
async fn what_was_not_flushed_is_taken_from_the_log_again() {
    for depot in depots() {
        let store = depot.store(never).await;
        let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        writer.append(batch(0..30));
        drop(writer);
        let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        assert_eq!(writer.next_offset(), 0);
        writer.append(batch(0..30));
        writer.drain().await.unwrap();
        assert_reader_sees_all(&store, 30).await;
        assert_eq!(store.next_offset(0).await.unwrap(), 30);
    }
}

/// A crash between the steps of a flush: the segment is written, the entry is not.
#[tokio::test]
async fn a_segment_that_was_not_published_does_not_count() {
    let (faults, store) = faulty(at_once);
    let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
    faults.refuse(Some("manifest/"));
    writer.append(batch(0..30));
    soon("the trouble is reported", async {
        while writer.status().trouble.is_none() {
            writer.changed().await.unwrap();
        }
    })
    .await;
    assert!(writer.status().trouble.unwrap().contains("the disk is full"));
    assert_reader_sees_all(&store, 30).await;
    let files = store.objects().list("events").await.unwrap().len();
    assert!(files > 0, "the segments are written");
    drop(writer);

    faults.refuse(None);
    assert_eq!(store.next_offset(0).await.unwrap(), 0);
    let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
    writer.append(batch(0..30));
    durable(&mut writer, 30).await;
    assert_reader_sees_all(&store, 30).await;
    assert!(store.objects().list("events").await.unwrap().len() > files, "the first ones are orphans");
}

/// A flush is tried again and again: what each attempt left behind would fill the disk.
#[tokio::test]
async fn a_flush_that_fails_leaves_no_segments() {
    let (faults, store) = faulty(never);
    // The other project's segment comes first.
    faults.refuse(Some("events/project=shop"));
    let failed = store.append(0, Uuid::now_v7(), batch(0..30)).await;
    assert!(failed.is_err_and(|error| error.is_retryable()));
    assert_eq!(store.objects().list("events").await.unwrap(), []);
    faults.refuse(None);
    store.append(0, Uuid::now_v7(), batch(0..30)).await.unwrap();
    assert_eq!(store.objects().list("events").await.unwrap().len(), 2);
}

/// A crash after the last step but one: the entry is there, the hot events are too.
#[tokio::test]
async fn published_events_that_are_still_hot_count_once() {
    for depot in depots() {
        let store = depot.store(never).await;
        let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        writer.append(batch(0..40));
        let zombie = depot.store(never).await;
        assert_eq!(zombie.append(0, Uuid::now_v7(), batch(0..25)).await.unwrap(), 25);

        // A reader that has not seen the entry, and one that has.
        let reader = Reader::new(store.clone(), 1, Arc::new(store.clone()));
        assert_whole(&store, &reader.snapshot(PROJECT).await.unwrap()).await;
        assert_reader_sees_all(&store, 40).await;
        let read = store.read(0, 25).await.unwrap();
        assert_eq!((read.start, read.parts[0].start), (0, 25));

        writer.append(batch(40..45));
        writer.drain().await.unwrap();
        assert_whole(&store, &reader.snapshot(PROJECT).await.unwrap()).await;
        assert_reader_sees_all(&store, 45).await;
    }
}

#[tokio::test]
async fn an_owner_that_was_overtaken_goes_on_where_the_chain_ends() {
    for depot in depots() {
        let store = depot.store(never).await;
        let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        writer.append(batch(0..10));
        assert_eq!(store.append(0, Uuid::now_v7(), batch(0..60)).await.unwrap(), 60);
        writer.append(batch(10..30));
        writer.drain().await.unwrap();
        let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        writer.append(batch(30..50));
        assert_eq!(writer.next_offset(), 60, "it has what the batch brings");
        writer.append(batch(50..70));
        writer.drain().await.unwrap();
        assert_reader_sees_all(&store, 70).await;
    }
}

#[tokio::test]
async fn a_store_that_takes_nothing_is_back_pressure_and_no_loss() {
    let (faults, store) = faulty(|settings| {
        at_once(settings);
        settings.max_hot_bytes = 3_000_000;
    });
    let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
    faults.refuse(Some("events/"));
    let mut end = 0;
    while writer.has_room() {
        writer.append(batch(end..end + 100));
        end += 100;
        tokio::task::yield_now().await;
    }
    assert!(end > 100, "there was room for some");
    assert_reader_sees_all(&store, end).await;
    faults.refuse(None);
    durable(&mut writer, end).await;
    assert!(writer.has_room());
    soon("the trouble is over", async {
        while writer.status().trouble.is_some() {
            writer.changed().await.unwrap();
        }
    })
    .await;
    assert_reader_sees_all(&store, end).await;
}

/// Whoever holds the writer must learn of it: nothing becomes durable any more.
#[tokio::test]
async fn a_writer_whose_work_panicked_says_so() {
    let (faults, store) = faulty(at_once);
    let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
    faults.poisoned.store(true, Ordering::SeqCst);
    writer.append(batch(0..10));
    let ended = soon("the end is told", async {
        loop {
            if let Err(error) = writer.changed().await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(ended, Error::Stopped { partition: 0 }), "{ended}");
}

/// Trying again would not help: only who reads the log anew has other events.
#[tokio::test]
async fn a_writer_whose_events_are_refused_ends_and_says_why() {
    let (_faults, store) = faulty(at_once);
    let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
    writer.append(CleanBatch { start: 0, end: 10, ..batch(100..110) });
    let ended = soon("the end is told", async {
        loop {
            if let Err(error) = writer.changed().await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(ended, Error::Refused { partition: 0, .. }), "{ended}");
    assert!(ended.to_string().contains("offsets 0..10 are not those of its segments"), "{ended}");
}

#[tokio::test]
async fn draining_says_when_it_could_not() {
    let (faults, store) = faulty(never);
    let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
    writer.append(batch(0..10));
    faults.refuse(Some("manifest/"));
    let error = writer.drain().await.unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(store.next_offset(0).await.unwrap(), 0);
}

/// Offsets without an event that counts (duplicates, dead letters) are progress too.
#[tokio::test]
async fn offsets_without_events_become_durable() {
    for depot in depots() {
        let store = depot.store(at_once).await;
        let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        let mut empty = batch(0..10);
        empty.events.clear();
        writer.append(empty);
        durable(&mut writer, 10).await;
        assert!(store.chain(0).await.unwrap().state().live.is_empty());
        writer.append(batch(10..20));
        writer.drain().await.unwrap();
        let snapshot = store.scan(PROJECT, 1).await.unwrap();
        assert_eq!((snapshot.next_offsets[&0], snapshot.rows()), (20, 8));
    }
}

/// The log had deleted events before they were read: that is no reason to stop, and no secret.
#[tokio::test]
async fn lost_offsets_are_remembered_by_the_moment_since_when_all_is_there() {
    for depot in depots() {
        let store = depot.store(at_once).await;
        let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        let reader = Reader::new(store.clone(), 1, Arc::new(store.clone()));
        writer.append(batch(0..10));
        assert_eq!(reader.snapshot(PROJECT).await.unwrap().complete_since_micros, i64::MIN);
        let after = batch(30..40);
        let since = after.watermark_micros;
        writer.append(after);
        assert_eq!(reader.snapshot(PROJECT).await.unwrap().complete_since_micros, since, "at once");
        writer.append(batch(40..50));
        durable(&mut writer, 50).await;
        drop(writer);
        let snapshot = store.scan(PROJECT, 1).await.unwrap();
        assert_eq!((snapshot.complete_since_micros, snapshot.next_offsets[&0]), (since, 50), "for ever");
        let writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        assert_eq!(writer.next_offset(), 50);
        assert_eq!(reader.snapshot(PROJECT).await.unwrap().complete_since_micros, since, "by the next owner");
    }
}
