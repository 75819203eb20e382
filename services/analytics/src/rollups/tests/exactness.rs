//! What says that it is exact is, whatever there is too much of; what is not lies within its bounds.
//!
//! The oracle counts the events themselves, one by one, by the values that they have.

use std::sync::LazyLock;

use weir_rollup::money::Currency;

use super::*;
use crate::materialise::State;

/// Values that rollups tell apart in a day.
const MAX_VALUES: usize = 3;

/// Short ones, one that is as long as values may be, and long ones of which two begin alike.
static VALUES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let long = |bytes: usize, end: &str| -> &'static str {
        Box::leak(format!("{}{end}", "x".repeat(bytes)).into_boxed_str())
    };
    vec![
        "a",
        "b",
        "c",
        "d",
        "e",
        long(196, ""),
        long(200, ""),
        long(230, "1"),
        long(230, "2"),
        long(198, "é"),
        long(199, "é"),
    ]
});

/// Three letters that are no currency.
static MADE_UP: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let letters = |n: u32| {
        [n / 676, n / 26 % 26, n % 26].map(|n| char::from(b'A' + n as u8)).iter().collect::<String>()
    };
    let codes = (0..).map(letters).filter(|code| !Currency::parse(code).unwrap().is_listed());
    codes.take(260).map(|code| -> &'static str { Box::leak(code.into_boxed_str()) }).collect()
});

fn any_event(now: i64) -> impl Strategy<Value = Event> {
    let money = prop_oneof![
        4 => Just(None),
        3 => (0..1000i64).prop_map(|units| Some(("USD", units))),
        1 => prop::sample::select(vec![i64::MAX, i64::MAX - 1, -i64::MAX]).prop_map(|units| Some(("USD", units))),
        1 => (0..260usize).prop_map(|n| Some((MADE_UP[n], 1))),
    ];
    let delay = prop_oneof![3 => Just(0), 1 => 0..3 * DAY];
    let value = || prop::option::of(prop::sample::select(VALUES.clone()));
    (0..3 * DAY, delay, 0..40u64, value(), value(), money).prop_map(
        move |(age, delay, user, platform, plan, money)| Event {
            append: (now - age + delay).min(now),
            user,
            platform,
            plan,
            money,
            ..Event::at(now - age)
        },
    )
}

fn value<'e>(event: &'e Event, field: &str) -> Option<&'e str> {
    if field == "platform" { event.platform } else { event.plan }
}

fn view(events: &[Event], now: i64, parts: &[PartRequest]) -> View {
    let mut events = events.to_vec();
    events.sort_by_key(|event| event.append);
    let mut state = State::new(crate::materialise::Limits { max_values: MAX_VALUES, ..testing::limits() });
    let mut writer = testing::Writer::new(0);
    testing::apply(&mut state, now, &writer.claim());
    for events in events.chunks(7) {
        testing::apply(&mut state, now, &writer.batch(events));
    }
    testing::apply(&mut state, now, &writer.heartbeat(now));
    let request = crate::materialise::ViewRequest {
        project: weir_runtime::auth::ProjectId::default_project(),
        parts: parts.to_vec(),
    };
    state.view(&request).expect("nothing has expired since the plan")
}

/// Events, users and dollars.
fn asked() -> Vec<pb::Measure> {
    let measure = |kind: Kind| pb::Measure { kind: kind.into(), ..pb::Measure::default() };
    let dollars = pb::Measure { currency: "USD".to_owned(), ..measure(Kind::Revenue) };
    vec![measure(Kind::Events), measure(Kind::UniqueUsers), dollars]
}

/// The same, counted one by one: the amount in billionths of a dollar.
fn oracle(events: &[&Event]) -> (f64, f64, i128) {
    let users: BTreeSet<_> = events.iter().map(|event| event.user).collect();
    let dollars = events.iter().filter_map(|event| event.money.filter(|(code, _)| *code == "USD"));
    let nanos = dollars.map(|(_, units)| i128::from(units) * 1_000_000_000).sum();
    (events.len() as f64, users.len() as f64, nanos)
}

