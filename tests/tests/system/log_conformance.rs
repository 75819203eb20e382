//! What every `EventLog` promises, asked of both implementations by the same functions. What only one of them can be
//! asked is in `embedded` (damage, faults of the disk), `wrong_clock` and `kafka` (a broker that dies, credentials).

#![allow(clippy::unwrap_used, reason = "a panic with the error in it is how these tests fail")]

mod embedded;
mod kafka;
mod wrong_clock;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{future, poll};
use tempfile::TempDir;
use uuid::Uuid;
use weir_log::{
    Appended, Bounds, Committed, EmbeddedConfig, EmbeddedLog, Error, EventLog, GroupMember, KafkaConfig,
    KafkaLog, Membership, Offset, PartitionReader, Record, RecordBatch, Retention, TopicPolicy, TopicSpec,
};

/// Long enough for a loaded machine; what is waited for usually takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 3;
const QUEUE_BYTES: u64 = 1 << 20;

/// A log under test with a topic of its own.
struct Rig {
    log: Arc<dyn EventLog>,
    topic: String,
    /// Name of a group of its own.
    group: String,
    home: Home,
}

enum Home {
    Embedded { config: EmbeddedConfig, _dir: TempDir },
    Kafka(Box<KafkaConfig>),
}

impl Rig {
    async fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig {
            // Small, so that a few records are several segments.
            segment_bytes: 64 << 10,
            index_interval_bytes: 4 << 10,
            max_pending_bytes: QUEUE_BYTES,
            max_record_bytes: QUEUE_BYTES / 2,
            ..EmbeddedConfig::at(dir.path())
        };
        Self::new(Home::Embedded { config, _dir: dir }).await
    }

    async fn kafka() -> Self {
        let config = KafkaConfig {
            queue_bytes: QUEUE_BYTES,
            max_record_bytes: QUEUE_BYTES / 2,
            // Small, so that readers are paused and resumed.
            reader_buffer_bytes: 128 << 10,
            linger: Duration::ZERO,
            replication: Some(1),
            session_timeout: Duration::from_secs(6),
            ..KafkaConfig::new([weir_tests::kafka::shared().bootstrap()])
        };
        Self::new(Home::Kafka(Box::new(config))).await
    }

    async fn new(home: Home) -> Self {
        let name = Uuid::new_v4();
        let (topic, group) = (format!("topic-{name}"), format!("group-{name}"));
        let log = open(&home);
        let rig = Self { log, topic, group, home };
        rig.log.ensure_topics(&[rig.spec()], TopicPolicy::Create).await.unwrap();
        rig
    }

    fn spec(&self) -> TopicSpec {
        TopicSpec { name: self.topic.clone(), partitions: PARTITIONS, retention: Retention::default() }
    }

    /// The same log after this process let go of it.
    async fn reopen(mut self) -> Self {
        self.log.close().await.unwrap();
        self.log = open(&self.home);
        self
    }

    async fn append(&self, partition: u32, records: Vec<Record>) -> Appended {
        self.log.append(&self.topic, partition, records).await.unwrap()
    }

    async fn reader(&self, partition: u32, from: Offset) -> Box<dyn PartitionReader> {
        self.log.reader(&self.topic, partition, from).await.unwrap()
    }

    async fn bounds(&self, partition: u32) -> Bounds {
        self.log.bounds(&self.topic, partition).await.unwrap()
    }

    async fn join(&self) -> Box<dyn GroupMember> {
        self.log.join(&self.topic, &self.group).await.unwrap()
    }

    async fn committed(&self, partition: u32) -> Option<Committed> {
        self.log.committed(&self.topic, &self.group, partition).await.unwrap()
    }
}

fn open(home: &Home) -> Arc<dyn EventLog> {
    match home {
        Home::Embedded { config, .. } => EmbeddedLog::open(config.clone()).unwrap(),
        Home::Kafka(config) => KafkaLog::connect((**config).clone()).unwrap(),
    }
}

