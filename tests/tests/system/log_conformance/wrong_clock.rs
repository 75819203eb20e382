//! The embedded log on a clock that is wrong for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use weir_log::{Clock, EmbeddedConfig, EmbeddedLog, EventLog as _, Retention, TopicPolicy, TopicSpec};

use super::{PATIENCE, record};

const TOPIC: &str = "t";
const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
const NOON: i64 = 20_000 * DAY;

async fn open(config: &EmbeddedConfig, retention: Retention) -> Arc<EmbeddedLog> {
    let log = EmbeddedLog::open(config.clone()).unwrap();
    let topic = TopicSpec { name: TOPIC.to_owned(), partitions: 1, retention };
    log.ensure_topics(&[topic], TopicPolicy::Create).await.unwrap();
    log
}

/// The append times of all records, in the order of their offsets.
async fn times(log: &EmbeddedLog) -> Vec<i64> {
    let end = log.bounds(TOPIC, 0).await.unwrap().end;
    let mut reader = log.reader(TOPIC, 0, 0).await.unwrap();
    let mut times = Vec::new();
    while reader.position() < end {
        times.extend(reader.next(PATIENCE).await.unwrap().iter().map(|record| record.append_time_ms));
    }
    times
}

#[tokio::test]
async fn append_times_follow_a_clock_that_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(NOON));
    let shown = Arc::clone(&now);
    let config = EmbeddedConfig {
        clock: Clock::of(move || shown.load(SeqCst)),
        retention_check: Duration::from_millis(10),
        ..EmbeddedConfig::at(dir.path())
    };
    let log = open(&config, Retention::default()).await;
    let mut count = 0;
    let mut append = async |log: &EmbeddedLog, at: i64| {
        now.store(at, SeqCst);
        log.append(TOPIC, 0, vec![record(count)]).await.unwrap();
        count += 1;
    };
    append(&log, NOON).await;
    append(&log, NOON + 400 * DAY).await;
    append(&log, NOON + SECOND).await;
    // A little behind, times stand still.
    append(&log, NOON - 9 * SECOND).await;
    append(&log, NOON + 2 * SECOND).await;
    let right = [NOON, NOON + 400 * DAY, NOON + SECOND, NOON + SECOND, NOON + 2 * SECOND];
    assert_eq!(times(&log).await, right);

    // By time, no record is passed over that is of it; at most some before are read again.
    assert_eq!(log.offset_at_time(TOPIC, 0, NOON).await.unwrap(), 0);
    assert_eq!(log.offset_at_time(TOPIC, 0, NOON + SECOND).await.unwrap(), 1);
    assert_eq!(log.offset_at_time(TOPIC, 0, NOON + 3 * SECOND).await.unwrap(), 5);

    // Opened again it goes on from the right time, also when the clock was wrong last.
    append(&log, NOON + 500 * DAY).await;
    log.close().await.unwrap();
    now.store(NOON + 3 * SECOND, SeqCst);
    let log = open(&config, Retention { age: Some(Duration::from_secs(7200)), bytes: None }).await;
    append(&log, NOON + 4 * SECOND).await;
    assert_eq!(times(&log).await[5..], [NOON + 500 * DAY, NOON + 4 * SECOND]);

    // What was stamped in the future is as old as what followed it.
    append(&log, NOON + 3 * HOUR).await;
    now.store(NOON + 6 * HOUR, SeqCst);
    let forgotten = async {
        while log.bounds(TOPIC, 0).await.unwrap().start < 6 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.expect("retention deletes segments of a wrong time");
    log.close().await.unwrap();
}
