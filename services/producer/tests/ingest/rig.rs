//! A producer on port 0 with a client, over either log.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;
use weir_log::{EmbeddedConfig, EmbeddedLog, EventLog, Retention, TopicPolicy, TopicSpec};
use weir_proto::{
    event::v1::{Event, EventRecord},
    ingest::v1::ingest_service_client::IngestServiceClient,
};
use weir_runtime::{Config, Context, Listeners, Shutdown, config::PlaceholderIds};

pub(crate) const TOPIC: &str = "analytics-events";
pub(crate) const PARTITIONS: u32 = 3;
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A running producer.
pub(crate) struct Rig {
    pub(crate) client: IngestServiceClient<Channel>,
    pub(crate) context: Context,
    pub(crate) log: Arc<dyn EventLog>,
    served: JoinHandle<Result<(), weir_producer::Error>>,
    _dir: Option<TempDir>,
}

impl Rig {
    /// On an embedded log in a folder of its own.
    pub(crate) async fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedConfig::at(dir.path())).unwrap();
        let topic = TopicSpec { name: TOPIC.into(), partitions: PARTITIONS, retention: Retention::default() };
        log.ensure_topics(&[topic], TopicPolicy::Create).await.unwrap();
        Self { _dir: Some(dir), ..Self::on(log, |_| {}).await }
    }

    /// On this log, with the default configuration but for short pauses between retries and what `change` changes.
    pub(crate) async fn on(log: Arc<dyn EventLog>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.producer.retry_initial_backoff = Duration::from_millis(1);
        config.producer.retry_max_backoff = Duration::from_millis(4);
        // Users are numbers here, 0 among them.
        config.producer.placeholder_ids = PlaceholderIds::Allow;
        change(&mut config);
        let context = Context::new(config, Shutdown::new());
        let listeners = Listeners::bind(ANY, Some(ANY), false).await.unwrap();
        let url = format!("http://{}", listeners.grpc_address().unwrap());
        let served = tokio::spawn(weir_producer::serve(context.clone(), log.clone(), listeners));
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let client = IngestServiceClient::new(channel).max_encoding_message_size(usize::MAX);
        Self { client, context, log, served, _dir: None }
    }

    /// Every record in the log, by partition, in order.
    pub(crate) async fn records(&self) -> Vec<Vec<EventRecord>> {
        let mut records = Vec::new();
        for partition in 0..PARTITIONS {
            let bounds = self.log.bounds(TOPIC, partition).await.unwrap();
            let mut reader = self.log.reader(TOPIC, partition, bounds.start).await.unwrap();
            let mut found = Vec::new();
            while reader.position() < bounds.end {
                let batch = reader.next(Duration::from_secs(10)).await.unwrap();
                found.extend(batch.iter().map(|record| EventRecord::decode(record.value).unwrap()));
            }
            records.push(found);
        }
        records
    }

    /// The events in the log, whatever their partition.
    pub(crate) async fn events(&self) -> Vec<Event> {
        self.records().await.into_iter().flatten().filter_map(|record| record.event).collect()
    }

    /// The value of a metric's series, which the text form shows so: `name{labels}`.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.context.metrics.render();
        let line = text.lines().find(|line| line.split(' ').next() == Some(series));
        line.map_or(0.0, |line| line.split(' ').nth(1).unwrap().parse().unwrap())
    }

    /// Waits until the series has reached the value.
    pub(crate) async fn until_metric(&self, series: &str, value: f64) {
        while self.metric(series) < value {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Events by outcome, as the metrics have them.
    pub(crate) fn counted(&self, outcome: &str) -> f64 {
        self.metric(&format!(
            r#"events_processed_total{{outcome="{outcome}",service="producer",topic="{TOPIC}"}}"#
        ))
    }

    /// Requests the stop; resolves when the producer has drained.
    pub(crate) fn stop(&mut self) -> &mut JoinHandle<Result<(), weir_producer::Error>> {
        self.context.shutdown.trigger();
        &mut self.served
    }
}

/// A good event of this user, without an id.
pub(crate) fn event(user: &str) -> Event {
    let now = SystemTime::now().into();
    Event { event_name: "purchase".into(), user_id: user.into(), event_time: Some(now), ..Event::default() }
}

/// A good event of this user with the id number `n`.
pub(crate) fn numbered(user: &str, n: u32) -> Event {
    Event { event_id: id(n), ..event(user) }
}

/// The `n`th id.
pub(crate) fn id(n: u32) -> String {
    format!("019a3c5e-7d2b-7c41-9f0a-{n:012x}")
}

/// The stable reason of an error.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// How long the error asks to wait before a retry.
pub(crate) fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|retry| retry.retry_delay)
}
