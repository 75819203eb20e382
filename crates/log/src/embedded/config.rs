//! What the embedded log can be told.

use std::{path::PathBuf, sync::Arc, time::Duration};

use weir_disk::{Disk, RealDisk};

use super::Clock;
use crate::{Error, Result};

/// Positions within a segment have to fit 32 bits, a last group of appends included. Half of that is left for a segment that
/// can't be sealed for a while.
const MAX_SEGMENT_BYTES: u64 = 2 << 30;
/// Where even such a segment ends; what may still be under way then fits below 4 GiB.
const MAX_OVERGROWN_BYTES: u64 = 3 << 30;
/// See [`MAX_OVERGROWN_BYTES`].
const MAX_PENDING_BYTES: u64 = 512 << 20;

/// Settings of the embedded log. `EmbeddedConfig { segment_bytes: …, ..EmbeddedConfig::at(dir) }`.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The directory; created when missing. One process at a time.
    pub dir: PathBuf,
    /// A segment that has reached this size is sealed and the next one begun. Retention deletes whole segments, and
    /// recovery after a crash reads at most one segment a partition. At most 2 GiB.
    pub segment_bytes: u64,
    /// Bytes between two entries of the sparse index: how much is read at most to find an offset or a time.
    pub index_interval_bytes: u64,
    /// Bytes of records that may wait for their fsync, over all partitions; beyond it an append is refused with
    /// [`Error::QueueFull`]. At most 512 MiB.
    pub max_pending_bytes: u64,
    /// Largest record, key and headers included.
    pub max_record_bytes: u64,
    /// How often old segments are looked for.
    pub retention_check: Duration,
    /// File operations; tests plant faults here.
    pub disk: Arc<dyn Disk>,
    /// What append times are taken from; tests set it wrong.
    pub clock: Clock,
}

impl EmbeddedConfig {
    /// The defaults, in `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            index_interval_bytes: 64 << 10,
            max_pending_bytes: 64 << 20,
            max_record_bytes: 8 << 20,
            retention_check: Duration::from_secs(30),
            disk: Arc::new(RealDisk),
            clock: Clock::wall(),
        }
    }

    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub(super) fn check(&self) -> Result<()> {
        if !(1..=MAX_SEGMENT_BYTES).contains(&self.segment_bytes) {
            let found = self.segment_bytes;
            return Err(Error::Config(format!(
                "segment_bytes = {found}: choose between 1 and {MAX_SEGMENT_BYTES}"
            )));
        }
        if self.max_pending_bytes > MAX_PENDING_BYTES {
            let found = self.max_pending_bytes;
            return Err(Error::Config(format!(
                "max_pending_bytes = {found}: choose at most {MAX_PENDING_BYTES}"
            )));
        }
        if self.max_record_bytes > self.max_pending_bytes || self.max_record_bytes > MAX_SEGMENT_BYTES / 2 {
            return Err(Error::Config(format!(
                "max_record_bytes = {}: it must not exceed max_pending_bytes ({}) nor 1 GiB",
                self.max_record_bytes, self.max_pending_bytes
            )));
        }
        Ok(())
    }

    /// The size beyond which a segment takes no more, although the next one can't be begun.
    pub(super) fn overgrown_bytes(&self) -> u64 {
        (2 * self.segment_bytes).min(MAX_OVERGROWN_BYTES)
    }
}
