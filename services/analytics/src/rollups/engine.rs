//! Asks all partitions and makes one answer of what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use futures::future::try_join_all;
use prost_types::Timestamp;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};
use weir_proto::{token, validate::Path};
use weir_rollup::{definition::Catalog, level::Whole};
use weir_runtime::{auth::ProjectId, clock::now_micros, metrics::Histogram};

use super::{Plan, Setting, flaw::Flaw, incomplete_before, watermark};
use crate::{
    error::Error,
    materialise::{PartRequest, View, ViewRequest},
    partition::{CLOCK_SLACK_MICROS, Handle, Progress, Pulse, Refusal},
    question::{Answer, Counts},
};

/// How often a question is planned again because buckets expired meanwhile. Once is rare already.
const PLANS: usize = 3;

/// Offsets that must be counted before a question is answered, by partition: a consistency token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted(BTreeMap<u32, u64>);

impl Wanted {
    /// By partition the offset of the last event that is wanted.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.iter().map(|(partition, offset)| (*partition, *offset))
    }
}

/// A question that rollups cover, and the cells that answer it.
#[derive(Debug)]
pub(crate) struct Covered {
    plan: Plan,
    /// By partition.
    views: Vec<View>,
}

impl Covered {
    /// The moments that the question came down to.
    pub(crate) fn range(&self) -> &Range<i64> {
        self.plan.range()
    }

    /// By partition, the offset after the last event that is counted.
    pub(crate) fn next_offsets(&self) -> Vec<u64> {
        self.views.iter().map(|view| view.next_source_offset).collect()
    }

    /// What is counted, as a token would ask for it.
    pub(crate) fn counted(&self) -> Wanted {
        let counted = (0..).zip(self.next_offsets());
        Wanted(counted.filter_map(|(number, next)| Some((number, next.checked_sub(1)?))).collect())
    }

    /// The moment before which events of the question are not counted, if there are such.
    pub(crate) fn incomplete_before(&self) -> Option<i64> {
        let parts = 0..self.plan.parts().len();
        parts.filter_map(|part| incomplete_before(&self.views, part, &self.plan.reads())).max()
    }

    /// Every event before this moment is counted.
    pub(crate) fn watermark(&self) -> Option<Timestamp> {
        watermark(&self.views)
    }
}

/// The partitions and what is needed to ask them.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) partitions: Vec<Handle>,
    pub(crate) pulse: watch::Receiver<Pulse>,
    pub(crate) catalog: Arc<Catalog>,
    /// Evaluations at a time: as many as there are cores. More would only take turns.
    pub(crate) evaluations: Arc<Semaphore>,
    /// The longest that a query may run (`analytics.query_timeout`).
    pub(crate) query_timeout: Duration,
    /// Points and rows in an answer (`analytics.max_result_rows`).
    pub(crate) max_rows: usize,
    pub(crate) gather_duration: Histogram,
    pub(crate) evaluate_duration: Histogram,
}

impl Engine {
    /// Reads a consistency token.
    pub(crate) fn wanted(&self, text: &str) -> Result<Wanted, Error> {
        let root = Path::ROOT;
        let at = root.field("min_consistency_token");
        let offsets = token::decode(text).map_err(|malformed| Error::invalid(&at, malformed))?;
        match offsets.keys().find(|partition| **partition as usize >= self.partitions.len()) {
            Some(partition) => {
                let known = self.partitions.len();
                let problem =
                    format!("is from another system: it names partition {partition}, here are {known}");
                Err(Error::invalid(&at, problem))
            }
            None => Ok(Wanted(offsets)),
        }
    }

    /// Waits until everything that is wanted is counted.
    pub(crate) async fn reach(&self, wanted: &Wanted, deadline: Instant) -> Result<(), Error> {
        let started = Instant::now();
        for (&partition, &offset) in &wanted.0 {
            let mut progress = self.partitions[partition as usize].progress();
            let reached =
                |progress: &Progress| progress.next_source_offset > offset || progress.failed.is_some();
            // One that stopped tells why when it is asked.
            if timeout_at(deadline, progress.wait_for(reached)).await.is_err() {
                let reached = progress.borrow().next_source_offset;
                return Err(Error::Behind { partition, wanted: offset, reached, waited: started.elapsed() });
            }
        }
        Ok(())
    }

