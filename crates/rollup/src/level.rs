//! Widths of time buckets, and how long each is kept.

use std::{fmt, time::Duration};

use weir_proto::rollup::v1 as proto;

use crate::Error;

/// Width of a time bucket. Each divides the next, and all are aligned to the Unix epoch in UTC. In order, finest first.
///
/// Quarter hours are the finest step between the offsets of today's time zones: local days add up from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// One second.
    Second = 1,
    /// One minute.
    Minute = 2,
    /// Fifteen minutes.
    QuarterHour = 3,
    /// One hour.
    Hour = 4,
    /// One day of UTC.
    Day = 5,
}

impl Level {
    /// Every level, finest first.
    pub const ALL: [Level; 5] = [Level::Second, Level::Minute, Level::QuarterHour, Level::Hour, Level::Day];

    /// Width of a bucket, microseconds.
    pub const fn width_micros(self) -> i64 {
        const SECOND: i64 = 1_000_000;
        match self {
            Level::Second => SECOND,
            Level::Minute => 60 * SECOND,
            Level::QuarterHour => 15 * 60 * SECOND,
            Level::Hour => 60 * 60 * SECOND,
            Level::Day => 24 * 60 * 60 * SECOND,
        }
    }

    /// Number of the bucket that a moment (microseconds since the Unix epoch) falls into.
    pub const fn bucket_of(self, micros: i64) -> i64 {
        micros.div_euclid(self.width_micros())
    }

    /// First moment of a bucket, microseconds since the Unix epoch. Saturates for numbers that no moment has.
    pub const fn start_micros(self, bucket: i64) -> i64 {
        bucket.saturating_mul(self.width_micros())
    }

    /// The number, at a coarser (or the same) level, of the bucket that holds bucket `bucket` of this level.
    pub const fn bucket_at(self, bucket: i64, coarser: Level) -> i64 {
        bucket.div_euclid(coarser.width_micros() / self.width_micros())
    }

    /// This level and every coarser one, finest first: those to which a cell of this level is added.
    pub fn and_coarser(self) -> impl Iterator<Item = Level> + Clone {
        Level::ALL.into_iter().filter(move |level| *level >= self)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Second => "second",
            Level::Minute => "minute",
            Level::QuarterHour => "quarter hour",
            Level::Hour => "hour",
            Level::Day => "day",
        })
    }
}

impl From<Level> for proto::Level {
    fn from(level: Level) -> proto::Level {
        match level {
            Level::Second => proto::Level::Second,
            Level::Minute => proto::Level::Minute,
            Level::QuarterHour => proto::Level::QuarterHour,
            Level::Hour => proto::Level::Hour,
            Level::Day => proto::Level::Day,
        }
    }
}

/// From the number in [`proto::Cell::level`].
impl TryFrom<i32> for Level {
    type Error = Error;

    fn try_from(number: i32) -> Result<Level, Error> {
        match proto::Level::try_from(number) {
            Ok(proto::Level::Second) => Ok(Level::Second),
            Ok(proto::Level::Minute) => Ok(Level::Minute),
            Ok(proto::Level::QuarterHour) => Ok(Level::QuarterHour),
            Ok(proto::Level::Hour) => Ok(Level::Hour),
            Ok(proto::Level::Day) => Ok(Level::Day),
            Ok(proto::Level::Unspecified) | Err(_) => {
                Err(Error::Malformed(format!("there is no bucket level {number}")))
            }
        }
    }
}

/// How long the buckets of each level are kept; `None`: for ever. A coarser level is kept at least as long as a finer one,
/// and the coarsest is what is left of any older event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    kept: [Option<Duration>; 5],
}

impl Retention {
    /// Periods by level, finest first, `None` for ever.
    ///
    /// # Errors
    /// When a coarser level would be kept for less time than a finer one.
    pub fn new(
        second: Option<Duration>,
        minute: Option<Duration>,
        quarter_hour: Option<Duration>,
        hour: Option<Duration>,
        day: Option<Duration>,
    ) -> Result<Retention, Error> {
        let kept = [second, minute, quarter_hour, hour, day];
        for (finer, coarser) in Level::ALL.into_iter().zip(Level::ALL.into_iter().skip(1)) {
            let of = |level: Level| kept[level as usize - 1].unwrap_or(Duration::MAX);
            if of(coarser) < of(finer) {
                return Err(Error::Catalog(format!(
                    "buckets of one {coarser} are kept for less time than those of one {finer}: keep them at least as long"
                )));
            }
        }
        Ok(Retention { kept })
    }

