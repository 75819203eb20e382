//! The buckets of a question: those that are read, and those that its answer has.

use std::ops::Range;

/// Buckets of time that follow each other.
///
/// A rolling window looks at buckets before those of the answer. Where the range begins within a bucket, this one is read whole,
/// too, but only its later part belongs to the range: it is read as two.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    read: Vec<Range<i64>>,
    /// Those of `read` that lie before the range.
    lead: usize,
    /// Whether the last of them is a part of the answer's first bucket.
    cut: bool,
}

impl Grid {
    /// The buckets that a range touches, `first..`, after `before`, which are needed too. With none before, nothing that lies before
    /// the range is read.
    pub(super) fn new(start: i64, before: Vec<Range<i64>>, first: Vec<Range<i64>>) -> Self {
        let mut grid = Self { lead: before.len(), read: before, cut: false };
        grid.read.extend(first);
        if let Some(whole) = grid.read.get_mut(grid.lead).filter(|whole| grid.lead > 0 && whole.start < start)
        {
            let earlier = whole.start..start;
            whole.start = start;
            grid.read.insert(grid.lead, earlier);
            grid.lead += 1;
            grid.cut = true;
        }
        grid
    }

    /// What is read, from the first bucket to the last.
    pub(super) fn read(&self) -> &[Range<i64>] {
        &self.read
    }

    /// How many of the buckets that are read lie before the range.
    pub(super) fn lead(&self) -> usize {
        self.lead
    }

    /// The moments that are read, of a question about a range.
    pub(super) fn reads(&self, range: &Range<i64>) -> Range<i64> {
        if self.lead > 0 { self.read[0].start..range.end } else { range.clone() }
    }

    /// How many buckets there are where a bucket that is read as two is one.
    pub(super) fn len(&self) -> usize {
        self.read.len() - usize::from(self.cut)
    }

    /// The place among them of a bucket that is read.
    pub(super) fn place(&self, read: u32) -> u32 {
        if self.cut && read as usize >= self.lead { read - 1 } else { read }
    }

    /// Those that are read for some of them.
    pub(super) fn of(&self, places: Range<usize>) -> Range<usize> {
        let edge = |place: usize| if self.cut && place >= self.lead { place + 1 } else { place };
        edge(places.start)..edge(places.end)
    }

    /// The places of the answer's buckets.
    pub(super) fn answered(&self) -> Range<usize> {
        self.lead - usize::from(self.cut)..self.len()
    }

    /// The answer's buckets.
    pub(super) fn buckets(&self) -> Vec<Range<i64>> {
        let whole = |place: usize| {
            let read = self.of(place..place + 1);
            self.read[read.start].start..self.read[read.end - 1].end
        };
        self.answered().map(whole).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_in_which_the_range_begins_is_read_as_two() {
        let grid = Grid::new(25, vec![0..10, 10..20], vec![20..30, 30..40]);
        assert_eq!(grid.read(), [0..10, 10..20, 20..25, 25..30, 30..40]);
        assert_eq!((grid.lead(), grid.reads(&(25..35)), grid.len()), (3, 0..35, 4));
        assert_eq!((0..5).map(|read| grid.place(read)).collect::<Vec<_>>(), [0, 1, 2, 2, 3]);
        assert_eq!([grid.of(0..2), grid.of(1..3), grid.of(2..3), grid.of(3..4)], [0..2, 1..4, 2..4, 4..5]);
        assert_eq!((grid.answered(), grid.buckets()), (2..4, vec![20..30, 30..40]));
    }

    #[test]
    fn otherwise_each_is_read_as_it_is() {
        for start in [20, 25] {
            let grid = Grid::new(start, Vec::new(), vec![20..30, 30..40]);
            assert_eq!((grid.lead(), grid.reads(&(start..35)), grid.answered()), (0, start..35, 0..2));
            assert_eq!(grid.buckets(), grid.read());
        }
        let grid = Grid::new(20, vec![0..10, 10..20], vec![20..30, 30..40]);
        assert_eq!((grid.lead(), grid.answered(), grid.of(1..3)), (2, 2..4, 1..3));
        assert_eq!(grid.buckets(), [20..30, 30..40]);
    }
}
