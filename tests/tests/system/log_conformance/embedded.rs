//! The embedded log alone: damaged files, crashes, faults of the disk, retention, the directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weir_disk::{Disk, RealDisk};
use weir_log::{EmbeddedConfig, EmbeddedLog, Error, EventLog, Retention, TopicPolicy, TopicSpec};

use super::{Home, PATIENCE, Rig, a_full_queue_refuses_and_recovers, read, record, records};

const TOPIC: &str = "t";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn spec(retention: Retention) -> TopicSpec {
    TopicSpec { name: TOPIC.to_owned(), partitions: 1, retention }
}

/// Appends one record at a time: each is a frame of its own.
async fn write(config: EmbeddedConfig, count: u64) -> Arc<EmbeddedLog> {
    let log = EmbeddedLog::open(config).unwrap();
    log.ensure_topics(&[spec(Retention::default())], TopicPolicy::Create).await.unwrap();
    for n in 0..count {
        log.append(TOPIC, 0, vec![record(n)]).await.unwrap();
    }
    log
}

fn partition(dir: &Path) -> PathBuf {
    dir.join("topics").join(TOPIC).join("0")
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(partition(dir)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// A directory as a crash leaves it: no index of the last segment. `change` may damage the segments.
fn crashed(count: u64, segment_bytes: u64, change: impl FnOnce(&[PathBuf])) -> (TempDir, EmbeddedConfig) {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { segment_bytes, index_interval_bytes: 64, ..EmbeddedConfig::at(dir.path()) };
    runtime().block_on(async { write(config.clone(), count).await.close().await.unwrap() });
    fs::remove_file(files(dir.path(), "index").last().unwrap()).unwrap();
    change(&files(dir.path(), "log"));
    (dir, config)
}

/// Opens and reads everything.
fn contents(config: &EmbeddedConfig) -> Result<Vec<weir_log::Record>, Error> {
    runtime().block_on(async {
        let log = EmbeddedLog::open(config.clone())?;
        let end = log.bounds(TOPIC, 0).await?.end;
        let mut reader = log.reader(TOPIC, 0, 0).await?;
        let mut all = Vec::new();
        while reader.position() < end {
            all.extend(super::unpack(&reader.next(PATIENCE).await?).into_iter().map(|r| r.2));
        }
        Ok(all)
    })
}

#[test]
fn a_torn_tail_is_dropped_wherever_it_is_torn() {
    const COUNT: u64 = 5;
    let (whole, _) = crashed(COUNT, 1 << 20, |_| {});
    let len = fs::metadata(&files(whole.path(), "log")[0]).unwrap().len();
    let (shorter, _) = crashed(COUNT - 1, 1 << 20, |_| {});
    let last_frame = fs::metadata(&files(shorter.path(), "log")[0]).unwrap().len();
    for cut in last_frame..len {
        let (_dir, config) = crashed(COUNT, 1 << 20, |logs| {
            OpenOptions::new().write(true).open(&logs[0]).unwrap().set_len(cut).unwrap();
        });
        assert_eq!(contents(&config).unwrap(), records(0..COUNT - 1), "cut at {cut} of {len}");
        runtime().block_on(async {
            let log = EmbeddedLog::open(config.clone()).unwrap();
            let at = log.append(TOPIC, 0, vec![record(99)]).await.unwrap();
            assert_eq!(at.first, COUNT - 1, "the log goes on after the cut at {cut}");
        });
        assert_eq!(contents(&config).unwrap().last().unwrap(), &record(99));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn garbage_after_the_last_frame_is_dropped(garbage in prop::collection::vec(any::<u8>(), 1..300)) {
        let (_dir, config) = crashed(5, 1 << 20, |logs| {
            OpenOptions::new().append(true).open(&logs[0]).unwrap().write_all(&garbage).unwrap();
        });
        prop_assert_eq!(contents(&config).unwrap(), records(0..5));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed(place in 0.0..1.0f64, bit in 0..8u8, sealed in any::<bool>()) {
        const COUNT: u64 = 12;
        let mut where_to = (PathBuf::new(), 0, 0);
        let (_dir, config) = crashed(COUNT, if sealed { 200 } else { 1 << 20 }, |logs| {
            let bytes: u64 = logs.iter().map(|p| fs::metadata(p).unwrap().len()).sum();
            let mut at = ((bytes - 1) as f64 * place) as u64;
            for path in logs {
                let len = fs::metadata(path).unwrap().len();
                if at < len {
                    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, at).unwrap();
                    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
                    where_to = (path.clone(), at, len);
                    return;
                }
                at -= len;
            }
        });
        match contents(&config) {
            Err(Error::Corrupt(message)) => {
                prop_assert!(message.contains(where_to.0.to_str().unwrap()), "{message} names {:?}", where_to.0);
            }
            // The end of the last segment may be what a crash tore: then it is gone, and nothing else.
            Ok(kept) => {
                prop_assert_eq!(&kept, &records(0..COUNT - 1), "flipped bit {} at {:?}", bit, where_to);
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

#[test]
fn a_missing_index_is_made_again() {
    let (dir, config) = crashed(40, 300, |_| {});
    assert!(files(dir.path(), "log").len() > 5, "there are several segments");
    for index in files(dir.path(), "index") {
        fs::remove_file(index).unwrap();
    }
    fs::write(files(dir.path(), "log")[1].with_extension("index"), "nonsense").unwrap();
    assert_eq!(contents(&config).unwrap(), records(0..40));
}

#[test]
fn a_missing_segment_is_damage() {
    let (_dir, config) = crashed(40, 300, |logs| fs::remove_file(&logs[2]).unwrap());
    let outcome = contents(&config);
    assert!(
        matches!(&outcome, Err(Error::Corrupt(m)) if m.contains("the next segment starts at")),
        "{outcome:?}"
    );
}

/// Not a test of its own: what `a_killed_process_loses_nothing_it_acknowledged` kills.
#[test]
#[ignore = "runs as a child process"]
fn child_that_appends_until_killed() {
    let Ok(dir) = std::env::var("WEIR_TEST_CHILD_DIR") else { return };
    runtime().block_on(async {
        let log = write(EmbeddedConfig { segment_bytes: 4 << 10, ..EmbeddedConfig::at(dir) }, 0).await;
        for n in log.bounds(TOPIC, 0).await.unwrap().end.. {
            log.append(TOPIC, 0, vec![record(n)]).await.unwrap();
            println!("\nacknowledged {n}");
        }
    });
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_appends_until_killed", "--ignored", "--nocapture"])
            .env("WEIR_TEST_CHILD_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut told = lines.by_ref().filter_map(|l| l.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        acknowledged = told.find(|n| *n >= acknowledged + 100 * round).expect("the child appends");
        child.kill().unwrap();
        child.wait().unwrap();
        // What was in the pipe when it died counts as well.
        acknowledged = told.last().unwrap_or(acknowledged);
        let kept = contents(&EmbeddedConfig::at(dir.path())).unwrap();
        assert!(
            kept.len() as u64 > acknowledged,
            "{acknowledged} was acknowledged, {} are there",
            kept.len()
        );
        assert_eq!(kept, records(0..kept.len() as u64));
    }
}

#[tokio::test]
async fn retention_by_size_deletes_the_oldest_whole_segments() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        segment_bytes: 500,
        retention_check: Duration::from_millis(10),
        ..EmbeddedConfig::at(dir.path())
    };
    let log = write(config.clone(), 100).await;
    let mut reader = log.reader(TOPIC, 0, 0).await.unwrap();
    let limit = Retention { age: None, bytes: Some(2000) };
    log.ensure_topics(&[spec(limit)], TopicPolicy::Create).await.unwrap();
    let start = until_started(&log).await;
    assert!((1..99).contains(&start), "some records are gone and some are kept: {start}");
    let bytes: u64 = files(dir.path(), "log").iter().map(|p| fs::metadata(p).unwrap().len()).sum();
    assert!((2000..3000).contains(&bytes), "{bytes} bytes are kept");

    assert_eq!(read(&mut *log.reader(TOPIC, 0, start).await.unwrap(), 1).await[0].2, record(start));
    let gone = log.reader(TOPIC, 0, 0).await.map(|_| ());
    assert!(matches!(gone, Err(Error::OutOfRange { offset: 0, end: 100, .. })), "{gone:?}");
    // A reader that was there before reads what it holds open, and is then told.
    let told = async {
        loop {
            if let Err(e) = reader.next(PATIENCE).await {
                return e;
            }
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(matches!(told, Error::OutOfRange { .. }), "{told}");
    log.close().await.unwrap();

    let log = EmbeddedLog::open(config).unwrap();
    assert!(log.bounds(TOPIC, 0).await.unwrap().start >= start, "the limit is remembered");
}

#[tokio::test]
async fn retention_by_age_deletes_even_what_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        EmbeddedConfig { retention_check: Duration::from_millis(10), ..EmbeddedConfig::at(dir.path()) };
    let log = write(config.clone(), 10).await;
    let limit = Retention { age: Some(Duration::from_millis(50)), bytes: None };
    log.ensure_topics(&[spec(limit)], TopicPolicy::Create).await.unwrap();
    assert_eq!(until_started(&log).await, 10, "all of it is old");
    let late = log.offset_at_time(TOPIC, 0, 0).await.unwrap();
    assert_eq!(late, 10, "times before the start are answered with the start");
    log.close().await.unwrap();
    let log = EmbeddedLog::open(config).unwrap();
    assert_eq!(
        log.append(TOPIC, 0, vec![record(0)]).await.unwrap().first,
        10,
        "offsets are never used again"
    );
}

/// Waits until retention has settled on a start.
async fn until_started(log: &EmbeddedLog) -> u64 {
    let moved = async {
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let start = log.bounds(TOPIC, 0).await.unwrap().start;
            if start > 0 && start == last {
                return start;
            }
            last = start;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.expect("retention deletes something")
}

#[tokio::test]
async fn a_directory_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let log = write(EmbeddedConfig::at(dir.path()), 1).await;
    let Err(e) = EmbeddedLog::open(EmbeddedConfig::at(dir.path())) else { panic!("it was opened twice") };
    assert!(matches!(e, Error::Locked { .. }), "{e}");
    assert!(e.to_string().contains(&format!("pid {}", std::process::id())), "{e}");
    drop(log);
    EmbeddedLog::open(EmbeddedConfig::at(dir.path())).expect("it is free again");
}

#[tokio::test]
async fn a_log_begun_anew_in_the_same_place_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::at(dir.path().join("log"));
    let mut identities = Vec::new();
    for _ in 0..2 {
        identities.push(write(config.clone(), 1).await.identity().await.unwrap());
        fs::remove_dir_all(&config.dir).unwrap();
    }
    assert_ne!(identities[0], identities[1]);
}

#[tokio::test]
async fn a_directory_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(write(EmbeddedConfig::at(dir.path()), 1).await);
    fs::write(dir.path().join("format"), "7\n").unwrap();
    let outcome = EmbeddedLog::open(EmbeddedConfig::at(dir.path())).map(|_| ());
    assert!(matches!(outcome, Err(Error::NewerVersion { found: 7, supported: 1, .. })), "{outcome:?}");
}

#[tokio::test]
async fn names_that_are_no_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = write(EmbeddedConfig::at(dir.path()), 1).await;
    for name in ["", "..", "a/b", "ü", &"x".repeat(250)] {
        let topic = TopicSpec { name: name.to_owned(), ..spec(Retention::default()) };
        let outcome = log.ensure_topics(&[topic], TopicPolicy::Create).await;
        assert!(matches!(outcome, Err(Error::Config(_))), "{name}: {outcome:?}");
    }
}

/// A disk with planted faults: each counter is how many operations fail from now on.
#[derive(Debug, Default)]
struct Faulty {
    creations: AtomicU32,
    panics: AtomicU32,
    writes: AtomicU32,
    syncs: AtomicU32,
    truncations: AtomicU32,
    slow: bool,
}

impl Faulty {
    fn fails(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
    }
}

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<File> {
        // The file is there all the same.
        let file = RealDisk.create(path)?;
        if path.extension().is_some_and(|e| e == "log") && Self::fails(&self.creations) {
            Err(io::Error::from_raw_os_error(EIO))
        } else {
            Ok(file)
        }
    }

    fn write(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        assert!(!Self::fails(&self.panics), "a planted bug");
        if Self::fails(&self.writes) {
            // Half of it gets there.
            RealDisk.write(file, &bytes[..bytes.len() / 2], position)?;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        RealDisk.write(file, bytes, position)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.slow {
            std::thread::sleep(Duration::from_millis(500));
        }
        if Self::fails(&self.syncs) { Err(io::Error::from_raw_os_error(EIO)) } else { RealDisk.sync(file) }
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        if Self::fails(&self.truncations) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        RealDisk.truncate(file, length)
    }
}

async fn faulty() -> (TempDir, EmbeddedConfig, Arc<Faulty>, Arc<EmbeddedLog>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let config = EmbeddedConfig { disk: disk.clone(), ..EmbeddedConfig::at(dir.path()) };
    let log = write(config.clone(), 3).await;
    (dir, config, disk, log)
}

#[tokio::test]
async fn a_full_disk_refuses_and_the_log_goes_on() {
    let (_dir, config, disk, log) = faulty().await;
    disk.writes.store(1, Ordering::Relaxed);
    let refused = log.append(TOPIC, 0, records(50..60)).await;
    assert!(matches!(&refused, Err(e @ Error::Io { .. }) if e.is_retryable()), "{refused:?}");
    assert_eq!(log.bounds(TOPIC, 0).await.unwrap().end, 3, "nothing of it is shown");
    assert_eq!(log.append(TOPIC, 0, vec![record(3)]).await.unwrap().first, 3);
    log.ping().await.expect("the log is well");
    drop(log);
    assert_eq!(tokio::task::spawn_blocking(move || contents(&config)).await.unwrap().unwrap(), records(0..4));
}

#[tokio::test]
async fn a_failed_sync_is_never_tried_again() {
    let (_dir, config, disk, log) = faulty().await;
    disk.syncs.store(1, Ordering::Relaxed);
    let failed = log.append(TOPIC, 0, vec![record(3)]).await;
    assert!(matches!(&failed, Err(e @ Error::Io { .. }) if !e.is_retryable()), "{failed:?}");
    // The disk is well again, but what the page cache says of it is worth nothing.
    let failed = log.append(TOPIC, 0, vec![record(4)]).await;
    assert!(matches!(&failed, Err(Error::Io { what, .. }) if what.contains("reopened")), "{failed:?}");
    let why = log.ping().await;
    assert!(matches!(&why, Err(Error::Unavailable(why)) if why.contains("t/0")), "{why:?}");
    assert_eq!(read(&mut *log.reader(TOPIC, 0, 0).await.unwrap(), 3).await.len(), 3, "reading goes on");
    assert_eq!(log.bounds(TOPIC, 0).await.unwrap().end, 3, "what is not durable is not shown");
    drop(log);
    let log = EmbeddedLog::open(config).unwrap();
    log.ping().await.expect("reopening is the mend");
    assert!(log.append(TOPIC, 0, vec![record(4)]).await.unwrap().first >= 3);
}

#[tokio::test]
async fn a_write_that_cannot_be_undone_fails_the_partition() {
    let (_dir, config, disk, log) = faulty().await;
    disk.writes.store(1, Ordering::Relaxed);
    disk.truncations.store(1, Ordering::Relaxed);
    log.append(TOPIC, 0, records(50..60)).await.expect_err("the disk is full");
    log.append(TOPIC, 0, vec![record(3)]).await.expect_err("half a write stands in the way");
    drop(log);
    let kept = tokio::task::spawn_blocking(move || contents(&config)).await.unwrap().unwrap();
    assert_eq!(kept, records(0..3), "the torn write is dropped on reopening");
}

#[tokio::test]
async fn a_segment_that_could_not_be_begun_is_no_damage() {
    let (_dir, config, disk, log) = faulty().await;
    drop(log);
    let config = EmbeddedConfig { segment_bytes: 200, ..config };
    let log = write(config.clone(), 3).await;
    disk.creations.store(2, Ordering::Relaxed);
    for n in 6..10 {
        log.append(TOPIC, 0, vec![record(n)]).await.expect("the segment grows on");
    }
    drop(log);
    let kept = tokio::task::spawn_blocking(move || contents(&config)).await.unwrap().unwrap();
    assert_eq!(kept.len(), 10);
}

#[test]
fn an_empty_segment_that_was_overtaken_is_removed() {
    // As a process leaves it that was killed, or could not remove the file either: begun after the second record, or right
    // before a write that was torn.
    for (begun, torn) in [(2, 0), (5, 7), (2, 7)] {
        let (dir, config) = crashed(5, 1 << 20, |logs| {
            let torn = vec![1; torn];
            OpenOptions::new().append(true).open(&logs[0]).unwrap().write_all(&torn).unwrap();
            File::create(logs[0].with_file_name(format!("{begun:020}.log"))).unwrap();
        });
        assert_eq!(contents(&config).unwrap(), records(0..5), "begun at {begun}, {torn} torn bytes");
        assert_eq!(files(dir.path(), "log").len(), 1);
    }
}

#[test]
fn an_empty_segment_where_records_are_missing_is_damage() {
    let (_dir, config) = crashed(5, 1 << 20, |logs| {
        File::create(logs[0].with_file_name(format!("{:020}.log", 6))).unwrap();
    });
    let outcome = contents(&config);
    assert!(matches!(&outcome, Err(Error::Corrupt(m)) if m.contains("starts at 6")), "{outcome:?}");
}

#[tokio::test]
async fn a_segment_that_cannot_be_sealed_grows_to_twice_its_size() {
    let (_dir, config, disk, log) = faulty().await;
    drop(log);
    let config = EmbeddedConfig { segment_bytes: 1000, ..config };
    let log = write(config.clone(), 0).await;
    disk.creations.store(u32::MAX, Ordering::Relaxed);
    let mut appended = 3;
    let refused = loop {
        match log.append(TOPIC, 0, vec![record(appended)]).await {
            Ok(_) => appended += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(&refused, Error::Unavailable(why) if why.contains("t/0")), "{refused:?}");
    assert!(refused.is_retryable(), "{refused:?}");
    let len = fs::metadata(&files(&config.dir, "log")[0]).unwrap().len();
    assert!((2000..2100).contains(&len), "{len} bytes");
    disk.creations.store(0, Ordering::Relaxed);
    assert_eq!(log.append(TOPIC, 0, vec![record(appended)]).await.unwrap().first, appended);
    drop(log);
    let kept = tokio::task::spawn_blocking(move || contents(&config)).await.unwrap().unwrap();
    assert_eq!(kept, records(0..appended + 1));
}

#[tokio::test]
async fn a_bug_in_the_writer_leaves_nobody_waiting() {
    let (_dir, config, disk, log) = faulty().await;
    disk.panics.store(1, Ordering::Relaxed);
    // The second waits behind the first, or comes too late.
    let appends = [3, 4].map(|n| log.append(TOPIC, 0, vec![record(n)]));
    for failed in tokio::time::timeout(PATIENCE, future::join_all(appends)).await.expect("each is answered") {
        assert!(
            matches!(&failed, Err(Error::Io { what, .. }) if what.contains("t/0 panicked")),
            "{failed:?}"
        );
    }
    let why = log.ping().await;
    assert!(matches!(&why, Err(Error::Unavailable(why)) if why.contains("panicked")), "{why:?}");
    assert_eq!(read(&mut *log.reader(TOPIC, 0, 0).await.unwrap(), 3).await.len(), 3, "reading goes on");
    drop(log);
    let log = EmbeddedLog::open(config).unwrap();
    assert_eq!(log.append(TOPIC, 0, vec![record(3)]).await.unwrap().first, 3, "reopening is the mend");
}

#[tokio::test]
async fn a_failed_partition_begins_no_segment() {
    let (_dir, config, disk, log) = faulty().await;
    drop(log);
    let config = EmbeddedConfig { retention_check: Duration::from_millis(10), ..config };
    let log = write(config.clone(), 0).await;
    disk.syncs.store(1, Ordering::Relaxed);
    log.append(TOPIC, 0, vec![record(3)]).await.expect_err("it is not durable");
    // What there is gets too old, which would seal the segment with the unknown in it.
    let limit = Retention { age: Some(Duration::from_millis(1)), bytes: None };
    log.ensure_topics(&[spec(limit)], TopicPolicy::Create).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(log);
    let log = EmbeddedLog::open(config).expect("there is no damage");
    let end = log.bounds(TOPIC, 0).await.unwrap().end;
    assert!((3..=4).contains(&end), "what was acknowledged is there: {end}");
}

#[tokio::test]
async fn a_full_queue() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        disk: Arc::new(Faulty { slow: true, ..Faulty::default() }),
        max_pending_bytes: super::QUEUE_BYTES,
        max_record_bytes: super::QUEUE_BYTES / 2,
        ..EmbeddedConfig::at(dir.path())
    };
    a_full_queue_refuses_and_recovers(Rig::new(Home::Embedded { config, _dir: dir }).await).await;
}
