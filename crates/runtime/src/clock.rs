//! The wall clock, and whether it can be trusted.
//!
//! A wall clock may be set, forwards or back, while the process runs. [`Steady`] compares it with the monotonic clock: a jump
//! back is the correction of a clock that was ahead, and is followed at once. A jump forwards may be right (the machine was
//! suspended, or learnt the time only now) or wrong for a moment, so it is followed once it has lasted.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{Metrics, Shutdown};

/// The clock jumped when it and the monotonic clock disagree by more than this: microseconds. Corrections by NTP are smaller, and so is
/// what lies between two readings.
const TOLERANCE_MICROS: i64 = 2_000_000;
/// How long a jump forwards has to last before it is followed: microseconds.
const CONFIRMED_AFTER_MICROS: i64 = 600_000_000;
/// Time between two looks at the clock.
const INTERVAL: Duration = Duration::from_secs(1);

/// Now, microseconds since the Unix epoch.
pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Now, as far as the clock can be trusted: without a jump forwards that has not lasted. Microseconds since the Unix epoch.
pub fn steady_micros() -> i64 {
    PROCESS.read().0
}

/// The last jump of the clock since the process started.
pub fn last_jump() -> Option<Jump> {
    PROCESS.read().1
}

/// The clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// The time that it showed then, microseconds since the Unix epoch.
    pub time_micros: i64,
    /// How far it jumped: forwards, or back where negative; microseconds.
    pub by_micros: i64,
}

/// A wall clock, checked against a monotonic one. Pure: both are arguments, in microseconds.
#[derive(Debug)]
pub struct Steady {
    /// Readings of both clocks when they last agreed.
    wall: i64,
    monotonic: i64,
    /// Since when the wall clock is ahead, by the monotonic one.
    ahead_since: Option<i64>,
    last_jump: Option<Jump>,
}

impl Steady {
    /// Takes the wall clock for right.
    pub fn new(wall: i64, monotonic: i64) -> Self {
        Self { wall, monotonic, ahead_since: None, last_jump: None }
    }

    /// The time that can be trusted, at these readings.
    pub fn read(&mut self, wall: i64, monotonic: i64) -> i64 {
        let expected = self.wall.saturating_add(monotonic.saturating_sub(self.monotonic));
        let ahead = wall.saturating_sub(expected);
        if ahead > TOLERANCE_MICROS {
            let since = *self.ahead_since.get_or_insert_with(|| {
                self.last_jump = Some(Jump { time_micros: wall, by_micros: ahead });
                monotonic
            });
            if monotonic.saturating_sub(since) < CONFIRMED_AFTER_MICROS {
                return expected;
            }
        } else if ahead < -TOLERANCE_MICROS || self.ahead_since.is_some() {
            // Right again, or set back further than it had jumped.
            let before =
                self.last_jump.filter(|_| self.ahead_since.is_some()).map_or(0, |jump| jump.by_micros);
            self.last_jump = Some(Jump { time_micros: wall, by_micros: ahead.saturating_sub(before) });
        }
        *self = Self { last_jump: self.last_jump, ..Self::new(wall, monotonic) };
        wall
    }

    /// The last jump that was read.
    pub fn last_jump(&self) -> Option<Jump> {
        self.last_jump
    }
}

struct Process {
    started: Instant,
    steady: Mutex<Steady>,
}

/// A machine has one clock, and a process one view of it.
static PROCESS: LazyLock<Process> =
    LazyLock::new(|| Process { started: Instant::now(), steady: Mutex::new(Steady::new(now_micros(), 0)) });

impl Process {
    fn read(&self) -> (i64, Option<Jump>) {
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        let monotonic = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let now = steady.read(now_micros(), monotonic);
        (now, steady.last_jump())
    }
}

/// Looks at the clock until the shutdown; jumps are logged and counted.
pub async fn watch(metrics: Metrics, service: &'static str, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = last_jump();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.requested() => return,
        }
        let (_, jump) = PROCESS.read();
        if let Some(jump) = jump.filter(|_| jump != known) {
            let direction = if jump.by_micros > 0 { "forwards" } else { "back" };
            metrics.clock_jumps(service, direction).inc();
            tracing::warn!(service, seconds = jump.by_micros / 1_000_000, "the clock was set {direction}");
        }
        known = jump;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 86_400 * SECOND;
    const NOON: i64 = 20_000 * DAY;

    #[test]
    fn a_clock_that_is_ahead_for_a_while_is_not_followed() {
        let mut clock = Steady::new(NOON, 0);
        assert_eq!(clock.read(NOON + SECOND, SECOND), NOON + SECOND);
        assert_eq!(clock.read(NOON + 400 * DAY, 2 * SECOND), NOON + 2 * SECOND);
        assert_eq!(
            clock.last_jump(),
            Some(Jump { time_micros: NOON + 400 * DAY, by_micros: 400 * DAY - 2 * SECOND })
        );
        assert_eq!(clock.read(NOON + 300 * SECOND, 300 * SECOND), NOON + 300 * SECOND);
        let back = clock.last_jump().unwrap();
        assert_eq!((back.time_micros, back.by_micros), (NOON + 300 * SECOND, 2 * SECOND - 400 * DAY));
        assert_eq!(clock.read(NOON + 301 * SECOND, 301 * SECOND), NOON + 301 * SECOND);
        assert_eq!(clock.last_jump(), Some(back), "no further jump");
    }

    #[test]
    fn a_jump_that_lasts_is_followed_and_one_back_at_once() {
        let mut clock = Steady::new(NOON, 0);
        clock.read(NOON + DAY, SECOND);
        let later = SECOND + CONFIRMED_AFTER_MICROS;
        assert_eq!(clock.read(NOON + DAY + later, later), NOON + DAY + later);
        assert_eq!(clock.read(NOON + DAY + later + SECOND, later + SECOND), NOON + DAY + later + SECOND);
        assert_eq!(clock.read(NOON, later + 2 * SECOND), NOON);
        assert!(clock.last_jump().unwrap().by_micros < -DAY + SECOND);
    }

    #[test]
    fn a_clock_that_runs_a_little_fast_is_followed() {
        let mut clock = Steady::new(NOON, 0);
        for second in 1..100_000 {
            let (wall, monotonic) = (NOON + second * (SECOND + 500), second * SECOND);
            assert_eq!(clock.read(wall, monotonic), wall);
        }
        assert_eq!(clock.last_jump(), None);
    }
}
