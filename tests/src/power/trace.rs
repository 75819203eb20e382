//! What a program did to files.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::machine::Machine;

/// A file or directory, whatever its names.
pub type Inode = usize;
/// The directory in which everything happens.
pub const ROOT: Inode = 0;

/// One operation that succeeded, or a sync that failed.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "directories, names, files, positions and lengths are what they are called")]
pub enum Op {
    /// A file was created.
    Create { dir: Inode, name: String, inode: Inode },
    /// A directory was created.
    CreateDir { dir: Inode, name: String, inode: Inode },
    /// Bytes were written.
    Write { inode: Inode, position: usize, bytes: Vec<u8> },
    /// A file was cut off, or extended.
    Truncate { inode: Inode, length: usize },
    /// A file was synced; `site` tells which sync of the program it is.
    Sync { inode: Inode, site: String },
    /// Syncing a file failed.
    SyncFailed { inode: Inode },
    /// A directory was synced.
    SyncDir { dir: Inode, site: String },
    /// A file was renamed within a directory.
    Rename { dir: Inode, from: String, to: String, inode: Inode },
    /// A file got a further name.
    Link { dir: Inode, name: String, inode: Inode },
    /// A name was removed.
    Remove { dir: Inode, name: String },
}

impl Op {
    /// One that does nothing: writes no bytes.
    fn nothing() -> Self {
        Op::Write { inode: ROOT, position: 0, bytes: Vec::new() }
    }

    /// What kind of sync of the program it is, if it is one that succeeded.
    pub fn site(&self) -> Option<&str> {
        match self {
            Op::Sync { site, .. } | Op::SyncDir { site, .. } => Some(site),
            Op::Create { .. }
            | Op::CreateDir { .. }
            | Op::Write { .. }
            | Op::Truncate { .. }
            | Op::SyncFailed { .. }
            | Op::Rename { .. }
            | Op::Link { .. }
            | Op::Remove { .. } => None,
        }
    }
}

/// What was there at first, and what was done.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// All of it durable.
    pub start: Tree,
    /// In the order in which it was done.
    pub ops: Vec<Op>,
}

impl Trace {
    /// The trace of a program that lacks the syncs of one kind. Positions in it are the same.
    #[must_use]
    pub fn without(&self, site: &str) -> Self {
        let mut trace = self.clone();
        trace.ops.iter_mut().filter(|op| op.site() == Some(site)).for_each(|op| *op = Op::nothing());
        trace
    }

    /// The trace without the syncs that had nothing to do: they would do the work of one that is missing.
    #[must_use]
    pub fn without_idle_syncs(&self) -> Self {
        let mut trace = self.clone();
        let (mut machine, _) = Machine::new(&trace.start);
        for op in &mut trace.ops {
            if machine.is_idle_sync(op) {
                *op = Op::nothing();
            }
            machine.apply(op);
        }
        trace
    }

    /// The kinds of syncs in it, and how often each occurs.
    pub fn sites(&self) -> BTreeMap<String, usize> {
        let mut sites = BTreeMap::new();
        for site in self.ops.iter().filter_map(Op::site) {
            *sites.entry(site.to_owned()).or_default() += 1;
        }
        sites
    }
}

/// A file by its number, with its content.
pub(crate) type Content = (Inode, Arc<[u8]>);

/// Directories and files by their path, the former before what is in them. A directory has no content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, Option<Content>>);

impl Tree {
    /// Reads what is below a directory. Names of one file have one number.
    ///
    /// # Errors
    /// The system's.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut numbers = HashMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(root.join(&dir))? {
                let entry = entry?;
                let path = dir.join(entry.file_name());
                let meta = entry.metadata()?;
                let content = if meta.is_dir() {
                    left.push(path.clone());
                    None
                } else {
                    let next = numbers.len();
                    let number = *numbers.entry(meta.ino()).or_insert(next);
                    Some((number, fs::read(entry.path())?.into()))
                };
                tree.0.insert(path, content);
            }
        }
        Ok(tree)
    }

    /// Writes it into an empty directory.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        let mut written: HashMap<Inode, PathBuf> = HashMap::new();
        for (path, content) in &self.0 {
            let path = root.join(path);
            match content {
                None => fs::create_dir(&path)?,
                Some((number, bytes)) => match written.get(number) {
                    Some(first) => fs::hard_link(first, &path)?,
                    None => {
                        fs::write(&path, bytes)?;
                        written.insert(*number, path);
                    }
                },
            }
        }
        Ok(())
    }

    /// Paths, and what is in the files: all that a program can tell.
    pub fn contents(&self) -> impl Iterator<Item = (&Path, Option<&[u8]>)> {
        self.0
            .iter()
            .map(|(path, content)| (path.as_path(), content.as_ref().map(|(_, bytes)| bytes.as_ref())))
    }
}
