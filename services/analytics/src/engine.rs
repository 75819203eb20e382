//! Asks all partitions and makes one answer of what they say.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::try_join_all;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};
use weir_proto::{token, validate::Path};
use weir_rollup::{definition::Catalog, level::Whole};
use weir_runtime::{clock::now_micros, metrics::Histogram};

use crate::{
    error::Error,
    materialise::{View, ViewRequest},
    partition::{Handle, Progress, Pulse, Refusal},
    query::{Answer, Question, Setting},
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

/// The partitions and what is needed to ask them.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) partitions: Vec<Handle>,
    pub(crate) pulse: watch::Receiver<Pulse>,
    pub(crate) catalog: Arc<Catalog>,
    /// The project that questions are about.
    pub(crate) project: Arc<str>,
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

    /// Answers a question from what is counted now.
    pub(crate) async fn ask(&self, question: &Question, deadline: Instant) -> Result<Answer, Error> {
        let started = Instant::now();
        let deadline = deadline.min(started + self.query_timeout);
        let too_slow = move || Error::TooSlow(started.elapsed());
        timeout_at(deadline, self.ask_until(question, deadline, started))
            .await
            .unwrap_or_else(|_| Err(too_slow()))
    }

    async fn ask_until(
        &self,
        question: &Question,
        deadline: Instant,
        started: Instant,
    ) -> Result<Answer, Error> {
        for _ in 0..PLANS {
            let (newest, whole) = self.counted()?;
            let (catalog, max_rows, question) = (self.catalog.clone(), self.max_rows, question.clone());
            let plan = self.evaluate(move || {
                question.plan(&Setting {
                    // The log's clock may be ahead of ours.
                    now: now_micros().max(newest),
                    whole: catalog.retention().whole(newest).and(whole),
                    catalog: &catalog,
                    max_rows,
                })
            });
            let plan = plan.await?;
            let Some(views) = self.gather(plan.parts().to_vec()).await? else { continue };
            self.gather_duration.observe(started.elapsed().as_secs_f64());

            let evaluated = Instant::now();
            let answer = self.evaluate(move || {
                let patience = move || {
                    if Instant::now() < deadline { Ok(()) } else { Err(Error::TooSlow(started.elapsed())) }
                };
                plan.answer(&views, &patience)
            });
            let answer = answer.await;
            self.evaluate_duration.observe(evaluated.elapsed().as_secs_f64());
            return answer;
        }
        Err(Error::TooFine(
            "the range begins where buckets are expiring just now; begin a little later".to_owned(),
        ))
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
    fn counted(&self) -> Result<(i64, Whole), Error> {
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

    /// The views of all partitions; `None` when some buckets ceased to be whole since the plan was made.
    async fn gather(&self, parts: Vec<crate::materialise::PartRequest>) -> Result<Option<Vec<View>>, Error> {
        let request = Arc::new(ViewRequest { project: self.project.clone(), parts });
        let views = self.partitions.iter().map(|partition| partition.view(request.clone()));
        match try_join_all(views).await {
            Ok(views) => Ok(Some(views)),
            Err(Refusal::Expired) => Ok(None),
            Err(Refusal::Stopped) => {
                self.counted()?;
                // Actors end without a reason only when the service stops.
                Err(Error::ShuttingDown)
            }
        }
    }
}
