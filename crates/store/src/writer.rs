//! The side of a partition's owner: accepts events at once, makes them durable behind.
//!
//! Two tasks work for a writer: one flushes the hot part by age and size, tries for ever, and drops what is published; the other
//! does the [upkeep](crate::upkeep). Both end with the writer. Whoever else appends to the partition's chain, a predecessor that does
//! not know yet that he is one, appends the same events: they come from the same log. So being overtaken is no failure: what the chain
//! has is dropped here, and the rest is written. Only events that can't follow the chain's end at all end the writer.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;
use weir_rollup::watermark;

use crate::{
    clock,
    error::{Error, Result},
    gc::PUBLISH_WITHIN,
    hot::{CleanBatch, Hot, Part},
    manifest::{Chain, Change, Published, Refusal, Segment},
    store::Store,
    upkeep::Upkeep,
};

/// Pauses after failures: 100 ms, doubled up to 10 s.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(10))
    .without_max_times();
/// So often a flush is tried when draining: whoever waits for a stop does not wait for a disk to be emptied.
const DRAIN_ATTEMPTS: u32 = 4;

/// How a writer is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The offset after the last event that is durable: where another owner would continue.
    pub durable: u64,
    /// Bytes of events in memory.
    pub hot_bytes: usize,
    /// What keeps events from becoming durable, or segments from being tended; tried again until it is over.
    pub trouble: Option<String>,
}

/// What the tasks report.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) durable: u64,
    pub(crate) flush_trouble: Option<String>,
    pub(crate) upkeep_trouble: Option<String>,
}

/// Writes a partition's events. Dropped, it stops without flushing: the events are read from the log again.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    partition: u32,
    hot: Arc<watch::Sender<Hot>>,
    progress: watch::Receiver<Progress>,
    drain: mpsc::Sender<oneshot::Sender<Result<()>>>,
    /// Each ends with the reason why. Aborted on drop.
    tasks: JoinSet<Error>,
}

impl Writer {
    pub(crate) async fn begin(store: &Store, partition: u32, owner: Uuid) -> Result<Self> {
        let chain = store.chain(partition).await?;
        if let Some(damage) = chain.damage() {
            return Err(damage);
        }
        let state = chain.state();
        let hot = Hot::new(state);
        let hot = Arc::new(watch::Sender::new(hot));
        let progress = Progress { durable: state.next_offset, ..Progress::default() };
        let reports = Arc::new(watch::Sender::new(progress));
        let progress = reports.subscribe();
        let wake = Arc::new(Notify::new());
        let upkeep = Upkeep::new(store, owner, chain.clone(), Arc::clone(&hot), Arc::clone(&reports));
        let flusher = Flusher {
            store: store.clone(),
            owner,
            chain,
            hot: Arc::clone(&hot),
            reports,
            upkeep: Arc::clone(&wake),
            written: None,
        };
        let (drain, drains) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(flusher.run(drains));
        tasks.spawn(upkeep.run(wake));
        store.own(partition, &hot);
        Ok(Self { store: store.clone(), partition, hot, progress, drain, tasks })
    }

    /// The offset that is to be appended next.
    pub fn next_offset(&self) -> u64 {
        self.hot.borrow().end()
    }

    /// Accepts a batch: readers see it from now on. What it has below [`Writer::next_offset`] is skipped; offsets that it leaves out
    /// before its start count as empty, for the log has them no longer, and readers learn since when all events are there.
    ///
    /// There is always room for it: callers look at [`Writer::has_room`] before they read on.
    pub fn append(&mut self, batch: CleanBatch) {
        self.hot.send_modify(|hot| hot.push(batch));
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        let progress = self.progress.borrow();
        let trouble = progress.flush_trouble.clone().or_else(|| progress.upkeep_trouble.clone());
        Status { durable: progress.durable, hot_bytes: self.hot.borrow().bytes(), trouble }
    }

    /// Waits until something became durable, or trouble came or went. Cancel-safe.
    ///
    /// # Errors
    /// Why nothing becomes durable or is tended any more: it takes a new writer, and what is not durable from the log again.
    pub async fn changed(&mut self) -> Result<()> {
        tokio::select! {
            Ok(()) = self.progress.changed() => Ok(()),
            ended = self.tasks.join_next() => match ended {
                Some(Ok(reason)) => Err(reason),
                // What panicked has said so.
                Some(Err(_)) | None => Err(Error::Stopped { partition: self.partition }),
            },
        }
    }

    /// Whether more may be accepted; if not, wait for [`Writer::changed`].
    pub fn has_room(&self) -> bool {
        self.hot.borrow().bytes() < self.store.hot_share()
    }

    /// Makes everything durable and stops.
    ///
    /// # Errors
    /// Why that was not possible in a few attempts; what is not durable is read from the log again.
    pub async fn drain(self) -> Result<()> {
        let stopped = || Error::Stopped { partition: self.partition };
        let (done, drained) = oneshot::channel();
        self.drain.send(done).await.map_err(|_| stopped())?;
        drained.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.store.disown(self.partition, &self.hot);
    }
}

/// Segments that are durable but not published.
#[derive(Debug)]
struct Written {
    start: u64,
    end: u64,
    watermark_micros: i64,
    complete_since_micros: i64,
    segments: Vec<Segment>,
    begun_micros: i64,
}

