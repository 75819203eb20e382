//! The one way from a question to its answer, of calls and watches alike: decides whether rollups answer it or the events
//! themselves, and has it answered.
//!
//! Rollups answer what they cover exactly as it is asked. Where their answer has a [`Flaw`] and the events have none, the events
//! answer ([`Planner::exactly`]), unless they are more than `analytics.exact_up_to_events`; everything else is read from the
//! events at once. The answer says so, and with `explain` why. What is asked again before anything changed is answered from
//! [`Answers`].

use std::{collections::BTreeSet, future::Future, ops::Range, sync::Arc, time::Duration};

use prost_types::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};
use weir_proto::analytics::v1::{Note, ResultInfo, note, result_info::Source};
use weir_rollup::{calendar::Zone, level::Whole};
use weir_runtime::{Metrics, clock::now_micros, metrics::Counter};

use crate::{
    SERVICE,
    answers::{Answers, Evaluated, Moment, Origin},
    error::Error,
    events::{Events, Seen},
    question::{self, Answer, Named, Question, TimeRange},
    rollups::{
        engine::{Covered, Engine, Wanted},
        flaw::Flaw,
    },
};

/// The part of the time left that the events may take where the rollups' answer is at hand: the rest is for sending that.
const EXACT_TIME: f64 = 0.8;

