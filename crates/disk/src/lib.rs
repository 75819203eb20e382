//! The file operations that decide what survives a power cut.
//!
//! Everything that Weir writes to a local file system and needs after a crash goes through a [`Disk`]: the embedded log, the
//! store's folder, snapshots and checkpoints. [`RealDisk`] is the operating system; tests put one in between that fails,
//! or one that records and replays only what was synced. Reads do not pass through it: they decide nothing.
//!
//! POSIX promises little, and code on this seam relies on no more:
//! - Written bytes are durable after [`Disk::sync`] of their file, names after [`Disk::sync_dir`] of their directory. Syncing a
//!   file says nothing about its name, and a directory's own name is an entry of the directory above.
//! - What is not synced may survive in any part and in any order, 512 bytes at a time; a file may grow before its bytes arrive.
//! - After a [`Disk::sync`] that failed, the page cache takes the pages for clean: syncing the same file again succeeds and
//!   means nothing. Such a file is abandoned, or its bytes are written again.
//!
//! Map: `disk` the operations; `dirs` directories that are durable; `staged` files that appear or change as a whole.

mod dirs;
mod disk;
mod staged;

pub use dirs::{create_dirs, sync_dir_if_present};
pub use disk::{Disk, RealDisk};
pub use staged::{Created, Staged, is_staging, replace, staging_beside, staging_unique};
