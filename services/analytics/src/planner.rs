//! The one way from a question to its answer, of calls and watches alike: decides whether rollups answer it or the events
//! themselves, and has it answered.
//!
//! Rollups answer what they cover exactly as it is asked. Everything else is read from the events; the answer says so, and with
//! `explain` why. What is asked again before anything changed is answered from [`Answers`].

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use prost_types::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};
use weir_proto::analytics::v1::{ResultInfo, result_info::Source};
use weir_rollup::level::Whole;
use weir_runtime::{Metrics, clock::now_micros, metrics::Counter};

use crate::{
    SERVICE,
    answers::{Answers, Moment, Origin},
    error::Error,
    events::{Events, Seen},
    question::{self, Answer, Counts, Kind, Named, Question, TimeRange},
    rollups::engine::{Covered, Engine, Wanted},
};

/// Plans questions and has them answered.
#[derive(Debug)]
pub(crate) struct Planner {
    pub(crate) rollups: Arc<Engine>,
    pub(crate) events: Events,
    pub(crate) answers: Answers,
    pub(crate) answered: Answered,
    /// The longest that a question may take (`analytics.query_timeout`).
    pub(crate) query_timeout: Duration,
}

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until when the events that it must count may take to be counted.
    pub(crate) counted: Instant,
    /// When the caller gives up, if it does.
    pub(crate) answered: Option<Instant>,
}

/// Who answers a question, and from what.
#[derive(Debug)]
enum Plan {
    /// Rollups.
    Rollups(Box<Covered>),
    /// The events themselves, those of a range, for a reason.
    Events { seen: Arc<Seen>, range: Range<i64>, why: String },
}

impl Planner {
    /// Answers from what is there now, which are at least the events that are wanted.
    ///
    /// # Errors
    /// What is wrong with the question, or keeps it from being answered in time.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        question: &Arc<Question>,
        wanted: &Wanted,
        patience: Patience,
    ) -> Result<Answer, Error> {
        self.rollups.reach(wanted, patience.counted).await?;
        let limit = Limit::new(patience.answered, self.query_timeout);
        let plan = match limit.hold(self.rollups(&question.kind)).await? {
            Ok(covered) => match self.reach_back(question, &covered).await {
                Some(plan) => plan,
                None => Plan::Rollups(covered.into()),
            },
            Err(declined) => self.events(question, declined, wanted, patience).await?,
        };
        limit.hold(self.answer(question, plan)).await
    }

    /// Looks which segments are damaged that a question about a range could not read, for as long as a question may take.
    pub(crate) async fn isolate(self: Arc<Self>, seen: Arc<Seen>, reads: Range<i64>) {
        let looked = timeout(self.query_timeout, self.events.isolate(&seen, &reads)).await;
        if looked.is_err() {
            tracing::warn!("not all segments could be looked at in time");
        }
    }

    /// The cells that answer a question, or why none do although the events may.
    async fn rollups(&self, kind: &Kind) -> Result<Result<Covered, Declined>, Error> {
        let counts = match kind.counts() {
            Ok(counts) => counts,
            Err(why) => return Ok(Err(Declined::Never(why))),
        };
        match self.rollups.cover(counts).await {
            // Key figures are in rollups or not at all.
            Err(error @ (Error::NotCovered { .. } | Error::TooFine(_)))
                if !matches!(counts, Counts::Summary(_)) =>
            {
                Ok(Err(Declined::Now(error)))
            }
            covered => covered.map(Ok),
        }
    }

    /// The events, where the rollup was configured after they had begun and they are all there; else the rollup is as good.
    async fn reach_back(&self, question: &Question, covered: &Covered) -> Option<Plan> {
        let since = covered.incomplete_before()?;
        if matches!(question.kind, Kind::Counts(Counts::Summary(_))) {
            return None;
        }
        let seen = self.events.now(&covered.counted(), Instant::now()).await.ok()?;
        let range = resolve(question.kind.range());
        let is_better = !seen.is_partial() && seen.kept_since(&range).is_none_or(|kept| kept < since);
        let why = "it has counted only since it was configured".to_owned();
        is_better.then_some(Plan::Events { seen, range, why })
    }

    /// The events that answer a question.
    async fn events(
        &self,
        question: &Question,
        declined: Declined,
        wanted: &Wanted,
        patience: Patience,
    ) -> Result<Plan, Error> {
        let seen = self.events.now(wanted, patience.counted).await?;
        let why = match declined {
            Declined::Never(why) => why.to_owned(),
            // Where events are missing that rollups have counted, what these said is the better answer.
            Declined::Now(error) if seen.lacks(&self.rollups.counted()).is_some() => return Err(error),
            Declined::Now(error) => error.to_string(),
        };
        Ok(Plan::Events { range: resolve(question.kind.range()), seen, why })
    }

    /// The answer by a plan, unless another has it or is about to.
    async fn answer(self: &Arc<Self>, question: &Arc<Question>, plan: Plan) -> Result<Answer, Error> {
        let (moment, watermark) = (plan.moment(), plan.watermark());
        let why = match &plan {
            Plan::Rollups(_) => None,
            Plan::Events { why, .. } => Some(why.clone()),
        };
        let evaluation = Arc::clone(self).evaluate(Arc::clone(question), plan);
        let (mut answer, origin) = match moment {
            Some(moment) => self.answers.get(&question.identity, moment, evaluation).await?,
            None => (evaluation.await?, Origin::Evaluated),
        };
        let info = question::info(&mut answer);
        match origin {
            Origin::Evaluated => {}
            Origin::Shared => self.answered.shared.inc(),
            Origin::Kept => {
                self.answered.kept.inc();
                info.cached = true;
                // No event has come since, but time has passed.
                info.watermark = watermark;
            }
        }
        if question.explain {
            explain(info, why.as_deref());
        }
        Ok(answer)
    }

    async fn evaluate(self: Arc<Self>, question: Arc<Question>, plan: Plan) -> Result<Answer, Error> {
        match plan {
            Plan::Rollups(covered) => {
                self.answered.rollups.inc();
                let mut answer = self.rollups.answer(*covered).await?;
                if question::is_empty(&answer) && question.named != Named::default() {
                    // Rollups forget which names there were. What can't be looked up is not worth an error.
                    if let Ok(seen) = self.events.now(&Wanted::default(), Instant::now()).await {
                        question::info(&mut answer).notes = seen.notes(&question.named);
                    }
                }
                Ok(answer)
            }
            Plan::Events { seen, range, .. } => {
                self.answered.events.inc();
                let (kind, limit) = (&question.kind, self.query_timeout);
                let answer = |seen| self.events.answer(kind, range.clone(), seen, limit);
                let (mut answer, seen) = self.events.ask(seen, &kind.reads(&range)?, answer).await?;
                question::info(&mut answer).notes = seen.notes(&question.named);
                Ok(answer)
            }
        }
    }
}

