//! Trees of paths.

use weir_proto::analytics::v1::{PathNode, QueryPathsResponse};

use super::BAR_COLUMNS;
use crate::render::{
    ACCENT, FAINT, chart,
    figure::{grouped, percent},
    paint,
    table::{self, numeric},
};

/// A tree: each event with how many paths come to it and their share of those that come to the one before.
pub(super) fn text(answer: &QueryPathsResponse, with_chart: bool) -> String {
    let Some(root) = answer.root.as_ref().filter(|root| root.count > 0) else {
        return "no path begins in this range\n".to_owned();
    };
    let mut columns = vec![table::text("path"), numeric("count"), numeric("share")];
    columns.extend(with_chart.then(|| table::text("")));
    let mut rows = Vec::new();
    let mut line = |name: String, count: u64, share: Option<f64>| {
        let mut row = vec![name, grouped(count), share.map(percent).unwrap_or_default()];
        let bar = || paint(ACCENT, chart::bar(count as f64, root.count as f64, BAR_COLUMNS));
        row.extend(with_chart.then(bar));
        rows.push(row);
    };
    // Of many kinds of events, no one names the beginning.
    let beginning = if root.value.is_empty() { "(any)".to_owned() } else { root.value.clone() };
    line(beginning, root.count, None);
    branches(root, "", &mut line);
    table::table(&columns, rows)
}

fn branches(node: &PathNode, indent: &str, line: &mut impl FnMut(String, u64, Option<f64>)) {
    let share = |count: u64| Some(count as f64 / node.count.max(1) as f64);
    // At a leaf everything ends: that need not be said.
    let ended = (node.ended > 0 && !node.branches.is_empty()).then_some(node.ended);
    let last = node.branches.len() + usize::from(ended.is_some());
    let fork = |index: usize| if index + 1 == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
    for (index, branch) in node.branches.iter().enumerate() {
        let (here, below) = fork(index);
        line(
            format!("{}{}", paint(FAINT, format_args!("{indent}{here}")), name(branch)),
            branch.count,
            share(branch.count),
        );
        branches(branch, &format!("{indent}{below}"), line);
    }
    if let Some(ended) = ended {
        let end = paint(FAINT, format_args!("{indent}└─ (end)"));
        line(end, ended, share(ended));
    }
}

fn name(node: &PathNode) -> String {
    match node.value.as_str() {
        _ if node.other => "(other)".to_owned(),
        "" => "(none)".to_owned(),
        name => name.to_owned(),
    }
}

/// A row for each node, after those that lead to it.
pub(super) fn rows(answer: &QueryPathsResponse) -> Vec<Vec<String>> {
    let mut rows = vec![["depth", "path", "value", "count", "ended"].map(str::to_owned).to_vec()];
    fn add(node: &PathNode, path: &[String], rows: &mut Vec<Vec<String>>) {
        let path: Vec<String> = path.iter().cloned().chain([name(node)]).collect();
        let depth = (path.len() - 1).to_string();
        rows.push(vec![depth, path.join(" > "), name(node), node.count.to_string(), node.ended.to_string()]);
        node.branches.iter().for_each(|branch| add(branch, &path, rows));
    }
    answer.root.iter().for_each(|root| add(root, &[], &mut rows));
    rows
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use weir_proto::analytics::v1::watch_query_response::Result as Answer;

    use super::super::{Frame, csv, stripped, text};
    use super::*;

    #[test]
    fn paths_are_a_tree() {
        let node = |value: &str, count: u64, ended: u64, branches: Vec<PathNode>| PathNode {
            value: value.into(),
            count,
            ended,
            branches,
            other: value.is_empty(),
        };
        let view = node("product_view", 300, 60, vec![node("cart", 200, 0, vec![]), node("", 40, 0, vec![])]);
        let root = node("catalog", 600, 200, vec![view, node("search", 100, 100, vec![])]);
        let answer = Answer::Paths(QueryPathsResponse { root: Some(root), info: None });
        let frame = Frame::new(TimeZone::UTC);
        insta::assert_snapshot!(stripped(&text(&answer, &frame, true)), @r"
        path             count   share
        catalog            600          ████████████████████████
        ├─ product_view    300  50.0 %  ████████████
        │  ├─ cart         200  66.7 %  ████████
        │  ├─ (other)       40  13.3 %  █▋
        │  └─ (end)         60  20.0 %  ██▍
        ├─ search          100  16.7 %  ████
        └─ (end)           200  33.3 %  ████████
        ");
        insta::assert_snapshot!(csv(&answer, &frame), @r"
        depth,path,value,count,ended
        0,catalog,catalog,600,200
        1,catalog > product_view,product_view,300,60
        2,catalog > product_view > cart,cart,200,0
        2,catalog > product_view > (other),(other),40,0
        1,catalog > search,search,100,100
        ");
    }

    #[test]
    fn no_paths_are_said_in_words() {
        let nothing = Answer::Paths(QueryPathsResponse::default());
        assert_eq!(text(&nothing, &Frame::new(TimeZone::UTC), true), "no path begins in this range\n");
    }
}
