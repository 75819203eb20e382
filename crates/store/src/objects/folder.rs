//! A store in a local folder: files that appear whole, once, and stay.
//!
//! A file is written under another name (listings of `object_store` leave such names out), synced, given its name by a hard link,
//! which fails where the name exists, and its folder is synced. `object_store` itself syncs nothing: it only reads here.

use std::{
    collections::HashSet,
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use weir_disk::{Created, Disk, Staged, create_dirs, is_staging, staging_unique, sync_dir_if_present};

/// The folder, and the way to change what is in it. All methods block.
#[derive(Debug)]
pub(super) struct Folder {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Folders whose entries above them this process has synced: one for each project and partition, and a few more.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Folder {
    /// Opens a folder, creating it if it is absent.
    pub(super) fn open(disk: Arc<dyn Disk>, root: &Path) -> io::Result<Self> {
        create_dirs(&*disk, root, root)?;
        Ok(Self { disk, root: root.canonicalize()?, durable: Mutex::default() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Begins a file; it has its name once it is created.
    pub(super) fn begin(&self, name: &str) -> io::Result<Staged> {
        let target = self.root.join(name);
        self.make(target.parent().unwrap_or(&self.root))?;
        Staged::begin(Arc::clone(&self.disk), &target, staging_unique(&target))
    }

    /// Creates a file if there is none of that name.
    pub(super) fn create(&self, name: &str, bytes: &[u8]) -> io::Result<Created> {
        let mut staged = self.begin(name)?;
        staged.write_all(bytes)?;
        staged.create()
    }

    /// Removes a file; one that is gone is fine. Not durable: a file that comes back is removed again.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match self.disk.remove(&self.root.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Makes the names in a folder durable, and the way to it; an absent folder has none.
    pub(super) fn settle(&self, name: &str) -> io::Result<()> {
        let dir = self.root.join(name);
        if dir.is_dir() {
            self.make(&dir)?;
        }
        sync_dir_if_present(&*self.disk, &dir)
    }

    /// Removes staged files below a folder that have not been touched for `age`.
    pub(super) fn clean(&self, name: &str, age: Duration) -> io::Result<usize> {
        self.clean_below(&self.root.join(name), age)
    }

    fn clean_below(&self, folder: &Path, age: Duration) -> io::Result<usize> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut cleaned = 0;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                cleaned += self.clean_below(&entry.path(), age)?;
                continue;
            }
            // A file that vanishes meanwhile was finished or cleaned by another.
            let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
            let old = SystemTime::now().duration_since(modified).is_ok_and(|since| since >= age);
            if old
                && is_staging(&entry.file_name().to_string_lossy())
                && self.disk.remove(&entry.path()).is_ok()
            {
                cleaned += 1;
            }
        }
        Ok(cleaned)
    }

    fn make(&self, dir: &Path) -> io::Result<()> {
        let is_durable =
            |dir: &Path| self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(dir);
        if dir.is_dir() && is_durable(dir) {
            return Ok(());
        }
        create_dirs(&*self.disk, dir, &self.root)?;
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use weir_disk::RealDisk;

    use super::*;

    #[test]
    fn only_staged_files_are_cleaned_and_only_old_ones() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(Arc::new(RealDisk), &root.path().join("store")).unwrap();
        for name in ["x.parquet#17", "x.parquet", "notes#1a", "x#"] {
            assert_eq!(folder.create(&format!("deep/{name}"), b"x").unwrap(), Created::New);
        }
        assert_eq!(folder.clean("", Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(folder.clean("", Duration::ZERO).unwrap(), 1);
        assert!(!root.path().join("store/deep/x.parquet#17").exists());
    }
}
