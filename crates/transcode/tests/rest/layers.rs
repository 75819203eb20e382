//! Every RPC passes the same layers once, whichever way it is called.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Request};
use http_body_util::{BodyExt as _, Full};
use prost_reflect::MethodDescriptor;
use tonic::{Status, service::Routes};
use tower::ServiceExt as _;
use weir_runtime::{
    Config, Context, Host, Listeners, Shutdown,
    server::{Deadline, RequestMemory, Rpc},
};

use crate::{fixture::ANY_PORT, schema};

/// What a handler finds of the layers in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    memory: bool,
    deadline: bool,
}

/// Answers every RPC with an error of its own, so that each way shows that it came to its end.
async fn handle(found: Arc<Mutex<Vec<Found>>>, request: Request) -> http::Response<axum::body::Body> {
    let extensions = request.extensions();
    let seen = Found {
        memory: extensions.get::<RequestMemory>().is_some(),
        deadline: extensions.get::<Deadline>().is_some(),
    };
    found.lock().unwrap().push(seen);
    Status::aborted("answered").into_http()
}

struct Fixture {
    context: Context,
    found: Arc<Mutex<Vec<Found>>>,
    rpc: Rpc,
    http: String,
    grpc: String,
}

impl Fixture {
    /// One call at a time has a place, so that a call which took two would be refused.
    async fn start() -> Self {
        let mut config = Config::default();
        config.server.max_concurrent_requests = 1;
        let context = Context::new(config, Shutdown::new());
        let found = Arc::new(Mutex::new(Vec::new()));
        let handler = found.clone();
        let routes = Router::new().fallback(move |request| handle(handler.clone(), request));
        let services = schema::services();
        let (send, rpc) = tokio::sync::oneshot::channel();
        let limits = context.config.server.clone();
        let host = Host::new("test", context.clone())
            .grpc(Routes::from(routes), &[], &[weir_proto::DESCRIPTORS])
            .unwrap()
            .http(move |rpc: Rpc| {
                let _ = send.send(rpc.clone());
                let services: Vec<&str> = services.iter().map(String::as_str).collect();
                weir_transcode::rest(weir_proto::DESCRIPTORS, &services, rpc, &limits)
            });
        let listeners = Listeners::bind(ANY_PORT, Some(ANY_PORT), false).await.unwrap();
        let (http, grpc) = (listeners.http_address(), listeners.grpc_address().unwrap());
        tokio::spawn(host.serve(listeners));
        let rpc = rpc.await.unwrap();
        Self { context, found, rpc, http: format!("http://{http}"), grpc: format!("http://{grpc}") }
    }

    /// Calls that ended, by method.
    fn counted(&self) -> Vec<String> {
        let metrics = self.context.metrics.render();
        let lines = metrics.lines().filter(|line| line.starts_with("grpc_server_handled_total"));
        lines.map(ToOwned::to_owned).collect()
    }
}

/// A gRPC frame with an empty message.
const EMPTY: [u8; 5] = [0; 5];

async fn over_rpc(fixture: &Fixture, rpc: &MethodDescriptor) -> Status {
    let request = http::Request::post(path(rpc)).header("content-type", "application/grpc");
    let body = Full::new(bytes::Bytes::from_static(&EMPTY));
    let Ok::<_, Infallible>(response) = fixture.rpc.clone().oneshot(request.body(body).unwrap()).await;
    let status = Status::from_header_map(response.headers()).unwrap();
    response.into_body().collect().await.unwrap();
    status
}

async fn over_grpc(client: &reqwest::Client, fixture: &Fixture, rpc: &MethodDescriptor) -> Status {
    let request = client.post(format!("{}{}", fixture.grpc, path(rpc)));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    Status::from_header_map(request.body(EMPTY.to_vec()).send().await.unwrap().headers()).unwrap()
}

async fn over_grpc_web(fixture: &Fixture, rpc: &MethodDescriptor) -> Status {
    let request = reqwest::Client::new().post(format!("{}{}", fixture.http, path(rpc)));
    let request = request.header("content-type", "application/grpc-web+proto");
    Status::from_header_map(request.body(EMPTY.to_vec()).send().await.unwrap().headers()).unwrap()
}

/// `None` where the RPC has no rule.
async fn over_rest(fixture: &Fixture, rpc: &MethodDescriptor, index: &serde_json::Value) -> Option<u16> {
    let routes = index["routes"].as_array().unwrap();
    let route = routes.iter().find(|route| route["rpc"] == rpc.full_name())?;
    let path = route["path"].as_str().unwrap();
    let mut url = String::new();
    // A variable may be any text that is one segment.
    for segment in path.split('/').skip(1) {
        url.push('/');
        match (segment.find('{'), segment.find('}')) {
            (Some(begin), Some(end)) => {
                url.push_str(&segment[..begin]);
                url.push('1');
                url.push_str(&segment[end + 1..]);
            }
            _ => url.push_str(segment),
        }
    }
    let method = route["method"].as_str().unwrap().parse().unwrap();
    let mut request = reqwest::Client::new().request(method, format!("{}{url}", fixture.http));
    if route["stream"] == "request" {
        request = request.header("content-type", "application/x-ndjson").body("{}\n");
    } else if route["body"] != "" {
        request = request.header("content-type", "application/json").body("{}");
    }
    Some(request.send().await.unwrap().status().as_u16())
}

fn path(rpc: &MethodDescriptor) -> String {
    format!("/{}/{}", rpc.parent_service().full_name(), rpc.name())
}

#[tokio::test]
async fn every_rpc_passes_the_layers_once_whichever_way_it_is_called() {
    let fixture = Fixture::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let index = reqwest::get(format!("{}/v1", fixture.http)).await.unwrap().json().await.unwrap();
    let mut expected = Vec::new();
    for rpc in schema::rpcs() {
        if ["weir.metrics.v1.MetricsService", "weir.store.v1.HotService"]
            .contains(&rpc.parent_service().full_name())
        {
            // Answered by the host itself, and on the internal port alone: the tests of the runtime call those.
            continue;
        }
        let mut ways = 0;
        for (way, status) in [
            ("in process", over_rpc(&fixture, &rpc).await),
            ("gRPC", over_grpc(&client, &fixture, &rpc).await),
            ("gRPC-Web", over_grpc_web(&fixture, &rpc).await),
        ] {
            assert_eq!(status.message(), "answered", "{} over {way}: {status}", rpc.full_name());
            ways += 1;
        }
        if let Some(status) = over_rest(&fixture, &rpc, &index).await {
            assert_eq!(status, 409, "{} over REST", rpc.full_name());
            ways += 1;
        }
        let streams = rpc.is_client_streaming() || rpc.is_server_streaming();
        let found = std::mem::take(&mut *fixture.found.lock().unwrap());
        assert_eq!(found, vec![Found { memory: true, deadline: !streams }; ways], "{}", rpc.full_name());
        let name = format!("{}/{}", rpc.parent_service().full_name(), rpc.name());
        expected.push(format!(
            r#"grpc_server_handled_total{{code="Aborted",method="{name}",service="test"}} {ways}"#
        ));
    }
    expected.sort();
    assert_eq!(fixture.counted(), expected);
    assert!(expected.len() > 20, "{} RPCs", expected.len());
    fixture.context.shutdown.trigger();
}
