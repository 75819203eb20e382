//! Retention.

use anstyle::{AnsiColor, RgbColor, Style};
use weir_proto::analytics::v1::{QueryRetentionResponse, RetentionGroup, RetentionPeriod};

use super::{Frame, group_name};
use crate::{
    moment,
    render::{
        STRONG,
        figure::{grouped, plain_value},
        paint,
        table::{self, numeric},
        width,
    },
};

/// Columns that a share takes with the gap before it: `100 %`, and a space at either side where they are coloured.
const CELL_COLUMNS: usize = 9;

/// A table of cohorts for each group; with colours the shares, else the numbers.
pub(super) fn text(answer: &QueryRetentionResponse, frame: &Frame, with_colours: bool) -> String {
    if answer.groups.iter().all(|group| group.cohorts.is_empty()) {
        return "nobody started in this range\n".to_owned();
    }
    let tables = answer.groups.iter().map(|group| {
        let name = group_name(&group.group, frame);
        let name = if name.is_empty() { name } else { format!("{}\n", paint(STRONG, name)) };
        format!("{name}{}", cohorts(group, answer.period(), frame, with_colours))
    });
    let mut out = tables.collect::<Vec<_>>().join("\n");
    if answer.omitted_groups > 0 {
        out.push_str(&format!("and {} more groups\n", grouped(answer.omitted_groups)));
    }
    out
}

fn cohorts(group: &RetentionGroup, period: RetentionPeriod, frame: &Frame, with_colours: bool) -> String {
    let (name, pattern) = match period {
        RetentionPeriod::Day => ("day", "%Y-%m-%d"),
        RetentionPeriod::Unspecified | RetentionPeriod::Week => ("week of", "%Y-%m-%d"),
        RetentionPeriod::Month => ("month", "%Y-%m"),
        RetentionPeriod::Quarter => ("quarter from", "%Y-%m"),
        RetentionPeriod::Year => ("year", "%Y"),
    };
    let periods = group.cohorts.iter().map(|cohort| cohort.counts.len()).max().unwrap_or(0);
    let shown = if with_colours { periods.min(width().saturating_sub(24) / CELL_COLUMNS) } else { periods };
    let mut columns = vec![table::text(name), numeric("users")];
    columns.extend((0..shown).map(|period| numeric(period.to_string())));
    let cell = |count: u64, size: u64| {
        if with_colours { heat(count as f64 / size.max(1) as f64) } else { grouped(count) }
    };
    let rows = group.cohorts.iter().map(|cohort| {
        let start = cohort.start_time.as_ref().map(moment::from_proto).unwrap_or_default();
        let start = start.to_zoned(frame.zone.clone()).strftime(pattern).to_string();
        let counts = cohort.counts.iter().take(shown).map(|count| cell(*count, cohort.size));
        [start, grouped(cohort.size)].into_iter().chain(counts).collect()
    });
    let users = group.cohorts.iter().map(|cohort| cohort.size).sum();
    let shares = group.shares.iter().take(shown).map(|share| cell(share.count, share.size));
    let all = ["all".to_owned(), grouped(users)].into_iter().chain(shares).collect();
    let mut out = table::table(&columns, rows.chain([all]));
    if shown < periods {
        out.push_str(&format!("{} more periods do not fit; --csv has them\n", periods - shown));
    }
    out
}

/// A share on a background that is the warmer the greater it is.
fn heat(share: f64) -> String {
    // Most shares after the first period are small: the root tells them apart.
    let warmth = share.clamp(0.0, 1.0).sqrt();
    let between = |cold: f64, hot: f64| (cold + (hot - cold) * warmth) as u8;
    let ground = RgbColor(between(20.0, 0.0), between(26.0, 150.0), between(34.0, 136.0));
    let style = Style::new().bg_color(Some(ground.into())).fg_color(Some(AnsiColor::BrightWhite.into()));
    paint(style, format_args!(" {:>3.0} % ", share * 100.0))
}

/// A row for each cohort and period.
pub(super) fn rows(answer: &QueryRetentionResponse, frame: &Frame) -> Vec<Vec<String>> {
    let header =
        frame.group_by.iter().cloned().chain(["cohort", "users", "period", "returned"].map(str::to_owned));
    let mut rows: Vec<Vec<String>> = vec![header.collect()];
    for group in &answer.groups {
        for cohort in &group.cohorts {
            rows.extend(cohort.counts.iter().enumerate().map(|(period, count)| {
                let values = [
                    cohort.local_time.clone(),
                    cohort.size.to_string(),
                    period.to_string(),
                    count.to_string(),
                ];
                group.group.iter().map(plain_value).chain(values).collect()
            }));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use prost_types::{Timestamp, Value, value::Kind};
    use weir_proto::analytics::v1::{
        RetentionCohort, RetentionShare, watch_query_response::Result as Answer,
    };

    use super::super::{csv, stripped, text};
    use super::*;

    fn answer(group: Vec<Value>) -> Answer {
        let cohort = |day: i64, size: u64, counts: &[u64]| RetentionCohort {
            start_time: Some(Timestamp { seconds: day * 86_400, nanos: 0 }),
            local_time: format!("1970-01-{:02}T00:00:00+00:00", day + 1),
            size,
            counts: counts.to_vec(),
        };
        let share = |size, count| RetentionShare { size, count };
        Answer::Retention(QueryRetentionResponse {
            groups: vec![RetentionGroup {
                group,
                cohorts: vec![cohort(4, 1000, &[1000, 250, 40]), cohort(11, 50, &[50, 5])],
                shares: vec![share(1050, 1050), share(1050, 255), share(1000, 40)],
            }],
            period: RetentionPeriod::Week.into(),
            ..QueryRetentionResponse::default()
        })
    }

    #[test]
    fn cohorts_are_rows() {
        let frame = Frame::new(TimeZone::UTC);
        insta::assert_snapshot!(stripped(&text(&answer(Vec::new()), &frame, false)), @r"
        week of     users      0    1   2
        1970-01-05  1,000  1,000  250  40
        1970-01-12     50     50    5
        all         1,050  1,050  255  40
        ");
        insta::assert_snapshot!(stripped(&text(&answer(Vec::new()), &frame, true)), @r"
        week of     users        0        1        2
        1970-01-05  1,000   100 %     25 %      4 %
        1970-01-12     50   100 %     10 %
        all         1,050   100 %     24 %      4 %
        ");
        insta::assert_snapshot!(csv(&answer(Vec::new()), &frame), @r"
        cohort,users,period,returned
        1970-01-05T00:00:00+00:00,1000,0,1000
        1970-01-05T00:00:00+00:00,1000,1,250
        1970-01-05T00:00:00+00:00,1000,2,40
        1970-01-12T00:00:00+00:00,50,0,50
        1970-01-12T00:00:00+00:00,50,1,5
        ");
    }

    #[test]
    fn groups_have_their_names() {
        let frame = Frame { group_by: vec!["platform".into()], ..Frame::new(TimeZone::UTC) };
        let ios = Value { kind: Some(Kind::StringValue("ios".into())) };
        let answer = answer(vec![ios]);
        assert!(stripped(&text(&answer, &frame, true)).starts_with("platform = ios\n"));
        assert!(csv(&answer, &frame).contains("ios,1970-01-05T00:00:00+00:00,1000,1,250\n"));
    }
}
