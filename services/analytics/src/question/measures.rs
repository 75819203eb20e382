//! Measures over time or by values, as they are asked for: `QueryTimeSeries` and `QueryBreakdown`.

use std::ops::Range;

use weir_proto::{
    analytics::v1 as pb,
    validate::{Path, Violations},
};
use weir_query::{
    filter::Filter,
    formula::Formula,
    measure::Measure,
    series::{self, Measured, Shape},
};
use weir_rollup::calendar::{Interval, Zone};

use super::{
    TimeRange,
    reader::{Reader, number_or},
};

/// Series or rows when the request says nothing.
const DEFAULT_SERIES: usize = 100;
/// Points or rows of an answer at most: each counts as often as it has figures, of which one takes about a hundred bytes, and several
/// times that on its way out.
fn max_points(max_rows: usize, measures: usize, formulas: usize, compare: bool) -> usize {
    let figures = (measures.max(1) + formulas) * (1 + usize::from(compare));
    (max_rows / figures).max(1)
}

/// The question, but for its range, which may depend on the moment.
#[derive(Debug, Clone)]
pub(crate) struct Measures {
    pub(crate) range: TimeRange,
    /// Everything else that shapes the answer. Its interval is absent in breakdowns, and where it is to be chosen after the
    /// range; its range is empty.
    pub(crate) asked: series::Question,
    /// Whether the interval is to be chosen.
    any_interval: bool,
    /// Whether the range before is asked for too.
    pub(crate) compare: bool,
    pub(crate) fill_empty: bool,
    /// Whether estimates won't do.
    exact: bool,
}

impl Measures {
    /// Reads a request for series.
    pub(crate) fn series(request: &pb::QueryTimeSeriesRequest, max_rows: usize) -> Result<Self, Violations> {
        let mut reader = Reader::new(request)?;
        let max_points =
            max_points(max_rows, request.measures.len(), request.formulas.len(), request.compare_previous);
        let zone = reader.zone(&request.time_zone);
        let range = reader.range(request.time_range.as_ref());
        let shape = match (request.cumulative, request.rolling_buckets) {
            (true, 2..) => {
                reader.refuse(&Path::ROOT.field("cumulative"), "must not be given beside rolling_buckets");
                Shape::Cumulative
            }
            (true, 0 | 1) => Shape::Cumulative,
            (false, 0 | 1) => Shape::Plain,
            (false, width) => Shape::Rolling(width),
        };
        let interval = asked_interval(request.interval());
        let asked = series::Question {
            range: 0..0,
            interval,
            zone,
            measures: reader.read(|found| measured(&request.measures, found)),
            formulas: reader.read(|found| formulas(&request.formulas, request.measures.len(), found)),
            filter: reader.events(&Path::ROOT, &request.event_names, request.filter.as_ref()),
            by: reader.group_by(&request.group_by),
            shape,
            max_series: number_or(request.max_series, DEFAULT_SERIES),
            only: None,
            max_points,
        };
        reader.finish(Self {
            range,
            asked,
            any_interval: interval.is_none(),
            compare: request.compare_previous,
            fill_empty: request.fill_empty,
            exact: request.measures.iter().any(|measure| measure.exact),
        })
    }

    /// Reads a request for a breakdown.
    pub(crate) fn breakdown(
        request: &pb::QueryBreakdownRequest,
        max_rows: usize,
    ) -> Result<Self, Violations> {
        let mut reader = Reader::new(request)?;
        let max_rows =
            max_points(max_rows, request.measures.len(), request.formulas.len(), request.compare_previous);
        let range = reader.range(request.time_range.as_ref());
        let asked = series::Question {
            range: 0..0,
            interval: None,
            zone: Zone::UTC,
            measures: reader.read(|found| measured(&request.measures, found)),
            formulas: reader.read(|found| formulas(&request.formulas, request.measures.len(), found)),
            filter: reader.events(&Path::ROOT, &request.event_names, request.filter.as_ref()),
            by: reader.group_by(&request.group_by),
            shape: Shape::Plain,
            max_series: number_or(request.max_rows, DEFAULT_SERIES).min(max_rows),
            only: None,
            max_points: max_rows,
        };
        reader.finish(Self {
            range,
            asked,
            any_interval: false,
            compare: request.compare_previous,
            fill_empty: false,
            exact: request.measures.iter().any(|measure| measure.exact),
        })
    }

