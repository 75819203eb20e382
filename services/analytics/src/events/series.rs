//! `QueryTimeSeries` and `QueryBreakdown` where rollups don't cover them.

use std::ops::Range;

use weir_proto::{
    analytics::v1 as pb,
    time::timestamp,
    validate::{Path, Validate as _, Violations},
};
use weir_query::{
    fields,
    filter::Filter,
    formula::Formula,
    measure::Measure,
    series::{Answer, Figure, Measured, Point, Precision, Question, Series, Shape},
};
use weir_rollup::{
    calendar::{Interval, Zone},
    money::Amount,
};

use super::{Seen, event_filter, figure, values};
use crate::query::{
    range::TimeRange,
    time_series::{asked_interval, interval_number},
};

/// Series or rows when the request says nothing.
const DEFAULT_SERIES: usize = 100;

/// Measures over time or by values, but for the range, which may depend on the moment.
#[derive(Debug, Clone)]
pub(crate) struct Measures {
    pub(crate) range: TimeRange,
    question: Question,
    /// Whether the interval is to be chosen after the range.
    any_interval: bool,
    /// Whether the range before is asked for too.
    pub(crate) compare: bool,
    fill_empty: bool,
}

impl Measures {
    /// Reads a request for series.
    pub(crate) fn series(
        request: &pb::QueryTimeSeriesRequest,
        max_points: usize,
    ) -> Result<Self, Violations> {
        request.validate()?;
        let (at, mut found) = (Path::ROOT, Violations::default());
        let zone = Zone::parse(&request.time_zone).unwrap_or_else(|error| {
            found.add(&at.field("time_zone"), error);
            Zone::UTC
        });
        let interval = asked_interval(request.interval());
        let shape = match (request.cumulative, request.rolling_buckets) {
            (true, 2..) => {
                found.add(&at.field("cumulative"), "must not be given beside rolling_buckets");
                Shape::Cumulative
            }
            (true, 0 | 1) => Shape::Cumulative,
            (false, 0 | 1) => Shape::Plain,
            (false, width) => Shape::Rolling(width),
        };
        let question = Question {
            range: 0..0,
            interval,
            zone,
            measures: measured(&request.measures, &mut found),
            formulas: formulas(&request.formulas, request.measures.len(), &mut found),
            filter: event_filter(
                &request.event_names,
                request.filter.as_ref(),
                &at.field("filter"),
                &mut found,
            ),
            by: fields::parse_all(&request.group_by, &at.field("group_by"), &mut found),
            shape,
            max_series: if request.max_series == 0 { DEFAULT_SERIES } else { request.max_series as usize },
            max_points,
        };
        let range = TimeRange::parse(request.time_range.as_ref(), &at.field("time_range"), &mut found);
        found.into_result()?;
        let (compare, fill_empty) = (request.compare_previous, request.fill_empty);
        Ok(Self { range, question, any_interval: interval.is_none(), compare, fill_empty })
    }

    /// Reads a request for a breakdown.
    pub(crate) fn breakdown(
        request: &pb::QueryBreakdownRequest,
        max_rows: usize,
    ) -> Result<Self, Violations> {
        request.validate()?;
        let (at, mut found) = (Path::ROOT, Violations::default());
        let rows = if request.max_rows == 0 { DEFAULT_SERIES } else { request.max_rows as usize };
        let question = Question {
            range: 0..0,
            interval: None,
            zone: Zone::UTC,
            measures: measured(&request.measures, &mut found),
            formulas: formulas(&request.formulas, request.measures.len(), &mut found),
            filter: event_filter(
                &request.event_names,
                request.filter.as_ref(),
                &at.field("filter"),
                &mut found,
            ),
            by: fields::parse_all(&request.group_by, &at.field("group_by"), &mut found),
            shape: Shape::Plain,
            max_series: rows.min(max_rows),
            max_points: max_rows,
        };
        let range = TimeRange::parse(request.time_range.as_ref(), &at.field("time_range"), &mut found);
        found.into_result()?;
        Ok(Self {
            range,
            question,
            any_interval: false,
            compare: request.compare_previous,
            fill_empty: false,
        })
    }

    /// The question about a range.
    pub(crate) fn of(&self, range: Range<i64>) -> Question {
        let chosen = self.any_interval.then(|| Interval::fitting(&range));
        Question { interval: chosen.or(self.question.interval), range, ..self.question.clone() }
    }

    /// The response with series.
    pub(crate) fn series_response(
        &self,
        question: &Question,
        answer: &Answer,
        before: Option<&Answer>,
        seen: &Seen,
    ) -> pb::QueryTimeSeriesResponse {
        let measures = self.question.measures.len() + self.question.formulas.len();
        let series = answer.series.iter().map(|one| {
            let earlier = before.map(|before| before.series.iter().find(|other| other.values == one.values));
            pb::TimeSeries {
                group: values(&one.values),
                other: false,
                points: self.points(one, answer, earlier, measures),
                totals: one.totals.iter().map(to_figure).collect(),
                previous_totals: earlier.map_or_else(Vec::new, |earlier| totals(earlier, measures)),
            }
        });
        pb::QueryTimeSeriesResponse {
            series: series.collect(),
            omitted_series: answer.omitted_series as u64,
            interval: question.interval.map(interval_number).unwrap_or_default().into(),
            info: Some(info(question, answer, seen)),
            previous_range: before.map(|_| range(&question.preceding().range)),
        }
    }

