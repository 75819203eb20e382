use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Zones with a peculiarity each, with moments (Unix seconds) around it.
const PECULIAR: [(&str, i64); 17] = [
    ("UTC", 1_700_000_000),
    ("America/New_York", 1_710_054_000), // clocks forward, 10 March 2024 2:00
    ("America/New_York", 1_730_613_600), // clocks back, 3 November 2024 2:00
    ("Asia/Kolkata", 1_700_000_000),     // +05:30
    ("Asia/Kathmandu", 504_901_800),     // from +05:30 to +05:45, 1986
    ("Australia/Eucla", 1_700_000_000),  // +08:45
    ("Australia/Lord_Howe", 1_712_415_600), // back by half an hour, 7 April 2024
    ("Australia/Lord_Howe", 1_728_142_200), // forward by half an hour, 6 October 2024
    ("America/Sao_Paulo", 1_541_300_400), // forward over midnight, 4 November 2018
    ("America/Sao_Paulo", 1_550_368_800), // back to the day before, 17 February 2019
    ("America/Havana", 1_730_610_000),   // midnight twice, 3 November 2024
    ("America/Toronto", -1_601_753_400), // 23:30 to 0:30, 30 March 1919
    ("Pacific/Apia", 1_325_239_200),     // 30 December 2011 left out
    ("America/St_Johns", 1_320_550_260), // back at 0:01 to the day before, 2011
    ("Africa/Monrovia", 63_593_070),     // -00:44:30 until 1972
    ("Asia/Manila", -3_944_621_000),     // a day left out, 1844
    ("Europe/Amsterdam", -1_025_741_000), // +00:19:32 and +01:19:32, 1937
];

fn at(civil: &str, zone: &str) -> i64 {
    let zone = TimeZone::get(zone).unwrap();
    civil.parse::<jiff::civil::DateTime>().unwrap().to_zoned(zone).unwrap().timestamp().as_microsecond()
}

fn days(zone: &str, from: &str, to: &str) -> Vec<i64> {
    let parsed = Zone::parse(zone).unwrap();
    let buckets = parsed.buckets(Interval::Day, at(from, zone)..at(to, zone), 1000).unwrap();
    buckets.iter().map(|day| (day.end - day.start) / HOUR).collect()
}

#[test]
fn days_are_as_long_as_the_zone_makes_them() {
    assert_eq!(days("America/New_York", "2024-03-09", "2024-03-12"), [24, 23, 24]);
    assert_eq!(days("America/New_York", "2024-11-02", "2024-11-05"), [24, 25, 24]);
    assert_eq!(days("America/Sao_Paulo", "2018-11-03", "2018-11-06"), [24, 23, 24]);
    // Samoa went from 29 to 31 December 2011.
    assert_eq!(days("Pacific/Apia", "2011-12-28", "2012-01-01"), [24, 24, 24]);
}

#[test]
fn a_day_begins_where_the_calendar_first_shows_it() {
    let local = |zone: &str, near: &str| {
        let parsed = Zone::parse(zone).unwrap();
        let day = parsed.bucket(Interval::Day, at(near, zone)).unwrap();
        parsed.local_time(day.start).unwrap()
    };
    assert_eq!(local("America/Sao_Paulo", "2018-11-04T12:00"), "2018-11-04T01:00:00-02:00");
    assert_eq!(local("America/Toronto", "1919-03-31T12:00"), "1919-03-31T00:30:00-04:00");
    assert_eq!(local("America/Havana", "2024-11-03T12:00"), "2024-11-03T00:00:00-04:00");
    assert_eq!(local("Asia/Kolkata", "2024-02-29T00:00"), "2024-02-29T00:00:00+05:30");
}

