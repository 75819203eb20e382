//! Times in the cells of a file.

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time},
    fmt::{rfc2822, strtime},
    tz::TimeZone,
};

/// How a column writes times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Every form that can be read in one way only; see [`read`].
    Auto,
    /// A pattern as of `strftime`.
    Pattern(String),
}

/// Patterns that are tried on a time that can't be read, to name those that fit. Days before months and months before days
/// are both here: for `03/04/2024` the message names both.
const PATTERNS: &[&str] = &[
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %I:%M %p",
    "%m/%d/%Y %I:%M %p",
    "%d/%m/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%y",
    "%d/%m/%y",
    "%m/%d/%y %H:%M",
    "%d/%m/%y %H:%M",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d-%m-%Y %H:%M",
    "%d-%m-%Y %H:%M:%S",
    "%m-%d-%Y %H:%M:%S",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M",
    "%Y.%m.%d %H:%M:%S",
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %I:%M %p",
    "%Y-%m-%d-%H-%M-%S",
    "%Y-%m-%d_%H:%M:%S",
    "%Y-%m",
    "%Y/%m",
    "%b %d %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y %H:%M",
    "%d %b %Y %H:%M:%S",
    "%b %d, %Y %I:%M:%S %p",
    "%b %d, %Y, %I:%M:%S %p",
    "%B %d, %Y %I:%M %p",
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %Y %H:%M:%S",
    "%a %b %d %H:%M:%S %z %Y",
    "%d/%b/%Y:%H:%M:%S %z",
    "%Y-%m-%d %H:%M:%S %Q",
    "%Y%m%d",
    "%Y%m%d%H%M",
    "%Y%m",
    "%Y",
];

/// In the text of a time that a typed file holds and no text of a time can express.
pub(super) const OUT_OF_RANGE: &str = "since 1970, outside the years";

/// Years that a proposed pattern may read: with others it fits by accident.
const YEARS: std::ops::RangeInclusive<i16> = 1800..=2200;

/// Patterns in one message at most.
const NAMED_PATTERNS: usize = 2;

/// Digits of a Unix time in seconds, at least: 100000000 is 1973-03-03. Shorter numbers are years, compact dates, days of a
/// spreadsheet or placeholders, which are never taken for times of 1970.
const UNIX_DIGITS: usize = 9;

/// The time in a cell. Without a pattern these are read: RFC 3339 and ISO 8601, the same with blanks before an offset or `UTC`
/// or `GMT` behind it, slashes in place of dashes in year/month/day, RFC 2822, compact dates (`20240115`, `20240115103000`),
/// and Unix times of 9 to 19 digits, whose unit follows from their length: seconds (9 to 11), milliseconds (12, 13),
/// microseconds (15, 16), nanoseconds (18, 19). Times without an offset are those of `zone`'s clock.
///
/// # Errors
/// In words, with a pattern that reads this cell where there is one.
pub(crate) fn read(text: &str, format: &Format, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    match format {
        Format::Pattern(pattern) => by_pattern(text, pattern, zone)
            .map_err(|error| format!("`{text}` is no time of the form `{pattern}`: {error}")),
        Format::Auto => match is_number(text) {
            true => number(text, zone),
            false => written(text, zone).ok_or_else(|| unreadable(text, zone)),
        },
    }
}

fn by_pattern(text: &str, pattern: &str, zone: &TimeZone) -> Result<Timestamp, jiff::Error> {
    let mut time = strtime::parse(pattern, text)?;
    if let Ok(timestamp) = time.to_zoned().map(|zoned| zoned.timestamp()).or_else(|_| time.to_timestamp()) {
        return Ok(timestamp);
    }
    // A month is its first day, a year its first month.
    let is_other = time.day_of_year().is_some() || time.iso_week().is_some();
    if time.year().is_some() && !is_other {
        if time.month().is_none() && time.day().is_none() {
            time.set_month(Some(1))?;
        }
        if time.day().is_none() {
            time.set_day(Some(1))?;
        }
    }
    let civil = time.to_datetime().or_else(|_| time.to_date().map(DateTime::from))?;
    civil.to_zoned(zone.clone()).map(|zoned| zoned.timestamp())
}

