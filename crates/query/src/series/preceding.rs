//! The range that a question is compared with.

use std::ops::Range;

use weir_rollup::calendar::{Interval, Zone};

use super::Question;
use crate::Error;

impl Question {
    /// The same question about the range before: without an interval as long, ending where this one begins. With one it has as
    /// many buckets, so that months are compared with months and days with days, however long these are; it begins and ends as
    /// long after the beginnings of its first and last bucket as this one. Where its first bucket is too short for that, as February
    /// is for what begins on 31 March, as much of this bucket's end is compared as of the other's.
    ///
    /// # Errors
    /// [`Error::Question`] and [`Error::TooLarge`] where the range has too many buckets or leaves the calendar.
    pub fn preceding(&self) -> Result<Self, Error> {
        let range = match self.interval {
            None => {
                let Range { start, end } = self.range;
                start.saturating_sub(end.saturating_sub(start))..start
            }
            Some(interval) => {
                let buckets = self.buckets(interval)?;
                before(&self.zone, interval, &self.range, &buckets)
                    .map_err(|error| Error::question("time_range", error))?
            }
        };
        Ok(Self { range, ..self.clone() })
    }
}

fn before(
    zone: &Zone,
    interval: Interval,
    range: &Range<i64>,
    buckets: &[Range<i64>],
) -> Result<Range<i64>, weir_rollup::Error> {
    let [first, ..] = buckets else { return Ok(range.clone()) };
    let last = buckets.last().unwrap_or(first);
    // Where the first bucket and the last are parts that make up one, they are compared with each other's rest.
    let shared = buckets.len() > 1 && range.end - last.start <= range.start - first.start;
    let back = buckets.len() - usize::from(shared);
    let mut earlier = first.clone();
    let mut nearest = None;
    for _ in 0..back {
        earlier = zone.bucket(interval, earlier.start - 1)?;
        nearest.get_or_insert_with(|| earlier.clone());
    }
    let nearest = if shared { first.clone() } else { nearest.unwrap_or_else(|| first.clone()) };
    let as_far = earlier.start + (range.start - first.start);
    let start = if as_far < earlier.end {
        as_far
    } else {
        let length = range.end.min(first.end) - range.start;
        earlier.start.max(earlier.end - length)
    };
    // A whole bucket is compared with a whole one, however long that is.
    let end = if range.end >= last.end {
        nearest.end
    } else {
        nearest.end.min(nearest.start + (range.end - last.start))
    };
    Ok(start..end.min(range.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The range before, both by the zone's clock.
    fn preceding(zone: &str, interval: Interval, start: &str, end: &str) -> String {
        let zone = Zone::parse(zone).unwrap();
        let moment = |text: &str| text.parse::<jiff::Zoned>().unwrap().timestamp().as_microsecond();
        let name = zone.to_string();
        let range = moment(&format!("{start}[{name}]"))..moment(&format!("{end}[{name}]"));
        let buckets = zone.buckets(interval, range.clone(), 1000).unwrap();
        let before = before(&zone, interval, &range, &buckets).unwrap();
        assert_eq!(zone.buckets(interval, before.clone(), 1000).unwrap().len(), buckets.len());
        let shown = |micros: i64| zone.local_time(micros).unwrap()[..16].to_owned();
        format!("{} to {}", shown(before.start), shown(before.end))
    }

    #[test]
    fn buckets_are_compared_with_as_many_before_them() {
        let york = "America/New_York";
        for (zone, interval, start, end, expected) in [
            (
                "UTC",
                Interval::Month,
                "2024-03-01T00:00",
                "2024-06-01T00:00",
                "2023-12-01T00:00 to 2024-03-01T00:00",
            ),
            // Clocks are set back on 3 November.
            (
                york,
                Interval::Day,
                "2024-11-02T00:00",
                "2024-11-05T00:00",
                "2024-10-30T00:00 to 2024-11-02T00:00",
            ),
            // A month so far, with the month before as far.
            (
                "UTC",
                Interval::Month,
                "2024-03-01T00:00",
                "2024-03-11T12:00",
                "2024-02-01T00:00 to 2024-02-11T12:00",
            ),
            (
                "UTC",
                Interval::Month,
                "2024-03-01T00:00",
                "2024-03-31T00:00",
                "2024-02-01T00:00 to 2024-03-01T00:00",
            ),
            // February has no 29th.
            (
                "UTC",
                Interval::Month,
                "2023-03-29T00:00",
                "2023-04-01T00:00",
                "2023-02-26T00:00 to 2023-03-01T00:00",
            ),
            (
                "UTC",
                Interval::Month,
                "2023-03-31T00:00",
                "2023-04-01T00:00",
                "2023-02-28T00:00 to 2023-03-01T00:00",
            ),
            (
                "UTC",
                Interval::Month,
                "2023-03-30T00:00",
                "2023-04-11T00:00",
                "2023-02-27T00:00 to 2023-03-11T00:00",
            ),
            // A day, from the middle of an hour to the middle of an hour.
            (
                "UTC",
                Interval::Hour,
                "2024-03-02T15:23",
                "2024-03-03T15:23",
                "2024-03-01T15:23 to 2024-03-02T15:23",
            ),
            (
                "UTC",
                Interval::Day,
                "2024-03-02T15:00",
                "2024-03-04T00:00",
                "2024-02-29T15:00 to 2024-03-02T00:00",
            ),
            (
                "UTC",
                Interval::Day,
                "2024-03-02T15:00",
                "2024-03-02T16:00",
                "2024-03-01T15:00 to 2024-03-01T16:00",
            ),
        ] {
            assert_eq!(preceding(zone, interval, start, end), expected, "{interval:?} of {start} to {end}");
        }
    }
}
