//! What counts, since when, and for how long.

use prost::Message as _;
use weir_proto::rollup::v1::metrics_record::Record;

use super::*;
use crate::testing::{self, DAY, Event, FIRST_EVENT, HOUR, SECOND, Writer};

fn total() -> u64 {
    testing::catalog().ids()[0]
}

fn request(level: Level, from: i64) -> ViewRequest {
    let spans = vec![Span { level, buckets: level.bucket_of(from)..i64::MAX, slot: 0 }];
    ViewRequest {
        project: weir_runtime::auth::ProjectId::default_project(),
        parts: vec![PartRequest { definition: total(), spans }],
    }
}

/// Events in the buckets of a level, the one that `from` lies in and later ones.
fn counted(state: &State, level: Level, from: i64) -> Option<u64> {
    let view = state.view(&request(level, from))?;
    let cells = view.parts[0].buckets.iter().flat_map(|(_, bucket)| bucket.cells());
    Some(cells.map(|(_, cell)| cell.count).sum())
}

#[test]
fn a_cell_counts_at_its_level_and_every_coarser_one() {
    let now = FIRST_EVENT + 30 * DAY;
    let event = |age: i64| Event { append: now, ..Event::at(now - age) };
    let events = [event(HOUR / 2), event(3 * HOUR), event(20 * DAY), event(29 * DAY)];
    let state = testing::state_of(&events, 10);
    assert_eq!(counted(&state, Level::Second, now - HOUR), Some(1));
    assert_eq!(counted(&state, Level::Minute, now - 2 * DAY), Some(2));
    for level in [Level::QuarterHour, Level::Hour, Level::Day] {
        assert_eq!(counted(&state, level, FIRST_EVENT), Some(4), "{level}");
    }
}

#[test]
fn expired_buckets_go_and_nobody_gets_a_part_of_them() {
    let mut state = testing::state_of(&[Event::at(FIRST_EVENT)], 1);
    assert_eq!(counted(&state, Level::Second, FIRST_EVENT), Some(1));
    let cells = state.cells();
    let mut writer = Writer::new(1);
    testing::apply(&mut state, 0, &writer.claim());
    let later = FIRST_EVENT + HOUR + 2 * GRACE_MICROS;
    assert_eq!(testing::apply(&mut state, later, &writer.heartbeat(later)), Applied::Heartbeat);
    assert_eq!(counted(&state, Level::Second, FIRST_EVENT), None);
    assert_eq!(counted(&state, Level::Second, later - HOUR), Some(0));
    assert_eq!(counted(&state, Level::Minute, FIRST_EVENT), Some(1));
    // One cell of each definition is gone.
    assert_eq!(state.cells(), cells / 5 * 4);
    // What belongs there and comes later goes to what is left.
    let late = Event { append: later, ..Event::at(FIRST_EVENT + 1) };
    testing::apply(&mut state, later, &writer.batch(&[late]));
    assert_eq!(counted(&state, Level::Minute, FIRST_EVENT), Some(2));
}

#[test]
fn a_clock_that_is_ahead_expires_nothing() {
    let now = FIRST_EVENT;
    let wrong = Event { append: now + 400 * DAY, ..Event::at(now + 400 * DAY) };
    let events = [Event::at(now), wrong, Event::at(now + SECOND)];
    let counted_by = |latest_now: i64| {
        let mut state = State::new(testing::limits());
        state.set_latest_now(latest_now);
        let mut writer = Writer::new(0);
        testing::apply(&mut state, 0, &writer.claim());
        for event in &events {
            testing::apply(&mut state, event.append, &writer.batch(std::slice::from_ref(event)));
        }
        let seconds = Level::Second.bucket_of(now)..Level::Second.bucket_of(now + HOUR);
        let spans = vec![Span { level: Level::Second, buckets: seconds, slot: 0 }];
        let parts = vec![PartRequest { definition: total(), spans }];
        let view =
            state.view(&ViewRequest { project: weir_runtime::auth::ProjectId::default_project(), parts });
        let sum = view.map(|view| {
            let cells = view.parts[0].buckets.iter().flat_map(|(_, bucket)| bucket.cells());
            cells.map(|(_, cell)| cell.count).sum::<u64>()
        });
        (sum, state.is_ahead_of(now), state.chain().watermark)
    };
    assert_eq!(counted_by(now + HOUR), (Some(2), false, now + SECOND));
    // Who believes the clock drops what is not in its last hour, and finds out later.
    assert_eq!(counted_by(i64::MAX), (None, true, now + SECOND));
}

