//! `QueryPaths`.

use std::ops::Range;

use weir_proto::{
    analytics::v1::{self as pb, query_paths_request::Direction as AskedDirection},
    time::duration_micros,
    validate::{Path, Violations},
};
use weir_query::{
    fields,
    fold::paths::Direction,
    paths::{Answer, Node, Question},
};
use weir_rollup::field::Field;

use super::Seen;
use crate::question::{
    TimeRange,
    reader::{Reader, actor, number_or},
};

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
        let mut reader = Reader::new(request)?;
        let root = Path::ROOT;
        let by = match request.field.as_str() {
            "" => Field::EventName,
            name => fields::parse(name).unwrap_or_else(|problem| {
                reader.refuse(&root.field("field"), problem);
                Field::EventName
            }),
        };
        let name = match request.event.as_ref().map(|event| event.event_names.as_slice()) {
            Some([only]) if by == Field::EventName => only.clone(),
            _ => String::new(),
        };
        let question = Question {
            range: 0..0,
            anchor: reader.selected(&root.field("event"), request.event.as_ref()),
            shown: reader.events(&root, &[], request.filter.as_ref()),
            by,
            fold_repeats: request.fold_repeats,
            direction: match request.direction() {
                AskedDirection::Unspecified | AskedDirection::After => Direction::After,
                AskedDirection::Before => Direction::Before,
            },
            depth: number_or(request.depth, DEPTH),
            width: number_or(request.max_branches, BRANCHES),
            max_gap: request.max_gap.as_ref().map_or(GAP, duration_micros),
            actor: actor(request.count_by()),
        };
        let range = reader.range(request.time_range.as_ref());
        reader.finish(Self { range, question, root: name })
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
        pb::QueryPathsResponse { root: Some(root), info: Some(seen.info(range, answer.read, true)) }
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