/// Exact figures are those of these events; others are within their bounds.
fn assert_right(figures: &[pb::Figure], events: &[&Event]) {
    let (count, users, nanos) = oracle(events);
    let units = (nanos / 1_000_000_000) as f64;
    for (figure, right) in figures.iter().zip([count, users, units]) {
        assert!((figure.lower_bound..=figure.upper_bound).contains(&right), "{figure:?} for {right}");
        if figure.exact {
            assert_eq!((figure.value, figure.lower_bound, figure.upper_bound), (right, right, right));
        }
    }
    if figures[2].exact {
        let money = figures[2].money.as_ref().expect("revenue has an amount");
        assert_eq!(i128::from(money.units) * 1_000_000_000 + i128::from(money.nanos), nanos);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn exact_figures_are_exact_and_others_within_their_bounds(
        mut events in prop::collection::vec(any_event(NOWS[2]), 0..120),
        many_currencies in prop::bool::weighted(0.2),
        group_by in prop::sample::select(vec![&["platform"][..], &["plan", "platform"], &["plan"]]),
        filter in prop::option::of(prop::sample::select(VALUES.clone())),
        not: bool,
        hours in 1..3 * 24i64,
    ) {
        let now = NOWS[2];
        if many_currencies {
            events.extend(MADE_UP.iter().map(|code| Event { money: Some((*code, 1)), ..Event::at(now - HOUR / 2) }));
        }
        let wanted = filter.map(|value| condition("plan", Operator::In, vec![text(Some(value))]));
        let wanted = wanted.map(|is| if not { pb::Filter { expression: Some(Expression::Not(Box::new(is))) } } else { is });
        let request = pb::QueryBreakdownRequest {
            time_range: last(hours * HOUR),
            measures: asked(),
            group_by: group_by.iter().map(|field| (*field).to_owned()).collect(),
            filter: wanted.clone(),
            ..Default::default()
        };
        let plan = plan(&Counts::Breakdown(Measures::breakdown(&request, MAX_ROWS).unwrap()), now).unwrap();
        let (answer, flaws) = plan.answer(&[view(&events, now, plan.parts())], &|| Ok(())).unwrap();
        let Answer::Breakdown(answer) = answer else { panic!("a breakdown") };
        let info = answer.info.as_ref().unwrap();
        let range = micros(info.start_time.as_ref().unwrap())..micros(info.end_time.as_ref().unwrap());
        let passes = |event: &Event| filter.is_none_or(|value| (event.plan == Some(value)) != not);
        let inside: Vec<&Event> = events.iter().filter(|event| range.contains(&event.time) && passes(event)).collect();
        assert_right(&answer.totals, &inside);
        let mut by_values: BTreeMap<Vec<Option<&str>>, Vec<&Event>> = BTreeMap::new();
        for event in &inside {
            by_values.entry(group_by.iter().map(|field| value(event, field)).collect()).or_default().push(event);
        }
        prop_assert_eq!(info.exact, flaws.is_empty());
        if info.exact {
            // Not a group is missing, and none is there twice.
            prop_assert_eq!(answer.rows.len(), by_values.len());
            prop_assert!(answer.rows.iter().flat_map(|row| &row.figures).all(|figure| figure.exact));
        }
        for row in &answer.rows {
            let shown: Vec<Option<&str>> = row.group.iter().map(|value| match &value.kind {
                Some(prost_types::value::Kind::StringValue(text)) => Some(text.as_str()),
                _ => None,
            }).collect();
            if row.other || shown.iter().flatten().any(|text| text.ends_with('…')) {
                prop_assert!(row.figures.iter().all(|figure| !figure.exact), "{shown:?} stands for several values");
            } else {
                assert_right(&row.figures, by_values.get(&shown).map_or(&[][..], Vec::as_slice));
            }
        }
    }

    #[test]
    fn buckets_of_a_series_are_no_surer_than_they_are_known(
        events in prop::collection::vec(any_event(NOWS[2]), 0..60),
        filter in prop::sample::select(VALUES.clone()),
        hours in 2..3 * 24i64,
    ) {
        let now = NOWS[2];
        let request = pb::QueryTimeSeriesRequest {
            time_range: last(hours * HOUR),
            interval: pb::Interval::Hour.into(),
            measures: asked(),
            filter: Some(condition("plan", Operator::In, vec![text(Some(filter))])),
            fill_empty: true,
            ..Default::default()
        };
        let plan = plan(&Counts::TimeSeries(Measures::series(&request, MAX_ROWS).unwrap()), now).unwrap();
        let (answer, _) = plan.answer(&[view(&events, now, plan.parts())], &|| Ok(())).unwrap();
        let Answer::TimeSeries(answer) = answer else { panic!("a series") };
        for point in &answer.series[0].points {
            let start = micros(point.start_time.as_ref().unwrap());
            let end = start + HOUR;
            let passes = |event: &&Event| (start..end).contains(&event.time) && event.plan == Some(filter);
            // The range begins inside of the first bucket.
            let from = micros(answer.info.as_ref().unwrap().start_time.as_ref().unwrap());
            let inside: Vec<&Event> = events.iter().filter(passes).filter(|event| event.time >= from).collect();
            assert_right(&point.figures, &inside);
        }
    }
}

#[test]
fn values_that_begin_alike_are_one_row_that_is_not_exact() {
    let now = NOWS[2];
    let long = |end: &str| -> &'static str {
        Box::leak(format!("https://shop.example/{}{end}", "p".repeat(209)).into_boxed_str())
    };
    let on = |platform: &'static str| Event { platform: Some(platform), ..Event::at(now - HOUR) };
    let events = [on(long("1")), on(long("2")), on("short")];
    let asked = |filter: Option<pb::Filter>| {
        let group_by = vec!["platform".to_owned()];
        let request =
            pb::QueryBreakdownRequest { time_range: last(2 * HOUR), group_by, filter, ..Default::default() };
        breakdown(&request, &events, now)
    };
    let whole = asked(None);
    assert!(!whole.info.unwrap().exact);
    let rows: Vec<_> = whole.rows.iter().map(|row| (row.figures[0].value, row.figures[0].exact)).collect();
    assert_eq!(rows, [(2.0, false), (1.0, true)]);
    let one = asked(Some(condition("platform", Operator::In, vec![text(Some(long("1")))])));
    let total = &one.totals[0];
    assert!(!one.info.unwrap().exact && !total.exact && total.upper_bound >= 1.0, "{total:?}");
    // What is certainly another value is not held up by it.
    let short = asked(Some(condition("platform", Operator::In, vec![text(Some("short"))])));
    assert!(short.info.unwrap().exact && short.totals[0].value == 1.0);
}
