//! What every service answers about itself: reflection and health over gRPC; `/healthz`, `/readyz`, `/metrics` over HTTP.

use std::time::SystemTime;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use prost_types::FileDescriptorSet;
use serde_json::json;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{Error, Route};
use crate::{
    Health, Metrics, config, metrics,
    status::{self, Reason},
};

/// Reflection and health are asked with a name or two. They are no part of the budget of requests, so they may not be large.
const MAX_QUESTION_BYTES: usize = 16 << 10;
/// What the server adds to the services, as reflection lists it.
const OWN_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Reflection and health.
pub(super) struct Grpc {
    pub(super) routes: Router,
    pub(super) reporter: HealthReporter,
    /// The names that health knows: the schema's services, and "" for the whole.
    pub(super) services: Vec<String>,
}

pub(super) fn grpc(
    services: Vec<String>,
    descriptors: FileDescriptorSet,
    encoded: &[Vec<u8>],
    limits: &config::Server,
) -> Result<Grpc, Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::new(health.max_decoding_message_size(MAX_QUESTION_BYTES));
    if limits.reflection {
        let builder = || {
            let mut builder = tonic_reflection::server::Builder::configure()
                .register_file_descriptor_set(descriptors.clone())
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
                // Errors carry their details as `Any`, which a client can only show if it finds their types.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
            for set in encoded {
                builder = builder.register_encoded_file_descriptor_set(set);
            }
            // The sets describe more services than this one serves.
            let named = services.iter().map(String::as_str).chain(OWN_SERVICES);
            named.fold(builder, |builder, name| builder.with_service_name(name))
        };
        let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
        routes = routes
            .add_service(v1.max_decoding_message_size(MAX_QUESTION_BYTES))
            .add_service(v1alpha.max_decoding_message_size(MAX_QUESTION_BYTES));
    }
    let services = services.into_iter().chain([String::new()]).collect();
    Ok(Grpc { routes: routes.prepare().into_axum_router(), reporter, services })
}

/// Tells gRPC health what the checks say, for as long as the server runs.
pub(super) async fn report_health(health: Health, reporter: HealthReporter, services: Vec<String>) {
    loop {
        let ready = health.is_ready();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in &services {
            reporter.set_service_status(service, status).await;
        }
        health.until(!ready).await;
    }
}

/// The HTTP port: the service's own routes, and the operational ones before them.
pub(super) fn http(service: Router, health: Health, metrics: Metrics, limits: &config::Server) -> Router {
    let service = service
        .layer(DefaultBodyLimit::max(limits.max_message_bytes))
        .layer(from_fn(name_route))
        .layer(from_fn(explain_refusal));
    Router::new()
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(exposition).with_state(metrics))
        .fallback_service(service)
}

async fn ready(State(health): State<Health>) -> Response {
    let report = health.report();
    let checks: Vec<_> = report
        .checks
        .iter()
        .map(|check| {
            let age = SystemTime::now().duration_since(check.since).unwrap_or_default();
            json!({
                "name": check.name,
                "ok": check.failing.is_none(),
                "reason": check.failing,
                "forSeconds": age.as_secs(),
            })
        })
        .collect();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": report.ready, "draining": report.draining, "checks": checks });
    (status, Json(body)).into_response()
}

async fn exposition(State(metrics): State<Metrics>) -> Response {
    ([(header::CONTENT_TYPE, metrics::TEXT_FORMAT)], metrics.render()).into_response()
}

/// Gives the metrics the pattern that matched, never the path as it came.
async fn name_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| Route(path.as_str().into()));
    let mut response = next.run(request).await;
    if let Some(route) = route
        && response.extensions().get::<Route>().is_none()
    {
        response.extensions_mut().insert(route);
    }
    response
}

/// A refusal that the router made itself, without a body, said in JSON.
async fn explain_refusal(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let bare = !response.headers().contains_key(header::CONTENT_TYPE);
    match response.status() {
        StatusCode::NOT_FOUND if bare => {
            let message = format!("there is no {path}; the API begins with /v1");
            status::into_http(&Reason::RouteNotFound.status(message))
        }
        StatusCode::METHOD_NOT_ALLOWED if bare => {
            let allow = response.headers().get(header::ALLOW).cloned();
            let allowed = allow.as_ref().and_then(|allow| allow.to_str().ok()).unwrap_or("another method");
            let message = format!("{path} does not take {method}, but {allowed}");
            let mut answer = status::into_http(&Reason::MethodNotAllowed.status(message));
            if let Some(allow) = allow {
                answer.headers_mut().insert(header::ALLOW, allow);
            }
            answer
        }
        _ => response,
    }
}
