//! Key figures of a range beside those of the range before it.

use std::ops::Range;

use weir_proto::{analytics::v1 as pb, validate::Violations};
use weir_query::filter::Filter;
use weir_rollup::{definition::Definition, field::Field, money::Amount};

use super::{
    Provenance,
    flaw::{Flaw, Flaws},
    greatest_first, group_text,
    measure::{Measure, Needs, Sum},
    rollup::{self, Setting},
    table::{Patience, Table},
};
use crate::{
    error::Error,
    materialise::{PartRequest, View},
    question::{
        TimeRange,
        reader::{Reader, number_or},
    },
};

/// Top events when the request says nothing.
const DEFAULT_TOP: usize = 10;

/// The slots of the answer.
const CURRENT: u32 = 0;
const PREVIOUS: u32 = 1;

/// The parts of the plan.
const TOTALS: usize = 0;
const EVENTS: usize = 1;

/// The question.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    pub(crate) range: TimeRange,
    pub(crate) top_events: usize,
}

/// How it is answered.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) parts: Vec<PartRequest>,
    pub(super) range: Range<i64>,
    /// Whether the range before it can be told, too.
    has_previous: bool,
    totals: Definition,
    by_event: Definition,
    top_events: usize,
}

impl Summary {
    /// Reads a request.
    pub(crate) fn parse(request: &pb::GetSummaryRequest) -> Result<Self, Violations> {
        let mut reader = Reader::new(request)?;
        let range = reader.range(request.time_range.as_ref());
        reader.finish(Self { range, top_events: number_or(request.top_events, DEFAULT_TOP) })
    }

    pub(super) fn plan(&self, setting: &Setting<'_>) -> Result<Plan, Error> {
        let totals = rollup::choose(setting.catalog, &[].into(), &[])?.clone();
        let by_event = rollup::choose(setting.catalog, &[Field::EventName].into(), &[])?.clone();
        let range = self.range.resolve(setting.now, &setting.whole, 2);
        let current = rollup::spans(range.clone(), CURRENT, setting)?;
        let before = preceding(&range);
        // Its edges can lie where only wider buckets are left: then there is nothing to compare with.
        let previous = rollup::spans(before, PREVIOUS, setting);
        let has_previous = previous.is_ok();
        let all = current.iter().cloned().chain(previous.unwrap_or_default()).collect();
        Ok(Plan {
            parts: vec![
                PartRequest { definition: totals.id(), spans: all },
                PartRequest { definition: by_event.id(), spans: current },
            ],
            range,
            has_previous,
            totals,
            by_event,
            top_events: self.top_events,
        })
    }
}

/// The range of the same length before a range.
pub(crate) fn preceding(range: &Range<i64>) -> Range<i64> {
    range.start.saturating_sub(range.end.saturating_sub(range.start))..range.start
}

impl Plan {
    /// The moments that are counted.
    pub(super) fn reads(&self) -> Range<i64> {
        if self.has_previous { preceding(&self.range).start..self.range.end } else { self.range.clone() }
    }

    pub(super) fn answer(
        &self,
        views: &[View],
        flaws: &Flaws,
        patience: Patience<'_>,
    ) -> Result<pb::GetSummaryResponse, Error> {
        let everything = Filter::default();
        let totals = Table::gather(views, TOTALS, &self.totals, &everything, &[], flaws, patience)?;
        let key_measures = [Measure::Events, Measure::UniqueUsers, Measure::Sessions, Measure::Revenue(None)];
        let needs = Needs::of(&key_measures, &[]);
        let (mut current, mut previous) = (Sum::new(&needs), Sum::new(&needs));
        for group in totals.groups() {
            for slot in totals.slots(group, &needs, patience) {
                match slot? {
                    (CURRENT, sum) => current.merge(&sum),
                    (_, sum) => previous.merge(&sum),
                }
            }
        }

        let events =
            Table::gather(views, EVENTS, &self.by_event, &everything, &[Field::EventName], flaws, patience)?;
        let count = Needs::default();
        let top = greatest_first(&events, |group| {
            Ok(events.group_total(group, &count, patience)?.figure(&Measure::Events, flaws))
        })?;
        let needs = Needs::of(&[Measure::UniqueUsers], &[]);
        let top_events: Result<Vec<_>, Error> = top
            .into_iter()
            .filter_map(|group| match events.values(group) {
                [name] => Some((group, group_text(name)?)),
                _ => None,
            })
            .take(self.top_events)
            .map(|(group, event_name)| {
                let sum = events.group_total(group, &needs, patience)?;
                Ok(pb::EventCount {
                    event_name,
                    events: Some(sum.figure(&Measure::Events, flaws)),
                    unique_users: Some(sum.figure(&Measure::UniqueUsers, flaws)),
                })
            })
            .collect();

        let provenance = Provenance {
            range: &self.range,
            reads: self.reads(),
            rollup: &self.totals.name,
            part: TOTALS,
            late: current.late(),
            rows_read: totals.rows_read() + events.rows_read(),
        };
        Ok(pb::GetSummaryResponse {
            current: Some(figures(&current, flaws)),
            previous: self.has_previous.then(|| figures(&previous, flaws)),
            top_events: top_events?,
            info: Some(provenance.info(views)),
        })
    }
}

fn figures(sum: &Sum, flaws: &Flaws) -> pb::SummaryFigures {
    flaws.note_if(sum.lacks_currencies(), Flaw::Currencies);
    flaws.note_if(!sum.amounts().all(Amount::fits), Flaw::GreatSum);
    pb::SummaryFigures {
        events: Some(sum.figure(&Measure::Events, flaws)),
        unique_users: Some(sum.figure(&Measure::UniqueUsers, flaws)),
        sessions: Some(sum.figure(&Measure::Sessions, flaws)),
        revenue: sum.amounts().map(Amount::to_money).collect(),
    }
}
