//! How callers speak, and who answers them.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{Router, body::Body, extract::Request, response::Response, routing::future::RouteFuture};
use http::{HeaderMap, header};
use tonic::Status;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer as _, Service};

use super::http::Http;
use crate::{
    server::{
        memory::{Measure, RequestMemory},
        rpc::{self, Rpc},
    },
    status,
};

/// How a caller speaks, which decides how it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    GrpcWeb,
    Http,
}

impl Protocol {
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        match content_type(request.headers()) {
            Some(of) if of.starts_with("application/grpc-web") => Self::GrpcWeb,
            Some(of) if of.starts_with("application/grpc") => Self::Grpc,
            _ => Self::Http,
        }
    }

    /// An error in the caller's own form.
    pub(super) fn refuse(self, status: Status) -> Response {
        match self {
            Self::Grpc | Self::GrpcWeb => status.into_http(),
            Self::Http => status::into_http(&status),
        }
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

/// Sends each request to what answers its protocol.
#[derive(Debug, Clone)]
pub(super) struct Dispatch {
    rpc: Rpc,
    web: GrpcWebService<Rpc>,
    http: Http,
    /// Health and reflection: the port's own RPCs, which answer under overload, too, and are not counted.
    operations: Router,
    web_operations: GrpcWebService<Router>,
    measure: Arc<Measure>,
}

impl Dispatch {
    pub(super) fn new(rpc: Rpc, http: Http, operations: Router, measure: Arc<Measure>) -> Self {
        Self {
            web: GrpcWebLayer::new().layer(rpc.clone()),
            rpc,
            http,
            web_operations: GrpcWebLayer::new().layer(operations.clone()),
            operations,
            measure,
        }
    }
}

fn is_operational(path: &str) -> bool {
    path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.")
}

impl Service<Request> for Dispatch {
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> ResponseFuture {
        let protocol = Protocol::of(&request);
        match (protocol, is_operational(request.uri().path())) {
            (Protocol::Grpc, true) => ResponseFuture::Operation { call: self.operations.call(request) },
            (Protocol::GrpcWeb, true) => {
                ResponseFuture::WebOperation { call: self.web_operations.call(request) }
            }
            (Protocol::Grpc, false) => {
                // What the request makes this process hold counts from here on.
                request.extensions_mut().insert(RequestMemory::new(&self.measure));
                ResponseFuture::Rpc { call: self.rpc.call(request) }
            }
            (Protocol::GrpcWeb, false) => {
                request.extensions_mut().insert(RequestMemory::new(&self.measure));
                ResponseFuture::Web { call: self.web.call(request) }
            }
            (Protocol::Http, _) => ResponseFuture::Http { call: Box::pin(self.http.clone().answer(request)) },
        }
    }
}

pin_project_lite::pin_project! {
    #[project = Projected]
    pub(super) enum ResponseFuture {
        Rpc { #[pin] call: rpc::ResponseFuture },
        Web { #[pin] call: tonic_web::ResponseFuture<rpc::ResponseFuture> },
        Http { call: Pin<Box<dyn Future<Output = Response> + Send>> },
        Operation { #[pin] call: RouteFuture<Infallible> },
        WebOperation { #[pin] call: tonic_web::ResponseFuture<RouteFuture<Infallible>> },
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Rpc { call } => call.poll(cx),
            Projected::Operation { call } => call.poll(cx),
            Projected::Http { call } => call.as_mut().poll(cx).map(Ok),
            Projected::Web { call } => {
                let Ok(response) = ready!(call.poll(cx));
                Poll::Ready(Ok(response.map(Body::new)))
            }
            Projected::WebOperation { call } => {
                let Ok(response) = ready!(call.poll(cx));
                Poll::Ready(Ok(response.map(Body::new)))
            }
        }
    }
}
