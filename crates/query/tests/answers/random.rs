//! Random events and random questions, answered by plain loops as well.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weir_query::{
    Actor,
    filter::Filter,
    fold::paths::Direction,
    fold::{funnel::Order, session::IDLE},
    formula::Formula,
    funnel::Exclusion,
    measure::{Measure, Statistic},
    paths,
    series::Shape,
};
use weir_rollup::calendar::{Interval, Zone};

use crate::events::{
    Event, Held, LIMIT, engine, field, filter, funnel, is, named, not, numbers, run, series,
};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1440 * MINUTE;
/// 9 March 2024 0:00 UTC: the clock in New York goes forward the day after.
const BEGIN: i64 = 1_709_942_400_000_000;

fn any_event() -> impl Strategy<Value = Event> {
    (0..4u8, 0..3u8, 0..4u8, 0..60i64, prop::option::of(0..3u8), prop::option::of(0..20i32), any::<bool>())
        .prop_map(|(user, session, name, tick, plan, price, paid)| Event {
            user: format!("u{user}"),
            session: if session == 0 { String::new() } else { format!("s{session}") },
            name: ["a", "b", "c", "d"][name as usize].to_owned(),
            time: BEGIN + tick * 100 * MINUTE,
            texts: plan.map(|plan| ("plan".to_owned(), format!("p{plan}"))).into_iter().collect(),
            numbers: price.map(|price| ("price".to_owned(), f64::from(price) / 8.0)).into_iter().collect(),
            revenue: paid.then_some(("EUR", 1, 250_000_000)),
        })
}

fn plan(event: &Event) -> Option<String> {
    event.texts.first().map(|(_, text)| text.clone())
}

/// The events of every user or session, sorted.
fn actors(events: &[Event], actor: Actor) -> Vec<Vec<&Event>> {
    let mut by = BTreeMap::<(&str, &str), Vec<&Event>>::new();
    for event in events {
        let session = if actor == Actor::Session { event.session.as_str() } else { "" };
        by.entry((&event.user, session)).or_default().push(event);
    }
    let mut all = Vec::new();
    for ((_, session), mut events) in by {
        events.sort_by_key(|event| event.time);
        if actor == Actor::User || !session.is_empty() {
            all.push(events);
            continue;
        }
        let mut rest = events.as_slice();
        while !rest.is_empty() {
            let gap = rest.windows(2).position(|pair| pair[1].time - pair[0].time > IDLE);
            let (one, next) = rest.split_at(gap.map_or(rest.len(), |gap| gap + 1));
            all.push(one.to_vec());
            rest = next;
        }
    }
    all
}

fn strict_depth(
    events: &[&Event],
    steps: &[&str],
    window: i64,
    excluded: Option<&str>,
) -> Option<(usize, Option<String>)> {
    let mut best: Option<(usize, Option<String>)> = None;
    for (first, start) in events.iter().enumerate().filter(|(_, event)| event.name == steps[0]) {
        let mut depth = 1;
        for event in &events[first + 1..] {
            if depth == steps.len() || event.time - start.time > window || excluded == Some(&event.name) {
                break;
            }
            depth += usize::from(event.name == steps[depth]);
        }
        if best.as_ref().is_none_or(|(best, _)| depth > *best) {
            best = Some((depth, plan(start)));
        }
    }
    best
}

