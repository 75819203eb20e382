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

#[cfg(test)]
mod tests {
    use super::*;

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
