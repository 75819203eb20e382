//! `WatchEvents`: events as they arrive.
//!
//! One task per partition follows the end of the log for all watchers together, and only while there are any. Each watcher
//! has a task of its own that filters and keeps at most [`Limits::events`] events for a reader that is slow, and of their bytes no more
//! than its share of [`Limits::bytes`]; beyond that the oldest are dropped and counted.

use std::{borrow::Cow, collections::VecDeque, sync::Arc, time::Duration};

use futures::Stream;
use hashbrown::HashMap;
use prost::Message as _;
use prost_types::value::Kind;
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use weir_log::EventLog;
use weir_proto::{
    analytics::v1::{LiveEvent, WatchEventsRequest, WatchEventsResponse},
    event::v1::{Event, EventRecord},
    time::timestamp,
    validate::{Path, Validate as _, Violations},
};
use weir_query::filter::{Filter, Operand, Truth};
use weir_rollup::field::{Field, event_type_text, number_text};
use weir_runtime::{Shutdown, auth::ProjectId};

use crate::{error::Error, watch::Place};

/// Batches of records that the slowest watcher's task may be behind the log; a batch has at most about 1 MiB.
const BATCHES: usize = 16;
/// New watchers that may wait for the tail to start.
const WAITING: usize = 16;
/// How often it is checked whether anybody still watches.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// A tail that has not reached within this time what was the end of the log skips to its end: it is to show what happens
/// now.
const MAX_BEHIND: Duration = Duration::from_secs(5);
/// The pause after a failed read.
const RETRY: Duration = Duration::from_secs(1);

/// Records of one partition.
#[derive(Debug)]
struct Batch {
    partition: u32,
    /// Records of the partition before these, since the tail started. Whoever expected fewer has missed some.
    before: u64,
    records: Vec<EventRecord>,
}

type Tap = broadcast::Receiver<Arc<Batch>>;

/// Where watchers subscribe. Clones reach the same tail.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    subscribe: mpsc::Sender<oneshot::Sender<Result<Tap, weir_log::Error>>>,
}

impl Tail {
    /// Starts the task that follows the log on demand, until `stop` is requested.
    pub(crate) fn start(log: Arc<dyn EventLog>, topic: String, partitions: u32, stop: &Shutdown) -> Self {
        let (subscribe, subscribers) = mpsc::channel(WAITING);
        let stopped = stop.requested();
        stop.spawn(async move {
            tokio::select! {
                () = follow_on_demand(log, topic, partitions, subscribers) => {}
                () = stopped => {}
            }
        });
        Self { subscribe }
    }

    /// From the end of the log on.
    async fn tap(&self) -> Result<Tap, Error> {
        let (answer, answered) = oneshot::channel();
        self.subscribe.send(answer).await.map_err(|_| Error::ShuttingDown)?;
        let tap = answered.await.map_err(|_| Error::ShuttingDown)?;
        tap.map_err(|error| Error::LogUnavailable(error.to_string()))
    }
}

async fn follow_on_demand(
    log: Arc<dyn EventLog>,
    topic: String,
    partitions: u32,
    mut subscribers: mpsc::Receiver<oneshot::Sender<Result<Tap, weir_log::Error>>>,
) {
    while let Some(first) = subscribers.recv().await {
        let (sender, tap) = broadcast::channel(BATCHES);
        let mut readers = match open(&log, &topic, partitions, &sender).await {
            Ok(readers) => readers,
            Err(error) => {
                // Who asked may have gone.
                let _ = first.send(Err(error));
                continue;
            }
        };
        let _ = first.send(Ok(tap));
        let mut idle = tokio::time::interval(IDLE_CHECK);
        loop {
            tokio::select! {
                next = subscribers.recv() => match next {
                    Some(next) => drop(next.send(Ok(sender.subscribe()))),
                    None => return,
                },
                _ = idle.tick() => if sender.receiver_count() == 0 { break },
            }
        }
        readers.abort_all();
    }
}

/// Starts a task for each partition. They are at the end of the log when this returns.
async fn open(
    log: &Arc<dyn EventLog>,
    topic: &str,
    partitions: u32,
    sender: &broadcast::Sender<Arc<Batch>>,
) -> Result<JoinSet<()>, weir_log::Error> {
    let mut readers = JoinSet::new();
    for partition in 0..partitions {
        let end = log.bounds(topic, partition).await?.end;
        let reader = log.reader(topic, partition, end).await?;
        readers.spawn(follow(log.clone(), topic.to_owned(), partition, reader, sender.clone()));
    }
    Ok(readers)
}

