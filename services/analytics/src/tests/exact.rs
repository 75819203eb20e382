//! Where rollups answer only approximately or in part, the events answer.

use weir_proto::analytics::v1::{
    Measure, ResultInfo, measure::Kind as Measured, note::Kind, result_info::Source,
};
use weir_runtime::Config;

use super::{
    questions::{apart, ask, breakdown, consumers},
    *,
};
use crate::{
    question::{Answer, Asks as _},
    testing::DAY,
};

/// The answer after these events, and what it says about itself.
async fn answer_after(
    events: &[Event],
    query: Query,
    change: impl FnOnce(&mut Config),
) -> (Answer, ResultInfo) {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start_with(dir.path(), change).await;
    let [mut consumer, _other] = consumers(&system).await;
    let (partition, offset) = consumer.take(&system, events).await;
    let query = match query {
        Query::Summary(of) => Query::Summary(GetSummaryRequest { explain: true, ..of }),
        Query::TimeSeries(of) => Query::TimeSeries(QueryTimeSeriesRequest { explain: true, ..of }),
        Query::Breakdown(of) => Query::Breakdown(QueryBreakdownRequest { explain: true, ..of }),
        other => other,
    };
    let answer = apart(ask(&system, query, token(partition, offset)).await);
    system.stop().await;
    answer
}

