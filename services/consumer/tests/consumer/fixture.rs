//! A log in a temporary directory, consumers on it, and events to send.

use std::{sync::Arc, time::Duration};

use arrow::{array::AsArray, datatypes::Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use uuid::Uuid;
use weir_log::{EmbeddedConfig, EmbeddedLog, EventLog, Record, Retention, TopicPolicy, TopicSpec};
use weir_proto::{event::v1 as event, processing::v1 as processing};
use weir_runtime::{Config, Context, Listeners, Shutdown};
use weir_store::{Reader, Store};

pub(crate) const EVENTS: &str = "analytics-events";
pub(crate) const METRICS: &str = "metrics-data";
pub(crate) const DEAD_LETTERS: &str = "analytics-events-dlq";
/// Longer than anything takes here; a test that waits for so long has failed.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(60);

pub(crate) struct Fixture {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) partitions: u32,
    dir: TempDir,
}

impl Fixture {
    pub(crate) async fn new(partitions: u32) -> Self {
        Self::with(partitions, Retention::default(), |_| {}).await
    }

    pub(crate) async fn with(
        partitions: u32,
        retention: Retention,
        adjust: impl FnOnce(&mut EmbeddedConfig),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = EmbeddedConfig::at(dir.path().join("log"));
        adjust(&mut config);
        let log = EmbeddedLog::open(config).unwrap();
        let topic = |name: &str, retention| TopicSpec { name: name.to_owned(), partitions, retention };
        let topics = [
            topic(EVENTS, retention),
            topic(METRICS, Retention::default()),
            topic(DEAD_LETTERS, Retention::default()),
        ];
        log.ensure_topics(&topics, TopicPolicy::Create).await.unwrap();
        Self { log, partitions, dir }
    }

    /// Appends records to a partition.
    pub(crate) async fn append(&self, partition: u32, values: impl IntoIterator<Item = Vec<u8>>) {
        let records: Vec<Record> = values.into_iter().map(|value| Record::new("key", value)).collect();
        if !records.is_empty() {
            self.log.append(EVENTS, partition, records).await.unwrap();
        }
    }

    /// Starts a consumer in the usual group.
    pub(crate) async fn consumer(&self) -> Consumer {
        self.consumer_in("weir-consumer").await
    }

    /// Starts a consumer in a group of its own: it gets every partition, whoever else has it.
    pub(crate) async fn consumer_in(&self, group: &str) -> Consumer {
        let mut config = self.config();
        config.consumer.group = group.to_owned();
        Consumer::start(config, Arc::clone(&self.log)).await
    }

    /// The event store, as a process of its own sees it.
    pub(crate) async fn store(&self) -> Store {
        Store::open(weir_store::Settings::folder(self.dir.path().join("store"))).await.unwrap()
    }

    /// The configuration that the oracle expects.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.rollups.numeric = vec!["price".to_owned()];
        config.store.location = Some(self.dir.path().join("store").to_string_lossy().into_owned());
        config
    }
}

pub(crate) struct Consumer {
    pub(crate) context: Context,
    store: Store,
    grpc: std::net::SocketAddr,
    http: std::net::SocketAddr,
    task: JoinHandle<Result<(), weir_consumer::Error>>,
}

