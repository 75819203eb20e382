//! What counts, since when, and for how long.

use prost::Message as _;
use weir_proto::rollup::v1::metrics_record::Record;

use super::*;
use crate::testing::{self, DAY, Event, FIRST_EVENT, HOUR, Writer};

fn total() -> u64 {
    testing::catalog().ids()[0]
}

fn request(level: Level, from: i64) -> ViewRequest {
    let spans = vec![Span { level, buckets: level.bucket_of(from)..i64::MAX, slot: 0 }];
    ViewRequest { project: "default".into(), parts: vec![PartRequest { definition: total(), spans }] }
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

#[test]
fn values_beyond_the_limit_are_folded_together_once_and_for_all() {
    let mut cube = Cube::default();
    let mut names = Names::default();
    let text = |text: &str| weir_rollup::cell::Value::Text(text.into());
    let mut row = |name: &str, platform: &str| cube.row(&[text(name), text(platform)], 2, &mut names);
    let (a, b) = (row("x", "web"), row("x", "ios"));
    let other = row("x", "tv");
    assert!(a != b && b != other);
    assert_eq!(row("x", "phone"), other);
    assert_eq!((row("x", "web"), row("x", "ios")), (a, b));
    assert_ne!(row("y", "tv"), other);
    let values: Vec<_> =
        cube.rows()[other as usize].iter().map(|symbol| names.texts().value(*symbol)).collect();
    assert_eq!(values, [Value::Text("x".into()), Value::Other]);
}
