//! Figures: key figures, over time, by values.

use prost_types::Value;
use weir_proto::analytics::v1::{
    BreakdownRow, Figure, GetSummaryResponse, Interval, QueryBreakdownResponse, QueryTimeSeriesResponse,
    SummaryFigures, TimeSeries, TimeSeriesPoint,
};

use super::{BAR_COLUMNS, Frame};
use crate::{
    moment, money,
    render::{
        ACCENT, BAD, GOOD, chart,
        figure::{self, figure, grouped, plain, plain_value},
        paint,
        table::{self, Column, numeric},
        width,
    },
};

/// Height of a chart in lines.
const CHART_LINES: usize = 8;

/// A row for each event, after one for all of them.
pub(super) fn summary_rows(answer: &GetSummaryResponse) -> Vec<Vec<String>> {
    let all = answer.current.clone().unwrap_or_default();
    let of = |value: &Option<Figure>| value.as_ref().map(plain).unwrap_or_default();
    let header = ["event_name", "events", "unique_users"].map(str::to_owned).to_vec();
    let total = vec![String::new(), of(&all.events), of(&all.unique_users)];
    let events = answer.top_events.iter();
    let events = events.map(|top| vec![top.event_name.clone(), of(&top.events), of(&top.unique_users)]);
    [header, total].into_iter().chain(events).collect()
}

/// A row for each bucket of each series.
pub(super) fn time_series_rows(answer: &QueryTimeSeriesResponse, frame: &Frame) -> Vec<Vec<String>> {
    let compared = answer.previous_range.is_some();
    let header =
        ["time".to_owned()].into_iter().chain(frame.group_by.clone()).chain(names(frame, compared, false));
    let mut rows: Vec<Vec<String>> = vec![header.collect()];
    for series in &answer.series {
        let group = || series.group.iter().map(|value| plain_cell(value, series.other));
        rows.extend(series.points.iter().map(|point| {
            let figures = plain_figures(&point.figures, &point.previous_figures, compared);
            [point.local_time.clone()].into_iter().chain(group()).chain(figures).collect()
        }));
    }
    rows
}

/// A row for each combination of values.
pub(super) fn breakdown_rows(answer: &QueryBreakdownResponse, frame: &Frame) -> Vec<Vec<String>> {
    let compared = answer.previous_range.is_some();
    let header = frame.group_by.iter().cloned().chain(names(frame, compared, false)).collect();
    let rows = answer.rows.iter().map(|row| {
        let group = row.group.iter().map(|value| plain_cell(value, row.other));
        group.chain(plain_figures(&row.figures, &row.previous_figures, compared)).collect()
    });
    std::iter::once(header).chain(rows).collect()
}

/// Names of the columns of figures; compared, each with those of the figure before and, for people, the change.
fn names(frame: &Frame, compared: bool, with_change: bool) -> impl Iterator<Item = String> + '_ {
    frame.names.iter().flat_map(move |name| {
        let before =
            compared.then(|| if with_change { "before".to_owned() } else { format!("{name} before") });
        let change = (compared && with_change).then(|| "change".to_owned());
        [name.clone()].into_iter().chain(before).chain(change)
    })
}

fn plain_figures<'a>(
    figures: &'a [Figure],
    previous: &'a [Figure],
    compared: bool,
) -> impl Iterator<Item = String> + 'a {
    figures.iter().enumerate().flat_map(move |(index, figure)| {
        let before = compared.then(|| previous.get(index).map(plain).unwrap_or_default());
        [plain(figure)].into_iter().chain(before)
    })
}

fn shown_figures<'a>(
    figures: &'a [Figure],
    previous: &'a [Figure],
    compared: bool,
) -> impl Iterator<Item = String> + 'a {
    figures.iter().enumerate().flat_map(move |(index, now)| {
        let before = previous.get(index);
        let change = before.filter(|before| !before.empty && !now.empty);
        let change = change.map(|before| change_of(now.value, before.value)).unwrap_or_default();
        let before = before.map(figure).unwrap_or_default();
        [figure(now)].into_iter().chain(compared.then_some([before, change]).into_iter().flatten())
    })
}

fn plain_cell(value: &Value, other: bool) -> String {
    if other { "(other)".to_owned() } else { plain_value(value) }
}

fn cell(value: &Value, other: bool) -> String {
    if other { "(other)".to_owned() } else { figure::value(value) }
}

