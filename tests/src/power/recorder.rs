//! The disk that records, and fails where it is told to.

use std::{
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use weir_disk::{Disk, RealDisk};

use super::{
    machine::Machine,
    trace::{Inode, Op, Trace, Tree},
};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Everything, without any effect: the process is gone.
    Killed,
    /// What takes room; half of a write gets there.
    NoSpace,
    /// Syncing files.
    SyncFails,
    /// Removing files.
    RemoveFails,
}

/// A disk below one directory. What it does is done there, too, where it can be read.
#[derive(Debug)]
pub struct Recorder {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    trace: Trace,
    next: Inode,
    /// By path below the root.
    names: HashMap<PathBuf, Inode>,
    /// By the operating system's number, which is used again once a file is gone.
    files: HashMap<u64, Inode>,
    /// What last happened to a file or in a directory, for telling syncs apart.
    last: HashMap<Inode, &'static str>,
    calls: usize,
    faults: Vec<(Range<usize>, Fault)>,
}

impl Recorder {
    /// Takes a directory as it is, all of it durable.
    ///
    /// # Errors
    /// The system's.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let start = Tree::read(&root)?;
        let (machine, names) = Machine::new(&start);
        let mut files = HashMap::new();
        for (path, inode) in &names {
            files.insert(root.join(path).metadata()?.ino(), *inode);
        }
        let state = State {
            trace: Trace { start, ops: Vec::new() },
            next: machine.next_inode(),
            names,
            files,
            last: HashMap::new(),
            calls: 0,
            faults: Vec::new(),
        };
        Ok(Self { root, state: Mutex::new(state) })
    }

    /// How many operations were recorded: the power may be cut after any of them.
    pub fn position(&self) -> usize {
        self.state().trace.ops.len()
    }

    /// How many operations were asked for, failed ones included.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// Lets operations fail, by their number as [`Recorder::calls`] counts them.
    pub fn fail(&self, calls: Range<usize>, fault: Fault) {
        self.state().faults.push((calls, fault));
    }

    /// Lets nothing fail any more.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// What was done so far.
    pub fn trace(&self) -> Trace {
        self.state().trace.clone()
    }

    /// Whether everything that happened below the directory was done through this disk, but for files of some names.
    ///
    /// # Errors
    /// A path that has another content.
    pub fn check_complete(&self, but: &[&str]) -> Result<(), String> {
        let trace = self.trace();
        let (mut machine, _) = Machine::new(&trace.start);
        trace.ops.iter().for_each(|op| machine.apply(op));
        let found = Tree::read(&self.root).map_err(|error| error.to_string())?;
        let counts = |path: &Path| !but.iter().any(|name| path.ends_with(name));
        let recorded = machine.cached();
        let recorded: HashMap<_, _> = recorded.contents().filter(|(path, _)| counts(path)).collect();
        let found: HashMap<_, _> = found.contents().filter(|(path, _)| counts(path)).collect();
        let differs = |(path, content): &(&&Path, &Option<&[u8]>)| recorded.get(**path) != Some(*content);
        if let Some((path, _)) = found.iter().find(differs) {
            return Err(format!("{} was written past the disk", path.display()));
        }
        match recorded.keys().find(|path| !found.contains_key(*path)) {
            Some(path) => Err(format!("{} was removed past the disk", path.display())),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation: which fault it meets.
    fn call(&self) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        let fault = state.faults.iter().find(|(calls, _)| calls.contains(&call)).map(|(_, fault)| *fault);
        if fault == Some(Fault::Killed) {
            return Err(io::Error::other("the process was killed"));
        }
        Ok((state, fault))
    }

    /// A path below the root, its directory and its name; `None` when it lies elsewhere.
    fn place(&self, state: &State, path: &Path) -> Option<(PathBuf, Inode, String)> {
        let below = path.strip_prefix(&self.root).ok()?;
        let dir = *state.names.get(below.parent()?)?;
        Some((below.to_owned(), dir, below.file_name()?.to_string_lossy().into_owned()))
    }
}

impl State {
    fn push(&mut self, inode: Inode, what: &'static str, op: Op) {
        self.last.insert(inode, what);
        self.trace.ops.push(op);
    }

    fn new_inode(&mut self, path: PathBuf) -> Inode {
        let inode = self.next;
        self.next += 1;
        self.names.insert(path, inode);
        inode
    }

    fn inode(&self, file: &File) -> io::Result<Inode> {
        let number = file.metadata()?.ino();
        let known = self.files.get(&number).copied();
        known.ok_or_else(|| io::Error::other("a file that was not created through the disk"))
    }