    fn points(
        &self,
        one: &Series,
        answer: &Answer,
        earlier: Option<Option<&Series>>,
        measures: usize,
    ) -> Vec<pb::TimeSeriesPoint> {
        let at = |series: &Series, bucket: usize| {
            series.points.iter().find(|point| point.bucket == bucket).cloned()
        };
        let wanted: Vec<Point> = if self.fill_empty {
            let nothing = |bucket| Point { bucket, figures: vec![Figure::default(); measures] };
            (0..answer.buckets.len())
                .map(|bucket| at(one, bucket).unwrap_or_else(|| nothing(bucket)))
                .collect()
        } else {
            one.points.clone()
        };
        let point = |point: &Point| {
            let start = answer.buckets[point.bucket].start;
            let previous = earlier.map(|earlier| {
                let found = earlier.and_then(|earlier| at(earlier, point.bucket));
                found.map_or_else(
                    || vec![to_figure(&Figure::default()); measures],
                    |found| found.figures.iter().map(to_figure).collect(),
                )
            });
            pb::TimeSeriesPoint {
                start_time: Some(timestamp(start)),
                local_time: self.question.zone.local_time(start).unwrap_or_default(),
                figures: point.figures.iter().map(to_figure).collect(),
                previous_figures: previous.unwrap_or_default(),
            }
        };
        wanted.iter().map(point).collect()
    }

    /// The response with rows.
    pub(crate) fn breakdown_response(
        &self,
        question: &Question,
        answer: &Answer,
        before: Option<&Answer>,
        seen: &Seen,
    ) -> pb::QueryBreakdownResponse {
        let measures = self.question.measures.len() + self.question.formulas.len();
        let rows = answer.series.iter().map(|one| {
            let earlier = before.map(|before| before.series.iter().find(|other| other.values == one.values));
            pb::BreakdownRow {
                group: values(&one.values),
                other: false,
                figures: one.totals.iter().map(to_figure).collect(),
                previous_figures: earlier.map_or_else(Vec::new, |earlier| totals(earlier, measures)),
            }
        });
        pb::QueryBreakdownResponse {
            rows: rows.collect(),
            omitted_rows: answer.omitted_series as u64,
            totals: answer.totals.iter().map(to_figure).collect(),
            info: Some(info(question, answer, seen)),
            previous_totals: before
                .map_or_else(Vec::new, |before| before.totals.iter().map(to_figure).collect()),
            previous_range: before.map(|_| range(&question.preceding().range)),
        }
    }
}

fn measured(measures: &[pb::Measure], found: &mut Violations) -> Vec<Measured> {
    let root = Path::ROOT;
    let at = root.field("measures");
    let kinds = Measure::parse_all(measures, &at, found);
    let all = kinds.into_iter().enumerate().map(|(index, measure)| {
        let filter = measures.get(index).and_then(|measure| measure.filter.as_ref());
        let at = at.index(index);
        // Reading the events one by one is what this is for; a sketch would save memory only.
        Measured {
            measure,
            filter: Filter::parse(filter, &at.field("filter"), found),
            precision: Precision::Exact,
        }
    });
    all.collect()
}

fn formulas(asked: &[pb::Formula], measures: usize, found: &mut Violations) -> Vec<Formula> {
    let root = Path::ROOT;
    let at = root.field("formulas");
    let mut formulas = Vec::with_capacity(asked.len());
    for (index, formula) in asked.iter().enumerate() {
        match Formula::parse(&formula.expression, measures.max(1)) {
            Ok(formula) => formulas.push(formula),
            Err(error) => found.add(&at.index(index).field("expression"), error),
        }
    }
    formulas
}

fn totals(series: Option<&Series>, measures: usize) -> Vec<pb::Figure> {
    match series {
        Some(series) => series.totals.iter().map(to_figure).collect(),
        None => vec![to_figure(&Figure::default()); measures],
    }
}

fn to_figure(of: &Figure) -> pb::Figure {
    figure(of.estimate, of.money.as_ref().and_then(Amount::to_money))
}

fn range(of: &Range<i64>) -> pb::TimeRange {
    pb::TimeRange { start_time: Some(timestamp(of.start)), end_time: Some(timestamp(of.end)), last: None }
}

fn info(question: &Question, answer: &Answer, seen: &Seen) -> pb::ResultInfo {
    let exact = |figure: &Figure| figure.estimate.is_none_or(|estimate| estimate.exact);
    let all =
        answer.series.iter().all(|series| series.totals.iter().all(exact)) && answer.totals.iter().all(exact);
    seen.info(&question.range, answer.read, answer.late, all)
}
