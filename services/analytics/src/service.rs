//! The RPCs: requests are read, answered by the [`Planner`], and watched; events are listed, exported and asked in SQL.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use tokio::{sync::Semaphore, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weir_proto::{
    analytics::v1::{
        ExportEventsRequest, ExportEventsResponse, GetImportRequest, GetImportResponse, GetSummaryRequest,
        GetSummaryResponse, GetUserRequest, GetUserResponse, ListEventNamesRequest, ListEventNamesResponse,
        ListPropertiesRequest, ListPropertiesResponse, ListUserEventsRequest, ListUserEventsResponse,
        QueryBreakdownRequest, QueryBreakdownResponse, QueryFunnelRequest, QueryFunnelResponse,
        QueryPathsRequest, QueryPathsResponse, QueryRetentionRequest, QueryRetentionResponse,
        QuerySqlRequest, QuerySqlResponse, QueryTimeSeriesRequest, QueryTimeSeriesResponse,
        WatchEventsRequest, WatchEventsResponse, WatchQueryRequest, WatchQueryResponse,
        analytics_service_server::AnalyticsService,
    },
    validate::Validate as _,
};
use weir_rollup::field::Field;
use weir_runtime::{Metrics, Shutdown, auth::Principal, server::Deadline};
use weir_store::manifest::READABLE;

use crate::{
    SERVICE,
    error::Error,
    events::{
        Seen,
        discovery::Listing,
        export, sql,
        turns::{self, Exports, Job},
        user,
    },
    import,
    live::{self, Tail, Wish},
    planner::{Patience, Planner, explain, resolve},
    question::{Asks, Question},
    rollups::engine::Wanted,
    watch::{self, Place, Watch},
};

/// Time between two answers of a watch that does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);
/// Left of a call's time to tell that it was not enough.
const MARGIN: Duration = Duration::from_millis(20);

/// The longest that an export may take: what is read has no bound but what is kept, and how long the store keeps it readable.
const EXPORT: Duration = READABLE;

/// The longest that an export waits for room among those that wait for their readers.
const BEGIN: Duration = Duration::from_secs(10);

/// The service, as tonic serves it.
#[derive(Debug)]
pub(crate) struct Analytics {
    pub(crate) planner: Arc<Planner>,
    pub(crate) tail: Tail,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Metrics,
    /// One permit a watch (`analytics.max_watches`).
    pub(crate) watches: Arc<Semaphore>,
    /// What exports share.
    pub(crate) exports: Exports,
    pub(crate) limits: weir_runtime::config::Analytics,
}

impl Analytics {
    /// Answers a question of any kind that can be watched, too.
    async fn answer<R: Asks>(&self, request: Request<R>) -> Result<Response<R::Response>, Status> {
        let patience = self.patience(&request);
        let answered = async {
            let project = Principal::of(&request)?.project.clone();
            let question =
                Question::parse(project, request.into_inner().query(), self.limits.max_result_rows)?;
            let wanted = self.planner.rollups.wanted(&question.token)?;
            self.planner.ask(&Arc::new(question), &wanted, patience).await
        };
        let answer = answered.await.map_err(|error| self.refuse(error))?;
        Ok(Response::new(R::response(answer).expect("the answer is of the question's kind")))
    }

    /// How long a caller waits: up to its deadline, less the time to say that it was not enough. For events to be counted the
    /// configured time if it has none of its own.
    fn patience<R>(&self, request: &Request<R>) -> Patience {
        let now = Instant::now();
        let by_caller = request.extensions().get::<Deadline>().map(|deadline| {
            let left = deadline.at.saturating_duration_since(now);
            now + left.saturating_sub(MARGIN.min(left / 10))
        });
        let own = by_caller.filter(|_| request.metadata().contains_key("grpc-timeout"));
        let counted = own.unwrap_or_else(|| now + self.limits.consistency_timeout);
        Patience { counted, answered: by_caller }
    }

