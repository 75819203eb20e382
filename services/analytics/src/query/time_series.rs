//! Measures over time.

use std::ops::Range;

use weir_proto::{
    analytics::v1::{self as pb, Figure},
    time::timestamp,
    validate::{Path, Validate as _, Violations},
};
use weir_query::{fields, filter::Filter};
use weir_rollup::{
    calendar::{Interval, Zone},
    definition::Definition,
    field::Field,
};

use super::{
    Provenance,
    breakdown::settle_currencies,
    greatest_first, group_values,
    measure::{Measure, Needs, Sum},
    range::TimeRange,
    rollup::{self, Setting},
    table::{Group, Patience, Table},
};
use crate::{
    error::Error,
    materialise::{PartRequest, Span, View},
};

/// Series when the request says nothing.
const DEFAULT_SERIES: usize = 100;

/// The question.
#[derive(Debug, Clone)]
pub(crate) struct TimeSeries {
    pub(super) range: TimeRange,
    /// `None`: chosen after the range.
    interval: Option<Interval>,
    zone: Zone,
    measures: Vec<Measure>,
    filter: Filter,
    group_by: Vec<Field>,
    max_series: usize,
    fill_empty: bool,
}

/// How it is answered.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) parts: Vec<PartRequest>,
    question: TimeSeries,
    range: Range<i64>,
    interval: Interval,
    /// By slot: first moment of the bucket, which may lie before the range.
    buckets: Vec<Range<i64>>,
    definition: Definition,
    needs: Needs,
    max_points: usize,
}

impl TimeSeries {
    /// Reads a request.
    pub(crate) fn parse(request: &pb::QueryTimeSeriesRequest) -> Result<Self, Violations> {
        request.validate()?;
        let (at, mut found) = (Path::ROOT, Violations::default());
        let zone = Zone::parse(&request.time_zone).unwrap_or_else(|error| {
            found.add(&at.field("time_zone"), error);
            Zone::UTC
        });
        let question = Self {
            range: TimeRange::parse(request.time_range.as_ref(), &at.field("time_range"), &mut found),
            interval: asked_interval(request.interval()),
            zone,
            measures: Measure::parse_all(&request.measures, &at.field("measures"), &mut found),
            filter: Filter::parse(request.filter.as_ref(), &at.field("filter"), &mut found)
                .with_event_names(&request.event_names),
            group_by: fields::parse_all(&request.group_by, &at.field("group_by"), &mut found),
            max_series: if request.max_series == 0 { DEFAULT_SERIES } else { request.max_series as usize },
            fill_empty: request.fill_empty,
        };
        found.into_result()?;
        Ok(question)
    }

    pub(super) fn plan(&self, setting: &Setting<'_>) -> Result<Plan, Error> {
        let dimensions = self.group_by.iter().chain(self.filter.fields()).cloned().collect();
        let definition = rollup::choose(setting.catalog, &dimensions, &self.measures)?.clone();
        let range = self.range.resolve(setting.now, &setting.whole, 1);
        let (interval, buckets, spans) = match self.interval {
            Some(interval) => {
                let (buckets, spans) = self.slots(interval, &range, setting)?;
                (interval, buckets, spans)
            }
            None => {
                // The finest that fits and that old buckets can still be made into.
                let fitting = Interval::fitting(&range);
                let mut tries = Interval::ALL.into_iter().filter(|interval| *interval >= fitting);
                loop {
                    let interval = tries.next().unwrap_or(Interval::Month);
                    match self.slots(interval, &range, setting) {
                        Err(Error::TooFine(_)) if interval != Interval::Month => {}
                        slots => {
                            let (buckets, spans) = slots?;
                            break (interval, buckets, spans);
                        }
                    }
                }
            }
        };
        Ok(Plan {
            parts: vec![PartRequest { definition: definition.id(), spans }],
            range,
            interval,
            buckets,
            needs: Needs::of(&self.measures, &definition.numerics),
            definition,
            question: self.clone(),
            max_points: setting.max_rows,
        })
    }

    /// The buckets of the answer, and those of the rollup that they are made of.
    fn slots(
        &self,
        interval: Interval,
        range: &Range<i64>,
        setting: &Setting<'_>,
    ) -> Result<(Vec<Range<i64>>, Vec<Span>), Error> {
        let buckets = self.zone.buckets(interval, range.clone(), setting.max_rows);
        let buckets = buckets.map_err(|error| match error {
            weir_rollup::Error::TooManyBuckets(_) => {
                too_large(format!("more than {} buckets", setting.max_rows), setting.max_rows)
            }
            other => {
                let root = Path::ROOT;
                Error::invalid(&root.field("time_range"), other)
            }
        })?;
        let mut spans = Vec::new();
        for (slot, bucket) in (0u32..).zip(&buckets) {
            let within = bucket.start.max(range.start)..bucket.end.min(range.end);
            spans.extend(rollup::spans(within, slot, setting)?);
        }
        Ok((buckets, spans))
    }
}

