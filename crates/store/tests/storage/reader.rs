//! Readers: what was accepted is there once, at every moment.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use uuid::Uuid;
use weir_store::{Error, EventStore, HotRead, HotSource, Reader, Store};

use crate::{
    depot::{depots, faulty},
    fixture::{PROJECT, assert_whole, batch, soon},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn snapshots_have_no_gap_and_no_overlap_while_flushes_and_compactions_race() {
    for depot in depots() {
        let store = depot
            .store(|settings| {
                settings.flush_interval = Duration::from_millis(3);
                settings.compact_files = 3;
            })
            .await;
        let mut writer = store.writer(0, Uuid::now_v7()).await.unwrap();
        let reader = Arc::new(Reader::new(store.clone(), 1, Arc::new(store.clone())));
        let (done, stop) = tokio::sync::watch::channel(false);
        let looking: Vec<_> = (0..2)
            .map(|_| {
                let (store, reader, stop) = (store.clone(), Arc::clone(&reader), stop.clone());
                tokio::spawn(async move {
                    let mut looks = 0;
                    let mut last = 0;
                    while !*stop.borrow() {
                        let snapshot = reader.snapshot(PROJECT).await.unwrap();
                        assert_eq!(snapshot.stale, []);
                        assert!(last <= snapshot.next_offsets[&0], "time does not run backwards");
                        last = snapshot.next_offsets[&0];
                        assert_whole(&store, &snapshot).await;
                        looks += 1;
                    }
                    looks
                })
            })
            .collect();
        for start in (0..1500).step_by(10) {
            writer.append(batch(start..start + 10));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        done.send(true).unwrap();
        for looking in looking {
            assert!(looking.await.unwrap() > 3, "it looked while all that happened");
        }
        writer.drain().await.unwrap();
        let snapshot = reader.snapshot(PROJECT).await.unwrap();
        assert_eq!(snapshot.next_offsets[&0], 1500);
        assert_whole(&store, &snapshot).await;
    }
}

#[derive(Debug)]
struct Unreachable;

#[async_trait]
impl HotSource for Unreachable {
    async fn read(&self, partition: u32, _: u64) -> Result<HotRead, Error> {
        Err(Error::Unavailable {
            what: format!("ask the owner of {partition}"),
            source: "connection refused".into(),
        })
    }
}

#[tokio::test]
async fn an_owner_that_can_not_be_asked_is_named_and_the_rest_answers() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        store.append(0, Uuid::now_v7(), batch(0..20)).await.unwrap();
        let reader = Reader::new(store.clone(), 1, Arc::new(Unreachable));
        assert_eq!(reader.snapshot(PROJECT).await.unwrap().next_offsets[&0], 20);
        store.append(0, Uuid::now_v7(), batch(20..40)).await.unwrap();
        let snapshot = reader.snapshot(PROJECT).await.unwrap();
        assert_eq!(snapshot.next_offsets[&0], 40, "manifests are followed all the same");
        let (partition, why) = &snapshot.stale[0];
        assert_eq!(*partition, 0);
        assert!(why.contains("connection refused"), "{why}");
        assert_whole(&store, &snapshot).await;
    }
}

#[tokio::test]
async fn a_damaged_partition_is_named_and_the_others_answer() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        for partition in 0..2 {
            store.append(partition, Uuid::now_v7(), batch(0..20)).await.unwrap();
            store.append(partition, Uuid::now_v7(), batch(20..30)).await.unwrap();
        }
        let torn = format!("manifest/1/{:020}.json", 2);
        store.objects().delete(&torn).await.unwrap();
        let _ = store.objects().create(&torn, "{".into()).await.unwrap();
        let reader = Reader::new(store.clone(), 2, Arc::new(store.clone()));
        let snapshot = reader.snapshot(PROJECT).await.unwrap();
        assert_eq!(snapshot.next_offsets.values().copied().collect::<Vec<_>>(), [30, 20]);
        assert!(snapshot.stale.iter().any(|(partition, why)| *partition == 1 && why.contains(&torn)));
    }
}

/// Overwrites the columns of a segment; its size and footer are what they were.
async fn tear(store: &Store, path: &str) {
    let mut bytes = store.objects().get(path).await.unwrap().unwrap().to_vec();
    // At the end: the footer, its length in 4 bytes, and `PAR1`.
    let (rest, end) = bytes.split_at(bytes.len() - 8);
    let footer = u32::from_le_bytes(end[..4].try_into().unwrap());
    let columns = 4..rest.len() - footer as usize;
    bytes[columns].fill(0xa5);
    store.objects().delete(path).await.unwrap();
    let _ = store.objects().create(path, bytes.into()).await.unwrap();
}

