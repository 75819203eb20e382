//! `QueryTimeSeries` and `QueryBreakdown` where rollups don't cover them.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use weir_proto::{analytics::v1 as pb, time::timestamp};
use weir_query::{
    Engine, Error, Values,
    measure::{Measure, Statistic},
    series::{Answer, Figure, Point, Question, Series},
};
use weir_rollup::{Estimate, money::Amount};

use super::{Seen, figure, values};
use crate::question::{Measures, interval_number};

/// What was measured.
#[derive(Debug)]
pub(crate) struct Asked {
    question: Question,
    answer: Answer,
    /// The moments of the events that were read.
    reads: Range<i64>,
    /// Where it is compared: the range before, and the same measured there.
    before: Option<(Range<i64>, Answer)>,
}

impl Asked {
    /// The series of the range before by their values.
    fn earlier(&self) -> Option<HashMap<&Values, &Series>> {
        let (_, before) = self.before.as_ref()?;
        Some(before.series.iter().map(|series| (&series.values, series)).collect())
    }

    fn info(&self, seen: &Seen) -> pb::ResultInfo {
        let Self { question, answer, reads, .. } = self;
        let exact = |figure: &Figure| figure.estimate.is_none_or(|estimate| estimate.exact);
        let all = answer.series.iter().all(|series| series.totals.iter().all(exact))
            && answer.totals.iter().all(exact);
        // What is missing may be missing from any moment that was read; the answer is about the range all the same.
        pb::ResultInfo {
            start_time: Some(timestamp(question.range.start)),
            ..seen.info(reads, answer.read, all)
        }
    }
}

impl Measures {
    /// The measures of a range and, where they are compared, of the one before.
    ///
    /// # Errors
    /// As [`Engine::series`].
    pub(crate) async fn ask(
        &self,
        engine: &Engine,
        range: Range<i64>,
        seen: &Arc<Seen>,
        limit: Duration,
    ) -> Result<Asked, Error> {
        let reads = self.reads(range.clone())?;
        let question = self.of(range);
        let answer = engine.series(seen.clone(), question.clone(), limit).await?;
        if self.fill_empty && answer.series.len().saturating_mul(answer.buckets.len()) > question.max_points {
            let mend = "leave empty points out, widen the interval or ask for fewer series";
            return Err(Error::TooLarge { what: "points", limit: question.max_points, mend });
        }
        let before = if self.compare {
            // Whatever is among the greatest now may have been among the least before.
            let only = Some(answer.series.iter().map(|one| one.values.clone()).collect());
            let before = Question { only, max_series: usize::MAX, ..question.preceding()? };
            let answer = engine.series(seen.clone(), before.clone(), limit).await?;
            Some((before.range, answer))
        } else {
            None
        };
        Ok(Asked { question, answer, reads, before })
    }

    /// What is measured where there are no events: none of what is counted, no average of it.
    fn nothing(&self, answer: &Answer) -> Vec<Figure> {
        let zero = |money| Figure { estimate: Some(Estimate::exact(0.0)), money };
        let of = |measure: &Measure| match measure {
            Measure::Events
            | Measure::UniqueUsers
            | Measure::Sessions
            | Measure::Visits
            | Measure::UniqueValues(_)
            | Measure::Numeric(_, Statistic::Sum) => zero(None),
            Measure::Revenue(currency) => {
                zero(currency.map(|currency| Amount { currency, nanos: 0, count: 0 }))
            }
            Measure::Numeric(
                _,
                Statistic::Min | Statistic::Max | Statistic::Average | Statistic::Quantile(_),
            ) => Figure::default(),
        };
        let mut figures: Vec<Figure> = answer.measures.iter().map(of).collect();
        for formula in &self.asked.formulas {
            let value = formula.evaluate(&|index| figures[index].estimate.map(|of| of.value));
            figures.push(Figure { estimate: value.map(Estimate::exact), money: None });
        }
        figures
    }

