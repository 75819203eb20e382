//! `QueryRetention`.

use std::ops::Range;

use weir_proto::{
    analytics::v1::{self as pb, query_retention_request::CohortKind},
    time::timestamp,
    validate::{Path, Violations},
};
use weir_query::{
    fold::retention::Cohorts,
    retention::{Answer, Cohort, MAX_PERIODS, Question},
};
use weir_rollup::calendar::Interval;

use super::{Seen, values};
use crate::question::{
    TimeRange,
    reader::{Reader, number_or},
};

/// Periods until now when the request names no range: a single day would show nobody who comes back.
const DEFAULT_PERIODS: i64 = 12;
/// Groups when the request says nothing.
const DEFAULT_GROUPS: usize = 100;

/// The question, but for its range, which may depend on the moment.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    pub(crate) range: TimeRange,
    question: Question,
    period: pb::RetentionPeriod,
    max_groups: usize,
}

impl Retention {
    /// Reads a request.
    pub(crate) fn parse(request: &pb::QueryRetentionRequest, max_cohorts: usize) -> Result<Self, Violations> {
        let mut reader = Reader::new(request)?;
        let root = Path::ROOT;
        let zone = reader.zone(&request.time_zone);
        let (period, interval) = match request.period() {
            pb::RetentionPeriod::Day => (pb::RetentionPeriod::Day, Interval::Day),
            pb::RetentionPeriod::Unspecified | pb::RetentionPeriod::Week => {
                (pb::RetentionPeriod::Week, Interval::Week)
            }
            pb::RetentionPeriod::Month => (pb::RetentionPeriod::Month, Interval::Month),
            pb::RetentionPeriod::Quarter => (pb::RetentionPeriod::Quarter, Interval::Quarter),
            pb::RetentionPeriod::Year => (pb::RetentionPeriod::Year, Interval::Year),
        };
        let question = Question {
            range: 0..0,
            interval,
            zone,
            cohorts: match request.cohort_kind() {
                CohortKind::Unspecified | CohortKind::FirstTime => Cohorts::First,
                CohortKind::Recurring => Cohorts::Recurring,
            },
            start: reader.selected(&root.field("start_event"), request.start_event.as_ref()),
            returns: reader.selected(&root.field("return_event"), request.return_event.as_ref()),
            watched: number_or(request.periods, MAX_PERIODS),
            by: reader.group_by(&request.group_by),
            max_cohorts,
        };
        let range = match &request.time_range {
            None => TimeRange::Last(DEFAULT_PERIODS * interval.nominal_micros()),
            range => reader.range(range.as_ref()),
        };
        let max_groups = number_or(request.max_groups, DEFAULT_GROUPS);
        reader.finish(Self { range, question, period, max_groups })
    }

    /// The question about a range.
    pub(crate) fn of(&self, range: Range<i64>) -> Question {
        Question { range, ..self.question.clone() }
    }

    /// The response with an answer.
    pub(crate) fn response(
        &self,
        answer: &Answer,
        range: &Range<i64>,
        seen: &Seen,
    ) -> pb::QueryRetentionResponse {
        let mut groups: Vec<&[Cohort]> = answer.cohorts.chunk_by(|a, b| a.values == b.values).collect();
        let size = |cohorts: &[Cohort]| cohorts.iter().map(|cohort| cohort.size).sum::<u64>();
        groups.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| a[0].values.cmp(&b[0].values)));
        pb::QueryRetentionResponse {
            groups: groups.iter().take(self.max_groups).map(|cohorts| self.group(cohorts)).collect(),
            omitted_groups: groups.len().saturating_sub(self.max_groups) as u64,
            period: self.period.into(),
            info: Some(seen.info(range, answer.read, true)),
        }
    }

    fn group(&self, cohorts: &[Cohort]) -> pb::RetentionGroup {
        let periods = cohorts.iter().map(|cohort| cohort.returned.len()).max().unwrap_or_default();
        let shares = (0..periods).map(|period| {
            let reaching = cohorts.iter().filter(|cohort| cohort.returned.len() > period);
            reaching.fold(pb::RetentionShare::default(), |sum, cohort| pb::RetentionShare {
                size: sum.size + cohort.size,
                count: sum.count + cohort.returned[period],
            })
        });
        let cohort = |cohort: &Cohort| pb::RetentionCohort {
            start_time: Some(timestamp(cohort.start)),
            local_time: self.question.zone.local_time(cohort.start).unwrap_or_default(),
            size: cohort.size,
            counts: cohort.returned.clone(),
        };
        pb::RetentionGroup {
            group: values(&cohorts[0].values),
            cohorts: cohorts.iter().map(cohort).collect(),
            shares: shares.collect(),
        }
    }
}
