//! Services that answer from the real schemas, served as every Weir service is.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::Router;
use futures::Stream;
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, service::Routes};
use weir_proto::{
    analytics::v1::{
        ExportEventsRequest, ExportEventsResponse, GetImportRequest, GetImportResponse, GetSummaryRequest,
        GetSummaryResponse, GetUserRequest, GetUserResponse, ListEventNamesRequest, ListEventNamesResponse,
        ListPropertiesRequest, ListPropertiesResponse, ListUserEventsRequest, ListUserEventsResponse,
        QueryBreakdownRequest, QueryBreakdownResponse, QueryFunnelRequest, QueryFunnelResponse,
        QueryPathsRequest, QueryPathsResponse, QueryRetentionRequest, QueryRetentionResponse,
        QuerySqlRequest, QuerySqlResponse, QueryTimeSeriesRequest, QueryTimeSeriesResponse,
        WatchEventsRequest, WatchEventsResponse, WatchQueryRequest, WatchQueryResponse,
        analytics_service_server::{AnalyticsService, AnalyticsServiceServer},
        watch_query_response::Upkeep,
    },
    google::api::HttpBody,
    ingest::v1::{
        EventResult, GetLogRequest, GetLogResponse, IngestEventRequest, IngestEventResponse,
        IngestEventsRequest, IngestEventsResponse, StreamEventsRequest, StreamEventsResponse,
        SyncClockRequest, SyncClockResponse, UploadEventsRequest, UploadEventsResponse,
        event_result::Outcome,
        ingest_service_server::{IngestService, IngestServiceServer},
    },
};
use weir_runtime::{
    Config, Context, Host, Listeners, Shutdown, config,
    server::Rpc,
    status::{Reason, invalid_argument},
};

pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Longer than anything here takes; a test that waits for it has failed.
pub(crate) const HANG: Duration = Duration::from_secs(60);

pub(crate) const SERVICES: &[&str] = &["weir.ingest.v1.IngestService", "weir.analytics.v1.AnalyticsService"];

/// Answers as the real services do, and shows what it was asked.
#[derive(Clone, Default)]
pub(crate) struct Services {
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    pub(crate) headers: Arc<Mutex<http::HeaderMap>>,
    /// Told when a caller's stream, or a call that never ends, was dropped.
    pub(crate) cancelled: Arc<Notify>,
    /// Told when a call that never ends has begun.
    pub(crate) waiting: Arc<Notify>,
}

struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Services {
    fn note<T: std::fmt::Debug>(&self, request: &Request<T>) {
        *self.headers.lock().unwrap() = request.metadata().clone().into_headers();
        self.asked.lock().unwrap().push(format!("{:?}", request.get_ref()));
    }

    pub(crate) fn routes(&self) -> Routes {
        Routes::new(IngestServiceServer::new(self.clone()))
            .add_service(AnalyticsServiceServer::new(self.clone()))
    }
}