    /// The response with series.
    pub(crate) fn series_response(&self, asked: &Asked, seen: &Seen) -> pb::QueryTimeSeriesResponse {
        let Asked { question, answer, .. } = asked;
        let nothing = self.nothing(answer);
        let earlier = asked.earlier();
        let series = answer.series.iter().map(|one| {
            let earlier = earlier.as_ref().map(|earlier| earlier.get(&one.values).copied());
            pb::TimeSeries {
                group: values(&one.values),
                other: false,
                points: self.points(one, answer, earlier, &nothing),
                totals: one.totals.iter().map(to_figure).collect(),
                previous_totals: earlier.map_or_else(Vec::new, |earlier| totals(earlier, &nothing)),
            }
        });
        pb::QueryTimeSeriesResponse {
            series: series.collect(),
            omitted_series: answer.omitted_series as u64,
            interval: question.interval.map(interval_number).unwrap_or_default().into(),
            info: Some(asked.info(seen)),
            previous_range: asked.before.as_ref().map(|(before, _)| range(before)),
        }
    }

    fn points(
        &self,
        one: &Series,
        answer: &Answer,
        earlier: Option<Option<&Series>>,
        nothing: &[Figure],
    ) -> Vec<pb::TimeSeriesPoint> {
        let at = |series: &Series, bucket: usize| {
            let place = series.points.binary_search_by_key(&bucket, |point| point.bucket).ok()?;
            Some(series.points[place].clone())
        };
        let wanted: Vec<Point> = if self.fill_empty {
            (0..answer.buckets.len())
                .map(|bucket| at(one, bucket).unwrap_or_else(|| Point { bucket, figures: nothing.to_vec() }))
                .collect()
        } else {
            one.points.clone()
        };
        let point = |point: &Point| {
            let start = answer.buckets[point.bucket].start;
            let previous = earlier.map(|earlier| {
                let found = earlier.and_then(|earlier| at(earlier, point.bucket));
                let figures = found.map_or_else(|| nothing.to_vec(), |found| found.figures);
                figures.iter().map(to_figure).collect()
            });
            pb::TimeSeriesPoint {
                start_time: Some(timestamp(start)),
                local_time: self.asked.zone.local_time(start).unwrap_or_default(),
                figures: point.figures.iter().map(to_figure).collect(),
                previous_figures: previous.unwrap_or_default(),
            }
        };
        wanted.iter().map(point).collect()
    }

    /// The response with rows.
    pub(crate) fn breakdown_response(&self, asked: &Asked, seen: &Seen) -> pb::QueryBreakdownResponse {
        let Asked { answer, before, .. } = asked;
        let nothing = self.nothing(answer);
        let earlier = asked.earlier();
        let rows = answer.series.iter().map(|one| {
            let earlier = earlier.as_ref().map(|earlier| earlier.get(&one.values).copied());
            pb::BreakdownRow {
                group: values(&one.values),
                other: false,
                figures: one.totals.iter().map(to_figure).collect(),
                previous_figures: earlier.map_or_else(Vec::new, |earlier| totals(earlier, &nothing)),
            }
        });
        pb::QueryBreakdownResponse {
            rows: rows.collect(),
            omitted_rows: answer.omitted_series as u64,
            totals: answer.totals.iter().map(to_figure).collect(),
            info: Some(asked.info(seen)),
            previous_totals: before
                .as_ref()
                .map_or_else(Vec::new, |(_, before)| before.totals.iter().map(to_figure).collect()),
            previous_range: asked.before.as_ref().map(|(before, _)| range(before)),
        }
    }
}

fn totals(series: Option<&Series>, nothing: &[Figure]) -> Vec<pb::Figure> {
    series.map_or(nothing, |series| &series.totals).iter().map(to_figure).collect()
}

fn to_figure(of: &Figure) -> pb::Figure {
    figure(of.estimate, of.money.as_ref().map(Amount::to_money))
}

fn range(of: &Range<i64>) -> pb::TimeRange {
    pb::TimeRange { start_time: Some(timestamp(of.start)), end_time: Some(timestamp(of.end)), last: None }
}
