//! A disk without room, and one that fails: what was acknowledged stays, the message says what to do, and it goes on afterwards.

use std::{fs, time::Duration};

use tokio::time::{sleep, timeout};
use weir_log::EventLog;
use weir_tests::power::Fault;

use crate::{
    cuts::{cut, recover, runtime},
    oracle,
    system::{EVENTS, TRIMMED},
    workload::Workload,
};

/// A disk that is full from any operation on, until there is room again; the process is not started anew.
#[test]
fn a_full_disk_loses_nothing_and_is_over_when_there_is_room() {
    let runtime = runtime();
    runtime.block_on(async {
        let mut messages = Vec::new();
        for at in 0..60 {
            let mut work = Workload::new(5);
            work.start().await.unwrap();
            work.append_and_consume().await.unwrap();
            let calls = work.disk.calls();
            work.disk.fail(calls + at..usize::MAX, Fault::NoSpace);
            let mut failed = None;
            for _ in 0..8 {
                failed = failed.or(work.append_and_consume().await.err());
            }
            let failed = failed.expect("something needs room").to_string();
            assert!(failed.contains("No space left"), "{failed}");
            assert!(failed.contains("; free space"), "it says what to do: {failed}");
            messages.push(failed);
            work.disk.heal();
            work.append_and_consume().await.expect("there is room again");
            work.system().log.ping().await.expect("the log is well");
            work.stop();
            let history = work.history.clone();
            drop(oracle::check(&work.root(), work.disk.clone(), &history).await.unwrap());
        }
        assert!(messages.iter().any(|message| message.contains("event store")), "{messages:?}");
        assert!(messages.iter().any(|message| message.contains("partition events/0")), "{messages:?}");
    });
}

/// The page cache takes the pages of a failed sync for clean. Whoever syncs again is told that all is well.
#[test]
fn what_a_failed_sync_left_in_memory_is_not_taken_for_durable() {
    let runtime = runtime();
    let mut lost = 0;
    for seed in 0..40 {
        let mut work = Workload::new(seed);
        runtime.block_on(async {
            work.start().await.unwrap();
            work.append_and_consume().await.unwrap();
            let calls = work.disk.calls();
            work.disk.fail(calls..calls + 20, Fault::SyncFails);
            let failed = work.append(EVENTS).await.unwrap_err().to_string();
            assert!(failed.contains("until the log is reopened"), "{failed}");
            work.disk.heal();
            let again = work.append(EVENTS).await.unwrap_err().to_string();
            assert!(again.contains("until the log is reopened"), "{again}");
            // The next process finds the records in memory, and the store takes their events.
            work.restart().await.unwrap();
            work.append_and_consume().await.unwrap();
            work.stop();
        });
        let trace = work.disk.trace();
        let position = trace.ops.len();
        let left = cut(&trace, position, seed);
        lost += u32::from(recover(&runtime, &left, &work.history.until(position)).is_err());
    }
    assert_eq!(lost, 0, "of 40 power cuts after a failed sync");
}

/// Segments that retention can't delete: none newer goes before them, and they go later.
#[test]
fn retention_that_fails_part_way_leaves_no_hole() {
    let runtime = runtime();
    for seed in 0..10 {
        let mut work = Workload::new(seed);
        runtime.block_on(async {
            work.start().await.unwrap();
            for round in 0..30 {
                let calls = work.disk.calls();
                if round % 3 > 0 {
                    work.disk.fail(calls + round % 3..calls + 12, Fault::RemoveFails);
                }
                work.append(TRIMMED).await.unwrap();
                sleep(Duration::from_millis(2)).await;
                work.disk.heal();
            }
            let deleted = async {
                loop {
                    let start = work.system().log.bounds(TRIMMED, 0).await.unwrap().start;
                    let dir = work.root().join("log/topics").join(TRIMMED).join("0");
                    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
                    let oldest =
                        names.filter_map(|name| name.to_str()?.strip_suffix(".log")?.parse().ok()).min();
                    if start > 0 && oldest == Some(start) {
                        return;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(Duration::from_secs(60), deleted)
                .await
                .expect("what could not be deleted is deleted later");
            work.stop();
            drop(oracle::check(&work.root(), work.disk.clone(), &work.history).await.unwrap());
        });
        let trace = work.disk.trace();
        for choices in 0..40 {
            let position = trace.ops.len() - choices as usize;
            let left = cut(&trace, position, choices);
            recover(&runtime, &left, &work.history.until(position))
                .unwrap_or_else(|(error, kept)| panic!("{error}; see {}", kept.display()));
        }
    }
}
