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
    Appended, Bounds, Committed, Error, EventLog, GroupMember, Offset, PartitionReader, Record, Result,
    TopicPolicy, TopicSpec,
};
use weir_proto::processing::v1::partition_status::State;

use crate::{
    exactly_once::Sender,
    fixture::{Consumer, EVENTS, Fixture},
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
        self.log.reader(topic, partition, from).await
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

async fn consumer_on(fixture: &Fixture, failing: u32) -> (Arc<Flaky>, Consumer) {
    let random = Mutex::new(StdRng::seed_from_u64(5));
    let blocked = AtomicBool::new(false);
    let flaky = Arc::new(Flaky { log: Arc::clone(&fixture.log), random, failing, blocked });
    let consumer = Consumer::start(fixture.config(), Arc::<Flaky>::clone(&flaky)).await;
    (flaky, consumer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_fail_before_or_after_change_nothing() {
    let fixture = Fixture::new(1).await;
    let (_flaky, consumer) = consumer_on(&fixture, 30).await;
    let mut sender = Sender::new(11);
    let mut oracle = Oracle::new(&fixture, 0).await;
    for _ in 0..15 {
        fixture.append(0, sender.records(200)).await;
        oracle.catch_up(&fixture, 0).await;
    }
    sender.check(&oracle);
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
    let (flaky, consumer) = consumer_on(&fixture, 0).await;
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
