//! The HTTP form of services: finds the binding of a request and has it answered in the RPC's shape.

use std::sync::Arc;

use axum::{
    BoxError, Json, Router,
    extract::{Request, State},
    response::Response,
    routing::{any, get},
};
use bytes::Bytes;
use http::{HeaderValue, header};
use prost_reflect::DescriptorPool;
use serde_json::Value;
use tonic::Status;
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};
use weir_runtime::{
    config,
    server::Route,
    status::{self, Reason},
};

use crate::{
    Error,
    binding::{
        rule::{self, RequestBody, Shape},
        table::{Found, Table},
    },
    call::{Rest, file, stream, unary, upload},
};

/// Where the list of routes is.
const INDEX: &str = "/v1";

/// The RPCs by the requests that call them.
#[derive(Debug)]
struct Api {
    table: Table,
    rest: Rest,
}

/// A router with the HTTP form of every RPC of `services` that has a `google.api.http` rule, and a list of them at `/v1`.
///
/// `descriptors` is an encoded `FileDescriptorSet` with options; `services` are full names
/// (`weir.ingest.v1.IngestService`); `backend` answers their gRPC: the tonic `Routes` of this process, or a channel.
/// Meant to be served by `weir_runtime::Host`, which brings deadlines, traces and CORS.
///
/// # Errors
/// The descriptors do not decode, a service is missing from them, a rule contradicts its RPC, or two rules collide.
pub fn rest<B, R>(
    descriptors: &[u8],
    services: &[&str],
    backend: B,
    limits: &config::Server,
) -> Result<Router, Error>
where
    B: Service<http::Request<tonic::body::Body>, Response = http::Response<R>>
        + Clone
        + Send
        + Sync
        + 'static,
    B::Error: Into<BoxError>,
    B::Future: Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let backend = backend
        .map_response(|response| response.map(tonic::body::Body::new))
        .map_err(|error| Status::from_error(error.into()));
    let backend = BoxCloneSyncService::new(backend);
    let pool = DescriptorPool::decode(descriptors)?;
    let mut bindings = Vec::new();
    for name in services {
        let service = pool.get_service_by_name(name);
        let service = service.ok_or_else(|| Error::UnknownService((*name).to_owned()))?;
        bindings.extend(rule::bindings(&service)?);
    }
    let api = Arc::new(Api { table: Table::new(bindings)?, rest: Rest::new(backend, limits) });
    let index = Json(index(&api.table));
    let mut router = Router::new().route(INDEX, get(async move || index.clone()));
    // axum only has to know which part of the URL space is ours: its patterns cannot say `{name}:verb`.
    for root in api.table.roots() {
        router = router.route(&format!("/{root}/{{*path}}"), any(answer));
    }
    Ok(router.with_state(api))
}

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let Api { table, rest } = &*api;
    let (binding, variables) = match table.find(request.method(), request.uri().path()) {
        Found::Binding(binding, variables) => (binding, variables),
        Found::OtherMethods(methods) => {
            let allowed: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
            return wrong_method(&request, &allowed.join(", "));
        }
        Found::Nothing => {
            let message = format!("there is no {}; GET {INDEX} lists what there is", request.uri().path());
            return status::into_http(&Reason::RouteNotFound.status(message));
        }
    };
    let answered = match (binding.rpc.shape, &binding.file) {
        (Shape::Unary, _) => unary::answer(rest, binding, &variables, request).await,
        (Shape::ServerStream, Some(place)) => file::answer(rest, binding, place, &variables, request).await,
        (Shape::ServerStream, None) => stream::answer(rest, binding, &variables, request).await,
        (Shape::ClientStream, _) => upload::answer(rest, binding, request).await,
    };
    let mut response = answered.unwrap_or_else(|status| status::into_http(&status));
    response.extensions_mut().insert(Route(binding.template.text().clone()));
    response
}

fn wrong_method(request: &Request, allowed: &str) -> Response {
    let message = format!("{} does not take {}, only {allowed}", request.uri().path(), request.method());
    let mut response = status::into_http(&Reason::MethodNotAllowed.status(message));
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

fn index(table: &Table) -> Value {
    let routes = table.bindings().iter().map(|binding| {
        serde_json::json!({
            "method": binding.method.as_str(),
            "path": &**binding.template.text(),
            "rpc": binding.rpc.name,
            "request": binding.rpc.input.full_name(),
            "body": match &binding.body {
                RequestBody::None => "",
                RequestBody::Message => "*",
                RequestBody::Field(field) => field.name(),
            },
            "response": binding.rpc.output.full_name(),
            "stream": match binding.rpc.shape {
                Shape::Unary => "none",
                Shape::ServerStream => "response",
                Shape::ClientStream => "request",
            },
        })
    });
    serde_json::json!({ "routes": routes.collect::<Vec<_>>() })
}
