//! How a watermark moves: forwards, unless the clock that it is made of was set back.
//!
//! Watermarks are the highest append times. A clock that was ahead for a moment would leave a watermark in the future, which no
//! later append time reaches: everything live would be late, and time would stand still until the clock catches up. So an append
//! time that lies far below the watermark is taken for what it is, the word of a clock that was put right, and the watermark falls
//! to it.

/// Below the watermark by more than this, an append time shows that the clock was set back, in microseconds. Clocks of well-kept
/// machines differ by far less, and so do the append times of one partition; whoever is behind by less catches up in a minute.
pub const SET_BACK_MICROS: i64 = 60_000_000;

/// The watermark after a later append time, both in microseconds since the epoch.
#[inline]
pub fn advance(known: i64, seen: i64) -> i64 {
    if seen < known.saturating_sub(SET_BACK_MICROS) && seen != i64::MIN { seen } else { known.max(seen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_falls_only_to_a_clock_that_was_set_back() {
        let day = 86_400_000_000;
        let now = 20_000 * day;
        assert_eq!(advance(i64::MIN, now), now);
        assert_eq!(advance(now, i64::MIN), now, "nothing was seen");
        assert_eq!(advance(now, now + 1), now + 1);
        assert_eq!(advance(now, now - SET_BACK_MICROS), now);
        assert_eq!(advance(now + 400 * day, now), now);
    }
}
