//! Who comes back, whichever batches the events lie in.

use weir_query::{fold::retention::Cohorts, retention};
use weir_rollup::calendar::{Interval, Zone};

use crate::events::{Event, Held, LIMIT, engine, named, run};

const HOUR: i64 = 3_600_000_000;

#[test]
fn a_return_counts_although_another_of_its_day_came_before_the_start() {
    let event = |(name, hour): (&str, i64)| Event {
        user: "ann".to_owned(),
        name: name.to_owned(),
        time: hour * HOUR,
        ..Event::default()
    };
    // The returns are neighbours in their batch; in time, the start lies between them.
    let events = [("return", 1), ("return", 3), ("start", 2)].map(event);
    for batch in [1, 2, 3] {
        let question = retention::Question {
            range: 0..24 * HOUR,
            interval: Interval::Day,
            zone: Zone::UTC,
            cohorts: Cohorts::First,
            start: named("start"),
            returns: named("return"),
            watched: 1,
            by: Vec::new(),
            max_cohorts: 10,
        };
        let answer = run(engine().retention(Held::of(&events, batch), question, LIMIT)).unwrap();
        assert_eq!((answer.cohorts[0].size, &*answer.cohorts[0].returned), (1, &[1][..]), "{batch}");
    }
}
