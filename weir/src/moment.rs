//! Times as people and files write them.

use std::time::Duration;

use jiff::{
    SignedDuration, Span, SpanRelativeTo, Timestamp, Zoned,
    civil::{Date, DateTime},
    tz::TimeZone,
};

/// Parses `1h30m`, `7d`, `90 seconds`; days have 24 hours.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}`: expected a duration such as 30s, 1h30m or 7d");
    let span: Span = text.trim().parse().map_err(|_| wrong())?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(signed).ok().filter(|duration| !duration.is_zero()).ok_or_else(wrong)
}

/// A time zone by its IANA name.
pub(crate) fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("`{name}` is no IANA time zone; expected one such as UTC or Asia/Kolkata"))
}

/// A moment in a question: `now`, `now-1h`, `today`, `yesterday`, `2024-01-31`, `2024-01-31 10:00`, RFC 3339. Dates and
/// times without an offset are those of `zone`'s clock; a date is its first moment.
pub(crate) fn moment(text: &str, zone: &TimeZone, now: Timestamp) -> Result<Timestamp, String> {
    let text = text.trim();
    let wrong = || {
        format!("`{text}`: expected 2024-01-31, 2024-01-31T10:00, RFC 3339, now, now-1h, today or yesterday")
    };
    let start_of = |zoned: Zoned| zoned.start_of_day().map(|day| day.timestamp()).map_err(|_| wrong());
    match text {
        "now" => return Ok(now),
        "today" => return start_of(now.to_zoned(zone.clone())),
        "yesterday" => return start_of(now.to_zoned(zone.clone()).yesterday().map_err(|_| wrong())?),
        _ => {}
    }
    if let Some(rest) = text.strip_prefix("now") {
        let (sign, rest) = rest.trim_start().split_at_checked(1).ok_or_else(wrong)?;
        let distance = SignedDuration::try_from(duration(rest)?).map_err(|_| wrong())?;
        let moved = match sign {
            "-" => now.checked_sub(distance),
            "+" => now.checked_add(distance),
            _ => return Err(wrong()),
        };
        return moved.map_err(|_| wrong());
    }
    written(text, zone).ok_or_else(wrong)
}

/// RFC 3339, or a date with or without a time of `zone`'s clock.
fn written(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    // A clock time that a zone skips or repeats is read as RFC 5545 says: the offset before the change.
    let civil = match text.parse::<DateTime>() {
        Ok(civil) => civil,
        Err(_) => text.parse::<Date>().ok()?.to_datetime(jiff::civil::Time::midnight()),
    };
    civil.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp())
}

/// As the schema has it.
pub(crate) fn to_proto(moment: Timestamp) -> prost_types::Timestamp {
    // Protobuf counts nanoseconds forwards from the second, jiff towards zero.
    let nanos = moment.as_nanosecond();
    prost_types::Timestamp {
        seconds: nanos.div_euclid(1_000_000_000) as i64,
        nanos: nanos.rem_euclid(1_000_000_000) as i32,
    }
}

/// From the schema; out-of-range values, which no service sends, become the epoch.
pub(crate) fn from_proto(moment: &prost_types::Timestamp) -> Timestamp {
    Timestamp::new(moment.seconds, moment.nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// As the schema has it.
pub(crate) fn duration_to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2024-03-10T12:00:00Z";

    fn ask(text: &str, zone_name: &str) -> String {
        moment(text, &zone(zone_name).unwrap(), NOW.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn moments_are_read_in_the_zone() {
        assert_eq!(ask("2024-01-01", "UTC"), "2024-01-01T00:00:00Z");
        assert_eq!(ask("2024-01-01", "Asia/Kolkata"), "2023-12-31T18:30:00Z");
        assert_eq!(ask("2024-01-01 10:30", "America/New_York"), "2024-01-01T15:30:00Z");
        assert_eq!(ask("2024-01-01T10:00:00+02:00", "UTC"), "2024-01-01T08:00:00Z");
        assert_eq!(ask("now-1h30m", "UTC"), "2024-03-10T10:30:00Z");
        assert_eq!(ask("now - 1d", "UTC"), "2024-03-09T12:00:00Z");
        assert_eq!(ask("today", "America/New_York"), "2024-03-10T05:00:00Z");
        assert_eq!(ask("yesterday", "Asia/Kolkata"), "2024-03-08T18:30:00Z");
    }

    #[test]
    fn what_is_no_moment_says_what_is() {
        for text in ["", "nowish", "now*1h", "2024-13-01", "10:00", "now-"] {
            let error = moment(text, &TimeZone::UTC, Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(error.contains("expected"), "{text}: {error}");
        }
    }

    #[test]
    fn times_before_the_epoch_survive_the_schema() {
        let moment: Timestamp = "1969-12-31T23:59:58.5Z".parse().unwrap();
        let proto = to_proto(moment);
        assert_eq!((proto.seconds, proto.nanos), (-2, 500_000_000));
        assert_eq!(from_proto(&proto), moment);
    }
}
