//! What every HTTP request to a port passes, whatever it asks for: accept → CORS → trace → host → protocol.

mod accept;
mod allowed_hosts;
mod cors;
mod http;
mod protocol;
mod trace;

use std::convert::Infallible;

use axum::{Router, extract::Request, response::Response};
use tower::{Service, ServiceBuilder, util::option_layer};

use super::Core;
use crate::{config, status::Reason};

pub(super) use accept::{Connections, Ports, Tcp};
pub use http::Route;

/// The layers around `http`, which answers what is no gRPC. `operations` are health and reflection.
pub(super) fn stack(
    core: &Core,
    operations: Router,
    http: Router,
    limits: &config::Server,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send + 'static> + Clone + Send + 'static
{
    let http = http::Http {
        router: http,
        methods: core.methods.clone(),
        admission: core.admission.clone(),
        measure: core.measure.clone(),
        timeout: limits.request_timeout,
    };
    ServiceBuilder::new()
        // Before anything that refuses: a page can only read a refusal that has these headers. Answers preflights itself.
        .layer(option_layer(cors::layer(&limits.cors_origins)))
        // What happens below is logged and answered under the request's trace.
        .layer(trace::TraceLayer)
        // Before anything is done for the request: it may come from a page that has no business here.
        .layer(allowed_hosts::AllowedHostsLayer::new(&limits.allowed_hosts))
        .service(protocol::Dispatch::new(core.rpc.clone(), http, operations, core.measure.clone()))
}

/// The HTTP side of a port that speaks only gRPC.
pub(super) fn not_http() -> Router {
    let status = Reason::MediaTypeUnsupported
        .status("this port speaks gRPC; REST, /healthz and /metrics are on the service's HTTP port");
    Router::new().fallback(async move || crate::status::into_http(&status))
}
