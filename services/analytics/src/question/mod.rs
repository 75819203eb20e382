//! Every question that can be asked and watched, read once: what is asked, whoever answers it.
//!
//! | module | what it is |
//! |---|---|
//! | [`range`](TimeRange) | which moments are asked for |
//! | [`measures`](Measures) | measures over time and by values |
//! | [`named`](Named) | the names in a question |
//! | [`reader`] | what requests of several kinds have in common |
//!
//! Questions of the other kinds are read where their answers are made: [`crate::rollups::summary`] and the modules of
//! [`crate::events`].

mod measures;
mod named;
mod range;
pub(crate) mod reader;

use std::ops::Range;

use bytes::Bytes;
use prost::Message as _;
use weir_proto::{
    analytics::v1::{
        GetSummaryRequest, GetSummaryResponse, ListUserEventsRequest, ListUserEventsResponse,
        QueryBreakdownRequest, QueryBreakdownResponse, QueryFunnelRequest, QueryFunnelResponse,
        QueryPathsRequest, QueryPathsResponse, QueryRetentionRequest, QueryRetentionResponse,
        QueryTimeSeriesRequest, QueryTimeSeriesResponse, ResultInfo, WatchQueryRequest,
        watch_query_request::Query, watch_query_response,
    },
    validate::Violations,
};
use weir_runtime::auth::ProjectId;

use crate::{
    events::{funnel::Funnel, paths::Paths, retention::Retention, user::UserEvents},
    rollups::summary::{self, Summary},
};

pub(crate) use measures::{Measures, interval_number};
pub(crate) use named::Named;
pub(crate) use range::TimeRange;

/// A question that is understood.
#[derive(Debug)]
pub(crate) struct Question {
    /// Whose events it is about.
    pub(crate) project: ProjectId,
    pub(crate) kind: Kind,
    /// What the answer must count, as a consistency token.
    pub(crate) token: String,
    /// Whether the answer says how it came about.
    pub(crate) explain: bool,
    /// The same for questions of one project that have the same answers.
    pub(crate) identity: Bytes,
    /// The names in it.
    pub(crate) named: Named,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Kind {
    /// What rollups may know.
    Counts(Counts),
    /// How many go through steps.
    Funnel(Funnel),
    /// Who comes back.
    Retention(Retention),
    /// What comes after or before an event.
    Paths(Paths),
    /// A user's events.
    UserEvents(UserEvents),
}

/// A question about events without regard to which user they are of.
#[derive(Debug, Clone)]
pub(crate) enum Counts {
    /// Key figures.
    Summary(Summary),
    /// Measures over time.
    TimeSeries(Measures),
    /// Measures by values.
    Breakdown(Measures),
}

/// An answer, in the form in which watches send it.
pub(crate) type Answer = watch_query_response::Result;

impl Question {
    /// Reads a request. `max_rows` are points and rows of an answer at most.
    pub(crate) fn parse(project: ProjectId, mut query: Query, max_rows: usize) -> Result<Self, Violations> {
        let kind = match &query {
            Query::Summary(request) => Kind::Counts(Counts::Summary(Summary::parse(request)?)),
            Query::TimeSeries(request) => {
                Kind::Counts(Counts::TimeSeries(Measures::series(request, max_rows)?))
            }
            Query::Breakdown(request) => {
                Kind::Counts(Counts::Breakdown(Measures::breakdown(request, max_rows)?))
            }
            Query::Funnel(request) => Kind::Funnel(Funnel::parse(request)?),
            Query::Retention(request) => Kind::Retention(Retention::parse(request, max_rows)?),
            Query::Paths(request) => Kind::Paths(Paths::parse(request)?),
            Query::UserEvents(request) => Kind::UserEvents(UserEvents::parse(request)?),
        };
        let named = Named::of(&query);
        let (token, explain) = match &mut query {
            Query::Summary(of) => (&mut of.min_consistency_token, &mut of.explain),
            Query::TimeSeries(of) => (&mut of.min_consistency_token, &mut of.explain),
            Query::Breakdown(of) => (&mut of.min_consistency_token, &mut of.explain),
            Query::Funnel(of) => (&mut of.min_consistency_token, &mut of.explain),
            Query::Retention(of) => (&mut of.min_consistency_token, &mut of.explain),
            Query::Paths(of) => (&mut of.min_consistency_token, &mut of.explain),
            Query::UserEvents(of) => (&mut of.min_consistency_token, &mut of.explain),
        };
        let (token, explain) = (std::mem::take(token), std::mem::take(explain));
        // No name of a project has a 0.
        let mut identity = [project.as_str().as_bytes(), &[0]].concat();
        WatchQueryRequest { query: Some(query), min_interval: None }.encode(&mut identity).expect("it grows");
        Ok(Self { project, kind, token, explain, identity: identity.into(), named })
    }
}

impl Kind {
    /// Which moments it is about; `None`: all that are kept.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        match self {
            Self::Counts(Counts::Summary(question)) => Some(question.range),
            Self::Counts(Counts::TimeSeries(question) | Counts::Breakdown(question)) => Some(question.range),
            Self::Funnel(question) => Some(question.range),
            Self::Retention(question) => Some(question.range),
            Self::Paths(question) => Some(question.range),
            Self::UserEvents(question) => question.range,
        }
    }

    /// The moments of the events that the answer about a range is read from.
    ///
    /// # Errors
    /// When the question breaks a rule.
    pub(crate) fn reads(&self, range: &Range<i64>) -> Result<Range<i64>, weir_query::Error> {
        match self {
            Self::Counts(Counts::TimeSeries(measures) | Counts::Breakdown(measures)) => {
                measures.reads(range.clone())
            }
            Self::Counts(Counts::Summary(_)) => Ok(summary::preceding(range).start..range.end),
            Self::Funnel(_) | Self::Retention(_) | Self::Paths(_) | Self::UserEvents(_) => Ok(range.clone()),
        }
    }

    /// What rollups may know the answer to.
    ///
    /// # Errors
    /// Why none ever does.
    pub(crate) fn counts(&self) -> Result<&Counts, &'static str> {
        match self {
            Self::Counts(counts @ Counts::Summary(_)) => Ok(counts),
            Self::Counts(counts @ (Counts::TimeSeries(measures) | Counts::Breakdown(measures))) => {
                measures.needs_events().map_or(Ok(counts), Err)
            }
            Self::Funnel(_) | Self::Retention(_) | Self::Paths(_) | Self::UserEvents(_) => {
                Err("no rollup tells which events are of the same user")
            }
        }
    }

    /// Whether the answer changes with the clock.
    pub(crate) fn is_live(&self) -> bool {
        self.range().is_some_and(|range| range.is_live())
    }
}

