//! The allocator of the process, and memory going back to the system after a burst.
//!
//! mimalloc gives freed pages back only while it is called, so what a burst leaves behind in an idle process would stay. Huge
//! pages are left out of it (the feature `no_thp`): of one of 2 MiB that holds a few live bytes nothing can go back. Both together
//! halve what `weir up` keeps after the README's walk-through.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// Batches are many allocations of a few sizes, freed by other threads than made them: what mimalloc is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time between two collections. One takes less than a millisecond; each is of the worker thread that happens to run it.
const COLLECT_INTERVAL: Duration = Duration::from_secs(5);

unsafe extern "C" {
    /// Of mimalloc, which the binding exports only among much else.
    fn mi_collect(force: bool);
}

/// Gives back what is not used, for as long as the process runs.
pub(crate) async fn give_back() {
    let mut ticks = interval(COLLECT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // SAFETY: may be called by any thread at any time; it moves nothing that is in use.
        unsafe { mi_collect(true) };
    }
}