/// Key figures beside those before, and the most frequent events.
pub(super) fn summary(answer: &GetSummaryResponse, with_chart: bool) -> String {
    let (current, previous) =
        (answer.current.clone().unwrap_or_default(), answer.previous.clone().unwrap_or_default());
    let columns = [table::text(""), numeric("now"), numeric("before"), numeric("change")];
    let mut out = table::table(&columns, key_figures(&current, &previous));
    if answer.top_events.is_empty() {
        return out;
    }
    let value = |figure: &Option<Figure>| figure.as_ref().map_or(0.0, |figure| figure.value);
    let shown = |value: &Option<Figure>| value.as_ref().map(figure).unwrap_or_default();
    let greatest = answer.top_events.iter().map(|top| value(&top.events)).fold(0.0, f64::max);
    let mut columns = vec![table::text("event"), numeric("events"), numeric("users")];
    columns.extend(with_chart.then(|| table::text("")));
    let rows = answer.top_events.iter().map(|top| {
        let mut row = vec![top.event_name.clone(), shown(&top.events), shown(&top.unique_users)];
        row.extend(with_chart.then(|| paint(ACCENT, chart::bar(value(&top.events), greatest, BAR_COLUMNS))));
        row
    });
    out.push('\n');
    out.push_str(&table::table(&columns, rows));
    out
}

fn key_figures(current: &SummaryFigures, previous: &SummaryFigures) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = [
        ("events", &current.events, &previous.events),
        ("users", &current.unique_users, &previous.unique_users),
        ("sessions", &current.sessions, &previous.sessions),
    ]
    .into_iter()
    .map(|(name, now, before)| {
        let (now, before) = (now.clone().unwrap_or_default(), before.clone().unwrap_or_default());
        vec![name.to_owned(), figure(&now), figure(&before), change_of(now.value, before.value)]
    })
    .collect();
    for amount in &current.revenue {
        let before = previous.revenue.iter().find(|before| before.currency_code == amount.currency_code);
        let value =
            |money: &weir_proto::google::r#type::Money| money.units as f64 + f64::from(money.nanos) / 1e9;
        rows.push(vec![
            format!("revenue {}", amount.currency_code),
            money::display(amount),
            before.map(money::display).unwrap_or_default(),
            change_of(value(amount), before.map_or(0.0, value)),
        ]);
    }
    rows
}

fn change_of(now: f64, before: f64) -> String {
    if before == 0.0 {
        return String::new();
    }
    let percent = (now - before) / before.abs() * 100.0;
    match percent {
        0.0 => "0.0 %".to_owned(),
        percent => paint(if percent < 0.0 { BAD } else { GOOD }, format_args!("{percent:+.1} %")),
    }
}

/// One series as a chart above its buckets; several as lines.
pub(super) fn time_series(answer: &QueryTimeSeriesResponse, frame: &Frame, with_chart: bool) -> String {
    if answer.series.iter().all(|series| series.points.is_empty()) {
        return "no events in this range\n".to_owned();
    }
    let mut out = match answer.series.as_slice() {
        [only] if frame.group_by.is_empty() => single(only, answer, frame, with_chart),
        all => grouped_series(all, answer, frame, with_chart),
    };
    if answer.omitted_series > 0 {
        out.push_str(&format!("and {} more\n", grouped(answer.omitted_series)));
    }
    out
}

/// One series: a chart of its first measure above a row for each bucket.
fn single(series: &TimeSeries, answer: &QueryTimeSeriesResponse, frame: &Frame, with_chart: bool) -> String {
    let (interval, compared) = (answer.interval(), answer.previous_range.is_some());
    let mut out = String::new();
    let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else { return out };
    if with_chart {
        let values: Vec<f64> = series
            .points
            .iter()
            .map(|point| point.figures.first().map_or(0.0, |figure| figure.value))
            .collect();
        let labels = (bucket(first, interval, frame), bucket(last, interval, frame));
        out.push_str(&chart::columns(&values, (&labels.0, &labels.1), width(), CHART_LINES));
        out.push('\n');
    }
    let columns: Vec<Column> =
        [table::text("time")].into_iter().chain(names(frame, compared, true).map(numeric)).collect();
    let row = |point: &TimeSeriesPoint| {
        let figures = shown_figures(&point.figures, &point.previous_figures, compared);
        [bucket(point, interval, frame)].into_iter().chain(figures).collect()
    };
    let totals = shown_figures(&series.totals, &series.previous_totals, compared);
    // Rolling buckets reach back before the range, its totals don't: they may be less than a row.
    let name = if frame.rolling { "range alone" } else { "total" };
    let total = [name.to_owned()].into_iter().chain(totals).collect();
    let is_listed = |point: &&TimeSeriesPoint| {
        frame.with_empty || point.figures.iter().any(|figure| !figure.empty && figure.value != 0.0)
    };
    out.push_str(&table::table(&columns, series.points.iter().filter(is_listed).map(row).chain([total])));
    out
}

