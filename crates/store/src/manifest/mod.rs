//! Which segments count: one chain of numbered entries for each partition of the log.
//!
//! `manifest/<partition>/<version>.json` is an [`Entry`], created only if it is absent: version `v + 1` says what changed after
//! `v`. Whoever publishes checks his change against the state at `v`, so every entry that exists is valid, whoever wrote it, and
//! two processes that both believe they own a partition can't both publish an offset. `manifest/<partition>/checkpoint/<version>.json`
//! is the [`State`] after an entry, so that nobody has to read them all.
//!
//! No decision about what counts depends on a clock: a process may be suspended for any time between any two steps, and clocks of
//! machines differ. Files that no entry names are deleted only after an entry discards them by name, so that whoever wrote them and
//! comes too late is refused; times only say when that is worth doing.
//!
//! [`State::apply`] is the whole rule, and pure; [`Chain`] mirrors one partition's chain and adds to it.

mod chain;
mod entry;
mod state;

use std::time::Duration;

pub use chain::{Chain, Published};
pub(crate) use entry::row_group_bytes;
pub use entry::{Change, Entry, Kinds, Reason, Segment, Span};
pub use state::{Refusal, Removed, State};

/// How long the segments of a snapshot can be read, whatever becomes of them meanwhile. Whoever reads for longer, as no export may,
/// finds files missing.
pub const READABLE: Duration = Duration::from_secs(3600);
/// How long after its removal a segment's file is deleted: a mirror may not have seen the removal yet when it gives a snapshot, and
/// clocks differ.
pub(crate) const KEPT: Duration = READABLE.saturating_add(chain::GRACE);

/// The folder of all chains.
pub(crate) const FOLDER: &str = "manifest";

/// The identity of the log whose offsets the chains speak of.
pub(crate) const LOG: &str = "manifest/log";

/// Version of the format of entries and checkpoints; readers refuse newer ones. 2 has [`Change::Discard`].
pub const FORMAT: u32 = 2;

pub(crate) fn folder(partition: u32) -> String {
    format!("manifest/{partition}")
}

pub(crate) fn entry_path(partition: u32, version: u64) -> String {
    format!("manifest/{partition}/{version:020}.json")
}

pub(crate) fn checkpoint_folder(partition: u32) -> String {
    format!("manifest/{partition}/checkpoint")
}

pub(crate) fn checkpoint_path(partition: u32, version: u64) -> String {
    format!("manifest/{partition}/checkpoint/{version:020}.json")
}

/// The version in the name of an entry or checkpoint directly in `folder`.
pub(crate) fn version_of(folder: &str, path: &str) -> Option<u64> {
    let digits = path.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}
