//! The RPCs: requests are read and checked, asked of the [`Engine`], and watched.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use tokio::{sync::Semaphore, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weir_proto::{
    analytics::v1::{
        ExportEventsRequest, ExportEventsResponse, GetSummaryRequest, GetSummaryResponse, GetUserRequest,
        GetUserResponse, ListEventNamesRequest, ListEventNamesResponse, ListPropertiesRequest,
        ListPropertiesResponse, ListUserEventsRequest, ListUserEventsResponse, QueryBreakdownRequest,
        QueryBreakdownResponse, QueryFunnelRequest, QueryFunnelResponse, QueryPathsRequest,
        QueryPathsResponse, QueryRetentionRequest, QueryRetentionResponse, QuerySqlRequest, QuerySqlResponse,
        QueryTimeSeriesRequest, QueryTimeSeriesResponse, WatchEventsRequest, WatchEventsResponse,
        WatchQueryRequest, WatchQueryResponse, analytics_service_server::AnalyticsService,
        watch_query_request::Query,
    },
    validate::Validate,
};
use weir_runtime::{Metrics, Shutdown, server::Deadline};

use crate::{
    SERVICE,
    engine::Engine,
    error::Error,
    events,
    live::{self, Tail, Wish},
    query::{Answer, Question, breakdown::Breakdown, summary::Summary, time_series::TimeSeries},
    watch::{self, Place, Watch},
};

/// Time between two answers of a watch that does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);
/// Left of a call's time to tell that it was not enough.
const MARGIN: Duration = Duration::from_millis(20);

/// The service, as tonic serves it.
#[derive(Debug)]
pub(crate) struct Analytics {
    pub(crate) engine: Arc<Engine>,
    pub(crate) tail: Tail,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Metrics,
    /// One permit a watch (`analytics.max_watches`).
    pub(crate) watches: Arc<Semaphore>,
    pub(crate) limits: weir_runtime::config::Analytics,
}

impl Analytics {
    async fn ask<R>(&self, request: &Request<R>, question: Question, token: &str) -> Result<Answer, Error> {
        let wanted = self.engine.wanted(token)?;
        self.engine.reach(&wanted, self.token_deadline(request)).await?;
        let by_caller = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        let deadline = by_caller.unwrap_or_else(|| Instant::now() + self.limits.query_timeout);
        self.engine.ask(&question, deadline).await
    }