struct Flusher {
    store: Store,
    owner: Uuid,
    chain: Chain,
    hot: Arc<watch::Sender<Hot>>,
    reports: Arc<watch::Sender<Progress>>,
    upkeep: Arc<Notify>,
    /// Of an attempt to publish that failed.
    written: Option<Written>,
}

/// However it ends: whoever still looks learns that nothing becomes durable anymore.
impl Drop for Flusher {
    fn drop(&mut self) {
        let trouble = Error::Stopped { partition: self.chain.partition() }.to_string();
        self.reports.send_modify(|progress| progress.flush_trouble = Some(trouble));
    }
}

impl Flusher {
    async fn run(mut self, mut drains: mpsc::Receiver<oneshot::Sender<Result<()>>>) -> Error {
        let interval = self.store.settings().flush_interval;
        let mut hot = self.hot.subscribe();
        let mut failures = 0;
        let mut due = Instant::now() + interval;
        loop {
            tokio::select! {
                drain = drains.recv() => {
                    if let Some(done) = drain {
                        // Who asked may have gone.
                        let _ = done.send(self.drain().await);
                    }
                    return Error::Stopped { partition: self.chain.partition() };
                }
                () = sleep_until(due) => {}
                _ = async { hot.wait_for(|hot| hot.bytes() >= self.store.flush_bytes()).await.map(drop) }, if failures == 0 => {}
            }
            let flushed = self.flush().await;
            failures = if flushed.is_ok() { 0 } else { failures + 1 };
            due = Instant::now() + if failures == 0 { interval } else { pause(failures) };
            self.report(&flushed);
            if let Err(refused @ Error::Refused { .. }) = flushed {
                return refused;
            }
        }
    }

    async fn drain(&mut self) -> Result<()> {
        let mut failures = 0;
        while self.chain.state().next_offset < self.hot.borrow().end() {
            let flushed = self.flush().await;
            self.report(&flushed);
            if let Err(error) = flushed {
                failures += 1;
                if failures == DRAIN_ATTEMPTS {
                    return Err(error);
                }
                tokio::time::sleep(pause(failures)).await;
            }
        }
        Ok(())
    }

    /// Makes the first hot parts durable and drops them. After a failure the next call goes on where this one stopped.
    async fn flush(&mut self) -> Result<()> {
        let Some(written) = self.write().await? else { return Ok(()) };
        let Written { start, end, watermark_micros, complete_since_micros, segments, .. } = &written;
        let change = Change::Append {
            start: *start,
            end: *end,
            watermark_micros: *watermark_micros,
            complete_since_micros: *complete_since_micros,
            segments: segments.clone(),
        };
        match self.chain.publish(self.owner, &change).await {
            Ok(Published::Done) => {}
            Ok(Published::Refused(Refusal::NotNext { next_offset, .. })) if next_offset > *start => {
                tracing::info!(
                    partition = self.chain.partition(),
                    next_offset,
                    "another process published these events"
                );
            }
            // What was written is gone, and the events are still here: they are written anew.
            Ok(Published::Refused(refusal @ Refusal::Discarded(_))) => {
                return Err(Error::unavailable("publish segments", refusal));
            }
            Ok(Published::Refused(refusal)) => {
                return Err(Error::Refused { partition: self.chain.partition(), refusal });
            }
            Err(error) => {
                self.written = Some(written);
                return Err(error);
            }
        }
        let state = self.chain.state();
        self.hot.send_modify(|hot| hot.published(state.next_offset, state.watermark_micros, state.version));
        self.upkeep.notify_one();
        Ok(())
    }

    /// Segments of the first hot parts: those of a failed attempt, while they may be published.
    async fn write(&mut self) -> Result<Option<Written>> {
        let begun_micros = clock::now_micros();
        let usable = |written: &Written| begun_micros - written.begun_micros < clock::micros(PUBLISH_WITHIN);
        if let Some(written) = self.written.take().filter(usable) {
            return Ok(Some(written));
        }
        let mut parts: Vec<Arc<Part>> = Vec::new();
        let bytes = self.store.flush_bytes();
        let mut complete_since_micros = i64::MIN;
        self.hot.send_if_modified(|hot| {
            parts = hot.seal(bytes);
            complete_since_micros = hot.complete_since_micros();
            false
        });
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(None) };
        let (start, end) = (first.start, last.end);
        let watermark_micros =
            parts.iter().map(|part| part.watermark_micros).fold(i64::MIN, watermark::advance);
        let segments = self.store.write_parts(self.chain.partition(), &parts).await?;
        Ok(Some(Written { start, end, watermark_micros, complete_since_micros, segments, begun_micros }))
    }

    fn report(&self, flushed: &Result<()>) {
        if let Err(error) = flushed {
            tracing::warn!(partition = self.chain.partition(), %error, "events can't be made durable; trying again");
        }
        let durable = self.chain.state().next_offset;
        let trouble = flushed.as_ref().err().map(ToString::to_string);
        self.reports.send_if_modified(|progress| {
            let news = progress.durable != durable || progress.flush_trouble != trouble;
            (progress.durable, progress.flush_trouble) = (durable, trouble);
            news
        });
    }
}

/// How long to wait after so many failures in a row.
pub(crate) fn pause(failures: u32) -> Duration {
    let reached = failures.saturating_sub(1).min(10);
    PAUSES.build().nth(reached as usize).expect("without a number of times there is always a next")
}