#[tokio::test]
async fn segments_that_are_gone_or_torn_are_left_out_and_named_and_the_rest_answers() {
    for depot in depots() {
        let store = depot.store(|_| ()).await;
        for start in [0, 10, 20] {
            store.append(0, Uuid::now_v7(), batch(start..start + 10)).await.unwrap();
        }
        let reader = Reader::new(store.clone(), 1, Arc::new(Unreachable));
        let all = i64::MIN..i64::MAX;
        let whole = reader.snapshot(PROJECT).await.unwrap();
        assert!(!reader.isolate(&whole, &all).await.unwrap());
        let [_, gone, torn] = &whole.segments[..] else { panic!("three flushes are three segments") };

        store.objects().delete(&gone.path).await.unwrap();
        assert!(reader.isolate(&whole, &all).await.unwrap());
        let rest = reader.snapshot(PROJECT).await.unwrap();
        let missing: Vec<_> = rest.missing.iter().map(|missing| (&missing.path, missing.rows)).collect();
        assert_eq!(missing, [(&gone.path, 8)]);
        assert!(rest.missing[0].problem.contains("is missing: put it back"), "{}", rest.missing[0].problem);
        assert_eq!(crate::fixture::events(&store, &rest).await.len(), 16);

        tear(&store, &torn.path).await;
        let elsewhere = torn.times.max + 1..i64::MAX;
        assert!(!reader.isolate(&rest, &elsewhere).await.unwrap(), "nobody asked for what it holds");
        assert!(reader.isolate(&rest, &all).await.unwrap());
        let rest = reader.snapshot(PROJECT).await.unwrap();
        assert_eq!(rest.missing.len(), 2);
        assert_eq!(crate::fixture::events(&store, &rest).await.len(), 8);
    }
}

/// Reading whole files is dear: whoever asks meanwhile waits for what is found.
#[tokio::test]
async fn questions_that_fail_together_have_the_files_read_once() {
    let (faults, store) = faulty(|_| ());
    for start in [0, 10, 20] {
        store.append(0, Uuid::now_v7(), batch(start..start + 10)).await.unwrap();
    }
    let reader = Reader::new(store.clone(), 1, Arc::new(Unreachable));
    let whole = reader.snapshot(PROJECT).await.unwrap();
    let all = i64::MIN..i64::MAX;
    // The first begins to read before the others have failed, so that it may have seen what was sound then.
    let reading = Arc::new(Semaphore::new(0));
    *faults.reading.lock().unwrap() = Some(Arc::clone(&reading));
    let isolate = || reader.isolate(&whole, &all);
    let (first, second, third, ()) =
        tokio::join!(isolate(), isolate(), isolate(), async { reading.add_permits(100) });
    assert!([first, second, third].into_iter().all(|found| !found.unwrap()));
    assert_eq!(faults.read.load(Ordering::SeqCst), 6, "three files by the first, three for the others");
}

/// A question may have no time to wait until all files are read.
#[tokio::test]
async fn what_is_found_damaged_counts_before_the_last_file_is_read() {
    let (faults, store) = faulty(|_| ());
    for start in [0, 10, 20] {
        store.append(0, Uuid::now_v7(), batch(start..start + 10)).await.unwrap();
    }
    let reader = Reader::new(store.clone(), 1, Arc::new(Unreachable));
    let whole = reader.snapshot(PROJECT).await.unwrap();
    tear(&store, &whole.segments[0].path).await;

    // The others are never read to their ends.
    *faults.reading.lock().unwrap() = Some(Arc::new(Semaphore::new(1)));
    let found = async {
        while reader.snapshot(PROJECT).await.unwrap().missing.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = reader.isolate(&whole, &(i64::MIN..i64::MAX)) => panic!("it waits for the other files: {ended:?}"),
        () = soon("the torn one is left out", found) => {}
    }
}

/// Nobody may ever have the time to wait until all files are read.
#[tokio::test]
async fn a_look_goes_on_where_the_one_before_was_cut_off() {
    let (faults, store) = faulty(|_| ());
    for start in [0, 10, 20, 30] {
        store.append(0, Uuid::now_v7(), batch(start..start + 10)).await.unwrap();
    }
    let reader = Reader::new(store.clone(), 1, Arc::new(Unreachable));
    let whole = reader.snapshot(PROJECT).await.unwrap();
    tear(&store, &whole.segments[3].path).await;
    faults.read.store(0, Ordering::SeqCst);

    // Each time one file is read to its end, and no other.
    let look = || {
        *faults.reading.lock().unwrap() = Some(Arc::new(Semaphore::new(1)));
        reader.isolate(&whole, &(i64::MIN..i64::MAX))
    };
    let third = async {
        while faults.read.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = look() => panic!("it does not wait for the files: {ended:?}"),
        () = soon("the third is begun", third) => {}
    }
    assert_eq!(reader.snapshot(PROJECT).await.unwrap().missing, []);
    let found = async {
        while reader.snapshot(PROJECT).await.unwrap().missing.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = look() => panic!("it does not wait for the files: {ended:?}"),
        () = soon("the torn one is left out", found) => {}
    }
}

/// Its disk sector is lost, or its permissions are wrong: that is not for waiting.
#[tokio::test]
async fn a_segment_that_the_store_does_not_give_is_left_out_while_it_gives_others() {
    let (faults, store) = faulty(|_| ());
    for start in [0, 10, 20] {
        store.append(0, Uuid::now_v7(), batch(start..start + 10)).await.unwrap();
    }
    let reader = Reader::new(store.clone(), 1, Arc::new(Unreachable));
    let whole = reader.snapshot(PROJECT).await.unwrap();
    faults.spoil(&whole.segments[1].path);
    assert!(reader.isolate(&whole, &(i64::MIN..i64::MAX)).await.unwrap());
    let missing = reader.snapshot(PROJECT).await.unwrap().missing;
    assert_eq!((missing.len(), &missing[0].path), (1, &whole.segments[1].path));
    assert!(missing[0].problem.contains("lost a sector"), "{}", missing[0].problem);

    let only = weir_store::Snapshot { segments: vec![Arc::clone(&whole.segments[1])], ..whole };
    let unknown = Reader::new(store, 1, Arc::new(Unreachable)).isolate(&only, &(i64::MIN..i64::MAX)).await;
    assert!(unknown.is_err_and(|error| error.is_retryable()), "it may be that the store gives nothing");
}