#[test]
fn weeks_begin_on_monday_and_months_on_the_first() {
    let zone = Zone::parse("America/New_York").unwrap();
    let moment = at("2024-03-10T12:00", "America/New_York");
    let local = |interval| {
        let bucket = zone.bucket(interval, moment).unwrap();
        (zone.local_time(bucket.start).unwrap(), zone.local_time(bucket.end).unwrap())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(local(Interval::Week), pair("2024-03-04T00:00:00-05:00", "2024-03-11T00:00:00-04:00"));
    assert_eq!(local(Interval::Month), pair("2024-03-01T00:00:00-05:00", "2024-04-01T00:00:00-04:00"));
    assert_eq!(local(Interval::Quarter), pair("2024-01-01T00:00:00-05:00", "2024-04-01T00:00:00-04:00"));
    assert_eq!(local(Interval::Year), pair("2024-01-01T00:00:00-05:00", "2025-01-01T00:00:00-05:00"));
}

#[test]
fn the_repeated_hour_is_two_buckets() {
    let zone = Zone::parse("America/New_York").unwrap();
    let range = at("2024-11-03T00:00", "America/New_York")..at("2024-11-03T03:00", "America/New_York");
    let hours = zone.buckets(Interval::Hour, range, 100).unwrap();
    let starts: Vec<_> = hours.iter().map(|hour| zone.local_time(hour.start).unwrap()).collect();
    let expected = ["00:00:00-04:00", "01:00:00-04:00", "01:00:00-05:00", "02:00:00-05:00"];
    assert_eq!(starts, expected.map(|time| format!("2024-11-03T{time}")));
}

#[test]
fn half_an_hour_back_makes_a_bucket_of_its_own() {
    let zone = Zone::parse("Australia/Lord_Howe").unwrap();
    let change = 1_712_415_600 * SECOND;
    let hours = zone.buckets(Interval::Hour, change - HOUR..change + HOUR, 100).unwrap();
    let starts: Vec<_> = hours.iter().map(|hour| zone.local_time(hour.start).unwrap()).collect();
    let expected = ["01:00:00+11:00", "01:30:00+10:30", "02:00:00+10:30"];
    assert_eq!(starts, expected.map(|time| format!("2024-04-07T{time}")));
}

#[test]
fn unknown_zones_and_endless_ranges_are_refused() {
    assert!(Zone::parse("Mars/Olympus").unwrap_err().to_string().contains("Europe/Berlin"));
    assert_eq!(Zone::parse("").unwrap(), Zone::UTC);
    assert_eq!(Zone::UTC.buckets(Interval::Second, 0..HOUR, 100), Err(Error::TooManyBuckets(100)));
    assert_eq!(Zone::UTC.bucket(Interval::Day, i64::MAX), Err(Error::Moment(i64::MAX)));
    assert_eq!(Zone::UTC.bucket(Interval::Hour, i64::MIN), Err(Error::Moment(i64::MIN)));
}

#[test]
fn an_unspecified_interval_gives_about_a_hundred_buckets() {
    let day = 24 * HOUR;
    for (length, interval) in [
        (MINUTE, Interval::Second),
        (HOUR, Interval::Minute),
        (day, Interval::QuarterHour),
        (3 * day, Interval::Hour),
        (90 * day, Interval::Day),
        (365 * day, Interval::Week),
        (2000 * day, Interval::Month),
        (3650 * day, Interval::Quarter),
        (36500 * day, Interval::Year),
    ] {
        assert_eq!(Interval::fitting(&(0..length)), interval, "{length}");
    }
    assert_eq!(Interval::fitting(&(i64::MIN..i64::MAX)), Interval::Year);
}

#[test]
fn days_of_odd_historic_offsets_need_minutes() {
    use crate::{
        cover::cover,
        level::{Level, Retention, Whole},
    };
    // Monrovia was 44 minutes and 30 seconds behind UTC until 1972: a local midnight falls between two minutes.
    let zone = Zone::parse("Africa/Monrovia").unwrap();
    let day = zone.bucket(Interval::Day, at("1971-06-01T12:00", "Africa/Monrovia")).unwrap();
    assert!(cover(day.clone(), &Whole::ALWAYS).is_ok());
    let coarse =
        Retention::new(Some(std::time::Duration::ZERO), Some(std::time::Duration::ZERO), None, None, None);
    let error = cover(day.clone(), &coarse.unwrap().whole(1_700_000_000 * SECOND)).unwrap_err();
    assert_eq!(error, Error::NotCovered { at: day.start, finest: Level::QuarterHour });
}

/// What a clock on the wall in the zone shows.
fn local(zone: &Zone, micros: i64) -> (Offset, jiff::civil::DateTime) {
    let moment = Timestamp::from_microsecond(micros).unwrap();
    let offset = zone.0.to_offset(moment);
    (offset, offset.to_datetime(moment))
}

/// The buckets of [from, to) by watching the clock: it is looked at every `step`, and a bucket begins whenever it shows
/// another period than before (for calendar intervals: a later one).
fn by_watching(zone: &Zone, interval: Interval, from: i64, to: i64, step: i64) -> Vec<i64> {
    let mut starts = Vec::new();
    let mut last = None;
    let mut micros = from;
    while micros < to {
        let (offset, civil) = local(zone, micros);
        let period = match interval.dates(civil.date()) {
            Some(dates) => (None, dates.unwrap().0.at(0, 0, 0, 0)),
            None => {
                let width = interval.nominal_micros() / SECOND;
                let second = i64::from(civil.hour()) * 3600
                    + i64::from(civil.minute()) * 60
                    + i64::from(civil.second());
                let floor = second / width * width;
                let time = civil.date().at(0, 0, 0, 0) + Span::new().seconds(floor);
                (Some(offset.seconds()), time)
            }
        };
        let begins = match (&last, interval.dates(civil.date()).is_some()) {
            (None, _) => false,
            (Some(last), false) => period != *last,
            (Some((_, last)), true) => period.1 > *last,
        };
        if begins {
            starts.push(micros);
        }
        if last.is_none() || begins {
            last = Some(period);
        }
        micros += step;
    }
    starts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn buckets_are_what_watching_the_clock_shows(
        peculiar in prop::sample::select(PECULIAR.to_vec()),
        interval in prop::sample::select(Interval::ALL[2..].to_vec()),
        before in 0i64..200_000, after in 1i64..200_000, moved in any::<bool>(), random in -4_000_000_000i64..4_000_000_000,
    ) {
        let (name, near) = peculiar;
        let zone = Zone::parse(name).unwrap();
        let near = if moved { random } else { near };
        // All changes of all clocks since 1972 are at full minutes; before, at full seconds.
        let step = if near > 80_000_000 && name != "Africa/Monrovia" { MINUTE } else { SECOND };
        let (before, after) = if step == SECOND { (before / 20, after / 20) } else { (before, after) };
        let from = (near - before) * SECOND / step * step;
        let to = (near + after) * SECOND / step * step;
        let buckets = zone.buckets(interval, from..to, 100_000).unwrap();
        prop_assert!(buckets.windows(2).all(|pair| pair[0].end == pair[1].start));
        prop_assert!(buckets.iter().all(|bucket| bucket.start < bucket.end));
        let starts: Vec<_> = buckets.iter().map(|bucket| bucket.start).filter(|start| from < *start).collect();
        prop_assert_eq!(starts, by_watching(&zone, interval, from, to, step));
        for bucket in buckets {
            prop_assert_eq!(zone.bucket(interval, bucket.start).unwrap(), bucket.clone());
            prop_assert_eq!(zone.bucket(interval, bucket.end - 1).unwrap(), bucket);
        }
    }

    #[test]
    fn any_zone_partitions_time(index in 0usize..600, seconds in -5_000_000_000i64..5_000_000_000) {
        let names: Vec<_> = jiff::tz::TimeZoneDatabase::bundled().available().map(|name| name.to_string()).collect();
        let zone = Zone::parse(&names[index % names.len()]).unwrap();
        for interval in Interval::ALL {
            let bucket = zone.bucket(interval, seconds * SECOND).unwrap();
            prop_assert!(bucket.contains(&(seconds * SECOND)));
            prop_assert_eq!(zone.bucket(interval, bucket.start).unwrap(), bucket.clone());
            prop_assert_eq!(zone.bucket(interval, bucket.end).unwrap().start, bucket.end);
        }
    }
}
