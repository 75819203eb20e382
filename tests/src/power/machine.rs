//! A file system's memory and its disk: pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    choose::Choose,
    trace::{Inode, Op, ROOT, Tree},
};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// What may stand where nothing was written.
const GARBAGE: u8 = 0xa7;

/// Files and directories: what is durable of each, and what was done to it since.
#[derive(Clone, Debug)]
pub struct Machine(HashMap<Inode, Node>);

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Dir(Dir),
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Change {
    what: What,
    /// Whether a sync of it has failed: later syncs leave it out.
    is_lost: bool,
}

#[derive(Clone, Debug)]
enum What {
    Write { position: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Clone, Debug, Default)]
struct Dir {
    durable: BTreeMap<String, Inode>,
    changes: Vec<Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Add(String, Inode),
    Remove(String),
    Move { from: String, to: String, inode: Inode },
}

impl Machine {
    /// One on whose disk a tree is. Its files have the numbers after the directories', in the order of their paths.
    pub fn new(start: &Tree) -> (Self, HashMap<PathBuf, Inode>) {
        let mut machine = Self(HashMap::from([(ROOT, Node::Dir(Dir::default()))]));
        let mut paths = HashMap::from([(PathBuf::new(), ROOT)]);
        let mut files: HashMap<Inode, Inode> = HashMap::new();
        for (path, content) in &start.0 {
            let next = machine.0.len();
            let inode = match content {
                None => next,
                Some((number, _)) => *files.entry(*number).or_insert(next),
            };
            let node = content.as_ref().map_or_else(
                || Node::Dir(Dir::default()),
                |(_, bytes)| Node::File(File { durable: bytes.to_vec(), changes: Vec::new() }),
            );
            machine.0.insert(inode, node);
            let dir = paths[path.parent().expect("it is in a directory")];
            let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
            machine.dir(dir).durable.insert(name, inode);
            paths.insert(path.clone(), inode);
        }
        (machine, paths)
    }

    /// The next free number.
    pub fn next_inode(&self) -> Inode {
        self.0.keys().max().map_or(ROOT, |last| last + 1)
    }

    /// Does one operation.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { dir, name, inode } => {
                self.0.insert(*inode, Node::File(File::default()));
                self.change(*dir, Entry::Add(name.clone(), *inode));
            }
            Op::CreateDir { dir, name, inode } => {
                self.0.insert(*inode, Node::Dir(Dir::default()));
                self.change(*dir, Entry::Add(name.clone(), *inode));
            }
            Op::Write { bytes, .. } if bytes.is_empty() => {}
            Op::Write { inode, position, bytes } => {
                let what = What::Write { position: *position, bytes: bytes.clone() };
                self.file(*inode).changes.push(Change { what, is_lost: false });
            }
            Op::Truncate { inode, length } => {
                let what = What::Truncate(*length);
                self.file(*inode).changes.push(Change { what, is_lost: false });
            }
            Op::Sync { inode, .. } => self.file(*inode).sync(),
            Op::SyncFailed { inode } => {
                self.file(*inode).changes.iter_mut().for_each(|change| change.is_lost = true);
            }
            Op::SyncDir { dir, .. } => {
                let dir = self.dir(*dir);
                for change in std::mem::take(&mut dir.changes) {
                    change.apply(&mut dir.durable);
                }
            }
            Op::Rename { dir, from, to, inode } => {
                self.change(*dir, Entry::Move { from: from.clone(), to: to.clone(), inode: *inode });
            }
            Op::Link { dir, name, inode } => self.change(*dir, Entry::Add(name.clone(), *inode)),
            Op::Remove { dir, name } => self.change(*dir, Entry::Remove(name.clone())),
        }
    }

    /// Whether an operation is a sync of something that was not changed since the last one.
    pub fn is_idle_sync(&self, op: &Op) -> bool {
        match op {
            Op::Sync { inode: synced, .. } | Op::SyncDir { dir: synced, .. } => match self.0.get(synced) {
                Some(Node::File(file)) => file.changes.is_empty(),
                Some(Node::Dir(dir)) => dir.changes.is_empty(),
                None => true,
            },
            Op::Create { .. }
            | Op::CreateDir { .. }
            | Op::Write { .. }
            | Op::Truncate { .. }
            | Op::SyncFailed { .. }
            | Op::Rename { .. }
            | Op::Link { .. }
            | Op::Remove { .. } => false,
        }
    }

    /// What is on the disk after a power cut.
    pub fn cut(&self, choose: &mut dyn Choose) -> Tree {
        let mut tree = Tree::default();
        self.walk(&mut tree, Path::new(""), ROOT, &mut HashMap::new(), &mut Some(choose));
        tree
    }

    /// What a program sees while the power is on.
    pub fn cached(&self) -> Tree {
        let mut tree = Tree::default();
        self.walk(&mut tree, Path::new(""), ROOT, &mut HashMap::new(), &mut None);
        tree
    }

    fn walk(
        &self,
        tree: &mut Tree,
        path: &Path,
        dir: Inode,
        known: &mut HashMap<Inode, Arc<[u8]>>,
        cut: &mut Option<&mut dyn Choose>,
    ) {
        let Some(Node::Dir(found)) = self.0.get(&dir) else {
            unreachable!("{} is a directory", path.display())
        };
        let entries = match cut {
            Some(choose) => found.cut(*choose),
            None => found.cached(),
        };
        for (name, inode) in entries {
            let path = path.join(name);
            let Node::File(file) = &self.0[&inode] else {
                tree.0.insert(path.clone(), None);
                self.walk(tree, &path, inode, known, cut);
                continue;
            };
            let content = known.entry(inode).or_insert_with(|| match cut {
                Some(choose) => file.cut(*choose).into(),
                None => file.cached().into(),
            });
            tree.0.insert(path, Some((inode, Arc::clone(content))));
        }
    }

    fn file(&mut self, inode: Inode) -> &mut File {
        match self.0.get_mut(&inode) {
            Some(Node::File(file)) => file,
            Some(Node::Dir(_)) | None => unreachable!("{inode} is a file"),
        }
    }

    fn dir(&mut self, inode: Inode) -> &mut Dir {
        match self.0.get_mut(&inode) {
            Some(Node::Dir(dir)) => dir,
            Some(Node::File(_)) | None => unreachable!("{inode} is a directory"),
        }
    }

    fn change(&mut self, dir: Inode, entry: Entry) {
        self.dir(dir).changes.push(entry);
    }
}

