//! The account of one statement: how much its functions have made, and until when it may run.

use std::{
    cell::Cell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use datafusion::{
    common::resources_err,
    error::{DataFusionError, Result},
};

/// What functions may make of the batches that are at work on one thread, bytes. A batch is cut to a megabyte, see
/// [`yielding`](super::yielding), so that values may grow by a factor of thirty; a thread holds as much for a moment, unaccounted.
const MADE: usize = 32 << 20;
/// What functions of constants may make while a statement is planned, bytes. Planning copies constants.
const FOLDED: usize = 64 << 10;
/// How long a thread works before other tasks get a turn.
const TURN: Duration = Duration::from_millis(10);

thread_local! {
    /// Bytes that functions have made of the batch that this thread is working on.
    static OF_BATCH: Cell<usize> = const { Cell::new(0) };
    /// When this thread last gave other tasks a turn.
    static TURN_BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The deadline of a statement has passed.
#[derive(Debug)]
pub(super) struct DeadlinePassed(pub(super) Duration);

impl fmt::Display for DeadlinePassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

impl std::error::Error for DeadlinePassed {}

/// Shared by all functions and operators of a statement.
#[derive(Debug)]
pub(super) struct Meter {
    time: Duration,
    deadline: Instant,
    is_planned: AtomicBool,
    folded: AtomicUsize,
}

impl Meter {
    /// The account of a statement that may run for so long.
    pub(super) fn new(time: Duration) -> Arc<Self> {
        let now = Instant::now();
        // Beyond a day nothing waits.
        let deadline = now + time.min(Duration::from_secs(86_400));
        Arc::new(Self { time, deadline, is_planned: AtomicBool::new(false), folded: AtomicUsize::new(0) })
    }

    /// Ends planning: from here on batches are at work.
    pub(super) fn planned(&self) {
        self.is_planned.store(true, Ordering::Relaxed);
    }

    /// Fails once the deadline has passed.
    pub(super) fn check(&self) -> Result<()> {
        if Instant::now() >= self.deadline {
            return Err(DataFusionError::External(Box::new(DeadlinePassed(self.time))));
        }
        Ok(())
    }

    /// Fails when constants have grown too large, though planning went on without folding them.
    pub(super) fn check_folded(&self) -> Result<()> {
        if self.folded.load(Ordering::Relaxed) > FOLDED {
            return resources_err!("functions of constants may make {FOLDED} bytes");
        }
        Ok(())
    }

    /// Bytes that a function may still make here.
    pub(super) fn left(&self) -> usize {
        match self.is_planned.load(Ordering::Relaxed) {
            true => MADE.saturating_sub(OF_BATCH.get()),
            false => FOLDED.saturating_sub(self.folded.load(Ordering::Relaxed)),
        }
    }

    /// Charges what a function has made, or would make.
    pub(super) fn charge(&self, bytes: usize) -> Result<()> {
        let left = self.left();
        if self.is_planned.load(Ordering::Relaxed) {
            OF_BATCH.set(OF_BATCH.get().saturating_add(bytes));
        } else {
            self.folded.fetch_add(bytes.min(2 * FOLDED), Ordering::Relaxed);
        }
        if bytes > left {
            return resources_err!(
                "functions may make {MADE} bytes of a batch of rows, and {FOLDED} bytes of constants"
            );
        }
        Ok(())
    }
}

/// Begins a batch on this thread: what was made of the one before is given back or accounted by whoever holds it.
pub(super) fn begin_batch() {
    OF_BATCH.set(0);
}

/// Lets other tasks of the thread have a turn when it is time. Only where a task waits can it be stopped.
pub(super) async fn take_turns() {
    let now = Instant::now();
    match TURN_BEGAN.get() {
        Some(began) if now.duration_since(began) < TURN => {}
        _ => {
            tokio::task::yield_now().await;
            TURN_BEGAN.set(Some(Instant::now()));
        }
    }
}