impl Consumer {
    pub(crate) async fn start(config: Config, log: Arc<dyn EventLog>) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(any, Some(any), false).await.unwrap();
        let (grpc, http) = (listeners.grpc_address().unwrap(), listeners.http_address());
        // Each has its own, as processes have.
        let folder = config.store.location.clone().expect("the fixture sets it");
        let mut settings = weir_store::Settings::folder(folder);
        // So that whatever happens does so between two flushes, and during some.
        settings.flush_interval = Duration::from_millis(50);
        let store = Store::open(settings).await.unwrap();
        let context = Context::new(config, Shutdown::new());
        let task = tokio::spawn(weir_consumer::serve(context.clone(), log, store.clone(), listeners));
        Self { context, store, grpc, http, task }
    }

    /// The offsets of the events that questions see, of all partitions, sorted: once all below these ends are there.
    pub(crate) async fn stored(&self, ends: &[u64]) -> Vec<u64> {
        let reader = Reader::new(self.store.clone(), ends.len() as u32, Arc::new(self.store.clone()));
        let reading = async {
            loop {
                let snapshot = reader.snapshot("default").await.unwrap();
                if snapshot.next_offsets.values().zip(ends).all(|(next, end)| next >= end) {
                    return snapshot;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let snapshot = tokio::time::timeout(TOO_LONG, reading).await.expect("the events are in the store");
        let mut batches = snapshot.hot.clone();
        for segment in &snapshot.segments {
            let file = self.store.objects().get(&segment.path).await.unwrap().expect("it is live");
            let rows = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            batches.extend(rows.map(Result::unwrap));
        }
        let offsets = batches.iter().flat_map(|batch| {
            let offsets = batch.column_by_name("log_offset").unwrap().as_primitive::<Int64Type>();
            offsets.values().iter().map(|offset| offset.cast_unsigned())
        });
        let mut offsets: Vec<u64> = offsets.collect();
        offsets.sort_unstable();
        offsets
    }

    /// Asks `/readyz` until it answers that it is ready, or not, and says `why`; gives the answer.
    pub(crate) async fn until_ready(&self, ready: bool, why: &str) -> String {
        let status = if ready { "HTTP/1.1 200" } else { "HTTP/1.1 503" };
        let asking = async {
            loop {
                let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
                let request = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                if answer.starts_with(status) && answer.contains(why) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(TOO_LONG, asking).await.expect("the readiness becomes as wanted")
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(self) {
        self.context.shutdown.trigger();
        tokio::time::timeout(TOO_LONG, self.task).await.expect("it stops").unwrap().unwrap();
    }

    /// Cuts it off in the middle of whatever it does. What it has handed to the log may still arrive there.
    pub(crate) async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// The error that ended it.
    pub(crate) async fn error(self) -> weir_consumer::Error {
        tokio::time::timeout(TOO_LONG, self.task).await.expect("it ends").unwrap().unwrap_err()
    }

    /// Watches its status until it is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&processing::Status) -> bool) -> processing::Status {
        let watching = async {
            let endpoint = format!("http://{}", self.grpc);
            let mut client =
                processing::processing_service_client::ProcessingServiceClient::connect(endpoint)
                    .await
                    .unwrap();
            let interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
            let request = processing::WatchStatusRequest { interval };
            let mut states = client.watch_status(request).await.unwrap().into_inner();
            let mut last = None;
            while let Some(response) = states.message().await.unwrap() {
                let status = response.status.unwrap();
                if wanted(&status) {
                    return status;
                }
                last = Some(status);
            }
            panic!("the stream ended with {last:?}")
        };
        tokio::time::timeout(TOO_LONG, watching).await.expect("the status becomes as wanted")
    }
}

/// What an event is about.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) id: u64,
    pub(crate) name: &'static str,
    pub(crate) user: String,
    pub(crate) price: f64,
    pub(crate) time_micros: i64,
    /// The import that it belongs to: every third event does, to one of two.
    pub(crate) import: Option<Uuid>,
}

impl Sent {
    pub(crate) fn new(id: u64) -> Self {
        const NAMES: [&str; 4] = ["view", "search", "purchase", "login"];
        Self {
            id,
            name: NAMES[(id % 4) as usize],
            user: format!("user-{}", id % 97),
            price: (id % 11) as f64,
            time_micros: now_micros(),
            import: id.is_multiple_of(3).then(|| Uuid::from_u128(u128::from(100 + id % 2))),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let price = Value { kind: Some(Kind::NumberValue(self.price)) };
        let record = event::EventRecord {
            project: "default".to_owned(),
            receive_time_micros: self.time_micros,
            corrected_time_micros: self.time_micros,
            import_id: self.import.map(|import| import.as_bytes().to_vec()).unwrap_or_default(),
            event: Some(event::Event {
                event_id: Uuid::from_u128(self.id.into()).to_string(),
                event_name: self.name.to_owned(),
                user_id: self.user.clone(),
                properties: Some(Struct { fields: [("price".to_owned(), price)].into() }),
                ..Default::default()
            }),
        };
        record.encode_to_vec()
    }
}

pub(crate) fn now_micros() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64
}
