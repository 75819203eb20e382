//! When a question must be done. Tokio stops a task only where it waits, so whatever computes for long asks here now and then.

use std::{
    cmp::Ordering as Order,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::Error;

/// Elements that are computed between two looks at the clock: a millisecond or so, at 30 ns each.
const STEPS: usize = 1 << 15;
/// Elements that are sorted between two looks at the clock: two milliseconds or so.
const SORTED: usize = 1 << 15;

/// The deadline of a question, and whether its caller still waits. Clones share both.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deadline {
    /// `None`: there is none.
    at: Option<Instant>,
    limit: Duration,
    abandoned: Arc<AtomicBool>,
}

impl Deadline {
    /// The one of a question that begins now.
    pub(crate) fn after(limit: Duration) -> Self {
        Self { at: Instant::now().checked_add(limit), limit, abandoned: Arc::default() }
    }

    /// Says that nobody waits for the answer any more.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Time that is left; the longest there is without a deadline.
    pub(crate) fn left(&self) -> Duration {
        self.at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }

    /// The whole time that the question has.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// # Errors
    /// [`Error::TooSlow`] once the deadline has passed or nobody waits any more.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let passed = self.at.is_some_and(|at| Instant::now() >= at);
        if passed || self.abandoned.load(Ordering::Relaxed) {
            return Err(Error::TooSlow(self.limit));
        }
        Ok(())
    }

    /// A counter of steps, for a loop.
    pub(crate) fn pace(&self) -> Pace<'_> {
        Pace { deadline: self, left: STEPS }
    }

    /// Sorts, stably. Where there is much, runs are sorted and then merged, with a look at the clock after each.
    ///
    /// # Errors
    /// As [`Deadline::check`]; the order is of no use then.
    pub(crate) fn sort_by<T>(
        &self,
        all: &mut [T],
        compare: impl Fn(&T, &T) -> Order + Copy,
    ) -> Result<(), Error> {
        if all.len() > SORTED {
            let (first, second) = all.split_at_mut(all.len() / 2);
            self.sort_by(first, compare)?;
            self.sort_by(second, compare)?;
            self.check()?;
        }
        // The standard library finds the two sorted halves and merges them, in linear time.
        all.sort_by(compare);
        Ok(())
    }

    /// As [`Deadline::sort_by`], by a key.
    pub(crate) fn sort_by_key<T, K: Ord>(
        &self,
        all: &mut [T],
        key: impl Fn(&T) -> K + Copy,
    ) -> Result<(), Error> {
        self.sort_by(all, |a, b| key(a).cmp(&key(b)))
    }
}

/// Looks at the clock once in many steps.
#[derive(Debug)]
pub(crate) struct Pace<'d> {
    deadline: &'d Deadline,
    left: usize,
}

impl Pace<'_> {
    /// So many elements are about to be computed.
    ///
    /// # Errors
    /// As [`Deadline::check`].
    #[inline]
    pub(crate) fn step(&mut self, elements: usize) -> Result<(), Error> {
        match self.left.checked_sub(elements) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = STEPS;
                self.deadline.check()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_stops_when_the_deadline_has_passed_or_nobody_waits() {
        let run = |deadline: &Deadline| {
            let mut pace = deadline.pace();
            (0..10 * STEPS).find(|_| pace.step(1).is_err())
        };
        assert_eq!(run(&Deadline::default()), None);
        assert_eq!(run(&Deadline::after(Duration::from_secs(600))), None);
        assert_eq!(run(&Deadline::after(Duration::ZERO)), Some(STEPS), "only looked at once in many steps");
        let deadline = Deadline::after(Duration::from_secs(600));
        deadline.clone().abandon();
        assert_eq!(run(&deadline), Some(STEPS));
        assert!(matches!(deadline.check(), Err(Error::TooSlow(limit)) if limit.as_secs() == 600));
    }

    #[test]
    fn sorting_is_stable_and_stops() {
        let number = |at: u64| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50, at);
        let mut all: Vec<_> = (0..3 * SORTED as u64 + 5).map(number).collect();
        let mut expected = all.clone();
        expected.sort();
        Deadline::default().sort_by_key(&mut all, |(key, _)| *key).unwrap();
        assert_eq!(all, expected);
        assert!(Deadline::after(Duration::ZERO).sort_by_key(&mut all, |(key, _)| *key).is_err());
    }
}
