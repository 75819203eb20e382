//! What is known about the partitions at hand: for the status RPCs, the lag metrics and readiness.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use weir_proto::{
    processing::v1::{ClockJump, PartitionStatus, SinkStatus, Status, partition_status::State},
    time::timestamp,
};
use weir_runtime::{
    Shutdown,
    clock::{self, now_micros},
    health::Check,
};

use crate::{Shared, group::Shown, partition::View};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rates are taken over this many looks.
const RATE_LOOKS: usize = 5;
/// A partition that has work and gets nowhere for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How long the log may take to answer a question for the status.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far the log may be ahead of this machine's clock, microseconds: an hour, as events may be. Machines differ by less.
const MAX_AHEAD_MICROS: i64 = 3_600_000_000;

/// What is known about the partitions at hand. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    shared: Arc<Shared>,
    shown: watch::Receiver<Shown>,
    observed: watch::Sender<BTreeMap<u32, Observed>>,
}

/// What is learnt about a partition by looking again and again.
#[derive(Clone, Debug, Default)]
struct Observed {
    /// End of the source partition when last looked.
    end: u64,
    /// The last moment when nothing was waiting, microseconds since the Unix epoch: whatever waits now came later.
    caught_up_micros: Option<i64>,
    /// Moments and records counted then.
    records: VecDeque<(Instant, u64)>,
    /// What it looked like when it last changed, and when that was.
    progress: Option<(Progress, Instant)>,
}

/// Whatever changes while a partition gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    state: State,
    position: u64,
    next_offset: Option<u64>,
}

