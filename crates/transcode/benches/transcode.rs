//! What the REST form of one ingested event costs beside its gRPC: JSON and routing only, with a backend that answers at
//! once, and no socket.

use axum::{Router, body::Body, extract::Request};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http_body_util::{BodyExt as _, StreamBody};
use tower::ServiceExt as _;

/// About 300 bytes, as clients send it.
const EVENT: &str = r#"{"eventId":"0197b2a0-7c3e-7d4a-9f3e-0123456789ab","eventName":"purchase","userId":"user-184467","sessionId":"s-9f3e0123","eventTime":"2026-01-31T12:00:00.123Z","properties":{"platform":"web","channel":"email","items":3,"premium":true},"revenue":{"currencyCode":"USD","units":"129","nanos":990000000}}"#;

/// The gRPC frame of a message with every field at its default.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// A gRPC service that does nothing.
async fn nothing(
    request: http::Request<tonic::body::Body>,
) -> Result<http::Response<tonic::body::Body>, tonic::Status> {
    let body = request.into_body().collect().await?.to_bytes();
    assert!(body.len() > 100);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames =
        [http_body::Frame::data(Bytes::from_static(&EMPTY_MESSAGE)), http_body::Frame::trailers(trailers)];
    let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, tonic::Status>)));
    Ok(http::Response::new(tonic::body::Body::new(body)))
}

async fn post(router: Router, path: &'static str, body: Bytes) -> Bytes {
    let request = Request::post(path).header("content-type", "application/json").body(Body::from(body));
    let response = router.oneshot(request.expect("a valid request")).await;
    let response = response.unwrap_or_else(|never| match never {});
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a whole answer").to_bytes()
}

fn transcode(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let limits = weir_runtime::Config::default().server;
    let services = &["weir.ingest.v1.IngestService"];
    let router = weir_transcode::rest(weir_proto::DESCRIPTORS, services, tower::service_fn(nothing), &limits)
        .expect("good rules");
    let one = Bytes::from_static(EVENT.as_bytes());
    let batch = Bytes::from(format!("{{\"events\":[{}]}}", vec![EVENT; 1000].join(",")));
    criterion.bench_function("POST /v1/events", |bencher| {
        bencher.iter(|| runtime.block_on(post(router.clone(), "/v1/events", one.clone())));
    });
    criterion.bench_function("POST /v1/events:batch of 1000", |bencher| {
        bencher.iter(|| runtime.block_on(post(router.clone(), "/v1/events:batch", batch.clone())));
    });
}

criterion_group!(benches, transcode);
criterion_main!(benches);
