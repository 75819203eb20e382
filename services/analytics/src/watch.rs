//! `WatchQuery`: an answer, kept up to date.
//!
//! The stream is pulled: a new answer is made only when the transport has taken the one before. A slow reader gets fewer
//! answers, each of the moment at which it was ready for it, and nothing piles up.

use std::{sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until},
};
use tonic::Status;
use weir_proto::analytics::v1::{ResultInfo, WatchQueryResponse, watch_query_response::Upkeep};
use weir_runtime::{Shutdown, metrics::Gauge};

use crate::{
    engine::{Engine, Wanted},
    error::Error,
    partition::Pulse,
    query::{Answer, Question},
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

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// What is watched, and how.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Whom to ask.
    pub(crate) engine: Arc<Engine>,
    /// The question.
    pub(crate) question: Question,
    /// What the first answer must count.
    pub(crate) wanted: Wanted,
    /// Until when that may take.
    pub(crate) deadline: Instant,
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
    let stop = Box::pin(shutdown.requested());
    let state = Watcher {
        pulse: watch.engine.pulse.clone(),
        watch,
        last: None,
        sent_pulse: Pulse::default(),
        seen: Pulse::default(),
        evaluated: Instant::now(),
        pause: Duration::ZERO,
        update: 0,
    };
    stream::unfold(Some((state, stop)), |state| async move {
        let (mut state, mut stop) = state?;
        let next = tokio::select! {
            next = state.next() => next,
            () = &mut stop => Err(Error::ShuttingDown),
        };
        match next {
            Ok(response) => Some((Ok(response), Some((state, stop)))),
            Err(error) => Some((Err(error.into()), None)),
        }
    })
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
    /// Time that must pass between two evaluations.
    pause: Duration,
    update: u64,
}

impl Watcher {
    /// The next answer that is worth sending.
    async fn next(&mut self) -> Result<WatchQueryResponse, Error> {
        if self.last.is_none() {
            self.watch.engine.reach(&self.watch.wanted, self.watch.deadline).await?;
        }
        loop {
            if let Some((_, sent)) = self.last {
                sleep_until(self.evaluated + self.pause).await;
                self.change(sent + REFRESH).await;
            }
            let answer = self.evaluate().await?;
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
                    result: Some(answer),
                    upkeep: Upkeep::Repeated.into(),
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
            let stale = self.watch.question.is_live() || pulse.moved != self.seen.moved;
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

    async fn evaluate(&mut self) -> Result<Answer, Error> {
        // Read before asking: what is counted meanwhile is looked at again.
        self.seen = *self.pulse.borrow_and_update();
        self.evaluated = Instant::now();
        let answer = self
            .watch
            .engine
            .ask(&self.watch.question, self.evaluated + self.watch.engine.query_timeout)
            .await?;
        let cost = self.evaluated.elapsed();
        let open = u32::try_from(self.watch.place.open.get().max(1)).unwrap_or(u32::MAX);
        let cores =
            std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        let fair = cost.saturating_mul(open.saturating_mul(SHARE)) / cores;
        self.pause = self.watch.min_interval.max(fair);
        Ok(answer)
    }
}

/// The answer without what changes although no figure does.
fn essence(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    let info = match &mut answer {
        Answer::Summary(summary) => &mut summary.info,
        Answer::TimeSeries(series) => &mut series.info,
        Answer::Breakdown(breakdown) => &mut breakdown.info,
        Answer::Funnel(funnel) => &mut funnel.info,
        Answer::Retention(retention) => &mut retention.info,
        Answer::Paths(paths) => &mut paths.info,
        Answer::UserEvents(events) => &mut events.info,
    };
    if let Some(info) = info {
        *info = ResultInfo {
            watermark: None,
            consistency_token: String::new(),
            rows_read: 0,
            start_time: None,
            end_time: None,
            ..std::mem::take(info)
        };
    }
    answer
}