#[test]
fn a_definition_is_known_since_it_came_into_force_and_anew_after_a_break() {
    let mut state = State::new(testing::limits());
    let mut writer = Writer::new(0);
    testing::apply(&mut state, 0, &writer.claim());
    let mut batch = |state: &mut State, append: i64, in_force: bool| {
        let record = writer.batch(&[Event::at(FIRST_EVENT), Event::at(FIRST_EVENT)]);
        let Ok(pb::MetricsRecord { record: Some(Record::Batch(mut batch)) }) =
            pb::MetricsRecord::decode(record.as_slice())
        else {
            panic!("a writer writes records")
        };
        if !in_force {
            batch.definitions.retain(|definition| *definition != total());
        }
        let record = pb::MetricsRecord { record: Some(Record::Batch(batch)) }.encode_to_vec();
        assert!(matches!(testing::apply(state, append, &record), Applied::Counted(_)));
        state.view(&request(Level::Day, FIRST_EVENT)).unwrap().parts[0].since
    };
    assert_eq!(batch(&mut state, 10, false), None);
    assert_eq!(batch(&mut state, 20, true), Some(Since { offset: 2, micros: 20 }));
    assert_eq!(batch(&mut state, 30, true), Some(Since { offset: 2, micros: 20 }));
    assert_eq!(batch(&mut state, 40, false), None);
    assert_eq!(batch(&mut state, 50, true), Some(Since { offset: 8, micros: 50 }));
}

#[test]
fn a_view_stays_as_it_was_while_the_state_goes_on() {
    let mut state = testing::filled_state();
    let view = state.view(&request(Level::Hour, FIRST_EVENT)).unwrap();
    let sum = |view: &View| -> u64 {
        view.parts[0].buckets.iter().flat_map(|(_, bucket)| bucket.cells()).map(|(_, cell)| cell.count).sum()
    };
    assert_eq!(sum(&view), 1500);
    testing::apply_more(&mut state);
    assert_eq!(sum(&view), 1500);
    assert_eq!(sum(&state.view(&request(Level::Hour, FIRST_EVENT)).unwrap()), 1800);
}

/// A cell of one event by platform, counted by the second.
fn on_platform(platform: &str, time: i64) -> Placed {
    let cell = weir_rollup::cell::Cell { count: 1, ..Default::default() };
    let dimensions = vec![weir_rollup::cell::Value::Text(platform.into())];
    Placed { dimensions, level: Level::Second, bucket: Level::Second.bucket_of(time), cell }
}

/// Events by value in the bucket of a level that a moment lies in.
fn by_value(cube: &Cube, names: &Names, level: Level, time: i64) -> Vec<(Value, u64)> {
    let number = level.bucket_of(time);
    let cells = cube.range(level, number..number + 1).flat_map(|(_, bucket)| bucket.cells());
    let value = |row: u32| names.texts().value(cube.rows()[row as usize][0]);
    let mut found: Vec<_> = cells.map(|(row, cell)| (value(*row), cell.count)).collect();
    found.sort();
    found
}

