//! Bad questions and limits: clear errors, bounded memory, work that stops.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use weir_query::{
    Engine, Error, Events,
    engine::Settings,
    filter::Filter,
    fold::{funnel::Order, retention::Cohorts},
    funnel::{Exclusion, MAX_WINDOW},
    measure::{Measure, Statistic},
    retention,
    series::Shape,
    sql::Limits,
};
use weir_rollup::calendar::{Interval, Zone};

use crate::events::{Event, Held, LIMIT, engine, field, funnel, named, numbers, run, series};

fn many(count: i64) -> Arc<dyn Events> {
    let event = |number: i64| Event {
        user: format!("u{}", number % 1000),
        name: if number % 3 == 0 { "a" } else { "b" }.to_owned(),
        time: number,
        ..Event::default()
    };
    Held::of(&(0..count).map(event).collect::<Vec<_>>(), 8192)
}

#[test]
fn broken_rules_of_questions_are_named() {
    let (engine, none) = (engine(), many(0));
    let refused = |question| run(engine.funnel(Arc::clone(&none), question, LIMIT)).unwrap_err().to_string();
    let steps = ["a"; 21];
    assert!(refused(funnel(0..10, &steps, 5)).contains("1 to 20, not 21"));
    assert!(refused(funnel(0..10, &[], 5)).contains("1 to 20, not 0"));
    assert!(refused(funnel(0..10, &["a"], 0)).contains("366 days"));
    assert!(refused(funnel(0..10, &["a"], MAX_WINDOW + 1)).contains("366 days"));
    let mut between = funnel(0..10, &["a", "b"], 5);
    between.exclusions = vec![Exclusion { filter: named("x"), between: Some((1, 1)) }];
    assert!(refused(between.clone()).contains("a later one of the 2"));
    between.order = Order::Any;
    assert!(refused(between).contains("there is no between"));

    let hourly = retention::Question {
        range: 0..10,
        interval: Interval::Hour,
        zone: Zone::UTC,
        cohorts: Cohorts::First,
        start: Filter::default(),
        returns: Filter::default(),
        watched: 5,
        by: Vec::new(),
        max_cohorts: 10,
    };
    let error = run(engine.retention(Arc::clone(&none), hourly, LIMIT)).unwrap_err();
    assert!(error.to_string().contains("a day, a week, a month, a quarter or a year"), "{error}");

    let mut endless = series(0..i64::MAX / 4, vec![Measure::Events]);
    endless.interval = Some(Interval::Second);
    let error = run(engine.series(none, endless, LIMIT)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { what: "buckets", .. }), "{error}");
}

#[test]
fn a_question_that_needs_too_much_memory_is_refused() {
    let engine = Engine::new(Settings { memory_bytes: 1 << 20, threads: 2 }).unwrap();
    let error = run(engine.funnel(many(100_000), funnel(0..1_000_000, &["a", "b"], 50), LIMIT)).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { limit: 1_048_576 }), "{error}");
    // What it had is given back, when its last task has ended.
    run(async {
        while engine.environment().memory_pool.reserved() > 0 {
            tokio::task::yield_now().await;
        }
    });
    let limits = Limits { time: LIMIT, rows: 10 };
    let text =
        "select a.user_hash, count(*) from events a join events b on a.event_name = b.event_name group by 1";
    let failed = run(async {
        match engine.sql(many(100_000), text.to_owned(), limits).await {
            Ok(mut rows) => rows.next().await.unwrap().map(drop).unwrap_err(),
            Err(error) => error,
        }
    });
    assert!(matches!(failed, Error::OutOfMemory { .. }), "{failed}");
}

#[test]
fn what_window_functions_hold_is_accounted() {
    let events = many(1_000_000);
    let ask = |memory_bytes, text: &str| {
        let engine = Engine::new(Settings { memory_bytes, threads: 2 }).unwrap();
        let limits = Limits { time: LIMIT, rows: 10 };
        run(async {
            let mut rows = engine.sql(Arc::clone(&events), text.to_owned(), limits).await?;
            let first = rows.next().await.expect("a row or an error")?;
            Ok::<_, Error>((first.num_rows(), rows.peak_memory()))
        })
    };
    for window in [
        "row_number() over (order by log_offset)",
        "count(*) over ()",
        "lag(user_id) over (partition by event_name order by time)",
        "sum(log_offset) over (order by time rows between 100 preceding and current row)",
    ] {
        let text = format!("select max(w) from (select {window} w from events)");
        let error = ask(16 << 20, &text).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { limit: 16_777_216 }), "{window}: {error}");
    }
    let text = "select max(w) from (select row_number() over (order by log_offset) w from events)";
    let (rows, held) = ask(1 << 30, text).unwrap();
    assert!(rows == 1 && held > 100 << 20, "{rows} rows, {held} bytes were accounted");
}

