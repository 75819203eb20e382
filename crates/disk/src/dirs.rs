//! Directories that are durable: a file is only as durable as the way to it.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use crate::Disk;

/// Makes sure of a directory and of those above it. `root` is `dir` or one above it that belongs to Weir: entries of it and below are
/// synced also where they exist already, since whoever created them may have died before syncing them.
///
/// # Errors
/// The system's.
pub fn create_dirs(disk: &dyn Disk, dir: &Path, root: &Path) -> io::Result<()> {
    debug_assert!(dir.starts_with(root), "{} is not in {}", dir.display(), root.display());
    let mut way: Vec<&Path> = dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect();
    way.reverse();
    for step in way {
        // A root directory has no entry anywhere.
        let Some(above) = step.parent() else { continue };
        let above = or_here(above);
        let created = match disk.create_dir(step) {
            Ok(()) => true,
            Err(_) if step.is_dir() => false,
            Err(error) => return Err(error),
        };
        if created || step.starts_with(root) {
            match disk.sync_dir(above) {
                // The directory above an operator's may be closed to this process.
                Err(error) if error.kind() == ErrorKind::PermissionDenied && !created && step == root => {}
                synced => synced?,
            }
        }
    }
    Ok(())
}

/// Makes the names in a directory durable; an absent one has none.
///
/// # Errors
/// The system's.
pub fn sync_dir_if_present(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    match disk.sync_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        synced => synced,
    }
}

/// The directory that holds a path's name.
pub(crate) fn parent(path: &Path) -> io::Result<&Path> {
    let parent = path.parent().ok_or_else(|| {
        io::Error::new(ErrorKind::InvalidInput, format!("{} has no directory above it", path.display()))
    })?;
    Ok(or_here(parent))
}

/// The parent of a relative path may be the empty one.
fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}
