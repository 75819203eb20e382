//! Measures over windows that move from bucket to bucket. No window is added up anew: numbers are kept by rank, and sums are added up
//! from both ends of the window, so that each bucket costs about the same however wide the window is.

use super::{
    Figure, Shape,
    grid::Grid,
    merged::{Merged, Sum, quantile},
};
use crate::{Engine, Error, deadline::Pace, measure::Measure};

/// A measure of a group, by bucket.
pub(super) struct Running<'m> {
    pub(super) merged: &'m Merged,
    pub(super) grid: &'m Grid,
    pub(super) column: usize,
    pub(super) measure: &'m Measure,
    /// By bucket that is read, the cell of the group.
    pub(super) cells: &'m [Option<u32>],
}

impl Running<'_> {
    /// The figures of all buckets.
    ///
    /// # Errors
    /// When the deadline has passed, or memory does not suffice.
    pub(super) fn figures(&self, shape: Shape, engine: &Engine) -> Result<Vec<Figure>, Error> {
        let pace = &mut engine.deadline().pace();
        match (shape, self.sum()) {
            (Shape::Plain, _) => self.each(pace, |bucket| {
                let mut sum = self.sum();
                self.cells_of(bucket).for_each(|cell| sum.add(self.merged, self.column, cell));
                sum.figure(self.measure)
            }),
            (Shape::Cumulative, Sum::Values(_)) => self.by_rank(usize::MAX, engine),
            (Shape::Rolling(width), Sum::Values(_)) => self.by_rank(width as usize, engine),
            (Shape::Cumulative, mut sum) => self.each(pace, |bucket| {
                self.cells_of(bucket).for_each(|cell| sum.add(self.merged, self.column, cell));
                sum.figure(self.measure)
            }),
            (Shape::Rolling(width), _) => {
                let mut window =
                    Window { running: self, older: Vec::new(), newer: Vec::new(), sum: self.sum() };
                self.each(pace, |bucket| {
                    window.push(bucket);
                    if bucket >= width as usize {
                        window.pop();
                    }
                    window.figure()
                })
            }
        }
    }

    fn each(
        &self,
        pace: &mut Pace<'_>,
        mut figure: impl FnMut(usize) -> Figure,
    ) -> Result<Vec<Figure>, Error> {
        let figures = (0..self.grid.len()).map(|bucket| {
            pace.step(
                self.cells_of(bucket)
                    .map(|cell| 1 + self.merged.numbers(self.column, cell).len())
                    .sum::<usize>()
                    + 1,
            )?;
            Ok(figure(bucket))
        });
        figures.collect()
    }

    fn sum(&self) -> Sum {
        Sum::of(self.merged, self.column)
    }

    /// The cells of a bucket of the grid: two where it is read as two.
    fn cells_of(&self, bucket: usize) -> impl Iterator<Item = u32> {
        self.cells[self.grid.of(bucket..bucket + 1)].iter().flatten().copied()
    }

    fn numbers_of(&self, bucket: usize) -> impl Iterator<Item = f64> {
        self.cells_of(bucket).flat_map(|cell| self.merged.numbers(self.column, cell)).copied()
    }

    /// Quantiles of so many buckets at a time.
    fn by_rank(&self, width: usize, engine: &Engine) -> Result<Vec<Figure>, Error> {
        let memory = engine.memory("numbers of a window");
        let count = (0..self.grid.len()).map(|bucket| self.numbers_of(bucket).count()).sum::<usize>();
        // Once sorted, once as counts.
        memory
            .try_grow(count * (size_of::<f64>() + size_of::<u32>()))
            .map_err(|error| engine.failure(error))?;
        let mut all = Vec::with_capacity(count);
        (0..self.grid.len()).for_each(|bucket| all.extend(self.numbers_of(bucket)));
        engine.deadline().sort_by(&mut all, f64::total_cmp)?;
        let mut ranks = Ranks { counts: vec![0; all.len()], sorted: all, len: 0 };
        let pace = &mut engine.deadline().pace();
        let figures = (0..self.grid.len()).map(|bucket| {
            pace.step(1)?;
            for number in self.numbers_of(bucket) {
                pace.step(8)?;
                ranks.add(number);
            }
            if let Some(left) = bucket.checked_sub(width) {
                for number in self.numbers_of(left) {
                    pace.step(8)?;
                    ranks.remove(number);
                }
            }
            Ok(quantile(self.measure, ranks.len, |rank| ranks.at(rank)))
        });
        figures.collect()
    }
}

