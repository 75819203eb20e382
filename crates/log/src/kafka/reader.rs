//! Reading: one consumer and one thread serve all readers, each with a bounded queue.
//!
//! The thread packs what librdkafka hands out straight into batches and gives a batch to its reader as soon as nothing
//! more is at hand. A reader that does not take its batches has its partition paused, so memory stays bounded and the
//! others go on. Partitions are taken off the consumer by the thread itself, between two messages: so nothing of an
//! earlier assignment can reach a later reader. A partition that is being read already is read by another consumer.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tracing::{debug, warn};

use super::{
    Inner,
    cause::Plain,
    messages::{Message, Messages},
    refused,
};
use crate::{Error, Offset, PartitionReader, RecordBatch, RecordBatchBuilder, Result, sync::locked};

/// A batch is handed over at this size even when more is at hand.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_RECORDS: usize = 65_536;

/// How long the thread sleeps in librdkafka when nothing comes: it looks after closed readers in between.
const IDLE: Duration = Duration::from_millis(100);

type Place = (String, u32);

/// One consumer with its thread.
pub(super) struct Fetcher {
    consumer: BaseConsumer<Plain>,
    feeds: Mutex<HashMap<Place, Arc<Feed>>>,
    /// Some feed was closed.
    closing: AtomicBool,
    stop: AtomicBool,
    buffer_bytes: usize,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("feeds", &self.feeds).finish_non_exhaustive()
    }
}

/// What is fetched for one reader.
#[derive(Debug)]
struct Feed {
    place: Place,
    /// What lies below was handed over already: a paused partition is fetched again from about where it was.
    next: AtomicU64,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<RecordBatch>,
    bytes: usize,
    paused: bool,
    /// librdkafka has stopped fetching: the reader must find out why.
    doubtful: bool,
    closed: bool,
}

impl Fetcher {
    fn start(inner: &Inner) -> Result<Arc<Self>> {
        let context = Plain(Arc::clone(&inner.causes));
        let consumer =
            BaseConsumer::from_config_and_context(&inner.config.reader(), context).map_err(refused)?;
        let fetcher = Arc::new(Self {
            consumer,
            feeds: Mutex::default(),
            closing: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            buffer_bytes: usize::try_from(inner.config.reader_buffer_bytes).unwrap_or(usize::MAX),
        });
        let fetching = Arc::clone(&fetcher);
        thread::Builder::new()
            .name("kafka fetcher".to_owned())
            .spawn(move || fetching.run())
            .map_err(|e| Error::io("starting a thread".to_owned(), e))?;
        Ok(fetcher)
    }

    /// Ends the thread; readers get [`Error::Closed`].
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    fn is_idle(&self) -> bool {
        locked(&self.feeds).is_empty()
    }

    /// Starts a feed, unless the partition is being read here already.
    fn feed(&self, place: &Place, from: Offset) -> Result<Option<Arc<Feed>>, KafkaError> {
        let feed = Arc::new(Feed {
            place: place.clone(),
            next: AtomicU64::new(from),
            state: Mutex::default(),
            arrived: Notify::new(),
        });
        {
            let mut feeds = locked(&self.feeds);
            if feeds.contains_key(place) {
                return Ok(None);
            }
            feeds.insert(place.clone(), Arc::clone(&feed));
        }
        let assigned = list(place, KafkaOffset::Offset(from as i64))
            .and_then(|assignment| self.consumer.incremental_assign(&assignment));
        match assigned {
            Ok(()) => Ok(Some(feed)),
            Err(e) => {
                locked(&self.feeds).remove(place);
                Err(e)
            }
        }
    }