impl Plan {
    pub(super) fn answer(
        &self,
        views: &[View],
        patience: Patience<'_>,
    ) -> Result<pb::QueryTimeSeriesResponse, Error> {
        let TimeSeries { measures, filter, group_by, max_series, .. } = &self.question;
        let table = Table::gather(views, 0, &self.definition, filter, group_by, patience)?;
        let open_currency = measures.iter().filter(|measure| matches!(measure, Measure::Revenue(None)));
        let total = table.total(&Needs::of(open_currency, &[]), patience)?;
        let measures = settle_currencies(measures, &total)?;

        let first = Needs::of(&measures[..1], &self.definition.numerics);
        let groups = greatest_first(&table, |group| {
            Ok(table.group_total(group, &first, patience)?.figure(&measures[0]))
        })?;
        let mut points = 0;
        let mut series = Vec::with_capacity(groups.len().min(*max_series));
        for group in groups.iter().take(*max_series) {
            let one = self.series(&table, Some(*group), &measures, patience)?;
            points += one.points.len();
            if points > self.max_points {
                return Err(too_large(format!("more than {} points", self.max_points), self.max_points));
            }
            series.push(one);
        }
        if groups.is_empty() && group_by.is_empty() {
            series.push(self.series(&table, None, &measures, patience)?);
        }
        let provenance = Provenance {
            range: &self.range,
            rollup: &self.definition.name,
            part: 0,
            late: total.late(),
            rows_read: table.rows_read(),
        };
        Ok(pb::QueryTimeSeriesResponse {
            series,
            omitted_series: groups.len().saturating_sub(*max_series) as u64,
            interval: interval_number(self.interval).into(),
            info: Some(provenance.info(views)),
            ..Default::default()
        })
    }

    /// The series of a group; of `None`, one without events.
    fn series(
        &self,
        table: &Table<'_>,
        group: Option<Group>,
        measures: &[Measure],
        patience: Patience<'_>,
    ) -> Result<pb::TimeSeries, Error> {
        let nothing = Sum::new(&self.needs);
        let mut total = nothing.clone();
        let mut points = Vec::new();
        let mut next_slot = 0;
        let figures =
            |sum: &Sum| -> Vec<Figure> { measures.iter().map(|measure| sum.figure(measure)).collect() };
        let fill = |points: &mut Vec<_>, slots: Range<usize>| {
            if self.question.fill_empty {
                points.extend(slots.map(|slot| self.point(slot, figures(&nothing))));
            }
        };
        for found in group.into_iter().flat_map(|group| table.slots(group, &self.needs, patience)) {
            let (slot, sum) = found?;
            let slot = slot as usize;
            fill(&mut points, next_slot..slot);
            points.push(self.point(slot, figures(&sum)));
            total.merge(&sum);
            next_slot = slot + 1;
        }
        fill(&mut points, next_slot..self.buckets.len());
        let (group, other) = group.map(|group| group_values(table.values(group))).unwrap_or_default();
        Ok(pb::TimeSeries { group, other, points, totals: figures(&total), ..Default::default() })
    }

    fn point(&self, slot: usize, figures: Vec<Figure>) -> pb::TimeSeriesPoint {
        let start = self.buckets[slot].start;
        pb::TimeSeriesPoint {
            start_time: Some(timestamp(start)),
            local_time: self.question.zone.local_time(start).unwrap_or_default(),
            figures,
            ..Default::default()
        }
    }
}

fn too_large(rows: String, limit: usize) -> Error {
    let mend = "widen the interval, shorten the range or lower max_series";
    Error::TooLarge { rows, limit: limit as u64, mend }
}

/// The interval that a request names, if it does.
pub(crate) fn asked_interval(interval: pb::Interval) -> Option<Interval> {
    match interval {
        pb::Interval::Unspecified => None,
        pb::Interval::Second => Some(Interval::Second),
        pb::Interval::Minute => Some(Interval::Minute),
        pb::Interval::QuarterHour => Some(Interval::QuarterHour),
        pb::Interval::Hour => Some(Interval::Hour),
        pb::Interval::Day => Some(Interval::Day),
        pb::Interval::Week => Some(Interval::Week),
        pb::Interval::Month => Some(Interval::Month),
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
    }
}
