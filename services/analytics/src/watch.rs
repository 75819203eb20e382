//! `WatchQuery`: an answer, kept up to date.
//!
//! The stream is pulled: a new answer is made only when the transport has taken the one before. A slow reader gets fewer
//! answers, each of the moment at which it was ready for it, and nothing piles up.
//!
//! The question is asked again when events were counted; one about "the last hour" every second, too. So its answer is what the
//! query says at that moment, whatever the kind. How often is bounded by what it costs: with rollups, to which events were added
//! as they came, as much as the answer has cells; with events, all that the question reads.

use std::{sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until},
};
use tonic::Status;
use weir_proto::analytics::v1::{
    ResultInfo, WatchQueryResponse, result_info::Source, watch_query_response::Upkeep,
};
use weir_runtime::{Shutdown, metrics::Gauge};

use crate::{
    error::Error,
    partition::Pulse,
    planner::{Patience, Planner},
    question::{self, Answer, Question},
    rollups::engine::Wanted,
};

/// Watches together take at most one part in this many of the machine.
const SHARE: u32 = 2;
/// How often an answer is sent again when only its watermark moved, and a range that moves with the clock is looked at.
const REFRESH: Duration = Duration::from_secs(1);

/// A place among the open watches, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Takes a place.
    pub(crate) fn new(open: Gauge, permit: OwnedSemaphorePermit) -> Self {
        open.inc();
        Self { open, _permit: permit }
    }
}

impl Place {
    /// How many places are taken.
    pub(crate) fn open(&self) -> usize {
        usize::try_from(self.open.get()).unwrap_or(1)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// What is watched, and how.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Whom to ask.
    pub(crate) planner: Arc<Planner>,
    /// The question.
    pub(crate) question: Arc<Question>,
    /// What the first answer must count.
    pub(crate) wanted: Wanted,
    /// How long that may take.
    pub(crate) patience: Patience,
    /// Time between two answers at least.
    pub(crate) min_interval: Duration,
    /// Its place among the open watches.
    pub(crate) place: Place,
}

/// The answers.
pub(crate) fn answers(
    watch: Watch,
    shutdown: &Shutdown,
) -> impl Stream<Item = Result<WatchQueryResponse, Status>> + Send + use<> {
    let state = Watcher {
        pulse: watch.planner.rollups.pulse.clone(),
        watch,
        last: None,
        sent_pulse: Pulse::default(),
        seen: Pulse::default(),
        evaluated: Instant::now(),
        partial: false,
        pause: Duration::ZERO,
        update: 0,
    };
    shutdown.end(stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match state.next().await {
            Ok(response) => Some((Ok(response), Some(state))),
            Err(error) => Some((Err(error.into()), None)),
        }
    }))
}

struct Watcher {
    watch: Watch,
    pulse: watch::Receiver<Pulse>,
    /// The last answer sent without what changes by itself, and when.
    last: Option<(Answer, Instant)>,
    /// The pulse when it was made.
    sent_pulse: Pulse,
    /// The pulse when the question was last evaluated.
    seen: Pulse,
    evaluated: Instant,
    /// Whether events were missing in the last answer, which will be there again without being counted anew.
    partial: bool,
    /// Time that must pass between two evaluations.
    pause: Duration,
    update: u64,
}

impl Watcher {
    /// The next answer that is worth sending.
    async fn next(&mut self) -> Result<WatchQueryResponse, Error> {
        loop {
            if let Some((_, sent)) = self.last {
                sleep_until(self.evaluated + self.pause).await;
                self.change(sent + REFRESH).await;
            }
            let Some(mut answer) = self.evaluate().await? else { continue };
            let essence = essence(&answer);
            let worth_sending = match &self.last {
                None => true,
                Some((last, _)) if *last != essence => true,
                Some((_, sent)) => sent.elapsed() >= REFRESH && self.seen != self.sent_pulse,
            };
            if worth_sending {
                self.last = Some((essence, Instant::now()));
                self.sent_pulse = self.seen;
                self.update += 1;
                return Ok(WatchQueryResponse {
                    upkeep: upkeep(question::info(&mut answer).source()).into(),
                    result: Some(answer),
                    update: self.update,
                });
            }
        }
    }

    /// Waits until events were counted or, from `refresh` on, anything else can have changed.
    async fn change(&mut self, refresh: Instant) {
        let refresh = refresh.max(self.evaluated + REFRESH);
        loop {
            let pulse = *self.pulse.borrow_and_update();
            if pulse.counted != self.seen.counted {
                return;
            }
            // What was counted without a change to the answer is still to be told.
            let untold = pulse != self.sent_pulse;
            let stale = self.partial || self.watch.question.kind.is_live() || untold;
            tokio::select! {
                changed = self.pulse.changed() => {
                    if changed.is_err() {
                        // No partition is left; the question will tell.
                        return sleep_until(refresh).await;
                    }
                }
                () = sleep_until(refresh), if stale => return,
            }
        }
    }

    /// The answer now; `None` as long as the store lacks events that are counted: an answer without them would go back in time.
    async fn evaluate(&mut self) -> Result<Option<Answer>, Error> {
        let planner = Arc::clone(&self.watch.planner);
        // Read before asking: what is counted meanwhile is looked at again.
        let pulse = *self.pulse.borrow_and_update();
        let is_first = self.last.is_none();
        let counted = planner.rollups.counted();
        let wanted = if is_first { &self.watch.wanted } else { &counted };
        self.evaluated = Instant::now();
        // What is counted was handed to the store before: one look will do.
        let at_once = Patience { counted: self.evaluated, answered: None };
        let patience = if is_first { self.watch.patience } else { at_once };
        let mut answer = match planner.ask(&self.watch.question, wanted, patience).await {
            Err(Error::Behind { .. }) if !is_first => {
                self.pause = self.watch.min_interval.max(REFRESH);
                return Ok(None);
            }
            answer => answer?,
        };
        self.seen = pulse;
        let cost = self.evaluated.elapsed();
        let info = question::info(&mut answer);
        self.partial = !info.missing_parts.is_empty();
        let threads = match info.source() {
            Source::Rollup => 1,
            Source::Unspecified | Source::Store => planner.events.engine.threads(),
        };
        self.pause = self.watch.min_interval.max(self.fair_pause(cost, threads));
        Ok(Some(answer))
    }

    /// The time between two evaluations that keeps all watches within their share, if each costs so much of so many threads.
    fn fair_pause(&self, cost: Duration, threads: usize) -> Duration {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let open = u32::try_from(self.watch.place.open.get().max(1)).unwrap_or(u32::MAX);
        let cores = std::thread::available_parallelism().map_or(1, |cores| number(cores.get()));
        let times = open.saturating_mul(SHARE).saturating_mul(number(threads));
        cost.saturating_mul(times) / cores
    }
}

/// How an answer of this source is kept up to date: rollups take events in one by one, for all who ask.
fn upkeep(source: Source) -> Upkeep {
    match source {
        Source::Rollup => Upkeep::Incremental,
        Source::Unspecified | Source::Store => Upkeep::Repeated,
    }
}

/// The answer without what changes although no figure does.
fn essence(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    let info = question::info(&mut answer);
    *info = ResultInfo {
        watermark: None,
        consistency_token: String::new(),
        rows_read: 0,
        bytes_read: 0,
        segments_read: 0,
        plan: String::new(),
        cached: false,
        start_time: None,
        end_time: None,
        ..std::mem::take(info)
    };
    answer
}
