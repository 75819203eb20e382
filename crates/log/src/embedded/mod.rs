//! The embedded log: Kafka's idea on one machine's disk, in one process.
//!
//! A partition is a row of segment files. One writer thread a partition collects appends, writes them at once, syncs
//! once and then acknowledges all of them; readers read what is durable through the page cache and are woken by the
//! writer. Recovery cuts off the torn end of a write that was never acknowledged, says so, and refuses to open over damage
//! to anything that was.
//!
//! Deliberate absences: no replication, no compaction, no transactions, no access from another process.
//!
//! Map: `frame`, `index` and `group` are pure (bytes, sparse index, who owns what); `segment` reads files; `writer` owns
//! them; `partition` is what writer, readers and callers share; `reader`, `membership`, `positions` and `directory` are
//! what their names say. What changes files goes through `weir_disk::Disk`, where tests plant faults and cut the power.

mod clock;
mod config;
mod directory;
mod frame;
mod group;
mod index;
mod membership;
mod partition;
mod positions;
mod reader;
mod segment;
mod writer;

pub use clock::Clock;
pub use config::EmbeddedConfig;

use std::{
    collections::HashMap,
    fmt::Write as _,
    mem,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use async_trait::async_trait;
use tokio::task;
use uuid::Uuid;

use self::{membership::Groups, partition::Partition, positions::Positions, reader::Reader, writer::Writer};
use crate::{
    Appended, Bounds, Committed, Error, EventLog, GroupMember, Offset, PartitionReader, Record, Result,
    TopicPolicy, TopicSpec,
    sync::{Bound, locked},
};

/// The log on this machine's disk.
#[derive(Debug)]
pub struct EmbeddedLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: EmbeddedConfig,
    topics: RwLock<HashMap<String, Topic>>,
    /// One topic is made at a time.
    making: Mutex<()>,
    bound: Arc<Bound>,
    groups: Arc<Groups>,
    positions: Arc<Positions>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    taken: Mutex<Option<directory::Taken>>,
    identity: Uuid,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Topic {
    spec: TopicSpec,
    partitions: Vec<Arc<Partition>>,
}

impl EmbeddedLog {
    /// Opens the log, recovering what a crash left. Blocks while it does: at most one segment of each partition is read.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::NewerVersion`], [`Error::Corrupt`] when acknowledged
    /// records are damaged, [`Error::Config`], [`Error::Io`].
    pub fn open(config: EmbeddedConfig) -> Result<Arc<Self>> {
        config.check()?;
        let taken = directory::take(&config.disk, &config.dir)?;
        let identity = directory::identity(&config.disk, &config.dir)?;
        let (positions, flusher) = Positions::open(&config.disk, &config.dir)?;
        let log = Self {
            inner: Arc::new(Inner {
                bound: Bound::new(config.max_pending_bytes),
                topics: RwLock::default(),
                making: Mutex::default(),
                groups: Groups::new(Arc::clone(&positions)),
                positions,
                threads: Mutex::new(vec![flusher]),
                taken: Mutex::new(Some(taken)),
                identity,
                closed: AtomicBool::new(false),
                config,
            }),
        };
        for spec in directory::read_topics(&log.inner.config.dir)? {
            log.inner.start(spec)?;
        }
        Ok(Arc::new(log))
    }
}

impl Inner {
    /// Opens a topic's partitions and starts their writers.
    fn start(&self, spec: TopicSpec) -> Result<()> {
        let mut partitions = Vec::with_capacity(spec.partitions as usize);
        directory::create_topic(&*self.config.disk, &self.config.dir, &spec)?;
        for number in 0..spec.partitions {
            let dir = directory::partition(&self.config.dir, &spec.name, number);
            let (view, file) = writer::recover(&dir, &format!("{}/{number}", spec.name), &self.config)?;
            let partition = Arc::new(Partition::new(spec.name.clone(), number, dir, spec.retention, view));
            let writer = Writer::new(Arc::clone(&partition), self.config.clone(), file);
            let thread = thread::Builder::new()
                .name(format!("log {}", partition.name()))
                .spawn(move || writer.run())
                .map_err(|e| Error::io("starting a thread".to_owned(), e))?;
            locked(&self.threads).push(thread);
            partitions.push(partition);
        }
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.insert(spec.name.clone(), Topic { spec, partitions });
        Ok(())
    }

    fn ensure(&self, wanted: &[TopicSpec], policy: TopicPolicy) -> Result<()> {
        let _making = locked(&self.making);
        self.check_open()?;
        let mut findings = String::new();
        for spec in wanted {
            check_name("topic", &spec.name)?;
            let existing = self.with_topics(|topics| topics.get(&spec.name).map(|t| t.spec.clone()));
            match (existing, policy) {
                (Some(found), _) if found.partitions != spec.partitions => {
                    let _ = writeln!(
                        findings,
                        "{}: has {} partitions where {} are wanted; set the number it has, or use another topic name",
                        spec.name, found.partitions, spec.partitions
                    );
                }
                (Some(found), TopicPolicy::Create) if found.retention != spec.retention => {
                    directory::write_topic(&self.config.disk, &self.config.dir, spec)?;
                    let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
                    if let Some(topic) = topics.get_mut(&spec.name) {
                        topic.spec.retention = spec.retention;
                        topic.partitions.iter().for_each(|p| p.retain(spec.retention));
                    }
                }
                (Some(_), TopicPolicy::Create | TopicPolicy::Check) => {}
                (None, TopicPolicy::Create) if spec.partitions == 0 => {
                    let _ = writeln!(findings, "{}: a topic has at least one partition", spec.name);
                }
                (None, TopicPolicy::Create) => {
                    self.start(spec.clone())?;
                    directory::write_topic(&self.config.disk, &self.config.dir, spec)?;
                }
                (None, TopicPolicy::Check) => {
                    let _ = writeln!(findings, "{}: does not exist; set log.create_topics = true", spec.name);
                }
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(Error::Topic { wanted: wanted.to_vec(), findings }) }
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    fn with_topics<T>(&self, look: impl FnOnce(&HashMap<String, Topic>) -> T) -> T {
        look(&self.topics.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn partition(&self, topic: &str, partition: u32) -> Result<Arc<Partition>> {
        self.check_open()?;
        self.with_topics(|topics| {
            let found = topics.get(topic).ok_or_else(|| Error::UnknownTopic(topic.to_owned()))?;
            let partitions = found.partitions.get(partition as usize);
            partitions.cloned().ok_or_else(|| Error::UnknownPartition { topic: topic.to_owned(), partition })
        })
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        self.check_open()?;
        let spec = |topics: &HashMap<String, Topic>| topics.get(topic).map(|t| t.spec.partitions);
        self.with_topics(spec).ok_or_else(|| Error::UnknownTopic(topic.to_owned()))
    }

    /// Completes what waits and gives the directory back. Blocks; doing it twice does nothing.
    fn close(&self) -> Result<()> {
        let _making = locked(&self.making);
        self.closed.store(true, Ordering::Release);
        self.with_topics(|topics| topics.values().flat_map(|t| &t.partitions).for_each(|p| p.stop()));
        self.groups.close();
        self.positions.stop();
        for thread in mem::take(&mut *locked(&self.threads)) {
            // A panic was reported by the thread's own message; the others are still to be waited for.
            let _ = thread.join();
        }
        self.with_topics(|topics| {
            topics.values().flat_map(|t| &t.partitions).for_each(|p| p.publish_closed())
        });
        let flushed = self.positions.flush();
        drop(locked(&self.taken).take());
        flushed
    }

    /// Runs something that blocks where it may.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(self);
        task::spawn_blocking(move || work(&inner)).await.map_err(|_| Error::Closed)?
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        if let Err(e) = self.inner.close() {
            tracing::warn!(error = %e, "closing the log failed");
        }
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    async fn identity(&self) -> Result<String> {
        Ok(self.inner.identity.to_string())
    }

    async fn ensure_topics(&self, topics: &[TopicSpec], policy: TopicPolicy) -> Result<()> {
        let wanted = topics.to_vec();
        self.inner.blocking(move |log| log.ensure(&wanted, policy)).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32> {
        self.inner.partitions(topic)
    }

    async fn append(&self, topic: &str, partition: u32, records: Vec<Record>) -> Result<Appended> {
        assert!(!records.is_empty(), "an append carries at least one record");
        let partition = self.inner.partition(topic, partition)?;
        let limit = self.inner.config.max_record_bytes;
        let mut bytes = 0;
        for record in &records {
            let len = frame::record_len(record);
            if len > limit {
                return Err(Error::TooLarge { bytes: len, limit });
            }
            bytes += len;
        }
        let room = self.inner.bound.take(bytes)?;
        match partition.enqueue(records, room)?.await {
            Ok(answer) => answer,
            Err(_) => Err(partition.gone_after_all().await),
        }
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds> {
        Ok(self.inner.partition(topic, partition)?.bounds())
    }

    async fn offset_at_time(&self, topic: &str, partition: u32, time_ms: i64) -> Result<Offset> {
        let partition = self.inner.partition(topic, partition)?;
        let search = move |_: &Inner| reader::offset_at_time(&partition, time_ms);
        self.inner.blocking(search).await
    }

    async fn reader(&self, topic: &str, partition: u32, from: Offset) -> Result<Box<dyn PartitionReader>> {
        let partition = self.inner.partition(topic, partition)?;
        let open = move |_: &Inner| Reader::open(partition, from);
        Ok(Box::new(self.inner.blocking(open).await?))
    }

    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn GroupMember>> {
        check_name("group", group)?;
        let partitions = self.inner.partitions(topic)?;
        Ok(Box::new(self.inner.groups.join(group, topic, partitions)?))
    }

    async fn committed(&self, topic: &str, group: &str, partition: u32) -> Result<Option<Committed>> {
        self.inner.partition(topic, partition)?;
        Ok(self.inner.positions.get(group, topic, partition))
    }

    async fn ping(&self) -> Result<()> {
        self.inner.check_open()?;
        let failed = self.inner.with_topics(|topics| {
            topics.values().flat_map(|t| &t.partitions).find_map(|p| p.view().failed.clone())
        });
        failed.map_or(Ok(()), |why| Err(Error::Unavailable(why)))
    }

    async fn close(&self) -> Result<()> {
        self.inner.blocking(Inner::close).await
    }
}

/// Names become paths, and have to be good on Kafka too.
fn check_name(kind: &str, name: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=249).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".." {
        return Ok(());
    }
    Err(Error::Config(format!("{kind} name {name:?}: use 1 to 249 of the characters a-z A-Z 0-9 . _ -")))
}
