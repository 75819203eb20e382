//! The clock that stamps appends, as a seam for tests of clocks that are wrong.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::writer::saturating_ms;

/// A clock that is set back by more than this begins a new segment, in whose append times it shows; for less, append times stand
/// still until the clock has caught up. Corrections by NTP are far smaller.
pub(super) const SET_BACK_MS: i64 = 60_000;

/// Tells the time, in Unix milliseconds.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The wall clock of this machine.
    pub fn wall() -> Self {
        Self(Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, saturating_ms)))
    }

    /// Another one, for tests.
    pub fn of(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now_ms())
    }
}