fn prices(events: &[&Event]) -> Vec<f64> {
    let mut prices: Vec<_> =
        events.iter().flat_map(|event| &event.numbers).map(|(_, price)| *price).collect();
    prices.sort_by(f64::total_cmp);
    prices
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn funnels(
        events in prop::collection::vec(any_event(), 0..80), batch in 1usize..90,
        steps in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4),
        window in prop::sample::select(vec![MINUTE, 100 * MINUTE, 1000 * MINUTE, 30 * DAY]),
        by_session in any::<bool>(), excluded in any::<bool>(),
    ) {
        let actor = if by_session { Actor::Session } else { Actor::User };
        let mut question = funnel(BEGIN..BEGIN + 30 * DAY, &steps, window);
        (question.actor, question.by) = (actor, vec![field("plan")]);
        if excluded {
            question.exclusions = vec![Exclusion { filter: named("d"), between: None }];
        }
        let answer = run(engine().funnel(Held::of(&events, batch), question, LIMIT)).unwrap();
        let mut expected = BTreeMap::<Option<String>, Vec<u64>>::new();
        for events in actors(&events, actor) {
            // Nothing can be excluded between the steps of a funnel of one.
            let excluded = (excluded && steps.len() > 1).then_some("d");
            if let Some((depth, plan)) = strict_depth(&events, &steps, window, excluded) {
                let counts = expected.entry(plan).or_insert_with(|| vec![0; steps.len()]);
                counts[..depth].iter_mut().for_each(|count| *count += 1);
            }
        }
        let found: BTreeMap<_, _> = answer
            .groups
            .iter()
            .map(|group| (group.values[0].clone(), group.steps.iter().map(|step| step.count).collect::<Vec<_>>()))
            .collect();
        prop_assert_eq!(found, expected);
        let mut any = funnel(BEGIN..BEGIN + 30 * DAY, &steps, 30 * DAY);
        any.order = Order::Any;
        let any = run(engine().funnel(Held::of(&events, batch), any, LIMIT)).unwrap();
        // Without a limit of time, whoever has events enough of each name has done the steps in some order.
        let distinct: BTreeSet<_> = steps.iter().collect();
        if distinct.len() == steps.len() {
            for (step, found) in any.total.iter().enumerate() {
                let done = |events: &&Vec<&Event>| {
                    steps[..=step].iter().all(|step| events.iter().any(|event| event.name == *step))
                };
                prop_assert_eq!(found.count, actors(&events, Actor::User).iter().filter(done).count() as u64);
            }
        }
    }

    #[test]
    fn series_of_every_measure(
        events in prop::collection::vec(any_event(), 0..80), batch in 1usize..90,
        zone in prop::sample::select(vec!["UTC", "Asia/Kolkata", "America/New_York"]),
        interval in prop::sample::select(vec![Interval::Hour, Interval::Day, Interval::Week]),
        grouped in any::<bool>(), rank in prop::sample::select(vec![0.0, 0.5, 0.9, 1.0]),
        shape in prop::sample::select(vec![Shape::Plain, Shape::Rolling(3), Shape::Cumulative]),
        begin in 0i64..3,
    ) {
        let begin = BEGIN + begin * 700 * MINUTE;
        let price = || field("price");
        let mut question = series(begin..begin + 3 * DAY, vec![
            Measure::Events, Measure::UniqueUsers, Measure::Sessions, Measure::UniqueValues(field("plan")),
            Measure::Revenue(None), Measure::Numeric(price(), Statistic::Sum), Measure::Numeric(price(), Statistic::Min),
            Measure::Numeric(price(), Statistic::Max), Measure::Numeric(price(), Statistic::Average),
            Measure::Numeric(price(), Statistic::Quantile(rank)), Measure::Events, Measure::Visits,
        ]);
        question.measures[10].filter = named("a");
        question.formulas = vec![Formula::parse("K / A", 12).unwrap()];
        question.interval = Some(interval);
        question.zone = Zone::parse(zone).unwrap();
        question.filter = filter(&not(is("plan", &["p1"])));
        question.shape = shape;
        if grouped {
            question.by = vec![field("event_name")];
        }
        let zone = question.zone.clone();
        let answer = run(engine().series(Held::of(&events, batch), question, LIMIT)).unwrap();
        let kept: Vec<&Event> = events.iter().filter(|event| plan(event).as_deref() != Some("p1")).collect();
        let lead = if shape == Shape::Rolling(3) { 2 } else { 0 };
        let mut buckets = zone.buckets(interval, begin..begin + 3 * DAY, 1000).unwrap();
        prop_assert_eq!(&answer.buckets, &buckets);
        for _ in 0..lead {
            let before = zone.bucket(interval, buckets[0].start - 1).unwrap();
            buckets.insert(0, before);
        }
        let from = if lead > 0 { buckets[0].start } else { begin };
        // By event: the visit that it belongs to, found among all events of the range, whatever the filter.
        let all: Vec<Event> = events.iter().filter(|event| (from..begin + 3 * DAY).contains(&event.time)).cloned().collect();
        let mut visits = BTreeMap::new();
        for (visit, events) in actors(&all, Actor::Session).into_iter().enumerate() {
            visits.extend(events.into_iter().map(|event| ((event.user.clone(), event.session.clone(), event.time), visit)));
        }
        let figures = |events: &[&Event]| {
            let prices = prices(events);
            let different = |values: Vec<Option<String>>| values.into_iter().flatten().collect::<BTreeSet<_>>().len() as f64;
            let at = ((rank * prices.len() as f64).ceil() as usize).saturating_sub(1);
            let sum: f64 = prices.iter().sum();
            let count = events.len() as f64;
            let of_a = events.iter().filter(|event| event.name == "a").count() as f64;
            vec![
                count,
                different(events.iter().map(|event| Some(event.user.clone())).collect()),
                different(events.iter().map(|event| Some(event.session.clone()).filter(|id| !id.is_empty())).collect()),
                different(events.iter().map(|event| plan(event)).collect()),
                events.iter().filter(|event| event.revenue.is_some()).count() as f64 * 1.25,
                sum,
                prices.first().copied().unwrap_or(f64::NAN),
                prices.last().copied().unwrap_or(f64::NAN),
                sum / prices.len() as f64,
                prices.get(at).copied().unwrap_or(f64::NAN),
                of_a,
                different(events.iter().map(|event| {
                    visits.get(&(event.user.clone(), event.session.clone(), event.time)).map(|visit| visit.to_string())
                }).collect()),
                of_a / count,
            ]
        };
        let same = |found: &[f64], expected: &[f64]| found.iter().zip(expected).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
        let names: BTreeSet<_> = kept
            .iter()
            .filter(|event| (from..begin + 3 * DAY).contains(&event.time))
            .map(|event| if grouped { event.name.clone() } else { String::new() })
            .collect();
        prop_assert_eq!(answer.series.len(), if grouped { names.len() } else { 1 });
        for one in &answer.series {
            let of: Vec<&Event> = kept
                .iter()
                .copied()
                .filter(|event| !grouped || one.values[0].as_deref() == Some(event.name.as_str()))
                .filter(|event| (from..begin + 3 * DAY).contains(&event.time))
                .collect();
            for (bucket, range) in buckets.iter().enumerate().skip(lead) {
                let start = match shape {
                    Shape::Plain => range.start,
                    Shape::Rolling(_) => buckets[bucket - 2].start,
                    Shape::Cumulative => begin,
                };
                let within: Vec<_> = of.iter().copied().filter(|event| (start..range.end).contains(&event.time)).collect();
                let point = one.points.iter().find(|point| point.bucket == bucket - lead);
                match point {
                    Some(point) => {
                        let (found, expected) = (numbers(&point.figures), figures(&within));
                        prop_assert!(same(&found, &expected), "{:?} {:?} {:?}", range, found, expected);
                    }
                    None => prop_assert!(within.is_empty() && shape == Shape::Plain),
                }
            }
            let shown: Vec<_> = of.iter().copied().filter(|event| event.time >= begin).collect();
            let (found, expected) = (numbers(&one.totals), figures(&shown));
            prop_assert!(same(&found, &expected), "totals {:?} {:?}", found, expected);
        }
    }

    #[test]
    fn paths_end_where_sessions_do(
        events in prop::collection::vec(any_event(), 0..60), batch in 1usize..70, by_session in any::<bool>(),
    ) {
        let actor = if by_session { Actor::Session } else { Actor::User };
        let question = paths::Question {
            range: BEGIN..BEGIN + 30 * DAY,
            anchor: named("a"),
            shown: Filter::default(),
            by: field("event_name"),
            fold_repeats: false,
            direction: Direction::After,
            depth: 2,
            width: 10,
            max_gap: 200 * MINUTE,
            actor,
        };
        let answer = run(engine().paths(Held::of(&events, batch), question, LIMIT)).unwrap();
        let mut expected = BTreeMap::<Vec<String>, u64>::new();
        for events in actors(&events, actor) {
            if let Some(first) = events.iter().position(|event| event.name == "a") {
                let mut path = Vec::new();
                *expected.entry(path.clone()).or_default() += 1;
                for pair in events[first..].windows(2).take(2) {
                    if pair[1].time - pair[0].time > 200 * MINUTE {
                        break;
                    }
                    path.push(pair[1].name.clone());
                    *expected.entry(path.clone()).or_default() += 1;
                }
            }
        }
        fn flat(node: &paths::Node, path: &mut Vec<String>, into: &mut BTreeMap<Vec<String>, u64>) {
            if node.count > 0 {
                into.insert(path.clone(), node.count);
            }
            for next in &node.next {
                path.push(next.value.clone().unwrap());
                flat(next, path, into);
                path.pop();
            }
        }
        let mut found = BTreeMap::new();
        flat(&answer.root, &mut Vec::new(), &mut found);
        prop_assert_eq!(found, expected);
    }
}
