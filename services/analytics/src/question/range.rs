//! Which moments a question is about.

use std::ops::Range;

use weir_proto::{
    analytics::v1 as pb,
    time::{duration_micros, micros},
    validate::{Path, Violations},
};
use weir_rollup::level::{Level, Whole};

/// What the absence of a range means: the last 24 hours, microseconds.
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// A range of time as it was asked for. All in microseconds, since the epoch where it is a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeRange {
    /// From one moment to another.
    Fixed {
        /// First moment.
        start: i64,
        /// Moment after the last.
        end: i64,
    },
    /// From a moment until now.
    Since(i64),
    /// This long until now.
    Last(i64),
}

impl TimeRange {
    /// Reads the range of a request that keeps to its schema.
    pub(crate) fn parse(range: Option<&pb::TimeRange>, at: &Path<'_>, found: &mut Violations) -> Self {
        let nothing = Self::Last(DAY);
        let Some(pb::TimeRange { start_time, end_time, last }) = range else { return nothing };
        let last = last.as_ref().map(duration_micros);
        let (start, end) = (start_time.as_ref().map(micros), end_time.as_ref().map(micros));
        let fixed = |start: i64, end: i64, found: &mut Violations| {
            if start >= end {
                found.add(&at.field("end_time"), "must be after start_time");
            }
            Self::Fixed { start, end }
        };
        match (start, end, last) {
            (None, None, None) => nothing,
            (Some(start), None, None) => Self::Since(start),
            (None, None, Some(last)) => Self::Last(last),
            (Some(start), Some(end), None) => fixed(start, end, found),
            (None, Some(end), Some(last)) => fixed(end.saturating_sub(last), end, found),
            (Some(_), _, Some(_)) => {
                found.add(&at.field("last"), "must not be given beside start_time; leave one of them out");
                nothing
            }
            (None, Some(_), None) => {
                found.add(&at.field("start_time"), "must be given with end_time, or instead of it `last`");
                nothing
            }
        }
    }

    /// Whether it moves with the clock.
    pub(crate) fn is_live(&self) -> bool {
        match self {
            Self::Fixed { .. } => false,
            Self::Since(_) | Self::Last(_) => true,
        }
    }

    /// The moments that it comes down to at `now`.
    ///
    /// "Now" lies inside a bucket; the range goes to the end of that one. One that is so long before now begins likewise at
    /// the end of a bucket, so that it has its length, of the finest level that is whole for `reach` times that length (2,
    /// when the period before it is needed, too).
    ///
    /// A start in the future gives an empty range.
    pub(crate) fn resolve(&self, now: i64, whole: &Whole, reach: i64) -> Range<i64> {
        // The finest level that is whole for so many periods before the end of the bucket that holds `now`.
        let finest = |periods: i64, period: i64| {
            let whole = |level: &Level| {
                let reach = periods.saturating_mul(up_to_bucket(period, *level));
                end_of_bucket(now, *level).saturating_sub(reach) >= whole.since(*level)
            };
            Level::ALL.into_iter().find(whole).unwrap_or(Level::Day)
        };
        match *self {
            Self::Fixed { start, end } => start..end,
            // A bucket that is kept at all is still kept when it ends.
            Self::Since(start) => start..end_of_bucket(now, finest(1, 1)).max(start),
            Self::Last(last) => {
                let level = finest(reach, last);
                let end = end_of_bucket(now, level);
                end.saturating_sub(up_to_bucket(last, level))..end
            }
        }
    }
}

/// A length of time, made up to whole buckets.
fn up_to_bucket(length: i64, level: Level) -> i64 {
    let width = level.width_micros();
    length.saturating_add(width - 1).div_euclid(width).saturating_mul(width)
}

/// The end of the bucket that a moment lies in.
fn end_of_bucket(micros: i64, level: Level) -> i64 {
    level.start_micros(level.bucket_of(micros) + 1)
}