impl Observed {
    fn rate(&self) -> f64 {
        match (self.records.front(), self.records.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                after.saturating_sub(*before) as f64 / (*to - *from).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    fn look(&mut self, view: &View, end: u64, now: Instant, now_micros: i64) {
        self.end = end;
        if lag_events(view, end) == 0 {
            self.caught_up_micros = Some(now_micros);
        }
        self.records.push_back((now, view.tally.records));
        if self.records.len() > RATE_LOOKS + 1 {
            self.records.pop_front();
        }
        let progress =
            Progress { state: view.state, position: view.position, next_offset: view.next_offset() };
        if self.progress.is_none_or(|(before, _)| before != progress) {
            self.progress = Some((progress, now));
        }
    }

    /// Why the partition counts as stuck, if it does.
    fn stuck(&self, view: &View, now: Instant) -> Option<String> {
        let (_, since) = self.progress?;
        let idle = match view.state {
            State::Running => lag_events(view, self.end) == 0,
            // Another consumer gets on with it.
            State::Fenced => true,
            State::Claiming | State::Rebuilding | State::Blocked | State::Unspecified => false,
        };
        let still = now.duration_since(since);
        (!idle && still >= STUCK_AFTER).then(|| {
            let state = view.state.as_str_name().trim_start_matches("STATE_").to_lowercase();
            let colon = if view.detail.is_empty() { "" } else { ": " };
            format!("{state} without progress for {} s{colon}{}", still.as_secs(), view.detail)
        })
    }
}

/// Events that wait; none before the first claim is through, for it is not known yet how far the results go.
fn lag_events(view: &View, end: u64) -> u64 {
    view.next_offset().map_or(0, |next| end.saturating_sub(next))
}

/// Age of the oldest event that waits, at most: it came after the watermark, and after the last moment without any waiting.
fn lag_micros(view: &View, observed: &Observed, end: u64, now_micros: i64) -> i64 {
    if lag_events(view, end) == 0 {
        return 0;
    }
    let since = view.watermark_micros.max(observed.caught_up_micros.unwrap_or(i64::MIN));
    // Nothing was ever counted: no more can be said than that something waits.
    if since <= 0 { 0 } else { now_micros.saturating_sub(since).max(0) }
}

/// Says that the log took events at a time that has not come yet, if it did.
fn ahead(view: &View, now_micros: i64) -> Option<String> {
    let ahead = view.watermark_micros.saturating_sub(now_micros);
    (ahead > MAX_AHEAD_MICROS).then(|| {
        format!(
            "the log took events {} s ahead of this machine's clock; set the clock right, or, if it is right now, wait until \
             the next event or heartbeat, which takes a few seconds",
            ahead / 1_000_000
        )
    })
}

impl Board {
    pub(crate) fn new(shared: Arc<Shared>, shown: watch::Receiver<Shown>) -> Self {
        Self { shared, shown, observed: watch::Sender::default() }
    }

    /// Looks at everything every second until the shutdown.
    pub(crate) async fn look_on(self, shutdown: Shutdown, log_check: Check, partitions_check: Check) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = tick.tick() => {}
            }
            match tokio::time::timeout(PATIENCE, self.shared.log.ping()).await {
                Ok(Ok(())) => log_check.ok(),
                Ok(Err(error)) => log_check.failing(error.to_string()),
                Err(_) => {
                    log_check.failing(format!("the log did not answer within {} s", PATIENCE.as_secs()))
                }
            }
            match self.look().await {
                troubles if troubles.is_empty() => partitions_check.ok(),
                troubles => partitions_check.failing(troubles.join("; ")),
            }
        }
    }

    /// One look; returns what is amiss.
    async fn look(&self) -> Vec<String> {
        let views = self.current();
        let mut troubles: Vec<String> = self.shown.borrow().troubles().collect();
        let mut observed = self.observed.borrow().clone();
        observed.retain(|partition, _| views.contains_key(partition));
        for (partition, view) in &views {
            let seen = observed.entry(*partition).or_default();
            let (now, micros) = (Instant::now(), now_micros());
            let end = self.end(*partition).await.unwrap_or(seen.end).max(view.position);
            seen.look(view, end, now, micros);
            if view.next_offset().is_some() {
                let seconds = lag_micros(view, seen, end, micros) as f64 / 1e6;
                let events = lag_events(view, end);
                self.shared.meters.lag(&self.shared.settings.events, *partition, events, seconds);
            }
            if let Some(why) = seen.stuck(view, now) {
                troubles.push(format!("partition {partition} is {why}"));
            }
            if let Some(why) = ahead(view, micros) {
                troubles.push(format!("partition {partition}: {why}"));
            }
        }
        self.observed.send_replace(observed);
        troubles
    }

    fn current(&self) -> BTreeMap<u32, View> {
        self.shown
            .borrow()
            .views
            .iter()
            .map(|(partition, view)| (*partition, view.borrow().clone()))
            .collect()
    }

    async fn end(&self, partition: u32) -> Option<u64> {
        let bounds = self.shared.log.bounds(&self.shared.settings.events, partition);
        tokio::time::timeout(PATIENCE, bounds).await.ok()?.ok().map(|bounds| bounds.end)
    }

    /// The state of this consumer now.
    pub(crate) async fn status(&self) -> Status {
        let mut partitions = Vec::new();
        for (partition, view) in self.current() {
            let known = self.observed.borrow().get(&partition).cloned().unwrap_or_default();
            let end = self.end(partition).await.unwrap_or(known.end).max(view.position);
            let lag_micros = lag_micros(&view, &known, end, now_micros());
            let sinks = view.sinks.iter().map(|progress| SinkStatus {
                sink: progress.sink.to_owned(),
                next_offset: progress.next,
                durable_offset: progress.durable,
            });
            partitions.push(PartitionStatus {
                partition,
                state: view.state.into(),
                position: view.position,
                sinks: sinks.collect(),
                end_offset: end,
                lag_events: lag_events(&view, end),
                lag_time: Some(prost_types::Duration {
                    seconds: lag_micros / 1_000_000,
                    nanos: (lag_micros % 1_000_000) as i32 * 1000,
                }),
                watermark: (view.watermark_micros > 0).then(|| timestamp(view.watermark_micros)),
                counted: view.tally.counted,
                duplicates: view.tally.duplicates,
                dead_lettered: view.tally.dead_lettered,
                late: view.tally.late,
                records_per_second: known.rate(),
                detail: match ahead(&view, now_micros()) {
                    Some(ahead) if view.detail.is_empty() => ahead,
                    Some(ahead) => format!("{}; {ahead}", view.detail),
                    None => view.detail,
                },
            });
        }
        Status {
            instance: self.shared.instance.clone(),
            partitions,
            report_time: Some(timestamp(now_micros())),
            clock_jump: clock::last_jump().map(|jump| ClockJump {
                jump_time: Some(timestamp(jump.time_micros)),
                jump: Some(prost_types::Duration {
                    seconds: jump.by_micros / 1_000_000,
                    nanos: (jump.by_micros % 1_000_000) as i32 * 1000,
                }),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: State, next: u64) -> View {
        View {
            state,
            position: next,
            sinks: vec![crate::partition::Progress::rollups(next)],
            watermark_micros: 5_000_000,
            ..View::default()
        }
    }

    #[test]
    fn a_partition_with_work_that_gets_nowhere_is_stuck() {
        let start = Instant::now();
        let mut observed = Observed::default();
        let running = view(State::Running, 10);
        observed.look(&running, 20, start, 0);
        assert_eq!(observed.stuck(&running, start), None);
        let later = start + STUCK_AFTER;
        observed.look(&running, 25, later, 0);
        let why = observed.stuck(&running, later).unwrap();
        assert_eq!(why, "running without progress for 30 s");
        let moved = view(State::Running, 11);
        observed.look(&moved, 25, later, 0);
        assert_eq!(observed.stuck(&moved, later), None);
    }

    #[test]
    fn an_idle_partition_is_not_stuck() {
        let start = Instant::now();
        let later = start + 2 * STUCK_AFTER;
        for (state, stuck) in [(State::Running, false), (State::Fenced, false), (State::Blocked, true)] {
            let view = view(state, 20);
            let mut observed = Observed::default();
            observed.look(&view, 20, start, 0);
            observed.look(&view, 20, later, 0);
            assert_eq!(observed.stuck(&view, later).is_some(), stuck, "{state:?}");
        }
    }

    #[test]
    fn a_log_that_is_ahead_of_the_clock_is_told() {
        let running = view(State::Running, 10);
        assert_eq!(ahead(&running, 5_000_000 - MAX_AHEAD_MICROS), None);
        let why = ahead(&running, 5_000_000 - 2 * MAX_AHEAD_MICROS).unwrap();
        assert!(why.contains("7200 s ahead"), "{why}");
    }

    #[test]
    fn lag_is_the_age_of_what_waits() {
        let mut observed = Observed::default();
        let at_ten = view(State::Running, 10);
        assert_eq!(lag_micros(&at_ten, &observed, 10, 9_000_000), 0);
        assert_eq!(lag_micros(&at_ten, &observed, 11, 9_000_000), 4_000_000);
        observed.look(&at_ten, 10, Instant::now(), 8_000_000);
        assert_eq!(lag_micros(&at_ten, &observed, 11, 9_000_000), 1_000_000);
    }
}
