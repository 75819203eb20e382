//! A server with a small service of its own, on port 0, over real sockets: what callers see of its limits, its health and
//! its drain.

#![allow(clippy::unwrap_used, reason = "clippy exempts only the tests themselves, not what they share")]

mod callers;
mod fixture;
mod hosts;
mod metrics;

use std::time::Duration;

use fixture::{Fixture, Method, http_get, http_post, within};
use http::StatusCode;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

/// Longer than anything here takes; only a hang reaches it.
const HANG: Duration = Duration::from_secs(20);
/// A server that waits for no call is gone before this; it lets its connections send what they hold, but not for as long.
const NO_DRAIN: Duration = Duration::from_secs(1);
/// A gRPC frame of `google.protobuf.Duration { seconds: 7 }`.
const ONE_DURATION: [u8; 7] = [0, 0, 0, 0, 2, 0x08, 7];

/// A message as gRPC frames it.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], length.as_slice(), message].concat()
}

#[tokio::test]
async fn what_is_internal_is_served_on_the_internal_port_alone() {
    let [outside, internal] = fixture::call_internal("SCOPE_INTERNAL").await;
    assert_eq!(outside.unwrap_err().code(), Code::PermissionDenied, "nobody outside has the scope");
    assert_eq!(internal.unwrap().into_inner().seconds, 7);
    // And nothing else is.
    let [_, internal] = fixture::call_internal("SCOPE_QUERY_READ").await;
    assert_eq!(internal.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_rpc_is_answered_and_counted() {
    let fixture = Fixture::start(|_| {}).await;
    let answer = fixture.call(Method::Echo, 7).await.unwrap();
    assert_eq!(answer.get_ref().seconds, 7);
    assert_eq!(answer.metadata().get("x-request-id").unwrap().len(), 32);
    let line = r#"grpc_server_handled_total{code="OK",method="test.v1.Test/Echo",service="test"} 1"#;
    fixture.until_metrics_show(line).await;
    fixture.stop().await;
}

#[tokio::test]
async fn an_rpc_without_a_scope_prevents_the_start() {
    let error = fixture::serve_without_scope().await.to_string();
    assert!(error.contains("test.v1.Test/Echo names no scope"), "{error}");
}

#[tokio::test]
async fn a_trace_is_continued() {
    let fixture = Fixture::start(|_| {}).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = http_get(fixture.http, "/v1/hello", &[("traceparent", parent)]).await;
    assert_eq!(answer.headers()["x-request-id"], "0af7651916cd43dd8448eb211c80319c");
    fixture.stop().await;
}

#[tokio::test]
async fn http_routes_are_served_and_unknown_ones_explained() {
    let fixture = Fixture::start(|_| {}).await;
    let answer = http_get(fixture.http, "/v1/hello", &[]).await;
    assert_eq!((answer.status(), answer.body().as_str()), (StatusCode::OK, "hello"));

    let answer = http_get(fixture.http, "/v1/helo", &[]).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let json: serde_json::Value = serde_json::from_str(answer.body()).unwrap();
    assert_eq!(json["error"]["status"], "NOT_FOUND");
    assert_eq!(json["error"]["details"][0]["reason"], "ROUTE_NOT_FOUND");

    let answer = http_post(fixture.http, "/v1/hello", &[], Vec::new()).await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(answer.body().contains("does not take POST"), "{}", answer.body());

    fixture.until_metrics_show(r#"http_requests_total{code="200",route="/v1/hello",service="test"} 1"#).await;
    fixture
        .until_metrics_show(r#"http_requests_total{code="404",route="(unmatched)",service="test"} 1"#)
        .await;
    fixture.stop().await;
}

#[tokio::test]
async fn http_on_the_grpc_port_is_told_where_to_go() {
    let fixture = Fixture::start(|_| {}).await;
    let answer = http_get(fixture.grpc, "/healthz", &[]).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(answer.body().contains("HTTP port"), "{}", answer.body());
    fixture.stop().await;
}

#[tokio::test]
async fn grpc_web_works_over_http_1() {
    let fixture = Fixture::start(|_| {}).await;
    for port in [fixture.http, fixture.grpc] {
        let headers = [("content-type", "application/grpc-web+proto")];
        let answer = http_post(port, "/test.v1.Test/Echo", &headers, ONE_DURATION.to_vec()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.body().contains("grpc-status:0"), "{:?}", answer.body());
    }
    fixture.stop().await;
}

#[tokio::test]
async fn health_follows_the_checks_over_both_protocols() {
    let fixture = Fixture::start(|_| {}).await;
    let check = fixture.health.register("log");
    check.failing("no broker answers");
    let answer = http_get(fixture.http, "/readyz", &[]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body().contains("no broker answers"), "{}", answer.body());
    assert_eq!(http_get(fixture.http, "/healthz", &[]).await.status(), StatusCode::OK);

    for service in ["", "test.v1.Test", "weir.metrics.v1.MetricsService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut client = HealthClient::new(fixture.channel.clone());
        let mut watch = client.watch(request).await.unwrap().into_inner();
        // 1 SERVING, 2 NOT_SERVING; the reporter may be a moment behind the check.
        check.failing("still none");
        while within(watch.message()).await.unwrap().unwrap().status != 2 {}
        check.ok();
        while within(watch.message()).await.unwrap().unwrap().status != 1 {}
    }
    assert_eq!(http_get(fixture.http, "/readyz", &[]).await.status(), StatusCode::OK);
    fixture.stop().await;
}

#[tokio::test]
async fn health_knows_what_is_served_and_nothing_else() {
    let fixture = Fixture::start(|_| {}).await;
    let mut client = HealthClient::new(fixture.channel.clone());
    // Described, for its types, but served elsewhere.
    let request = HealthCheckRequest { service: "weir.ingest.v1.IngestService".to_owned() };
    assert_eq!(client.check(request).await.unwrap_err().code(), Code::NotFound);
    fixture.stop().await;
}

#[tokio::test]
async fn reflection_describes_the_details_of_errors() {
    let fixture = Fixture::start(|_| {}).await;
    for symbol in ["Status", "ErrorInfo", "BadRequest", "RetryInfo", "BadRequest.FieldViolation"] {
        let file = fixture.reflected_file(&format!("google.rpc.{symbol}")).await;
        assert!(file.is_some_and(|file| file.package() == "google.rpc"), "{symbol} is not described");
    }
    let options = fixture.reflected_file("weir.event.v1.Event").await;
    assert!(options.is_some());
    fixture.stop().await;
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let fixture = Fixture::start(|_| {}).await;
    assert_eq!(
        fixture.reflected_services().await,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "test.v1.Test",
            "weir.metrics.v1.MetricsService"
        ]
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_nothing_more() {
    let fixture = Fixture::start(|_| {}).await;
    let error = fixture.call(Method::Panic, 1).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(!error.message().contains("on purpose"), "a fault's text stays in the log");
    assert!(fixture.call(Method::Echo, 1).await.is_ok());
    fixture.until_metrics_show(r#"errors_total{kind="panic",service="test"} 1"#).await;
    fixture.stop().await;
}

#[tokio::test]
async fn deadlines_end_calls_and_streams() {
    let fixture = Fixture::start(|limits| limits.request_timeout = Duration::from_millis(20)).await;
    let error = fixture.call(Method::Wait, 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.get_details_retry_info().is_some());
    assert!(error.message().contains("20ms"), "the server's own deadline: {error}");

    // The caller's own, over gRPC-Web: tonic's client would not wait for the server's word.
    let headers = [("content-type", "application/grpc-web+proto"), ("grpc-timeout", "1m")];
    let answer = http_post(fixture.http, "/test.v1.Test/Wait", &headers, ONE_DURATION.to_vec()).await;
    assert_eq!(answer.headers()["grpc-status"], "4");
    assert!(answer.headers()["grpc-message"].to_str().unwrap().contains("1ms"));
    let answer = http_post(fixture.http, "/test.v1.Test/Stream", &headers, ONE_DURATION.to_vec()).await;
    assert!(answer.body().contains("grpc-status:4"), "{:?}", answer.body());

    // A stream has no deadline but its caller's: this one outlives several of the unary ones.
    let mut stream = fixture.stream().await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
    assert!(fixture.call(Method::Wait, 1).await.is_err());
    assert!(tokio::time::timeout(Duration::ZERO, stream.message()).await.is_err(), "the stream still runs");
    drop(stream);
    fixture.stop().await;
}

#[tokio::test]
async fn overload_is_refused_early_and_health_still_answers() {
    let fixture = Fixture::start(|limits| limits.max_concurrent_requests = 1).await;
    let mut stream = fixture.stream().await.unwrap();
    assert!(stream.message().await.unwrap().is_some());

    let error = fixture.call(Method::Echo, 1).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.get_details_retry_info().is_some());
    let answer = http_get(fixture.http, "/v1/hello", &[]).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(http_get(fixture.http, "/healthz", &[]).await.status(), StatusCode::OK);

    drop(stream);
    fixture.until_metrics_show(r#"requests_in_flight{service="test"} 0"#).await;
    assert!(fixture.call(Method::Echo, 1).await.is_ok(), "the place is free again");
    fixture.stop().await;
}

#[tokio::test]
async fn requests_that_are_received_at_once_share_a_budget() {
    let fixture = Fixture::start(|limits| limits.request_memory_bytes = 1000).await;
    let headers = [("content-type", "application/grpc-web+proto")];
    let large = framed(0, &[0x12, 0xf0, 1].iter().copied().chain([0; 240]).collect::<Vec<_>>().repeat(8));
    let answer = http_post(fixture.http, "/test.v1.Test/Echo", &headers, large).await;
    let status = tonic::Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("server.request_memory_bytes"), "{status}");
    assert!(status.get_details_retry_info().is_some(), "it fits once others are done");
    // What was received has been given back, many times over.
    for _ in 0..500 {
        assert!(fixture.call(Method::Echo, 1).await.is_ok());
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_request_that_does_not_decode_is_the_callers_fault() {
    let fixture = Fixture::start(|_| {}).await;
    let headers = [("content-type", "application/grpc-web+proto")];
    for call in ["Echo", "Stream"] {
        let garbage = b"\0\0\0\0\x04\xff\xff\xff\xff".to_vec();
        let answer = http_post(fixture.http, &format!("/test.v1.Test/{call}"), &headers, garbage).await;
        let status = tonic::Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("grpcurl describe"), "{status}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "BODY_MALFORMED");
    }
    let line =
        r#"grpc_server_handled_total{code="InvalidArgument",method="test.v1.Test/Echo",service="test"} 1"#;
    fixture.until_metrics_show(line).await;
    fixture.stop().await;
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let fixture = Fixture::start(|_| {}).await;
    let long = "x".repeat(40_000);
    let answer = http_get(fixture.http, "/v1/hello", &[("x-long", &long)]).await;
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    fixture.stop().await;
}

#[tokio::test]
async fn a_drain_lets_calls_finish_and_takes_no_new_ones() {
    let mut fixture = Fixture::start(|limits| limits.drain_timeout = HANG).await;
    let call = fixture.spawn_call(Method::Wait);
    fixture.until_waiting().await;

    fixture.shutdown.trigger();
    within(fixture.health.until(false)).await;
    assert!(fixture.health.report().draining);
    fixture.until_refused().await;
    assert!(!fixture.stops_within(NO_DRAIN).await, "it did not wait for the call in progress");

    fixture.release();
    assert_eq!(call.await.unwrap().unwrap().get_ref().seconds, 1);
    fixture.stop().await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let fixture = Fixture::start(|limits| limits.drain_timeout = Duration::ZERO).await;
    let mut stream = fixture.stream().await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
    fixture.stop().await;
    assert!(within(stream.message()).await.is_err());
}

#[tokio::test]
async fn watchers_of_health_hold_up_no_drain() {
    let fixture = Fixture::start(|limits| limits.drain_timeout = HANG * 10).await;
    let mut client = HealthClient::new(fixture.channel.clone());
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    fixture.stop().await;
    // It was told before it was cut.
    let last = within(watch.message()).await.unwrap();
    assert_eq!(last.expect("the watch is told that the service is not ready").status, 2);
}
