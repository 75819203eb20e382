//! Local files that appear whole, once, and stay.
//!
//! A file is written under another name (`name#<digits>`: listings of `object_store` leave such names out), synced, given its
//! name by a hard link, which fails where the name exists, and its folder is synced. `object_store` itself syncs nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::Created;

/// A file that has not its name yet. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Staged {
    file: File,
    staging: PathBuf,
    target: PathBuf,
}

impl Staged {
    pub(super) fn begin(target: &Path) -> io::Result<Self> {
        make(parent(target)?)?;
        let mut staging = target.as_os_str().to_owned();
        // Random, so that processes that write the same manifest don't meet before the link decides.
        staging.push(format!("#{}", uuid::Uuid::new_v4().as_u128()));
        let staging = PathBuf::from(staging);
        let file = OpenOptions::new().write(true).create_new(true).open(&staging)?;
        Ok(Self { file, staging, target: target.to_owned() })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    pub(super) fn publish(self) -> io::Result<Created> {
        self.file.sync_all()?;
        let created = match fs::hard_link(&self.staging, &self.target) {
            Ok(()) => Created::New,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Created::Exists,
            Err(error) => return Err(error),
        };
        // Also where it existed: what the caller concludes from that must not outlive it.
        sync_folder(parent(&self.target)?)?;
        Ok(created)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What can't be removed now is cleaned later.
        let _ = fs::remove_file(&self.staging);
    }
}

pub(super) fn create(target: &Path, bytes: &[u8]) -> io::Result<Created> {
    let mut staged = Staged::begin(target)?;
    staged.write(bytes)?;
    staged.publish()
}

/// Makes a folder and those above it; each new one is durable in the one above.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = parent(folder)?;
    make(above)?;
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(above),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => sync_folder(above),
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder durable; an absent folder has none.
pub(super) fn settle(folder: &Path) -> io::Result<()> {
    match sync_folder(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        settled => settled,
    }
}

/// Removes staged files below a folder that have not been touched for `age`.
pub(super) fn clean(folder: &Path, age: Duration) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut cleaned = 0;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            cleaned += clean(&entry.path(), age)?;
            continue;
        }
        // A file that vanishes meanwhile was finished or cleaned by another.
        let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
        let old = SystemTime::now().duration_since(modified).is_ok_and(|since| since >= age);
        if old && is_staging(&entry.file_name().to_string_lossy()) && fs::remove_file(entry.path()).is_ok() {
            cleaned += 1;
        }
    }
    Ok(cleaned)
}

fn is_staging(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => {
            Err(io::Error::new(ErrorKind::InvalidInput, format!("{} has no folder above it", path.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_created_once_and_keeps_its_first_content() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a/b/c.json");
        assert_eq!(create(&file, b"first").unwrap(), Created::New);
        assert_eq!(create(&file, b"second").unwrap(), Created::Exists);
        assert_eq!(fs::read(&file).unwrap(), b"first");
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no staged file is left");
    }

    #[test]
    fn a_file_that_was_not_published_was_never_there() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("c.parquet");
        let mut staged = Staged::begin(&file).unwrap();
        staged.write(b"half").unwrap();
        drop(staged);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_staged_files_are_cleaned_and_only_old_ones() {
        let root = tempfile::tempdir().unwrap();
        for name in ["x.parquet#17", "x.parquet", "notes#1a", "x#"] {
            assert_eq!(create(&root.path().join("deep").join(name), b"x").unwrap(), Created::New);
        }
        assert_eq!(clean(root.path(), Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(clean(root.path(), Duration::ZERO).unwrap(), 1);
        assert!(!root.path().join("deep/x.parquet#17").exists());
    }
}