async fn follow(
    log: Arc<dyn EventLog>,
    topic: String,
    partition: u32,
    mut reader: Box<dyn weir_log::PartitionReader>,
    sender: broadcast::Sender<Arc<Batch>>,
) {
    let mut before = 0;
    let (mut goal, mut due) = (reader.position(), Instant::now() + MAX_BEHIND);
    loop {
        let mut gone = false;
        match reader.next(Duration::from_secs(5)).await {
            Ok(batch) => {
                let records =
                    batch.iter().map(|record| EventRecord::decode(record.value).unwrap_or_default());
                let records: Vec<_> = records.collect();
                if !records.is_empty() {
                    // Without watchers it goes nowhere, until the task is ended.
                    let _ = sender.send(Arc::new(Batch { partition, before, records }));
                }
                before += batch.len() as u64;
            }
            Err(weir_log::Error::OutOfRange { .. }) => gone = true,
            Err(error) => {
                tracing::warn!(topic, partition, %error, retry_in = ?RETRY, "reading events for watchers failed");
                tokio::time::sleep(RETRY).await;
            }
        }
        if !gone && Instant::now() < due {
            continue;
        }
        let position = reader.position();
        let Ok(bounds) = log.bounds(&topic, partition).await else { continue };
        let behind = position < goal;
        (goal, due) = (bounds.end, Instant::now() + MAX_BEHIND);
        if !gone && !behind {
            continue;
        }
        // Too far behind, or the place is gone: on from the end.
        if let Ok(at_end) = log.reader(&topic, partition, bounds.end).await {
            reader = at_end;
            before += bounds.end.saturating_sub(position);
        }
    }
}

/// Which events a watcher wants.
#[derive(Debug)]
pub(crate) struct Wish {
    project: ProjectId,
    user: String,
    filter: Filter,
}

impl Wish {
    /// Reads a request.
    pub(crate) fn parse(request: &WatchEventsRequest, project: ProjectId) -> Result<Self, Violations> {
        request.validate()?;
        let mut found = Violations::default();
        let filter = Filter::parse(request.filter.as_ref(), &Path::ROOT.field("filter"), &mut found);
        found.into_result()?;
        Ok(Self {
            project,
            user: request.user_id.clone(),
            filter: filter.with_event_names(&request.event_names),
        })
    }

    /// Whether the event is one of them.
    fn wants(&self, record: &EventRecord) -> bool {
        let Some(event) = &record.event else { return false };
        let is_user = self.user.is_empty() || event.actor() == self.user;
        record.project == self.project.as_str() && is_user && {
            let values: Vec<_> = self.filter.fields().iter().map(|field| value(event, field)).collect();
            let operand = |field: usize| values[field].as_deref().map_or(Operand::Missing, Operand::Text);
            self.filter.evaluate(&operand) == Truth::Yes
        }
    }
}

/// The text of a field, by the same rules as dimensions have it.
pub(crate) fn value<'e>(event: &'e Event, field: &Field) -> Option<Cow<'e, str>> {
    let present = |text: &'e str| (!text.is_empty()).then_some(Cow::Borrowed(text));
    match field {
        Field::EventName => present(&event.event_name),
        Field::EventType => event_type_text(event.event_type).map(Cow::Borrowed),
        Field::UserId => present(&event.user_id),
        Field::AnonymousId => present(&event.anonymous_id),
        Field::SessionId => present(&event.session_id),
        Field::InstallId => present(&event.install_id),
        Field::Context(field) => present(field.of(event.context.as_ref()?)?),
        Field::Property(key) => match event.properties.as_ref()?.fields.get(key)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(Cow::Borrowed(text)),
            Kind::NumberValue(number) => number.is_finite().then(|| number_text(*number).into()),
            Kind::BoolValue(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
            Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
        },
    }
}

/// What may wait for slow readers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Events for one.
    pub(crate) events: usize,
    /// Bytes for all, shared out equally; one event always has room.
    pub(crate) bytes: usize,
}

/// What waits for a slow reader.
#[derive(Debug)]
struct Backlog {
    /// With their encoded sizes.
    events: VecDeque<(LiveEvent, usize)>,
    bytes: usize,
    limits: Limits,
    missed: u64,
    /// By partition: how many records there have been.
    seen: HashMap<u32, u64>,
}