/// Which of some numbers are in a window, so that the one at a rank is found without sorting: a Fenwick tree (P. M. Fenwick, "A new data
/// structure for cumulative frequency tables", 1994) of how often each is.
struct Ranks {
    /// All that will ever be in it.
    sorted: Vec<f64>,
    /// By place from 1: how many of the numbers that end there are in it.
    counts: Vec<u32>,
    len: usize,
}

impl Ranks {
    fn add(&mut self, number: f64) {
        self.len += 1;
        self.change(number, |count| *count += 1);
    }

    fn remove(&mut self, number: f64) {
        self.len -= 1;
        self.change(number, |count| *count -= 1);
    }

    fn change(&mut self, number: f64, change: impl Fn(&mut u32)) {
        let mut place = self.sorted.partition_point(|other| other.total_cmp(&number).is_lt()) + 1;
        while let Some(count) = self.counts.get_mut(place - 1) {
            change(count);
            place += place & place.wrapping_neg();
        }
    }

    /// The number that has so many before it.
    fn at(&self, rank: usize) -> Option<f64> {
        let (mut place, mut before) = (0, rank);
        let mut width = (self.counts.len() + 1).next_power_of_two();
        while width > 0 {
            if let Some(count) = self.counts.get((place + width).wrapping_sub(1))
                && *count as usize <= before
            {
                before -= *count as usize;
                place += width;
            }
            width /= 2;
        }
        self.sorted.get(place).copied()
    }
}

/// The sum of a window: a queue of two stacks, each with the sums of what is in it.
struct Window<'r, 'm> {
    running: &'r Running<'m>,
    /// Of the older buckets, the sums from each to the newest of them; the oldest last.
    older: Vec<Sum>,
    /// The newer buckets, and their sum.
    newer: Vec<usize>,
    sum: Sum,
}

impl Window<'_, '_> {
    fn push(&mut self, bucket: usize) {
        self.newer.push(bucket);
        add(self.running, &mut self.sum, bucket);
    }

    /// Leaves the oldest bucket out.
    fn pop(&mut self) {
        if self.older.is_empty() {
            let mut sum = self.running.sum();
            for bucket in self.newer.drain(..).rev() {
                add(self.running, &mut sum, bucket);
                self.older.push(sum.clone());
            }
            self.sum = self.running.sum();
        }
        self.older.pop();
    }

    fn figure(&self) -> Figure {
        let mut sum = self.sum.clone();
        self.older.last().into_iter().for_each(|older| sum.join(older));
        sum.figure(self.running.measure)
    }
}

fn add(running: &Running<'_>, sum: &mut Sum, bucket: usize) {
    running.cells_of(bucket).for_each(|cell| sum.add(running.merged, running.column, cell));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_found_by_its_rank_while_others_come_and_go(
            steps in prop::collection::vec((any::<bool>(), 0usize..40), 1..200),
            pool in prop::collection::vec(-5i8..5, 40),
        ) {
            let mut sorted: Vec<f64> = pool.iter().map(|number| f64::from(*number)).collect();
            sorted.sort_by(f64::total_cmp);
            let mut ranks = Ranks { counts: vec![0; 40], sorted, len: 0 };
            let mut there: Vec<f64> = Vec::new();
            for (add, index) in steps {
                let number = f64::from(pool[index]);
                if add {
                    ranks.add(number);
                    there.push(number);
                } else if let Some(place) = there.iter().position(|other| *other == number) {
                    ranks.remove(number);
                    there.swap_remove(place);
                }
                there.sort_by(f64::total_cmp);
                prop_assert_eq!(ranks.len, there.len());
                for (rank, number) in there.iter().enumerate() {
                    prop_assert_eq!(ranks.at(rank), Some(*number));
                }
            }
        }
    }
}
