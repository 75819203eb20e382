//! Power cuts: a disk that records what a program does to files, and every state in which a power cut may leave them.
//!
//! In the manner of ALICE (Pillai et al., OSDI 2014) and CrashMonkey (Mohan et al., OSDI 2018): the program runs once on a
//! [`Recorder`], which stands where the operating system's files stand in production; for any moment of the [`Trace`] a
//! [`Machine`] then says what may be on the disk, and the same program has to make sense of it.
//!
//! What may be there is what [`weir_disk`] allows, which is more than any one file system does:
//! - bytes that were synced, and of those that were not, any sectors of 512 bytes in any order, each as old as it likes;
//! - any length that the file has had since its last sync; what was never written in it is zeros or garbage;
//! - entries of a directory that was synced, and of later creations, links, renames and removals any, except that those of one
//!   name keep their order, and that a rename is done or not;
//! - a file without a name, or below a directory without one, is gone.
//!
//! After a sync that failed, what was not yet written may be lost though later syncs of the file succeed, unless it is
//! written again.
//!
//! Map: `trace` what was done; `machine` what it leaves; `choose` which of the possible states, at random or each; `recorder` the disk.

mod choose;
mod machine;
mod recorder;
mod trace;

pub use choose::{Choose, Each, Random};
pub use machine::Machine;
pub use recorder::{Fault, Recorder};
pub use trace::{Inode, Op, ROOT, Trace, Tree};