    /// Until when events are waited for: the caller's deadline, less the time to say so; the configured one if it has none.
    fn token_deadline<R>(&self, request: &Request<R>) -> Instant {
        let now = Instant::now();
        let own = request.metadata().contains_key("grpc-timeout");
        match request.extensions().get::<Deadline>() {
            Some(Deadline(deadline)) if own => {
                let left = deadline.saturating_duration_since(now);
                now + left.saturating_sub(MARGIN.min(left / 10))
            }
            _ => now + self.limits.consistency_timeout,
        }
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

    fn unanswered<R: Validate, T>(&self, request: &Request<R>, what: &'static str) -> Result<T, Status> {
        let valid = request.get_ref().validate().map_err(Error::from);
        valid.and_then(|()| events::unanswered(what)).map_err(|error| self.refuse(error))
    }

    async fn summary(&self, request: &Request<GetSummaryRequest>) -> Result<GetSummaryResponse, Error> {
        let question = Question::Summary(Summary::parse(request.get_ref())?);
        let answer = self.ask(request, question, &request.get_ref().min_consistency_token).await?;
        let Answer::Summary(answer) = answer else { unreachable!("the answer is of the question's kind") };
        Ok(answer)
    }

    async fn time_series(
        &self,
        request: &Request<QueryTimeSeriesRequest>,
    ) -> Result<QueryTimeSeriesResponse, Error> {
        events::check_time_series(request.get_ref())?;
        let question = Question::TimeSeries(TimeSeries::parse(request.get_ref())?);
        let answer = self.ask(request, question, &request.get_ref().min_consistency_token).await?;
        let Answer::TimeSeries(answer) = answer else { unreachable!("the answer is of the question's kind") };
        Ok(answer)
    }

    async fn breakdown(
        &self,
        request: &Request<QueryBreakdownRequest>,
    ) -> Result<QueryBreakdownResponse, Error> {
        events::check_breakdown(request.get_ref())?;
        let question = Question::Breakdown(Breakdown::parse(request.get_ref())?);
        let answer = self.ask(request, question, &request.get_ref().min_consistency_token).await?;
        let Answer::Breakdown(answer) = answer else { unreachable!("the answer is of the question's kind") };
        Ok(answer)
    }

    fn watch(&self, request: &Request<WatchQueryRequest>) -> Result<Watch, Error> {
        let deadline = self.token_deadline(request);
        let request = request.get_ref();
        request.validate()?;
        let (question, token) = match &request.query {
            Some(Query::Summary(query)) => {
                (Question::Summary(Summary::parse(query)?), &query.min_consistency_token)
            }
            Some(Query::TimeSeries(query)) => {
                events::check_time_series(query)?;
                (Question::TimeSeries(TimeSeries::parse(query)?), &query.min_consistency_token)
            }
            Some(Query::Breakdown(query)) => {
                events::check_breakdown(query)?;
                (Question::Breakdown(Breakdown::parse(query)?), &query.min_consistency_token)
            }
            Some(Query::Funnel(_)) => return events::unanswered("a funnel"),
            Some(Query::Retention(_)) => return events::unanswered("retention"),
            Some(Query::Paths(_)) => return events::unanswered("paths"),
            Some(Query::UserEvents(_)) => return events::unanswered("a timeline"),
            None => unreachable!("the schema requires a query, and the request is valid"),
        };
        let asked = request.min_interval.map(|interval| {
            let (seconds, nanos) = (interval.seconds.unsigned_abs(), interval.nanos.unsigned_abs());
            Duration::new(seconds, nanos)
        });
        Ok(Watch {
            engine: self.engine.clone(),
            question,
            wanted: self.engine.wanted(token)?,
            deadline,
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
        self.summary(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn query_time_series(
        &self,
        request: Request<QueryTimeSeriesRequest>,
    ) -> Result<Response<QueryTimeSeriesResponse>, Status> {
        self.time_series(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn query_breakdown(
        &self,
        request: Request<QueryBreakdownRequest>,
    ) -> Result<Response<QueryBreakdownResponse>, Status> {
        self.breakdown(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn query_funnel(
        &self,
        request: Request<QueryFunnelRequest>,
    ) -> Result<Response<QueryFunnelResponse>, Status> {
        self.unanswered(&request, "a funnel")
    }

    async fn query_retention(
        &self,
        request: Request<QueryRetentionRequest>,
    ) -> Result<Response<QueryRetentionResponse>, Status> {
        self.unanswered(&request, "retention")
    }

    async fn query_paths(
        &self,
        request: Request<QueryPathsRequest>,
    ) -> Result<Response<QueryPathsResponse>, Status> {
        self.unanswered(&request, "paths")
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        self.unanswered(&request, "a profile")
    }

    async fn list_user_events(
        &self,
        request: Request<ListUserEventsRequest>,
    ) -> Result<Response<ListUserEventsResponse>, Status> {
        self.unanswered(&request, "a timeline")
    }

    async fn list_event_names(
        &self,
        request: Request<ListEventNamesRequest>,
    ) -> Result<Response<ListEventNamesResponse>, Status> {
        self.unanswered(&request, "a list of event names")
    }

    async fn list_properties(
        &self,
        request: Request<ListPropertiesRequest>,
    ) -> Result<Response<ListPropertiesResponse>, Status> {
        self.unanswered(&request, "a list of properties")
    }

    async fn export_events(
        &self,
        request: Request<ExportEventsRequest>,
    ) -> Result<Response<Self::ExportEventsStream>, Status> {
        self.unanswered(&request, "an export")
    }

    async fn query_sql(
        &self,
        request: Request<QuerySqlRequest>,
    ) -> Result<Response<Self::QuerySqlStream>, Status> {
        self.unanswered(&request, "SQL")
    }

    async fn watch_query(
        &self,
        request: Request<WatchQueryRequest>,
    ) -> Result<Response<Self::WatchQueryStream>, Status> {
        let watch = self.watch(&request).map_err(|error| self.refuse(error))?;
        Ok(Response::new(watch::answers(watch, &self.shutdown).boxed()))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let watched = async {
            let wish = Wish::parse(request.get_ref(), self.engine.project.clone())?;
            let place = self.place("watch_events")?;
            live::watch(&self.tail, wish, self.limits.watch_buffer, place, &self.shutdown).await
        };
        let responses = watched.await.map_err(|error| self.refuse(error))?;
        Ok(Response::new(ReceiverStream::new(responses).boxed()))
    }
}