impl File {
    fn cached(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.changes {
            change.apply(&mut bytes);
        }
        bytes
    }

    /// Makes durable what can be: whole sectors, as they are in memory. Those of which nothing but lost changes is known stay as they are.
    fn sync(&mut self) {
        let cached = self.cached();
        if self.changes.iter().all(|change| !change.is_lost) {
            *self = Self { durable: cached, changes: Vec::new() };
            return;
        }
        let (mut lost, mut dirty) = (BTreeSet::new(), BTreeSet::new());
        let mut bytes = self.durable.clone();
        for change in &self.changes {
            let touched = change.apply(&mut bytes);
            if change.is_lost { lost.extend(touched) } else { dirty.extend(touched) }
        }
        self.durable.resize(cached.len(), 0);
        let sector = |number: usize| number * SECTOR..((number + 1) * SECTOR).min(cached.len());
        for number in dirty.iter().copied().filter(|number| number * SECTOR < cached.len()) {
            self.durable[sector(number)].copy_from_slice(&cached[sector(number)]);
        }
        let still = lost.difference(&dirty).copied().filter(|number| number * SECTOR < cached.len());
        self.changes = still
            .map(|number| Change {
                what: What::Write { position: number * SECTOR, bytes: cached[sector(number)].to_vec() },
                is_lost: true,
            })
            .collect();
    }

    fn cut(&self, choose: &mut dyn Choose) -> Vec<u8> {
        if self.changes.is_empty() {
            return self.durable.clone();
        }
        choose.begin();
        let mut lengths = vec![self.durable.len()];
        let mut versions: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        let mut bytes = self.durable.clone();
        for change in &self.changes {
            for number in change.apply(&mut bytes) {
                let version = sector(&bytes, number);
                let known = versions.entry(number).or_default();
                if known.last() != Some(&version) {
                    known.push(version);
                }
            }
            lengths.push(bytes.len());
        }
        lengths.dedup();
        let length = lengths[choose.choose(lengths.len())];
        let mut left = Vec::with_capacity(length + SECTOR);
        for number in 0..length.div_ceil(SECTOR) {
            let known = versions.get(&number).map_or(&[][..], Vec::as_slice);
            let oldest = if number * SECTOR < self.durable.len() {
                vec![sector(&self.durable, number)]
            } else {
                vec![vec![GARBAGE; SECTOR], vec![0; SECTOR]]
            };
            let count = oldest.len() + known.len();
            let chosen = if count == 1 { 0 } else { choose.choose(count) };
            left.extend_from_slice(oldest.iter().chain(known).nth(chosen).expect("one of so many"));
        }
        left.truncate(length);
        left
    }
}

/// A sector, filled up with zeros where the file ends in it.
fn sector(bytes: &[u8], number: usize) -> Vec<u8> {
    let from = (number * SECTOR).min(bytes.len());
    let mut sector = bytes[from..(from + SECTOR).min(bytes.len())].to_vec();
    sector.resize(SECTOR, 0);
    sector
}

impl Change {
    /// Changes the content; which sectors that touches.
    fn apply(&self, content: &mut Vec<u8>) -> std::ops::Range<usize> {
        match &self.what {
            What::Write { position, bytes } => {
                let end = position + bytes.len();
                let from = (*position).min(content.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*position..end].copy_from_slice(bytes);
                from / SECTOR..end.div_ceil(SECTOR)
            }
            What::Truncate(length) => {
                let (least, most) = ((*length).min(content.len()), (*length).max(content.len()));
                content.resize(*length, 0);
                least / SECTOR..most.div_ceil(SECTOR)
            }
        }
    }
}

impl Dir {
    fn cached(&self) -> BTreeMap<String, Inode> {
        let mut entries = self.durable.clone();
        self.changes.iter().for_each(|change| change.apply(&mut entries));
        entries
    }

    fn cut(&self, choose: &mut dyn Choose) -> BTreeMap<String, Inode> {
        let mut entries = self.durable.clone();
        if !self.changes.is_empty() {
            choose.begin();
        }
        // Names of which something was lost: nothing later happened to them.
        let mut ended: BTreeSet<&str> = BTreeSet::new();
        for change in &self.changes {
            let names = change.names();
            if names.iter().flatten().all(|name| !ended.contains(name)) && choose.choose(2) == 1 {
                change.apply(&mut entries);
            } else {
                ended.extend(names.into_iter().flatten());
            }
        }
        entries
    }
}

impl Entry {
    fn apply(&self, entries: &mut BTreeMap<String, Inode>) {
        match self {
            Entry::Add(name, inode) => {
                entries.insert(name.clone(), *inode);
            }
            Entry::Remove(name) => {
                entries.remove(name);
            }
            Entry::Move { from, to, inode } => {
                entries.remove(from);
                entries.insert(to.clone(), *inode);
            }
        }
    }

    fn names(&self) -> [Option<&str>; 2] {
        match self {
            Entry::Add(name, _) | Entry::Remove(name) => [Some(name), None],
            Entry::Move { from, to, .. } => [Some(from), Some(to)],
        }
    }
}
