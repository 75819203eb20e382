//! Runs questions: threads, memory, deadlines.

use std::{future::Future, ops::AddAssign, sync::Arc, time::Duration};

use arrow::error::ArrowError;
use datafusion::{
    error::DataFusionError,
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation, PeakRecordingPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    physical_plan::ExecutionPlan,
    prelude::{SessionConfig, SessionContext},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinError},
};
use weir_store::table::{footprint, rows_at_once};

use crate::{Error, deadline::Deadline};

/// Stack of a thread, bytes: planning recurses along expressions.
const STACK: usize = 8 << 20;

/// The part of the memory, one in this many, that is for what scans hold of files: see [`Engine::admit`].
const SCANS: usize = 4;
/// Likewise, for footers of files that are kept.
const FOOTERS: usize = 16;
/// Unit in which memory of scans is handed out, bytes: a semaphore counts in 32 bits.
const UNIT: usize = 1 << 10;

/// What an engine may use.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Memory for all questions together, bytes: a quarter is for what scans hold of files, a sixteenth for their footers, the rest for
    /// what is computed. A question
    /// that needs more than the rest is refused; one that finds no room for its scan waits. Nothing is spilled to disk.
    pub memory_bytes: usize,
    /// Threads that compute. They are the engine's own, so that calls are answered while questions are.
    pub threads: usize,
}

/// What was read to answer a question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// Events that came out of the scan.
    pub rows: u64,
    /// Bytes of segments.
    pub bytes: u64,
    /// Events that were late among those that a question is about; not told by rows of SQL and of exports.
    pub late: u64,
}

impl AddAssign for Read {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.late += other.late;
    }
}

/// Runs questions. Clones share threads and memory.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    /// Of the question that this clone works for.
    deadline: Deadline,
}

