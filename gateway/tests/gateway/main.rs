//! The standalone gateway in front of services that come and go.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../../../crates/transcode/tests/rest/fixture.rs"]
#[allow(dead_code, reason = "it is shared with the tests of the transcoder")]
mod fixture;

use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use serde_json::json;
use tokio::task::JoinHandle;
use weir_gateway::Error;
use weir_proto::ingest::v1::{
    IngestEventRequest, IngestEventResponse, ingest_service_client::IngestServiceClient,
};
use weir_runtime::{Config, Context, Listeners, Shutdown};

use fixture::{ANY_PORT, Fixture, HANG, answer};

struct Gateway {
    base: String,
    context: Context,
    served: JoinHandle<Result<(), Error>>,
}

impl Gateway {
    async fn before(upstream: SocketAddr) -> Self {
        let mut config = Config::default();
        let url = format!("http://{upstream}");
        config.gateway.producer_url.clone_from(&url);
        config.gateway.consumer_url.clone_from(&url);
        config.gateway.analytics_url = url;
        let context = Context::new(config, Shutdown::new());
        let listeners = Listeners::bind(ANY_PORT, None, false).await.unwrap();
        let base = format!("http://{}", listeners.http_address());
        let served = tokio::spawn(weir_gateway::serve(context.clone(), listeners));
        Self { base, context, served }
    }

    fn post(&self, path: &str, body: &'static str) -> reqwest::RequestBuilder {
        let request = reqwest::Client::new().post(format!("{}{path}", self.base));
        request.header("content-type", "application/json").body(body)
    }

