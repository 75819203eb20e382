//! Answers that are streams of rows.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    error::DataFusionError,
    execution::memory_pool::PeakRecordingPool,
    physical_plan::{ExecutionPlan, execute_stream},
};
use futures::{Stream, StreamExt as _};
use tokio::{sync::mpsc, time::Sleep};

use crate::{
    Engine, Error,
    engine::{Read, StopOnDrop, read},
};

/// Batches that wait for a slow reader. Two: one to read, one to come.
const WAITING: usize = 2;

#[derive(Debug, Clone, Copy, Default)]
struct End {
    read: Read,
    truncated: bool,
    /// Whether the last row was sent, or an error. A task that was stopped or has panicked gets to neither.
    reached: bool,
}

/// A stream of rows. Work stops when it is dropped, and waits while nobody reads.
#[derive(Debug)]
pub struct Rows {
    schema: SchemaRef,
    batches: mpsc::Receiver<Result<RecordBatch, Error>>,
    end: Arc<Mutex<End>>,
    memory: Arc<PeakRecordingPool>,
    /// By the clock of whoever reads: while all threads of the engine compute, none of them looks at its own.
    deadline: Pin<Box<Sleep>>,
    limit: Duration,
    _stop: StopOnDrop,
}

impl Rows {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What was read so far; of the whole answer once the stream has ended.
    pub fn read(&self) -> Read {
        lock(&self.end).read
    }

    /// Memory that was held at most so far, bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory.peak_reserved() as u64
    }

    /// Whether there were more rows than wanted, once the stream has ended.
    pub fn truncated(&self) -> bool {
        lock(&self.end).truncated
    }
}

fn lock(end: &Mutex<End>) -> MutexGuard<'_, End> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream for Rows {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match self.batches.poll_recv(context) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(context));
                self.batches.close();
                lock(&self.end).reached = true;
                return Poll::Ready(Some(Err(Error::TooSlow(self.limit))));
            }
        };
        if next.is_none() && !std::mem::replace(&mut lock(&self.end).reached, true) {
            let stopped =
                DataFusionError::Execution("the query engine stopped before the last row".to_owned());
            return Poll::Ready(Some(Err(Error::Execution(stopped))));
        }
        Poll::Ready(next)
    }
}

impl Engine {
    /// Runs a plan for at most this long, waiting for the reader included, and for at most this many rows: the rest is cut off.
    /// `failure` tells what an error of it means.
    pub(crate) fn rows(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        limit: Duration,
        max_rows: usize,
        failure: fn(&Self, DataFusionError) -> Error,
    ) -> Rows {
        let (send, batches) = mpsc::channel(WAITING);
        let (engine, schema) = (self.within(limit), plan.schema());
        let starting = engine.clone();
        let end = Arc::new(Mutex::new(End::default()));
        let note = Arc::clone(&end);
        let (context, memory) = self.metered(&plan);
        let work = async move {
            let all = async {
                let note = &note;
                let _admitted = engine.admit(&plan).await?;
                let mut stream = execute_stream(Arc::clone(&plan), context.task_ctx())
                    .map_err(|error| failure(&engine, error))?;
                let mut left = max_rows;
                while let Some(batch) = stream.next().await {
                    let batch = batch.map_err(|error| failure(&engine, error))?;
                    lock(note).read = read(&plan);
                    let wanted = batch.num_rows().min(left);
                    left -= wanted;
                    if wanted > 0 && send.send(Ok(batch.slice(0, wanted))).await.is_err() {
                        break;
                    }
                    if wanted < batch.num_rows() {
                        lock(note).truncated = true;
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                lock(note).read = read(&plan);
                Ok(())
            };
            let ended = match tokio::time::timeout(limit, all).await {
                Ok(ended) => ended,
                Err(_) => Err(Error::TooSlow(limit)),
            };
            if let Err(error) = ended {
                // Whoever has stopped reading does not want to know.
                let _ = send.send(Err(error)).await;
            }
            lock(&note).reached = true;
        };
        let deadline = Box::pin(tokio::time::sleep(limit));
        Rows { schema, batches, end, memory, deadline, limit, _stop: starting.start(work) }
    }
}
