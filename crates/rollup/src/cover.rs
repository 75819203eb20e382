//! The fewest cells that cover a range of time exactly.

use std::ops::Range;

use crate::{
    Error,
    level::{Level, Whole},
};

/// Consecutive buckets of one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Their level.
    pub level: Level,
    /// Their numbers.
    pub buckets: Range<i64>,
}

/// Covers the moments `[start, end)` (microseconds since the Unix epoch) exactly, each once, by the fewest buckets that are
/// whole, in order of time. An empty or reversed range has the empty cover.
///
/// # Errors
/// [`Error::NotCovered`] when a boundary falls inside the finest bucket that is whole there: at a time of day older than
/// the fine levels, or at midnight in a zone whose offset then was not a multiple of 15 minutes.
pub fn cover(range: Range<i64>, whole: &Whole) -> Result<Vec<Span>, Error> {
    let mut spans: Vec<Span> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let kept = |level: &Level| at >= whole.since(*level);
        // Coarsest first. Each level divides the next and is kept no longer than it, so taking the coarsest bucket that fits
        // is the least number of buckets.
        let fits = |level: &Level| {
            let width = level.width_micros();
            kept(level) && at.rem_euclid(width) == 0 && range.end - at >= width
        };
        let Some(level) = Level::ALL.into_iter().rev().find(fits) else {
            let finest = Level::ALL.into_iter().find(kept).unwrap_or(Level::Day);
            let width = finest.width_micros();
            let boundary = if at.rem_euclid(width) == 0 { range.end } else { at };
            return Err(Error::NotCovered { at: boundary, finest });
        };
        let bucket = level.bucket_of(at);
        // Days run on to the end of the range; finer buckets at most to the next coarser one.
        let count = if level == Level::Day { (range.end - at) / level.width_micros() } else { 1 };
        match spans.last_mut() {
            Some(last) if last.level == level => last.buckets.end = bucket + count,
            _ => spans.push(Span { level, buckets: bucket..bucket + count }),
        }
        at += count * level.width_micros();
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::level::Retention;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 86_400 * SECOND;

    fn hours(n: u64) -> Option<Duration> {
        Some(Duration::from_secs(n * 3600))
    }

    /// Seconds for an hour, minutes for two days, the rest for ever.
    fn kept() -> Retention {
        Retention::new(hours(1), hours(48), None, None, None).unwrap()
    }

    #[test]
    fn a_long_range_takes_few_buckets() {
        let spans = cover(3..10 * DAY - 60 * SECOND, &Whole::ALWAYS).unwrap_err();
        assert_eq!(spans, Error::NotCovered { at: 3, finest: Level::Second });
        let spans = cover(3 * SECOND..10 * DAY - 60 * SECOND, &Whole::ALWAYS).unwrap();
        let levels: Vec<_> =
            spans.iter().map(|span| (span.level, span.buckets.end - span.buckets.start)).collect();
        use Level::*;
        let expected = [
            (Second, 57),
            (Minute, 14),
            (QuarterHour, 3),
            (Hour, 23),
            (Day, 8),
            (Hour, 23),
            (QuarterHour, 3),
            (Minute, 14),
        ];
        assert_eq!(levels, expected);
    }

    #[test]
    fn a_boundary_that_is_kept_no_longer_is_named() {
        // A minute within a quarter hour, ten days ago.
        let now = 1_000 * DAY;
        let start = now - 10 * DAY;
        let error = cover(start..start + 20 * 60 * SECOND, &kept().whole(now)).unwrap_err();
        assert_eq!(error, Error::NotCovered { at: start + 20 * 60 * SECOND, finest: Level::QuarterHour });
        assert!(error.to_string().contains("one quarter hour and wider"), "{error}");
        // The same boundaries an hour ago.
        assert!(cover(now - 3600 * SECOND..now - 2400 * SECOND, &kept().whole(now)).is_ok());
    }

    #[test]
    fn empty_ranges_need_nothing() {
        assert_eq!(cover(5..5, &kept().whole(0)), Ok(vec![]));
        assert_eq!(cover(Range { start: 5, end: -5 }, &kept().whole(0)), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn every_moment_is_covered_once_by_kept_buckets(
            now in 0i64..200_000, back in 0i64..300_000, length in 0i64..300_000, grain in prop::sample::select(vec![1i64, 60, 900, 3600]),
        ) {
            // Seconds are the finest buckets, so whole seconds tell all there is to tell.
            let start = (now - back).div_euclid(grain) * grain;
            let end = start + length / grain * grain;
            let retention = kept();
            match cover(start * SECOND..end * SECOND, &retention.whole(now * SECOND)) {
                Ok(spans) => {
                    let mut at = start * SECOND;
                    for Span { level, buckets } in spans {
                        prop_assert!(buckets.start < buckets.end);
                        prop_assert_eq!(level.start_micros(buckets.start), at);
                        prop_assert!(at >= retention.horizon_micros(level, now * SECOND));
                        at = level.start_micros(buckets.end);
                    }
                    prop_assert_eq!(at, end.max(start) * SECOND);
                }
                Err(error) => {
                    // Only because a boundary is not on the finest level kept there.
                    let Error::NotCovered { at, finest } = error else { panic!("{error}") };
                    prop_assert!(at == start * SECOND || at == end * SECOND);
                    prop_assert!(at.rem_euclid(finest.width_micros()) != 0);
                }
            }
        }

        #[test]
        fn no_cover_has_fewer_buckets(start in 0i64..20_000, length in 0i64..20_000) {
            // The least number by dynamic programming over all buckets, in quarter hours.
            let quarter = Level::QuarterHour.width_micros();
            let widths: [usize; 3] = [1, 4, 96];
            let (start, length) = (start % 300, (length % 300) as usize);
            let mut least = vec![0usize; length + 1];
            for end in 1..=length {
                least[end] = widths.iter()
                    .filter(|width| end >= **width && (start + (end - **width) as i64) % **width as i64 == 0)
                    .map(|width| least[end - width] + 1)
                    .min().unwrap();
            }
            let range = start * quarter..(start + length as i64) * quarter;
            let spans = cover(range, &Whole::ALWAYS).unwrap();
            let buckets: i64 = spans.iter().map(|span| span.buckets.end - span.buckets.start).sum();
            prop_assert_eq!(buckets as usize, least[length]);
        }
    }
}