impl Plan {
    /// What the answer depends on; `None` where events are missing that will be there again.
    fn moment(&self) -> Option<Moment> {
        match self {
            Self::Rollups(covered) => Some(Moment {
                range: covered.range().clone(),
                next_offsets: covered.next_offsets(),
                segments: None,
            }),
            Self::Events { seen, .. } if seen.is_partial() => None,
            Self::Events { seen, range, .. } => Some(Moment {
                range: range.clone(),
                next_offsets: seen.next_offsets(),
                segments: Some(seen.segments()),
            }),
        }
    }

    /// Every event before this moment is in the answer.
    fn watermark(&self) -> Option<Timestamp> {
        match self {
            Self::Rollups(covered) => covered.watermark(),
            Self::Events { seen, .. } => seen.watermark(),
        }
    }
}

/// Counts answers by how they came about.
#[derive(Debug)]
pub(crate) struct Answered {
    rollups: Counter,
    events: Counter,
    shared: Counter,
    kept: Counter,
}

impl Answered {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let by = |kind| metrics.answers(SERVICE, kind);
        Self { rollups: by("rollups"), events: by("events"), shared: by("shared"), kept: by("cached") }
    }
}

/// Why rollups don't answer a question.
enum Declined {
    /// None ever would.
    Never(&'static str),
    /// None of those that are kept do.
    Now(Error),
}

/// The moments that a range of events comes down to now; without a range all that are kept.
pub(crate) fn resolve(range: Option<TimeRange>) -> Range<i64> {
    range.map_or(i64::MIN..i64::MAX, |range| range.resolve(now_micros(), &Whole::ALWAYS, 1))
}

/// When an answer is given up.
struct Limit {
    started: Instant,
    deadline: Instant,
}

impl Limit {
    fn new(by_caller: Option<Instant>, at_most: Duration) -> Self {
        let started = Instant::now();
        let deadline = started + at_most;
        Self { started, deadline: by_caller.map_or(deadline, |by_caller| by_caller.min(deadline)) }
    }

    async fn hold<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let done = timeout_at(self.deadline, work).await;
        done.unwrap_or_else(|_| Err(Error::TooSlow(self.started.elapsed())))
    }
}

/// Says how an answer came about.
pub(crate) fn explain(info: &mut ResultInfo, why_events: Option<&str>) {
    let (rows, bytes, segments) = (info.rows_read, info.bytes_read, info.segments_read);
    info.plan = match info.source() {
        Source::Rollup => format!("answered from the rollup `{}`: {rows} cells were read", info.rollup),
        Source::Unspecified | Source::Store => {
            format!(
                "answered from the events: {rows} rows and {bytes} bytes of {segments} segments were read"
            )
        }
    };
    if info.cached {
        info.plan.push_str(" when it was asked before, and nothing has changed since");
    }
    if let Some(why) = why_events {
        info.plan.push_str("; not from a rollup, because ");
        info.plan.push_str(why);
    }
}
