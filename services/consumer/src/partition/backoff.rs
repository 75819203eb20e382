//! Waiting longer and longer between attempts.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// From 50 ms on, doubled up to 5 s. The jitter keeps partitions and instances from coming back all at once.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times()
    .with_jitter();

/// The pauses between attempts.
#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(PAUSES.build())
    }
}

impl Backoff {
    /// With another longest pause, before jitter.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self(PAUSES.with_max_delay(longest).build())
    }

    /// The pause before the next attempt.
    pub(crate) fn step(&mut self) -> Duration {
        self.0.next().expect("without a number of times there is always a next")
    }

    /// Waits. Cancel-safe.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.step()).await;
    }
}
