//! Apache Kafka through librdkafka.
//!
//! Every client is used in the cheapest way it has: a producer whose deliveries are counted per batch, a consumer that is
//! assigned partitions and polled by one thread, and for groups a consumer that never reads. librdkafka's calls that
//! wait for the network run on tokio's blocking threads.
//!
//! Deliberate absences: no transactions (exactly-once is the claim protocol of `weir-rollup`), no topic is created or
//! changed but by [`KafkaLog::ensure_topics`](crate::EventLog::ensure_topics), no retry beyond librdkafka's own.
//!
//! Map: `config` settings, `cause` why Kafka is out of reach, `producer` appends, `reader` reads, `member` groups, `topics`
//! creates and checks.

mod cause;
mod config;
mod member;
mod messages;
mod producer;
mod reader;
mod topics;

pub use config::{KafkaConfig, Sasl, Tls};

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use tokio::task;

use self::{
    cause::{Causes, Plain},
    member::{Ender, Member},
    producer::Producer,
    reader::{Fetcher, Reader},
};
use crate::{
    Appended, Bounds, Committed, Error, EventLog, GroupMember, Offset, PartitionReader, Record, Result,
    TopicPolicy, TopicSpec,
    sync::{Bound, locked},
};

/// The log on Apache Kafka.
#[derive(Debug)]
pub struct KafkaLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: KafkaConfig,
    causes: Arc<Causes>,
    producer: Producer,
    bound: Arc<Bound>,
    /// Numbers of partitions: they never change, so they are asked for once.
    partitions: RwLock<HashMap<String, u32>>,
    fetchers: Mutex<Vec<Arc<Fetcher>>>,
    members: Mutex<Vec<Ender>>,
    closed: AtomicBool,
}

impl KafkaLog {
    /// Connects. A broker that is away is no error here: calls answer [`Error::Unavailable`] with the cause until it
    /// comes.
    ///
    /// # Errors
    /// [`Error::Config`] when librdkafka refuses a setting.
    pub fn connect(config: KafkaConfig) -> Result<Arc<Self>> {
        if config.brokers.is_empty() {
            return Err(Error::Config(
                "no broker is named; set log.kafka.brokers = [\"host:9092\"]".to_owned(),
            ));
        }
        let causes = Arc::new(Causes::default());
        let producer = Producer::new(config.producer(), Arc::clone(&causes))?;
        let inner = Inner {
            causes,
            producer,
            bound: Bound::new(config.queue_bytes),
            partitions: RwLock::default(),
            fetchers: Mutex::default(),
            members: Mutex::default(),
            closed: AtomicBool::new(false),
            config,
        };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }
}

/// A setting that librdkafka does not take.
fn refused(error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, why, key, value) => {
            let value = if key.contains("password") { "…".to_owned() } else { value };
            Error::Config(format!("librdkafka refuses {key} = {value}: {why}"))
        }
        other => Error::Config(other.to_string()),
    }
}

fn out_of_range(topic: &str, partition: u32, offset: Offset, Bounds { start, end }: Bounds) -> Error {
    Error::OutOfRange { topic: topic.to_owned(), partition, offset, start, end }
}

