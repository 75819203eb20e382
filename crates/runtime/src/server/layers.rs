//! The one chain of layers that every request passes, read from top to bottom.

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use futures::FutureExt as _;
use http::{HeaderValue, StatusCode, header};
use tokio::time::Instant;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, util::option_layer};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;

use super::{
    body::{Outcome, Watched},
    call::{Calls, Deadline, Protocol, content_type, is_operational, timeout_of},
};
use crate::{
    config,
    status::Reason,
    trace::{TRACEPARENT, TraceContext},
};

/// Puts the chain round the two routers.
pub(super) fn chain(
    grpc: Router,
    http: Router,
    calls: &Arc<Calls>,
    limits: &config::Server,
) -> impl Service<Request, Response = Response, Error = std::convert::Infallible, Future: Send + 'static>
+ Clone
+ Send
+ 'static {
    ServiceBuilder::new()
        // Outermost, so that whatever happens below is logged and answered under the request's trace.
        .layer(from_fn(trace))
        // Before anything that refuses: a page can only read a refusal that has these headers. Answers preflights itself.
        .layer(option_layer(cors(&limits.cors_origins)))
        // From here on gRPC-Web is gRPC, so each layer below knows one form of trailers.
        .layer(from_fn(grpc_web))
        // Counts every outcome, those of the layers below included.
        .layer(from_fn_with_state(calls.clone(), measure))
        // Before any work is done for the request: overload is refused while that is cheap.
        .layer(from_fn_with_state(calls.clone(), shed))
        // After admission, so that a deadline covers the handler alone; outside of the panic layer, which has no waits.
        .layer(from_fn_with_state(calls.clone(), deadline))
        // Innermost: a handler's panic becomes an answer before it could unwind through the layers' own state.
        .layer(from_fn_with_state(calls.clone(), catch_panic))
        .service(tower::service_fn(move |request: Request| {
            let router = match Protocol::of(&request) {
                Protocol::Grpc => grpc.clone(),
                Protocol::Http => http.clone(),
            };
            router.oneshot(request)
        }))
}

/// The HTTP side of a port that speaks only gRPC.
pub(super) fn not_http() -> Router {
    let status = Reason::MediaTypeUnsupported
        .status("this port speaks gRPC; REST, /healthz and /metrics are on the service's HTTP port");
    Router::new().fallback(async move || crate::status::into_http(&status))
}

/// Continues the caller's trace or starts one, and names it in `x-request-id`. The span is at debug level: at 100,000
/// requests a second even an unused span costs a tenth of the time, and failures are logged with their trace anyway.
async fn trace(mut request: Request, next: Next) -> Response {
    let caller = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse().ok());
    let context = caller.map_or_else(TraceContext::root, TraceContext::child);
    request.extensions_mut().insert(context);
    let trace_id = format!("{:032x}", context.trace_id());
    let span =
        tracing::debug_span!("request", trace_id, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::try_from(trace_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()))
    };
    let exposed = ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id", "retry-after"];
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods(tower_http::cors::Any)
            .allow_headers(tower_http::cors::Any)
            .expose_headers(exposed.map(http::HeaderName::from_static)),
    )
}

async fn grpc_web(request: Request, next: Next) -> Response {
    let is_web = content_type(request.headers()).is_some_and(|t| t.starts_with("application/grpc-web"));
    if !is_web {
        return next.run(request).await;
    }
    let inner = next.map_request(|request: http::Request<tonic::body::Body>| request.map(Body::new));
    let response = tonic_web::GrpcWebLayer::new().layer(inner).oneshot(request).await;
    response.unwrap_or_else(|never| match never {}).map(Body::new)
}

async fn measure(State(calls): State<Arc<Calls>>, request: Request, next: Next) -> Response {
    let protocol = Protocol::of(&request);
    let path = request.uri().path();
    if protocol == Protocol::Http && is_operational(path) {
        return next.run(request).await;
    }
    let context = request.extensions().get().copied().unwrap_or_else(TraceContext::root);
    let mut outcome = Outcome::new(&calls, calls.method(protocol, path), protocol, context);
    let response = next.run(request).await;
    outcome.head(&response);
    response.map(|body| Body::new(Watched::new(body).outcome(outcome)))
}

async fn shed(State(calls): State<Arc<Calls>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if is_operational(path) {
        return next.run(request).await;
    }
    let protocol = Protocol::of(&request);
    let Some(in_flight) = calls.admit(calls.method(protocol, path)) else {
        calls.metrics.errors(calls.service, "overload").inc();
        let status = Reason::ConcurrencyExceeded.status(
            "too many requests at once; retry after a pause, or raise server.max_concurrent_requests",
        );
        return protocol.refuse(status);
    };
    let response = next.run(request).await;
    // A stream keeps its place until its last byte.
    response.map(|body| Body::new(Watched::new(body).in_flight(in_flight)))
}

async fn deadline(State(calls): State<Arc<Calls>>, mut request: Request, next: Next) -> Response {
    let protocol = Protocol::of(&request);
    let own = timeout_of(request.headers());
    // A call that may last has only the deadline that its caller sets. An HTTP upload says so by its content type.
    let lasts = match protocol {
        Protocol::Grpc => calls.method(protocol, request.uri().path()).streaming,
        Protocol::Http => {
            content_type(request.headers()).is_some_and(|t| t.starts_with("application/x-ndjson"))
        }
    };
    let Some(timeout) = own.or((!lasts).then_some(calls.request_timeout)) else {
        return next.run(request).await;
    };
    let deadline = Instant::now() + timeout;
    request.extensions_mut().insert(Deadline(deadline));
    match tokio::time::timeout_at(deadline, next.run(request)).await {
        Ok(response) if lasts && protocol == Protocol::Grpc => {
            response.map(|body| Body::new(Watched::new(body).deadline(deadline)))
        }
        Ok(response) => response,
        Err(_) => {
            let message = format!(
                "no answer within {timeout:?}; whether the call took effect is unknown, so repeat it unchanged"
            );
            protocol.refuse(Reason::DeadlineExceeded.status(message))
        }
    }
}

async fn catch_panic(State(calls): State<Arc<Calls>>, request: Request, next: Next) -> Response {
    let protocol = Protocol::of(&request);
    let response = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    response.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)");
        tracing::error!(service = calls.service, message, "a handler panicked");
        calls.metrics.errors(calls.service, "panic").inc();
        protocol.refuse(Reason::Internal.status("a fault of ours; the log has it under this request's id"))
    })
}

/// A refusal that the router made itself, without a body, said in JSON.
pub(super) async fn explain_refusal(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let bare = !response.headers().contains_key(header::CONTENT_TYPE);
    match response.status() {
        StatusCode::NOT_FOUND if bare => {
            let message = format!("there is no {path}; the API begins with /v1");
            crate::status::into_http(&Reason::RouteNotFound.status(message))
        }
        StatusCode::METHOD_NOT_ALLOWED if bare => {
            let allow = response.headers().get(header::ALLOW).cloned();
            let allowed = allow.as_ref().and_then(|allow| allow.to_str().ok()).unwrap_or("another method");
            let message = format!("{path} does not take {method}, but {allowed}");
            let mut answer = crate::status::into_http(&Reason::RouteNotFound.status(message));
            *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            if let Some(allow) = allow {
                answer.headers_mut().insert(header::ALLOW, allow);
            }
            answer
        }
        _ => response,
    }
}
