//! Measures over time.

use std::ops::Range;

use weir_proto::{
    analytics::v1::{self as pb, Figure},
    time::timestamp,
    validate::Path,
};
use weir_query::series::Question as Asked;
use weir_rollup::{
    calendar::{Interval, Zone},
    definition::Definition,
};

use super::{
    Provenance,
    breakdown::settle_currencies,
    flaw::Flaws,
    greatest_first, group_values,
    measure::{Measure, Needs, Sum},
    rollup::{self, Setting},
    table::{Group, Patience, Table},
};
use crate::{
    error::Error,
    materialise::{PartRequest, Span, View},
    question::{Measures, interval_number},
};

/// How it is answered.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) parts: Vec<PartRequest>,
    question: Measures,
    measures: Vec<Measure>,
    pub(super) range: Range<i64>,
    interval: Interval,
    /// By slot: first moment of the bucket, which may lie before the range.
    buckets: Vec<Range<i64>>,
    definition: Definition,
    needs: Needs,
}

impl Plan {
    pub(super) fn of(question: &Measures, setting: &Setting<'_>) -> Result<Self, Error> {
        let measures = question.measures();
        let definition = rollup::covering(question, &measures, setting)?;
        let range = question.range.resolve(setting.now, &setting.whole, 1);
        let zone = &question.asked.zone;
        let (interval, buckets, spans) = match question.asked.interval {
            Some(interval) => {
                let (buckets, spans) = slots(zone, interval, &range, setting)?;
                (interval, buckets, spans)
            }
            None => {
                // The finest that fits and that old buckets can still be made into.
                let fitting = Interval::fitting(&range);
                let mut tries = Interval::ALL.into_iter().filter(|interval| *interval >= fitting);
                loop {
                    let interval = tries.next().unwrap_or(Interval::Year);
                    match slots(zone, interval, &range, setting) {
                        Err(Error::TooFine(_)) if interval != Interval::Year => {}
                        slots => {
                            let (buckets, spans) = slots?;
                            break (interval, buckets, spans);
                        }
                    }
                }
            }
        };
        Ok(Self {
            parts: vec![PartRequest { definition: definition.id(), spans }],
            range,
            interval,
            buckets,
            needs: Needs::of(&measures, &definition.numerics),
            measures,
            definition,
            question: question.clone(),
        })
    }

    pub(super) fn answer(
        &self,
        views: &[View],
        flaws: &Flaws,
        patience: Patience<'_>,
    ) -> Result<pb::QueryTimeSeriesResponse, Error> {
        let Asked { filter, by: group_by, max_series, max_points, .. } = &self.question.asked;
        let measures = &self.measures;
        let table = Table::gather(views, 0, &self.definition, filter, group_by, flaws, patience)?;
        let open_currency = measures.iter().filter(|measure| matches!(measure, Measure::Revenue(None)));
        let total = table.total(&Needs::of(open_currency, &[]), patience)?;
        let measures = settle_currencies(measures, &total)?;

        let first = Needs::of(&measures[..1], &self.definition.numerics);
        let groups = greatest_first(&table, |group| {
            Ok(table.group_total(group, &first, patience)?.figure(&measures[0], flaws))
        })?;
        let mut points = 0;
        let mut series = Vec::with_capacity(groups.len().min(*max_series));
        for group in groups.iter().take(*max_series) {
            let one = self.series(&table, Some(*group), &measures, flaws, patience)?;
            points += one.points.len();
            if points > *max_points {
                return Err(too_large(format!("more than {max_points} points"), *max_points));
            }
            series.push(one);
        }
        if groups.is_empty() && group_by.is_empty() {
            series.push(self.series(&table, None, &measures, flaws, patience)?);
        }
        let provenance = Provenance {
            range: &self.range,
            reads: self.range.clone(),
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
        flaws: &Flaws,
        patience: Patience<'_>,
    ) -> Result<pb::TimeSeries, Error> {
        let mut total = Sum::new(&self.needs);
        let mut points = Vec::new();
        let mut next_slot = 0;
        let figures = |sum: &Sum| -> Vec<Figure> {
            measures.iter().map(|measure| sum.figure(measure, flaws)).collect()
        };
        let fill = |points: &mut Vec<_>, total: &mut Sum, slots: Range<usize>| {
            if !self.question.fill_empty && table.is_sure() {
                return;
            }
            for slot in slots {
                let nothing = table.nothing(group, slot as u32, &self.needs);
                total.merge(&nothing);
                if self.question.fill_empty {
                    points.push(self.point(slot, figures(&nothing)));
                }
            }
        };
        for found in group.into_iter().flat_map(|group| table.slots(group, &self.needs, patience)) {
            let (slot, sum) = found?;
            let slot = slot as usize;
            fill(&mut points, &mut total, next_slot..slot);
            points.push(self.point(slot, figures(&sum)));
            total.merge(&sum);
            next_slot = slot + 1;
        }
        fill(&mut points, &mut total, next_slot..self.buckets.len());
        let (group, other) = group.map(|group| group_values(table.values(group))).unwrap_or_default();
        Ok(pb::TimeSeries { group, other, points, totals: figures(&total), ..Default::default() })
    }

    fn point(&self, slot: usize, figures: Vec<Figure>) -> pb::TimeSeriesPoint {
        let start = self.buckets[slot].start;
        pb::TimeSeriesPoint {
            start_time: Some(timestamp(start)),
            local_time: self.question.asked.zone.local_time(start).unwrap_or_default(),
            figures,
            ..Default::default()
        }
    }
}

/// The buckets of the answer, and those of the rollup that they are made of.
fn slots(
    zone: &Zone,
    interval: Interval,
    range: &Range<i64>,
    setting: &Setting<'_>,
) -> Result<(Vec<Range<i64>>, Vec<Span>), Error> {
    let buckets = zone.buckets(interval, range.clone(), setting.max_rows);
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

fn too_large(rows: String, limit: usize) -> Error {
    let mend = "widen the interval, shorten the range or lower max_series";
    Error::TooLarge { rows, limit: limit as u64, mend }
}
