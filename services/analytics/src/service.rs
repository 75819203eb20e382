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
        QueryTimeSeriesRequest, QueryTimeSeriesResponse, ResultInfo, WatchEventsRequest, WatchEventsResponse,
        WatchQueryRequest, WatchQueryResponse, analytics_service_server::AnalyticsService,
        watch_query_request::Query,
    },
    validate::Validate as _,
};
use weir_rollup::level::Whole;
use weir_runtime::{Metrics, Shutdown, clock::now_micros, server::Deadline};

use crate::{
    SERVICE,
    engine::Engine,
    error::Error,
    events::{
        Events, Seen, discovery::Listing, export, funnel::Funnel, needs, paths::Paths, retention::Retention,
        series::Measures, sql, user,
    },
    live::{self, Tail, Wish},
    query::{
        Answer, Question, breakdown::Breakdown, range::TimeRange, summary::Summary, time_series::TimeSeries,
    },
    watch::{self, Place, Watch},
};

/// Time between two answers of a watch that does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);
/// Left of a call's time to tell that it was not enough.
const MARGIN: Duration = Duration::from_millis(20);

/// The longest that an export may take: what is read has no bound but what is kept.
const EXPORT: Duration = Duration::from_secs(3600);

/// The service, as tonic serves it.
#[derive(Debug)]
pub(crate) struct Analytics {
    pub(crate) engine: Arc<Engine>,
    /// What rollups don't cover.
    pub(crate) events: Events,
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

    /// The events as they are now, those of the token among them, and how long a question about them may take.
    async fn seen<R>(&self, request: &Request<R>, token: &str) -> Result<(Arc<Seen>, Duration), Error> {
        let (wanted, deadline) = (self.engine.wanted(token)?, self.token_deadline(request));
        // What is counted was handed to the store before.
        self.engine.reach(&wanted, deadline).await?;
        let seen = self.events.now(&wanted, deadline).await?;
        let by_caller = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        let left = by_caller.map_or(self.limits.query_timeout, |deadline| {
            deadline.saturating_duration_since(Instant::now()).saturating_sub(MARGIN)
        });
        Ok((seen, left.min(self.limits.query_timeout)))
    }

    /// The moments that a question about events is about.
    fn range(range: &TimeRange) -> std::ops::Range<i64> {
        range.resolve(now_micros(), &Whole::ALWAYS, 1)
    }

    /// Likewise; without a range all that is kept.
    fn range_or_all(range: Option<&TimeRange>, seen: &Seen) -> std::ops::Range<i64> {
        range.map_or_else(|| seen.everything(), Self::range)
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
        let asked = request.get_ref();
        let (why, mut declined) = (needs::of_series(asked), None);
        if why.is_none() {
            match TimeSeries::parse(asked) {
                Ok(question) => {
                    let answer =
                        self.ask(request, Question::TimeSeries(question), &asked.min_consistency_token);
                    match answer.await {
                        Ok(Answer::TimeSeries(answer)) => return Ok(answer),
                        Ok(_) => unreachable!("the answer is of the question's kind"),
                        Err(error) => declined = Some(error.uncovered()?),
                    }
                }
                Err(violations) => return Err(violations.into()),
            }
        }
        let measures = Measures::series(asked, self.limits.max_result_rows)?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let why = seen.instead_of(declined, why)?;
        let question = measures.of(Self::range(&measures.range));
        let (answer, before) = self.measured(&measures, &question, &seen, limit).await?;
        let mut response = measures.series_response(&question, &answer, before.as_ref(), &seen);
        explain(response.info.as_mut(), asked.explain, why);
        Ok(response)
    }

