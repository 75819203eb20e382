//! `QueryFunnel`.

use weir_proto::{
    analytics::v1::{self as pb, query_funnel_request::Order as AskedOrder},
    time::{duration, duration_micros},
    validate::{Path, Violations},
};
use weir_query::{
    fold::funnel::Order,
    funnel::{Answer, Exclusion, Question, Step},
};

use super::{Seen, values};
use crate::question::{
    TimeRange,
    reader::{Reader, actor, number_or},
};

/// The window of a request that names none: a day.
const DEFAULT_WINDOW: i64 = 86_400_000_000;
/// Groups when the request says nothing.
const DEFAULT_GROUPS: usize = 100;

/// The question, but for its range, which may depend on the moment.
#[derive(Debug, Clone)]
pub(crate) struct Funnel {
    pub(crate) range: TimeRange,
    question: Question,
    labels: Vec<String>,
}

impl Funnel {
    /// Reads a request.
    pub(crate) fn parse(request: &pb::QueryFunnelRequest) -> Result<Self, Violations> {
        let mut reader = Reader::new(request)?;
        let root = Path::ROOT;
        let (steps_at, exclusions_at) = (root.field("steps"), root.field("exclusions"));
        let mut steps = Vec::new();
        for (index, step) in request.steps.iter().enumerate() {
            steps.push(reader.events(&steps_at.index(index), &step.event_names, step.filter.as_ref()));
        }
        let mut exclusions = Vec::new();
        for (index, exclusion) in request.exclusions.iter().enumerate() {
            let at = exclusions_at.index(index);
            let filter = reader.events(&at, &exclusion.event_names, exclusion.filter.as_ref());
            let after = exclusion.after_step.max(1) as usize;
            let before = number_or(exclusion.before_step, request.steps.len());
            let between = (exclusion.after_step, exclusion.before_step) != (0, 0);
            if between && (after >= before || before > request.steps.len()) {
                reader.refuse(&at, "must lie between a step and a later one");
            }
            exclusions.push(Exclusion { filter, between: between.then(|| (after - 1, before - 1)) });
        }
        let order = match request.order() {
            AskedOrder::Unspecified | AskedOrder::Strict => Order::Strict,
            AskedOrder::Any => Order::Any,
        };
        if order == Order::Any && !exclusions.is_empty() {
            reader.refuse(&exclusions_at, "need steps in order: in any order nothing lies between");
        }
        let question = Question {
            range: 0..0,
            filter: reader.events(&root, &[], request.filter.as_ref()),
            steps,
            exclusions,
            window: request.window.as_ref().map_or(DEFAULT_WINDOW, duration_micros),
            order,
            actor: actor(request.count_by()),
            by: reader.group_by(&request.group_by),
            max_groups: number_or(request.max_groups, DEFAULT_GROUPS),
        };
        let labels = request.steps.iter().map(label).collect();
        let range = reader.range(request.time_range.as_ref());
        reader.finish(Self { range, question, labels })
    }

    /// The question about a range.
    pub(crate) fn of(&self, range: std::ops::Range<i64>) -> Question {
        Question { range, ..self.question.clone() }
    }

    /// The response with an answer.
    pub(crate) fn response(
        &self,
        answer: &Answer,
        range: &std::ops::Range<i64>,
        seen: &Seen,
    ) -> pb::QueryFunnelResponse {
        let groups = answer
            .groups
            .iter()
            .map(|group| pb::FunnelGroup { group: values(&group.values), steps: self.steps(&group.steps) });
        pb::QueryFunnelResponse {
            total: Some(pb::FunnelGroup { group: Vec::new(), steps: self.steps(&answer.total) }),
            groups: groups.collect(),
            omitted_groups: answer.omitted_groups as u64,
            info: Some(seen.info(range, answer.read, true)),
        }
    }

    fn steps(&self, steps: &[Step]) -> Vec<pb::FunnelStepResult> {
        let first = steps.first().map_or(0, |step| step.count);
        let before = std::iter::once(first).chain(steps.iter().map(|step| step.count));
        let all = self.labels.iter().zip(steps).zip(before);
        all.map(|((label, step), before)| pb::FunnelStepResult {
            label: label.clone(),
            count: step.count,
            conversion_from_first: share(step.count, first),
            conversion_from_previous: share(step.count, before),
            median_time_from_first: step.median.map(duration),
            p90_time_from_first: step.p90.map(duration),
            median_time_from_previous: step.median_from_previous.map(duration),
            p90_time_from_previous: step.p90_from_previous.map(duration),
        })
        .collect()
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What a step is called: as the request says, else after its event names.
fn label(step: &pb::FunnelStep) -> String {
    match (step.label.as_str(), step.event_names.as_slice()) {
        ("", []) => "any event".to_owned(),
        ("", names) => names.join(" or "),
        (label, _) => label.to_owned(),
    }
}
