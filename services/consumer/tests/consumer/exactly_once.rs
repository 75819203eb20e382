//! Every event counts once, whatever happens to the consumer.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};
use weir_log::Record;
use weir_proto::{
    event::v1::dead_letter::Reason,
    processing::v1::partition_status::State,
    rollup::v1::{Claim, MetricsRecord, metrics_record},
};

use crate::{
    fixture::{Consumer, Fixture, METRICS, Sent},
    oracle::{Oracle, Totals, dead_letters},
};

/// Sends `count` records, some of them repetitions and some that are no events; remembers what is to be counted.
pub(crate) struct Sender {
    random: StdRng,
    events: Vec<Sent>,
    /// Where those events are: the offsets of all that is to be stored.
    offsets: Vec<u64>,
    /// The offset of the next record.
    next: u64,
    repeated: u64,
    pub(crate) broken: u64,
    imports: BTreeMap<Vec<u8>, [u64; 3]>,
}

impl Sender {
    pub(crate) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self {
            random,
            events: Vec::new(),
            offsets: Vec::new(),
            next: 0,
            repeated: 0,
            broken: 0,
            imports: BTreeMap::new(),
        }
    }

    pub(crate) fn records(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut records = Vec::with_capacity(count);
        for _ in 0..count {
            records.push(match self.random.random_range(0..100) {
                0..10 if !self.events.is_empty() => {
                    self.repeated += 1;
                    let again = self.random.random_range(0..self.events.len());
                    let event = &self.events[again];
                    note(&mut self.imports, event, 1);
                    event.encode()
                }
                10 if !self.events.is_empty() => {
                    self.broken += 1;
                    // A record of which can be read what it belongs to, although it is no event.
                    let event = Sent { name: "", ..Sent::new(self.next * 3) };
                    note(&mut self.imports, &event, 2);
                    event.encode()
                }
                10..12 => {
                    self.broken += 1;
                    b"\xff no event".to_vec()
                }
                _ => {
                    let event = Sent::new(self.events.len() as u64);
                    note(&mut self.imports, &event, 0);
                    let encoded = event.encode();
                    self.events.push(event);
                    self.offsets.push(self.next);
                    encoded
                }
            });
            self.next += 1;
        }
        records
    }

    #[track_caller]
    pub(crate) fn check(&self, oracle: &Oracle) {
        assert_eq!(oracle.totals, Totals::of(&self.events));
        assert_eq!(oracle.tally.counted, self.events.len() as u64);
        assert_eq!(oracle.tally.duplicates, self.repeated);
        assert_eq!(oracle.tally.dead_lettered, self.broken);
        assert_eq!(oracle.imports, self.imports, "what became of the imports");
    }

    /// The other sink has the same events, each once.
    pub(crate) async fn check_stored(&self, consumer: &Consumer) {
        assert_eq!(consumer.stored(&[self.next]).await, self.offsets);
    }
}

