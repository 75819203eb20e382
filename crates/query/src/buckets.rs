//! Buckets of time, found for millions of events.

use std::ops::Range;

use crate::gather::each_row;

/// What the moments of a question's rows do.
const WITHIN: &str = "a scan keeps to its range of time";

/// Buckets that follow each other without gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    /// First moments, ascending, and the end of the last one.
    edges: Vec<i64>,
    /// The width that all buckets have, if they have one; their first moments can then be calculated.
    width: Option<i64>,
}

impl Buckets {
    /// Of buckets that [`Zone::buckets`](weir_rollup::calendar::Zone::buckets) gives.
    pub fn new(buckets: &[Range<i64>]) -> Self {
        let mut edges: Vec<_> = buckets.iter().map(|bucket| bucket.start).collect();
        edges.extend(buckets.last().map(|bucket| bucket.end));
        let widths = |pair: &[i64]| pair[1] - pair[0];
        let width = edges.windows(2).next().map(widths);
        let equal = edges.windows(2).all(|pair| Some(widths(pair)) == width);
        Self { width: width.filter(|width| equal && *width > 0), edges }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.edges.len().saturating_sub(1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first moment of a bucket, microseconds since the Unix epoch.
    pub fn start(&self, bucket: usize) -> i64 {
        self.edges[bucket]
    }

    /// The moments of all buckets together.
    pub fn range(&self) -> Range<i64> {
        match (self.edges.first(), self.edges.last()) {
            (Some(first), Some(last)) => *first..*last,
            _ => 0..0,
        }
    }

    /// The bucket of a moment. `near` is where to look first, and is left at what was found: events come in runs.
    #[inline(always)]
    pub fn find(&self, time: i64, near: &mut usize) -> Option<usize> {
        if let [start, end, ..] = self.edges[*near..]
            && start <= time
            && time < end
        {
            return Some(*near);
        }
        *near = self.find_anywhere(time)?;
        Some(*near)
    }

    /// The buckets of the moments in these places (`None`: of all), each of which must lie in one.
    pub(crate) fn find_all(&self, times: &[i64], wanted: Option<&[u32]>, found: &mut [u32]) {
        let (Some(width), None) = (self.width, wanted) else {
            let mut near = 0;
            return each_row(times.len(), wanted, |row| {
                found[row] = self.find(times[row], &mut near).expect(WITHIN) as u32;
            });
        };
        // Where events come in no order, branches are guessed wrong. Dividing by multiplying: this is the quotient or one less.
        let (start, width) = (self.edges[0], width as u64);
        let (inverse, mut last) = (u64::MAX / width, 0);
        for (found, time) in found.iter_mut().zip(times) {
            let since = time.wrapping_sub(start) as u64;
            let near = ((u128::from(since) * u128::from(inverse)) >> 64) as u64;
            let bucket = near + u64::from(since - near * width >= width);
            last = last.max(bucket);
            *found = bucket as u32;
        }
        assert!(last < self.len() as u64, "{WITHIN}");
    }

    #[inline(never)]
    fn find_anywhere(&self, time: i64) -> Option<usize> {
        let range = self.range();
        range.contains(&time).then(|| match self.width {
            Some(width) => ((time - range.start) / width) as usize,
            None => self.edges.partition_point(|edge| *edge <= time) - 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_rollup::calendar::{Interval, Zone};

    use super::*;

    proptest! {
        #[test]
        fn every_moment_is_found_in_its_bucket(
            zone in prop::sample::select(vec!["UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe"]),
            interval in prop::sample::select(Interval::ALL[3..].to_vec()),
            start in 1_600_000_000i64..1_800_000_000, length in 1i64..40_000_000,
            moments in prop::collection::vec(0f64..1.2, 1..40),
        ) {
            let range = start * 1_000_000..(start + length) * 1_000_000;
            let buckets = Zone::parse(zone).unwrap().buckets(interval, range, 20_000).unwrap();
            let found = Buckets::new(&buckets);
            prop_assert_eq!(found.len(), buckets.len());
            let (mut near, mut within) = (0, Vec::new());
            for moment in moments.into_iter().chain([0.0]) {
                let time = start * 1_000_000 + (length as f64 * moment * 1e6) as i64;
                let expected = buckets.iter().position(|bucket| bucket.contains(&time));
                prop_assert_eq!(found.find(time, &mut near), expected);
                if let Some(expected) = expected {
                    within.push((time, expected as u32));
                }
            }
            let (times, expected): (Vec<_>, Vec<_>) = within.into_iter().unzip();
            let mut all = vec![0; times.len()];
            found.find_all(&times, None, &mut all);
            prop_assert_eq!(&all, &expected);
            let others: Vec<u32> = (0..times.len() as u32).filter(|row| row % 3 != 1).collect();
            all.fill(0);
            found.find_all(&times, Some(&others), &mut all);
            for row in others {
                prop_assert_eq!(all[row as usize], expected[row as usize]);
            }
        }
    }
}
