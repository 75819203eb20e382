//! Answers from rollups. Pure but for the [`engine`]: a question is planned against the rollups in force and answered from the
//! [`View`]s of all partitions.
//!
//! ```text
//! question ─ Plan::of (which rollup, which buckets) ─ views of every partition ─ Plan::answer ─ answer
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | asks all partitions; waits for consistency tokens |
//! | [`flaw`] | what keeps an answer from being exact |
//! | [`measure`] | how cells add up to what is measured |
//! | [`rollup`] | which rollup and which of its buckets; the error when there is none |
//! | [`table`] | the cells of a question by group and slot |
//! | [`summary`], [`time_series`], [`breakdown`] | the three questions |

mod breakdown;
pub(crate) mod engine;
pub(crate) mod flaw;
mod measure;
mod rollup;
pub(crate) mod summary;
mod table;
#[cfg(test)]
mod tests;
mod time_series;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use flaw::{Flaw, Flaws};
use prost_types::Timestamp;
use weir_proto::{
    analytics::v1::{self as pb, ResultInfo, result_info::Source},
    time::timestamp,
    token,
};
use weir_rollup::definition::may_be_cut;

use crate::{
    error::Error,
    materialise::{PartRequest, Value, View},
    question::{self, Answer, Counts},
};

pub(crate) use rollup::Setting;
pub(crate) use table::Patience;

/// How a question is answered.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Key figures.
    Summary(summary::Plan),
    /// Measures over time.
    TimeSeries(time_series::Plan),
    /// Measures by values.
    Breakdown(breakdown::Plan),
}

impl Plan {
    /// Finds rollup and buckets.
    ///
    /// # Errors
    /// [`Error::NotCovered`], [`Error::TooFine`], [`Error::TooLarge`].
    pub(crate) fn of(question: &Counts, setting: &Setting<'_>) -> Result<Self, Error> {
        Ok(match question {
            Counts::Summary(question) => Self::Summary(question.plan(setting)?),
            Counts::TimeSeries(question) => Self::TimeSeries(time_series::Plan::of(question, setting)?),
            Counts::Breakdown(question) => Self::Breakdown(breakdown::Plan::of(question, setting)?),
        })
    }

    /// The moments that the question came down to.
    pub(crate) fn range(&self) -> &Range<i64> {
        match self {
            Self::Summary(plan) => &plan.range,
            Self::TimeSeries(plan) => &plan.range,
            Self::Breakdown(plan) => &plan.range,
        }
    }

    /// The cells that it needs of every partition.
    pub(crate) fn parts(&self) -> &[PartRequest] {
        match self {
            Self::Summary(plan) => &plan.parts,
            Self::TimeSeries(plan) => &plan.parts,
            Self::Breakdown(plan) => &plan.parts,
        }
    }

    /// The moments that the answer is about: those of the question and, in a summary, of the range before it.
    pub(crate) fn reads(&self) -> Range<i64> {
        match self {
            Self::Summary(plan) => plan.reads(),
            Self::TimeSeries(_) | Self::Breakdown(_) => self.range().clone(),
        }
    }

    /// Makes the answer of the views, which are those of [`Plan::parts`], one a partition, in their order; and says what keeps it
    /// from being exact for the events that are counted.
    pub(crate) fn answer(
        &self,
        views: &[View],
        patience: Patience<'_>,
    ) -> Result<(Answer, BTreeSet<Flaw>), Error> {
        let flaws = Flaws::default();
        let mut answer = match self {
            Self::Summary(plan) => Answer::Summary(plan.answer(views, &flaws, patience)?),
            Self::TimeSeries(plan) => Answer::TimeSeries(plan.answer(views, &flaws, patience)?),
            Self::Breakdown(plan) => Answer::Breakdown(plan.answer(views, &flaws, patience)?),
        };
        let flaws = flaws.into_inner();
        question::info(&mut answer).exact = flaws.is_empty();
        Ok((answer, flaws))
    }
}

/// Every event before this moment is counted in these views. Where nothing is known yet, there is no such moment.
pub(crate) fn watermark(views: &[View]) -> Option<Timestamp> {
    views.iter().map(|view| view.watermark).min().filter(|micros| *micros > 0).map(timestamp)
}

/// The moment before which events of a range are not in a part of the views, if there are such.
pub(crate) fn incomplete_before(views: &[View], part: usize, range: &Range<i64>) -> Option<i64> {
    let since = views.iter().filter_map(|view| match view.parts[part].since {
        Some(since) => (since.offset > 0).then_some(since.micros),
        // Not in force: whatever was counted is missing here.
        None => (view.next_source_offset > 0).then_some(view.watermark),
    });
    since.max().filter(|since| range.start < *since)
}

/// What the answer says about itself.
struct Provenance<'a> {
    range: &'a Range<i64>,
    /// The moments that are counted: more than the range where another is beside it.
    reads: Range<i64>,
    /// Name of the rollup.
    rollup: &'a str,
    /// The part of the views that is about it.
    part: usize,
    late: u64,
    rows_read: u64,
}

impl Provenance<'_> {
    fn info(&self, views: &[View]) -> ResultInfo {
        let counted = views.iter().enumerate().filter_map(|(partition, view)| {
            Some((u32::try_from(partition).ok()?, view.next_source_offset.checked_sub(1)?))
        });
        let counted: BTreeMap<u32, u64> = counted.collect();
        ResultInfo {
            watermark: watermark(views),
            consistency_token: token::encode(&counted),
            source: Source::Rollup.into(),
            rollup: self.rollup.to_owned(),
            late_events: self.late,
            coverage_start_time: incomplete_before(views, self.part, &self.reads).map(timestamp),
            rows_read: self.rows_read,
            start_time: Some(timestamp(self.range.start)),
            end_time: Some(timestamp(self.range.end)),
            ..ResultInfo::default()
        }
    }
}

/// The text in place of values that were folded together.
const OTHER: &str = "(other)";

/// The text of a value of a group; none where events have none.
fn group_text(value: &Value) -> Option<String> {
    match value {
        Value::Missing => None,
        Value::Text(text) if may_be_cut(text) => Some(format!("{text}…")),
        Value::Text(text) => Some(text.to_string()),
        Value::Other => Some(OTHER.to_owned()),
    }
}

/// The values of a group, and whether some of them stand for others.
fn group_values(values: &[Value]) -> (Vec<prost_types::Value>, bool) {
    use prost_types::value::Kind;
    let kind = |value: &Value| group_text(value).map_or(Kind::NullValue(0), Kind::StringValue);
    let texts = values.iter().map(|value| prost_types::Value { kind: Some(kind(value)) }).collect();
    (texts, values.contains(&Value::Other))
}

/// Groups, greatest first by the figure, those without one last; equal ones by their values.
fn greatest_first(
    table: &table::Table<'_>,
    figure: impl Fn(table::Group) -> Result<pb::Figure, Error>,
) -> Result<Vec<table::Group>, Error> {
    let groups: Vec<table::Group> = table.groups().collect();
    if groups.len() < 2 {
        return Ok(groups);
    }
    let figures = groups.into_iter().map(|group| Ok((group, figure(group)?)));
    let mut ranked = figures.collect::<Result<Vec<_>, Error>>()?;
    ranked.sort_by(|(a, a_figure), (b, b_figure)| {
        let by_figure = a_figure.empty.cmp(&b_figure.empty).then(b_figure.value.total_cmp(&a_figure.value));
        by_figure.then_with(|| table.values(*a).cmp(table.values(*b)))
    });
    Ok(ranked.into_iter().map(|(group, _)| group).collect())
}
