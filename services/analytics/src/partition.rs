//! The actor of one `metrics-data` partition: reads the log, owns the [`State`], answers requests for views, writes
//! snapshots.
//!
//! Nothing here waits for a query: views and snapshots take pointers to cells, and what they do with them happens elsewhere.

use std::{panic::AssertUnwindSafe, path::PathBuf, sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::FutureExt as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};
use weir_log::{EventLog, Offset, PartitionReader, RecordBatch};
use weir_rollup::{
    imports::{Import, ImportId},
    level::Whole,
};
use weir_runtime::{
    Metrics, Shutdown,
    auth::ProjectId,
    clock::{now_micros, steady_micros},
    health::Check,
    metrics::{Counter, Histogram},
};

use crate::{
    SERVICE,
    lag::Lag,
    materialise::{Applied, Limits, State, View, ViewRequest},
    snapshot,
};

/// Requests for views that may wait for the actor; callers wait for a place. Each takes microseconds.
const REQUESTS: usize = 256;
/// How long the log is asked to wait for records; only bounds how soon an idle reader notices a lost connection.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Pauses after failed reads: 50 ms, doubled up to 2 s, with jitter.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_secs(2))
    .without_max_times()
    .with_jitter();

/// How far ahead of this machine's clock the log's may be, microseconds; as far as events may be.
pub(crate) const CLOCK_SLACK_MICROS: i64 = 3_600_000_000;

/// How far a partition has come.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Source offsets below this one are counted.
    pub(crate) next_source_offset: u64,
    /// Everything that the log took before this moment is counted, microseconds since the epoch.
    pub(crate) watermark: i64,
    /// Where the buckets hold everything.
    pub(crate) whole: Whole,
    /// Where the log is read next.
    pub(crate) next_metrics_offset: Offset,
    /// When the log took the last record that was read, Unix milliseconds; 0 before the first.
    pub(crate) last_append_ms: i64,
    /// Whether the end that the log had at the start was reached: before that, answers would go back in time.
    pub(crate) caught_up: bool,
    /// Where the consumer that owns the partition is reached, as its claim says; empty before the first.
    pub(crate) owner_address: Arc<str>,
    /// Why the partition stopped for good.
    pub(crate) failed: Option<Arc<str>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            next_source_offset: 0,
            watermark: 0,
            whole: Whole::ALWAYS,
            next_metrics_offset: 0,
            last_append_ms: 0,
            caught_up: false,
            owner_address: Arc::default(),
            failed: None,
        }
    }
}

/// Counts what happened in all partitions, for those who wait for any of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// Rises whenever events were counted.
    pub(crate) counted: u64,
    /// Rises whenever a watermark moved.
    pub(crate) moved: u64,
}

/// Why there is no view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Some of the buckets have ceased to be whole since the question was planned: plan again.
    Expired,
    /// The partition stopped.
    Stopped,
}

enum Request {
    View { views: Arc<ViewRequest>, answer: oneshot::Sender<Result<View, Refusal>> },
    Import { project: ProjectId, import: ImportId, answer: oneshot::Sender<KnownImport> },
}

/// What a partition knows of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownImport {
    /// Nothing, when no record of it is counted here or it is forgotten.
    pub(crate) import: Option<Import>,
    /// Imports that began up to this moment may be forgotten, microseconds since the epoch.
    pub(crate) forgotten_micros: i64,
}

/// Callers' end of the actor. Clones reach the same one.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    requests: mpsc::Sender<Request>,
    progress: watch::Receiver<Progress>,
}

impl Handle {
    /// The cells that a question needs, all of one moment.
    pub(crate) async fn view(&self, views: Arc<ViewRequest>) -> Result<View, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::View { views, answer }).await.map_err(|_| Refusal::Stopped)?;
        answered.await.map_err(|_| Refusal::Stopped)?
    }

    /// What is known of an import.
    pub(crate) async fn import(&self, project: ProjectId, import: ImportId) -> Result<KnownImport, Refusal> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Import { project, import, answer };
        self.requests.send(request).await.map_err(|_| Refusal::Stopped)?;
        answered.await.map_err(|_| Refusal::Stopped)
    }

    /// How far it has come.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }
}