fn record(n: u64) -> Record {
    Record::new(format!("key-{}", n % 7), format!("value-{n}"))
}

fn records(range: std::ops::Range<u64>) -> Vec<Record> {
    range.map(record).collect()
}

/// Reads until `count` records have come: `(offset, append time, record)`.
async fn read(reader: &mut dyn PartitionReader, count: usize) -> Vec<(Offset, i64, Record)> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = next(reader).await;
        assert_eq!(reader.position(), batch.next_offset(), "the reader goes on where the batch ends");
        all.extend(unpack(&batch));
    }
    all
}

async fn next(reader: &mut dyn PartitionReader) -> RecordBatch {
    let batch = reader.next(PATIENCE).await.unwrap();
    assert!(!batch.is_empty(), "no record came within {PATIENCE:?}, at offset {}", reader.position());
    batch
}

fn unpack(batch: &RecordBatch) -> Vec<(Offset, i64, Record)> {
    let unpacked = batch.iter().enumerate().map(|(index, r)| {
        assert_eq!(batch.value_bytes(index), r.value);
        let headers = batch.headers(index).map(|(k, v)| (k.to_owned(), v.to_vec().into())).collect();
        (
            r.offset,
            r.append_time_ms,
            Record { key: r.key.to_vec().into(), value: r.value.to_vec().into(), headers },
        )
    });
    unpacked.collect()
}

async fn change(member: &mut dyn GroupMember) -> Membership {
    tokio::time::timeout(PATIENCE, member.next()).await.expect("the group says something").unwrap()
}

/// Takes changes in until the member has exactly so many partitions, releasing what is asked back.
async fn settle(member: &mut dyn GroupMember, owned: &mut BTreeSet<u32>, count: usize) {
    while owned.len() != count {
        match change(member).await {
            Membership::Assigned(more) => owned.extend(more),
            Membership::Revoked(less) => {
                owned.retain(|p| !less.contains(p));
                member.released();
            }
            Membership::Lost(lost) => panic!("{lost:?} were lost without a reason"),
            Membership::Refused(why) => panic!("{why}"),
        }
    }
}

async fn records_come_back_in_order(rig: Rig) {
    let mut wanted = records(0..1000);
    wanted[3].headers = vec![("traceparent".to_owned(), "00-1".into()), ("empty".to_owned(), "".into())];
    wanted[4] = Record::new("", "a record without a key");
    wanted[5] = Record::new("a record without a value", "");
    for (chunk, appended) in wanted.chunks(130).enumerate() {
        let at = rig.append(1, appended.to_vec()).await;
        let first = chunk as u64 * 130;
        assert_eq!(at, Appended { first, last: first + appended.len() as u64 - 1 });
    }
    for from in [0, 1, 129, 130, 555, 999] {
        let got = read(&mut *rig.reader(1, from as Offset).await, 1000 - from).await;
        assert_eq!(got.iter().map(|r| r.0).collect::<Vec<_>>(), (from as u64..1000).collect::<Vec<_>>());
        assert_eq!(got.into_iter().map(|r| r.2).collect::<Vec<_>>(), wanted[from..], "from {from}");
    }
}

async fn acknowledged_records_survive_a_reopen(rig: Rig) {
    rig.append(0, records(0..500)).await;
    rig.append(2, records(500..501)).await;
    let rig = rig.reopen().await;
    assert_eq!(rig.bounds(0).await, Bounds { start: 0, end: 500 });
    assert_eq!(rig.bounds(1).await, Bounds { start: 0, end: 0 });
    assert_eq!(rig.append(0, records(500..600)).await, Appended { first: 500, last: 599 });
    let got = read(&mut *rig.reader(0, 0).await, 600).await;
    assert_eq!(got.into_iter().map(|r| r.2).collect::<Vec<_>>(), records(0..600));
    assert_eq!(read(&mut *rig.reader(2, 0).await, 1).await[0].2, record(500));
}

