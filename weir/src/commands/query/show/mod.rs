//! Answers as tables, charts and CSV. Pure.

mod figures;
mod funnel;
mod paths;
mod retention;
mod timeline;

use jiff::tz::TimeZone;
use prost_types::Value;
use weir_proto::analytics::v1::{ResultInfo, watch_query_response::Result as Answer};

use crate::{
    moment,
    render::{BAD, FAINT, STRONG, figure, grouped, paint},
};

pub(super) use timeline::profile;

/// Width of bars beside a table.
const BAR_COLUMNS: usize = 24;

/// What the question said about how the answer is to be read.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) zone: TimeZone,
    /// Names of the measures and formulas.
    pub(super) names: Vec<String>,
    pub(super) group_by: Vec<String>,
    /// Whether buckets without events are listed.
    pub(super) with_empty: bool,
    /// Whether buckets cover others before them, also some from before the range.
    pub(super) rolling: bool,
}

impl Frame {
    /// Of a question without measures and groups.
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone, names: Vec::new(), group_by: Vec::new(), with_empty: false, rolling: false }
    }
}

/// For people.
pub(super) fn text(answer: &Answer, frame: &Frame, with_chart: bool) -> String {
    let mut out = match answer {
        Answer::Summary(answer) => figures::summary(answer, with_chart),
        Answer::TimeSeries(answer) => figures::time_series(answer, frame, with_chart),
        Answer::Breakdown(answer) => figures::breakdown(answer, frame, with_chart),
        Answer::Funnel(answer) => funnel::text(answer, frame, with_chart),
        Answer::Retention(answer) => retention::text(answer, frame, with_chart),
        Answer::Paths(answer) => paths::text(answer, with_chart),
        Answer::UserEvents(answer) => timeline::text(answer, frame),
    };
    if let Some(info) = info(answer) {
        out.push_str(&footer(info, &frame.zone));
    }
    out
}

/// What an answer says about itself.
pub(super) fn info(answer: &Answer) -> Option<&ResultInfo> {
    let info = match answer {
        Answer::Summary(answer) => &answer.info,
        Answer::TimeSeries(answer) => &answer.info,
        Answer::Breakdown(answer) => &answer.info,
        Answer::Funnel(answer) => &answer.info,
        Answer::Retention(answer) => &answer.info,
        Answer::Paths(answer) => &answer.info,
        Answer::UserEvents(answer) => &answer.info,
    };
    info.as_ref()
}

/// What an answer says about itself: an empty line, then what it holds for, warnings and notes, and the plan if there is one.
pub(super) fn footer(info: &ResultInfo, zone: &TimeZone) -> String {
    let mut out = format!("\n{}\n", paint(FAINT, figure::provenance(info, zone)));
    for lacking in lacking(info, zone) {
        out.push_str(&format!("{}\n", paint(BAD, lacking)));
    }
    for note in &info.notes {
        let nearest = match note.nearest_names.as_slice() {
            [] => String::new(),
            names => format!("; did you mean {}?", names.join(", ")),
        };
        out.push_str(&format!("{} {}{nearest}\n", paint(STRONG, "note:"), note.text));
    }
    if !info.plan.is_empty() {
        out.push_str(&format!("\n{}\n", info.plan.trim_end()));
    }
    out
}

/// What an answer lacks, a line each.
pub(super) fn lacking(info: &ResultInfo, zone: &TimeZone) -> impl Iterator<Item = String> {
    let kept = info.coverage_start_time.as_ref().map(|since| {
        let since = figure::time(moment::from_proto(since), zone);
        let zone = zone.iana_name().unwrap_or("UTC");
        format!("incomplete: events are kept since {since} {zone}, the question reaches back further")
    });
    let missing = info.missing_parts.iter().map(|part| {
        let what = match part.segment.as_str() {
            "" => format!("the latest events of partition {}", part.partition),
            segment => format!("segment {segment} of partition {}", part.partition),
        };
        let events =
            if part.events > 0 { format!(", {} events", grouped(part.events)) } else { String::new() };
        format!("incomplete: {what}{events}: {}", part.reason)
    });
    kept.into_iter().chain(missing)
}

/// The rows of an answer as CSV with a header.
pub(super) fn csv(answer: &Answer, frame: &Frame) -> String {
    records(match answer {
        Answer::Summary(answer) => figures::summary_rows(answer),
        Answer::TimeSeries(answer) => figures::time_series_rows(answer, frame),
        Answer::Breakdown(answer) => figures::breakdown_rows(answer, frame),
        Answer::Funnel(answer) => funnel::rows(answer, frame),
        Answer::Retention(answer) => retention::rows(answer, frame),
        Answer::Paths(answer) => paths::rows(answer),
        Answer::UserEvents(answer) => timeline::rows(&answer.events),
    })
}

/// Rows as CSV.
pub(super) fn records(rows: Vec<Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).expect("rows in memory can be written");
    }
    String::from_utf8(writer.into_inner().expect("rows in memory can be written")).expect("made from text")
}

/// The values of a group, named by their fields: `platform = ios, plan = (none)`.
fn group_name(group: &[Value], frame: &Frame) -> String {
    let named = frame.group_by.iter().zip(group);
    let named: Vec<String> =
        named.map(|(field, value)| format!("{field} = {}", figure::value(value))).collect();
    named.join(", ")
}

/// As text without colours and spaces at the ends of lines.
#[cfg(test)]
pub(super) fn stripped(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    plain.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use weir_proto::analytics::v1::{MissingPart, Note};

    use super::*;

    #[test]
    fn an_answer_says_what_is_missing_and_what_was_probably_meant() {
        let info = ResultInfo {
            coverage_start_time: Some(prost_types::Timestamp { seconds: 1_704_103_200, nanos: 0 }),
            notes: vec![Note {
                text: "no event is named purchse".into(),
                nearest_names: vec!["purchase".into()],
                ..Note::default()
            }],
            missing_parts: vec![
                MissingPart {
                    partition: 3,
                    segment: "a.parquet".into(),
                    events: 1200,
                    reason: "it is gone".into(),
                },
                MissingPart {
                    partition: 4,
                    reason: "its consumer cannot be reached".into(),
                    ..Default::default()
                },
            ],
            plan: "events of 3 segments\n".into(),
            ..ResultInfo::default()
        };
        insta::assert_snapshot!(stripped(&footer(&info, &TimeZone::UTC)).trim_start(), @r"
        incomplete: events are kept since 2024-01-01 10:00 UTC, the question reaches back further
        incomplete: segment a.parquet of partition 3, 1,200 events: it is gone
        incomplete: the latest events of partition 4: its consumer cannot be reached
        note: no event is named purchse; did you mean purchase?

        events of 3 segments
        ");
    }
}