/// The rows of a breakdown by one field: value, first figure, whether it is exact.
fn rows(answer: Answer) -> Vec<(String, f64, bool)> {
    let Answer::Breakdown(answer) = answer else { panic!("another kind") };
    let text = |value: &prost_types::Value| match &value.kind {
        Some(prost_types::value::Kind::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    };
    let row = |row: &weir_proto::analytics::v1::BreakdownRow| {
        (text(&row.group[0]), row.figures[0].value, row.figures[0].exact)
    };
    answer.rows.iter().map(row).collect()
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Ten platforms.
fn many_values() -> Vec<Event> {
    (0..10).map(|n| Event { platform: Some(leaked(format!("platform {n}"))), ..recent(n) }).collect()
}

fn three_values(config: &mut Config) {
    config.rollups.max_values_per_dimension = 3;
}

fn revenue(currency: &str) -> Query {
    let revenue =
        Measure { kind: Measured::Revenue.into(), currency: currency.to_owned(), ..Measure::default() };
    Query::TimeSeries(QueryTimeSeriesRequest { measures: vec![revenue], ..Default::default() })
}

fn total(answer: &Answer) -> Figure {
    match answer {
        Answer::TimeSeries(answer) => answer.series[0].totals[0].clone(),
        Answer::Breakdown(answer) => answer.totals[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_the_rollup_cuts_are_told_apart_by_the_events() {
    let url = |end: &str| leaked(format!("https://shop.example/{}{end}", "p".repeat(209)));
    let events = [url("1"), url("2")].map(|url| Event { platform: Some(url), ..recent(1) });
    let (answer, info) = answer_after(&events, breakdown("platform").query(), |_| {}).await;
    assert_eq!(rows(answer), [(url("1").to_owned(), 1.0, true), (url("2").to_owned(), 1.0, true)]);
    assert!(info.exact && info.source() == Source::Store && info.notes.is_empty(), "{info:?}");
    assert!(
        info.plan.contains("not from a rollup, because the rollup cuts values at 200 bytes"),
        "{}",
        info.plan
    );

    use weir_proto::analytics::v1::{Condition, Filter, condition::Operator, filter::Expression};
    let values =
        vec![prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(url("2").to_owned())) }];
    let condition = Condition { field: "platform".to_owned(), operator: Operator::In.into(), values };
    let filter = Some(Filter { expression: Some(Expression::Condition(condition)) });
    let filtered = QueryTimeSeriesRequest { filter, ..Default::default() };
    let (answer, info) = answer_after(&events, Query::TimeSeries(filtered), |_| {}).await;
    assert!(info.exact && total(&answer).value == 1.0, "{answer:?} {info:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_beyond_the_limit_of_a_rollup_are_told_apart_by_the_events() {
    let (answer, info) = answer_after(&many_values(), breakdown("platform").query(), three_values).await;
    let expected: Vec<_> = (0..10).map(|n| (format!("platform {n}"), 1.0, true)).collect();
    assert_eq!(rows(answer), expected);
    assert!(info.exact && info.source() == Source::Store, "{info:?}");

    let (answer, info) = answer_after(&many_values(), breakdown("event_name").query(), three_values).await;
    assert_eq!(rows(answer), [("page_view".to_owned(), 10.0, true)]);
    assert!(info.exact && info.source() == Source::Rollup, "what is not asked for is no flaw: {info:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_read_too_many_events_is_approximate_and_says_why() {
    let few = |config: &mut Config| {
        three_values(config);
        config.analytics.exact_up_to_events = 9;
    };
    let (answer, info) = answer_after(&many_values(), breakdown("platform").query(), few).await;
    let rows = rows(answer);
    assert_eq!(rows.iter().find(|row| row.0 == "(other)"), Some(&("(other)".to_owned(), 7.0, false)));
    assert!(rows.iter().all(|(.., exact)| !exact), "{rows:?}");
    assert!(!info.exact && info.source() == Source::Rollup, "{info:?}");
    let [note] = info.notes.as_slice() else { panic!("{info:?}") };
    assert_eq!(note.kind(), Kind::Approximate);
    assert!(
        note.text.contains("max_values_per_dimension") && note.text.contains("exact_up_to_events = 9"),
        "{note:?}"
    );
    assert!(info.plan.contains("not from the events, because they are more than"), "{}", info.plan);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_memory_does_not_suffice_for_the_events_the_rollup_answers() {
    let little = |config: &mut Config| {
        three_values(config);
        config.analytics.query_memory_bytes = 1;
    };
    let (answer, info) = answer_after(&many_values(), breakdown("platform").query(), little).await;
    assert_eq!(rows(answer).len(), 4);
    assert!(!info.exact && info.source() == Source::Rollup, "{info:?}");
    assert!(info.notes[0].text.contains("memory"), "{info:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_currencies_take_no_revenue_away() {
    let letters = |n: u32| {
        [n / 676, n / 26 % 26, n % 26].map(|n| char::from(b'A' + n as u8)).iter().collect::<String>()
    };
    let paid = |currency: &'static str, units: i64| Event { money: Some((currency, units)), ..recent(1) };
    let mut events = vec![paid("USD", 10)];
    events.extend((0..210).map(|n| paid(leaked(letters(n)), 1)));
    let (answer, info) = answer_after(&events, revenue("USD"), |_| {}).await;
    let dollars = total(&answer);
    assert!(info.exact && dollars.exact && dollars.value == 10.0, "{dollars:?} {info:?}");
    assert_eq!(dollars.money.unwrap().units, 10);

    // A rollup alone can't tell whether a sum lacks an amount.
    let never = |config: &mut Config| config.analytics.exact_up_to_events = 0;
    let (answer, info) = answer_after(&events, revenue("USD"), never).await;
    assert!(!info.exact && !total(&answer).exact && total(&answer).value == 10.0, "{answer:?}");
    assert!(info.notes[0].text.contains("more currencies"), "{info:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revenue_beyond_the_greatest_amount_is_saturated_and_not_exact() {
    let event = Event { money: Some(("USD", i64::MAX)), ..recent(1) };
    let events = [event.clone(), event];
    let (answer, info) = answer_after(&events, revenue("USD"), |_| {}).await;
    let total = total(&answer);
    assert!(!info.exact && !total.exact, "{total:?}");
    assert!(total.lower_bound <= 2f64.powi(64) && 2f64.powi(64) <= total.upper_bound, "{total:?}");
    assert_eq!(total.money.unwrap().units, i64::MAX);
    assert!(info.notes[0].text.contains("beyond the greatest amount"), "{info:?}");

    let summary = GetSummaryRequest::default().query();
    let (Answer::Summary(answer), info) = answer_after(&events, summary, |_| {}).await else {
        panic!("a summary")
    };
    let current = answer.current.unwrap();
    assert_eq!((current.revenue[0].units, current.revenue.len(), info.exact), (i64::MAX, 1, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_quantiles_that_a_rollup_estimates_are_counted_from_the_events() {
    let events: Vec<Event> =
        (0..700).map(|user| Event { price: Some(user as f64), ..recent(user) }).collect();
    let summary = || GetSummaryRequest::default().query();
    let users = |answer: Answer| match answer {
        Answer::Summary(answer) => answer.current.unwrap().unique_users.unwrap(),
        other => panic!("{other:?}"),
    };
    let (answer, info) = answer_after(&events, summary(), |_| {}).await;
    let counted = users(answer);
    assert_eq!(
        (counted.value, counted.lower_bound, counted.upper_bound, counted.exact),
        (700.0, 700.0, 700.0, true)
    );
    assert!(info.exact && info.source() == Source::Store && info.plan.contains("estimates"), "{info:?}");
    let never = |config: &mut Config| config.analytics.exact_up_to_events = 0;
    let (answer, info) = answer_after(&events, summary(), never).await;
    let estimated = users(answer);
    assert!(!info.exact && !estimated.exact && info.source() == Source::Rollup, "{info:?}");
    assert!((estimated.lower_bound..=estimated.upper_bound).contains(&700.0), "{estimated:?}");

    let median = Measure {
        kind: Measured::Quantile.into(),
        property: "price".to_owned(),
        quantile: 0.5,
        ..Measure::default()
    };
    let median = QueryTimeSeriesRequest { measures: vec![median], ..Default::default() };
    let (answer, info) = answer_after(&events, Query::TimeSeries(median), |_| {}).await;
    assert!(info.exact && total(&answer).exact && total(&answer).value == 349.0, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_figures_of_any_range_are_told() {
    let at = now_micros() - 5 * DAY;
    let events =
        [Event::at(at), Event { user: 2, ..Event::at(at + SECOND) }, Event { user: 3, ..Event::at(at - 2) }];
    let (start, end) = (timestamp(at - 1), timestamp(at + SECOND / 2));
    let time_range = Some(TimeRange { start_time: Some(start), end_time: Some(end), last: None });
    let summary = GetSummaryRequest { time_range, ..Default::default() };
    let (Answer::Summary(answer), info) = answer_after(&events, summary.query(), |_| {}).await else {
        panic!("a summary")
    };
    let of = |figures: Option<weir_proto::analytics::v1::SummaryFigures>| {
        let figures = figures.expect("the range is told");
        (value(&figures.events), value(&figures.unique_users), value(&figures.sessions))
    };
    assert_eq!((of(answer.current), of(answer.previous)), ((1.0, 1.0, 0.0), (1.0, 1.0, 0.0)));
    assert_eq!(answer.top_events[0].event_name, "page_view");
    assert!(info.exact && info.source() == Source::Store, "{info:?}");
    assert_eq!((info.start_time, info.end_time), (Some(start), Some(end)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_answered_by_the_same_rule() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start_with(dir.path(), three_values).await;
    let [mut consumer, _other] = consumers(&system).await;
    let events = many_values();
    let (partition, offset) = consumer.take(&system, &events[..2]).await;
    system.summary(token(partition, offset)).await;
    let mut watch = system.watch(breakdown("platform").query()).await;
    let first = next(&mut watch).await.result.unwrap();
    assert_eq!(apart(first).1.source(), Source::Rollup);
    consumer.take(&system, &events[2..]).await;
    let (answer, info) = loop {
        let response = next(&mut watch).await;
        if watched_events(&response) == 10.0 {
            break apart(response.result.unwrap());
        }
    };
    assert!(info.exact && info.source() == Source::Store && rows(answer).len() == 10, "{info:?}");
    system.stop().await;
}