    /// Every level for ever.
    pub const FOREVER: Retention = Retention { kept: [None; 5] };

    /// How long the buckets of a level are kept; `None`: for ever.
    pub fn of(&self, level: Level) -> Option<Duration> {
        self.kept[level as usize - 1]
    }

    /// The finest level at which an event of this age (append time minus corrected time, microseconds; negative for one
    /// ahead of the log's clock) is kept: the level of its cell. The coarsest when it is too old for all.
    pub fn finest(&self, age_micros: i64) -> Level {
        let holds = |level: &Level| self.span_micros(*level) >= age_micros;
        Level::ALL.into_iter().find(holds).unwrap_or(Level::Day)
    }

    /// The first moment that a level still holds whole when `now_micros` is the newest append time counted: earlier buckets
    /// may lack events and may be dropped. Microseconds since the Unix epoch, the start of a bucket; [`i64::MIN`] when kept
    /// for ever.
    ///
    /// An event at or after it was at most the level's retention old whenever the log took it, so [`Retention::finest`] put
    /// it at this level or a finer one.
    pub fn horizon_micros(&self, level: Level, now_micros: i64) -> i64 {
        if self.of(level).is_none() {
            return i64::MIN;
        }
        let width = level.width_micros();
        let moment = now_micros.saturating_sub(self.span_micros(level));
        match moment.rem_euclid(width) {
            0 => moment,
            past => moment.saturating_add(width - past),
        }
    }

    /// [`Retention::horizon_micros`] of every level.
    pub fn whole(&self, now_micros: i64) -> Whole {
        Whole { since: Level::ALL.map(|level| self.horizon_micros(level, now_micros)) }
    }

    /// The wire form, `Claim.kept_micros`.
    pub fn to_micros(&self) -> Vec<i64> {
        Level::ALL.map(|level| self.span_micros(level)).to_vec()
    }

    /// From the wire form; `None` when it is none.
    pub fn from_micros(kept: &[i64]) -> Option<Retention> {
        let kept: [i64; Level::ALL.len()] = kept.try_into().ok()?;
        let mut periods = [None; Level::ALL.len()];
        for (period, micros) in periods.iter_mut().zip(kept) {
            if micros != i64::MAX {
                *period = Some(Duration::from_micros(micros.try_into().ok()?));
            }
        }
        let [second, minute, quarter_hour, hour, day] = periods;
        Retention::new(second, minute, quarter_hour, hour, day).ok()
    }

    fn span_micros(&self, level: Level) -> i64 {
        self.of(level).map_or(i64::MAX, |kept| i64::try_from(kept.as_micros()).unwrap_or(i64::MAX))
    }
}

/// By level: the first moment from which its buckets hold every event. Microseconds since the Unix epoch, starts of buckets;
/// [`i64::MIN`] where nothing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    since: [i64; Level::ALL.len()],
}

impl Whole {
    /// Nothing is missing.
    pub const ALWAYS: Whole = Whole { since: [i64::MIN; Level::ALL.len()] };
    /// Nothing can be relied on.
    pub const NEVER: Whole = Whole { since: [i64::MAX; Level::ALL.len()] };

    /// Since when the level is whole.
    pub const fn since(&self, level: Level) -> i64 {
        self.since[level as usize - 1]
    }

    /// Where both are whole.
    pub fn and(self, other: Whole) -> Whole {
        Whole { since: Level::ALL.map(|level| self.since(level).max(other.since(level))) }
    }

    /// Notes a cell whose events are in no finer level: somewhere in its bucket these lack events, but not from the moment on
    /// from which its writer kept them (`writer`: [`Retention::whole`] when it wrote).
    pub fn missed_by_finer(&mut self, level: Level, bucket: i64, writer: &Whole) {
        let end = level.start_micros(bucket.saturating_add(1));
        for finer in Level::ALL.into_iter().take_while(|finer| *finer < level) {
            let since = &mut self.since[finer as usize - 1];
            *since = end.min(writer.since(finer)).max(*since);
        }
    }

