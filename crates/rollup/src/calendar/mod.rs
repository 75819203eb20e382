//! Buckets by a zone's clock and calendar.
//!
//! Every zone of the IANA database, from a copy in the binary, so that all processes agree. Buckets of a zone follow each
//! other without gap or overlap, whatever its clock does:
//! - days, weeks (from Monday), months, quarters and years begin when the zone's calendar first shows the new date: at midnight, or right
//!   after it where the clock jumps over midnight. A date that a zone skips has no bucket;
//! - seconds to hours begin when the clock shows a round time, and where the clock is changed by less than the interval. The
//!   hour that a clock repeats is two buckets.

use std::{fmt, ops::Range};

use jiff::{
    SignedDuration, Span, Timestamp,
    civil::Date,
    tz::{Offset, TimeZone},
};

use crate::Error;

/// Width of the buckets of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interval {
    /// One second.
    Second,
    /// One minute.
    Minute,
    /// Fifteen minutes.
    QuarterHour,
    /// One hour of the zone's clock.
    Hour,
    /// One day of the zone's calendar.
    Day,
    /// One week of the zone's calendar, from Monday.
    Week,
    /// One month of the zone's calendar.
    Month,
    /// Three months of the zone's calendar, from January, April, July or October.
    Quarter,
    /// One year of the zone's calendar.
    Year,
}

/// Buckets that an unspecified interval aims at.
const FITTING_BUCKETS: i64 = 100;

impl Interval {
    /// Every interval, finest first.
    pub const ALL: [Interval; 9] = [
        Interval::Second,
        Interval::Minute,
        Interval::QuarterHour,
        Interval::Hour,
        Interval::Day,
        Interval::Week,
        Interval::Month,
        Interval::Quarter,
        Interval::Year,
    ];

    /// The finest interval with at most about 100 buckets in a range of microseconds.
    pub fn fitting(range: &Range<i64>) -> Interval {
        let length = range.end.saturating_sub(range.start);
        let fits = |interval: &Interval| length / interval.nominal_micros() <= FITTING_BUCKETS;
        Interval::ALL.into_iter().find(fits).unwrap_or(Interval::Year)
    }

    /// How long it is, microseconds; a month has 30 days, a quarter 91 and a year 365.
    pub const fn nominal_micros(self) -> i64 {
        const SECOND: i64 = 1_000_000;
        const DAY: i64 = 86_400 * SECOND;
        match self {
            Interval::Second => SECOND,
            Interval::Minute => 60 * SECOND,
            Interval::QuarterHour => 900 * SECOND,
            Interval::Hour => 3600 * SECOND,
            Interval::Day => DAY,
            Interval::Week => 7 * DAY,
            Interval::Month => 30 * DAY,
            Interval::Quarter => 91 * DAY,
            Interval::Year => 365 * DAY,
        }
    }