#[test]
fn values_beyond_the_limit_of_a_day_are_folded_together_in_all_of_its_buckets() {
    let (mut cube, mut names) = (Cube::default(), Names::default());
    let day = FIRST_EVENT - FIRST_EVENT % DAY;
    let count = |cube: &mut Cube, names: &mut Names, platform: &str, time: i64| {
        cube.count(on_platform(platform, time), &Whole::ALWAYS, 2, names);
    };
    let text = |text: &str| Value::Text(text.into());
    for (hour, platform) in [(1, "web"), (2, "ios"), (3, "tv"), (4, "phone"), (5, "ios")] {
        count(&mut cube, &mut names, platform, day + hour * HOUR);
    }
    let of_the_day = [(text("ios"), 2), (text("web"), 1), (Value::Other, 2)];
    assert_eq!(by_value(&cube, &names, Level::Day, day), of_the_day);
    for level in [Level::Second, Level::Minute, Level::QuarterHour, Level::Hour] {
        assert_eq!(by_value(&cube, &names, level, day + 3 * HOUR), [(Value::Other, 1)], "{level}");
        assert_eq!(by_value(&cube, &names, level, day + 5 * HOUR), [(text("ios"), 1)], "{level}");
    }
    // The next day tells its own first values apart.
    count(&mut cube, &mut names, "tv", day + DAY);
    assert_eq!(by_value(&cube, &names, Level::Day, day + DAY), [(text("tv"), 1)]);
    // Whoever begins with a snapshot goes on alike.
    let (mut back, mut back_names) = (Cube::default(), Names::default());
    for (value, events) in of_the_day.into_iter().rev() {
        let dimensions = vec![match value {
            Value::Text(text) => weir_rollup::cell::Value::Text((&*text).into()),
            Value::Missing => weir_rollup::cell::Value::Missing,
            Value::Other => weir_rollup::cell::Value::Other,
        }];
        let cell = weir_rollup::cell::Cell { count: events, ..Default::default() };
        let placed = Placed { dimensions, level: Level::Day, bucket: Level::Day.bucket_of(day), cell };
        back.restore(placed, &mut back_names);
    }
    for (cube, names) in [(&mut cube, &mut names), (&mut back, &mut back_names)] {
        count(cube, names, "web", day);
        count(cube, names, "late", day);
        let expected = [(text("ios"), 2), (text("web"), 2), (Value::Other, 3)];
        assert_eq!(by_value(cube, names, Level::Day, day), expected);
    }
}

#[test]
fn values_are_forgotten_with_their_last_bucket() {
    let (mut cube, mut names) = (Cube::default(), Names::default());
    for n in 0..10 {
        cube.count(on_platform(&format!("old {n}"), FIRST_EVENT), &Whole::ALWAYS, 100, &mut names);
    }
    let later = FIRST_EVENT + DAY;
    cube.count(on_platform("old 3", later), &Whole::ALWAYS, 100, &mut names);
    for level in Level::ALL {
        cube.drop_before(level, level.bucket_of(later), &mut names);
    }
    assert_eq!((cube.cells(), names.len()), (Level::ALL.len(), 1));
    // What was given up is given out again.
    for n in 0..9 {
        cube.count(on_platform(&format!("new {n}"), later), &Whole::ALWAYS, 100, &mut names);
    }
    assert_eq!((cube.rows().len(), names.len()), (10, 10));
    let mut expected: Vec<_> = (0..9).map(|n| (Value::Text(format!("new {n}").into()), 1)).collect();
    expected.push((Value::Text("old 3".into()), 1));
    assert_eq!(by_value(&cube, &names, Level::Second, later), expected);
}

#[test]
fn longer_retention_does_not_make_whole_what_was_not_kept() {
    let now = FIRST_EVENT + 30 * DAY;
    let live = |age: i64| Event::at(now - age);
    // One that came in time, but whose minute was dropped; and history that was brought in later, in quarter hours.
    let imported = Event { append: now, ..Event::at(now - 5 * DAY) };
    let events = [live(3 * DAY), live(0), imported];
    let state = testing::state_of(&events, 1);
    let longer =
        Limits { retention: Retention::new(None, None, None, None, None).unwrap(), ..testing::limits() };
    let restarted = State::restore(longer.clone(), &state.image(0).header).unwrap();
    let mut replayed = State::new(longer);
    let mut writer = Writer::new(0);
    testing::apply(&mut replayed, 0, &writer.claim());
    for event in events {
        testing::apply(&mut replayed, event.append, &writer.batch(&[event]));
    }
    // Dropped by the instance that wrote the snapshot.
    assert_eq!(counted(&restarted, Level::Minute, now - 3 * DAY), None);
    // Never dropped, so there; but not before the history that has no minutes.
    assert_eq!(counted(&replayed, Level::Minute, now - 3 * DAY), Some(2));
    for state in [&restarted, &replayed] {
        assert_eq!(counted(state, Level::Minute, now - 5 * DAY), None);
        let whole = state.whole().since(Level::Minute);
        assert!(counted(state, Level::Minute, whole).is_some() && whole < now - 2 * DAY + HOUR);
    }
    assert_eq!(counted(&replayed, Level::QuarterHour, now - 5 * DAY), Some(3));
}