/// What an actor is made of.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Partition number.
    pub(crate) number: u32,
    /// The topic of the results.
    pub(crate) topic: String,
    /// Bounds of its state.
    pub(crate) limits: Limits,
    /// Where snapshots lie.
    pub(crate) snapshot_dir: PathBuf,
    /// Time between them.
    pub(crate) snapshot_interval: Duration,
}

struct Instruments {
    processed: Counter,
    duplicates: Counter,
    dead_lettered: Counter,
    malformed: Counter,
    void: Counter,
    log_errors: Counter,
    apply: Histogram,
    snapshot: Histogram,
    latency: Histogram,
}

impl Instruments {
    fn bind(metrics: &Metrics, topic: &str) -> Self {
        Self {
            processed: metrics.events_processed(SERVICE, topic, "processed"),
            duplicates: metrics.events_processed(SERVICE, topic, "duplicate"),
            dead_lettered: metrics.events_processed(SERVICE, topic, "dead_lettered"),
            malformed: metrics.errors(SERVICE, "malformed_record"),
            void: metrics.errors(SERVICE, "void_batch"),
            log_errors: metrics.errors(SERVICE, "log"),
            apply: metrics.event_processing_duration(SERVICE, "apply"),
            snapshot: metrics.event_processing_duration(SERVICE, "snapshot"),
            latency: metrics.event_end_to_end_latency(SERVICE),
        }
    }
}

struct Actor {
    settings: Settings,
    log: Arc<dyn EventLog>,
    check: Check,
    progress: watch::Sender<Progress>,
    pulse: watch::Sender<Pulse>,
    instruments: Instruments,
    state: State,
    /// The log's identity, once it has been asked.
    log_identity: String,
    /// The end of the log at the start.
    goal: Offset,
    /// Whether cells changed since the last snapshot.
    dirty: bool,
    snapshot: Option<JoinHandle<Result<u64, snapshot::Error>>>,
    last_append_ms: i64,
    /// Whether the state was made anew because a clock had been ahead.
    began_anew: bool,
}

/// Why the actor can't go on.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("{0}")]
    Log(#[from] weir_log::Error),
    /// Not for good: the state is made anew.
    #[error("a clock was ahead, and buckets expired by it")]
    Ahead,
    #[error(
        "{topic}/{partition} begins at offset {start}, but offset {next} is the next to be read: retention deleted results \
         that no snapshot holds; restore {snapshot} or lengthen topics.metrics_retention and import the events again"
    )]
    Gone { topic: String, partition: u32, start: Offset, next: Offset, snapshot: String },
    #[error(
        "{topic}/{partition} offset {offset} can't be read ({reason}): its writer is probably newer; update this service"
    )]
    Unreadable { topic: String, partition: u32, offset: Offset, reason: String },
}

/// Starts the actor. It ends, with a last snapshot, when `stop` is requested.
pub(crate) fn start(
    settings: Settings,
    log: Arc<dyn EventLog>,
    check: Check,
    metrics: &Metrics,
    pulse: watch::Sender<Pulse>,
    stop: &Shutdown,
) -> Handle {
    let (requests, receiver) = mpsc::channel(REQUESTS);
    let (progress, progress_receiver) = watch::channel(Progress::default());
    let instruments = Instruments::bind(metrics, &settings.topic);
    let actor = Actor {
        state: State::new(settings.limits.clone()),
        log_identity: String::new(),
        settings,
        log,
        check,
        progress,
        pulse,
        instruments,
        goal: 0,
        dirty: false,
        snapshot: None,
        last_append_ms: 0,
        began_anew: false,
    };
    let lag =
        Lag::new(&actor.settings.topic, actor.settings.number, actor.log.clone(), progress_receiver.clone());
    let (lag, stopped) = (lag.measure(metrics), stop.requested());
    stop.spawn(async move {
        tokio::select! {
            () = lag => {}
            () = stopped => {}
        }
    });
    let (check, progress) = (actor.check.clone(), actor.progress.clone());
    let run = AssertUnwindSafe(actor.run(receiver, stop.requested())).catch_unwind();
    stop.spawn(async move {
        // The panic itself has been logged with its place. What is in memory may be half done; a restart begins anew.
        if run.await.is_err() {
            fail(&check, &progress, "it ended by a defect, which the log tells; restart this service");
        }
    });
    Handle { requests, progress: progress_receiver }
}