#[derive(Debug)]
struct Inner {
    /// Taken when the last clone is dropped.
    runtime: Option<Runtime>,
    environment: Arc<RuntimeEnv>,
    settings: Settings,
    /// Memory that scans may hold, in [`UNIT`]s. Who waits gets it in the order of asking.
    scans: Arc<Semaphore>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Not by dropping: that waits, which async code must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Engine {
    /// An engine with threads of its own.
    ///
    /// # Errors
    /// When threads can't be started.
    pub fn new(settings: Settings) -> std::io::Result<Self> {
        let settings = Settings { threads: settings.threads.max(1), ..settings };
        let runtime = Builder::new_multi_thread()
            .worker_threads(settings.threads)
            .thread_name("weir-query")
            .thread_stack_size(STACK)
            .enable_all()
            .build()?;
        let (scans, footers) = (settings.memory_bytes / SCANS, settings.memory_bytes / FOOTERS);
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(settings.memory_bytes - scans - footers)))
            .with_metadata_cache_limit(footers)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(std::io::Error::other)?;
        let scans = Arc::new(Semaphore::new((scans / UNIT).clamp(1, u32::MAX as usize)));
        let inner = Inner { runtime: Some(runtime), environment, settings, scans };
        Ok(Self { inner: Arc::new(inner), deadline: Deadline::default() })
    }

    /// What DataFusion runs in: the place to register object stores.
    pub fn environment(&self) -> &Arc<RuntimeEnv> {
        &self.inner.environment
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.inner.settings.threads
    }

    /// Does work on the engine's threads, with a clone of the engine that knows its deadline. The work stops when it takes too long, and
    /// when the returned future is dropped.
    pub(crate) async fn run<T: Send + 'static, W: Future<Output = Result<T, Error>> + Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(Self) -> W,
    ) -> Result<T, Error> {
        let runtime = self.inner.runtime.as_ref().expect("taken only on drop");
        let deadline = Deadline::after(limit);
        let work = work(Self { inner: Arc::clone(&self.inner), deadline: deadline.clone() });
        let task = runtime.spawn(work);
        let _stop = StopOnDrop(task.abort_handle(), deadline);
        // The clock of whoever asks: while all threads of the engine compute, none of them looks at its own.
        match tokio::time::timeout(limit, task).await {
            Ok(done) => done.unwrap_or_else(|error| Err(stopped(error))),
            Err(_) => Err(Error::TooSlow(limit)),
        }
    }

    /// When the question that this clone works for must be done.
    pub(crate) fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// A clone for a question that begins now.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self { inner: Arc::clone(&self.inner), deadline: Deadline::after(limit) }
    }

    /// Waits until there is room for what the scans of a plan hold of files: a row group of each file that is open, and some
    /// batches. Questions get it in the order in which they asked; one that needs all of it runs alone.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is none for nearly all the time that the question has.
    pub(crate) async fn admit(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<OwnedSemaphorePermit, Error> {
        let all = self.inner.settings.memory_bytes / SCANS / UNIT;
        let wanted = (footprint(plan) / UNIT).clamp(1, all.max(1));
        let scans = Arc::clone(&self.inner.scans);
        let permits = scans.acquire_many_owned(u32::try_from(wanted).unwrap_or(u32::MAX));
        // The rest of the time is for telling so.
        let left = self.deadline.left();
        match tokio::time::timeout(left - left / 8, permits).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(Error::Busy(self.deadline.limit())),
        }
    }

    /// Starts work on the engine's threads that goes on until it is done or the handle is dropped.
    pub(crate) fn start(&self, work: impl Future<Output = ()> + Send + 'static) -> StopOnDrop {
        let runtime = self.inner.runtime.as_ref().expect("taken only on drop");
        StopOnDrop(runtime.spawn(work).abort_handle(), self.deadline.clone())
    }

    /// A context without catalogs for a plan, and the account of what is held in it. Operators make batches of as few rows as scans do.
    pub(crate) fn metered(&self, plan: &Arc<dyn ExecutionPlan>) -> (SessionContext, Arc<PeakRecordingPool>) {
        let account = Arc::new(PeakRecordingPool::new(Arc::clone(&self.inner.environment.memory_pool)));
        let memory_pool: Arc<dyn MemoryPool> = account.clone();
        let environment = RuntimeEnv { memory_pool, ..RuntimeEnv::clone(&self.inner.environment) };
        let config = self.context().copied_config().with_batch_size(rows_at_once(plan));
        (SessionContext::new_with_config_rt(config, Arc::new(environment)), account)
    }

    /// A context without catalogs.
    pub(crate) fn context(&self) -> SessionContext {
        self.context_of(self.threads())
    }

    /// A context whose scans read one file after the other.
    pub(crate) fn context_in_order(&self) -> SessionContext {
        self.context_of(1)
    }

    fn context_of(&self, streams: usize) -> SessionContext {
        let config = SessionConfig::new()
            .with_target_partitions(streams)
            .with_information_schema(false)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true)
            .set_bool("datafusion.execution.parquet.reorder_filters", true);
        SessionContext::new_with_config_rt(config, Arc::clone(&self.inner.environment))
    }

    /// An account for memory that is not DataFusion's own.
    pub(crate) fn memory(&self, name: &str) -> MemoryReservation {
        MemoryConsumer::new(name).register(&self.inner.environment.memory_pool)
    }

    /// What a failure of DataFusion means.
    pub(crate) fn failure(&self, error: DataFusionError) -> Error {
        let limit = self.inner.settings.memory_bytes;
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Error::OutOfMemory { limit },
            DataFusionError::ObjectStore(_)
            | DataFusionError::ParquetError(_)
            | DataFusionError::IoError(_) => Error::Unreadable(error),
            // The Parquet reader speaks to the scan in Arrow's errors.
            DataFusionError::ArrowError(of_file, _)
                if matches!(
                    **of_file,
                    ArrowError::ParquetError(_) | ArrowError::IoError(..) | ArrowError::ExternalError(_)
                ) =>
            {
                Error::Unreadable(error)
            }
            _ => Error::Execution(error),
        }
    }
}

/// Stops a task when dropped.
#[derive(Debug)]
pub(crate) struct StopOnDrop(AbortHandle, Deadline);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.1.abandon();
        self.0.abort();
    }
}

/// A task of the engine that did not come to its end.
pub(crate) fn stopped(error: JoinError) -> Error {
    Error::Execution(DataFusionError::Execution(format!("a task of the query engine stopped: {error}")))
}

/// What the leaves of a plan have read.
pub(crate) fn read(plan: &Arc<dyn ExecutionPlan>) -> Read {
    let mut sum = Read::default();
    for child in plan.children() {
        sum += read(child);
    }
    if let Some(metrics) = plan.metrics()
        && plan.children().is_empty()
    {
        sum.rows += metrics.output_rows().unwrap_or(0) as u64;
        sum.bytes += metrics.sum_by_name("bytes_scanned").map_or(0, |bytes| bytes.as_usize() as u64);
    }
    sum
}
