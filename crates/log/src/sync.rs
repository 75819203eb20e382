//! Bounds and locks that both implementations share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::{Error, Result};

/// A lock that a panicking thread cannot poison: what it guards is valid between any two statements.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bounds the bytes that wait for their fsync, or their acknowledgement, over all partitions.
#[derive(Debug)]
pub(crate) struct Bound {
    used: AtomicU64,
    limit: u64,
}

/// Room taken from a [`Bound`] until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    bound: Arc<Bound>,
    bytes: u64,
}

impl Bound {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit })
    }

    /// # Errors
    /// [`Error::QueueFull`], or [`Error::TooLarge`] when the bytes would never fit.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Result<Room> {
        if bytes > self.limit {
            return Err(Error::TooLarge { bytes, limit: self.limit });
        }
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(Room { bound: Arc::clone(self), bytes }),
            Err(_) => Err(Error::QueueFull { limit: self.limit }),
        }
    }
}

impl Room {
    /// The error for bytes that found no place after all.
    pub(crate) fn full(&self) -> Error {
        Error::QueueFull { limit: self.bound.limit }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.bound.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