impl Actor {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: impl Future<Output = ()>) {
        let outcome = {
            let work = async {
                loop {
                    let reader = self.open().await?;
                    match self.follow(reader, &mut requests).await {
                        Err(Fatal::Ahead) => self.begin_anew().await,
                        ended => return ended,
                    }
                }
            };
            tokio::select! {
                outcome = work => Some(outcome),
                () = stop => None,
            }
        };
        match outcome {
            // Asked to stop: what is applied is whole records, wherever the work was interrupted.
            None => self.last_snapshot().await,
            Some(Ok(never)) => match never {},
            Some(Err(fatal)) => {
                let reason = fatal.to_string();
                tracing::error!(topic = self.settings.topic, partition = self.settings.number, %reason, "partition stopped");
                self.instruments.log_errors.inc();
                fail(&self.check, &self.progress, &reason);
            }
        }
    }

    /// Forgets what expired by a clock that was ahead and is right again; the log still has it.
    async fn begin_anew(&mut self) {
        let (topic, partition) = (&self.settings.topic, self.settings.number);
        tracing::warn!(
            topic,
            partition,
            "buckets expired by a clock that was ahead; reading the log from its start"
        );
        self.instruments.log_errors.inc();
        // The next snapshot is not to be overwritten by the one that is being written.
        let _unused = finished(&mut self.snapshot).await;
        self.state = State::new(self.settings.limits.clone());
        (self.dirty, self.began_anew) = (false, true);
    }

    /// Loads the snapshot and opens the log behind it.
    async fn open(&mut self) -> Result<Box<dyn PartitionReader>, Fatal> {
        let Settings { number, topic, .. } = &self.settings;
        let (number, topic) = (*number, topic.clone());
        let path = self.snapshot_path();
        let limits = self.settings.limits.clone();
        let started = Instant::now();
        let mut pauses = PAUSES.build();
        self.log_identity = loop {
            match self.log.identity().await {
                Err(error) if error.is_retryable() => self.pause(&error, &mut pauses).await,
                identity => break identity?,
            }
        };
        let read = {
            let (path, log) = (path.clone(), self.log_identity.clone());
            tokio::task::spawn_blocking(move || snapshot::read(&path, &log, number, limits)).await
        };
        let bounds = loop {
            match self.log.bounds(&topic, number).await {
                Err(error) if error.is_retryable() => self.pause(&error, &mut pauses).await,
                bounds => break bounds?,
            }
        };
        match read.expect("reading a snapshot does not panic") {
            Ok(Some(state)) if state.next_metrics_offset() > bounds.end => tracing::warn!(
                snapshot = %path.display(),
                next_offset = state.next_metrics_offset(),
                log_end = bounds.end,
                "ignored a snapshot that is ahead of the log; reading the log from its start"
            ),
            Ok(Some(state)) if state.is_ahead_of(steady_micros()) => tracing::warn!(
                snapshot = %path.display(),
                "ignored a snapshot that was written when a clock was ahead; reading the log from its start"
            ),
            Ok(Some(state)) => {
                let (cells, elapsed) = (state.cells(), started.elapsed());
                tracing::info!(snapshot = %path.display(), cells, ?elapsed, "loaded a snapshot");
                self.state = state;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "ignored a snapshot that can't be used; reading the log from its start");
            }
        }
        let next = self.state.next_metrics_offset();
        if next < bounds.start {
            let snapshot = path.display().to_string();
            return Err(Fatal::Gone { topic, partition: number, start: bounds.start, next, snapshot });
        }
        self.goal = bounds.end;
        self.publish(false);
        loop {
            match self.log.reader(&topic, number, next).await {
                Err(error) if error.is_retryable() => self.pause(&error, &mut pauses).await,
                reader => return Ok(reader?),
            }
        }
    }

    async fn follow(
        &mut self,
        mut reader: Box<dyn PartitionReader>,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<std::convert::Infallible, Fatal> {
        let period = self.settings.snapshot_interval;
        let mut snapshots = interval_at(Instant::now() + period, period);
        snapshots.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pauses = PAUSES.build();
        loop {
            tokio::select! {
                Some(request) = requests.recv() => self.answer(request),
                batch = reader.next(MAX_WAIT) => match batch {
                    Ok(batch) => {
                        pauses = PAUSES.build();
                        self.take_in(&batch, requests).await?;
                    }
                    Err(error) if error.is_retryable() => self.pause(&error, &mut pauses).await,
                    Err(weir_log::Error::OutOfRange { start, .. }) if start > self.state.next_metrics_offset() => {
                        return Err(Fatal::Gone {
                            topic: self.settings.topic.clone(),
                            partition: self.settings.number,
                            start,
                            next: self.state.next_metrics_offset(),
                            snapshot: self.snapshot_path().display().to_string(),
                        });
                    }
                    Err(error) => return Err(error.into()),
                },
                _ = snapshots.tick() => self.begin_snapshot(),
                Some(written) = finished(&mut self.snapshot) => self.end_snapshot(written),
            }
        }
    }

    /// Applies a batch of records. Requests are answered in between: catching up, a batch can take a while.
    async fn take_in(
        &mut self,
        batch: &RecordBatch,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<(), Fatal> {
        let mut counted = false;
        for record in batch.iter() {
            let started = Instant::now();
            self.state.set_latest_now(steady_micros().saturating_add(CLOCK_SLACK_MICROS));
            let applied = self.state.apply(record.offset, record.append_time_ms * 1000, record.value);
            counted |= self.note(record.offset, applied)?;
            self.instruments.apply.observe(started.elapsed().as_secs_f64());
            self.last_append_ms = record.append_time_ms;
            while let Ok(request) = requests.try_recv() {
                self.answer(request);
            }
            tokio::task::consume_budget().await;
        }
        self.state.advance_to(batch.next_offset());
        self.publish(counted);
        // Once: what the log itself says can't be mended by reading it again.
        match !self.began_anew && self.state.is_ahead_of(steady_micros()) {
            true => Err(Fatal::Ahead),
            false => Ok(()),
        }
    }

    /// Returns whether events were counted.
    fn note(&mut self, offset: Offset, applied: Applied) -> Result<bool, Fatal> {
        let (topic, partition) = (&self.settings.topic, self.settings.number);
        match applied {
            Applied::Claimed => {
                let owner = self.state.chain().owner.map(|owner| owner.to_string());
                tracing::debug!(topic, partition, offset, owner, "partition claimed");
                Ok(false)
            }
            Applied::Counted(tally) => {
                self.dirty = true;
                self.instruments.processed.inc_by(tally.counted);
                self.instruments.duplicates.inc_by(tally.duplicates);
                self.instruments.dead_lettered.inc_by(tally.dead_lettered);
                Ok(true)
            }
            Applied::Heartbeat => Ok(false),
            Applied::Void(reason) => {
                self.instruments.void.inc();
                tracing::debug!(topic, partition, offset, %reason, "passed over a batch that does not count");
                Ok(false)
            }
            Applied::Malformed(reason) => {
                self.instruments.malformed.inc();
                tracing::warn!(topic, partition, offset, reason, "passed over a record that is not ours");
                Ok(false)
            }
            Applied::Unreadable(reason) => {
                Err(Fatal::Unreadable { topic: topic.clone(), partition, offset, reason })
            }
        }
    }

    fn publish(&mut self, counted: bool) {
        let next = self.state.next_metrics_offset();
        let caught_up = next >= self.goal;
        let chain = self.state.chain();
        let (next_source_offset, watermark) = (chain.next_source_offset, chain.watermark);
        let mut moved = false;
        let mut was_caught_up = false;
        self.progress.send_modify(|progress| {
            was_caught_up = progress.caught_up;
            moved = watermark != progress.watermark;
            let owner_address = match &progress.owner_address {
                same if **same == *chain.address => Arc::clone(same),
                _ => chain.address.as_str().into(),
            };
            *progress = Progress {
                next_source_offset,
                watermark,
                whole: self.state.whole(),
                next_metrics_offset: next,
                last_append_ms: self.last_append_ms,
                caught_up,
                owner_address,
                failed: None,
            };
        });
        if caught_up && !was_caught_up {
            let counted = self.state.tally().counted;
            let (topic, partition) = (&self.settings.topic, self.settings.number);
            tracing::info!(topic, partition, offset = next, counted, cells = self.state.cells(), "caught up");
            self.check.ok();
        } else if !caught_up {
            self.check.failing(format!("catching up: at offset {next} of {}", self.goal));
        }
        if was_caught_up && counted {
            // The watermark is the time at which the log took the newest event of the batch.
            let age = now_micros().saturating_sub(watermark).max(0);
            self.instruments.latency.observe(age as f64 / 1e6);
        }
        if counted || moved || caught_up != was_caught_up {
            self.pulse.send_modify(|pulse| {
                pulse.counted += u64::from(counted || caught_up != was_caught_up);
                pulse.moved += u64::from(moved);
            });
        }
    }

    fn answer(&self, request: Request) {
        // Who asked may have gone meanwhile.
        match request {
            Request::View { views, answer } => {
                let view = self.state.view(&views).ok_or(Refusal::Expired);
                if view.is_err() {
                    // The next plan has to know.
                    self.progress.send_modify(|progress| progress.whole = self.state.whole());
                }
                let _ = answer.send(view);
            }
            Request::Import { project, import, answer } => {
                let imports = self.state.imports();
                let _ = answer.send(KnownImport {
                    import: imports.get(project.as_str(), &import),
                    forgotten_micros: imports.forgotten_micros(project.as_str()),
                });
            }
        }
    }

    async fn pause(&self, error: &weir_log::Error, pauses: &mut ExponentialBackoff) {
        let pause = pauses.next().expect("without a number of times there is always a next");
        self.instruments.log_errors.inc();
        let (topic, partition) = (&self.settings.topic, self.settings.number);
        tracing::warn!(topic, partition, %error, retry_in = ?pause, "reading results failed");
        tokio::time::sleep(pause).await;
    }

    fn snapshot_path(&self) -> PathBuf {
        snapshot::path(&self.settings.snapshot_dir, &self.settings.topic, self.settings.number)
    }

    fn begin_snapshot(&mut self) {
        if !self.dirty || self.snapshot.is_some() {
            return;
        }
        self.dirty = false;
        let (path, image) = (self.snapshot_path(), self.state.image(self.settings.number));
        let log = self.log_identity.clone();
        let duration = self.instruments.snapshot.clone();
        self.snapshot = Some(tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let written = snapshot::write(&path, &log, image);
            duration.observe(started.elapsed().as_secs_f64());
            written
        }));
    }

    fn end_snapshot(&mut self, written: Result<u64, snapshot::Error>) {
        let partition = self.settings.number;
        match written {
            Ok(bytes) => tracing::debug!(partition, bytes, "wrote a snapshot"),
            Err(error) => {
                self.dirty = true;
                tracing::warn!(partition, %error, "could not write a snapshot; a restart will read more of the log");
            }
        }
    }

    async fn last_snapshot(&mut self) {
        if let Some(written) = finished(&mut self.snapshot).await {
            self.end_snapshot(written);
        }
        self.begin_snapshot();
        if let Some(written) = finished(&mut self.snapshot).await {
            self.end_snapshot(written);
        }
    }
}

/// Says that the partition has no answers from now on, and why.
fn fail(check: &Check, progress: &watch::Sender<Progress>, reason: &str) {
    check.failing(reason);
    progress.send_modify(|progress| progress.failed = Some(reason.into()));
}

/// Waits for the task, which is gone then; `None` at once if there is none.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let result = task.as_mut()?.await.expect("the task does not panic");
    *task = None;
    Some(result)
}