/// Plans questions and has them answered.
#[derive(Debug)]
pub(crate) struct Planner {
    pub(crate) rollups: Arc<Engine>,
    pub(crate) events: Events,
    pub(crate) answers: Answers,
    pub(crate) answered: Answered,
    /// The longest that a question may take (`analytics.query_timeout`).
    pub(crate) query_timeout: Duration,
    /// Events that are read for an exact answer at most, where rollups have another (`analytics.exact_up_to_events`).
    pub(crate) exact_up_to_events: u64,
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
        let plan = match limit.hold(self.rollups(question)).await? {
            Ok(covered) => Plan::Rollups(covered.into()),
            Err(declined) => self.events(question, declined, wanted, patience).await?,
        };
        limit.hold(self.answer(question, plan, limit.deadline)).await
    }

    /// Looks which segments are damaged that a question about a range could not read, for as long as a question may take.
    pub(crate) async fn isolate(self: Arc<Self>, seen: Arc<Seen>, reads: Range<i64>) {
        let looked = timeout(self.query_timeout, self.events.isolate(&seen, &reads)).await;
        if looked.is_err() {
            tracing::warn!("not all segments could be looked at in time");
        }
    }

    /// The cells that answer a question, or why none do although the events may.
    async fn rollups(&self, question: &Question) -> Result<Result<Covered, Declined>, Error> {
        let counts = match question.kind.counts() {
            Ok(counts) => counts,
            Err(why) => return Ok(Err(Declined::Never(why))),
        };
        match self.rollups.cover(&question.project, counts).await {
            Err(error @ (Error::NotCovered { .. } | Error::TooFine(_))) => Ok(Err(Declined::Now(error))),
            covered => covered.map(Ok),
        }
    }

    /// The events that answer a question.
    async fn events(
        &self,
        question: &Question,
        declined: Declined,
        wanted: &Wanted,
        patience: Patience,
    ) -> Result<Plan, Error> {
        let seen = self.events.now(&question.project, wanted, patience.counted).await?;
        let why = match declined {
            Declined::Never(why) => why.to_owned(),
            // Where events are missing that rollups have counted, what these said is the better answer.
            Declined::Now(error) if seen.lacks(&self.rollups.counted()).is_some() => return Err(error),
            Declined::Now(error) => error.to_string(),
        };
        Ok(Plan::Events { range: resolve(question.kind.range()), seen, why })
    }

    /// The answer by a plan, unless another has it or is about to.
    async fn answer(
        self: &Arc<Self>,
        question: &Arc<Question>,
        plan: Plan,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let (moment, watermark) = (plan.moment(), plan.watermark());
        let evaluation = Arc::clone(self).evaluate(Arc::clone(question), plan, deadline);
        let (mut answer, origin) = match moment {
            Some(moment) => self.answers.get(&question.identity, moment, evaluation).await?,
            None => (evaluation.await?.answer, Origin::Evaluated),
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
        let why = std::mem::take(&mut info.plan);
        if question.explain {
            explain(info, &why);
        }
        Ok(answer)
    }

    /// The answer by a plan, with the reasons for it in `info.plan`.
    async fn evaluate(
        self: Arc<Self>,
        question: Arc<Question>,
        plan: Plan,
        deadline: Instant,
    ) -> Result<Evaluated, Error> {
        match plan {
            Plan::Rollups(covered) => self.ask_rollups(&question, *covered, deadline).await,
            Plan::Events { seen, range, why } => {
                let why = format!("not from a rollup, because {why}");
                Ok(self.ask_events(&question, seen, range, why, self.query_timeout).await?.into())
            }
        }
    }

    /// The rollups' answer, unless the events have a better one.
    async fn ask_rollups(
        &self,
        question: &Question,
        covered: Covered,
        deadline: Instant,
    ) -> Result<Evaluated, Error> {
        let counted = Counted {
            what: covered.counted(),
            range: covered.range().clone(),
            since: covered.incomplete_before(),
        };
        let (mut answer, mut flaws) = self.rollups.answer(covered).await?;
        flaws.extend(counted.since.map(|_| Flaw::Since));
        let why = flaws.iter().map(|flaw| flaw.text()).collect::<Vec<_>>().join(", and ");
        let kept = match self.exactly(question, &flaws, counted, &why, deadline).await {
            Ok(Some(exact)) => return Ok(exact.into()),
            Ok(None) => None,
            Err(declined) => Some(declined),
        };
        let keep = kept.as_ref().is_none_or(|declined| declined.lasts);
        self.answered.rollups.inc();
        if question::is_empty(&answer) && question.named != Named::default() {
            // Rollups forget which names there were. What can't be looked up is not worth an error.
            if let Ok(seen) = self.events.now(&question.project, &Wanted::default(), Instant::now()).await {
                question::info(&mut answer).notes = seen.notes(&question.named);
            }
        }
        if let Some(Unasked { why: kept, .. }) = kept {
            let info = question::info(&mut answer);
            info.plan = format!("not exact, because {why}; not from the events, because {kept}");
            if !info.exact {
                let text = format!("figures are not exact: {why}; the events were not asked: {kept}");
                let kind = note::Kind::Approximate.into();
                info.notes.push(Note { kind, text, ..Note::default() });
            }
        }
        Ok(Evaluated { answer, keep })
    }

    /// The rule: where the rollups' answer has flaws and the events can answer without any, the events answer. They can if all of
    /// them are kept and can be read now, and if they are not too many. `None` if there are no flaws.
    ///
    /// # Errors
    /// Why the events don't answer.
    async fn exactly(
        &self,
        question: &Question,
        flaws: &BTreeSet<Flaw>,
        Counted { what, range, since }: Counted,
        why: &str,
        deadline: Instant,
    ) -> Result<Option<Answer>, Unasked> {
        let lasting = |why: String| Err(Unasked { why, lasts: true });
        let passing = |error: Error| Unasked { why: error.to_string(), lasts: false };
        if flaws.is_empty() {
            return Ok(None);
        }
        if !flaws.iter().any(|flaw| flaw.is_mended_by_events()) {
            return lasting("they have no better answer".to_owned());
        }
        let reads = question.kind.reads(&range).map_err(|error| passing(error.into()))?;
        let seen = self.events.now(&question.project, &what, Instant::now()).await.map_err(passing)?;
        if seen.is_partial() {
            return Err(Unasked { why: "some of them can't be read now".to_owned(), lasts: false });
        }
        // A rollup that lacks events itself need only lack more of them.
        let kept_since = seen.kept_since(&reads).filter(|kept| since.is_none_or(|since| *kept >= since));
        if let Some(kept) = kept_since {
            let kept = Zone::UTC.local_time(kept).unwrap_or_else(|error| error.to_string());
            return lasting(format!("they are kept only since {kept}"));
        }
        if seen.events_in(&reads) > self.exact_up_to_events {
            let limit = self.exact_up_to_events;
            return lasting(format!("they are more than [analytics] exact_up_to_events = {limit}"));
        }
        let left = deadline.saturating_duration_since(Instant::now()).mul_f64(EXACT_TIME);
        let why = format!("not from a rollup, because {why}");
        let answer = self.ask_events(question, seen, range, why, left.min(self.query_timeout));
        answer.await.map(Some).map_err(passing)
    }

    /// The answer from the events.
    async fn ask_events(
        &self,
        question: &Question,
        seen: Arc<Seen>,
        range: Range<i64>,
        why: String,
        limit: Duration,
    ) -> Result<Answer, Error> {
        self.answered.events.inc();
        let kind = &question.kind;
        let answer = |seen| self.events.answer(kind, range.clone(), seen, limit);
        let (mut answer, seen) = self.events.ask(seen, &kind.reads(&range)?, answer).await?;
        let info = question::info(&mut answer);
        info.notes = seen.notes(&question.named);
        info.plan = why;
        Ok(answer)
    }
}

/// Why the events don't answer in place of rollups.
#[derive(Debug)]
struct Unasked {
    why: String,
    /// Whether it stays so while nothing changes.
    lasts: bool,
}

/// What an answer from rollups counts.
#[derive(Debug)]
struct Counted {
    /// These events.
    what: Wanted,
    /// Those of them in this range.
    range: Range<i64>,
    /// And of these, only the ones that came since this moment, if there are others.
    since: Option<i64>,
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

/// Says how an answer came about, and why so.
pub(crate) fn explain(info: &mut ResultInfo, why: &str) {
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
    if !why.is_empty() {
        info.plan.push_str("; ");
        info.plan.push_str(why);
    }
}
