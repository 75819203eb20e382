//! A log that fails in every way a log may: before appending, after it, and for want of room.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use weir_log::{
    Appended, Bounds, Committed, Error, EventLog, GroupMember, Offset, PartitionReader, Record, RecordBatch,
    RecordBatchBuilder, Result, TopicPolicy, TopicSpec,
};
use weir_proto::processing::v1::partition_status::State;

use crate::{
    exactly_once::Sender,
    fixture::{Consumer, EVENTS, Fixture, METRICS, Sent, TOO_LONG, now_micros},
    oracle::{Oracle, dead_letters},
};

#[derive(Debug)]
struct Flaky {
    log: Arc<dyn EventLog>,
    random: Mutex<StdRng>,
    /// Percent of appends that fail.
    failing: u32,
    /// Nothing is appended at all.
    blocked: AtomicBool,
    /// Reading events panics, as a bug in processing would.
    poisoned: AtomicBool,
    /// How far this log's clock is behind this machine's, milliseconds.
    behind_ms: i64,
}

/// Reads a log whose clock is behind.
#[derive(Debug)]
struct Behind(Box<dyn PartitionReader>, i64);

#[async_trait::async_trait]
impl PartitionReader for Behind {
    async fn next(&mut self, max_wait: Duration) -> Result<RecordBatch> {
        let batch = self.0.next(max_wait).await?;
        let mut shifted = RecordBatchBuilder::default();
        batch.iter().for_each(|r| shifted.push(r.offset, r.append_time_ms - self.1, r.key, r.value));
        Ok(shifted.build(batch.next_offset()))
    }
    fn position(&self) -> Offset {
        self.0.position()
    }
}

#[async_trait::async_trait]
impl EventLog for Flaky {
    async fn append(&self, topic: &str, partition: u32, records: Vec<Record>) -> Result<Appended> {
        if self.blocked.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("the test has cut the log off".to_owned()));
        }
        let (fails, how) = {
            let mut random = self.random.lock().unwrap();
            (random.random_range(0..100) < self.failing, random.random_range(0..3))
        };
        match how {
            _ if !fails => self.log.append(topic, partition, records).await,
            0 => Err(Error::QueueFull { limit: 1 }),
            1 => Err(Error::Unavailable("before it was appended".to_owned())),
            _ => {
                self.log.append(topic, partition, records).await?;
                Err(Error::Unavailable("after it was appended".to_owned()))
            }
        }
    }

    async fn identity(&self) -> Result<String> {
        self.log.identity().await
    }
    async fn ensure_topics(&self, topics: &[TopicSpec], policy: TopicPolicy) -> Result<()> {
        self.log.ensure_topics(topics, policy).await
    }
    async fn partitions(&self, topic: &str) -> Result<u32> {
        self.log.partitions(topic).await
    }
    async fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds> {
        self.log.bounds(topic, partition).await
    }
    async fn offset_at_time(&self, topic: &str, partition: u32, time_ms: i64) -> Result<Offset> {
        self.log.offset_at_time(topic, partition, time_ms).await
    }
    async fn reader(&self, topic: &str, partition: u32, from: Offset) -> Result<Box<dyn PartitionReader>> {
        assert!(topic != EVENTS || !self.poisoned.load(Ordering::SeqCst), "a planted bug");
        Ok(Box::new(Behind(self.log.reader(topic, partition, from).await?, self.behind_ms)))
    }
    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn GroupMember>> {
        self.log.join(topic, group).await
    }
    async fn committed(&self, topic: &str, group: &str, partition: u32) -> Result<Option<Committed>> {
        self.log.committed(topic, group, partition).await
    }
    async fn ping(&self) -> Result<()> {
        self.log.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.log.close().await
    }
}

fn flaky(fixture: &Fixture) -> Flaky {
    Flaky {
        log: Arc::clone(&fixture.log),
        random: Mutex::new(StdRng::seed_from_u64(5)),
        failing: 0,
        blocked: AtomicBool::new(false),
        poisoned: AtomicBool::new(false),
        behind_ms: 0,
    }
}

