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
    task::{AbortHandle, JoinError},
};

use crate::Error;

/// Stack of a thread, bytes: planning recurses along expressions.
const STACK: usize = 8 << 20;

/// What an engine may use.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Memory for all questions together, bytes. A question that needs more is refused; nothing is spilled to disk.
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
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Taken when the last clone is dropped.
    runtime: Option<Runtime>,
    environment: Arc<RuntimeEnv>,
    settings: Settings,
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
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(settings.memory_bytes)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(std::io::Error::other)?;
        Ok(Self(Arc::new(Inner { runtime: Some(runtime), environment, settings })))
    }

    /// What DataFusion runs in: the place to register object stores.
    pub fn environment(&self) -> &Arc<RuntimeEnv> {
        &self.0.environment
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.0.settings.threads
    }

    /// Does work on the engine's threads. It stops when it takes too long, and when the returned future is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let runtime = self.0.runtime.as_ref().expect("taken only on drop");
        let task = runtime.spawn(async move {
            match tokio::time::timeout(limit, work).await {
                Ok(result) => result,
                Err(_) => Err(Error::TooSlow(limit)),
            }
        });
        let _stop = StopOnDrop(task.abort_handle());
        task.await.unwrap_or_else(|error| Err(stopped(error)))
    }

    /// Starts work on the engine's threads that goes on until it is done or the handle is dropped.
    pub(crate) fn start(&self, work: impl Future<Output = ()> + Send + 'static) -> StopOnDrop {
        let runtime = self.0.runtime.as_ref().expect("taken only on drop");
        StopOnDrop(runtime.spawn(work).abort_handle())
    }

    /// A context without catalogs, and the account of what is held in it.
    pub(crate) fn metered(&self) -> (SessionContext, Arc<PeakRecordingPool>) {
        let account = Arc::new(PeakRecordingPool::new(Arc::clone(&self.0.environment.memory_pool)));
        let memory_pool: Arc<dyn MemoryPool> = account.clone();
        let environment = RuntimeEnv { memory_pool, ..RuntimeEnv::clone(&self.0.environment) };
        (SessionContext::new_with_config_rt(self.context().copied_config(), Arc::new(environment)), account)
    }

    /// A context without catalogs.
    pub(crate) fn context(&self) -> SessionContext {
        let config = SessionConfig::new()
            .with_target_partitions(self.threads())
            .with_information_schema(false)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true)
            .set_bool("datafusion.execution.parquet.reorder_filters", true);
        SessionContext::new_with_config_rt(config, Arc::clone(&self.0.environment))
    }

    /// An account for memory that is not DataFusion's own.
    pub(crate) fn memory(&self, name: &str) -> MemoryReservation {
        MemoryConsumer::new(name).register(&self.0.environment.memory_pool)
    }

    /// What a failure of DataFusion means.
    pub(crate) fn failure(&self, error: DataFusionError) -> Error {
        let limit = self.0.settings.memory_bytes;
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
pub(crate) struct StopOnDrop(AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
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