    /// The question about a range, to be asked of events.
    pub(crate) fn of(&self, range: Range<i64>) -> series::Question {
        let chosen = self.any_interval.then(|| Interval::fitting(&range));
        series::Question { interval: chosen.or(self.asked.interval), range, ..self.asked.clone() }
    }

    /// The moments of the events that the answer about a range is read from. They begin before it where it is compared or windows
    /// reach back.
    ///
    /// # Errors
    /// When the question breaks a rule.
    pub(crate) fn reads(&self, range: Range<i64>) -> Result<Range<i64>, weir_query::Error> {
        let question = self.of(range);
        let reads = question.reads()?;
        if !self.compare {
            return Ok(reads);
        }
        let before = question.preceding()?.reads()?;
        Ok(before.start.min(reads.start)..reads.end)
    }

    /// What is measured, without the measures' own filters.
    pub(crate) fn measures(&self) -> Vec<Measure> {
        self.asked.measures.iter().map(|measured| measured.measure.clone()).collect()
    }

    /// What it asks for that only the events tell, whatever rollups there are.
    pub(crate) fn needs_events(&self) -> Option<&'static str> {
        let series::Question { shape, measures, formulas, .. } = &self.asked;
        if *shape != Shape::Plain {
            return Some("its points reach over several buckets");
        }
        if self.exact {
            return Some("exact figures are asked for");
        }
        if measures.iter().any(|measured| !measured.filter.is_empty()) {
            return Some("a measure has a filter of its own");
        }
        if !formulas.is_empty() {
            return Some("it has formulas");
        }
        self.compare.then_some("it compares with the range before")
    }
}

fn measured(measures: &[pb::Measure], found: &mut Violations) -> Vec<Measured> {
    let root = Path::ROOT;
    let at = root.field("measures");
    let kinds = Measure::parse_all(measures, &at, found);
    let all = kinds.into_iter().enumerate().map(|(index, measure)| {
        let filter = measures.get(index).and_then(|measure| measure.filter.as_ref());
        let at = at.index(index);
        Measured { measure, filter: Filter::parse(filter, &at.field("filter"), found) }
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

/// The interval that a request names, if it does.
fn asked_interval(interval: pb::Interval) -> Option<Interval> {
    match interval {
        pb::Interval::Unspecified => None,
        pb::Interval::Second => Some(Interval::Second),
        pb::Interval::Minute => Some(Interval::Minute),
        pb::Interval::QuarterHour => Some(Interval::QuarterHour),
        pb::Interval::Hour => Some(Interval::Hour),
        pb::Interval::Day => Some(Interval::Day),
        pb::Interval::Week => Some(Interval::Week),
        pb::Interval::Month => Some(Interval::Month),
        pb::Interval::Quarter => Some(Interval::Quarter),
        pb::Interval::Year => Some(Interval::Year),
    }
}

/// The number of an interval.
pub(crate) fn interval_number(interval: Interval) -> pb::Interval {
    match interval {
        Interval::Second => pb::Interval::Second,
        Interval::Minute => pb::Interval::Minute,
        Interval::QuarterHour => pb::Interval::QuarterHour,
        Interval::Hour => pb::Interval::Hour,
        Interval::Day => pb::Interval::Day,
        Interval::Week => pb::Interval::Week,
        Interval::Month => pb::Interval::Month,
        Interval::Quarter => pb::Interval::Quarter,
        Interval::Year => pb::Interval::Year,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use super::*;

    #[test]
    fn a_row_counts_once_for_each_of_its_figures() {
        let measures = |count: usize| {
            vec![pb::Measure { kind: pb::measure::Kind::Events.into(), ..Default::default() }; count]
        };
        let points = |count, compare_previous| {
            let request = pb::QueryTimeSeriesRequest {
                measures: measures(count),
                compare_previous,
                ..Default::default()
            };
            Measures::series(&request, 1000).unwrap().asked.max_points
        };
        assert_eq!(
            [points(0, false), points(1, false), points(4, false), points(4, true)],
            [1000, 1000, 250, 125]
        );
        let request = pb::QueryBreakdownRequest {
            measures: measures(10),
            group_by: vec!["event_name".into()],
            max_rows: 1000,
            ..Default::default()
        };
        assert_eq!(Measures::breakdown(&request, 1000).unwrap().asked.max_series, 100);
        assert_eq!(max_points(3, 10, 10, true), 1, "there is always an answer");
    }
}