/// What an answer says about itself.
pub(crate) fn info(answer: &mut Answer) -> &mut ResultInfo {
    let info = match answer {
        Answer::Summary(answer) => &mut answer.info,
        Answer::TimeSeries(answer) => &mut answer.info,
        Answer::Breakdown(answer) => &mut answer.info,
        Answer::Funnel(answer) => &mut answer.info,
        Answer::Retention(answer) => &mut answer.info,
        Answer::Paths(answer) => &mut answer.info,
        Answer::UserEvents(answer) => &mut answer.info,
    };
    info.get_or_insert_default()
}

/// Whether an answer is about no event at all.
pub(crate) fn is_empty(answer: &Answer) -> bool {
    match answer {
        Answer::Summary(answer) => answer.top_events.is_empty(),
        Answer::TimeSeries(answer) => {
            let figures = answer.series.iter().flat_map(|series| &series.totals);
            figures.into_iter().all(|figure| figure.empty || figure.value == 0.0)
        }
        Answer::Breakdown(answer) => answer.rows.is_empty(),
        Answer::Funnel(answer) => {
            let steps = answer.total.iter().flat_map(|group| &group.steps);
            steps.into_iter().all(|step| step.count == 0)
        }
        Answer::Retention(answer) => answer.groups.is_empty(),
        Answer::Paths(answer) => answer.root.as_ref().is_none_or(|root| root.count == 0),
        Answer::UserEvents(answer) => answer.events.is_empty(),
    }
}

/// A request for one kind of question, and the response with its answer.
pub(crate) trait Asks {
    /// The response.
    type Response;
    /// The question.
    fn query(self) -> Query;
    /// The response, if the answer is of this kind.
    fn response(answer: Answer) -> Option<Self::Response>;
}

macro_rules! asks {
    ($($request:ident: $kind:ident -> $response:ident),* $(,)?) => {$(
        impl Asks for $request {
            type Response = $response;

            fn query(self) -> Query {
                Query::$kind(self)
            }

            fn response(answer: Answer) -> Option<$response> {
                if let Answer::$kind(response) = answer { Some(response) } else { None }
            }
        }
    )*};
}

asks! {
    GetSummaryRequest: Summary -> GetSummaryResponse,
    QueryTimeSeriesRequest: TimeSeries -> QueryTimeSeriesResponse,
    QueryBreakdownRequest: Breakdown -> QueryBreakdownResponse,
    QueryFunnelRequest: Funnel -> QueryFunnelResponse,
    QueryRetentionRequest: Retention -> QueryRetentionResponse,
    QueryPathsRequest: Paths -> QueryPathsResponse,
    ListUserEventsRequest: UserEvents -> ListUserEventsResponse,
}