    async fn breakdown(
        &self,
        request: &Request<QueryBreakdownRequest>,
    ) -> Result<QueryBreakdownResponse, Error> {
        let asked = request.get_ref();
        let (why, mut declined) = (needs::of_breakdown(asked), None);
        if why.is_none() {
            let question = Question::Breakdown(Breakdown::parse(asked)?);
            match self.ask(request, question, &asked.min_consistency_token).await {
                Ok(Answer::Breakdown(answer)) => return Ok(answer),
                Ok(_) => unreachable!("the answer is of the question's kind"),
                Err(error) => declined = Some(error.uncovered()?),
            }
        }
        let measures = Measures::breakdown(asked, self.limits.max_result_rows)?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let why = seen.instead_of(declined, why)?;
        let question = measures.of(Self::range(&measures.range));
        let (answer, before) = self.measured(&measures, &question, &seen, limit).await?;
        let mut response = measures.breakdown_response(&question, &answer, before.as_ref(), &seen);
        explain(response.info.as_mut(), asked.explain, why);
        Ok(response)
    }

    /// The measures of a range and, where they are compared, of the one before.
    async fn measured(
        &self,
        measures: &Measures,
        question: &weir_query::series::Question,
        seen: &Arc<Seen>,
        limit: Duration,
    ) -> Result<(weir_query::series::Answer, Option<weir_query::series::Answer>), Error> {
        let engine = &self.events.engine;
        let answer = engine.series(seen.clone(), question.clone(), limit).await?;
        let before = match measures.compare {
            true => {
                // Whatever is among the greatest now may have been among the least before.
                let max_series = self.limits.max_result_rows;
                let before = weir_query::series::Question { max_series, ..question.preceding() };
                Some(engine.series(seen.clone(), before, limit).await?)
            }
            false => None,
        };
        Ok((answer, before))
    }

    async fn funnel(&self, request: &Request<QueryFunnelRequest>) -> Result<QueryFunnelResponse, Error> {
        let asked = request.get_ref();
        let funnel = Funnel::parse(asked)?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let range = Self::range(&funnel.range);
        let answer = self.events.engine.funnel(seen.clone(), funnel.of(range.clone()), limit).await?;
        let mut response = funnel.response(&answer, &range, &seen);
        explain(response.info.as_mut(), asked.explain, None);
        Ok(response)
    }

    async fn retention(
        &self,
        request: &Request<QueryRetentionRequest>,
    ) -> Result<QueryRetentionResponse, Error> {
        let asked = request.get_ref();
        let retention = Retention::parse(asked, self.limits.max_result_rows)?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let range = Self::range(&retention.range);
        let answer = self.events.engine.retention(seen.clone(), retention.of(range.clone()), limit).await?;
        let mut response = retention.response(&answer, &range, &seen);
        explain(response.info.as_mut(), asked.explain, None);
        Ok(response)
    }

    async fn paths(&self, request: &Request<QueryPathsRequest>) -> Result<QueryPathsResponse, Error> {
        let asked = request.get_ref();
        let paths = Paths::parse(asked)?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let range = Self::range(&paths.range);
        let answer = self.events.engine.paths(seen.clone(), paths.of(range.clone()), limit).await?;
        let mut response = paths.response(&answer, &range, &seen);
        explain(response.info.as_mut(), asked.explain, None);
        Ok(response)
    }

    async fn user(&self, request: &Request<GetUserRequest>) -> Result<GetUserResponse, Error> {
        let asked = request.get_ref();
        asked.validate()?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let found = self.events.engine.user(seen.clone(), asked.user_id.clone(), limit).await?;
        let mut response = user::profile(&asked.user_id, found, &seen)?;
        explain(response.info.as_mut(), asked.explain, None);
        Ok(response)
    }

    async fn user_events(
        &self,
        request: &Request<ListUserEventsRequest>,
    ) -> Result<ListUserEventsResponse, Error> {
        let asked = request.get_ref();
        let timeline = user::UserEvents::parse(asked)?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let range = Self::range_or_all(timeline.range.as_ref(), &seen);
        let page = self.events.engine.timeline(seen.clone(), timeline.of(range.clone()), limit).await?;
        let mut response = timeline.response(&page, &range, &seen)?;
        explain(response.info.as_mut(), asked.explain, None);
        Ok(response)
    }

    async fn event_names(
        &self,
        request: &Request<ListEventNamesRequest>,
    ) -> Result<ListEventNamesResponse, Error> {
        let listing = Listing::names(request.get_ref())?;
        let (seen, limit) = self.seen(request, "").await?;
        let range = Self::range_or_all(listing.range.as_ref(), &seen);
        let found = self.events.engine.event_names(seen.clone(), listing.of(range.clone()), limit).await?;
        Ok(listing.name_response(&found, &range, &seen))
    }

