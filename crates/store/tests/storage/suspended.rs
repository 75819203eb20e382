//! Processes that are suspended for any time between two steps, and machines whose clocks differ: what decides is the chain.

use std::{
    fs::File,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use uuid::Uuid;
use weir_store::{
    EventStore, Location, Store,
    manifest::{Chain, Change, Published, Reason, Refusal, Segment},
};

use crate::{
    depot::{Depot, depots},
    fixture::{PROJECT, batch},
};

/// Lets files below a folder seem to be of another time.
fn touch(folder: &Path, time: SystemTime) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            touch(&path, time);
        } else {
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
    }
}

fn folder(depot: &Depot) -> Option<&Path> {
    match &depot.location {
        Location::Folder(folder) => Some(folder),
        Location::Bucket(_) => None,
    }
}

/// A compaction that has checked everything and is about to publish: its change, and its file.
async fn about_to_publish(store: &Store, chain: &Chain) -> (Change, Segment) {
    let input = chain.state().of_project(PROJECT).next().unwrap();
    let id = Uuid::now_v7();
    let path = input.path.replace(&input.id.to_string(), &id.to_string());
    assert_ne!(path, input.path);
    let bytes = store.objects().get(&input.path).await.unwrap().unwrap();
    let _ = store.objects().create(&path, bytes).await.unwrap();
    let merged = Segment { id, path, ..(**input).clone() };
    let change =
        Change::Replace { removed: vec![input.id], added: vec![merged.clone()], reason: Reason::Compaction };
    (change, merged)
}

/// Its files seem to be what a crash left, and are deleted before it wakes up.
#[tokio::test]
async fn a_process_suspended_before_it_publishes_is_refused_once_its_files_are_deleted() {
    for depot in depots() {
        let Some(folder) = folder(&depot) else { continue };
        let store = depot.store(|_| ()).await;
        store.append(0, Uuid::now_v7(), batch(0..30)).await.unwrap();
        let mut sleeper = store.chain(0).await.unwrap();
        let (change, merged) = about_to_publish(&store, &sleeper).await;

        assert_eq!(store.clean(0).await.unwrap(), 0, "it is young");
        touch(folder, SystemTime::now() - Duration::from_secs(3 * 3600));
        assert_eq!(store.clean(0).await.unwrap(), 1);
        assert_eq!(store.objects().size(&merged.path).await.unwrap(), None);

        let published = sleeper.publish(Uuid::now_v7(), &change).await.unwrap();
        assert_eq!(published, Published::Refused(Refusal::Discarded(merged.path)));
        for segment in store.scan(PROJECT, 1).await.unwrap().segments {
            store.verify(&segment).await.unwrap();
        }
    }
}

/// The other way round: it publishes while another is about to delete its files.
#[tokio::test]
async fn a_file_that_was_published_meanwhile_is_not_discarded() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        store.append(0, Uuid::now_v7(), batch(0..30)).await.unwrap();
        let mut collector = store.chain(0).await.unwrap();
        let mut publisher = store.chain(0).await.unwrap();
        let (change, merged) = about_to_publish(&store, &publisher).await;
        assert_eq!(publisher.publish(Uuid::now_v7(), &change).await.unwrap(), Published::Done);
        let discard = Change::Discard { paths: vec![merged.path.clone()] };
        let published = collector.publish(Uuid::now_v7(), &discard).await.unwrap();
        assert_eq!(published, Published::Refused(Refusal::Live(merged.path)));
    }
}

/// So long that nobody remembers any more what was discarded; the chain has begun anew from a checkpoint.
#[tokio::test]
async fn a_process_suspended_for_days_is_refused_too() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        store.append(0, Uuid::now_v7(), batch(0..30)).await.unwrap();
        let mut sleeper = store.chain(0).await.unwrap();
        let (change, merged) = about_to_publish(&store, &sleeper).await;
        store.objects().delete(&merged.path).await.unwrap();
        store.append(0, Uuid::now_v7(), batch(30..60)).await.unwrap();
        let published = sleeper.publish(Uuid::now_v7(), &change).await.unwrap();
        assert_eq!(published, Published::Refused(Refusal::Discarded(merged.path)));
    }
}

/// A mirror learns that it is behind from what is there, not from a clock, which may have stood still with it.
#[tokio::test]
async fn a_mirror_whose_next_entries_are_deleted_begins_anew() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        let mut early = store.chain(0).await.unwrap();
        store.append(0, Uuid::now_v7(), batch(0..30)).await.unwrap();
        let mut late = store.chain(0).await.unwrap();
        for start in (30..180).step_by(30) {
            store.append(0, Uuid::now_v7(), batch(start..start + 30)).await.unwrap();
            store.chain(0).await.unwrap().write_checkpoint().await.unwrap();
        }
        // As `clean` leaves it on a machine whose clock is ahead.
        for version in 1..=5 {
            store.objects().delete(&format!("manifest/0/{version:020}.json")).await.unwrap();
        }
        for mirror in [&mut early, &mut late] {
            mirror.follow().await.unwrap();
            assert_eq!(mirror.state().next_offset, 180);
            assert!(mirror.damage().is_none());
        }
    }
}

/// A writer whose segments another process took for orphans writes its events again.
#[tokio::test]
async fn an_append_whose_files_are_deleted_is_refused() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        let mut sleeper = store.chain(0).await.unwrap();
        let path = format!("events/project={PROJECT}/partition=0/{}.parquet", Uuid::now_v7());
        let _ = store.objects().create(&path, Bytes::from_static(b"rows")).await.unwrap();
        let discard = Change::Discard { paths: vec![path.clone()] };
        let mut collector = store.chain(0).await.unwrap();
        assert_eq!(collector.publish(Uuid::now_v7(), &discard).await.unwrap(), Published::Done);
        let segment: Segment = serde_json::from_value(serde_json::json!({
            "id": Uuid::now_v7(), "project": PROJECT, "path": path, "rows": 1, "bytes": 4, "checksum": "",
            "offsets": {"min": 0, "max": 0}, "times": {"min": 0, "max": 0}, "users": {"min": 0, "max": 0}, "late": 0,
        }))
        .unwrap();
        let change = Change::Append {
            start: 0,
            end: 1,
            watermark_micros: 0,
            complete_since_micros: i64::MIN,
            segments: vec![segment],
        };
        let published = sleeper.publish(Uuid::now_v7(), &change).await.unwrap();
        assert_eq!(published, Published::Refused(Refusal::Discarded(path)));
    }
}
