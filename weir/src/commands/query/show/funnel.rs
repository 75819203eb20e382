//! Funnels.

use weir_proto::analytics::v1::{FunnelGroup, FunnelStepResult, QueryFunnelResponse};

use super::{BAR_COLUMNS, Frame};
use crate::render::{
    ACCENT, chart,
    figure::{self, duration, grouped, percent, plain_value, seconds},
    paint,
    table::{self, Column, numeric},
};

/// A table of the steps; of groups, one with a row for each.
pub(super) fn text(answer: &QueryFunnelResponse, frame: &Frame, with_chart: bool) -> String {
    let nothing = FunnelGroup::default();
    let total = answer.total.as_ref().unwrap_or(&nothing);
    if total.steps.first().is_none_or(|step| step.count == 0) {
        return "nobody entered this funnel in this range\n".to_owned();
    }
    let mut out = steps(&total.steps, with_chart);
    if !frame.group_by.is_empty() {
        out.push('\n');
        out.push_str(&groups(&answer.groups, &total.steps, frame));
        if answer.omitted_groups > 0 {
            out.push_str(&format!("and {} more\n", grouped(answer.omitted_groups)));
        }
    }
    out
}

fn steps(steps: &[FunnelStepResult], with_chart: bool) -> String {
    let mut columns = vec![
        numeric(""),
        table::text("step"),
        numeric("count"),
        numeric("of the first"),
        numeric("of the one before"),
        numeric("median after it"),
        numeric("90 % within"),
    ];
    columns.extend(with_chart.then(|| table::text("")));
    let entered = steps.first().map_or(0, |step| step.count);
    let rows = steps.iter().enumerate().map(|(index, step)| {
        let time = |length: &Option<prost_types::Duration>| length.as_ref().map(duration).unwrap_or_default();
        let share = |share: f64| if index == 0 { String::new() } else { percent(share) };
        let mut row = vec![
            (index + 1).to_string(),
            step.label.clone(),
            grouped(step.count),
            share(step.conversion_from_first),
            share(step.conversion_from_previous),
            time(&step.median_time_from_previous),
            time(&step.p90_time_from_previous),
        ];
        let bar = || paint(ACCENT, chart::bar(step.count as f64, entered as f64, BAR_COLUMNS));
        row.extend(with_chart.then(bar));
        row
    });
    let mut out = table::table(&columns, rows);
    if let (Some(last), true) = (steps.last(), steps.len() > 1) {
        let mut line = format!(
            "{} of {} went through: {}",
            grouped(last.count),
            grouped(entered),
            percent(last.conversion_from_first)
        );
        if let (Some(median), Some(p90)) = (&last.median_time_from_first, &last.p90_time_from_first) {
            line.push_str(&format!(
                ", half of them within {}, nine in ten within {}",
                duration(median),
                duration(p90)
            ));
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn groups(groups: &[FunnelGroup], steps: &[FunnelStepResult], frame: &Frame) -> String {
    let mut columns: Vec<Column> = frame.group_by.iter().map(table::text).collect();
    columns.extend(steps.iter().map(|step| numeric(&step.label)));
    columns.extend([numeric("through"), numeric("median")]);
    let rows = groups.iter().map(|group| {
        let last = group.steps.last();
        let median = last.and_then(|step| step.median_time_from_first.as_ref());
        let values = group.group.iter().map(figure::value);
        let counts = group.steps.iter().map(|step| grouped(step.count));
        let ends = [
            last.map(|step| percent(step.conversion_from_first)).unwrap_or_default(),
            median.map(duration).unwrap_or_default(),
        ];
        values.chain(counts).chain(ends).collect()
    });
    table::table(&columns, rows)
}

/// A row for each step; with groups, of each of them, without their total.
pub(super) fn rows(answer: &QueryFunnelResponse, frame: &Frame) -> Vec<Vec<String>> {
    let measured = [
        "step",
        "label",
        "count",
        "conversion_from_first",
        "conversion_from_previous",
        "median_seconds_from_first",
        "p90_seconds_from_first",
        "median_seconds_from_previous",
        "p90_seconds_from_previous",
    ];
    let header = frame.group_by.iter().cloned().chain(measured.map(str::to_owned)).collect();
    let groups: &[FunnelGroup] =
        if frame.group_by.is_empty() { answer.total.as_slice() } else { &answer.groups };
    let rows = groups.iter().flat_map(|group| {
        group.steps.iter().enumerate().map(|(index, step)| {
            let values = [
                (index + 1).to_string(),
                step.label.clone(),
                step.count.to_string(),
                step.conversion_from_first.to_string(),
                step.conversion_from_previous.to_string(),
                seconds(step.median_time_from_first.as_ref()),
                seconds(step.p90_time_from_first.as_ref()),
                seconds(step.median_time_from_previous.as_ref()),
                seconds(step.p90_time_from_previous.as_ref()),
            ];
            group.group.iter().map(plain_value).chain(values).collect()
        })
    });
    std::iter::once(header).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use prost_types::{Duration, Value, value::Kind};
    use weir_proto::analytics::v1::watch_query_response::Result as Answer;

    use super::super::{csv, stripped, text};
    use super::*;

    fn funnel(counts: [u64; 3], platform: Option<&str>) -> FunnelGroup {
        let time = |seconds: i64| Some(Duration { seconds, nanos: 0 });
        let step = |index: usize| FunnelStepResult {
            label: ["catalog", "cart", "purchase"][index].into(),
            count: counts[index],
            conversion_from_first: counts[index] as f64 / counts[0] as f64,
            conversion_from_previous: counts[index] as f64 / counts[index.saturating_sub(1)] as f64,
            median_time_from_first: time(100 * index as i64).filter(|_| index > 0),
            p90_time_from_first: time(9000 * index as i64).filter(|_| index > 0),
            median_time_from_previous: time(90).filter(|_| index > 0),
            p90_time_from_previous: time(7200).filter(|_| index > 0),
        };
        let group = platform.map(|name| Value { kind: Some(Kind::StringValue(name.into())) });
        FunnelGroup { group: group.into_iter().collect(), steps: (0..3).map(step).collect() }
    }

    fn answer(groups: Vec<FunnelGroup>) -> Answer {
        Answer::Funnel(QueryFunnelResponse {
            total: Some(funnel([600, 300, 120], None)),
            groups,
            ..QueryFunnelResponse::default()
        })
    }

    #[test]
    fn steps_narrow() {
        let frame = Frame::new(TimeZone::UTC);
        insta::assert_snapshot!(stripped(&text(&answer(Vec::new()), &frame, true)), @r"
           step      count  of the first  of the one before  median after it  90 % within
        1  catalog     600                                                                 ████████████████████████
        2  cart        300        50.0 %             50.0 %         1 m 30 s          2 h  ████████████
        3  purchase    120        20.0 %             40.0 %         1 m 30 s          2 h  ████▊
        120 of 600 went through: 20.0 %, half of them within 3 m 20 s, nine in ten within 5 h
        ");
        insta::assert_snapshot!(csv(&answer(Vec::new()), &frame), @r"
        step,label,count,conversion_from_first,conversion_from_previous,median_seconds_from_first,p90_seconds_from_first,median_seconds_from_previous,p90_seconds_from_previous
        1,catalog,600,1,1,,,,
        2,cart,300,0.5,0.5,100,9000,90,7200
        3,purchase,120,0.2,0.4,200,18000,90,7200
        ");
    }

    #[test]
    fn groups_stand_side_by_side() {
        let frame = Frame { group_by: vec!["platform".into()], ..Frame::new(TimeZone::UTC) };
        let answer = answer(vec![funnel([400, 200, 100], Some("ios")), funnel([200, 100, 20], Some("web"))]);
        insta::assert_snapshot!(stripped(&text(&answer, &frame, false)), @r"
           step      count  of the first  of the one before  median after it  90 % within
        1  catalog     600
        2  cart        300        50.0 %             50.0 %         1 m 30 s          2 h
        3  purchase    120        20.0 %             40.0 %         1 m 30 s          2 h
        120 of 600 went through: 20.0 %, half of them within 3 m 20 s, nine in ten within 5 h

        platform  catalog  cart  purchase  through    median
        ios           400   200       100   25.0 %  3 m 20 s
        web           200   100        20   10.0 %  3 m 20 s
        ");
        assert_eq!(csv(&answer, &frame).lines().count(), 7);
    }

    #[test]
    fn an_empty_funnel_is_said_in_words() {
        let nothing = Answer::Funnel(QueryFunnelResponse::default());
        assert_eq!(
            text(&nothing, &Frame::new(TimeZone::UTC), true),
            "nobody entered this funnel in this range\n"
        );
    }
}
