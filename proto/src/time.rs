//! Times and durations as whole microseconds, in which everything behind the APIs counts.

use prost_types::{Duration, Timestamp};

/// Microseconds since the Unix epoch, rounded down. Saturates beyond what 64 bits hold.
pub fn micros(time: &Timestamp) -> i64 {
    whole(time.seconds, time.nanos)
}

/// The reverse of [`micros`].
pub fn timestamp(micros: i64) -> Timestamp {
    let nanos = micros.rem_euclid(1_000_000) * 1_000;
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos: i32::try_from(nanos).expect("less than 10^9") }
}

/// Microseconds, rounded towards zero. Saturates beyond what 64 bits hold.
pub fn duration_micros(duration: &Duration) -> i64 {
    whole(duration.seconds, duration.nanos)
}

/// The reverse of [`duration_micros`].
pub fn duration(micros: i64) -> Duration {
    let nanos = micros % 1_000_000 * 1_000;
    Duration { seconds: micros / 1_000_000, nanos: i32::try_from(nanos).expect("less than 10^9") }
}

fn whole(seconds: i64, nanos: i32) -> i64 {
    seconds.saturating_mul(1_000_000).saturating_add(i64::from(nanos) / 1_000)
}

/// The time that a call has, from the header `grpc-timeout`: up to eight digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>). `None` when it is malformed.
pub fn parse_timeout(text: &str) -> Option<std::time::Duration> {
    use std::time::Duration;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// The reverse of [`parse_timeout`], rounded down to what eight digits say.
pub fn format_timeout(time: std::time::Duration) -> String {
    const MOST: u128 = 99_999_999;
    let units = [
        (time.as_nanos(), 'n'),
        (time.as_micros(), 'u'),
        (time.as_millis(), 'm'),
        (time.as_secs().into(), 'S'),
    ];
    let (value, unit) = units.into_iter().find(|(value, _)| *value <= MOST).unwrap_or((MOST, 'S'));
    format!("{value}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_and_written_as_specified() {
        use std::time::Duration;
        assert_eq!(parse_timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "1", "m", "+1S", "123456789S", "1s", "1.5S", "ä"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong}");
        }
        for (time, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_millis(99), "99000000n"),
            (Duration::from_secs(5), "5000000u"),
            (Duration::from_secs(3600), "3600000m"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(format_timeout(time), text);
        }
    }

    #[test]
    fn times_survive_the_conversion() {
        for time in [0, 1, -1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            assert_eq!(micros(&timestamp(time)), time);
        }
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_999_000 });
        assert_eq!(duration(-1_500_000), Duration { seconds: -1, nanos: -500_000_000 });
        assert_eq!(duration_micros(&Duration { seconds: -1, nanos: -500_000_000 }), -1_500_000);
        assert_eq!(micros(&Timestamp { seconds: i64::MAX, nanos: 0 }), i64::MAX);
    }
}