fn written(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    // A clock time that a zone skips or repeats is read as RFC 5545 says: the offset before the change.
    let civil = |text: &str, zone: &TimeZone| {
        let civil = match text.parse::<DateTime>() {
            Ok(civil) => civil,
            Err(_) => text.parse::<Date>().ok()?.to_datetime(Time::midnight()),
        };
        civil.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp())
    };
    // `YYYY/MM/DD` has one meaning.
    let bytes = text.as_bytes();
    let is_slashed = bytes.len() >= 10
        && (bytes[4], bytes[7]) == (b'/', b'/')
        && [0, 1, 2, 3, 5, 6, 8, 9].iter().all(|&at: &usize| bytes[at].is_ascii_digit());
    let dashed;
    let text = match is_slashed {
        true => {
            dashed = text.replacen('/', "-", 2);
            &dashed
        }
        false => text,
    };
    for name in [" UTC", " GMT", "UTC", "GMT", " Z"] {
        if let Some(time) = text.strip_suffix(name).and_then(|rest| civil(rest, &TimeZone::UTC)) {
            return Some(time);
        }
    }
    // `2024-01-15 10:00:00 +0000`
    if let Some((time, offset)) = text.rsplit_once(' ').filter(|(_, offset)| offset.starts_with(['+', '-']))
        && let Ok(time) = format!("{time}{offset}").parse()
    {
        return Some(time);
    }
    if let Some(timestamp) = text.parse::<Timestamp>().ok().or_else(|| civil(text, zone)) {
        return Some(timestamp);
    }
    rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

/// Digits with a sign or a fraction.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !whole.is_empty() && all_digits(whole) && all_digits(fraction)
}

fn number(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    let whole = text.trim_start_matches('-').split('.').next().unwrap_or_default();
    let is_plain = whole.len() == text.len();
    let compact = |pattern: &str, len: usize| {
        // Only years that people have data of: a Unix time rarely looks like one of them.
        (is_plain && text.len() == len && matches!(text.get(..2), Some("19" | "20" | "21")))
            .then(|| by_pattern(text, pattern, zone).ok())
            .flatten()
    };
    let nanos_per_unit = match whole.len() {
        8 => return compact("%Y%m%d", 8).ok_or_else(|| unreadable(text, zone)),
        12 if compact("%Y%m%d%H%M", 12).is_some() => {
            return Err(format!(
                "`{text}` may be a compact date or Unix time in milliseconds; say which with \
                 --time-format '%Y%m%d%H%M', or write the time out"
            ));
        }
        14 => return compact("%Y%m%d%H%M%S", 14).ok_or_else(|| unreadable(text, zone)),
        17 => {
            let millis = text.get(14..).and_then(|millis| millis.parse::<i64>().ok());
            let second = text.get(..14).filter(|_| is_plain).and_then(|second| number(second, zone).ok());
            let time =
                second.zip(millis).map(|(second, millis)| second + jiff::SignedDuration::from_millis(millis));
            return time.ok_or_else(|| unreadable(text, zone));
        }
        UNIX_DIGITS..=11 => 1_000_000_000,
        12 | 13 => 1_000_000,
        15 | 16 => 1_000,
        18 | 19 => 1,
        _ => return Err(unreadable(text, zone)),
    };
    unix(text, nanos_per_unit).ok_or_else(|| unreadable(text, zone))
}

fn year(time: Timestamp) -> i16 {
    time.to_zoned(TimeZone::UTC).year()
}