type Reply<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl IngestService for Services {
    async fn ingest_event(
        &self,
        request: Request<IngestEventRequest>,
    ) -> Result<Response<IngestEventResponse>, Status> {
        self.note(&request);
        assert!(request.remote_addr().is_some(), "handlers know who calls");
        let event = request.into_inner().event.ok_or_else(|| invalid_argument([("event", "is required")]))?;
        match event.event_name.as_str() {
            "" => return Err(invalid_argument([("event.event_name", "must not be empty")])),
            "full" => return Err(Reason::InFlightFull.status("too much at once; retry")),
            "hang" => {
                let _dropped = OnDrop(self.cancelled.clone());
                self.waiting.notify_one();
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        let mut response = Response::new(IngestEventResponse {
            event_id: event.event_id,
            consistency_token: event.event_name,
        });
        response.metadata_mut().insert("weir-partition", "2".parse().unwrap());
        response.metadata_mut().insert("internal-note", "hidden".parse().unwrap());
        Ok(response)
    }

    async fn ingest_events(
        &self,
        request: Request<IngestEventsRequest>,
    ) -> Result<Response<IngestEventsResponse>, Status> {
        self.note(&request);
        let events = request.into_inner().events;
        Ok(Response::new(IngestEventsResponse { accepted: events.len() as u32, ..Default::default() }))
    }

    async fn upload_events(
        &self,
        request: Request<Streaming<UploadEventsRequest>>,
    ) -> Result<Response<UploadEventsResponse>, Status> {
        let _dropped = OnDrop(self.cancelled.clone());
        let mut events = request.into_inner();
        let mut receipt = UploadEventsResponse::default();
        while let Some(upload) = events.message().await? {
            self.waiting.notify_one();
            let index = receipt.received as u32;
            receipt.received += 1;
            if let Some(event) = upload.event {
                self.asked.lock().unwrap().push(event.event_name);
                receipt.accepted += 1;
                continue;
            }
            receipt.rejected += 1;
            let error = weir_proto::rpc::Status { code: 3, message: "no event".to_owned(), details: vec![] };
            receipt.errors.push(EventResult {
                index,
                outcome: Outcome::Rejected.into(),
                error: Some(error),
                ..Default::default()
            });
        }
        Ok(Response::new(receipt))
    }

    type StreamEventsStream = Reply<StreamEventsResponse>;

    async fn stream_events(
        &self,
        _: Request<Streaming<StreamEventsRequest>>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        Err(Status::unimplemented("not over HTTP"))
    }

    async fn get_log(&self, request: Request<GetLogRequest>) -> Result<Response<GetLogResponse>, Status> {
        self.note(&request);
        Ok(Response::new(GetLogResponse { identity: "log".to_owned(), ..Default::default() }))
    }

    async fn sync_clock(
        &self,
        request: Request<SyncClockRequest>,
    ) -> Result<Response<SyncClockResponse>, Status> {
        self.note(&request);
        let client_time = request.into_inner().client_time;
        Ok(Response::new(SyncClockResponse { client_time, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl AnalyticsService for Services {
    async fn get_summary(
        &self,
        request: Request<GetSummaryRequest>,
    ) -> Result<Response<GetSummaryResponse>, Status> {
        self.note(&request);
        Ok(Response::new(GetSummaryResponse::default()))
    }

    async fn query_time_series(
        &self,
        request: Request<QueryTimeSeriesRequest>,
    ) -> Result<Response<QueryTimeSeriesResponse>, Status> {
        self.note(&request);
        Ok(Response::new(QueryTimeSeriesResponse::default()))
    }

    async fn query_breakdown(
        &self,
        request: Request<QueryBreakdownRequest>,
    ) -> Result<Response<QueryBreakdownResponse>, Status> {
        self.note(&request);
        Ok(Response::new(QueryBreakdownResponse::default()))
    }

    async fn query_funnel(
        &self,
        request: Request<QueryFunnelRequest>,
    ) -> Result<Response<QueryFunnelResponse>, Status> {
        self.note(&request);
        Ok(Response::new(QueryFunnelResponse::default()))
    }

    async fn query_retention(
        &self,
        request: Request<QueryRetentionRequest>,
    ) -> Result<Response<QueryRetentionResponse>, Status> {
        self.note(&request);
        Ok(Response::new(QueryRetentionResponse::default()))
    }

    async fn query_paths(
        &self,
        request: Request<QueryPathsRequest>,
    ) -> Result<Response<QueryPathsResponse>, Status> {
        self.note(&request);
        Ok(Response::new(QueryPathsResponse::default()))
    }

    async fn get_import(
        &self,
        request: Request<GetImportRequest>,
    ) -> Result<Response<GetImportResponse>, Status> {
        self.note(&request);
        Ok(Response::new(GetImportResponse::default()))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        self.note(&request);
        Ok(Response::new(GetUserResponse::default()))
    }

    async fn list_user_events(
        &self,
        request: Request<ListUserEventsRequest>,
    ) -> Result<Response<ListUserEventsResponse>, Status> {
        self.note(&request);
        Ok(Response::new(ListUserEventsResponse::default()))
    }

    async fn list_event_names(
        &self,
        request: Request<ListEventNamesRequest>,
    ) -> Result<Response<ListEventNamesResponse>, Status> {
        self.note(&request);
        Ok(Response::new(ListEventNamesResponse::default()))
    }

    async fn list_properties(
        &self,
        request: Request<ListPropertiesRequest>,
    ) -> Result<Response<ListPropertiesResponse>, Status> {
        self.note(&request);
        Ok(Response::new(ListPropertiesResponse::default()))
    }

    type ExportEventsStream = Reply<ExportEventsResponse>;

    /// A file in two pieces; then an error when at most one event is asked for.
    async fn export_events(
        &self,
        request: Request<ExportEventsRequest>,
    ) -> Result<Response<Self::ExportEventsStream>, Status> {
        self.note(&request);
        let piece = |text: &'static str| {
            let content_type = "text/csv".to_owned();
            let body = HttpBody { content_type, data: text.into(), extensions: vec![] };
            Ok(ExportEventsResponse { body: Some(body), ..Default::default() })
        };
        let last = Ok(ExportEventsResponse { events: 2, ..Default::default() });
        let end = match request.get_ref().max_events {
            1 => Err(Reason::Internal.status("the disk is gone")),
            _ => last,
        };
        Ok(Response::new(Box::pin(tokio_stream::iter([piece("a,b\n1,"), piece("2\n"), end]))))
    }

    type QuerySqlStream = Reply<QuerySqlResponse>;

    async fn query_sql(
        &self,
        request: Request<QuerySqlRequest>,
    ) -> Result<Response<Self::QuerySqlStream>, Status> {
        self.note(&request);
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(QuerySqlResponse::default())]))))
    }

    type WatchQueryStream = Reply<WatchQueryResponse>;

    /// Two updates; then an error when there is a query, else a good end.
    async fn watch_query(
        &self,
        request: Request<WatchQueryRequest>,
    ) -> Result<Response<Self::WatchQueryStream>, Status> {
        self.note(&request);
        let update =
            |update| Ok(WatchQueryResponse { update, upkeep: Upkeep::Repeated.into(), result: None });
        let end = request.into_inner().query.map(|_| Err(Reason::ReaderTooSlow.status("read faster")));
        let updates = [update(1), update(2)].into_iter().chain(end);
        Ok(Response::new(Box::pin(tokio_stream::iter(updates))))
    }

    type WatchEventsStream = Reply<WatchEventsResponse>;

    /// One response and then nothing, for ever.
    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        self.note(&request);
        if request.get_ref().user_id == "nobody" {
            return Err(Reason::ResourceNotFound.status("no such user"));
        }
        let (sender, receiver) = mpsc::channel(1);
        let cancelled = self.cancelled.clone();
        tokio::spawn(async move {
            let first = WatchEventsResponse { events: vec![], missed: 1 };
            sender.send(Ok(first)).await.unwrap();
            sender.closed().await;
            cancelled.notify_one();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver).map(|item| item))))
    }
}