    async fn properties(
        &self,
        request: &Request<ListPropertiesRequest>,
    ) -> Result<ListPropertiesResponse, Error> {
        let listing = Listing::properties(request.get_ref())?;
        let (seen, limit) = self.seen(request, "").await?;
        let range = Self::range_or_all(listing.range.as_ref(), &seen);
        let found = self.events.engine.properties(seen.clone(), listing.of(range.clone()), limit).await?;
        Ok(listing.property_response(&found, &range, &seen))
    }

    async fn export(
        &self,
        request: &Request<ExportEventsRequest>,
    ) -> Result<Streamed<ExportEventsResponse>, Error> {
        let asked = request.get_ref();
        let mut wish = export::Wish::parse(asked)?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let range = Self::range_or_all(wish.range.as_ref(), &seen);
        let engine = &self.events.engine;
        if wish.needs_properties() {
            let all = Listing::properties(&ListPropertiesRequest::default())?.of(range.clone());
            let (properties, _) = engine.properties(seen.clone(), all, limit).await?;
            wish = wish.with_properties(properties.into_iter().map(|property| property.field));
        }
        let rows = engine.export(seen.clone(), wish.of(range.clone()), EXPORT).await?;
        Ok(wish.pieces(rows, range, seen).map(|piece| piece.map_err(Status::from)).boxed())
    }

    async fn sql(&self, request: &Request<QuerySqlRequest>) -> Result<Streamed<QuerySqlResponse>, Error> {
        let (asked, started) = (request.get_ref(), Instant::now());
        asked.validate()?;
        let (seen, limit) = self.seen(request, &asked.min_consistency_token).await?;
        let limits = sql::limits(asked, limit);
        let rows = self.events.engine.sql(seen.clone(), asked.statement.clone(), limits).await?;
        Ok(sql::parts(rows, seen, started).map(|part| part.map_err(Status::from)).boxed())
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
                refuse_to_watch(needs::of_series(query))?;
                (Question::TimeSeries(TimeSeries::parse(query)?), &query.min_consistency_token)
            }
            Some(Query::Breakdown(query)) => {
                refuse_to_watch(needs::of_breakdown(query))?;
                (Question::Breakdown(Breakdown::parse(query)?), &query.min_consistency_token)
            }
            Some(Query::Funnel(_) | Query::Retention(_) | Query::Paths(_) | Query::UserEvents(_)) => {
                return Err(Error::NotWatched("it is answered from the events themselves"));
            }
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

/// Says why a question was not answered from a rollup, if that is asked for.
fn explain(info: Option<&mut ResultInfo>, wanted: bool, why: Option<String>) {
    let Some(info) = info.filter(|_| wanted) else { return };
    let (segments, rows, bytes) = (info.segments_read, info.rows_read, info.bytes_read);
    info.plan =
        format!("answered from the events: {rows} rows and {bytes} bytes of {segments} segments were read");
    if let Some(why) = why {
        info.plan.push_str("; not from a rollup, because ");
        info.plan.push_str(&why);
    }
}

fn refuse_to_watch(why: Option<&'static str>) -> Result<(), Error> {
    why.map_or(Ok(()), |why| Err(Error::NotWatched(why)))
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
        self.funnel(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn query_retention(
        &self,
        request: Request<QueryRetentionRequest>,
    ) -> Result<Response<QueryRetentionResponse>, Status> {
        self.retention(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn query_paths(
        &self,
        request: Request<QueryPathsRequest>,
    ) -> Result<Response<QueryPathsResponse>, Status> {
        self.paths(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        self.user(&request).await.map(Response::new).map_err(|error| self.refuse(error))
    }

    async fn list_user_events(
        &self,
        request: Request<ListUserEventsRequest>,
    ) -> Result<Response<ListUserEventsResponse>, Status> {
        self.user_events(&request).await.map(Response::new).map_err(|error| self.refuse(error))
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
