//! The service under test, written by hand: it echoes, waits, panics and streams `google.protobuf.Duration`s.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message as _;
use prost_types::{Duration as Value, FileDescriptorProto};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming, body::Body, service::Routes, transport::Channel};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use weir_runtime::{Config, Context, Health, Host, Listeners, Metrics, Shutdown, config, server};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Method {
    Echo,
    Wait,
    Panic,
}

/// Handlers of `Wait` announce themselves and go on when released.
#[derive(Clone)]
struct Test {
    waiting: Arc<Notify>,
    release: Arc<Semaphore>,
}

impl tonic::server::NamedService for Test {
    const NAME: &'static str = "test.v1.Test";
}

impl tower::Service<http::Request<Body>> for Test {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let test = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Value, Value>::default());
            let answer = match request.uri().path() {
                "/test.v1.Test/Stream" => {
                    let endless = tower::service_fn(async |_: Request<Value>| {
                        let first = tokio_stream::once(Ok::<_, Status>(Value { seconds: 1, nanos: 0 }));
                        Ok::<_, Status>(Response::new(first.chain(tokio_stream::pending())))
                    });
                    grpc.server_streaming(Boxed(endless), request).await
                }
                path => {
                    let path = path.to_owned();
                    let unary = tower::service_fn(move |request: Request<Value>| {
                        let (test, path) = (test.clone(), path.clone());
                        Box::pin(async move {
                            match path.as_str() {
                                "/test.v1.Test/Panic" => panic!("on purpose"),
                                "/test.v1.Test/Wait" => {
                                    test.waiting.notify_one();
                                    test.release.acquire().await.unwrap().forget();
                                }
                                _ => {}
                            }
                            assert!(request.remote_addr().is_some(), "handlers know who calls");
                            Ok::<_, Status>(Response::new(request.into_inner()))
                        })
                    });
                    grpc.unary(unary, request).await
                }
            };
            Ok(answer)
        })
    }
}

type Values = Pin<Box<dyn Stream<Item = Result<Value, Status>> + Send>>;

/// Gives a streaming handler the named types that tonic asks for.
#[derive(Clone)]
struct Boxed<S>(S);

impl<S, R> tonic::server::ServerStreamingService<Value> for Boxed<S>
where
    S: tower::Service<Request<Value>, Response = Response<R>, Error = Status, Future: Send + 'static>,
    R: Stream<Item = Result<Value, Status>> + Send + 'static,
{
    type Response = Value;
    type ResponseStream = Values;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Values>, Status>> + Send>>;

    fn call(&mut self, request: Request<Value>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move { Ok(answer.await?.map(|values| Box::pin(values) as Values)) })
    }
}