/// Counts an event towards its import if it has one: as counted, suppressed or dead-lettered.
fn note(imports: &mut BTreeMap<Vec<u8>, [u64; 3]>, event: &Sent, outcome: usize) {
    if let Some(import) = event.import {
        imports.entry(import.as_bytes().to_vec()).or_default()[outcome] += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_equal_what_was_sent() {
    let fixture = Fixture::new(2).await;
    let consumer = fixture.consumer().await;
    let mut senders = [Sender::new(1), Sender::new(2)];
    for _ in 0..10 {
        for (partition, sender) in senders.iter_mut().enumerate() {
            fixture.append(partition as u32, sender.records(500)).await;
        }
    }
    for (partition, sender) in senders.iter().enumerate() {
        let mut oracle = Oracle::new(&fixture, partition as u32).await;
        oracle.catch_up(&fixture, partition as u32).await;
        sender.check(&oracle);
        assert_eq!((oracle.claims, oracle.void), (1, 0));
        let letters = dead_letters(&fixture, partition as u32).await;
        assert_eq!(letters.len() as u64, sender.broken, "each once, for nothing went wrong");
        let malformed = letters.iter().filter(|letter| letter.reason() == Reason::Malformed);
        assert!(malformed.clone().all(|letter| &letter.value[..] == b"\xff no event"));
        assert!(malformed.count() < letters.len(), "some are records of imports without a name");
        assert!(
            letters.iter().all(|letter| &letter.key[..] == b"key" && letter.partition == partition as u32)
        );
    }
    let mut offsets = senders.each_ref().map(|sender| sender.offsets.clone()).concat();
    offsets.sort_unstable();
    assert_eq!(consumer.stored(&senders.each_ref().map(|sender| sender.next)).await, offsets);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_at_any_moment_change_nothing() {
    for seed in 0..4 {
        let fixture = Fixture::new(1).await;
        let mut sender = Sender::new(seed);
        let mut oracle = Oracle::new(&fixture, 0).await;
        for _ in 0..8 {
            let consumer = fixture.consumer().await;
            // The moment is a number of batches accepted since, at times none at all.
            let moment = oracle.accepted + sender.random.random_range(0..4);
            for _ in 0..6 {
                fixture.append(0, sender.records(300)).await;
                tokio::task::yield_now().await;
            }
            let end = fixture.log.bounds(crate::fixture::EVENTS, 0).await.unwrap().end;
            oracle.until(|oracle| oracle.accepted >= moment || oracle.next >= end).await;
            consumer.crash().await;
        }
        let consumer = fixture.consumer().await;
        oracle.catch_up(&fixture, 0).await;
        sender.check(&oracle);
        sender.check_stored(&consumer).await;
        let letters = dead_letters(&fixture, 0).await;
        let distinct: BTreeSet<u64> = letters.iter().map(|letter| letter.offset).collect();
        assert_eq!(distinct.len() as u64, sender.broken, "none is missing, though some may be there twice");
        consumer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_leaves_nothing_to_do_again() {
    let fixture = Fixture::new(1).await;
    let mut sender = Sender::new(7);
    let consumer = fixture.consumer().await;
    fixture.append(0, sender.records(2000)).await;
    let mut oracle = Oracle::new(&fixture, 0).await;
    oracle.until(|oracle| oracle.next > 0).await;
    consumer.stop().await;
    let committed = fixture.log.committed(crate::fixture::EVENTS, "weir-consumer", 0).await.unwrap().unwrap();
    let end = fixture.log.bounds(METRICS, 0).await.unwrap().end;
    let hint: weir_rollup::chain::Hint = committed.metadata.parse().unwrap();
    assert_eq!(hint.metrics_offset, end, "everything appended was read back and committed");
    assert_eq!(hint.state.next_source_offset, committed.position);

    let consumer = fixture.consumer().await;
    oracle.catch_up(&fixture, 0).await;
    sender.check(&oracle);
    sender.check_stored(&consumer).await;
    assert_eq!(oracle.void, 0);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_consumers_of_one_partition_count_once() {
    let fixture = Fixture::new(1).await;
    let mut sender = Sender::new(3);
    let mut oracle = Oracle::new(&fixture, 0).await;
    let first = fixture.consumer_in("one").await;
    fixture.append(0, sender.records(1000)).await;
    oracle.until(|oracle| oracle.next > 0).await;
    // Another group assigns the same partition: two owners, as after a zombie's return.
    let second = fixture.consumer_in("two").await;
    for _ in 0..10 {
        fixture.append(0, sender.records(1000)).await;
    }
    oracle.catch_up(&fixture, 0).await;
    let fenced = |state: &weir_proto::processing::v1::Status| {
        state.partitions.iter().any(|p| p.state() == State::Fenced)
    };
    let status = first.until(fenced).await;
    assert!(status.partitions[0].detail.contains("has claimed"), "{status:?}");
    fixture.append(0, sender.records(1000)).await;
    oracle.catch_up(&fixture, 0).await;
    sender.check(&oracle);
    sender.check_stored(&second).await;
    assert_eq!(oracle.claims, 2);
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_consumer_claims_back_when_the_other_is_silent() {
    let fixture = Fixture::new(1).await;
    let mut sender = Sender::new(4);
    let mut oracle = Oracle::new(&fixture, 0).await;
    let consumer = fixture.consumer().await;
    oracle.until(|oracle| oracle.claims == 1).await;
    // Somebody claims the partition and is never heard of again.
    let claim = Claim { owner: vec![7; 16], address: "nobody:1".to_owned(), ..Claim::default() };
    let record = MetricsRecord { record: Some(metrics_record::Record::Claim(claim)) };
    fixture.log.append(METRICS, 0, vec![Record::new("", record.encode_to_vec())]).await.unwrap();
    consumer.until(|s| s.partitions.iter().any(|p| p.state() == State::Fenced)).await;
    fixture.append(0, sender.records(100)).await;
    oracle.catch_up(&fixture, 0).await;
    sender.check(&oracle);
    sender.check_stored(&consumer).await;
    assert_eq!(oracle.claims, 3);
    consumer.stop().await;
}
