//! Answers about a real shop's clickstream, to the number: `tests/data/ecom-answers.json` was made by other programs.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use arrow::{array::AsArray, datatypes::TimestampMicrosecondType};
use serde_json::{Value, json};
use weir_query::{
    Events, Values, export::Timeline, filter::Filter, fold::retention::Cohorts, measure::Measure, retention,
    series::Series,
};
use weir_rollup::calendar::{Interval, Zone};

use crate::events::{Event, Held, LIMIT, engine, field, filter, funnel, is, numbers, run, series};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data")
}

fn answers() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("ecom-answers.json")).unwrap()).unwrap()
}

fn shop() -> Arc<dyn Events> {
    let file = std::fs::File::open(folder().join("ecom.csv.gz")).unwrap();
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let events: Vec<_> = reader
        .deserialize::<BTreeMap<String, String>>()
        .map(|row| {
            let row = row.unwrap();
            let time: jiff::civil::DateTime = row["timestamp"].parse().unwrap();
            let properties = ["platform", "acquisition_channel", "user_cohort", "user_lifecycle"];
            Event {
                user: row["user_id"].clone(),
                session: row["session_id"].clone(),
                name: row["event"].clone(),
                time: time.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_microsecond(),
                texts: properties.iter().map(|key| ((*key).to_owned(), row[*key].clone())).collect(),
                ..Event::default()
            }
        })
        .collect();
    Held::of(&events, 5000)
}

const ALWAYS: std::ops::Range<i64> = 1_700_000_000_000_000..1_730_000_000_000_000;

fn date(zone: &Zone, micros: i64) -> String {
    zone.local_time(micros).unwrap()[..10].to_owned()
}

#[test]
fn summary_series_and_breakdowns() {
    let (engine, shop, answers) = (engine(), shop(), answers());
    let ask = |question| run(engine.series(Arc::clone(&shop), question, LIMIT)).unwrap();
    let both = || vec![Measure::Events, Measure::UniqueUsers];

    let summary = ask(series(ALWAYS, vec![Measure::Events, Measure::UniqueUsers, Measure::Sessions]));
    let expected = &answers["summary"];
    let expected = [&expected["events"], &expected["unique_users"], &expected["sessions"]];
    assert_eq!(numbers(&summary.totals), expected.map(|number| number.as_f64().unwrap()));

    let rows = |found: &[Series]| {
        let row = |series: &Series| {
            let numbers = numbers(&series.totals).into_iter().map(|number| json!(number as u64));
            Value::Array(series.values.iter().map(|text| json!(text)).chain(numbers).collect())
        };
        found.iter().map(row).collect::<Vec<_>>()
    };
    let mut by_event = series(ALWAYS, both());
    by_event.by = vec![field("event_name")];
    assert_eq!(json!(rows(&ask(by_event).series)), answers["by_event"]);

    let mut by_platform = series(ALWAYS, both());
    by_platform.by = vec![field("platform")];
    by_platform.filter = filter(&is("event_name", &["purchase"]));
    assert_eq!(json!(rows(&ask(by_platform).series)), answers["purchases_by_platform"]);

    let mut by_two = series(ALWAYS, both());
    by_two.by = vec![field("acquisition_channel"), field("user_lifecycle")];
    let mut found = rows(&ask(by_two).series);
    found.sort_by_key(|row| (row[0].as_str().map(str::to_owned), row[1].as_str().map(str::to_owned)));
    assert_eq!(json!(found), answers["events_by_channel_and_lifecycle"]);

    for (name, interval, zone) in [
        ("daily_utc", Interval::Day, "UTC"),
        ("daily_kolkata", Interval::Day, "Asia/Kolkata"),
        ("weekly_new_york", Interval::Week, "America/New_York"),
    ] {
        let mut question = series(ALWAYS, both());
        (question.interval, question.zone) = (Some(interval), Zone::parse(zone).unwrap());
        assert_eq!(points(&ask(question.clone()), &question.zone), answers[name], "{name}");
    }
    let mut monthly = series(ALWAYS, both());
    monthly.interval = Some(Interval::Month);
    monthly.filter =
        filter(&crate::events::all(vec![is("event_name", &["purchase"]), is("platform", &["mobile"])]));
    assert_eq!(points(&ask(monthly), &Zone::UTC), answers["monthly_mobile_purchases_utc"]);
}

fn points(answer: &weir_query::series::Answer, zone: &Zone) -> Value {
    let point = |point: &weir_query::series::Point| {
        let numbers = numbers(&point.figures);
        json!([date(zone, answer.buckets[point.bucket].start), numbers[0] as u64, numbers[1] as u64])
    };
    Value::Array(answer.series[0].points.iter().map(point).collect())
}

