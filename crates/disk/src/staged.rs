//! Files that appear, or change, as a whole: written under another name, synced, given their name, and the name synced.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{Disk, dirs::parent};

/// Whether a file was created or was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// It was created and is durable.
    New,
    /// There was one of that name already; it was left as it is.
    Exists,
}

/// A file that does not have its name yet. Dropped, it is removed.
#[derive(Debug)]
pub struct Staged {
    disk: Arc<dyn Disk>,
    file: File,
    len: u64,
    staging: PathBuf,
    target: PathBuf,
    /// Whether the staging name is to be removed: a rename takes it away.
    remove: bool,
}

impl Staged {
    /// Begins the file `target` under the name `staging`, which lies in the same directory and must be free.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(disk: Arc<dyn Disk>, target: &Path, staging: PathBuf) -> io::Result<Self> {
        let file = disk.create(&staging)?;
        Ok(Self { disk, file, len: 0, staging, target: target.to_owned(), remove: true })
    }

    /// Puts the file in the place of the one that has its name, durably: a power cut leaves the old content or the new.
    ///
    /// # Errors
    /// The system's: which of both is there is then not known, and a new file has to be staged.
    pub fn replace(mut self) -> io::Result<()> {
        self.disk.sync(&self.file)?;
        self.disk.rename(&self.staging, &self.target)?;
        self.remove = false;
        self.disk.sync_dir(parent(&self.target)?)
    }

    /// Gives the file its name if that is free, durably.
    ///
    /// # Errors
    /// The system's: whether the file was created is then not known, and a new one has to be staged.
    pub fn create(self) -> io::Result<Created> {
        self.disk.sync(&self.file)?;
        let created = match self.disk.link(&self.staging, &self.target) {
            Ok(()) => Created::New,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Created::Exists,
            Err(error) => return Err(error),
        };
        // Also where it existed: what the caller concludes from that must not outlive it.
        self.disk.sync_dir(parent(&self.target)?)?;
        Ok(created)
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write(&self.file, bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.remove {
            // What can't be removed now is cleaned later.
            let _ = self.disk.remove(&self.staging);
        }
    }
}

/// Replaces a small file as a whole, durably. For files that one process writes.
///
/// # Errors
/// The system's: whether the old content is there or the new is then not known.
pub fn replace(disk: &Arc<dyn Disk>, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut staged = Staged::begin(Arc::clone(disk), path, staging_beside(&**disk, path)?)?;
    staged.write_all(content)?;
    staged.replace()
}

/// A staging name for a file that one process writes, `name.new`; what a crash left there is removed.
///
/// # Errors
/// The system's.
pub fn staging_beside(disk: &dyn Disk, target: &Path) -> io::Result<PathBuf> {
    let staging = suffixed(target, ".new");
    match disk.remove(&staging) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(staging),
    }
}

/// A staging name that no other process uses, `name#<digits>`: `object_store` leaves such names out of its listings.
pub fn staging_unique(target: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Two keys of 64 random bits, as a hash map has them; a process number alone is used again, also on other machines.
    let random = RandomState::new().hash_one((process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    suffixed(target, &format!("#{random:020}{:010}", process::id()))
}

/// Whether a file name is one of [`staging_unique`].
pub fn is_staging(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails says where")]
mod tests {
    use std::fs;

    use super::*;
    use crate::{RealDisk, create_dirs};

    fn real() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    fn create(target: &Path, bytes: &[u8]) -> io::Result<Created> {
        let mut staged = Staged::begin(real(), target, staging_unique(target))?;
        staged.write_all(bytes)?;
        staged.create()
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_created_once_and_keeps_its_first_content() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        create_dirs(&RealDisk, &dir, root.path()).unwrap();
        let file = dir.join("c.json");
        assert_eq!(create(&file, b"first").unwrap(), Created::New);
        assert_eq!(create(&file, b"second").unwrap(), Created::Exists);
        assert_eq!(fs::read(&file).unwrap(), b"first");
        assert_eq!(names(&dir), ["c.json"], "no staged file is left");
    }

    #[test]
    fn a_file_is_replaced_though_an_interrupted_replacement_lies_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("positions.json");
        fs::write(root.path().join("positions.json.new"), "half of a lon").unwrap();
        for content in ["first", "second"] {
            replace(&real(), &file, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), content);
        }
        assert_eq!(names(root.path()), ["positions.json"]);
    }

    #[test]
    fn a_file_that_was_given_up_was_never_there() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("c.parquet");
        let mut staged = Staged::begin(real(), &file, staging_unique(&file)).unwrap();
        staged.write_all(b"half").unwrap();
        let name = names(root.path());
        assert!(is_staging(&name[0]), "{name:?}");
        drop(staged);
        assert_eq!(names(root.path()), [] as [String; 0]);
    }
}
