//! The whole service on a real log, over real gRPC and HTTP.

mod cancelled;
mod exact;
mod exports;
mod missing;
mod questions;

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tonic::{Code, Request, Streaming, transport::Channel};
use weir_log::{EmbeddedConfig, EmbeddedLog, EventLog, Record, Retention, TopicPolicy, TopicSpec};
use weir_proto::{
    analytics::v1::{
        Figure, GetSummaryRequest, GetSummaryResponse, Interval, QueryBreakdownRequest,
        QueryTimeSeriesRequest, TimeRange, WatchEventsRequest, WatchQueryRequest, WatchQueryResponse,
        analytics_service_client::AnalyticsServiceClient, watch_query_request::Query, watch_query_response,
    },
    event::v1::{self as event, EventRecord},
    time::timestamp,
    token,
};
use weir_runtime::{
    Config, Context, Listeners, Metrics, Shutdown, clock::now_micros, config::RollupDefinition,
};
use weir_store::{Settings, Store};

use crate::{
    materialise::State,
    snapshot,
    testing::{self, DAY, Event, SECOND, Writer},
};

const METRICS: &str = "metrics-data";
const EVENTS: &str = "analytics-events";
/// How long a watch may be silent although something happened.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service.
struct System {
    log: Arc<dyn EventLog>,
    store: Store,
    client: AnalyticsServiceClient<Channel>,
    http: std::net::SocketAddr,
    metrics: Metrics,
    shutdown: Shutdown,
    served: JoinHandle<()>,
}

async fn open_log(dir: &Path) -> Arc<dyn EventLog> {
    let log = EmbeddedLog::open(EmbeddedConfig::at(dir.join("log"))).unwrap();
    let topic =
        |name: &str| TopicSpec { name: name.to_owned(), partitions: 2, retention: Retention::default() };
    log.ensure_topics(&[topic(METRICS), topic(EVENTS)], TopicPolicy::Create).await.unwrap();
    log
}

impl System {
    async fn start(dir: &Path) -> Self {
        Self::start_with(dir, |_| {}).await
    }

    async fn start_with(dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(open_log(dir).await, dir, change).await
    }

    async fn start_on(log: Arc<dyn EventLog>, dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        Self::launch(log, dir, change).await.ready().await
    }

    async fn start_over(store: Store, dir: &Path) -> Self {
        Self::launch_over(store, open_log(dir).await, dir, |_| {}).await.ready().await
    }

    async fn ready(self) -> Self {
        while !self.get("/readyz").await.starts_with("HTTP/1.1 200") {
            tokio::task::yield_now().await;
        }
        self
    }

    /// Does not wait until it is ready.
    async fn launch(log: Arc<dyn EventLog>, dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let store = Store::open(Settings::folder(dir.join("store"))).await.unwrap();
        Self::launch_over(store, log, dir, change).await
    }

    async fn launch_over(
        store: Store,
        log: Arc<dyn EventLog>,
        dir: &Path,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config { data_dir: dir.to_owned(), ..Config::default() };
        config.rollups.dimensions = vec!["platform".to_owned()];
        config.rollups.numeric = vec!["price".to_owned()];
        let dimensions = vec!["platform".to_owned(), "plan".to_owned()];
        config.rollups.definitions =
            vec![RollupDefinition { name: "by_platform_and_plan".to_owned(), dimensions }];
        change(&mut config);
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let listeners = Listeners::bind(any, Some(any), false).await.unwrap();
        let (http, grpc) = (listeners.http_address(), listeners.grpc_address().unwrap());
        let shutdown = Shutdown::new();
        let context = Context::new(config, shutdown.clone());
        let metrics = context.metrics.clone();
        let serving = crate::serve(context, log.clone(), store.clone(), listeners);
        let served = tokio::spawn(async move { serving.await.unwrap() });
        let channel = Channel::from_shared(format!("http://{grpc}")).unwrap().connect().await.unwrap();
        let client = AnalyticsServiceClient::new(channel);
        Self { log, store, client, http, metrics, shutdown, served }
    }