    /// The first date of the day, week, month, quarter or year that a date belongs to, and of the one after it; `None` for an interval of
    /// the clock.
    fn dates(self, date: Date) -> Option<Result<(Date, Date), jiff::Error>> {
        let from = |first: Result<Date, jiff::Error>, step: Span| {
            let first = first?;
            Ok((first, first.checked_add(step)?))
        };
        match self {
            Interval::Second | Interval::Minute | Interval::QuarterHour | Interval::Hour => None,
            Interval::Day => Some(from(Ok(date), Span::new().days(1))),
            Interval::Week => {
                let since_monday = Span::new().days(i64::from(date.weekday().to_monday_zero_offset()));
                Some(from(date.checked_sub(since_monday), Span::new().weeks(1)))
            }
            Interval::Month => Some(from(Ok(date.first_of_month()), Span::new().months(1))),
            Interval::Quarter => {
                let first = Date::new(date.year(), (date.month() - 1) / 3 * 3 + 1, 1);
                Some(from(first, Span::new().months(3)))
            }
            Interval::Year => Some(from(Ok(date.first_of_year()), Span::new().years(1))),
        }
    }
}

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated Universal Time.
    pub const UTC: Zone = Zone(TimeZone::UTC);

    /// Looks an IANA name up, such as `Asia/Kolkata`; empty stands for UTC.
    ///
    /// # Errors
    /// [`Error::TimeZone`] for a name that does not exist.
    pub fn parse(name: &str) -> Result<Zone, Error> {
        if name.is_empty() {
            return Ok(Zone::UTC);
        }
        let unknown = || Error::TimeZone(name.chars().take(64).collect());
        // The bundled copy, never that of the machine.
        let zone = jiff::tz::TimeZoneDatabase::bundled().get(name).map_err(|_| unknown())?;
        Ok(Zone(zone))
    }

    /// The moment (microseconds since the Unix epoch) by the zone's clock with its offset, RFC 3339:
    /// `2024-03-10T00:00:00-05:00`.
    ///
    /// # Errors
    /// [`Error::Moment`] outside the years -9999 to 9999.
    pub fn local_time(&self, micros: i64) -> Result<String, Error> {
        let offset = self.0.to_offset(timestamp(micros)?);
        let local = offset.to_datetime(timestamp(micros)?);
        let minutes = offset.seconds() / 60;
        Ok(format!("{local}{}{:02}:{:02}", sign(offset), minutes.abs() / 60, minutes.abs() % 60))
    }

    /// The bucket of an interval that a moment (microseconds since the Unix epoch) falls into: its first moment, and the
    /// first of the next one.
    ///
    /// # Errors
    /// [`Error::Moment`] outside the years -9999 to 9999.
    pub fn bucket(&self, interval: Interval, micros: i64) -> Result<Range<i64>, Error> {
        let moment = timestamp(micros)?;
        let offset = self.0.to_offset(moment);
        match interval.dates(offset.to_datetime(moment).date()) {
            Some(dates) => {
                let mut dates = dates.map_err(|_| Error::Moment(micros))?;
                loop {
                    let bucket = self.midnight(dates.0)?..self.midnight(dates.1)?;
                    if micros < bucket.end {
                        return Ok(bucket);
                    }
                    // The clock was set back over midnight: the old date again, after the new one has begun.
                    let next = interval.dates(dates.1).expect("an interval of the calendar");
                    dates = next.map_err(|_| Error::Moment(micros))?;
                }
            }
            None => self.clock_bucket(interval.nominal_micros(), micros, offset),
        }
    }

    /// The buckets of an interval that a range of moments (microseconds since the Unix epoch) touches, in order. The first
    /// may begin before the range, and the last end after it.
    ///
    /// # Errors
    /// [`Error::TooManyBuckets`] when there are more than `limit`, [`Error::Moment`] outside the years -9999 to 9999.
    pub fn buckets(
        &self,
        interval: Interval,
        range: Range<i64>,
        limit: usize,
    ) -> Result<Vec<Range<i64>>, Error> {
        let mut buckets = Vec::new();
        let mut at = range.start;
        while at < range.end {
            if buckets.len() == limit {
                return Err(Error::TooManyBuckets(limit));
            }
            let bucket = self.bucket(interval, at)?;
            at = bucket.end;
            buckets.push(bucket);
        }
        Ok(buckets)
    }

    /// When the zone's calendar first shows a date.
    fn midnight(&self, date: Date) -> Result<i64, Error> {
        let midnight = date.at(0, 0, 0, 0);
        let ambiguous = self.0.to_ambiguous_timestamp(midnight);
        let outside = |_| Error::Moment(0);
        let moment = match ambiguous.offset() {
            jiff::tz::AmbiguousOffset::Unambiguous { offset }
            // The first of two midnights.
            | jiff::tz::AmbiguousOffset::Fold { before: offset, .. } => offset.to_timestamp(midnight).map_err(outside)?,
            // The clock jumps over midnight: the date begins with the jump. Read by the offset before it, midnight is at or
            // after the jump, so the jump is the last change up to then.
            jiff::tz::AmbiguousOffset::Gap { before, .. } => {
                let after = before.to_timestamp(midnight).map_err(outside)?;
                let next = after.checked_add(SignedDuration::from_nanos(1)).map_err(outside)?;
                self.0.preceding(next).next().map_or(after, |change| change.timestamp())
            }
        };
        Ok(moment.as_microsecond())
    }

    fn clock_bucket(&self, width: i64, micros: i64, offset: Offset) -> Result<Range<i64>, Error> {
        let shift = i64::from(offset.seconds()) * 1_000_000;
        let start = (micros + shift).div_euclid(width) * width - shift;
        let mut bucket = start..start + width;
        // A change of the clock within the bucket begins or ends it.
        let moment = timestamp(micros)?;
        if self.0.to_offset(timestamp(bucket.start)?) != offset {
            let next =
                moment.checked_add(SignedDuration::from_nanos(1)).map_err(|_| Error::Moment(micros))?;
            let since = self.0.preceding(next).map(|change| change.timestamp());
            bucket.start = self.first_with(offset, since).unwrap_or(bucket.start);
        }
        if self.0.to_offset(timestamp(bucket.end - 1)?) != offset {
            let mut changes = self.0.following(moment);
            let end = changes.find(|change| change.offset() != offset);
            bucket.end = end.map_or(bucket.end, |change| change.timestamp().as_microsecond());
        }
        Ok(bucket)
    }

    /// Of changes going back in time: the one that brought this offset (others may only rename it).
    fn first_with(&self, offset: Offset, changes: impl Iterator<Item = Timestamp>) -> Option<i64> {
        let brought = |change: &Timestamp| {
            let before = change.checked_sub(SignedDuration::from_nanos(1)).ok();
            before.is_none_or(|before| self.0.to_offset(before) != offset)
        };
        changes.into_iter().find(brought).map(Timestamp::as_microsecond)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

fn timestamp(micros: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(micros).map_err(|_| Error::Moment(micros))
}

fn sign(offset: Offset) -> char {
    if offset.seconds() < 0 { '-' } else { '+' }
}

#[cfg(test)]
mod tests;