impl Backlog {
    /// Takes events in, as one of so many watchers.
    fn take_in(&mut self, batch: &Batch, wish: &Wish, watchers: usize) {
        // A response that is on its way is held once more.
        let share = self.limits.bytes / watchers.max(1) / 2;
        // What was not read is counted whole: nobody knows which of it would have passed.
        let seen = self.seen.entry(batch.partition).or_insert(batch.before);
        self.missed += batch.before.saturating_sub(*seen);
        *seen = batch.before + batch.records.len() as u64;
        for record in batch.records.iter().filter(|record| wish.wants(record)) {
            let bytes = record.encoded_len();
            while self.events.len() >= self.limits.events.max(1) || self.bytes + bytes > share {
                let Some((_, dropped)) = self.events.pop_front() else { break };
                self.bytes -= dropped;
                self.missed += 1;
            }
            self.bytes += bytes;
            let event = LiveEvent {
                event: record.event.clone(),
                receive_time: Some(timestamp(record.receive_time_micros)),
                corrected_time: Some(timestamp(record.corrected_time_micros)),
            };
            self.events.push_back((event, bytes));
        }
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.missed == 0
    }

    fn take(&mut self) -> WatchEventsResponse {
        self.bytes = 0;
        WatchEventsResponse {
            events: self.events.drain(..).map(|(event, _)| event).collect(),
            missed: std::mem::take(&mut self.missed),
        }
    }
}

/// Starts to watch: what is appended after this returned will be seen. Some events wait for a slow reader.
pub(crate) async fn watch(
    tail: &Tail,
    wish: Wish,
    limits: Limits,
    place: Place,
    shutdown: &Shutdown,
) -> Result<impl Stream<Item = Result<WatchEventsResponse, Status>> + use<>, Error> {
    let mut tap = tail.tap().await?;
    // One response in the channel, the rest in the backlog, where it can still be dropped.
    let (responses, receiver) = mpsc::channel(1);
    let stop = shutdown.requested();
    shutdown.spawn(async move {
        let mut backlog =
            Backlog { events: VecDeque::new(), bytes: 0, limits, missed: 0, seen: HashMap::new() };
        tokio::pin!(stop);
        loop {
            tokio::select! {
                batch = tap.recv() => match batch {
                    Ok(batch) => backlog.take_in(&batch, &wish, place.open()),
                    // The next batch of the same partition tells how much that was.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                permit = responses.reserve(), if !backlog.is_empty() => match permit {
                    Ok(permit) => permit.send(Ok(backlog.take())),
                    Err(_) => return,
                },
                () = responses.closed() => return,
                () = &mut stop => break,
            }
        }
    });
    Ok(shutdown.end(ReceiverStream::new(receiver)))
}

#[cfg(test)]
mod tests {
    use weir_log::{EmbeddedConfig, EmbeddedLog, PartitionReader, RecordBatch, RecordBatchBuilder};

    use super::*;

    /// Gives one batch.
    #[derive(Debug)]
    struct Once(Option<RecordBatch>);

    #[async_trait::async_trait]
    impl PartitionReader for Once {
        async fn next(&mut self, _: Duration) -> weir_log::Result<RecordBatch> {
            match self.0.take() {
                Some(batch) => Ok(batch),
                None => std::future::pending().await,
            }
        }

        fn position(&self) -> weir_log::Offset {
            0
        }
    }

    #[test]
    fn a_visitor_that_is_known_as_a_user_is_that_user() {
        let wanted = |user: &str, event: Event| {
            let request = WatchEventsRequest { user_id: user.to_owned(), ..WatchEventsRequest::default() };
            let wish = Wish::parse(&request, ProjectId::default_project()).unwrap();
            wish.wants(&EventRecord {
                project: "default".to_owned(),
                event: Some(event),
                ..EventRecord::default()
            })
        };
        let visitor = Event { anonymous_id: "v".to_owned(), ..Event::default() };
        let user = Event { user_id: "u".to_owned(), ..visitor.clone() };
        assert!(wanted("v", visitor.clone()) && wanted("u", user.clone()) && wanted("", user.clone()));
        assert!(!wanted("v", user) && !wanted("u", visitor), "as in a user's timeline");
    }

    #[tokio::test]
    async fn the_clock_of_the_log_need_not_be_right() {
        let dir = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventLog> = EmbeddedLog::open(EmbeddedConfig::at(dir.path())).unwrap();
        let mut batch = RecordBatchBuilder::with_capacity(0);
        let record = EventRecord { project: "default".to_owned(), ..Default::default() };
        let hour_ago = weir_runtime::clock::now_micros() / 1000 - 3_600_000;
        batch.push(0, hour_ago, b"", &record.encode_to_vec());
        let reader = Box::new(Once(Some(batch.build(1))));
        let (sender, mut tap) = broadcast::channel(BATCHES);
        let following = tokio::spawn(follow(log, "analytics-events".to_owned(), 0, reader, sender));
        assert_eq!(tap.recv().await.unwrap().records, [record]);
        following.abort();
    }
}