/// Several series: with a chart one line each, its shape beside its totals; else every bucket.
fn grouped_series(
    all: &[TimeSeries],
    answer: &QueryTimeSeriesResponse,
    frame: &Frame,
    with_chart: bool,
) -> String {
    let (interval, compared) = (answer.interval(), answer.previous_range.is_some());
    let group =
        |series: &TimeSeries| series.group.iter().map(|value| cell(value, series.other)).collect::<Vec<_>>();
    let mut columns: Vec<Column> = frame.group_by.iter().map(table::text).collect();
    let rows: Vec<Vec<String>> = if with_chart {
        columns.extend(names(frame, compared, true).map(numeric));
        columns.push(table::text(""));
        let row = |series: &TimeSeries| {
            let values: Vec<f64> = series
                .points
                .iter()
                .map(|point| point.figures.first().map_or(0.0, |figure| figure.value))
                .collect();
            let shape = paint(ACCENT, chart::sparkline(&values, width() / 2));
            let totals = shown_figures(&series.totals, &series.previous_totals, compared);
            group(series).into_iter().chain(totals).chain([shape]).collect()
        };
        all.iter().map(row).collect()
    } else {
        columns.push(table::text("time"));
        columns.extend(names(frame, compared, true).map(numeric));
        let rows = |series: &TimeSeries| -> Vec<Vec<String>> {
            let row = |point: &TimeSeriesPoint| {
                let time = bucket(point, interval, frame);
                let figures = shown_figures(&point.figures, &point.previous_figures, compared);
                group(series).into_iter().chain([time]).chain(figures).collect()
            };
            series.points.iter().map(row).collect()
        };
        all.iter().flat_map(rows).collect()
    };
    table::table(&columns, rows)
}

/// The bucket by the zone's clock, as precise as the interval.
fn bucket(point: &TimeSeriesPoint, interval: Interval, frame: &Frame) -> String {
    let start = point.start_time.as_ref().map(moment::from_proto).unwrap_or_default();
    let pattern = match interval {
        Interval::Day | Interval::Week => "%Y-%m-%d",
        Interval::Month | Interval::Quarter => "%Y-%m",
        Interval::Year => "%Y",
        Interval::Unspecified | Interval::Second => "%Y-%m-%d %H:%M:%S",
        Interval::Minute | Interval::QuarterHour | Interval::Hour => "%Y-%m-%d %H:%M",
    };
    start.to_zoned(frame.zone.clone()).strftime(pattern).to_string()
}