async fn its_identity_is_kept(rig: Rig) {
    let known = rig.log.identity().await.unwrap();
    assert!((1..=64).contains(&known.len()) && known.is_ascii(), "{known:?}");
    let rig = rig.reopen().await;
    assert_eq!(rig.log.identity().await.unwrap(), known);
}

async fn concurrent_appends_are_where_their_answers_say(rig: Rig) {
    let appends = (0..64u64).map(|n| {
        let (log, topic) = (Arc::clone(&rig.log), rig.topic.clone());
        tokio::spawn(async move {
            let batch = records(n * 10..n * 10 + 1 + n % 10);
            (batch.clone(), log.append(&topic, 0, batch).await.unwrap())
        })
    });
    let answers: Vec<_> = future::join_all(appends).await.into_iter().map(Result::unwrap).collect();
    let count: usize = answers.iter().map(|(batch, _)| batch.len()).sum();
    let got = read(&mut *rig.reader(0, 0).await, count).await;
    let mut taken = BTreeSet::new();
    for (batch, at) in answers {
        let here: Vec<_> = got[at.first as usize..=at.last as usize].iter().map(|r| &r.2).collect();
        assert!(batch.iter().all(|r| here.contains(&r)), "{at:?} holds {here:?} and not {batch:?}");
        assert!(taken.insert(at.first), "two appends got the same offset");
    }
}

async fn a_waiting_reader_is_woken(rig: Rig) {
    let mut reader = rig.reader(0, 0).await;
    let batch = reader.next(Duration::from_millis(5)).await.unwrap();
    assert!(batch.is_empty() && batch.next_offset() == 0, "nothing is there yet");
    for n in 0..20 {
        let (batch, _) = future::join(next(&mut *reader), rig.append(0, vec![record(n)])).await;
        assert_eq!(unpack(&batch)[0].2, record(n));
    }
}

async fn readers_do_not_disturb_each_other(rig: Rig) {
    rig.append(0, records(0..300)).await;
    let mut readers = Vec::new();
    for from in [0, 100, 250] {
        readers.push((from, rig.reader(0, from).await));
    }
    rig.append(0, records(300..400)).await;
    for (from, reader) in &mut readers {
        let got = read(&mut **reader, 400 - *from as usize).await;
        assert_eq!(got.into_iter().map(|r| r.2).collect::<Vec<_>>(), records(*from..400), "from {from}");
    }
    // A place is free again after its reader is gone.
    drop(readers);
    assert_eq!(read(&mut *rig.reader(0, 399).await, 1).await[0].2, record(399));
}

async fn a_slow_reader_gets_everything(rig: Rig) {
    let value = vec![b'x'; 10_000];
    let count = 400;
    let mut reader = rig.reader(0, 0).await;
    for _ in 0..count / 20 {
        rig.append(0, vec![Record::new("k", value.clone()); 20]).await;
    }
    let got = read(&mut *reader, count).await;
    assert_eq!(got.iter().map(|r| r.0).collect::<Vec<_>>(), (0..count as u64).collect::<Vec<_>>());
    assert!(got.iter().all(|r| r.2.value == value));
}