    async fn stop(self) {
        self.shutdown.trigger();
        self.served.await.unwrap();
        self.log.close().await.unwrap();
    }

    async fn append(&self, partition: u32, value: Vec<u8>) {
        append(&self.log, METRICS, partition, vec![value]).await;
    }

    /// Raw HTTP/1.1: the whole answer.
    async fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn summary(&self, min_consistency_token: String) -> GetSummaryResponse {
        let request = GetSummaryRequest { min_consistency_token, ..Default::default() };
        self.client.clone().get_summary(request).await.unwrap().into_inner()
    }

    async fn watch(&self, query: Query) -> Streaming<WatchQueryResponse> {
        let min_interval = Some(prost_types::Duration { seconds: 0, nanos: 10_000_000 });
        let request = WatchQueryRequest { query: Some(query), min_interval };
        self.client.clone().watch_query(request).await.unwrap().into_inner()
    }

    /// Events that were read from the log and counted since the start.
    fn read(&self) -> u64 {
        self.metrics.events_processed("analytics", METRICS, "processed").get()
    }
}

async fn append(log: &Arc<dyn EventLog>, topic: &str, partition: u32, values: Vec<Vec<u8>>) {
    let records = values.into_iter().map(|value| Record::new(Vec::new(), value)).collect();
    log.append(topic, partition, records).await.unwrap();
}

/// A few seconds ago.
fn recent(user: u64) -> Event {
    Event { user, ..Event::at(now_micros() - 5 * SECOND) }
}

fn token(partition: u32, offset: u64) -> String {
    token::encode(&[(partition, offset)].into())
}

fn value(figure: &Option<Figure>) -> f64 {
    figure.as_ref().expect("the figure is given").value
}

fn events(summary: &GetSummaryResponse) -> f64 {
    value(&summary.current.as_ref().expect("there is a current range").events)
}

/// The next update of a watch.
async fn next<T>(watch: &mut Streaming<T>) -> T {
    let next = tokio::time::timeout(PATIENCE, watch.message()).await;
    next.expect("there is something to tell").unwrap().expect("the watch goes on")
}