/// A running service.
pub(crate) struct Fixture {
    pub(crate) services: Services,
    pub(crate) grpc: SocketAddr,
    base: String,
    shutdown: Shutdown,
    client: reqwest::Client,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut config::Server)) -> Self {
        let services = Services::default();
        let routes = services.routes();
        let mut limits = Config::default().server;
        adjust(&mut limits);
        let rest_limits = limits.clone();
        let http =
            move |rpc| weir_transcode::rest(weir_proto::DESCRIPTORS, SERVICES, rpc, &rest_limits).unwrap();
        Self::serve(services, routes, weir_proto::DESCRIPTORS, http, limits).await
    }

    /// With its gRPC at a given address.
    pub(crate) async fn start_at(grpc: SocketAddr) -> Self {
        let services = Services::default();
        let listeners = Listeners::bind(ANY_PORT, Some(grpc), false).await.unwrap();
        let limits = Config::default().server;
        Self::listen(
            listeners,
            services.clone(),
            services.routes(),
            weir_proto::DESCRIPTORS,
            |_| Router::new(),
            limits,
        )
    }

    pub(crate) async fn serve(
        services: Services,
        routes: Routes,
        descriptors: &[u8],
        http: impl FnOnce(Rpc) -> Router + Send + 'static,
        limits: config::Server,
    ) -> Self {
        let listeners = Listeners::bind(ANY_PORT, Some(ANY_PORT), false).await.unwrap();
        Self::listen(listeners, services, routes, descriptors, http, limits)
    }

    fn listen(
        listeners: Listeners,
        services: Services,
        routes: Routes,
        descriptors: &[u8],
        http: impl FnOnce(Rpc) -> Router + Send + 'static,
        limits: config::Server,
    ) -> Self {
        let (base, grpc) =
            (format!("http://{}", listeners.http_address()), listeners.grpc_address().unwrap());
        let context = Context::new(Config { server: limits, ..Config::default() }, Shutdown::new());
        let shutdown = context.shutdown.clone();
        let host = Host::new("test", context)
            .grpc(routes, &[], &[descriptors])
            .unwrap()
            .http(|rpc| Ok::<_, std::convert::Infallible>(http(rpc)));
        tokio::spawn(host.serve(listeners));
        Self { services, grpc, base, shutdown, client: reqwest::Client::new() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(method.parse().unwrap(), self.url(path))
    }

    pub(crate) fn post(&self, path: &str, json: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client.post(self.url(path)).header("content-type", "application/json").body(json)
    }

    pub(crate) fn upload(&self, lines: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client
            .post(self.url("/v1/events:upload"))
            .header("content-type", "application/x-ndjson")
            .body(lines)
    }

    /// What the service was last asked, as its `Debug` form.
    pub(crate) fn last_asked(&self) -> String {
        self.services.asked.lock().unwrap().last().cloned().expect("the service was asked")
    }
}

/// The status and the body of an answer.
pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = tokio::time::timeout(HANG, request.send()).await.expect("an answer").unwrap();
    let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
    let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {text:?}: {error}"));
    (status, json)
}

/// Waits for a notification that must come.
pub(crate) async fn until(notify: &Notify) {
    tokio::time::timeout(HANG, notify.notified()).await.expect("it happens");
}
