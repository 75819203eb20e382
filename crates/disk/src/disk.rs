//! The operations, and the operating system's.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// Operations that change a file system. Each does one thing only: what is to be durable is synced by the caller.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates an empty file of a name that must be free, open for reading and writing.
    ///
    /// # Errors
    /// The system's, [`io::ErrorKind::AlreadyExists`] among them. After any other error the file may be there or not.
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// Writes all of `bytes` at `position`. After an error any part of them may be there.
    ///
    /// # Errors
    /// The system's.
    fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        file.write_all_at(bytes, position)
    }

    /// Cuts the file off at `length`.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    /// Makes a file's bytes and its length durable (`fdatasync`). After an error nobody knows what is durable, and trying again
    /// does not tell.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes a directory's entries durable: names that were created, replaced and removed.
    ///
    /// # Errors
    /// The system's. A failed journal stops the file system, so trying again fails again where it has to.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    /// Creates a directory in one that exists.
    ///
    /// # Errors
    /// The system's, [`io::ErrorKind::AlreadyExists`] among them.
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    /// Gives a file another name in the same directory, in place of the file that had it.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Gives a file one more name, which must be free.
    ///
    /// # Errors
    /// The system's, [`io::ErrorKind::AlreadyExists`] among them.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    /// Removes a file's name.
    ///
    /// # Errors
    /// The system's, [`io::ErrorKind::NotFound`] among them.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}
