//! What the simulated power cut leaves: every possible state of small programs.

use std::{collections::BTreeSet, io::Write, path::Path, sync::Arc};

use weir_disk::{Created, Disk, Staged, create_dirs, replace, staging_unique};
use weir_tests::power::{Each, Fault, Machine, Recorder};

use crate::workload::scratch;

/// Runs a program, and gathers what `look` sees in every state that a power cut after any operation leaves.
fn states<T: Ord>(
    program: impl FnOnce(&Path, &Arc<dyn Disk>),
    look: impl Fn(&Path, usize) -> T,
) -> BTreeSet<T> {
    let dir = scratch();
    let recorder = Arc::new(Recorder::new(dir.path()).unwrap());
    let disk: Arc<dyn Disk> = recorder.clone();
    program(&dir.path().canonicalize().unwrap(), &disk);
    recorder.check_complete(&[]).unwrap();
    let trace = recorder.trace();
    let mut seen = BTreeSet::new();
    for position in 0..=trace.ops.len() {
        let (mut machine, _) = Machine::new(&trace.start);
        trace.ops[..position].iter().for_each(|op| machine.apply(op));
        let mut each = Each::default();
        loop {
            let left = scratch();
            machine.cut(&mut each).write(left.path()).unwrap();
            seen.insert(look(left.path(), position));
            if !each.advance() {
                break;
            }
        }
    }
    seen
}

/// Whether a power cut after all of a program leaves what is right, and how many of its syncs may be left out, one at a time, without
/// another state being possible.
fn needless_syncs(
    program: impl FnOnce(&Path, &Arc<dyn Disk>, &Recorder),
    right: impl Fn(&Path) -> bool,
) -> usize {
    let dir = scratch();
    let recorder = Arc::new(Recorder::new(dir.path()).unwrap());
    let disk: Arc<dyn Disk> = recorder.clone();
    program(&dir.path().canonicalize().unwrap(), &disk, &recorder);
    let trace = recorder.trace();
    let is_always_right = |left_out: Option<usize>| {
        let (mut machine, _) = Machine::new(&trace.start);
        let ops = trace.ops.iter().enumerate().filter(|(number, _)| Some(*number) != left_out);
        ops.for_each(|(_, op)| machine.apply(op));
        let mut each = Each::default();
        loop {
            let left = scratch();
            machine.cut(&mut each).write(left.path()).unwrap();
            if !right(left.path()) {
                return false;
            }
            if !each.advance() {
                return true;
            }
        }
    };
    assert!(is_always_right(None), "with all of them");
    (0..trace.ops.len()).filter(|op| trace.ops[*op].site().is_some() && is_always_right(Some(*op))).count()
}

/// Does something until the process dies, which is after so many operations.
fn die_after(recorder: &Recorder, operations: usize, doing: impl FnOnce() -> std::io::Result<()>) {
    let calls = recorder.calls() + operations;
    recorder.fail(calls..usize::MAX, Fault::Killed);
    doing().unwrap_err();
    recorder.heal();
}

fn create(disk: &Arc<dyn Disk>, target: &Path) -> std::io::Result<Created> {
    let mut staged = Staged::begin(Arc::clone(disk), target, staging_unique(target))?;
    staged.write_all(b"text")?;
    staged.create()
}

#[test]
fn each_sync_of_a_replaced_file_is_needed() {
    let program = |root: &Path, disk: &Arc<dyn Disk>, _: &Recorder| {
        replace(disk, &root.join("file"), b"new").unwrap();
    };
    assert_eq!(needless_syncs(program, |left| content(left, "file").as_deref() == Some("new")), 0);
}

#[test]
fn each_sync_of_a_created_file_and_of_the_way_to_it_is_needed() {
    let program = |root: &Path, disk: &Arc<dyn Disk>, _: &Recorder| {
        create_dirs(&**disk, &root.join("a/b"), &root.join("a")).unwrap();
        assert_eq!(create(disk, &root.join("a/b/file")).unwrap(), Created::New);
    };
    assert_eq!(needless_syncs(program, |left| content(left, "a/b/file").as_deref() == Some("text")), 0);
}

/// Whoever finds a directory or a file that a process created which died then makes it durable.
#[test]
fn each_sync_of_what_a_dead_process_created_is_needed() {
    let dirs = |root: &Path, disk: &Arc<dyn Disk>, recorder: &Recorder| {
        let make = || create_dirs(&**disk, &root.join("a/b"), &root.join("a"));
        // It finds the directories above `root`, creates `a`, syncs `root`, and creates `b`.
        let above = root.ancestors().count() - 1;
        die_after(recorder, above + 3, make);
        make().unwrap();
    };
    // Both processes sync `root`.
    assert_eq!(needless_syncs(dirs, |left| left.join("a/b").is_dir()), 2);
    let file = |root: &Path, disk: &Arc<dyn Disk>, recorder: &Recorder| {
        // It creates the file, writes, syncs and names it.
        die_after(recorder, 4, || create(disk, &root.join("file")).map(|_| ()));
        assert_eq!(create(disk, &root.join("file")).unwrap(), Created::Exists);
    };
    // The second one's own file is synced before it is seen that its name is taken.
    assert_eq!(needless_syncs(file, |left| content(left, "file").as_deref() == Some("text")), 1);
}

