//! The allocator of the process, and memory going back to the system, during a burst and after it.
//!
//! By default mimalloc gives pages back a second after they were freed. Parts of requests, segments and row groups are some megabytes
//! each, and freed by other threads than allocate the next: in a second of wide events that comes to more than all that is in use.
//!
//! What a thread freed may stay with it while the process is idle, so threads collect now and then. Huge pages are not used (the
//! feature `no_thp`): of one of 2 MiB that holds a few live bytes nothing can go back. Both together halve what `weir up` keeps
//! after the README's walk-through.

use std::{
    ffi::{c_int, c_long},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

/// Batches are many allocations of a few sizes, freed by other threads than made them: what mimalloc is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time between two collections. One takes less than a millisecond, and is of the thread alone that happens to run it.
const COLLECT_INTERVAL: Duration = Duration::from_secs(5);

/// Time between freeing a page and giving it back, milliseconds: at once. `make verify-bounds` stays below half of what it holds with
/// 20 ms; the CPU time of `weir bench consume` does not differ.
const PURGE_DELAY_MS: c_long = 0;
/// `mi_option_purge_delay` of mimalloc 2 and 3.
const PURGE_DELAY: c_int = 15;

unsafe extern "C" {
    /// Of mimalloc, which the binding exports only among much else.
    fn mi_collect(force: bool);
    /// Sets an option that the environment does not.
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// Sets the allocator's options; to be called when the process starts. `MIMALLOC_PURGE_DELAY` has precedence.
pub(crate) fn configure() {
    // SAFETY: may be called by any thread at any time.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
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
