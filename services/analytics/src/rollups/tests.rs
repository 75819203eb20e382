//! Answers against straightforward counting.

mod agreement;
mod exactness;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use proptest::prelude::*;
use weir_proto::{
    analytics::v1::{self as pb, condition::Operator, filter::Expression, measure::Kind},
    time::micros,
};

use super::*;
use crate::{
    question::Measures,
    testing::{self, DAY, Event, HOUR, SECOND},
};

const MAX_ROWS: usize = 100_000;
const ZONES: [&str; 4] = ["UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe"];
/// "Now" of the tests: a few days after the clocks change in New York, at Lord Howe, and at no special time.
const NOWS: [i64; 3] = [1_710_300_000 * SECOND, 1_712_700_000 * SECOND, 1_717_243_210 * SECOND];

fn event(now: i64) -> impl Strategy<Value = Event> {
    let age = prop_oneof![3 => 0..HOUR, 2 => 0..2 * DAY, 3 => 0..40 * DAY];
    let delay = prop_oneof![4 => Just(0), 1 => 0..3 * DAY];
    let values = (
        prop::sample::select(vec!["page_view", "purchase", "sign_up"]),
        0..30u64,
        prop::option::of(0..20u64),
        prop::option::of(prop::sample::select(vec!["web", "ios", "android"])),
        prop::option::of(prop::sample::select(vec!["free", "pro", "10"])),
        prop::option::of((-100..1000i32).prop_map(|n| f64::from(n) / 4.0)),
        prop::option::of(0..100_000i64),
    );
    (age, delay, values).prop_map(
        move |(age, delay, (name, user, session, platform, plan, price, revenue))| {
            let time = now - age;
            Event {
                time,
                append: (time + delay).min(now),
                name,
                user,
                session,
                platform,
                plan,
                price,
                revenue,
                ..Event::at(time)
            }
        },
    )
}

/// Events in the order of the log, in one partition or the other by their user.
fn views(events: &[Event], now: i64, parts: &[PartRequest]) -> Vec<View> {
    let mut events = events.to_vec();
    events.sort_by_key(|event| event.append);
    let request = crate::materialise::ViewRequest {
        project: weir_runtime::auth::ProjectId::default_project(),
        parts: parts.to_vec(),
    };
    (0..2)
        .map(|partition| {
            let own: Vec<_> = events.iter().filter(|event| event.user % 2 == partition).cloned().collect();
            let mut state = testing::state_of(&own, 7);
            let mut writer = testing::Writer::new(state.chain().next_source_offset);
            testing::apply(&mut state, now, &writer.claim());
            testing::apply(&mut state, now, &writer.heartbeat(now));
            state.view(&request).expect("nothing has expired since the plan")
        })
        .collect()
}

fn plan(question: &Counts, now: i64) -> Result<Plan, Error> {
    let catalog = testing::catalog();
    Plan::of(
        question,
        &Setting { catalog: &catalog, now, whole: catalog.retention().whole(now), max_rows: MAX_ROWS },
    )
}

fn answer(question: &Counts, events: &[Event], now: i64) -> Result<Answer, Error> {
    let plan = plan(question, now)?;
    Ok(plan.answer(&views(events, now, plan.parts()), &|| Ok(()))?.0)
}