/// The schema of the service, in which each RPC has this option.
fn descriptors(option: &str) -> Vec<u8> {
    let rpc = |name: &str, output: &str| {
        format!("rpc {name}(google.protobuf.Duration) returns ({output}) {{ {option} }}")
    };
    let value = "google.protobuf.Duration";
    let rpcs = [
        rpc("Echo", value),
        rpc("Wait", value),
        rpc("Panic", value),
        rpc("Stream", &format!("stream {value}")),
    ];
    let text = format!(
        "syntax = \"proto3\"; package test.v1; import \"google/protobuf/duration.proto\"; \
         import \"weir/auth/v1/scope.proto\"; service Test {{ {} }}",
        rpcs.join(" ")
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("test.proto"), text).unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut compiler = protox::Compiler::new([folder.path().to_owned(), root.join("proto")]).unwrap();
    compiler.include_imports(true).open_file("test.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

/// What a service that forgot to name a scope gets to hear.
pub(crate) async fn serve_without_scope() -> server::Error {
    let test = Test { waiting: Arc::default(), release: Arc::new(Semaphore::new(0)) };
    let host = Host::new("test", Context::new(Config::default(), Shutdown::new()))
        .grpc(Routes::new(test), &["test.v1.Test"], &[&descriptors("")])
        .unwrap();
    let listeners = Listeners::bind(ANY_PORT, None, false).await.unwrap();
    within(host.serve(listeners)).await.unwrap_err()
}

/// What `Echo` answers over the gRPC port and over the internal one, where it is served on the latter and has this scope.
pub(crate) async fn call_internal(scope: &str) -> [Result<Response<Value>, Status>; 2] {
    let test = Test { waiting: Arc::default(), release: Arc::new(Semaphore::new(0)) };
    let context = Context::new(Config::default(), Shutdown::new());
    let shutdown = context.shutdown.clone();
    let option = format!("option (weir.auth.v1.scope) = {scope};");
    let host = Host::new("test", context)
        .grpc(Routes::default(), &[], &[&descriptors(&option), weir_proto::DESCRIPTORS])
        .and_then(|host| host.internal(Routes::new(test), &["test.v1.Test"]))
        .unwrap();
    let listeners = Listeners::bind(ANY_PORT, Some(ANY_PORT), false).await.unwrap();
    let listeners = listeners.with_internal(ANY_PORT, false).await.unwrap();
    let ports = [listeners.grpc_address().unwrap(), listeners.internal_address().unwrap()];
    let served = tokio::spawn(host.serve(listeners));
    let answers = ports.map(|port| async move {
        let channel = Channel::from_shared(format!("http://{port}")).unwrap().connect().await.unwrap();
        call(channel, Method::Echo, 7).await
    });
    let [outside, internal] = answers;
    let answers = [outside.await, internal.await];
    shutdown.trigger();
    within(served).await.unwrap().unwrap();
    answers
}

pub(crate) struct Fixture {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) channel: Channel,
    pub(crate) health: Health,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Metrics,
    test: Test,
    served: JoinHandle<Result<(), server::Error>>,
}

impl Fixture {
    pub(crate) async fn start(adjust: impl FnOnce(&mut config::Server)) -> Self {
        let mut config = Config::default();
        adjust(&mut config.server);
        let listeners = Listeners::bind(ANY_PORT, Some(ANY_PORT), false).await.unwrap();
        let (http, grpc) = (listeners.http_address(), listeners.grpc_address().unwrap());
        let context = Context::new(config, Shutdown::new());
        let (shutdown, metrics) = (context.shutdown.clone(), context.metrics.clone());
        let test = Test { waiting: Arc::default(), release: Arc::new(Semaphore::new(0)) };
        let host = Host::new("test", context)
            .grpc(
                Routes::new(test.clone()),
                &["test.v1.Test"],
                &[&descriptors("option (weir.auth.v1.scope) = SCOPE_QUERY_READ;"), weir_proto::DESCRIPTORS],
            )
            .unwrap()
            .http(|_| Ok::<_, Infallible>(axum::Router::new().route("/v1/hello", get(async || "hello"))));
        let health = host.health().clone();
        let served = tokio::spawn(host.serve(listeners));
        let channel = Channel::from_shared(format!("http://{grpc}")).unwrap().connect().await.unwrap();
        Self { http, grpc, channel, health, shutdown, metrics, test, served }
    }

    pub(crate) async fn call(&self, method: Method, seconds: i64) -> Result<Response<Value>, Status> {
        call(self.channel.clone(), method, seconds).await
    }

    pub(crate) fn spawn_call(&self, method: Method) -> JoinHandle<Result<Response<Value>, Status>> {
        let channel = self.channel.clone();
        tokio::spawn(async move { call(channel, method, 1).await })
    }

    pub(crate) async fn stream(&self) -> Result<Streaming<Value>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/test.v1.Test/Stream");
        let codec = ProstCodec::<Value, Value>::default();
        let answer =
            client.server_streaming(Request::new(Value { seconds: 1, nanos: 0 }), path, codec).await?;
        Ok(answer.into_inner())
    }

    #[track_caller]
    pub(crate) fn until_waiting(&self) -> impl Future<Output = ()> {
        within(self.test.waiting.notified())
    }

    pub(crate) fn release(&self) {
        self.test.release.add_permits(1);
    }

    /// Metrics are written when a body is dropped, a moment after the caller has its last byte.
    pub(crate) async fn until_metrics_show(&self, line: &str) {
        let shown = async {
            while !self.metrics.render().lines().any(|l| l == line) {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(super::HANG, shown).await.is_err() {
            panic!("{line} never showed in\n{}", self.metrics.render());
        }
    }

    /// Until neither port accepts a connection.
    pub(crate) async fn until_refused(&self) {
        for port in [self.http, self.grpc] {
            within(async {
                while tokio::net::TcpStream::connect(port).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }

    pub(crate) async fn stops_within(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, &mut self.served).await.is_ok()
    }

    pub(crate) async fn reflected_services(&self) -> Vec<String> {
        let mut client = ServerReflectionClient::new(self.channel.clone());
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = client.server_reflection_info(tokio_stream::once(list)).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(services) = answer else { panic!("{answer:?}") };
        let mut names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
        names.sort();
        names
    }

    /// The file that declares a symbol, if reflection has it.
    pub(crate) async fn reflected_file(&self, symbol: &str) -> Option<FileDescriptorProto> {
        let mut client = ServerReflectionClient::new(self.channel.clone());
        let message_request = Some(MessageRequest::FileContainingSymbol(symbol.to_owned()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        match answers.into_inner().message().await.unwrap()?.message_response? {
            MessageResponse::FileDescriptorResponse(files) => {
                FileDescriptorProto::decode(files.file_descriptor_proto.first()?.as_slice()).ok()
            }
            _ => None,
        }
    }

    #[track_caller]
    pub(crate) fn stop(self) -> impl Future<Output = ()> {
        let Self { shutdown, served, channel, .. } = self;
        shutdown.trigger();
        let served = within(served);
        async move {
            served.await.unwrap().unwrap();
            // Only now: the server must end the connection, not the client.
            drop(channel);
        }
    }
}

async fn call(channel: Channel, method: Method, seconds: i64) -> Result<Response<Value>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::try_from(format!("/test.v1.Test/{method:?}")).unwrap();
    let request = Request::new(Value { seconds, nanos: 0 });
    within(client.unary(request, path, ProstCodec::<Value, Value>::default())).await
}

/// Turns a hang into a failure that says where.
#[track_caller]
pub(crate) fn within<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = Location::caller();
    async move {
        let happened = tokio::time::timeout(super::HANG, future).await;
        happened.unwrap_or_else(|_| panic!("what is awaited at {place} should have happened long ago"))
    }
}

/// One HTTP/1.1 exchange on a connection of its own.
async fn exchange(request: http::Request<Full<Bytes>>) -> http::Response<String> {
    let client = Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::ZERO)
        .pool_max_idle_per_host(0)
        .build_http();
    let (head, body) = within(client.request(request)).await.unwrap().into_parts();
    let body = within(body.collect()).await.unwrap().to_bytes();
    http::Response::from_parts(head, String::from_utf8_lossy(&body).into_owned())
}

fn with_headers(mut builder: http::request::Builder, headers: &[(&str, &str)]) -> http::request::Builder {
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder
}

pub(crate) async fn http_get(
    port: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> http::Response<String> {
    let request = with_headers(http::Request::get(format!("http://{port}{path}")), headers);
    exchange(request.body(Full::default()).unwrap()).await
}

pub(crate) async fn http_post(
    port: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> http::Response<String> {
    let request = with_headers(http::Request::post(format!("http://{port}{path}")), headers);
    exchange(request.body(Full::from(body)).unwrap()).await
}