async fn consumer_on(fixture: &Fixture, flaky: Flaky) -> (Arc<Flaky>, Consumer) {
    let flaky = Arc::new(flaky);
    let consumer = Consumer::start(fixture.config(), Arc::<Flaky>::clone(&flaky)).await;
    (flaky, consumer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_fail_before_or_after_change_nothing() {
    let fixture = Fixture::new(1).await;
    let (_flaky, consumer) = consumer_on(&fixture, Flaky { failing: 30, ..flaky(&fixture) }).await;
    let mut sender = Sender::new(11);
    let mut oracle = Oracle::new(&fixture, 0).await;
    for _ in 0..15 {
        fixture.append(0, sender.records(200)).await;
        oracle.catch_up(&fixture, 0).await;
    }
    sender.check(&oracle);
    sender.check_stored(&consumer).await;
    assert!(oracle.claims > 1, "a failed append ends a claim");
    let mut offsets: Vec<u64> = dead_letters(&fixture, 0).await.iter().map(|letter| letter.offset).collect();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len() as u64, sender.broken);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_cut_off_is_waited_for() {
    let fixture = Fixture::new(1).await;
    let (flaky, consumer) = consumer_on(&fixture, flaky(&fixture)).await;
    let mut sender = Sender::new(12);
    let mut oracle = Oracle::new(&fixture, 0).await;
    fixture.append(0, sender.records(200)).await;
    oracle.catch_up(&fixture, 0).await;
    flaky.blocked.store(true, Ordering::SeqCst);
    fixture.append(0, sender.records(200)).await;
    let status = consumer.until(|s| s.partitions.iter().any(|p| p.state() == State::Blocked)).await;
    let partition = &status.partitions[0];
    assert!(partition.detail.contains("the test has cut the log off"), "{partition:?}");
    assert_eq!(partition.lag_events, 200);
    flaky.blocked.store(false, Ordering::SeqCst);
    oracle.catch_up(&fixture, 0).await;
    sender.check(&oracle);
    sender.check_stored(&consumer).await;
    consumer.until(|s| s.partitions.iter().any(|p| p.state() == State::Running && p.lag_events == 0)).await;
    let committed = async {
        let end = fixture.log.bounds(EVENTS, 0).await.unwrap().end;
        loop {
            let committed = fixture.log.committed(EVENTS, "weir-consumer", 0).await.unwrap();
            if committed.is_some_and(|c| c.position == end) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::fixture::TOO_LONG, committed).await.expect("the position is committed");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_panics_is_started_again_ever_later_and_makes_the_consumer_unready() {
    let fixture = Fixture::new(2).await;
    let poisoned = AtomicBool::new(true);
    let (flaky, consumer) = consumer_on(&fixture, Flaky { poisoned, ..flaky(&fixture) }).await;
    fixture.append(0, (0..10).map(|n| Sent::new(n).encode())).await;
    let said = consumer.until_ready(false, "panicked").await;
    assert!(said.contains("partition 0") && said.contains("partition 1"), "{said}");
    let status = consumer.until(|s| s.partitions.iter().all(|p| p.state() == State::Blocked)).await;
    assert!(status.partitions[0].detail.contains("panicked"), "{status:?}");
    // Time for hundreds of rounds, had they no pause. Each appends a claim.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let claims = fixture.log.bounds(METRICS, 0).await.unwrap().end;
    assert!((2..20).contains(&claims), "{claims} claims");

    flaky.poisoned.store(false, Ordering::SeqCst);
    let mut oracle = Oracle::new(&fixture, 0).await;
    oracle.catch_up(&fixture, 0).await;
    assert_eq!(oracle.tally.counted, 10);
    consumer.until_ready(true, "").await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fallen_partitions_are_given_up_like_others() {
    let fixture = Fixture::new(2).await;
    let poisoned = AtomicBool::new(true);
    let (_flaky, falling) = consumer_on(&fixture, Flaky { poisoned, ..flaky(&fixture) }).await;
    falling.until_ready(false, "panicked").await;
    // The group goes on: the newcomer gets its share from a member that has none of its threads.
    let second = fixture.consumer().await;
    second.until(|s| s.partitions.iter().any(|p| p.state() == State::Running)).await;
    falling.stop().await;
    second.until(|s| s.partitions.iter().filter(|p| p.state() == State::Running).count() == 2).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_watermark_follows_the_clock_of_the_log() {
    const HOUR_MS: i64 = 3_600_000;
    let fixture = Fixture::new(1).await;
    let started = now_micros();
    let (_flaky, consumer) = consumer_on(&fixture, Flaky { behind_ms: HOUR_MS, ..flaky(&fixture) }).await;
    // Nothing was sent: the first watermark is a heartbeat's.
    let status = consumer.until(|s| s.partitions.iter().any(|p| p.watermark.is_some())).await;
    let watermark = status.partitions[0].watermark.unwrap().seconds;
    let passed = (now_micros() - started) / 1_000_000;
    let log_started = started / 1_000_000 - HOUR_MS / 1000;
    assert!(
        (log_started - 2..=log_started + passed + 1).contains(&watermark),
        "{watermark} is not of the log's clock, which began at {log_started} {passed} s ago"
    );
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_record_with_a_huge_key_becomes_a_dead_letter() {
    let fixture = Fixture::new(1).await;
    let consumer = fixture.consumer().await;
    // Nearly what the log takes as one record.
    let foreign = Record::new(vec![b'k'; 7 << 20], "not an event");
    fixture.log.append(EVENTS, 0, vec![foreign]).await.unwrap();
    fixture.append(0, [Sent::new(1).encode()]).await;
    let mut oracle = Oracle::new(&fixture, 0).await;
    tokio::time::timeout(TOO_LONG, oracle.catch_up(&fixture, 0)).await.expect("processing goes on");
    assert_eq!((oracle.tally.counted, oracle.tally.dead_lettered), (1, 1));
    let letter = &dead_letters(&fixture, 0).await[0];
    assert_eq!(letter.value, "not an event");
    assert!(letter.detail.contains("of 7340032 bytes of its key"), "{}", letter.detail);
    consumer.stop().await;
}
