//! Membership in a consumer group, without reading: a consumer that subscribes and keeps its partitions paused.
//!
//! Its thread owns it. When the group asks for partitions back the rebalance callback waits (heartbeats go on) until the
//! member has released them, so their next owner starts only then. Positions are committed by the same thread, the last
//! one of each partition, at most once a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig, ClientContext, Offset as KafkaOffset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use tokio::{sync::mpsc, task};
use tracing::{debug, info, warn};

use super::{
    cause::{self, Causes},
    refused,
};
use crate::{Committed, Error, GroupMember, Membership, Result, sync::locked};

/// How often the thread looks after commits and its own end.
const TURN: Duration = Duration::from_millis(100);
/// How long a committed position may be known to this process only.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long the group waits for partitions to be released. Then they go on to the next owner, and what this member still
/// does is void by the claim protocol.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);

/// What the member's handle and its thread share.
#[derive(Debug)]
struct Shared {
    topic: String,
    /// Partitions asked back and not released yet.
    releasing: Mutex<bool>,
    released: Condvar,
    commits: Mutex<BTreeMap<u32, Committed>>,
    stop: AtomicBool,
}

/// A member of a group.
#[derive(Debug)]
pub(super) struct Member {
    shared: Arc<Shared>,
    changes: mpsc::UnboundedReceiver<Result<Membership>>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    /// Joins.
    pub(super) fn join(config: &ClientConfig, topic: &str, causes: Arc<Causes>) -> Result<Self> {
        let (sender, changes) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            topic: topic.to_owned(),
            releasing: Mutex::new(false),
            released: Condvar::new(),
            commits: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let context = Rebalances {
            shared: Arc::clone(&shared),
            changes: sender,
            causes,
            owned: Mutex::default(),
            complaint: Mutex::default(),
        };
        let consumer = BaseConsumer::from_config_and_context(config, context).map_err(refused)?;
        consumer.subscribe(&[topic]).map_err(refused)?;
        let thread = thread::Builder::new()
            .name("kafka group".to_owned())
            .spawn(move || run(&consumer))
            .map_err(|e| Error::io("starting a thread".to_owned(), e))?;
        Ok(Self { shared, changes, thread: Some(thread) })
    }

    /// A handle that ends the membership when the log is closed.
    pub(super) fn ender(&self) -> Ender {
        Ender(Arc::downgrade(&self.shared))
    }
}

/// Ends a membership that may have ended already.
#[derive(Debug)]
pub(super) struct Ender(std::sync::Weak<Shared>);

impl Ender {
    pub(super) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }

    pub(super) fn end(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.end();
        }
    }
}

impl Shared {
    fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.release();
    }

    fn release(&self) {
        *locked(&self.releasing) = false;
        self.released.notify_all();
    }
}

#[async_trait]
impl GroupMember for Member {
    async fn next(&mut self) -> Result<Membership> {
        let ended = || self.shared.stop.load(Ordering::Acquire);
        match self.changes.recv().await {
            Some(change) => change,
            None if ended() => Err(Error::Closed),
            None => Err(Error::Unavailable("the group's thread ended".to_owned())),
        }
    }

    fn released(&self) {
        self.shared.release();
    }

    fn commit(&self, partition: u32, committed: Committed) {
        locked(&self.shared.commits).insert(partition, committed);
    }

