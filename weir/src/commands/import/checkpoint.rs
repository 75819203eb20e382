//! How far an import has come, kept so that it goes on there after Ctrl-C, and that it was complete, so that it is not repeated
//! when its rows would count twice.

use std::{
    env, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_disk::{Disk, RealDisk, create_dirs, replace};

/// Namespace of checkpoint names: any random UUID.
const CHECKPOINTS: Uuid = Uuid::from_u128(0xb1c9_0d55_7c1e_4ee0_9f43_61ad_3a7b_28f4);
/// Bytes at the start of a file that tell it from others of the same name and size.
const HEAD_BYTES: u64 = 64 << 10;

/// Everything acknowledged so far: the file's first `rows` rows, without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) rows: u64,
    pub(crate) accepted: u64,
    pub(crate) duplicates: u64,
    pub(crate) rejected: u64,
    /// Covers the accepted events.
    pub(crate) consistency_token: String,
    /// When the first row was sent, seconds since the Unix epoch.
    #[serde(default)]
    pub(crate) began: i64,
    /// Whether that was the whole file.
    #[serde(default)]
    pub(crate) complete: bool,
    /// Identifies the import to the service; nil in a checkpoint of a version that had none.
    #[serde(default)]
    pub(crate) import: Uuid,
}

/// Where the progress of one import is kept.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
}

impl Checkpoint {
    /// That of importing this file to this log, by its identity, in this way. The address says nothing: another Weir may listen
    /// there.
    ///
    /// # Errors
    /// When the file cannot be read, or there is no home directory to keep it in.
    pub(crate) fn of(file: &Path, log: &str, layout: &str) -> Result<Self> {
        let folder = match env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(env::var_os("HOME").context("HOME is not set: set XDG_STATE_HOME")?)
                .join(".local/state"),
        };
        Self::within(&folder.join("weir/import"), file, log, layout)
    }

    fn within(folder: &Path, file: &Path, log: &str, layout: &str) -> Result<Self> {
        let absolute = fs::canonicalize(file)?;
        let mut identity = Vec::new();
        let opened = fs::File::open(&absolute)?;
        let size = opened.metadata()?.len();
        opened.take(HEAD_BYTES).read_to_end(&mut identity)?;
        identity.extend_from_slice(format!("\n{}\n{size}\n{log}\n{layout}", absolute.display()).as_bytes());
        Ok(Self { path: folder.join(format!("{}.json", Uuid::new_v5(&CHECKPOINTS, &identity))) })
    }

    /// What was kept; nothing when it is missing or not readable, for starting over does no harm.
    pub(crate) fn load(&self) -> Option<Progress> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }

    /// Keeps it.
    pub(crate) fn save(&self, progress: &Progress) -> Result<()> {
        let folder = self.path.parent().context("a checkpoint lies in a folder")?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        create_dirs(&*disk, folder, folder)
            .and_then(|()| replace(&disk, &self.path, &serde_json::to_vec(progress)?))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Forgets it: the next run begins at the first row.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_found_again_for_the_same_import_only() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a.csv"), dir.path().join("b.csv"));
        fs::write(&file, "a,b\n").unwrap();
        fs::write(&other, "a,b\n").unwrap();
        let at = |file: &Path, log: &str| Checkpoint::within(dir.path(), file, log, "map").unwrap();
        let progress = Progress { rows: 7, accepted: 6, rejected: 1, ..Progress::default() };
        assert_eq!(at(&file, "x").load(), None);
        at(&file, "x").save(&progress).unwrap();
        assert_eq!(at(&file, "x").load(), Some(progress));
        assert_eq!(at(&file, "y").load(), None);
        assert_eq!(at(&other, "x").load(), None);
        at(&file, "x").remove().unwrap();
        assert_eq!(at(&file, "x").load(), None);
        at(&file, "x").remove().unwrap();
    }

    #[test]
    fn a_changed_file_starts_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.csv");
        let at = || Checkpoint::within(dir.path(), &file, "x", "map").unwrap();
        fs::write(&file, "a,b\n").unwrap();
        at().save(&Progress::default()).unwrap();
        fs::write(&file, "a,b\n1,2\n").unwrap();
        assert_eq!(at().load(), None);
    }
}