    /// Which sync of the program it is: what is synced, without numbers, and after what.
    fn site(&self, kind: &str, inode: Inode) -> String {
        let path = self.names.iter().find(|(_, found)| **found == inode);
        let path = path.map_or_else(String::new, |(path, _)| path.display().to_string());
        let mut site = String::new();
        for character in path.chars() {
            let is_number = character.is_ascii_digit() || "abcdef-".contains(character);
            site.push(if is_number { '*' } else { character });
        }
        // Words have such letters, too: only runs with a digit in them, or long ones, are numbers.
        let site = shorten(&path, &site);
        let after = self.last.get(&inode).copied().unwrap_or("nothing");
        format!("{kind} {site} after {after}")
    }
}

/// The path with each number replaced by one star.
fn shorten(path: &str, starred: &str) -> String {
    let mut short = String::new();
    let (path, starred) = (path.as_bytes(), starred.as_bytes());
    let mut at = 0;
    while at < path.len() {
        let run = starred[at..].iter().take_while(|byte| **byte == b'*').count();
        let piece = &path[at..at + run.max(1)];
        if run > 0 && piece.iter().any(u8::is_ascii_digit) {
            short.push('*');
        } else {
            short.push_str(&String::from_utf8_lossy(piece));
        }
        at += run.max(1);
    }
    short
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl Disk for Recorder {
    fn create(&self, path: &Path) -> io::Result<File> {
        let (mut state, fault) = self.call()?;
        if fault == Some(Fault::NoSpace) {
            return Err(errno(ENOSPC));
        }
        let file = RealDisk.create(path)?;
        let (below, dir, name) = self.place(&state, path).expect("files are created below the root");
        let inode = state.new_inode(below);
        state.files.insert(file.metadata()?.ino(), inode);
        state.last.insert(dir, "a creation");
        state.push(inode, "creation", Op::Create { dir, name, inode });
        Ok(file)
    }

    fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        let (mut state, fault) = self.call()?;
        let full = fault == Some(Fault::NoSpace);
        let bytes = if full { &bytes[..bytes.len() / 2] } else { bytes };
        RealDisk.write(file, bytes, position)?;
        let inode = state.inode(file)?;
        let op = Op::Write { inode, position: position as usize, bytes: bytes.to_vec() };
        state.push(inode, "a write", op);
        if full { Err(errno(ENOSPC)) } else { Ok(()) }
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        let (mut state, _) = self.call()?;
        RealDisk.truncate(file, length)?;
        let inode = state.inode(file)?;
        state.push(inode, "a truncation", Op::Truncate { inode, length: length as usize });
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let (mut state, fault) = self.call()?;
        let inode = state.inode(file)?;
        if fault == Some(Fault::SyncFails) {
            state.push(inode, "a failed sync", Op::SyncFailed { inode });
            return Err(errno(EIO));
        }
        let site = state.site("file", inode);
        state.push(inode, "a sync", Op::Sync { inode, site });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, _) = self.call()?;
        if !path.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let dir = path.strip_prefix(&self.root).ok().and_then(|below| state.names.get(below).copied());
        if let Some(dir) = dir {
            let site = state.site("entries of", dir);
            state.push(dir, "a sync", Op::SyncDir { dir, site });
        }
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, fault) = self.call()?;
        if fault == Some(Fault::NoSpace) && !path.is_dir() {
            return Err(errno(ENOSPC));
        }
        RealDisk.create_dir(path)?;
        let (below, dir, name) = self.place(&state, path).expect("directories are created below the root");
        let inode = state.new_inode(below);
        state.push(dir, "a creation", Op::CreateDir { dir, name, inode });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, _) = self.call()?;
        RealDisk.rename(from, to)?;
        let (old, dir, from) = self.place(&state, from).expect("it is below the root");
        let (new, same, to) = self.place(&state, to).expect("it is below the root");
        assert_eq!(dir, same, "files stay in their directory");
        let inode = state.names.remove(&old).expect("it was created here");
        state.names.insert(new, inode);
        state.push(dir, "a rename", Op::Rename { dir, from, to, inode });
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, fault) = self.call()?;
        if fault == Some(Fault::NoSpace) {
            return Err(errno(ENOSPC));
        }
        RealDisk.link(from, to)?;
        let (old, ..) = self.place(&state, from).expect("it is below the root");
        let (new, dir, name) = self.place(&state, to).expect("it is below the root");
        let inode = state.names[&old];
        state.names.insert(new, inode);
        state.push(dir, "a link", Op::Link { dir, name, inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, fault) = self.call()?;
        if fault == Some(Fault::RemoveFails) && path.exists() {
            return Err(errno(EIO));
        }
        RealDisk.remove(path)?;
        let (below, dir, name) = self.place(&state, path).expect("it is below the root");
        state.names.remove(&below);
        state.push(dir, "a removal", Op::Remove { dir, name });
        Ok(())
    }
}