/// Each reader leaves early, with more fetched for it than it took, and the next one starts somewhere else.
async fn a_reader_starts_afresh_where_another_one_was(rig: Rig) {
    for n in 0..10 {
        rig.append(0, vec![Record::new("k", vec![n; 10_000]); 20]).await;
    }
    // It waits for what does not come, while the log fills the reader's buffer, and notices that it was left.
    let mut bystander = rig.reader(1, 0).await;
    let mut a_while = async || {
        assert!(bystander.next(Duration::from_millis(300)).await.unwrap().is_empty());
    };
    for from in [199, 0, 100, 0, 50] {
        let mut reader = rig.reader(0, from).await;
        assert_eq!(unpack(&next(&mut *reader).await)[0].0, from);
        a_while().await;
        drop(reader);
        a_while().await;
    }
    let got = read(&mut *rig.reader(0, 0).await, 200).await;
    assert_eq!(got.iter().map(|r| r.0).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
}

async fn a_partition_is_read_again_after_its_reader_left(rig: Rig) {
    rig.append(0, vec![Record::new("k", vec![b'x'; 10_000]); 50]).await;
    for _ in 0..2 {
        // One leaves while more waits for it than its buffer holds, one when it has read everything.
        for count in [1, 50] {
            let got = read(&mut *rig.reader(0, 0).await, count).await;
            assert!(got.iter().map(|r| r.0).eq(0..got.len() as u64), "{count} from the start");
            // Long enough for Kafka's consumer to let the partition go and be given it again.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn bounds_follow_appends(rig: Rig) {
    assert_eq!(rig.bounds(0).await, Bounds { start: 0, end: 0 });
    rig.append(0, records(0..3)).await;
    assert_eq!(rig.bounds(0).await, Bounds { start: 0, end: 3 });
    assert_eq!(rig.log.partitions(&rig.topic).await.unwrap(), PARTITIONS);
}

async fn offsets_are_found_by_time(rig: Rig) {
    for n in 0..30 {
        rig.append(0, vec![Record::new("k", vec![n as u8; 3000]); 3]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let got = read(&mut *rig.reader(0, 0).await, 90).await;
    let times: Vec<i64> = got.iter().map(|r| r.1).collect();
    assert!(times.is_sorted(), "append times never fall");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((now - times[0]).abs() < 3_600_000, "append times are of now");
    for time in [0, times[0] - 1, times[0], times[40], times[40] + 1, times[89], times[89] + 1, now + 60_000]
    {
        let wanted = times.partition_point(|t| *t < time) as Offset;
        let found = rig.log.offset_at_time(&rig.topic, 0, time).await.unwrap();
        assert_eq!(found, wanted, "at {time} of {times:?}");
    }
}

async fn a_position_that_is_not_there_is_refused(rig: Rig) {
    rig.append(0, records(0..5)).await;
    assert!(rig.reader(0, 5).await.next(Duration::from_millis(5)).await.unwrap().is_empty());
    let mut outcome = rig.log.reader(&rig.topic, 0, 6).await.map(|_| ());
    if outcome.is_ok() {
        outcome = rig.reader(0, 6).await.next(PATIENCE).await.map(|_| ());
    }
    assert!(
        matches!(&outcome, Err(Error::OutOfRange { offset: 6, start: 0, end: 5, .. })),
        "a reader beyond the end: {outcome:?}"
    );
}

async fn what_is_too_large_is_refused(rig: Rig) {
    let large = Record::new("k", vec![0; QUEUE_BYTES as usize / 2 + 1]);
    let outcome = rig.log.append(&rig.topic, 0, vec![record(0), large]).await;
    assert!(matches!(outcome, Err(Error::TooLarge { .. })), "{outcome:?}");
    assert_eq!(rig.bounds(0).await.end, 0, "its neighbours are not appended either");
    let nearly = Record::new("k", vec![7; QUEUE_BYTES as usize / 2 - 1000]);
    rig.append(0, vec![nearly.clone()]).await;
    assert_eq!(read(&mut *rig.reader(0, 0).await, 1).await[0].2, nearly);
}

/// The rig's appends are acknowledged after half a second.
async fn a_full_queue_refuses_and_recovers(rig: Rig) {
    rig.append(0, records(0..1)).await;
    let large = || vec![Record::new("k", vec![0; QUEUE_BYTES as usize / 2 - 1000])];
    let mut first = Box::pin(rig.log.append(&rig.topic, 0, large()));
    let mut second = Box::pin(rig.log.append(&rig.topic, 1, large()));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    let refused = rig.log.append(&rig.topic, 0, large()).await;
    assert!(matches!(refused, Err(Error::QueueFull { limit: QUEUE_BYTES })), "{refused:?}");
    assert!(refused.is_err_and(|e| e.is_retryable()), "a full queue may be tried again");
    assert_eq!(first.await.unwrap().first, 1);
    assert_eq!(second.await.unwrap().first, 0);
    assert_eq!(rig.append(0, records(1..2)).await.first, 2, "what was refused left nothing behind");
}

async fn unknown_topics_and_partitions_are_named(rig: Rig) {
    let unknown = rig.log.append("no-such-topic", 0, records(0..1)).await;
    assert!(matches!(&unknown, Err(Error::UnknownTopic(t)) if t == "no-such-topic"), "{unknown:?}");
    let unknown = rig.log.partitions("no-such-topic").await;
    assert!(matches!(unknown, Err(Error::UnknownTopic(_))), "{unknown:?}");
    let unknown = rig.log.join("no-such-topic", &rig.group).await.map(|_| ());
    assert!(matches!(unknown, Err(Error::UnknownTopic(_))), "{unknown:?}");
    for outcome in [
        rig.log.append(&rig.topic, PARTITIONS, records(0..1)).await.map(|_| ()),
        rig.log.bounds(&rig.topic, PARTITIONS).await.map(|_| ()),
        rig.log.reader(&rig.topic, PARTITIONS, 0).await.map(|_| ()),
    ] {
        assert!(matches!(outcome, Err(Error::UnknownPartition { partition: PARTITIONS, .. })), "{outcome:?}");
    }
}

async fn topics_that_differ_are_findings(rig: Rig) {
    let missing = TopicSpec { name: format!("{}-missing", rig.topic), ..rig.spec() };
    let differing = TopicSpec { partitions: PARTITIONS + 1, ..rig.spec() };
    let wanted = [missing.clone(), differing.clone()];
    let Err(Error::Topic { findings, .. }) = rig.log.ensure_topics(&wanted, TopicPolicy::Check).await else {
        panic!("a missing topic passes the check");
    };
    assert!(findings.contains(&format!("{}: does not exist", missing.name)), "{findings}");
    assert!(findings.contains(&format!("{}: has 3 partitions where 4 are wanted", rig.topic)), "{findings}");
    let unknown = rig.log.partitions(&missing.name).await;
    assert!(matches!(unknown, Err(Error::UnknownTopic(_))), "a check changes nothing: {unknown:?}");
    let refused = rig.log.ensure_topics(&[differing], TopicPolicy::Create).await;
    assert!(
        matches!(refused, Err(Error::Topic { .. })),
        "the number of partitions never changes: {refused:?}"
    );
    rig.log.ensure_topics(&[rig.spec()], TopicPolicy::Create).await.unwrap();
}

async fn a_group_shares_partitions_out(rig: Rig) {
    let (mut first, mut second) = (rig.join().await, None);
    let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
    settle(&mut *first, &mut ours, 3).await;

    // A newcomer gets a partition only after it was released.
    let newcomer = second.insert(rig.join().await);
    let Membership::Revoked(asked) = change(&mut *first).await else { panic!("a share is asked back") };
    assert_eq!(asked.len(), 1, "only the newcomer's share moves");
    let early = tokio::time::timeout(Duration::from_millis(300), newcomer.next()).await;
    assert!(early.is_err(), "a partition was given away before it was released: {early:?}");
    ours.retain(|p| !asked.contains(p));
    first.released();
    settle(&mut **newcomer, &mut theirs, 1).await;
    assert_eq!(theirs.iter().copied().collect::<Vec<_>>(), asked);

    // Who leaves leaves everything to the others.
    second.unwrap().leave().await.unwrap();
    settle(&mut *first, &mut ours, 3).await;
    first.leave().await.unwrap();
}

async fn a_dropped_member_leaves(rig: Rig) {
    let mut first = rig.join().await;
    settle(&mut *first, &mut BTreeSet::new(), 3).await;
    drop(first);
    settle(&mut *rig.join().await, &mut BTreeSet::new(), 3).await;
}

async fn commits_are_kept_with_their_metadata(rig: Rig) {
    assert_eq!(rig.committed(1).await, None);
    let mut member = rig.join().await;
    settle(&mut *member, &mut BTreeSet::new(), 3).await;
    let words = |n: u64| Committed { position: n, metadata: format!("hint={n} ü") };
    for n in 0..100 {
        member.commit(1, words(n));
    }
    member.commit(0, Committed { position: 7, metadata: String::new() });
    member.leave().await.unwrap();
    assert_eq!(rig.committed(1).await, Some(words(99)));
    let rig = rig.reopen().await;
    assert_eq!(rig.committed(1).await, Some(words(99)));
    assert_eq!(rig.committed(0).await, Some(Committed { position: 7, metadata: String::new() }));
    assert_eq!(rig.committed(2).await, None);
    let other = rig.log.committed(&rig.topic, "another-group", 1).await.unwrap();
    assert_eq!(other, None, "groups are apart");
}

async fn commits_become_known_without_leaving(rig: Rig) {
    let mut member = rig.join().await;
    settle(&mut *member, &mut BTreeSet::new(), 3).await;
    let wanted = Committed { position: 5, metadata: "m".to_owned() };
    member.commit(2, wanted.clone());
    let known = async {
        while rig.committed(2).await.as_ref() != Some(&wanted) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("a commit arrives by itself");
}

async fn a_closed_log_completes_and_then_refuses(rig: Rig) {
    let mut reader = rig.reader(0, 0).await;
    let mut member = rig.join().await;
    settle(&mut *member, &mut BTreeSet::new(), 3).await;
    // From the second append on, an append is under way after its first poll.
    rig.append(1, records(0..1)).await;
    {
        let mut append = Box::pin(rig.log.append(&rig.topic, 0, records(0..100)));
        let under_way = poll!(&mut append);
        rig.log.close().await.unwrap();
        if under_way.is_pending() {
            append.await.expect("what was under way is completed");
        }
    }
    let refused = rig.log.append(&rig.topic, 0, records(0..1)).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    assert!(matches!(rig.log.bounds(&rig.topic, 0).await, Err(Error::Closed)));
    assert!(matches!(rig.log.ping().await, Err(Error::Closed)));
    let ended = async { while reader.next(PATIENCE).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("a reader of a closed log ends");
    let ended = async { while member.next().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("a member of a closed log ends");
    rig.log.close().await.expect("closing twice is no error");
    let rig = rig.reopen().await;
    assert_eq!(rig.bounds(0).await.end, 100);
}

/// A test of each behaviour for each implementation.
macro_rules! conformance {
    ($rig:ident: $($behaviour:ident),+ $(,)?) => {
        mod $rig {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    super::super::$behaviour(super::super::Rig::$rig().await).await;
                }
            )+
        }
    };
    ($($behaviour:ident),+ $(,)?) => {
        mod on {
            conformance!(embedded: $($behaviour),+);
            conformance!(kafka: $($behaviour),+);
        }
    };
}

conformance![
    records_come_back_in_order,
    acknowledged_records_survive_a_reopen,
    its_identity_is_kept,
    concurrent_appends_are_where_their_answers_say,
    a_waiting_reader_is_woken,
    readers_do_not_disturb_each_other,
    a_slow_reader_gets_everything,
    a_partition_is_read_again_after_its_reader_left,
    a_reader_starts_afresh_where_another_one_was,
    bounds_follow_appends,
    offsets_are_found_by_time,
    a_position_that_is_not_there_is_refused,
    what_is_too_large_is_refused,
    unknown_topics_and_partitions_are_named,
    topics_that_differ_are_findings,
    a_group_shares_partitions_out,
    a_dropped_member_leaves,
    commits_are_kept_with_their_metadata,
    commits_become_known_without_leaving,
    a_closed_log_completes_and_then_refuses,
];