impl Inner {
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Runs something that waits for the network where it may.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open()?;
        let inner = Arc::clone(self);
        task::spawn_blocking(move || work(&inner)).await.map_err(|_| Error::Closed)?
    }

    /// Partitions of a topic and replicas of its least replicated one; `None` when the topic does not exist or has no
    /// leaders yet.
    fn metadata_now(&self, topic: &str) -> Result<Option<(u32, usize)>> {
        let timeout = self.config.request_timeout;
        let metadata = self
            .producer
            .ask(|client| client.fetch_metadata(Some(topic), timeout))
            .map_err(|e| self.causes.explain(topic, None, &e))?;
        let Some(found) = metadata.topics().first() else { return Ok(None) };
        match found.error() {
            None => {}
            Some(
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            ) => return Ok(None),
            Some(other) => {
                let error = KafkaError::MetadataFetch(RDKafkaErrorCode::from(other));
                return Err(self.causes.explain(topic, None, &error));
            }
        }
        let partitions = found.partitions();
        if partitions.is_empty() || partitions.iter().any(|p| p.leader() < 0) {
            return Ok(None);
        }
        let replicas = partitions.iter().map(|p| p.replicas().len()).min().unwrap_or(0);
        Ok(Some((partitions.len() as u32, replicas)))
    }

    async fn metadata(self: &Arc<Self>, topic: &str) -> Result<Option<(u32, usize)>> {
        let topic = topic.to_owned();
        self.blocking(move |log| log.metadata_now(&topic)).await
    }

    async fn partitions(self: &Arc<Self>, topic: &str) -> Result<u32> {
        self.check_open()?;
        let known = self.partitions.read().unwrap_or_else(PoisonError::into_inner).get(topic).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let (partitions, _) =
            self.metadata(topic).await?.ok_or_else(|| Error::UnknownTopic(topic.to_owned()))?;
        self.partitions.write().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), partitions);
        Ok(partitions)
    }

    async fn check_partition(self: &Arc<Self>, topic: &str, partition: u32) -> Result<()> {
        if partition < self.partitions(topic).await? {
            return Ok(());
        }
        Err(Error::UnknownPartition { topic: topic.to_owned(), partition })
    }

    async fn bounds(self: &Arc<Self>, topic: &str, partition: u32) -> Result<Bounds> {
        self.check_partition(topic, partition).await?;
        let topic = topic.to_owned();
        self.blocking(move |log| log.bounds_now(&topic, partition)).await
    }

    fn bounds_now(&self, topic: &str, partition: u32) -> Result<Bounds> {
        let timeout = self.config.request_timeout;
        let (start, end) = self
            .producer
            .ask(|client| client.fetch_watermarks(topic, partition as i32, timeout))
            .map_err(|e| self.causes.explain(topic, Some(partition), &e))?;
        Ok(Bounds { start: start.max(0) as Offset, end: end.max(0) as Offset })
    }

    /// A consumer for one question. Those that last would have to be polled.
    fn consumer(&self, group: &str) -> Result<BaseConsumer<Plain>> {
        let context = Plain(Arc::clone(&self.causes));
        BaseConsumer::from_config_and_context(&self.config.member(group), context).map_err(refused)
    }

    fn offset_at_time_now(&self, topic: &str, partition: u32, time_ms: i64) -> Result<Offset> {
        let failed = |e| self.causes.explain(topic, Some(partition), &e);
        let mut question = TopicPartitionList::with_capacity(1);
        // Negative times are Kafka's words for "earliest" and "latest".
        let time = KafkaOffset::Offset(time_ms.max(0));
        question.add_partition_offset(topic, partition as i32, time).map_err(failed)?;
        let consumer = self.consumer(&format!("{}-times", self.config.client_id))?;
        let answer = consumer.offsets_for_times(question, self.config.request_timeout).map_err(failed)?;
        let found = answer.elements().first().map(|element| element.error().map(|()| element.offset()));
        match found {
            Some(Ok(KafkaOffset::Offset(offset))) => Ok(offset as Offset),
            Some(Ok(_)) | None => Ok(self.bounds_now(topic, partition)?.end),
            Some(Err(e)) => Err(failed(e)),
        }
    }

    fn committed_now(&self, topic: &str, group: &str, partition: u32) -> Result<Option<Committed>> {
        let failed = |e| self.causes.explain(topic, Some(partition), &e);
        let mut question = TopicPartitionList::with_capacity(1);
        question.add_partition(topic, partition as i32);
        let consumer = self.consumer(group)?;
        let answer = consumer.committed_offsets(question, self.config.request_timeout).map_err(failed)?;
        let elements = answer.elements();
        let Some(element) = elements.first() else { return Ok(None) };
        element.error().map_err(failed)?;
        let KafkaOffset::Offset(position) = element.offset() else { return Ok(None) };
        Ok(Some(Committed { position: position as Offset, metadata: element.metadata().to_owned() }))
    }

    /// Stops everything that runs by itself.
    fn stop(&self) {
        self.closed.store(true, Ordering::Release);
        locked(&self.fetchers).drain(..).for_each(|fetcher| fetcher.stop());
        locked(&self.members).drain(..).for_each(|member| member.end());
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn identity(&self) -> Result<String> {
        let ask = |log: &Arc<Inner>| {
            let timeout = log.config.request_timeout;
            // The id comes with any metadata, whose failure, unlike the id's, has a reason.
            let id = log
                .producer
                .ask(|client| client.fetch_metadata(None, timeout).map(|_| client.fetch_cluster_id(timeout)));
            id.map_err(|e| log.causes.explain("", None, &e))?
                .ok_or_else(|| Error::Unavailable("the cluster does not tell its id".to_owned()))
        };
        self.inner.blocking(ask).await
    }

    async fn ensure_topics(&self, topics: &[TopicSpec], policy: TopicPolicy) -> Result<()> {
        self.inner.check_open()?;
        topics::ensure(&self.inner, topics, policy).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32> {
        self.inner.partitions(topic).await
    }

    async fn append(&self, topic: &str, partition: u32, records: Vec<Record>) -> Result<Appended> {
        assert!(!records.is_empty(), "an append carries at least one record");
        self.inner.check_partition(topic, partition).await?;
        let limit = self.inner.config.max_record_bytes;
        let mut bytes = 0;
        for record in &records {
            let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            let len = (record.key.len() + record.value.len() + headers) as u64;
            if len > limit {
                return Err(Error::TooLarge { bytes: len, limit });
            }
            bytes += len;
        }
        let room = self.inner.bound.take(bytes)?;
        self.inner.producer.append(topic, partition, &records, room).await
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds> {
        self.inner.bounds(topic, partition).await
    }

    async fn offset_at_time(&self, topic: &str, partition: u32, time_ms: i64) -> Result<Offset> {
        self.inner.check_partition(topic, partition).await?;
        let topic = topic.to_owned();
        self.inner.blocking(move |log| log.offset_at_time_now(&topic, partition, time_ms)).await
    }

    async fn reader(&self, topic: &str, partition: u32, from: Offset) -> Result<Box<dyn PartitionReader>> {
        let bounds = self.inner.bounds(topic, partition).await?;
        if from < bounds.start || from > bounds.end {
            return Err(out_of_range(topic, partition, from, bounds));
        }
        let topic = topic.to_owned();
        let open = move |log: &Arc<Inner>| Reader::open(log, &topic, partition, from);
        Ok(Box::new(self.inner.blocking(open).await?))
    }

    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn GroupMember>> {
        self.inner.partitions(topic).await?;
        let (topic, group) = (topic.to_owned(), group.to_owned());
        let join = move |log: &Arc<Inner>| {
            let member = Member::join(&log.config.member(&group), &topic, Arc::clone(&log.causes))?;
            let mut members = locked(&log.members);
            members.retain(|ender| !ender.is_over());
            members.push(member.ender());
            Ok(member)
        };
        Ok(Box::new(self.inner.blocking(join).await?))
    }

    async fn committed(&self, topic: &str, group: &str, partition: u32) -> Result<Option<Committed>> {
        self.inner.check_partition(topic, partition).await?;
        let (topic, group) = (topic.to_owned(), group.to_owned());
        self.inner.blocking(move |log| log.committed_now(&topic, &group, partition)).await
    }

    async fn ping(&self) -> Result<()> {
        let ask = |log: &Arc<Inner>| {
            // One topic is a small question; before any is known the whole cluster is asked.
            let known = log.partitions.read().unwrap_or_else(PoisonError::into_inner).keys().next().cloned();
            let timeout = log.config.request_timeout;
            let answer = log.producer.ask(|client| client.fetch_metadata(known.as_deref(), timeout));
            answer.map(|_| ()).map_err(|e| log.causes.explain("", None, &e))
        };
        self.inner.blocking(ask).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.stop();
        let inner = Arc::clone(&self.inner);
        let flush = move || inner.producer.flush(inner.config.request_timeout);
        let flushed = task::spawn_blocking(flush).await.map_err(|_| Error::Closed)?;
        flushed.map_err(|e| self.inner.causes.explain("", None, &e))
    }
}