    /// What was counted of every partition, as a token would ask for it.
    pub(crate) fn counted(&self) -> Wanted {
        let offsets = (0..).zip(&self.partitions).filter_map(|(number, partition)| {
            Some((number, partition.progress().borrow().next_source_offset.checked_sub(1)?))
        });
        Wanted(offsets.collect())
    }

    /// Plans a question and takes the cells that answer it as they are now.
    ///
    /// # Errors
    /// Of [`Plan::of`], and when a partition has no answers.
    pub(crate) async fn cover(&self, project: &ProjectId, question: &Counts) -> Result<Covered, Error> {
        let started = Instant::now();
        for _ in 0..PLANS {
            let (newest, whole) = self.progress()?;
            let now = now_micros();
            // The log's clock may be ahead of ours, but not by days.
            let newest = newest.min(now.saturating_add(CLOCK_SLACK_MICROS));
            let (catalog, max_rows, question) = (self.catalog.clone(), self.max_rows, question.clone());
            let plan = self.evaluate(move || {
                let setting = Setting {
                    now: now.max(newest),
                    whole: catalog.retention().whole(newest).and(whole),
                    catalog: &catalog,
                    max_rows,
                };
                Plan::of(&question, &setting)
            });
            let plan = plan.await?;
            if let Some(views) = self.gather(project.clone(), plan.parts().to_vec()).await? {
                self.gather_duration.observe(started.elapsed().as_secs_f64());
                return Ok(Covered { plan, views });
            }
        }
        Err(Error::TooFine(
            "the range begins where buckets are expiring just now; begin a little later".to_owned(),
        ))
    }

    /// Answers a question that is covered. Work stops soon after the future is dropped, or after the longest that a query may
    /// take.
    ///
    /// # Errors
    /// Of the evaluation.
    pub(crate) async fn answer(
        &self,
        Covered { plan, views }: Covered,
    ) -> Result<(Answer, BTreeSet<Flaw>), Error> {
        let (started, limit) = (Instant::now(), self.query_timeout);
        let waiting = Arc::new(());
        let waited_for = Arc::downgrade(&waiting);
        let answer = self
            .evaluate(move || {
                let patience = move || {
                    let wanted = waited_for.strong_count() > 0 && started.elapsed() < limit;
                    if wanted { Ok(()) } else { Err(Error::TooSlow(started.elapsed())) }
                };
                plan.answer(&views, &patience)
            })
            .await;
        drop(waiting);
        self.evaluate_duration.observe(started.elapsed().as_secs_f64());
        answer
    }

    /// Does what keeps a processor busy where it holds up no other task, at most as many at a time as there are cores.
    async fn evaluate<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = self.evaluations.clone().acquire_owned().await.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.expect("evaluation does not panic")
    }

    /// The newest append time that is counted and where the buckets of all partitions are whole, if each can answer.
    fn progress(&self) -> Result<(i64, Whole), Error> {
        let (mut newest, mut whole) = (0, Whole::ALWAYS);
        for (number, partition) in (0u32..).zip(&self.partitions) {
            let progress = partition.progress();
            let progress = progress.borrow();
            if let Some(reason) = &progress.failed {
                return Err(Error::Unavailable { partition: number, reason: reason.to_string() });
            }
            if !progress.caught_up {
                let reason = "it is catching up with the log after a start; retry in a moment".to_owned();
                return Err(Error::Unavailable { partition: number, reason });
            }
            newest = newest.max(progress.watermark);
            whole = whole.and(progress.whole);
        }
        Ok((newest, whole))
    }

    /// Whether every partition can answer.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the first that can't.
    pub(crate) fn check_ready(&self) -> Result<(), Error> {
        self.progress().map(drop)
    }

    /// The views of all partitions; `None` when some buckets ceased to be whole since the plan was made.
    async fn gather(&self, project: ProjectId, parts: Vec<PartRequest>) -> Result<Option<Vec<View>>, Error> {
        let request = Arc::new(ViewRequest { project, parts });
        let views = self.partitions.iter().map(|partition| partition.view(request.clone()));
        match try_join_all(views).await {
            Ok(views) => Ok(Some(views)),
            Err(Refusal::Expired) => Ok(None),
            Err(Refusal::Stopped) => {
                self.progress()?;
                // Actors end without a reason only when the service stops.
                Err(Error::ShuttingDown)
            }
        }
    }
}
