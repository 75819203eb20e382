//! Waiting longer and longer between attempts.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Exponential backoff with jitter: the n-th pause is between half of 50 ms · 2ⁿ and all of it, at most 5 s unless said
/// otherwise. The jitter keeps partitions and instances from coming back all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

impl Backoff {
    /// With another longest pause.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: FIRST, longest }
    }

    /// The pause before the next attempt.
    pub(crate) fn step(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// Waits. Cancel-safe.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.step()).await;
    }
}