    fn run(&self) {
        let (mut packer, mut messages) = (Packer::default(), Messages::of(&self.consumer));
        while !self.stop.load(Ordering::Acquire) {
            let taken = messages.take(|message| match message {
                Ok(message) => packer.pack(self, message),
                Err(e) => self.doubt(&e),
            });
            if taken == 0 {
                // Nothing at hand: whoever waits gets what there is, then the thread may sleep.
                packer.hand_over(self);
                match self.consumer.poll(IDLE) {
                    Some(Ok(message)) => packer.pack(self, Message::of(&message)),
                    Some(Err(e)) => self.doubt(&e),
                    None => {}
                }
            }
            if self.closing.swap(false, Ordering::AcqRel) {
                packer.let_go(self);
                self.unassign_closed();
            }
        }
        for feed in locked(&self.feeds).values() {
            locked(&feed.state).closed = true;
            feed.arrived.notify_one();
        }
    }

    /// Takes the partitions of closed feeds off the consumer.
    fn unassign_closed(&self) {
        let mut feeds = locked(&self.feeds);
        feeds.retain(|place, feed| {
            let State { closed, paused, .. } = *locked(&feed.state);
            if !closed {
                return true;
            }
            if paused {
                // librdkafka keeps a partition paused when it is unassigned and assigned again.
                self.pause(feed, false);
            }
            let unassigned =
                list(place, KafkaOffset::Invalid).and_then(|list| self.consumer.incremental_unassign(&list));
            if let Err(e) = unassigned {
                warn!(topic = place.0, partition = place.1, error = %e, "a partition can't be unassigned");
            }
            false
        });
    }

    /// librdkafka does not say which partition an error is about, so every reader looks whether it is its own. From
    /// other errors it recovers by itself; `Causes` knows the reason.
    fn doubt(&self, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        debug!(%error, "fetching");
        let stops_fetching = matches!(
            error.rdkafka_error_code(),
            Some(
                Code::AutoOffsetReset
                    | Code::OffsetOutOfRange
                    | Code::UnknownTopic
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownPartition
                    | Code::TopicAuthorizationFailed
            )
        );
        if stops_fetching {
            for feed in locked(&self.feeds).values() {
                locked(&feed.state).doubtful = true;
                feed.arrived.notify_one();
            }
        }
    }

    fn pause(&self, feed: &Feed, pause: bool) {
        let changed = list(&feed.place, KafkaOffset::Invalid)
            .and_then(|list| if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) });
        if let Err(e) = changed {
            warn!(topic = feed.place.0, partition = feed.place.1, pause, error = %e, "flow control failed");
        }
    }
}

fn list(place: &Place, offset: KafkaOffset) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&place.0, place.1 as i32, offset)?;
    Ok(list)
}

/// Packs messages into the batch of the feed they belong to. They come in runs of one partition.
#[derive(Debug, Default)]
struct Packer {
    feed: Option<Arc<Feed>>,
    records: RecordBatchBuilder,
}

impl Packer {
    fn pack(&mut self, fetcher: &Fetcher, message: Message<'_>) {
        let partition = message.partition();
        let same = |feed: &Arc<Feed>| feed.place.1 == partition && feed.place.0 == message.topic();
        if !self.feed.as_ref().is_some_and(same) {
            self.let_go(fetcher);
            self.feed = locked(&fetcher.feeds).get(&(message.topic().to_owned(), partition)).cloned();
        }
        let Some(feed) = &self.feed else { return };
        let offset = message.offset();
        if offset < feed.next.load(Ordering::Relaxed) {
            return;
        }
        feed.next.store(offset + 1, Ordering::Relaxed);
        self.records.push(offset, message.time_ms(), message.key(), message.value());
        for (name, value) in message.headers() {
            self.records.push_header(name, value);
        }
        if self.records.bytes() >= BATCH_BYTES || self.records.len() >= BATCH_RECORDS {
            self.hand_over(fetcher);
        }
    }

    /// Hands over what there is and looks the feed up again for the next message: by then the same partition may be
    /// read by another reader, from somewhere else.
    fn let_go(&mut self, fetcher: &Fetcher) {
        self.hand_over(fetcher);
        self.feed = None;
    }

