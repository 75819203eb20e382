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

/// How a column of a file writes times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Whatever is unambiguous: RFC 3339, date and time, date, Unix time in a unit told by its size.
    Auto,
    /// A pattern as of `strftime`.
    Pattern(String),
}

/// The time of an event in a file. Unix times are seconds below 10¹¹ (the year 5138), then milliseconds, microseconds and
/// nanoseconds, each for a thousand times larger numbers.
pub(crate) fn event_time(text: &str, format: &Format, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    let parsed = match format {
        Format::Auto
            if text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-') && !is_date(text) =>
        {
            unix(text)
        }
        Format::Auto => written(text, zone),
        Format::Pattern(pattern) => {
            let broken = jiff::fmt::strtime::parse(pattern, text);
            return broken
                .and_then(|time| match time.to_timestamp() {
                    Ok(timestamp) => Ok(timestamp),
                    Err(_) => {
                        let civil = time.to_datetime().or_else(|_| time.to_date().map(DateTime::from))?;
                        civil.to_zoned(zone.clone()).map(|zoned| zoned.timestamp())
                    }
                })
                .map_err(|error| format!("`{text}` is no time of the form `{pattern}`: {error}"));
        }
    };
    parsed.ok_or_else(|| format!("`{text}` is no time: expected RFC 3339, YYYY-MM-DD HH:MM:SS or Unix time"))
}

/// Digits with dashes within: `2024-01-31`, not `-5` or `1700000000`.
fn is_date(text: &str) -> bool {
    text.get(1..).is_some_and(|rest| rest.contains('-'))
}

fn unix(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let number: i64 = whole.parse().ok()?;
    let nanos_per_unit: i128 = match number.unsigned_abs() {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let mut nanos = i128::from(number) * nanos_per_unit;
    if let Some(fraction) = fraction {
        let digits = fraction.get(..fraction.len().min(9))?;
        let part: i128 = if digits.is_empty() { 0 } else { digits.parse::<u32>().ok()?.into() };
        let part = part * nanos_per_unit / 10i128.pow(digits.len() as u32);
        nanos += if whole.starts_with('-') { -part } else { part };
    }
    Timestamp::from_nanosecond(nanos).ok()
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
    fn event_times_of_every_usual_form_are_read() {
        let at = |text: &str| event_time(text, &Format::Auto, &TimeZone::UTC).unwrap().to_string();
        assert_eq!(at("2024-03-13 10:21:14"), "2024-03-13T10:21:14Z");
        assert_eq!(at("2024-03-13T10:21:14.250+01:00"), "2024-03-13T09:21:14.25Z");
        assert_eq!(at("2024-03-13"), "2024-03-13T00:00:00Z");
        assert_eq!(at("1710325274"), "2024-03-13T10:21:14Z");
        assert_eq!(at("1710325274.5"), "2024-03-13T10:21:14.5Z");
        assert_eq!(at("1710325274250"), "2024-03-13T10:21:14.25Z");
        assert_eq!(at("1710325274250001"), "2024-03-13T10:21:14.250001Z");
        assert_eq!(at("1710325274250001002"), "2024-03-13T10:21:14.250001002Z");
        assert_eq!(at("-1.5"), "1969-12-31T23:59:58.5Z");
        let kolkata = zone("Asia/Kolkata").unwrap();
        let local = event_time("2024-03-13 10:21:14", &Format::Auto, &kolkata).unwrap();
        assert_eq!(local.to_string(), "2024-03-13T04:51:14Z");
        assert!(event_time("soon", &Format::Auto, &TimeZone::UTC).is_err());
        assert!(event_time("", &Format::Auto, &TimeZone::UTC).is_err());
    }

    #[test]
    fn a_pattern_reads_what_nobody_could_guess() {
        let format = Format::Pattern("%d/%m/%Y %H:%M".into());
        let at = event_time("03/04/2024 05:06", &format, &zone("Europe/Berlin").unwrap()).unwrap();
        assert_eq!(at.to_string(), "2024-04-03T03:06:00Z");
        assert!(event_time("2024-04-03", &format, &TimeZone::UTC).unwrap_err().contains("%d/%m"));
    }

    #[test]
    fn times_before_the_epoch_survive_the_schema() {
        let moment: Timestamp = "1969-12-31T23:59:58.5Z".parse().unwrap();
        let proto = to_proto(moment);
        assert_eq!((proto.seconds, proto.nanos), (-2, 500_000_000));
        assert_eq!(from_proto(&proto), moment);
    }
}