    async fn until_ready(&self, expected: bool) -> serde_json::Value {
        let ready = async {
            loop {
                let (status, report) =
                    answer(reqwest::Client::new().get(format!("{}/readyz", self.base))).await;
                if (status == 200) == expected && !report.to_string().contains("starting") {
                    return report;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(HANG, ready).await.expect("readiness changes")
    }

    async fn stop(self) {
        self.context.shutdown.trigger();
        tokio::time::timeout(HANG, self.served).await.expect("the gateway stops").unwrap().unwrap();
    }
}

/// An address where nobody listens.
async fn nowhere() -> SocketAddr {
    tokio::net::TcpListener::bind(ANY_PORT).await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn rest_passes_to_the_services() {
    let f = Fixture::start().await;
    let gateway = Gateway::before(f.grpc).await;
    let (status, json) = answer(gateway.post("/v1/events", r#"{"eventName": "a", "eventId": "e"}"#)).await;
    assert_eq!((status, json), (200, json!({"eventId": "e", "consistencyToken": "a"})));
    let (status, error) = answer(gateway.post("/v1/events", "{}")).await;
    assert_eq!(
        (status, &error["error"]["details"][1]["fieldViolations"][0]["field"]),
        (400, &json!("event.event_name"))
    );
    let text = gateway.post("/v1/analytics:watch", "{}").send().await.unwrap().text().await.unwrap();
    assert!(text.ends_with("event: end\ndata: {}\n\n"), "{text}");
    let metrics =
        reqwest::Client::new().get(format!("{}/v1/metrics?prefix=requests_in_flight", gateway.base));
    let (_, metrics) = answer(metrics).await;
    assert_eq!(metrics["families"][0]["samples"][0]["labels"]["service"], "gateway", "its own: {metrics}");
    gateway.until_ready(true).await;
    gateway.stop().await;
}

#[tokio::test]
async fn grpc_passes_to_the_services() {
    let f = Fixture::start().await;
    let gateway = Gateway::before(f.grpc).await;
    let mut client = IngestServiceClient::connect(gateway.base.clone()).await.unwrap();
    let event = weir_proto::event::v1::Event { event_name: "a".to_owned(), ..Default::default() };
    let answer = client.ingest_event(IngestEventRequest { event: Some(event) }).await.unwrap();
    assert_eq!(answer.get_ref().consistency_token, "a");
    let error = client.ingest_event(IngestEventRequest::default()).await.unwrap_err();
    assert_eq!(error.message(), "event: is required");
    drop(client);
    gateway.stop().await;
}

#[tokio::test]
async fn grpc_web_passes_to_the_services() {
    let f = Fixture::start().await;
    let gateway = Gateway::before(f.grpc).await;
    let event = weir_proto::event::v1::Event { event_name: "a".to_owned(), ..Default::default() };
    let message = IngestEventRequest { event: Some(event) }.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    let request = reqwest::Client::new()
        .post(format!("{}/weir.ingest.v1.IngestService/IngestEvent", gateway.base))
        .header("content-type", "application/grpc-web+proto")
        .body(frame.freeze());
    let mut answer: Bytes = request.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(answer.get_u8(), 0, "a message");
    let length = answer.get_u32() as usize;
    let message = IngestEventResponse::decode(answer.split_to(length)).unwrap();
    assert_eq!(message.consistency_token, "a");
    assert_eq!(answer.get_u8(), 0x80, "the trailers");
    assert!(String::from_utf8_lossy(&answer[4..]).contains("grpc-status:0"), "{answer:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_service_that_is_away_is_told_and_found_again() {
    let address = nowhere().await;
    let gateway = Gateway::before(address).await;
    let (status, error) = answer(gateway.post("/v1/events", r#"{"eventName": "a"}"#)).await;
    assert_eq!(
        (status, &error["error"]["details"][1]["reason"]),
        (503, &json!("UPSTREAM_UNAVAILABLE")),
        "{error}"
    );
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("the producer at http://{address} cannot be reached")), "{message}");
    let report = gateway.until_ready(false).await;
    assert_eq!(report["checks"][0]["name"], "analytics");

    let f = Fixture::start_at(address).await;
    gateway.until_ready(true).await;
    assert_eq!(answer(gateway.post("/v1/events", r#"{"eventName": "a"}"#)).await.0, 200);
    drop(f);
    gateway.until_ready(false).await;
    gateway.stop().await;
}

#[tokio::test]
async fn metrics_are_those_of_the_gateway() {
    let gateway = Gateway::before(nowhere().await).await;
    let metrics =
        reqwest::Client::new().get(format!("{}/v1/metrics?prefix=requests_in_flight", gateway.base));
    let (status, json) = answer(metrics).await;
    assert_eq!((status, &json["families"][0]["type"]), (200, &json!("TYPE_GAUGE")), "{json}");
    let own = json!({"labels": {"service": "gateway"}, "value": 1.0});
    assert_eq!(json["families"][0]["samples"], json!([own]), "{json}");

    let export = format!("{}/v1/metrics:export?format=FORMAT_CSV&prefix=requests_in_flight", gateway.base);
    let (status, json) = answer(reqwest::Client::new().get(export)).await;
    assert_eq!(status, 200);
    assert!(json["content"].as_str().unwrap().contains(",requests_in_flight,gauge,"), "{json}");

    let mut watch = reqwest::get(format!("{}/v1/metrics:watch?interval=60s", gateway.base)).await.unwrap();
    assert!(watch.chunk().await.unwrap().unwrap().starts_with(b"id: 1\n"));
    gateway.context.shutdown.trigger();
    let rest = tokio::time::timeout(HANG, watch.text()).await.unwrap().unwrap();
    assert!(rest.contains("event: error") && rest.contains("DRAINING"), "{rest}");
    gateway.stop().await;
}

#[tokio::test]
async fn streams_end_when_the_gateway_stops() {
    let f = Fixture::start().await;
    let gateway = Gateway::before(f.grpc).await;
    let mut response = reqwest::get(format!("{}/v1/events:watch", gateway.base)).await.unwrap();
    assert!(response.chunk().await.unwrap().unwrap().starts_with(b"id: 1\n"));
    gateway.context.shutdown.trigger();
    let rest = tokio::time::timeout(HANG, response.text()).await.unwrap().unwrap();
    assert!(rest.contains("event: error") && rest.contains("DRAINING"), "{rest}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_url_that_is_none_names_its_key() {
    let mut config = Config::default();
    config.gateway.consumer_url = "not a url".to_owned();
    let listeners = Listeners::bind(ANY_PORT, None, false).await.unwrap();
    let error = weir_gateway::serve(Context::new(config, Shutdown::new()), listeners).await.unwrap_err();
    assert!(error.to_string().contains("gateway.consumer_url"), "{error}");
}