#[test]
fn funnels() {
    let (engine, shop, answers) = (engine(), shop(), answers());
    let steps: Vec<&str> =
        answers["funnel_steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    let counts =
        |steps: &[weir_query::funnel::Step]| json!(steps.iter().map(|step| step.count).collect::<Vec<_>>());
    for (name, window) in [("funnel_1h", HOUR), ("funnel_1d", DAY)] {
        let question = funnel(ALWAYS, &steps, window);
        let answer = run(engine.funnel(Arc::clone(&shop), question, LIMIT)).unwrap();
        assert_eq!(json!({"all": counts(&answer.total)}), answers[name], "{name}");
        assert!(answer.total[1].median <= answer.total[1].p90);
    }
    let mut question = funnel(ALWAYS, &steps, 7 * DAY);
    question.by = vec![field("platform")];
    let answer = run(engine.funnel(shop, question, LIMIT)).unwrap();
    let groups: serde_json::Map<_, _> =
        answer.groups.iter().map(|group| (group.values[0].clone().unwrap(), counts(&group.steps))).collect();
    assert_eq!(Value::Object(groups), answers["funnel_7d_by_platform"]);
}

#[test]
fn weekly_retention() {
    let question = retention::Question {
        range: ALWAYS,
        interval: Interval::Week,
        zone: Zone::UTC,
        cohorts: Cohorts::First,
        start: Filter::default(),
        returns: Filter::default(),
        watched: 100,
        by: Vec::new(),
        max_cohorts: 1000,
    };
    let answer = run(engine().retention(shop(), question, LIMIT)).unwrap();
    let cohorts: Vec<_> = answer
        .cohorts
        .iter()
        .map(|cohort| {
            assert_eq!(cohort.values, Values::new());
            let returned: serde_json::Map<_, _> = cohort
                .returned
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
                .map(|(later, count)| (later.to_string(), json!(count)))
                .collect();
            json!([date(&Zone::UTC, cohort.start), cohort.size, returned])
        })
        .collect();
    assert_eq!(json!(cohorts), answers()["retention_weekly_utc"]);
}

#[test]
fn a_timeline_in_pages() {
    let (engine, shop) = (engine(), shop());
    let mut found = Vec::new();
    let mut after = None;
    for page in [3, 4, 3] {
        let timeline = Timeline {
            user: "user_0007".to_owned(),
            range: ALWAYS,
            filter: Filter::default(),
            newest_first: false,
            after,
            page,
        };
        let answer = run(engine.timeline(Arc::clone(&shop), timeline, LIMIT)).unwrap();
        let column = |name: &str| answer.events.column_by_name(name).unwrap();
        let times = column("time").as_primitive::<TimestampMicrosecondType>().values();
        let offsets = column("log_offset").as_primitive::<arrow::datatypes::Int64Type>().values();
        let names = column("event_name").as_string_view();
        assert!(answer.more && times.len() == page);
        for (row, time) in times.iter().enumerate() {
            let shown = Zone::UTC.local_time(*time).unwrap();
            found.push(json!([shown[..19].replace('T', " "), names.value(row)]));
            after = Some((*time, offsets[row]));
        }
    }
    assert_eq!(json!(found), answers()["timeline_user_0007_first_10"]);
    let profile = run(engine.user(shop, "user_0007".to_owned(), LIMIT)).unwrap();
    assert!(profile.events > 10 && profile.visits > 0, "{profile:?}");
    assert_eq!(profile.did.iter().map(|did| did.events).sum::<u64>(), profile.events);
    assert_eq!(profile.did.iter().map(|did| did.last).max(), profile.last_seen);
}

#[test]
fn names_and_properties() {
    let (engine, shop) = (engine(), shop());
    let question = || weir_query::names::Question { range: ALWAYS, filter: Filter::default(), values: 3 };
    let (names, read) = run(engine.event_names(Arc::clone(&shop), question(), LIMIT)).unwrap();
    let expected = answers();
    let expected: Vec<_> = expected["by_event"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row[0].as_str().unwrap(), row[1].as_u64().unwrap()))
        .collect();
    assert_eq!(names.iter().map(|name| (name.name.as_str(), name.events)).collect::<Vec<_>>(), expected);
    assert_eq!(read.rows, 31_106);
    let (properties, _) = run(engine.properties(shop, question(), LIMIT)).unwrap();
    let platform = properties.iter().find(|property| property.field == field("platform")).unwrap();
    assert_eq!((platform.events, platform.more_values), (31_106, false));
    assert_eq!(platform.kinds, BTreeMap::from([(weir_store::schema::Kind::Text, 31_106)]));
    assert!(platform.values.is_sorted_by_key(|of| std::cmp::Reverse(of.events)));
}

#[test]
fn a_frequent_value_is_found_however_late_it_comes() {
    let with = |value: String| Event {
        user: "ann".to_owned(),
        name: "view".to_owned(),
        texts: vec![("plan".to_owned(), value)],
        ..Event::default()
    };
    let rare = (0..5000).map(|number| with(format!("rare {number}")));
    let events: Vec<Event> = rare.chain((0..2000).map(|_| with("frequent".to_owned()))).collect();
    let question = weir_query::names::Question { range: 0..1, filter: Filter::default(), values: 1 };
    let (properties, _) = run(engine().properties(Held::of(&events, 1000), question, LIMIT)).unwrap();
    let page = properties.iter().find(|property| property.field == field("plan")).unwrap();
    let top = &page.values[0];
    assert_eq!((page.events, page.more_values, top.value.as_str()), (7000, true, "frequent"));
    assert!(top.lower_bound <= 2000 && 2000 <= top.events && top.lower_bound > 1000, "{top:?}");
}