/// A row for each combination of values.
pub(super) fn breakdown(answer: &QueryBreakdownResponse, frame: &Frame, with_chart: bool) -> String {
    if answer.rows.is_empty() {
        return "no events in this range\n".to_owned();
    }
    let mut columns: Vec<Column> = frame.group_by.iter().map(table::text).collect();
    let compared = answer.previous_range.is_some();
    columns.extend(names(frame, compared, true).map(numeric));
    columns.extend(with_chart.then(|| table::text("")));
    let first = |row: &BreakdownRow| row.figures.first().map_or(0.0, |figure| figure.value);
    let greatest = answer.rows.iter().map(first).fold(0.0, f64::max);
    let row = |row: &BreakdownRow| {
        let group = row.group.iter().map(|value| cell(value, row.other));
        let bar = with_chart.then(|| paint(ACCENT, chart::bar(first(row), greatest, BAR_COLUMNS)));
        let figures = shown_figures(&row.figures, &row.previous_figures, compared);
        group.chain(figures).chain(bar).collect::<Vec<_>>()
    };
    // The name of the last row goes where there is a field to name.
    let total = ["total".to_owned()]
        .into_iter()
        .chain(frame.group_by.iter().skip(1).map(|_| String::new()))
        .chain(shown_figures(&answer.totals, &answer.previous_totals, compared))
        .collect();
    let mut out = table::table(&columns, answer.rows.iter().map(row).chain([total]));
    if answer.omitted_rows > 0 {
        out.push_str(&format!("and {} more\n", grouped(answer.omitted_rows)));
    }
    out
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use prost_types::value::Kind;
    use weir_proto::analytics::v1::{EventCount, TimeRange, watch_query_response::Result as Answer};

    use super::super::{csv, stripped, text};
    use super::*;

    fn exact(value: f64) -> Figure {
        Figure { value, exact: true, ..Figure::default() }
    }

    fn frame() -> Frame {
        Frame { names: vec!["events".into()], group_by: vec!["platform".into()], ..Frame::new(TimeZone::UTC) }
    }

    fn named(name: &str) -> Value {
        Value { kind: Some(Kind::StringValue(name.into())) }
    }

    fn broken_down() -> Answer {
        let row = |group: Value, other: bool, value: f64| BreakdownRow {
            group: vec![group],
            other,
            figures: vec![exact(value)],
            previous_figures: Vec::new(),
        };
        Answer::Breakdown(QueryBreakdownResponse {
            rows: vec![
                row(named("mobile, \"app\""), false, 20_000.0),
                row(Value { kind: Some(Kind::NullValue(0)) }, false, 10_000.0),
                row(named("(other)"), true, 5.0),
            ],
            omitted_rows: 3,
            totals: vec![exact(30_005.0)],
            ..QueryBreakdownResponse::default()
        })
    }

    fn series() -> Answer {
        let point = |hour: i64, value: f64| TimeSeriesPoint {
            start_time: Some(prost_types::Timestamp { seconds: hour * 3600, nanos: 0 }),
            local_time: format!("1970-01-01T{hour:02}:00:00+00:00"),
            figures: vec![exact(value)],
            previous_figures: Vec::new(),
        };
        Answer::TimeSeries(QueryTimeSeriesResponse {
            series: vec![TimeSeries {
                points: vec![point(0, 1.0), point(1, 4.0)],
                totals: vec![exact(5.0)],
                ..TimeSeries::default()
            }],
            interval: Interval::Hour.into(),
            ..QueryTimeSeriesResponse::default()
        })
    }

    #[test]
    fn a_breakdown_is_a_table_with_bars() {
        insta::assert_snapshot!(stripped(&text(&broken_down(), &frame(), true)), @r#"
        platform       events
        mobile, "app"  20,000  ████████████████████████
        (none)         10,000  ████████████
        (other)             5  ▏
        total          30,005
        and 3 more
        "#);
        insta::assert_snapshot!(csv(&broken_down(), &frame()), @r#"
        platform,events
        "mobile, ""app""",20000
        ,10000
        (other),5
        "#);
    }

    #[test]
    fn a_series_is_a_chart_above_its_buckets() {
        let frame = Frame { group_by: Vec::new(), ..frame() };
        insta::assert_snapshot!(stripped(&text(&series(), &frame, false)), @r"
        time              events
        1970-01-01 00:00       1
        1970-01-01 01:00       4
        total                  5
        ");
        insta::assert_snapshot!(csv(&series(), &frame), @r"
        time,events
        1970-01-01T00:00:00+00:00,1
        1970-01-01T01:00:00+00:00,4
        ");
        assert!(text(&series(), &frame, true).contains('█'));
    }

    #[test]
    fn rows_are_compared_with_those_before() {
        let answer = Answer::Breakdown(QueryBreakdownResponse {
            rows: vec![
                BreakdownRow {
                    group: vec![named("ios")],
                    figures: vec![exact(30.0)],
                    previous_figures: vec![exact(20.0)],
                    ..BreakdownRow::default()
                },
                BreakdownRow {
                    group: vec![named("web")],
                    figures: vec![exact(5.0)],
                    ..BreakdownRow::default()
                },
            ],
            totals: vec![exact(35.0)],
            previous_totals: vec![exact(70.0)],
            previous_range: Some(TimeRange::default()),
            ..QueryBreakdownResponse::default()
        });
        insta::assert_snapshot!(stripped(&text(&answer, &frame(), false)), @r"
        platform  events  before   change
        ios           30      20  +50.0 %
        web            5
        total         35      70  -50.0 %
        ");
        insta::assert_snapshot!(csv(&answer, &frame()), @r"
        platform,events,events before
        ios,30,20
        web,5,
        ");
    }

    #[test]
    fn rows_of_rolling_buckets_are_not_said_to_make_up_the_total() {
        let frame = Frame { group_by: Vec::new(), rolling: true, ..frame() };
        let shown = stripped(&text(&series(), &frame, false));
        assert!(shown.contains("range alone") && !shown.contains("total"), "{shown}");
    }

    #[test]
    fn a_summary_compares() {
        let figures = |events: f64| SummaryFigures {
            events: Some(exact(events)),
            unique_users: Some(exact(events / 10.0)),
            sessions: Some(exact(events / 5.0)),
            revenue: vec![money::amount("12.5", "EUR").unwrap()],
        };
        let answer = Answer::Summary(GetSummaryResponse {
            current: Some(figures(1500.0)),
            previous: Some(figures(1000.0)),
            top_events: vec![EventCount {
                event_name: "view".into(),
                events: Some(exact(1500.0)),
                unique_users: Some(exact(150.0)),
            }],
            info: None,
        });
        insta::assert_snapshot!(stripped(&text(&answer, &frame(), false)), @r"
                       now  before   change
        events       1,500   1,000  +50.0 %
        users          150     100  +50.0 %
        sessions       300     200  +50.0 %
        revenue EUR  12.50   12.50    0.0 %

        event  events  users
        view    1,500    150
        ");
    }

    #[test]
    fn nothing_is_said_in_words() {
        let none = Answer::Breakdown(QueryBreakdownResponse::default());
        assert_eq!(text(&none, &frame(), true), "no events in this range\n");
    }
}
