//! `weir.metrics.v1.MetricsService`, which every server has without being told.

use std::time::Duration;

use tonic::{Code, Streaming, transport::Channel};
use tonic_types::StatusExt as _;
use weir_proto::metrics::v1::{
    ExportMetricsRequest, GetMetricsRequest, WatchMetricsRequest, WatchMetricsResponse,
    export_metrics_request::Format, metric_family::Type, metrics_service_client::MetricsServiceClient,
};

use super::{
    HANG,
    fixture::{Fixture, Method, http_get, within},
};

const CALLS: &str = "grpc_server_handled_total";

fn client(fixture: &Fixture) -> MetricsServiceClient<Channel> {
    MetricsServiceClient::new(fixture.channel.clone())
}

async fn watch(fixture: &Fixture, prefix: &str, interval: Duration) -> Streaming<WatchMetricsResponse> {
    let interval = Some(interval.try_into().unwrap());
    let request = WatchMetricsRequest { prefix: prefix.to_owned(), interval };
    within(client(fixture).watch_metrics(request)).await.unwrap().into_inner()
}

async fn next(responses: &mut Streaming<WatchMetricsResponse>) -> WatchMetricsResponse {
    within(responses.message()).await.unwrap().expect("a watch does not end by itself")
}

#[tokio::test]
async fn metrics_are_read_as_data() {
    let fixture = Fixture::start(|_| {}).await;
    fixture.call(Method::Echo, 1).await.unwrap();
    fixture
        .until_metrics_show(
            r#"grpc_server_handled_total{code="OK",method="test.v1.Test/Echo",service="test"} 1"#,
        )
        .await;
    let request = GetMetricsRequest { prefix: "grpc_server_hand".to_owned() };
    let answer = within(client(&fixture).get_metrics(request)).await.unwrap().into_inner();
    assert!(answer.read_time.is_some());
    let [handled, handling] = answer.families.as_slice() else { panic!("{:?}", answer.families) };
    assert_eq!((handled.name.as_str(), handled.r#type()), (CALLS, Type::Counter));
    assert_eq!(handled.samples[0].labels["method"], "test.v1.Test/Echo");
    assert_eq!(handled.samples[0].value, 1.0);
    assert_eq!(
        (handling.name.as_str(), handling.r#type()),
        ("grpc_server_handling_seconds", Type::Histogram)
    );
    assert_eq!(handling.samples[0].histogram.as_ref().unwrap().count, 1);

    let all = within(client(&fixture).get_metrics(GetMetricsRequest::default())).await.unwrap().into_inner();
    assert!(all.families.iter().any(|family| family.name == "weir_build_info"), "{:?}", all.families);
    fixture.stop().await;
}

#[tokio::test]
async fn exports_are_in_the_format_asked_for() {
    let fixture = Fixture::start(|_| {}).await;
    let export = async |format: Format| {
        let request = ExportMetricsRequest { format: format.into(), prefix: "weir_build_info".to_owned() };
        within(client(&fixture).export_metrics(request)).await.unwrap().into_inner()
    };
    let text = export(Format::Unspecified).await;
    assert_eq!(text, export(Format::Prometheus).await);
    assert_eq!(text.content_type, "text/plain; version=0.0.4");
    let exposed = http_get(fixture.http, "/metrics", &[]).await;
    assert!(exposed.body().contains(&text.content), "{} is not in\n{}", text.content, exposed.body());

    let json = export(Format::Json).await;
    assert_eq!(json.content_type, "application/x-ndjson");
    let line: serde_json::Value = serde_json::from_str(&json.content).unwrap();
    assert_eq!((&line["name"], &line["value"]), (&"weir_build_info".into(), &1.0.into()));
    let version = line["labels"]["version"].as_str().unwrap();

    let csv = export(Format::Csv).await;
    assert!(csv.content_type.starts_with("text/csv"));
    let [header, line] = csv.content.lines().collect::<Vec<_>>()[..] else { panic!("{}", csv.content) };
    let column = |name| line.split(',').nth(header.split(',').position(|n| n == name).unwrap()).unwrap();
    assert_eq!((column("name"), column("type"), column("value")), ("weir_build_info", "gauge", "1"));
    assert_eq!((column("version"), column("le")), (version, ""));

    let unknown = ExportMetricsRequest { format: 99, prefix: String::new() };
    let error = within(client(&fixture).export_metrics(unknown)).await.unwrap_err();
    assert_eq!(error.get_details_bad_request().unwrap().field_violations[0].field, "format");
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_tells_at_once_and_then_what_changed() {
    let fixture = Fixture::start(|_| {}).await;
    fixture.metrics.errors("test", "first").inc();
    let mut responses = watch(&fixture, "errors_total", Duration::from_millis(100)).await;
    let first = next(&mut responses).await;
    assert_eq!(first.families[0].samples.len(), 1);

    fixture.metrics.errors("test", "second").inc();
    while next(&mut responses).await.families[0].samples.len() < 2 {}
    drop(responses);
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_cannot_be_too_frequent_or_too_rare() {
    let fixture = Fixture::start(|_| {}).await;
    for interval in [Duration::ZERO, Duration::from_millis(99), Duration::from_secs(61)] {
        let request =
            WatchMetricsRequest { prefix: String::new(), interval: Some(interval.try_into().unwrap()) };
        let error = within(client(&fixture).watch_metrics(request)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{interval:?}");
        assert_eq!(error.get_details_bad_request().unwrap().field_violations[0].field, "interval");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_watch_holds_up_no_drain_and_is_told_why_it_ends() {
    let fixture = Fixture::start(|limits| limits.drain_timeout = HANG * 10).await;
    let mut responses = watch(&fixture, "", Duration::from_secs(60)).await;
    next(&mut responses).await;
    // Had the watch to be cut, this would be a hang.
    fixture.stop().await;
    let error = within(responses.message()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.get_details_error_info().unwrap().reason, "DRAINING");
}