    /// The wire form, `SnapshotHeader.whole_since_micros`.
    pub fn to_micros(&self) -> Vec<i64> {
        self.since.to_vec()
    }

    /// From the wire form; `None` when it is none.
    pub fn from_micros(since: &[i64]) -> Option<Whole> {
        Some(Whole { since: since.try_into().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn default_retention() -> Retention {
        let hours = |n: u64| Some(Duration::from_secs(n * 3600));
        Retention::new(hours(1), hours(48), None, None, None).unwrap()
    }

    #[test]
    fn old_events_go_to_the_finest_level_that_still_covers_them() {
        let retention = default_retention();
        let hour = Level::Hour.width_micros();
        assert_eq!(retention.finest(-5), Level::Second);
        assert_eq!(retention.finest(hour), Level::Second);
        assert_eq!(retention.finest(hour + 1), Level::Minute);
        assert_eq!(retention.finest(48 * hour + 1), Level::QuarterHour);
        let short = Some(Duration::from_secs(60));
        assert_eq!(Retention::new(short, short, short, short, short).unwrap().finest(i64::MAX), Level::Day);
    }

    #[test]
    fn periods_survive_the_wire() {
        let retention = default_retention();
        assert_eq!(Retention::from_micros(&retention.to_micros()), Some(retention));
        for wire in [&[][..], &[1], &[-1, i64::MAX, i64::MAX, i64::MAX, i64::MAX], &[5, 4, 3, 2, 1]] {
            assert_eq!(Retention::from_micros(wire), None, "{wire:?}");
        }
    }

    #[test]
    fn a_coarse_cell_tells_what_finer_levels_lack() {
        let day = Level::Day.width_micros();
        let now = 1000 * day + 5;
        let writer = default_retention().whole(now);
        let noted = |level: Level, bucket: i64, writer: &Whole| {
            let mut whole = Whole::ALWAYS;
            whole.missed_by_finer(level, bucket, writer);
            whole
        };
        let old = noted(Level::QuarterHour, Level::QuarterHour.bucket_of(900 * day), &writer);
        let end = 900 * day + Level::QuarterHour.width_micros();
        assert_eq!((old.since(Level::Second), old.since(Level::Minute)), (end, end));
        assert_eq!((old.since(Level::QuarterHour), old.since(Level::Day)), (i64::MIN, i64::MIN));
        // The bucket of what was just too old ends later than what lacks events.
        let edge = Level::QuarterHour.bucket_of(998 * day);
        assert_eq!(
            noted(Level::QuarterHour, edge, &writer).since(Level::Minute),
            writer.since(Level::Minute)
        );
        assert_eq!(
            noted(Level::QuarterHour, edge, &Whole::NEVER).since(Level::Minute),
            998 * day + end - 900 * day
        );
    }

    #[test]
    fn a_coarser_level_may_not_go_before_a_finer_one() {
        let error = Retention::new(None, Some(Duration::from_secs(1)), None, None, None).unwrap_err();
        assert!(error.to_string().contains("buckets of one minute are kept for less time"), "{error}");
    }

    proptest! {
        #[test]
        fn a_moment_lies_in_its_bucket_at_every_level(micros in -4_000_000_000_000_000i64..4_000_000_000_000_000) {
            for level in Level::ALL {
                let bucket = level.bucket_of(micros);
                prop_assert!(level.start_micros(bucket) <= micros && micros < level.start_micros(bucket + 1));
                for coarser in level.and_coarser() {
                    prop_assert_eq!(level.bucket_at(bucket, coarser), coarser.bucket_of(micros));
                }
                prop_assert_eq!(Level::try_from(proto::Level::from(level) as i32), Ok(level));
            }
        }

        #[test]
        fn a_level_holds_every_event_after_its_horizon(
            now in 0i64..4_000_000_000_000_000, age in 0i64..400_000_000_000, behind in 0i64..400_000_000_000,
        ) {
            // An event of `age` when the log took it, at some moment not after `now`.
            let (retention, time) = (default_retention(), now - behind - age);
            for level in Level::ALL {
                if time >= retention.horizon_micros(level, now) {
                    prop_assert!(retention.finest(age) <= level);
                }
            }
        }
    }
}