#[test]
fn a_question_that_takes_too_long_is_ended_and_its_work_stops() {
    let engine = engine();
    let text =
        "select count(*) from events a, events b where a.time < b.time and a.log_offset > b.log_offset";
    let limits = Limits { time: Duration::from_millis(200), rows: 10 };
    let failed = run(async {
        let mut rows = engine.sql(many(300_000), text.to_owned(), limits).await.unwrap();
        rows.next().await.unwrap().unwrap_err()
    });
    assert!(matches!(failed, Error::TooSlow(_)), "{failed}");
    assert!(failed.is_retryable());
    // The threads are free for the next question.
    let answer = run(engine.series(many(1000), series(0..1000, vec![Measure::Events]), LIMIT)).unwrap();
    assert_eq!(answer.totals[0].estimate.unwrap().value, 1000.0);
}

/// Medians of all that came before, for each second: what came before is not looked through again.
#[test]
fn running_quantiles_take_no_longer_with_more_points() {
    let engine = engine();
    let event = |number: i64| Event {
        user: format!("u{}", number % 1000),
        name: "buy".to_owned(),
        time: number * 400_000,
        numbers: vec![("price".to_owned(), (number * 7919 % 1000) as f64)],
        ..Event::default()
    };
    let events = Held::of(&(0..200_000).map(event).collect::<Vec<_>>(), 8192);
    let median = Measure::Numeric(field("properties.price"), Statistic::Quantile(0.5));
    for shape in [Shape::Cumulative, Shape::Rolling(1000)] {
        let mut question = series(0..80_000_000_000, vec![median.clone()]);
        (question.interval, question.shape) = (Some(Interval::Second), shape);
        let started = Instant::now();
        let answer = run(engine.series(events.clone(), question.clone(), LIMIT)).unwrap();
        let took = started.elapsed();
        assert_eq!(answer.series[0].points.len(), 80_000);
        let last = answer.series[0].points.last().unwrap();
        assert!((480.0..520.0).contains(&numbers(&last.figures)[0]), "{last:?}");
        assert!(took < Duration::from_secs(5), "{shape:?} took {took:?}; adding up anew takes a minute");

        // Whatever is computed looks at the deadline, so the threads are soon free.
        let started = Instant::now();
        let error = run(engine.series(events.clone(), question, took / 4)).unwrap_err();
        assert!(matches!(error, Error::TooSlow(_)), "{error}");
        let free = run(engine.series(many(1000), series(0..1000, vec![Measure::Events]), LIMIT)).unwrap();
        assert_eq!(numbers(&free.totals), [1000.0]);
        assert!(started.elapsed() < took / 4 + Duration::from_millis(500), "{:?}", started.elapsed());
    }
}

#[test]
fn texts_that_are_too_long_for_an_answer_are_refused() {
    let event = |number: i64| Event {
        user: format!("u{number}"),
        name: "view".to_owned(),
        time: number,
        texts: vec![("page".to_owned(), format!("{number}{}", "x".repeat(50_000)))],
        ..Event::default()
    };
    let events = Held::of(&(0..200).map(event).collect::<Vec<_>>(), 50);
    let ask = |groups| {
        let mut question = series(0..1000, vec![Measure::Events]);
        (question.by, question.max_series) = (vec![field("properties.page")], groups);
        run(engine().series(events.clone(), question, LIMIT))
    };
    assert_eq!(ask(50).unwrap().series.len(), 50);
    let error = ask(200).unwrap_err();
    assert!(matches!(error, Error::TooLarge { what: "bytes of texts", .. }), "{error}");
    assert!(error.to_string().contains("shorter values"), "{error}");
}

#[test]
fn dropping_rows_stops_the_work() {
    let engine = engine();
    let text = "select a.time from events a, events b";
    let limits = Limits { time: LIMIT, rows: usize::MAX };
    run(async {
        let mut rows = engine.sql(many(30_000), text.to_owned(), limits).await.unwrap();
        rows.next().await.unwrap().unwrap();
        drop(rows);
        // The stream's memory comes back when its task has ended.
        while engine.environment().memory_pool.reserved() > 0 {
            tokio::task::yield_now().await;
        }
    });
}