    async fn leave(mut self: Box<Self>) -> Result<()> {
        self.shared.end();
        let thread = self.thread.take();
        let wait = move || thread.map_or(Ok(()), JoinHandle::join);
        task::spawn_blocking(wait).await.map_err(|_| Error::Closed)?.map_err(|_| Error::Closed)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// The thread: polls, commits, and closes the consumer at the end, which leaves the group.
fn run(consumer: &BaseConsumer<Rebalances>) {
    let shared = &consumer.context().shared;
    let mut next_commit = Instant::now() + COMMIT_EVERY;
    while !shared.stop.load(Ordering::Acquire) {
        // Messages that came before the pause are nobody's business.
        if let Some(Err(e)) = consumer.poll(TURN) {
            match e {
                KafkaError::MessageConsumptionFatal(code) => {
                    let context = consumer.context();
                    let owned: Vec<u32> = std::mem::take(&mut *locked(&context.owned)).into_iter().collect();
                    context.tell(Ok(Membership::Lost(owned)));
                    let why = format!("the group has shut this member out: {code}; join again");
                    context.tell(Err(Error::Unavailable(why)));
                    break;
                }
                other => consumer.context().complain(&other),
            }
        }
        if Instant::now() >= next_commit {
            consumer.context().commit(consumer, CommitMode::Async);
            next_commit = Instant::now() + COMMIT_EVERY;
        }
    }
    consumer.context().commit(consumer, CommitMode::Sync);
}

#[derive(Debug)]
struct Rebalances {
    shared: Arc<Shared>,
    /// Ends with the thread, which is how the member learns of that.
    changes: mpsc::UnboundedSender<Result<Membership>>,
    causes: Arc<Causes>,
    owned: Mutex<BTreeSet<u32>>,
    /// What was last complained of since the last assignment.
    complaint: Mutex<Option<Complaint>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Complaint {
    code: Option<RDKafkaErrorCode>,
    /// The member was told, for it has no partitions.
    told: bool,
}

impl Rebalances {
    fn tell(&self, change: Result<Membership>) {
        // A member that was dropped is about to leave.
        let _ = self.changes.send(change);
    }

    /// Says what the group holds against this member, each cause once: librdkafka goes on trying and repeats itself.
    fn complain(&self, error: &KafkaError) {
        let told = locked(&self.owned).is_empty();
        let complaint = Complaint { code: error.rdkafka_error_code(), told };
        if locked(&self.complaint).replace(complaint) == Some(complaint) {
            debug!(%error, "group");
            return;
        }
        let why = self.causes.explain(&self.shared.topic, None, error).to_string();
        warn!(topic = self.shared.topic, %error, "the consumer group: {why}");
        if told {
            self.tell(Ok(Membership::Refused(why)));
        }
    }

    fn commit(&self, consumer: &BaseConsumer<Self>, mode: CommitMode) {
        let commits = std::mem::take(&mut *locked(&self.shared.commits));
        let owned = locked(&self.owned).clone();
        let mut list = TopicPartitionList::new();
        for (partition, committed) in commits.into_iter().filter(|(p, _)| owned.contains(p)) {
            let mut element = list.add_partition(&self.shared.topic, partition as i32);
            if let Err(e) = element.set_offset(KafkaOffset::Offset(committed.position as i64)) {
                warn!(partition, error = %e, "a position can't be committed");
            }
            element.set_metadata(committed.metadata);
        }
        if list.count() > 0
            && let Err(e) = consumer.commit(&list, mode)
        {
            warn!(topic = self.shared.topic, error = %e, "positions were not committed; the next commit makes up for it");
        }
    }

    /// Waits until the member has released what it was asked for.
    fn wait_for_release(&self, consumer: &BaseConsumer<Self>) -> Waited {
        let deadline = Instant::now() + RELEASE_PATIENCE;
        let mut releasing = locked(&self.shared.releasing);
        while *releasing {
            if consumer.assignment_lost() {
                return Waited::Lost;
            }
            if Instant::now() >= deadline {
                warn!(
                    topic = self.shared.topic,
                    "partitions were not released in {RELEASE_PATIENCE:?}; taken away"
                );
                return Waited::Lost;
            }
            let waited = self.shared.released.wait_timeout(releasing, TURN);
            releasing = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Waited::Released
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> KafkaResult<Vec<u32>> {
        let partitions = partitions(list);
        // A definite offset keeps librdkafka from looking for one; nothing is read from it.
        list.set_all_offsets(KafkaOffset::Offset(0))?;
        consumer.incremental_assign(list)?;
        consumer.pause(list)?;
        Ok(partitions)
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let partitions = partitions(list);
        let stopping = self.shared.stop.load(Ordering::Acquire);
        let lost = consumer.assignment_lost();
        let waited = match (stopping, lost) {
            (true, _) => Waited::Released,
            (false, true) => Waited::Lost,
            (false, false) => {
                *locked(&self.shared.releasing) = true;
                self.tell(Ok(Membership::Revoked(partitions.clone())));
                self.wait_for_release(consumer)
            }
        };
        match waited {
            Waited::Released => self.commit(consumer, CommitMode::Sync),
            Waited::Lost => self.tell(Ok(Membership::Lost(partitions.clone()))),
        }
        locked(&self.owned).retain(|p| !partitions.contains(p));
        consumer.incremental_unassign(list)
    }
}

enum Waited {
    Released,
    Lost,
}

fn partitions(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().map(|element| element.partition() as u32).collect()
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        cause::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.causes.note(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let outcome = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assign(consumer, list).map(|partitions| {
                    info!(topic = self.shared.topic, ?partitions, "the group assigns");
                    locked(&self.owned).extend(&partitions);
                    let was_refused = locked(&self.complaint).take().is_some_and(|complaint| complaint.told);
                    if was_refused || !partitions.is_empty() {
                        self.tell(Ok(Membership::Assigned(partitions)));
                    }
                })
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                info!(topic = self.shared.topic, partitions = ?partitions(list), "the group asks back");
                self.revoke(consumer, list)
            }
            other => Err(KafkaError::Rebalance(RDKafkaErrorCode::from(other))),
        };
        if let Err(e) = outcome {
            warn!(topic = self.shared.topic, error = %e, "rebalancing");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(e) = result {
            warn!(topic = self.shared.topic, error = %e, "positions were not committed; the next commit makes up for it");
        }
    }
}
