//! Segments: immutable Parquet files with the events of one project and partition, in the order (user hash, time, log offset).
//!
//! [`mod@write`] makes them of batches, [`merge`] of other segments, [`checksums`] go into their pages, [`read`] opens and verifies
//! them, [`tally`] collects what the manifest says about them. Which ones count is the [manifest](crate::manifest)'s matter.

mod checksums;
mod merge;
mod read;
mod tally;
mod write;

pub(crate) use merge::{Keep, Merge, others};
pub(crate) use read::{FOOTER_HINT, check, open, open_users, unreadable, verify};
pub(crate) use write::{Compression, ROW_GROUP, ROW_GROUP_BYTES, write_all};

use object_store::path::Path;
use uuid::Uuid;

/// The folder with everything of all projects.
pub(crate) const FOLDER: &str = "events";

/// The folder of a project's segments of a partition; both are in its name in the way of Hive, so that other tools see them as
/// columns.
pub(crate) fn folder(project: &str, partition: u32) -> String {
    Path::from_iter([FOLDER, &format!("project={project}"), &format!("partition={partition}")]).to_string()
}

pub(crate) fn path(project: &str, partition: u32, id: Uuid) -> String {
    format!("{}/{id}.parquet", folder(project, partition))
}