fn unix(text: &str, nanos_per_unit: i128) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut nanos = whole.parse::<i128>().ok()? * nanos_per_unit;
    let digits = fraction.get(..fraction.len().min(9))?;
    let part = if digits.is_empty() { 0 } else { digits.parse::<i128>().ok()? };
    let part = part * nanos_per_unit / 10i128.pow(digits.len() as u32);
    nanos += if whole.starts_with('-') { -part } else { part };
    Timestamp::from_nanosecond(nanos).ok()
}

/// Why a time can't be read, with what can be done about it.
fn unreadable(text: &str, zone: &TimeZone) -> String {
    if text.is_empty() {
        return "the time is empty".to_owned();
    }
    if text.parse::<DateTime>().is_ok() || text.contains(OUT_OF_RANGE) {
        return format!("`{text}` lies outside the years that are stored, up to 9999-12-30");
    }
    let fitting: Vec<String> = PATTERNS
        .iter()
        .filter(|pattern| by_pattern(text, pattern, zone).is_ok_and(|time| YEARS.contains(&year(time))))
        .take(NAMED_PATTERNS)
        .map(|pattern| format!("'{pattern}'"))
        .collect();
    let hint = match fitting.as_slice() {
        [] if is_number(text) => {
            let is_serial = text.parse().is_ok_and(|days: f64| (20_000.0..80_000.0).contains(&days));
            let serial = "it looks like the day number of a spreadsheet: format the column as a date there. ";
            format!(
                "{}Unix times have 9 digits or more; --time-format '%s' reads any number as seconds",
                if is_serial { serial } else { "" }
            )
        }
        [] => "expected RFC 3339, YYYY-MM-DD HH:MM:SS or Unix time; describe other forms with --time-format, such as \
               --time-format '%d/%m/%Y %H:%M'"
            .to_owned(),
        fitting => format!("read it with --time-format {}", fitting.join(" or ")),
    };
    format!("`{text}` is no time that can be read in one way only: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> String {
        read(text, &Format::Auto, &TimeZone::UTC).map_or_else(|error| format!("! {error}"), |t| t.to_string())
    }

    #[test]
    fn usual_forms_are_read_without_a_pattern() {
        for text in [
            "2015-05-20 21:34:02 UTC",
            "2015-05-20 21:34:02.000000000 UTC",
            "2015-05-20 21:34:02 GMT",
            "2015-05-20 21:34:02Z",
            "2015-05-20 21:34:02 Z",
            "2015-05-20 21:34:02 +0000",
            "2015-05-20 21:34:02 +00:00",
            "2015-05-20 21:34:02+00",
            "2015-05-20 23:34:02 +0200",
            "2015-05-20T21:34:02+00:00",
            "2015/05/20 21:34:02",
            "2015/05/20 21:34:02 UTC",
            "20150520T213402Z",
            "20150520213402",
            "20150520213402000",
            "Wed, 20 May 2015 21:34:02 GMT",
            "Wed, 20 May 2015 21:34:02 +0000",
            "20 May 2015 23:34:02 +0200",
            "2015-05-20T21:34:02",
            " 2015-05-20 21:34:02 ",
            "1432157642",
            "1432157642000",
            "1432157642000000",
            "1432157642000000000",
            "1432157642.0",
        ] {
            assert_eq!(at(text), "2015-05-20T21:34:02Z", "{text}");
        }
        for digits in 1..=9 {
            let fraction = &"123456789"[..digits];
            for name in [" UTC", " GMT", "Z", ""] {
                let expected = format!("2015-05-20T21:34:02.{fraction}Z");
                assert_eq!(at(&format!("2015-05-20 21:34:02.{fraction}{name}")), expected);
            }
        }
        assert_eq!(at("2024-01-15T10:00Z"), "2024-01-15T10:00:00Z");
        assert_eq!(at("2024/01/15"), "2024-01-15T00:00:00Z");
        assert_eq!(at("20240115"), "2024-01-15T00:00:00Z");
        assert_eq!(at("19000101"), "1900-01-01T00:00:00Z");
        assert_eq!(at("20240115103000123"), "2024-01-15T10:30:00.123Z");
        assert_eq!(at("1710325274.5"), "2024-03-13T10:21:14.5Z");
        assert_eq!(at("-1710325274"), "1915-10-21T13:38:46Z");
    }

    #[test]
    fn times_without_an_offset_are_those_of_the_zone() {
        let zone = crate::moment::zone("Asia/Kolkata").unwrap();
        for text in ["2024-03-13 10:21:14", "2024/03/13 10:21:14", "20240313102114"] {
            let local = read(text, &Format::Auto, &zone).unwrap();
            assert_eq!(local.to_string(), "2024-03-13T04:51:14Z", "{text}");
        }
        let utc = read("2024-03-13 10:21:14 UTC", &Format::Auto, &zone).unwrap();
        assert_eq!(utc.to_string(), "2024-03-13T10:21:14Z");
    }

    #[test]
    fn short_numbers_are_no_unix_times() {
        for text in ["0", "1", "-1", "2024", "45306", "45306.5", "202401", "99999999", "20241315", "1e9"] {
            assert!(at(text).contains("--time-format"), "{text}: {}", at(text));
        }
        assert!(at("45306").contains("spreadsheet"));
        assert!(at("2024").contains("'%Y'"));
        assert!(at("202401151030").contains("%Y%m%d%H%M"));
        for text in ["99999999999999", "20240115993000", "999999999999999999999"] {
            assert!(at(text).starts_with('!'), "{text}: {}", at(text));
        }
    }

    #[test]
    fn other_forms_are_refused_with_patterns_that_read_them() {
        for (text, patterns, expected) in [
            ("03/04/2024 05:06", vec!["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"], "2024-04-03T05:06:00Z"),
            ("13.04.2024", vec!["%d.%m.%Y"], "2024-04-13T00:00:00Z"),
            ("12/31/2024 11:59:59 PM", vec!["%m/%d/%Y %I:%M:%S %p"], "2024-12-31T23:59:59Z"),
            ("Jan 15, 2024", vec!["%b %d, %Y"], "2024-01-15T00:00:00Z"),
            ("15/Jan/2024:10:00:00 +0100", vec!["%d/%b/%Y:%H:%M:%S %z"], "2024-01-15T09:00:00Z"),
            ("2024-01", vec!["%Y-%m"], "2024-01-01T00:00:00Z"),
            ("2024", vec!["%Y"], "2024-01-01T00:00:00Z"),
            ("2024-01-15 10:00:00 America/New_York", vec!["%Y-%m-%d %H:%M:%S %Q"], "2024-01-15T15:00:00Z"),
        ] {
            let said = at(text);
            for pattern in &patterns {
                assert!(said.contains(&format!("'{pattern}'")), "{text}: {said}");
            }
            let format = Format::Pattern(patterns[0].to_owned());
            assert_eq!(read(text, &format, &TimeZone::UTC).unwrap().to_string(), expected, "{text}");
        }
        assert!(at("9999-12-31T00:00:00").contains("9999-12-30"));
        for text in ["soon", "", "10:00", "2024-13-01"] {
            assert!(at(text).starts_with('!'), "{text}: {}", at(text));
        }
        assert!(at("soon").contains("--time-format"));
    }

    #[test]
    fn a_pattern_is_all_that_is_read() {
        let format = Format::Pattern("%d/%m/%Y %H:%M".into());
        let berlin = crate::moment::zone("Europe/Berlin").unwrap();
        assert_eq!(read("03/04/2024 05:06", &format, &berlin).unwrap().to_string(), "2024-04-03T03:06:00Z");
        assert!(read("2024-04-03", &format, &TimeZone::UTC).unwrap_err().contains("%d/%m"));
        let seconds = Format::Pattern("%s".into());
        assert_eq!(read("0", &seconds, &TimeZone::UTC).unwrap(), Timestamp::UNIX_EPOCH);
    }
}
