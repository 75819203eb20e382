//! The log's directory: whose it is, which format it has, and files that are replaced as a whole.
//!
//! ```text
//! lock             the process that has it open
//! format           version of everything here
//! identity         a UUID that tells this log from any other, also from one begun anew in the same place
//! positions.json   committed positions
//! topics/<topic>/topic.json, topics/<topic>/<partition>/<first offset>.{log,index}
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_disk::Disk;

use crate::{Error, Result, Retention, TopicSpec};

/// The format that this build writes.
const FORMAT: u32 = 1;

/// A directory that is this process's until this is dropped.
#[derive(Debug)]
pub(super) struct Taken(File);

impl Drop for Taken {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that is just being started still has it open.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "giving back the log's directory failed");
        }
    }
}

/// Takes the directory for this process, creating it when it is missing.
///
/// # Errors
/// [`Error::Locked`], [`Error::NewerVersion`].
pub(super) fn take(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Taken> {
    let opening = |e| Error::io(format!("opening {}", dir.display()), e);
    create(&**disk, &topics(dir), dir)?;
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
        .map_err(opening)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The number is a courtesy; the lock says no in any case.
            let _ = lock.read_to_string(&mut pid);
            let pid = pid.trim();
            let holder = if pid.is_empty() { String::new() } else { format!(" (pid {pid})") };
            return Err(Error::Locked { dir: dir.display().to_string(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(opening(e)),
    }
    let mut lock = Taken(lock);
    lock.0.set_len(0).and_then(|()| lock.0.rewind()).map_err(opening)?;
    writeln!(lock.0, "{}", process::id()).map_err(opening)?;
    check_format(disk, dir)?;
    Ok(lock)
}

fn check_format(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    let path = dir.join("format");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(found) if found > FORMAT => {
                Err(Error::NewerVersion { dir: dir.display().to_string(), found, supported: FORMAT })
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Corrupt(format!("{} does not hold a version number", path.display()))),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            replace(disk, &path, format!("{FORMAT}\n").as_bytes())
        }
        Err(e) => Err(Error::io(format!("reading {}", path.display()), e)),
    }
}

/// The log's identity, which is given to it when it is first asked for.
pub(super) fn identity(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Uuid> {
    let path = dir.join("identity");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            Error::Corrupt(format!(
                "{} does not hold a UUID; restore it from a backup, or remove it: what was remembered of this log \
                 elsewhere is then built anew",
                path.display()
            ))
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let new = Uuid::new_v4();
            replace(disk, &path, format!("{new}\n").as_bytes())?;
            Ok(new)
        }
        Err(e) => Err(Error::io(format!("reading {}", path.display()), e)),
    }
}

/// Replaces a file as a whole, durably: a crash leaves the old content or the new.
pub(super) fn replace(disk: &Arc<dyn Disk>, path: &Path, content: &[u8]) -> Result<()> {
    weir_disk::replace(disk, path, content).map_err(|e| Error::io(format!("writing {}", path.display()), e))
}

/// Makes sure of a directory of the log at `root`, durably.
fn create(disk: &dyn Disk, dir: &Path, root: &Path) -> Result<()> {
    weir_disk::create_dirs(disk, dir, root).map_err(|e| Error::io(format!("creating {}", dir.display()), e))
}

/// Makes sure of the directories of a topic and its partitions, durably.
pub(super) fn create_topic(disk: &dyn Disk, dir: &Path, topic: &TopicSpec) -> Result<()> {
    let of_topic = topics(dir).join(&topic.name);
    create(disk, &of_topic, dir)?;
    for number in 0..topic.partitions {
        let partition = partition(dir, &topic.name, number);
        match disk.create_dir(&partition) {
            Err(_) if partition.is_dir() => {}
            made => made.map_err(|e| Error::io(format!("creating {}", partition.display()), e))?,
        }
    }
    // Also those that were there: whoever made them may have died before this.
    disk.sync_dir(&of_topic).map_err(|e| Error::io(format!("syncing {}", of_topic.display()), e))
}

pub(super) fn topics(dir: &Path) -> PathBuf {
    dir.join("topics")
}

pub(super) fn partition(dir: &Path, topic: &str, number: u32) -> PathBuf {
    topics(dir).join(topic).join(number.to_string())
}

/// A topic's settings on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicFile {
    partitions: u32,
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
}

/// The topics that exist: those with a settings file, which is written after everything else.
pub(super) fn read_topics(dir: &Path) -> Result<Vec<TopicSpec>> {
    let reading = |e| Error::io(format!("reading {}", topics(dir).display()), e);
    let mut found = Vec::new();
    for entry in fs::read_dir(topics(dir)).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let path = entry.path().join("topic.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(Error::io(format!("reading {}", path.display()), e)),
        };
        let topic: TopicFile = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Corrupt(format!("{}: {e}; restore it from a backup", path.display())))?;
        found.push(TopicSpec {
            name: entry.file_name().to_string_lossy().into_owned(),
            partitions: topic.partitions,
            retention: Retention {
                age: topic.retention_ms.map(Duration::from_millis),
                bytes: topic.retention_bytes,
            },
        });
    }
    Ok(found)
}

/// Writes a topic's settings.
pub(super) fn write_topic(disk: &Arc<dyn Disk>, dir: &Path, topic: &TopicSpec) -> Result<()> {
    let content = TopicFile {
        partitions: topic.partitions,
        retention_ms: topic.retention.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        retention_bytes: topic.retention.bytes,
    };
    let bytes = serde_json::to_vec_pretty(&content).expect("plain values make JSON");
    replace(disk, &topics(dir).join(&topic.name).join("topic.json"), &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_given_back_is_free_though_a_child_that_is_being_started_has_its_lock_open() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(weir_disk::RealDisk);
        let taken = take(&disk, dir.path()).unwrap();
        let _inherited = taken.0.try_clone().unwrap();
        assert!(matches!(take(&disk, dir.path()), Err(Error::Locked { .. })), "it is taken");
        drop(taken);
        take(&disk, dir.path()).unwrap();
    }
}
