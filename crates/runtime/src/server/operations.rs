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

use super::{Error, call::Route, layers};
use crate::{Health, Metrics, config, metrics};

/// The service's routes with reflection and health beside them.
pub(super) struct Grpc {
    pub(super) routes: Router,
    pub(super) reporter: HealthReporter,
    /// The names that health knows: the schema's services, and "" for the whole.
    pub(super) services: Vec<String>,
}

pub(super) fn grpc(
    routes: Routes,
    descriptors: &FileDescriptorSet,
    limits: &config::Server,
) -> Result<Grpc, Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = routes.add_service(health);
    if limits.reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_file_descriptor_set(descriptors.clone())
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        routes = routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?);
    }
    let named = descriptors.file.iter().flat_map(|file| {
        file.service.iter().map(move |service| format!("{}.{}", file.package(), service.name()))
    });
    let services = named.chain([String::new()]).collect();
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
        .layer(from_fn(layers::explain_refusal));
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
