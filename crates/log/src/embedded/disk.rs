//! The file operations whose failure decides about durability, as a seam for tests of faults.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::directory;

/// What a partition's writer does to its file. The real one is [`RealDisk`]; tests put one in between that fails,
/// tears or delays.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates an empty file, durably: its entry in the directory as well. After an error it may be there or not.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.sync_all()?;
        directory::sync(path.parent().expect("a file has a directory"))?;
        Ok(file)
    }

    /// Writes all of `bytes` at `position`. After an error any part of them may be there.
    ///
    /// # Errors
    /// The system's.
    fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        file.write_all_at(bytes, position)
    }

    /// Makes what was written durable (`fdatasync`). After an error nobody knows what is: it must not be tried again.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Cuts the file off at `length`.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}