    fn place(&self, kind: &str) -> Result<Place, Error> {
        let permit = self.watches.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Error::TooManyWatches { limit: self.limits.max_watches })?;
        Ok(Place::new(self.metrics.active_streams(SERVICE, kind), permit))
    }

    fn refuse(&self, error: Error) -> Status {
        self.metrics.errors(SERVICE, error.kind()).inc();
        error.into()
    }

    /// The events as they are now, those of the token among them, and how long a question about them may take.
    async fn seen<R>(&self, request: &Request<R>, token: &str) -> Result<(Arc<Seen>, Duration), Error> {
        let Planner { rollups, events, query_timeout, .. } = &*self.planner;
        let (wanted, patience) = (rollups.wanted(token)?, self.patience(request));
        // What is counted was handed to the store before.
        rollups.reach(&wanted, patience.counted).await?;
        let seen = events.now(&Principal::of(request)?.project, &wanted, patience.counted).await?;
        let left = patience.answered.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Ok((seen, left.map_or(*query_timeout, |left| left.min(*query_timeout))))
    }

    /// What computes answers from events.
    fn computing(&self) -> &weir_query::Engine {
        &self.planner.events.engine
    }

    async fn import(&self, request: &Request<GetImportRequest>) -> Result<GetImportResponse, Error> {
        let rollups = &self.planner.rollups;
        let wanted = rollups.wanted(&request.get_ref().min_consistency_token)?;
        rollups.reach(&wanted, self.patience(request).counted).await?;
        import::find(rollups, &Principal::of(request)?.project, request.get_ref()).await
    }

    async fn user(&self, request: &Request<GetUserRequest>) -> Result<GetUserResponse, Error> {
        let asked = request.get_ref();
        asked.validate()?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let find =
            async |seen: Arc<Seen>| Ok(self.computing().user(seen, asked.user_id.clone(), limit).await?);
        let (found, seen) = self.planner.events.ask(seen, &resolve(None), find).await?;
        let mut response = user::profile(&asked.user_id, found, &seen)?;
        if asked.explain {
            explain(response.info.get_or_insert_default(), "");
        }
        Ok(response)
    }

    async fn event_names(
        &self,
        request: &Request<ListEventNamesRequest>,
    ) -> Result<ListEventNamesResponse, Error> {
        let listing = Listing::names(request.get_ref())?;
        let (seen, limit) = self.seen(request, "").await?;
        let range = resolve(listing.range);
        let find = async |seen: Arc<Seen>| {
            Ok(self.computing().event_names(seen, listing.of(range.clone()), limit).await?)
        };
        let (found, seen) = self.planner.events.ask(seen, &range, find).await?;
        Ok(listing.name_response(&found, &range, &seen))
    }

    async fn properties(
        &self,
        request: &Request<ListPropertiesRequest>,
    ) -> Result<ListPropertiesResponse, Error> {
        let listing = Listing::properties(request.get_ref())?;
        let (seen, limit) = self.seen(request, "").await?;
        let range = resolve(listing.range);
        let find = async |seen: Arc<Seen>| {
            Ok(self.computing().properties(seen, listing.of(range.clone()), limit).await?)
        };
        let (found, seen) = self.planner.events.ask(seen, &range, find).await?;
        Ok(listing.property_response(&found, &range, &seen))
    }

    async fn export(
        &self,
        request: &Request<ExportEventsRequest>,
    ) -> Result<Streamed<ExportEventsResponse>, Error> {
        let asked = request.get_ref();
        let mut wish = export::Wish::parse(asked)?;
        let (mut seen, _) = self.seen(request, &asked.min_consistency_token).await?;
        let deadline = Instant::now() + EXPORT;
        let range = resolve(wish.range);
        let engine = self.computing();
        if wish.needs_properties() {
            let keys = match seen.all_property_keys() {
                Some(keys) => keys.into_iter().map(|key| Field::Property(key.to_owned())).collect(),
                None => {
                    let all = Listing::properties(&ListPropertiesRequest::default())?.of(range.clone());
                    let left = deadline.saturating_duration_since(Instant::now());
                    let find = async |seen: Arc<Seen>| Ok(engine.properties(seen, all.clone(), left).await?);
                    let ((found, _), whole) = self.planner.events.ask(seen, &range, find).await?;
                    seen = whole;
                    found.into_iter().map(|property| property.field).collect()
                }
            };
            wish = wish.with_properties(keys);
        }
        let begin = self.patience(request).answered.unwrap_or(deadline).min(Instant::now() + BEGIN);
        let room = self.exports.room(wish.held(), begin).await?;
        let (exports, engine) = (self.exports.clone(), engine.clone());
        let (planner, project) = (Arc::clone(&self.planner), Principal::of(request)?.project.clone());
        let now = move || {
            let (planner, project) = (Arc::clone(&planner), project.clone());
            async move { planner.events.now(&project, &Wanted::default(), Instant::now()).await }
        };
        let told = Arc::new(seen.without_hot());
        let job = Job { exports, room, wish, range: range.clone(), seen, engine, deadline };
        Ok(self.streamed(ReceiverStream::new(turns::pieces(job, now)), range, told))
    }

    async fn sql(&self, request: &Request<QuerySqlRequest>) -> Result<Streamed<QuerySqlResponse>, Error> {
        let (asked, started) = (request.get_ref(), Instant::now());
        asked.validate()?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let limits = sql::limits(asked, limit);
        let rows = self.computing().sql(seen.clone(), asked.statement.clone(), limits).await?;
        Ok(self.streamed(sql::parts(rows, seen.clone(), started), resolve(None), seen))
    }

    /// An answer in parts. Where a segment turns out to be damaged, that is told at once, and the next question is answered without
    /// it.
    fn streamed<T: Send + 'static>(
        &self,
        parts: impl Stream<Item = Result<T, Error>> + Send + 'static,
        range: std::ops::Range<i64>,
        seen: Arc<Seen>,
    ) -> Streamed<T> {
        let planner = Arc::clone(&self.planner);
        let parts = parts.map(move |part| {
            if let Err(Error::Unreadable(_)) = part {
                tokio::spawn(Arc::clone(&planner).isolate(Arc::clone(&seen), range.clone()));
            }
            part.map_err(Status::from)
        });
        parts.boxed()
    }

    fn watch(&self, request: Request<WatchQueryRequest>) -> Result<Watch, Error> {
        // A deadline is the stream's, not that of an answer.
        let patience = Patience { answered: None, ..self.patience(&request) };
        let project = Principal::of(&request)?.project.clone();
        let request = request.into_inner();
        request.validate()?;
        let WatchQueryRequest { query, min_interval } = request;
        let query = query.expect("the schema requires a query, and the request is valid");
        let question = Question::parse(project, query, self.limits.max_result_rows)?;
        let asked = min_interval.map(|interval| {
            let (seconds, nanos) = (interval.seconds.unsigned_abs(), interval.nanos.unsigned_abs());
            Duration::new(seconds, nanos)
        });
        Ok(Watch {
            planner: self.planner.clone(),
            wanted: self.planner.rollups.wanted(&question.token)?,
            question: Arc::new(question),
            patience,
            min_interval: asked.unwrap_or(DEFAULT_INTERVAL).max(self.limits.watch_min_interval),
            place: self.place("watch_query")?,
        })
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AnalyticsService for Analytics {
    type ExportEventsStream = Streamed<ExportEventsResponse>;
    type QuerySqlStream = Streamed<QuerySqlResponse>;
    type WatchQueryStream = Streamed<WatchQueryResponse>;
    type WatchEventsStream = Streamed<WatchEventsResponse>;

    async fn get_summary(
        &self,
        request: Request<GetSummaryRequest>,
    ) -> Result<Response<GetSummaryResponse>, Status> {
        self.answer(request).await
    }

    async fn query_time_series(
        &self,
        request: Request<QueryTimeSeriesRequest>,
    ) -> Result<Response<QueryTimeSeriesResponse>, Status> {
        self.answer(request).await
    }

    async fn query_breakdown(
        &self,
        request: Request<QueryBreakdownRequest>,
    ) -> Result<Response<QueryBreakdownResponse>, Status> {
        self.answer(request).await
    }

    async fn query_funnel(
        &self,
        request: Request<QueryFunnelRequest>,
    ) -> Result<Response<QueryFunnelResponse>, Status> {
        self.answer(request).await
    }

    async fn query_retention(
        &self,
        request: Request<QueryRetentionRequest>,
    ) -> Result<Response<QueryRetentionResponse>, Status> {
        self.answer(request).await
    }

    async fn query_paths(
        &self,
        request: Request<QueryPathsRequest>,
    ) -> Result<Response<QueryPathsResponse>, Status> {
        self.answer(request).await
    }

    async fn get_import(
        &self,
        request: Request<GetImportRequest>,
    ) -> Result<Response<GetImportResponse>, Status> {
        self.import(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        self.user(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn list_user_events(
        &self,
        request: Request<ListUserEventsRequest>,
    ) -> Result<Response<ListUserEventsResponse>, Status> {
        self.answer(request).await
    }

    async fn list_event_names(
        &self,
        request: Request<ListEventNamesRequest>,
    ) -> Result<Response<ListEventNamesResponse>, Status> {
        self.event_names(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn list_properties(
        &self,
        request: Request<ListPropertiesRequest>,
    ) -> Result<Response<ListPropertiesResponse>, Status> {
        self.properties(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn export_events(
        &self,
        request: Request<ExportEventsRequest>,
    ) -> Result<Response<Self::ExportEventsStream>, Status> {
        self.export(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn query_sql(
        &self,
        request: Request<QuerySqlRequest>,
    ) -> Result<Response<Self::QuerySqlStream>, Status> {
        self.sql(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn watch_query(
        &self,
        request: Request<WatchQueryRequest>,
    ) -> Result<Response<Self::WatchQueryStream>, Status> {
        let watch = self.watch(request).map_err(|error| self.refuse(error))?;
        Ok(Response::new(watch::answers(watch, &self.shutdown).boxed()))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let watched = async {
            let wish = Wish::parse(request.get_ref(), Principal::of(&request)?.project.clone())?;
            let place = self.place("watch_events")?;
            let limits =
                live::Limits { events: self.limits.watch_buffer, bytes: self.limits.watch_buffer_bytes };
            live::watch(&self.tail, wish, limits, place, &self.shutdown).await
        };
        let responses = watched.await.map_err(|error| self.refuse(error))?;
        Ok(Response::new(responses.boxed()))
    }
}
