//! `QueryPaths`.

use std::ops::Range;

use weir_proto::{
    analytics::v1::{self as pb, query_paths_request::Direction as AskedDirection},
    time::duration_micros,
    validate::{Path, Validate as _, Violations},
};
use weir_query::{
    fields,
    filter::Filter,
    fold::paths::Direction,
    paths::{Answer, Node, Question},
};
use weir_rollup::field::Field;

use super::{Seen, actor, selected};
use crate::query::range::TimeRange;

/// What a request that leaves it open means: three events, five branches, 30 minutes.
const DEPTH: usize = 3;
const BRANCHES: usize = 5;
const GAP: i64 = 30 * 60 * 1_000_000;

/// The question, but for its range, which may depend on the moment.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) range: TimeRange,
    question: Question,
    root: String,
}

impl Paths {
    /// Reads a request.
    pub(crate) fn parse(request: &pb::QueryPathsRequest) -> Result<Self, Violations> {
        request.validate()?;
        let (at, mut found) = (Path::ROOT, Violations::default());
        let by = match request.field.as_str() {
            "" => Field::EventName,
            name => fields::parse(name).unwrap_or_else(|problem| {
                found.add(&at.field("field"), problem);
                Field::EventName
            }),
        };
        let root = match request.event.as_ref().map(|event| event.event_names.as_slice()) {
            Some([only]) if by == Field::EventName => only.clone(),
            _ => String::new(),
        };
        let question = Question {
            range: 0..0,
            anchor: selected(request.event.as_ref(), &at.field("event"), &mut found),
            shown: Filter::parse(request.filter.as_ref(), &at.field("filter"), &mut found),
            by,
            fold_repeats: request.fold_repeats,
            direction: match request.direction() {
                AskedDirection::Unspecified | AskedDirection::After => Direction::After,
                AskedDirection::Before => Direction::Before,
            },
            depth: if request.depth == 0 { DEPTH } else { request.depth as usize },
            width: if request.max_branches == 0 { BRANCHES } else { request.max_branches as usize },
            max_gap: request.max_gap.as_ref().map_or(GAP, duration_micros),
            actor: actor(request.count_by()),
        };
        let range = TimeRange::parse(request.time_range.as_ref(), &at.field("time_range"), &mut found);
        found.into_result()?;
        Ok(Self { range, question, root })
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
    ) -> pb::QueryPathsResponse {
        let root = pb::PathNode { value: self.root.clone(), ..node(&answer.root) };
        pb::QueryPathsResponse { root: Some(root), info: Some(seen.info(range, answer.read, 0, true)) }
    }
}

fn node(of: &Node) -> pb::PathNode {
    let rest =
        (of.omitted > 0).then(|| pb::PathNode { other: true, count: of.omitted, ..pb::PathNode::default() });
    pb::PathNode {
        value: of.value.clone().unwrap_or_default(),
        other: false,
        count: of.count,
        ended: of.ended,
        branches: of.next.iter().map(node).chain(rest).collect(),
    }
}