fn time_series(
    request: &pb::QueryTimeSeriesRequest,
    events: &[Event],
    now: i64,
) -> pb::QueryTimeSeriesResponse {
    let question = Counts::TimeSeries(Measures::series(request, MAX_ROWS).expect("a valid request"));
    match answer(&question, events, now).expect("an answer") {
        Answer::TimeSeries(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn breakdown(request: &pb::QueryBreakdownRequest, events: &[Event], now: i64) -> pb::QueryBreakdownResponse {
    let question = Counts::Breakdown(Measures::breakdown(request, MAX_ROWS).expect("a valid request"));
    match answer(&question, events, now).expect("an answer") {
        Answer::Breakdown(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn fixed(range: &Range<i64>) -> Option<pb::TimeRange> {
    let (start, end) = (timestamp(range.start), timestamp(range.end));
    Some(pb::TimeRange { start_time: Some(start), end_time: Some(end), last: None })
}

fn last(micros: i64) -> Option<pb::TimeRange> {
    let nanos = i32::try_from(micros % SECOND * 1000).unwrap();
    let last = prost_types::Duration { seconds: micros / SECOND, nanos };
    Some(pb::TimeRange { last: Some(last), ..pb::TimeRange::default() })
}

fn measures() -> Vec<pb::Measure> {
    let measure = |kind: Kind| pb::Measure { kind: kind.into(), ..pb::Measure::default() };
    let priced = |kind: Kind| pb::Measure { property: "price".to_owned(), ..measure(kind) };
    vec![
        measure(Kind::Events),
        measure(Kind::UniqueUsers),
        measure(Kind::Sessions),
        pb::Measure { currency: "EUR".to_owned(), ..measure(Kind::Revenue) },
        priced(Kind::Sum),
        priced(Kind::Min),
        priced(Kind::Max),
        priced(Kind::Average),
        pb::Measure { quantile: 0.5, ..priced(Kind::Quantile) },
    ]
}

/// The same measures, counted one by one. `None`: there is no number.
fn counted(events: &[&Event]) -> Vec<Option<f64>> {
    let users: BTreeSet<_> = events.iter().map(|event| event.user).collect();
    let sessions: BTreeSet<_> = events.iter().filter_map(|event| event.session).collect();
    let cents: i64 = events.iter().filter_map(|event| event.revenue).sum();
    let mut prices: Vec<f64> = events.iter().filter_map(|event| event.price).collect();
    prices.sort_by(f64::total_cmp);
    let sum: f64 = prices.iter().sum();
    let median = (!prices.is_empty()).then(|| prices[prices.len().div_ceil(2) - 1]);
    vec![
        Some(events.len() as f64),
        Some(users.len() as f64),
        Some(sessions.len() as f64),
        Some((cents / 100) as f64 + (cents % 100) as f64 / 100.0),
        Some(sum),
        prices.first().copied(),
        prices.last().copied(),
        (!prices.is_empty()).then(|| sum / prices.len() as f64),
        median,
    ]
}

fn assert_figures(figures: &[pb::Figure], events: &[&Event]) {
    let expected = counted(events);
    assert_eq!(figures.len(), expected.len());
    for (index, (figure, expected)) in figures.iter().zip(expected).enumerate() {
        assert_eq!(figure.empty, expected.is_none(), "measure {index}: {figure:?} for {expected:?}");
        if let Some(expected) = expected {
            let near = (figure.value - expected).abs() <= 1e-9 * expected.abs().max(1.0);
            if figure.exact {
                assert!(near, "measure {index}: {figure:?} for {expected}");
            } else {
                assert!(
                    index == 8,
                    "only large quantiles are not exact here, but measure {index} is {figure:?}"
                );
                assert!(
                    figure.lower_bound <= expected && expected <= figure.upper_bound,
                    "{figure:?} for {expected}"
                );
            }
        }
    }
}

/// When the local day, week, month, quarter or year of a moment began, by the calendar of `jiff` alone.
fn bucket_start(interval: pb::Interval, zone: &TimeZone, micros: i64) -> i64 {
    let local = Timestamp::from_microsecond(micros).unwrap().to_zoned(zone.clone());
    let date = match interval {
        pb::Interval::Day => local.date(),
        pb::Interval::Week => local.date() - i64::from(local.weekday().to_monday_zero_offset()).days(),
        pb::Interval::Month => local.date().first_of_month(),
        pb::Interval::Quarter => {
            let months = i64::from((local.date().month() - 1) % 3);
            (local.date().first_of_month() - months.months()).first_of_month()
        }
        pb::Interval::Year => local.date().first_of_year(),
        other => panic!("no calendar interval: {other:?}"),
    };
    date.to_zoned(zone.clone()).unwrap().timestamp().as_microsecond()
}

fn text(value: Option<&str>) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = value.map_or(Kind::NullValue(0), |text| Kind::StringValue(text.to_owned()));
    prost_types::Value { kind: Some(kind) }
}

fn condition(field: &str, operator: Operator, values: Vec<prost_types::Value>) -> pb::Filter {
    let condition = pb::Condition { field: field.to_owned(), operator: operator.into(), values };
    pb::Filter { expression: Some(Expression::Condition(condition)) }
}

/// A filter and the same in plain code.
type Filtering = (pb::Filter, fn(&Event) -> bool);

fn filters() -> Vec<Filtering> {
    let all = |filters: Vec<pb::Filter>| pb::Filter {
        expression: Some(Expression::AllOf(pb::FilterList { filters })),
    };
    let any = |filters: Vec<pb::Filter>| pb::Filter {
        expression: Some(Expression::AnyOf(pb::FilterList { filters })),
    };
    let not = |filter: pb::Filter| pb::Filter { expression: Some(Expression::Not(Box::new(filter))) };
    let web = || condition("platform", Operator::In, vec![text(Some("web"))]);
    let number = |n: f64| prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(n)) };
    vec![
        (web(), |e| e.platform == Some("web")),
        (not(web()), |e| e.platform != Some("web")),
        (condition("platform", Operator::In, vec![text(None), text(Some("ios"))]), |e| {
            matches!(e.platform, None | Some("ios"))
        }),
        (condition("plan", Operator::Exists, vec![]), |e| e.plan.is_some()),
        (condition("platform", Operator::Contains, vec![text(Some("o"))]), |e| {
            e.platform.is_some_and(|p| p.contains('o'))
        }),
        (condition("platform", Operator::Matches, vec![text(Some("^(web|ios)$"))]), |e| {
            matches!(e.platform, Some("web" | "ios"))
        }),
        (condition("plan", Operator::GreaterOrEqual, vec![number(10.0)]), |e| e.plan == Some("10")),
        (condition("plan", Operator::In, vec![number(10.0)]), |e| e.plan == Some("10")),
        (all(vec![any(vec![web(), not(condition("plan", Operator::Exists, vec![]))]), not(web())]), |e| {
            e.platform != Some("web") && e.plan.is_none()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn local_days_weeks_and_months_are_counted_exactly(
        (now, events) in prop::sample::select(NOWS.to_vec())
            .prop_flat_map(|now| (Just(now), prop::collection::vec(event(now), 0..150))),
        zone in prop::sample::select(ZONES.to_vec()),
        interval in prop::sample::select(vec![pb::Interval::Day, pb::Interval::Week, pb::Interval::Month, pb::Interval::Quarter, pb::Interval::Year]),
        quarters in (0..40 * 96i64, 1..40 * 96i64),
        fill_empty: bool,
    ) {
        let quarter = HOUR / 4;
        let start = (now - 41 * DAY).div_euclid(quarter) * quarter + quarters.0 * quarter;
        let range = start..start + quarters.1 * quarter;
        let request = pb::QueryTimeSeriesRequest {
            time_range: fixed(&range),
            interval: interval.into(),
            time_zone: zone.to_owned(),
            measures: measures(),
            fill_empty,
            ..Default::default()
        };
        let response = time_series(&request, &events, now);
        let zone = TimeZone::get(zone).unwrap();
        let inside: Vec<_> = events.iter().filter(|event| range.contains(&event.time)).collect();
        let mut expected: BTreeMap<i64, Vec<&Event>> = BTreeMap::new();
        for event in &inside {
            expected.entry(bucket_start(interval, &zone, event.time)).or_default().push(event);
        }
        prop_assert_eq!(response.series.len(), 1);
        let series = &response.series[0];
        assert_figures(&series.totals, &inside);
        let mut starts = Vec::new();
        for point in &series.points {
            let start = micros(point.start_time.as_ref().unwrap());
            starts.push(start);
            let local = Timestamp::from_microsecond(start).unwrap().to_zoned(zone.clone());
            let offset = local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
            prop_assert_eq!(&point.local_time, &offset);
            match expected.remove(&start) {
                Some(events) => assert_figures(&point.figures, &events),
                None => {
                    prop_assert!(fill_empty, "a bucket without events at {}", point.local_time);
                    assert_figures(&point.figures, &[]);
                }
            }
        }
        prop_assert!(expected.is_empty(), "buckets are missing: {expected:?}");
        prop_assert!(starts.is_sorted_by(|a, b| a < b));
        let late = inside.iter().filter(|event| event.append - event.time > 60 * SECOND).count();
        prop_assert_eq!(response.info.unwrap().late_events, late as u64);
    }

    #[test]
    fn breakdowns_and_filters_agree_with_counting(
        events in prop::collection::vec(event(NOWS[2]), 0..150),
        group_by in prop::sample::select(vec![vec!["platform"], vec!["plan"], vec!["plan", "platform"], vec!["event_name"]]),
        filter in prop::option::of(prop::sample::select((0..filters().len()).collect::<Vec<_>>())),
        back in 1..40 * 24i64,
    ) {
        let now = NOWS[2];
        // A question by event name is about a rollup that has no plan.
        prop_assume!(group_by != ["event_name"] || filter.is_none_or(|index| ![3, 6, 7, 8].contains(&index)));
        let filter = filter.map(|index| filters().swap_remove(index));
        let request = pb::QueryBreakdownRequest {
            time_range: last(back * HOUR),
            group_by: group_by.iter().map(|field| (*field).to_owned()).collect(),
            measures: measures(),
            filter: filter.as_ref().map(|(filter, _)| filter.clone()),
            ..Default::default()
        };
        let response = breakdown(&request, &events, now);
        let info = response.info.as_ref().unwrap();
        let range = micros(info.start_time.as_ref().unwrap())..micros(info.end_time.as_ref().unwrap());
        prop_assert!(range.end - range.start == back * HOUR && range.contains(&now));
        let passing: Vec<_> = events
            .iter()
            .filter(|event| range.contains(&event.time) && filter.as_ref().is_none_or(|(_, passes)| passes(event)))
            .collect();
        let mut expected: BTreeMap<Vec<Option<&str>>, Vec<&Event>> = BTreeMap::new();
        for event in &passing {
            let values = group_by.iter().map(|field| match *field {
                "platform" => event.platform,
                "plan" => event.plan,
                _ => Some(event.name),
            });
            expected.entry(values.collect()).or_default().push(event);
        }
        // Greatest first; equal ones by their values, where none comes first.
        let mut expected: Vec<_> = expected.into_iter().collect();
        expected.sort_by_key(|(_, events)| std::cmp::Reverse(events.len()));
        prop_assert_eq!(response.rows.len(), expected.len());
        for (row, (values, events)) in response.rows.iter().zip(&expected) {
            let values: Vec<_> = values.iter().map(|value| text(*value)).collect();
            prop_assert_eq!(&row.group, &values);
            assert_figures(&row.figures, events);
        }
        assert_figures(&response.totals, &passing);
    }

    #[test]
    fn seconds_and_minutes_are_told_while_they_are_kept(
        events in prop::collection::vec(event(NOWS[2]), 0..100),
        (interval, width, back) in prop_oneof![
            (Just(pb::Interval::Second), Just(SECOND), 1..=HOUR),
            (Just(pb::Interval::Minute), Just(60 * SECOND), 1..=2 * DAY),
        ],
    ) {
        let now = NOWS[2];
        let request = pb::QueryTimeSeriesRequest {
            time_range: last(back / SECOND * SECOND + SECOND.min(back)),
            interval: interval.into(),
            measures: measures(),
            ..Default::default()
        };
        prop_assume!(back / SECOND * SECOND + SECOND.min(back) <= if width == SECOND { HOUR } else { 2 * DAY });
        let response = time_series(&request, &events, now);
        let info = response.info.as_ref().unwrap();
        let range = micros(info.start_time.as_ref().unwrap())..micros(info.end_time.as_ref().unwrap());
        let mut expected: BTreeMap<i64, Vec<&Event>> = BTreeMap::new();
        for event in events.iter().filter(|event| range.contains(&event.time)) {
            expected.entry(event.time.div_euclid(width) * width).or_default().push(event);
        }
        let points = &response.series[0].points;
        prop_assert_eq!(points.len(), expected.len());
        for (point, (start, events)) in points.iter().zip(&expected) {
            prop_assert_eq!(point.start_time.as_ref(), Some(&timestamp(*start)));
            assert_figures(&point.figures, events);
        }
    }
}

#[test]
fn a_summary_compares_with_the_range_before() {
    let now = NOWS[2];
    let at = |ago: i64, user: u64| Event { user, ..Event::at(now - ago) };
    let buy = |ago: i64, user: u64| Event { name: "purchase", revenue: Some(1999), ..at(ago, user) };
    let events = [
        at(HOUR, 1),
        at(2 * HOUR, 2),
        buy(3 * HOUR, 2),
        at(30 * HOUR, 1),
        buy(31 * HOUR, 3),
        at(60 * HOUR, 4),
    ];
    let question = Counts::Summary(summary::Summary::parse(&pb::GetSummaryRequest::default()).unwrap());
    let Ok(Answer::Summary(answer)) = answer(&question, &events, now) else { panic!("no summary") };
    let (current, previous) = (answer.current.unwrap(), answer.previous.unwrap());
    assert_eq!(current.events.unwrap().value, 3.0);
    assert_eq!(current.unique_users.unwrap().value, 2.0);
    assert_eq!(current.revenue[0].units, 19);
    assert_eq!(current.revenue[0].nanos, 990_000_000);
    assert_eq!(previous.events.unwrap().value, 2.0);
    let top: Vec<_> = answer
        .top_events
        .iter()
        .map(|top| {
            (
                top.event_name.as_str(),
                top.events.as_ref().unwrap().value,
                top.unique_users.as_ref().unwrap().value,
            )
        })
        .collect();
    assert_eq!(top, [("page_view", 2.0, 2.0), ("purchase", 1.0, 1.0)]);
}

#[test]
fn the_greatest_series_are_kept_and_the_others_counted() {
    let now = NOWS[2];
    let on = |platform: &'static str| Event { platform: Some(platform), ..Event::at(now - HOUR) };
    let events = [on("web"), on("ios"), on("ios"), on("android"), on("android"), on("android")];
    let request = pb::QueryTimeSeriesRequest {
        time_range: last(2 * HOUR),
        group_by: vec!["platform".to_owned()],
        max_series: 2,
        ..Default::default()
    };
    let response = time_series(&request, &events, now);
    let groups: Vec<_> = response.series.iter().map(|series| series.group.clone()).collect();
    assert_eq!(groups, [[text(Some("android"))], [text(Some("ios"))]]);
    assert_eq!(response.omitted_series, 1);
    assert_eq!(response.interval(), pb::Interval::QuarterHour, "2 hours of minutes would be 120 buckets");
}

#[test]
fn a_question_that_no_rollup_covers_says_what_to_configure() {
    let ask = |group_by: &[&str], property: &str| {
        let request = pb::QueryBreakdownRequest {
            group_by: group_by.iter().map(|field| (*field).to_owned()).collect(),
            measures: match property {
                "" => vec![],
                property => {
                    vec![pb::Measure {
                        kind: Kind::Sum.into(),
                        property: property.to_owned(),
                        ..Default::default()
                    }]
                }
            },
            ..Default::default()
        };
        let question = Counts::Breakdown(Measures::breakdown(&request, MAX_ROWS).unwrap());
        plan(&question, NOWS[2]).unwrap_err()
    };
    for (error, hints) in [
        (
            ask(&["platfrom"], ""),
            &["did you mean `properties.platform`", "dimensions = [\"platform\", \"platfrom\"]"][..],
        ),
        (ask(&["event_name", "plan"], ""), &["dimensions = [\"platform\", \"plan\"]"]),
        (
            ask(&["plan", "channel", "event_name"], ""),
            &["`properties.channel`", "[[rollups.definitions]]", "[\"event_name\", \"channel\", \"plan\"]"],
        ),
        (
            ask(&["platform"], "prize"),
            &["did you mean `properties.price`", "numeric = [\"price\", \"prize\"]"],
        ),
        (ask(&["a", "b", "c", "d", "event_name"], ""), &["at most 4"]),
    ] {
        let Error::NotCovered { message, .. } = &error else { panic!("{error:?}") };
        for hint in hints {
            assert!(message.contains(hint), "`{hint}` is missing in: {message}");
        }
        let status = tonic::Status::from(error);
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
        assert_eq!(info.reason, "ROLLUP_MISSING");
    }
}

#[test]
fn edges_finer_than_what_is_kept_are_refused_with_the_next_round_times() {
    let now = NOWS[2];
    let old = 1_709_287_633 * SECOND; // 2024-03-01T10:07:13Z
    let request = pb::QueryBreakdownRequest {
        time_range: fixed(&(old..now)),
        group_by: vec!["platform".to_owned()],
        ..Default::default()
    };
    let question = Counts::Breakdown(Measures::breakdown(&request, MAX_ROWS).unwrap());
    let message = plan(&question, now).unwrap_err().to_string();
    for part in [
        "2024-03-01T10:07:13",
        "15 minutes",
        "2024-03-01T10:00:00",
        "2024-03-01T10:15:00",
        "seconds are kept since 2024-06-01T11:00:10",
    ] {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
    let seconds = pb::QueryTimeSeriesRequest {
        time_range: last(3 * HOUR),
        interval: pb::Interval::Second.into(),
        ..Default::default()
    };
    let question = Counts::TimeSeries(Measures::series(&seconds, MAX_ROWS).unwrap());
    assert!(matches!(plan(&question, now), Err(Error::TooFine(_))));
}

#[test]
fn every_broken_rule_of_a_request_is_named() {
    let request = pb::QueryTimeSeriesRequest {
        time_zone: "Mars/Olympus".to_owned(),
        group_by: vec!["platform".to_owned(), "properties.platform".to_owned(), "context.shoe".to_owned()],
        measures: vec![pb::Measure { kind: Kind::Sum.into(), ..Default::default() }],
        filter: Some(pb::Filter {
            expression: Some(Expression::AnyOf(pb::FilterList {
                filters: vec![
                    condition("plan", Operator::Matches, vec![text(Some("("))]),
                    condition("plan", Operator::Exists, vec![text(None)]),
                    condition("plan", Operator::Less, vec![text(Some("ten"))]),
                ],
            })),
        }),
        time_range: Some(pb::TimeRange { end_time: Some(timestamp(NOWS[0])), ..Default::default() }),
        ..Default::default()
    };
    let found = Measures::series(&request, MAX_ROWS).unwrap_err();
    let fields: Vec<_> = found.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "time_zone",
            "time_range.start_time",
            "measures[0].property",
            "filter.any_of.filters[0].condition.values",
            "filter.any_of.filters[1].condition.values",
            "filter.any_of.filters[2].condition.values[0]",
            "group_by[1]",
            "group_by[2]",
        ]
    );
}

#[test]
fn values_beyond_the_limit_make_figures_uncertain_and_say_by_how_much() {
    let now = NOWS[2];
    let mut limits = testing::limits();
    limits.max_values = 2;
    let mut state = crate::materialise::State::new(limits);
    let mut writer = testing::Writer::new(0);
    testing::apply(&mut state, now, &writer.claim());
    let on = |platform: &'static str| Event { platform: Some(platform), ..Event::at(now - HOUR) };
    let events = ["web", "ios", "android", "android", "tv", "web"].map(on);
    for event in &events {
        testing::apply(&mut state, now, &writer.batch(std::slice::from_ref(event)));
    }
    let request = pb::QueryBreakdownRequest {
        time_range: last(2 * HOUR),
        group_by: vec!["platform".to_owned()],
        ..Default::default()
    };
    let answer = |request: &pb::QueryBreakdownRequest| {
        let plan = plan(&Counts::Breakdown(Measures::breakdown(request, MAX_ROWS).unwrap()), now).unwrap();
        let request = crate::materialise::ViewRequest {
            project: weir_runtime::auth::ProjectId::default_project(),
            parts: plan.parts().to_vec(),
        };
        match plan.answer(&[state.view(&request).unwrap()], &|| Ok(())).map(|(answer, _)| answer) {
            Ok(Answer::Breakdown(answer)) => answer,
            other => panic!("{other:?}"),
        }
    };
    let whole = answer(&request);
    let rows: Vec<_> =
        whole.rows.iter().map(|row| (row.group[0].clone(), row.other, row.figures[0].value)).collect();
    assert_eq!(
        rows,
        [
            (text(Some("(other)")), true, 3.0),
            (text(Some("web")), false, 2.0),
            (text(Some("ios")), false, 1.0)
        ]
    );
    let web = &whole.rows[1].figures[0];
    assert!(!web.exact && web.lower_bound == 2.0 && web.upper_bound == 5.0, "{web:?}");
    assert!(whole.totals[0].exact && whole.totals[0].value == 6.0);

    let filter = condition("platform", Operator::In, vec![text(Some("tv")), text(Some("web"))]);
    let filtered = answer(&pb::QueryBreakdownRequest { filter: Some(filter), ..request });
    let total = &filtered.totals[0];
    assert!(total.value == 2.0 && !total.exact && total.upper_bound == 5.0, "{total:?}");
}

#[test]
fn whole_numbers_have_one_text_for_consumers_and_filters() {
    // What the consumer writes for 2^53, the first number beyond those that doubles tell apart.
    let number = 9_007_199_254_740_992.0;
    let events = [Event { plan: Some("9007199254740992"), ..Event::at(NOWS[2] - HOUR) }];
    let number = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(number)) };
    let request = pb::QueryBreakdownRequest {
        time_range: last(2 * HOUR),
        group_by: vec!["platform".to_owned()],
        filter: Some(condition("plan", Operator::In, vec![number])),
        ..Default::default()
    };
    assert_eq!(breakdown(&request, &events, NOWS[2]).totals[0].value, 1.0);
}