fn watched_events(response: &WatchQueryResponse) -> f64 {
    match response.result.as_ref().expect("there is a result") {
        watch_query_response::Result::Summary(summary) => events(summary),
        watch_query_response::Result::TimeSeries(series) => series.series[0].totals[0].value,
        watch_query_response::Result::Breakdown(breakdown) => breakdown.totals[0].value,
        watch_query_response::Result::Funnel(_)
        | watch_query_response::Result::Retention(_)
        | watch_query_response::Result::Paths(_)
        | watch_query_response::Result::UserEvents(_) => unreachable!("these tests don't watch them"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zombie_batches_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let mut first = Writer::new(0);
    system.append(0, first.claim()).await;
    system.append(0, first.batch(&[recent(1), recent(2)])).await;
    let mut second = Writer::new(first.next);
    system.append(0, second.claim()).await;
    // The old owner does not know it yet.
    system.append(0, first.batch(&[recent(3), recent(4), recent(5)])).await;
    system.append(0, second.batch(&[recent(6)])).await;
    // Appended twice after a lost acknowledgement.
    second.next -= 1;
    system.append(0, second.batch(&[recent(6)])).await;
    system.append(0, b"not a record of ours".to_vec()).await;
    system.append(0, second.batch(&[recent(7)])).await;

    let summary = system.summary(token(0, 3)).await;
    assert_eq!(events(&summary), 4.0);
    let current = summary.current.unwrap();
    assert_eq!(value(&current.unique_users), 4.0);
    assert!(current.unique_users.unwrap().exact);
    let info = summary.info.unwrap();
    assert_eq!(token::decode(&info.consistency_token).unwrap(), [(0, 3)].into());
    assert!(info.watermark.is_none(), "nothing is known of partition 1");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_for_its_token_up_to_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let mut writer = Writer::new(0);
    system.append(1, writer.claim()).await;
    system.append(1, writer.batch(&[recent(1)])).await;
    let mut client = system.client.clone();
    let waiting = tokio::spawn(async move {
        let request = GetSummaryRequest { min_consistency_token: token(1, 1), ..Default::default() };
        client.get_summary(request).await.unwrap().into_inner()
    });
    system.append(1, writer.batch(&[recent(2)])).await;
    assert_eq!(events(&waiting.await.unwrap()), 2.0);

    let mut request =
        Request::new(GetSummaryRequest { min_consistency_token: token(1, 7), ..Default::default() });
    request.set_timeout(Duration::from_millis(500));
    let status = system.client.clone().get_summary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(
        status.message().contains("up to offset 2 (exclusive)") && status.message().contains("offset 7"),
        "{status}"
    );

    for (text, hint) in
        [("%%%", "exactly as an answer gave it"), (&*token(9, 0), "names partition 9, here are 2")]
    {
        let request = GetSummaryRequest { min_consistency_token: text.to_owned(), ..Default::default() };
        let status = system.client.clone().get_summary(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(hint), "{status}");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_equals_the_query_at_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let start = now_micros() - 600 * SECOND;
    let start = Some(timestamp(start - start.rem_euclid(60 * SECOND)));
    let range = Some(TimeRange { start_time: start, ..TimeRange::default() });
    let series = QueryTimeSeriesRequest {
        time_range: range,
        interval: Interval::Minute.into(),
        group_by: vec!["platform".to_owned()],
        ..Default::default()
    };
    let breakdown = QueryBreakdownRequest {
        time_range: range,
        group_by: vec!["event_name".to_owned()],
        ..Default::default()
    };
    let mut watch = system.watch(Query::Breakdown(breakdown.clone())).await;
    assert_eq!(watched_events(&next(&mut watch).await), 0.0);

    let mut writers = [Writer::new(0), Writer::new(0)];
    for (partition, writer) in writers.iter().enumerate() {
        system.append(partition as u32, writer.claim()).await;
    }
    let mut expected = 0.0;
    let mut update = 1;
    for round in 0..20u64 {
        let partition = (round % 2) as usize;
        let batch =
            writers[partition].batch(&[recent(round), Event { platform: Some("web"), ..recent(round + 1) }]);
        system.append(partition as u32, batch).await;
        expected += 2.0;
        let latest = loop {
            let response = next(&mut watch).await;
            assert!(response.update > update, "updates rise");
            update = response.update;
            assert!(watched_events(&response) <= expected);
            if watched_events(&response) == expected {
                break response;
            }
        };
        let Some(watch_query_response::Result::Breakdown(watched)) = latest.result else {
            panic!("another kind")
        };
        let token = watched.info.as_ref().unwrap().consistency_token.clone();
        let request = QueryBreakdownRequest { min_consistency_token: token, ..breakdown.clone() };
        let asked = system.client.clone().query_breakdown(request).await.unwrap().into_inner();
        assert_eq!((&watched.rows, &watched.totals), (&asked.rows, &asked.totals));
        let (watched, asked) = (watched.info.unwrap(), asked.info.unwrap());
        assert_eq!(
            (watched.watermark, watched.consistency_token),
            (asked.watermark, asked.consistency_token)
        );
    }
    let series = system.client.clone().query_time_series(series).await.unwrap().into_inner().series;
    let totals: Vec<_> = series.iter().map(|series| series.totals[0].value).collect();
    assert_eq!(totals, [20.0, 20.0]);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_fewer_answers_and_ends_with_the_latest() {
    const BATCHES: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    // Large answers, so that they do not all fit into the buffers of the connection.
    let start = timestamp((now_micros() / SECOND - 3000) * SECOND);
    let series = QueryTimeSeriesRequest {
        time_range: Some(TimeRange { start_time: Some(start), ..TimeRange::default() }),
        interval: Interval::Second.into(),
        fill_empty: true,
        ..Default::default()
    };
    let mut watch = system.watch(Query::TimeSeries(series)).await;
    next(&mut watch).await;
    let mut writer = Writer::new(0);
    system.append(0, writer.claim()).await;
    for user in 0..BATCHES {
        system.append(0, writer.batch(&[recent(user)])).await;
    }
    // Everything is counted before the first answer is read.
    assert_eq!(events(&system.summary(token(0, BATCHES - 1)).await), BATCHES as f64);
    let (mut answers, mut counted, mut update) = (0, 0.0, 1);
    while counted < BATCHES as f64 {
        let response = next(&mut watch).await;
        assert_eq!(response.update, update + 1);
        assert!(watched_events(&response) >= counted, "an outdated answer after a newer one");
        (counted, update) = (watched_events(&response), response.update);
        answers += 1;
    }
    assert!(answers < BATCHES, "{answers} answers for {BATCHES} batches");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_from_its_snapshot_and_does_without_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let mut writer = Writer::new(0);
    system.append(0, writer.claim()).await;
    system.append(0, writer.batch(&[recent(1), recent(2)])).await;
    assert_eq!(events(&system.summary(token(0, 1)).await), 2.0);
    system.stop().await;

    let path = snapshot::path(&dir.path().join("analytics"), METRICS, 0);
    let whole = std::fs::read(&path).expect("a snapshot is written at the shutdown");
    let system = System::start(dir.path()).await;
    assert_eq!((events(&system.summary(String::new()).await), system.read()), (2.0, 0));
    // The chain goes on, too.
    system.append(0, writer.batch(&[recent(3)])).await;
    assert_eq!(events(&system.summary(token(0, 2)).await), 3.0);
    system.stop().await;

    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let system = System::start(dir.path()).await;
    assert_eq!((events(&system.summary(String::new()).await), system.read()), (3.0, 3));
    system.stop().await;

    // The log was replaced by a shorter one.
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let system = System::start(dir.path()).await;
    assert_eq!((events(&system.summary(String::new()).await), system.read()), (0.0, 0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_by_a_clock_that_was_ahead_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path()).await;
    let (mut writer, far) = (Writer::new(0), now_micros() + 400 * DAY);
    let wrong = Event { append: far, ..Event::at(far) };
    let records = [writer.claim(), writer.batch(&[recent(1), recent(2)]), writer.batch(&[wrong])];
    // As the process left it whose clock was wrong.
    let mut state = State::new(testing::limits());
    for record in &records {
        testing::apply(&mut state, far, record);
    }
    let path = snapshot::path(&dir.path().join("analytics"), METRICS, 0);
    snapshot::write(&path, &log.identity().await.unwrap(), state.image(0)).unwrap();
    append(&log, METRICS, 0, records.into()).await;

    let system = System::start_on(log, dir.path(), |_| {}).await;
    assert_eq!(system.read(), 3, "the log is read instead");
    system.append(0, writer.batch(&[recent(3)])).await;
    // Rollups have whole minutes: the one that has just begun, and that before it.
    let last = Some(prost_types::Duration { seconds: 120, nanos: 0 });
    let time_range = Some(TimeRange { last, ..TimeRange::default() });
    let request = GetSummaryRequest { time_range, min_consistency_token: token(0, 3), ..Default::default() };
    let summary = system.client.clone().get_summary(request).await.unwrap().into_inner();
    assert_eq!(events(&summary), 3.0, "the last minutes are those of the clock");
    let watermark = summary.info.and_then(|info| info.watermark);
    assert!(watermark.is_none_or(|at| at.seconds * SECOND < far - DAY), "{watermark:?}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_retention_deleted_are_missed_and_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        segment_bytes: 16 << 10,
        index_interval_bytes: 1 << 10,
        retention_check: Duration::from_millis(10),
        ..EmbeddedConfig::at(dir.path().join("log"))
    };
    let log: Arc<dyn EventLog> = EmbeddedLog::open(config).unwrap();
    let retention = Retention { bytes: Some(1), age: None };
    let topic = |name: &str, retention| TopicSpec { name: name.to_owned(), partitions: 2, retention };
    let topics = [topic(METRICS, retention), topic(EVENTS, Retention::default())];
    log.ensure_topics(&topics, TopicPolicy::Create).await.unwrap();
    let mut writer = Writer::new(0);
    append(&log, METRICS, 0, vec![writer.claim()]).await;
    while log.bounds(METRICS, 0).await.unwrap().start == 0 {
        append(&log, METRICS, 0, vec![writer.batch(&[recent(1)])]).await;
    }
    let system = System::launch(log, dir.path(), |_| {}).await;
    let ready = loop {
        let ready = system.get("/readyz").await;
        if ready.contains("retention deleted results that no snapshot holds") {
            break ready;
        }
        tokio::task::yield_now().await;
    };
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("metrics-data/0 begins at offset"),
        "{ready}"
    );
    let status = system.client.clone().get_summary(GetSummaryRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_are_filtered_and_what_a_slow_reader_misses_is_counted() {
    const EVENTS_SENT: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let system = System::start_with(dir.path(), |config| config.analytics.watch_buffer = 16).await;
    let record = |number: u64| {
        let text = "x".repeat(1000);
        let text = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text)) };
        let properties = prost_types::Struct { fields: [("padding".to_owned(), text)].into() };
        let event = event::Event {
            event_name: if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
            user_id: format!("user-{number}"),
            properties: Some(properties),
            ..Default::default()
        };
        let (project, event) = ("default".to_owned(), Some(event));
        EventRecord { project, receive_time_micros: 1, corrected_time_micros: 2, event, ..Default::default() }
            .encode_to_vec()
    };
    append(&system.log, EVENTS, 0, vec![record(100_000)]).await;
    let request = WatchEventsRequest { event_names: vec!["even".to_owned()], ..Default::default() };
    let mut watch = system.client.clone().watch_events(request).await.unwrap().into_inner();

    append(&system.log, EVENTS, 0, vec![record(1), record(2)]).await;
    let first = next(&mut watch).await;
    let event = first.events[0].event.as_ref().unwrap();
    assert_eq!((first.events.len(), first.missed, event.user_id.as_str()), (1, 0, "user-2"));

    for chunk in (0..EVENTS_SENT).collect::<Vec<_>>().chunks(50) {
        append(&system.log, EVENTS, 1, chunk.iter().map(|number| record(*number)).collect()).await;
    }
    append(&system.log, EVENTS, 1, vec![record(1_000_000)]).await;
    let (mut received, mut missed) = (0, 0);
    loop {
        let response = next(&mut watch).await;
        assert!(response.events.len() <= 16);
        received += response.events.len() as u64;
        missed += response.missed;
        if response.events.iter().any(|live| live.event.as_ref().unwrap().user_id == "user-1000000") {
            break;
        }
    }
    assert_eq!(received + missed, EVENTS_SENT / 2 + 1, "received {received}, missed {missed}");
    assert!(missed > 0, "the reader was slow, but missed nothing");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_limited_and_end_with_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start_with(dir.path(), |config| config.analytics.max_watches = 2).await;
    let mut queries = system.watch(Query::Summary(GetSummaryRequest::default())).await;
    next(&mut queries).await;
    let mut live =
        system.client.clone().watch_events(WatchEventsRequest::default()).await.unwrap().into_inner();
    let request =
        WatchQueryRequest { query: Some(Query::Summary(GetSummaryRequest::default())), min_interval: None };
    let status = system.client.clone().watch_query(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("analytics.max_watches"), "{status}");
    let status = system.client.clone().watch_query(WatchQueryRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");

    let stopping = tokio::spawn(system.stop());
    for status in [queries.message().await.unwrap_err(), live.message().await.unwrap_err()] {
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "the service is stopping; connect again")
        );
    }
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_answers_alike_and_metrics_tell_what_was_counted() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let mut writer = Writer::new(0);
    system.append(0, writer.claim()).await;
    system.append(0, writer.batch(&[recent(1), recent(2), recent(3)])).await;
    let answer = system.get(&format!("/v1/analytics/summary?min_consistency_token={}", token(0, 2))).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"topEvents\""), "{answer}");
    let metrics = system.get("/metrics").await;
    let line = r#"events_processed_total{outcome="processed",service="analytics",topic="metrics-data"} 3"#;
    assert!(metrics.contains(line), "{metrics}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_read_stops_its_partition_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let writer = Writer::new(0);
    system.append(0, writer.claim()).await;
    let strange = weir_proto::rollup::v1::Cell { level: 99, ..Default::default() };
    let rollups = vec![weir_proto::rollup::v1::RollupDelta { definition: 1, cells: vec![strange] }];
    let batch = weir_proto::rollup::v1::MicroBatch {
        owner: writer.owner.as_bytes().to_vec(),
        end_offset: 1,
        projects: vec![weir_proto::rollup::v1::ProjectDelta { project: "default".to_owned(), rollups }],
        ..Default::default()
    };
    let record = weir_proto::rollup::v1::metrics_record::Record::Batch(batch);
    let record = weir_proto::rollup::v1::MetricsRecord { record: Some(record) };
    system.append(0, record.encode_to_vec()).await;
    let status = loop {
        match system.client.clone().get_summary(GetSummaryRequest::default()).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("metrics-data/0 offset 1 can't be read"), "{status}");
    assert!(system.get("/readyz").await.starts_with("HTTP/1.1 503"));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_retention_was_raised_nothing_is_answered_from_buckets_that_lack_events() {
    const DAYS: i64 = 86_400 * SECOND;
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let mut writer = Writer::new(0);
    system.append(0, writer.claim()).await;
    system.append(1, Writer::new(0).claim()).await;
    let at = |ago: i64| Event::at(now_micros() - ago);
    for event in [at(4 * DAYS), at(3 * DAYS), at(5 * SECOND)] {
        system.append(0, writer.batch(&[event])).await;
    }
    system.summary(token(0, 2)).await;
    system.stop().await;

    let week = Some(Duration::from_secs(7 * 86_400));
    let system = System::start_with(dir.path(), |config| config.rollups.retention.minute = week).await;
    let last = prost_types::Duration { seconds: 5 * 86_400, nanos: 0 };
    let series = QueryTimeSeriesRequest {
        time_range: Some(TimeRange { last: Some(last), ..TimeRange::default() }),
        ..Default::default()
    };
    let by_minute = QueryTimeSeriesRequest { interval: Interval::Minute.into(), ..series.clone() };
    let status = system.client.clone().query_time_series(by_minute).await.unwrap_err();
    assert!(status.message().contains("minutes are kept since"), "{status}");
    let whole = system.client.clone().query_time_series(series).await.unwrap().into_inner();
    assert_eq!(whole.series[0].totals[0].value, 3.0);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_panics_is_not_ready_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let writer = Writer::new(0);
    system.append(0, writer.claim()).await;
    for start_offset in 0..2 {
        // Together more than can be counted.
        let cell = weir_proto::rollup::v1::Cell { level: 5, count: u64::MAX, ..Default::default() };
        let rollups = vec![weir_proto::rollup::v1::RollupDelta { definition: 1, cells: vec![cell] }];
        let batch = weir_proto::rollup::v1::MicroBatch {
            owner: writer.owner.as_bytes().to_vec(),
            start_offset,
            end_offset: start_offset + 1,
            projects: vec![weir_proto::rollup::v1::ProjectDelta { project: "default".to_owned(), rollups }],
            ..Default::default()
        };
        let record = weir_proto::rollup::v1::metrics_record::Record::Batch(batch);
        let record = weir_proto::rollup::v1::MetricsRecord { record: Some(record) };
        system.append(0, record.encode_to_vec()).await;
    }
    while system.get("/readyz").await.starts_with("HTTP/1.1 200") {
        tokio::task::yield_now().await;
    }
    assert!(system.get("/readyz").await.contains("restart this service"));
    let status = system.client.clone().get_summary(GetSummaryRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("restart this service"), "{status}");
    system.stop().await;
}