fn content(root: &Path, name: &str) -> Option<String> {
    Some(std::fs::read_to_string(root.join(name)).ok()?.chars().take(4).collect())
}

fn texts(found: &[Option<&str>]) -> BTreeSet<Option<String>> {
    found.iter().map(|text| text.map(str::to_owned)).collect()
}

#[test]
fn a_replaced_file_is_the_old_one_or_the_new_one() {
    let program = |root: &Path, disk: &Arc<dyn Disk>| {
        replace(disk, &root.join("file"), b"old").unwrap();
        replace(disk, &root.join("file"), b"new").unwrap();
    };
    let seen = states(program, |left, _| content(left, "file"));
    assert_eq!(seen, texts(&[None, Some("old"), Some("new")]));
}

#[test]
fn a_created_file_is_whole_or_absent_and_its_directory_with_it() {
    let program = |root: &Path, disk: &Arc<dyn Disk>| {
        create_dirs(&**disk, &root.join("a/b"), &root.join("a")).unwrap();
        let target = root.join("a/b/file");
        let mut staged = Staged::begin(Arc::clone(disk), &target, staging_unique(&target)).unwrap();
        staged.write_all(b"text").unwrap();
        let _ = staged.create().unwrap();
    };
    let seen = states(program, |left, _| content(left, "a/b/file"));
    assert_eq!(seen, texts(&[None, Some("text")]));
}

/// Without syncs everything that the model allows is seen: a lost name, a length without bytes, a torn write.
#[test]
fn what_is_not_synced_may_be_lost_in_part() {
    let write = |sync: bool, sync_dir: bool| {
        move |root: &Path, disk: &Arc<dyn Disk>| {
            let file = disk.create(&root.join("file")).unwrap();
            disk.write(&file, &[b'x'; 700], 0).unwrap();
            if sync {
                disk.sync(&file).unwrap();
            }
            if sync_dir {
                disk.sync_dir(root).unwrap();
            }
        }
    };
    let sectors = |left: &Path, _| {
        let bytes = std::fs::read(left.join("file")).ok()?;
        let first = |at: usize| bytes.get(at).map(|byte| *byte == b'x');
        Some((first(0), first(600)))
    };
    let (lost, empty) = (None, Some((None, None)));
    let torn = [(false, false), (false, true), (true, false), (true, true)];
    let torn = torn.map(|(first, second)| Some((Some(first), Some(second))));
    let all = BTreeSet::from_iter(torn.into_iter().chain([lost, empty]));
    assert_eq!(states(write(false, false), sectors), all);
    assert_eq!(states(write(false, true), sectors), all);
    assert_eq!(states(write(true, false), sectors), all, "a file that is synced may have no name");
}

/// A file that was synced and named in a directory that was not: it is as good as never written.
#[test]
fn a_sync_that_failed_is_not_made_up_for_by_one_that_succeeds() {
    let dir = scratch();
    let recorder = Arc::new(Recorder::new(dir.path()).unwrap());
    let root = dir.path().canonicalize().unwrap();
    let file = recorder.create(&root.join("file")).unwrap();
    recorder.sync_dir(&root).unwrap();
    recorder.write(&file, b"text", 0).unwrap();
    let calls = recorder.calls();
    recorder.fail(calls..calls + 1, Fault::SyncFails);
    recorder.sync(&file).unwrap_err();
    recorder.sync(&file).expect("the pages are clean");
    let left = |recorder: &Recorder| {
        let trace = recorder.trace();
        let (mut machine, _) = Machine::new(&trace.start);
        trace.ops.iter().for_each(|op| machine.apply(op));
        let mut each = Each::default();
        let mut seen = BTreeSet::new();
        loop {
            let tree = machine.cut(&mut each);
            let text = tree.contents().find_map(|(_, content)| content.map(<[u8]>::to_vec));
            seen.insert(text.is_some_and(|text| text.starts_with(b"text")));
            if !each.advance() {
                return seen;
            }
        }
    };
    assert_eq!(left(&recorder), BTreeSet::from([false, true]), "it may be lost");
    recorder.write(&file, b"text", 0).unwrap();
    recorder.sync(&file).unwrap();
    assert_eq!(left(&recorder), BTreeSet::from([true]), "it was written again");
}