    fn hand_over(&mut self, fetcher: &Fetcher) {
        let Some(feed) = &self.feed else { return };
        if self.records.is_empty() {
            return;
        }
        let bytes = self.records.bytes();
        // The next one is likely as large.
        let next = RecordBatchBuilder::with_capacity(bytes);
        let batch = std::mem::replace(&mut self.records, next).build(feed.next.load(Ordering::Relaxed));
        let full = {
            let mut state = locked(&feed.state);
            state.bytes += bytes;
            state.batches.push_back(batch);
            let full = state.bytes >= fetcher.buffer_bytes && !state.paused;
            state.paused |= full;
            if full {
                // Under the lock, so that a resume cannot come before it.
                fetcher.pause(feed, true);
            }
            full
        };
        feed.arrived.notify_one();
        if full {
            debug!(topic = feed.place.0, partition = feed.place.1, "a slow reader's partition is paused");
        }
    }
}

/// Reads one partition in order.
#[derive(Debug)]
pub(super) struct Reader {
    inner: Arc<Inner>,
    fetcher: Arc<Fetcher>,
    feed: Arc<Feed>,
    position: Offset,
}

impl Reader {
    /// A reader that starts at `from`, which lies in the partition's bounds. Blocks.
    pub(super) fn open(inner: &Arc<Inner>, topic: &str, partition: u32, from: Offset) -> Result<Self> {
        let place = (topic.to_owned(), partition);
        let mut fetchers = locked(&inner.fetchers);
        // One idle consumer is kept; feeds are added under this lock only.
        let mut idle = 0;
        fetchers.retain(|fetcher| {
            idle += usize::from(fetcher.is_idle());
            let keep = !fetcher.is_idle() || idle == 1;
            if !keep {
                fetcher.stop();
            }
            keep
        });
        let open = |fetcher: &Arc<Fetcher>| {
            let feed =
                fetcher.feed(&place, from).map_err(|e| inner.causes.explain(topic, Some(partition), &e))?;
            let reader =
                |feed| Self { inner: Arc::clone(inner), fetcher: Arc::clone(fetcher), feed, position: from };
            Ok::<_, Error>(feed.map(reader))
        };
        for fetcher in fetchers.iter() {
            if let Some(reader) = open(fetcher)? {
                return Ok(reader);
            }
        }
        inner.check_open()?;
        let fetcher = Fetcher::start(inner)?;
        fetchers.push(Arc::clone(&fetcher));
        Ok(open(&fetcher)?.expect("a new consumer reads nothing yet"))
    }

    /// Takes the next batch, if one is there.
    fn take(&mut self) -> Result<Option<RecordBatch>> {
        let mut state = locked(&self.feed.state);
        let Some(batch) = state.batches.pop_front() else {
            return if state.closed { Err(Error::Closed) } else { Ok(None) };
        };
        state.bytes -= batch.buffer().len();
        if state.paused && state.bytes < self.fetcher.buffer_bytes / 2 {
            state.paused = false;
            self.fetcher.pause(&self.feed, false);
        }
        self.position = batch.next_offset();
        Ok(Some(batch))
    }

    /// Finds out whether an error of the consumer is about this reader.
    async fn look(&self) -> Result<()> {
        let (topic, partition) = &self.feed.place;
        let bounds = self.inner.bounds(topic, *partition).await?;
        if self.position < bounds.start || self.position > bounds.end {
            return Err(super::out_of_range(topic, *partition, self.position, bounds));
        }
        Ok(())
    }
}

#[async_trait]
impl PartitionReader for Reader {
    async fn next(&mut self, max_wait: Duration) -> Result<RecordBatch> {
        let deadline = Instant::now() + max_wait;
        loop {
            if let Some(batch) = self.take()? {
                return Ok(batch);
            }
            if locked(&self.feed.state).doubtful {
                self.look().await?;
                locked(&self.feed.state).doubtful = false;
                continue;
            }
            if timeout_at(deadline, self.feed.arrived.notified()).await.is_err() {
                return Ok(RecordBatch::empty(self.position));
            }
        }
    }

    fn position(&self) -> Offset {
        self.position
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        locked(&self.feed.state).closed = true;
        self.fetcher.closing.store(true, Ordering::Release);
    }
}
