//! A partition's writer: one thread that owns the files.
//!
//! Group commit: it takes all that waits, writes it at once, syncs once, and only then answers. What arrives meanwhile is
//! the next group, so the more callers there are the fewer syncs each record costs.
//!
//! Failures: a *write* that fails is cut off again and refused, and the log goes on (a full disk may have room later). The cut is
//! synced: the segment may be sealed next, and a sealed segment with a torn end counts as damaged. A *sync* that fails leaves
//! nobody knowing what is durable, and asking again would get a lie from the page cache: the partition takes no more appends
//! until the log is reopened, which writes what it can read of the last group once more before it syncs. A segment that can't
//! be *sealed* grows on for a while, and then refuses appends until it can. Should a bug end the thread itself, the partition
//! takes no more appends either, and nobody waits for an answer that never comes.
//!
//! Retention removes the oldest segment first and syncs the directory after each: a power cut must not keep an older segment
//! and lose a newer one. A segment that can't be removed stays the next to be removed.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io, mem,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, error, warn};
use weir_disk::Disk;

use super::{
    EmbeddedConfig,
    clock::SET_BACK_MS,
    frame::Encoder,
    index::{Index, Segment},
    partition::{Append, Partition, View},
    segment::{self, CHUNK, index_path, log_path},
};
use crate::{Appended, Error, Offset, Result, Retention};

/// At most this much is written and synced at once, so that a long queue does not need its length again in memory.
const GROUP_BYTES: usize = 8 << 20;

/// The writer of one partition.
#[derive(Debug)]
pub(super) struct Writer {
    partition: Arc<Partition>,
    config: EmbeddedConfig,
    file: File,
    encoder: Encoder,
    next_check: Instant,
    /// Segments that retention has taken out of the view and whose files are still to be removed, rising.
    expired: VecDeque<Offset>,
}

/// Opens a partition's segments, recovering what a crash left: the view of what is durable.
pub(super) fn recover(dir: &Path, name: &str, config: &EmbeddedConfig) -> Result<(View, File)> {
    // What a killed process created may have no durable name yet.
    config.disk.sync_dir(dir).map_err(|e| Error::io(format!("syncing {}", dir.display()), e))?;
    let mut bases = used(dir, name, config)?;
    remove_stray_indexes(&*config.disk, dir, &bases)?;
    let last = match bases.pop() {
        Some(last) => last,
        None => {
            create(&*config.disk, dir, 0)?;
            0
        }
    };
    let mut sealed: Vec<Segment> = Vec::with_capacity(bases.len());
    for &base in &bases {
        let index = segment::open(dir, base, true, config.index_interval_bytes)?.index;
        if !index_path(dir, base).exists() {
            save_index(&*config.disk, dir, &index);
        }
        sealed.push(index.segment);
    }
    let mut opened = segment::open(dir, last, false, config.index_interval_bytes)?;
    // What is in it may be earlier, where the clock was set back.
    if let Some(before) = sealed.last().filter(|_| opened.index.segment.len == 0) {
        opened.index.segment.last_time_ms = before.last_time_ms;
    }
    let active = opened.index.segment;
    for (this, next) in sealed.iter().zip(sealed.iter().skip(1).chain([&active])) {
        if this.next != next.base {
            let why =
                format!("its records end before {}, and the next segment starts at {}", this.next, next.base);
            return Err(segment::corrupt(&log_path(dir, this.base), this.len, &why));
        }
    }

    let path = log_path(dir, last);
    let recovering = |e| Error::io(format!("recovering {}", path.display()), e);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(recovering)?;
    if opened.torn > 0 {
        warn!(
            partition = name,
            file = %path.display(),
            dropped_bytes = opened.torn,
            end = active.next,
            "dropped the torn end of an interrupted, never acknowledged write"
        );
        config.disk.truncate(&file, active.len).map_err(recovering)?;
    }
    // What a killed process wrote may be in the page cache only, and is about to be shown to readers. Its sync may also have failed:
    // then the pages count as clean, and only writing them once more makes the next sync write them.
    rewrite(&*config.disk, &file, opened.synced, active.len).map_err(recovering)?;
    config.disk.sync(&file).map_err(recovering)?;
    Ok((View { sealed, active: opened.index, failed: None }, file))
}

/// Writes a part of a file over itself.
fn rewrite(disk: &dyn Disk, file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut position = from;
    while position < to {
        let bytes = segment::read_at(file, position, CHUNK.min((to - position) as usize))?;
        disk.write(file, &bytes, position)?;
        position += bytes.len() as u64;
    }
    Ok(())
}

/// Removes indexes whose segment retention has removed.
fn remove_stray_indexes(disk: &dyn Disk, dir: &Path, bases: &[Offset]) -> Result<()> {
    for base in segment::list(dir, ".index")? {
        if bases.binary_search(&base).is_err() {
            // It only takes up room.
            let _ = disk.remove(&index_path(dir, base));
        }
    }
    Ok(())
}

/// First offsets of the segments, without those that were begun and never used because beginning them failed half-way: the
/// one before grew on past them.
fn used(dir: &Path, name: &str, config: &EmbeddedConfig) -> Result<Vec<Offset>> {
    let mut used: Vec<Offset> = Vec::new();
    for base in segment::list(dir, ".log")? {
        let path = log_path(dir, base);
        let looking = |e| Error::io(format!("looking at {}", path.display()), e);
        if let Some(&before) = used.last()
            && fs::metadata(&path).map_err(looking)?.len() == 0
        {
            let opened = segment::open(dir, before, false, config.index_interval_bytes)?;
            let end = opened.index.segment.next;
            // A torn write at its very end is also one that came after the failure.
            if end > base || (end == base && opened.torn > 0) {
                warn!(
                    partition = name,
                    file = %path.display(),
                    "removing an empty segment that was never used: beginning it had failed"
                );
                config.disk.remove(&path).map_err(looking)?;
                continue;
            }
        }
        used.push(base);
    }
    Ok(used)
}

impl Writer {
    pub(super) fn new(partition: Arc<Partition>, config: EmbeddedConfig, file: File) -> Self {
        let next_check = Instant::now();
        Self { partition, config, file, encoder: Encoder::default(), next_check, expired: VecDeque::new() }
    }

    /// Works until the partition is stopped.
    pub(super) fn run(mut self) {
        let partition = Arc::clone(&self.partition);
        // Nothing of the writer is used after a panic, and what it shares holds between any two statements.
        if panic::catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            let name = partition.name();
            error!(
                partition = name,
                "the writer panicked; the partition takes no appends until the log is reopened"
            );
            partition.abandon(format!(
                "the writer of partition {name} panicked; it takes no appends until the log is reopened"
            ));
        }
    }

    fn work(&mut self) {
        loop {
            let patience = self.next_check.saturating_duration_since(Instant::now());
            let work = self.partition.work(patience);
            let idle = work.appends.is_empty();
            self.commit_all(work.appends);
            if Instant::now() >= self.next_check {
                self.apply(work.retention, self.config.clock.now_ms());
                self.next_check = Instant::now() + self.config.retention_check;
            }
            if work.stop && idle {
                break;
            }
        }
        let view = self.partition.view();
        if view.failed.is_none() {
            save_index(&*self.config.disk, &self.partition.dir, &view.active);
        }
    }

    fn commit_all(&mut self, appends: Vec<Append>) {
        let mut waiting = appends.into_iter().peekable();
        while waiting.peek().is_some() {
            if let Err(why) = self.roll_if_full() {
                for append in waiting {
                    let _ = append.reply.send(Err(Error::Unavailable(why.clone())));
                }
                return;
            }
            let now_ms = self.config.clock.now_ms();
            self.follow_clock_back(now_ms);
            let active = self.partition.view().active.segment;
            self.encoder.start(active.next, now_ms.max(active.last_time_ms), active.len);
            let mut group = Vec::new();
            while self.encoder.len() < GROUP_BYTES {
                let Some(mut append) = waiting.next() else { break };
                let first = self.encoder.next();
                mem::take(&mut append.records).iter().for_each(|record| self.encoder.push(record));
                group.push((append, Appended { first, last: self.encoder.next() - 1 }));
            }
            let outcome = self.commit(active.len);
            for (append, appended) in group {
                let answer = outcome.as_ref().map(|()| appended).map_err(Failure::to_error);
                // Whoever asked may have gone away; the records stay.
                let _ = append.reply.send(answer);
            }
        }
    }

    /// Where the clock was set back, begins a segment, since append times don't fall within one. Should that fail, they stand still
    /// until it succeeds.
    fn follow_clock_back(&mut self, now_ms: i64) {
        let active = self.partition.view().active.segment;
        if now_ms >= active.last_time_ms.saturating_sub(SET_BACK_MS) {
            return;
        }
        if active.len > 0 && self.roll().is_err() {
            return;
        }
        let mut view = self.partition.view();
        if view.active.segment.len > 0 {
            return;
        }
        view.active.segment.last_time_ms = i64::MIN;
        drop(view);
        warn!(
            partition = self.partition.name(),
            last_append_time_ms = active.last_time_ms,
            now_ms,
            "the clock was set back; append times follow it from a new segment on"
        );
    }

    /// Writes and syncs what was encoded, and shows it to readers.
    fn commit(&mut self, position: u64) -> Result<(), Failure> {
        if let Some(why) = &self.partition.view().failed {
            return Err(Failure { what: why.clone(), kind: io::ErrorKind::Other, os: None });
        }
        let (bytes, frames) = self.encoder.finish();
        if let Err(e) = self.config.disk.write(&self.file, bytes, position) {
            let what = format!(
                "writing to partition {} failed, and nothing of this append was kept",
                self.partition.name()
            );
            warn!(partition = self.partition.name(), error = %e, "a write failed and was undone");
            let undone = self.config.disk.truncate(&self.file, position);
            if let Err(undo) = undone.and_then(|()| self.config.disk.sync(&self.file)) {
                self.fail("undoing a failed write to", &undo);
            }
            return Err(Failure::new(what, &e));
        }
        if let Err(e) = self.config.disk.sync(&self.file) {
            return Err(self.fail("syncing", &e));
        }
        let end = {
            let mut view = self.partition.view();
            for (_, header) in frames {
                view.active.push(header, self.config.index_interval_bytes);
            }
            view.active.segment.next
        };
        self.partition.publish(end);
        Ok(())
    }

    /// Marks the partition as failed until the log is reopened.
    fn fail(&self, doing: &str, e: &io::Error) -> Failure {
        let name = self.partition.name();
        let what =
            format!("{doing} partition {name} failed ({e}); it takes no appends until the log is reopened");
        error!(partition = name, error = %e, "{doing} failed; the partition takes no appends until the log is reopened");
        self.partition.view().failed = Some(what.clone());
        Failure::new(what, e)
    }

    /// Makes sure of room in the active segment. That it can't be sealed is not the append's failure: it just grows on.
    ///
    /// # Errors
    /// Why it can't be sealed, when it has grown enough.
    fn roll_if_full(&mut self) -> Result<(), String> {
        let len = self.partition.view().active.segment.len;
        if len < self.config.segment_bytes {
            return Ok(());
        }
        match self.roll() {
            Err(e) if len >= self.config.overgrown_bytes() => Err(format!(
                "a segment of partition {} has grown to {len} bytes, since the next one can't be begun: {e}",
                self.partition.name()
            )),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Seals the active segment and begins the next. After a failed write or sync nobody knows what is in it: that is for
    /// recovery to find out, which takes only the last segment for one that may be torn.
    fn roll(&mut self) -> Result<()> {
        let dir = &self.partition.dir;
        let next = {
            let view = self.partition.view();
            if view.failed.is_some() {
                return Ok(());
            }
            view.active.segment.next
        };
        let file = create(&*self.config.disk, dir, next).inspect_err(|e| {
            warn!(partition = self.partition.name(), error = %e, "the segment can't be sealed yet");
        })?;
        let mut view = self.partition.view();
        let sealed = mem::replace(&mut view.active, Index::empty(next));
        // Append times don't fall from one segment to the next, unless the clock was set back.
        view.active.segment.last_time_ms = sealed.segment.last_time_ms;
        view.sealed.push(sealed.segment);
        drop(view);
        self.file = file;
        save_index(&*self.config.disk, dir, &sealed);
        Ok(())
    }

    /// Deletes the oldest whole segments that nobody is promised any more.
    fn apply(&mut self, retention: Retention, now_ms: i64) {
        let oldest_kept = retention.age.map(|age| now_ms.saturating_sub(saturating_ms(age)));
        let too_old = |last_time_ms: i64| oldest_kept.is_some_and(|oldest| last_time_ms < oldest);
        // A trickle must not keep its oldest record for ever just because the segment never fills.
        if self.partition.view().active.first_time_ms().is_some_and(too_old) {
            // It was said, and is tried again at the next check.
            let _ = self.roll();
        }
        {
            let mut view = self.partition.view();
            let mut bytes = view.active.segment.len + view.sealed.iter().map(|s| s.len).sum::<u64>();
            let mut drop = 0;
            let times = last_times(&view);
            for (segment, last_time_ms) in view.sealed.iter().zip(times) {
                let too_many = retention.bytes.is_some_and(|limit| bytes - segment.len >= limit);
                if !too_many && !too_old(last_time_ms) {
                    break;
                }
                bytes -= segment.len;
                drop += 1;
            }
            self.expired.extend(view.sealed.drain(..drop).map(|s| s.base));
        }
        while let Some(&base) = self.expired.front() {
            if let Err(e) = delete(&*self.config.disk, &self.partition.dir, base) {
                // Newer ones wait: without this one gone, they would leave a hole.
                warn!(partition = self.partition.name(), base, error = %e, "deleting an expired segment failed; will retry");
                return;
            }
            debug!(partition = self.partition.name(), base, "retention deleted a segment");
            self.expired.pop_front();
        }
    }
}

/// Deletes a segment, durably: the next older one must not outlive it.
fn delete(disk: &dyn Disk, dir: &Path, base: Offset) -> io::Result<()> {
    // Without its index a segment can be read, so that goes first.
    remove(disk, &index_path(dir, base))?;
    remove(disk, &log_path(dir, base))?;
    disk.sync_dir(dir)
}

/// Removes a file; one that is gone is fine.
fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// When the sealed segments were appended to last. A segment from when the clock was ahead is older than its append times say, and
/// older than what follows it.
fn last_times(view: &View) -> Vec<i64> {
    let active = Some(view.active.segment).filter(|active| active.len > 0);
    let mut later = active.map_or(i64::MAX, |active| active.last_time_ms);
    let mut times: Vec<i64> = Vec::with_capacity(view.sealed.len());
    for segment in view.sealed.iter().rev() {
        later = later.min(segment.last_time_ms);
        times.push(later);
    }
    times.reverse();
    times
}

/// One failure, told to every append of a group.
#[derive(Debug)]
struct Failure {
    what: String,
    kind: io::ErrorKind,
    os: Option<i32>,
}

impl Failure {
    fn new(what: String, e: &io::Error) -> Self {
        Self { what, kind: e.kind(), os: e.raw_os_error() }
    }

    fn to_error(&self) -> Error {
        let source = self.os.map_or_else(|| io::Error::from(self.kind), io::Error::from_raw_os_error);
        Error::io(self.what.clone(), source)
    }
}

/// Creates an empty segment, durably, or none at all: left behind, it would stand in the way of what its predecessor grows on to.
fn create(disk: &dyn Disk, dir: &Path, base: Offset) -> Result<File> {
    let path = log_path(dir, base);
    let begin = || {
        // An earlier attempt may have left one. Its name may not be durable; that of a new file is synced.
        if fs::metadata(&path).is_ok_and(|found| found.len() == 0) {
            remove(disk, &path)?;
        }
        let file = disk.create(&path)?;
        disk.sync_dir(dir)?;
        Ok(file)
    };
    begin().map_err(|e: io::Error| {
        if e.kind() != io::ErrorKind::AlreadyExists {
            // Should that fail too, recovery sees what it is.
            let _ = disk.remove(&path);
        }
        Error::io(format!("creating {}", path.display()), e)
    })
}

/// Writes an index. It only saves time, so it is not synced, and a failure is not worth more than a word.
fn save_index(disk: &dyn Disk, dir: &Path, index: &Index) {
    let path = index_path(dir, index.segment.base);
    let save = || {
        remove(disk, &path)?;
        let file = disk.create(&path)?;
        disk.write(&file, &index.encode(), 0)
    };
    if let Err(e) = save() {
        debug!(file = %path.display(), error = %e, "the index can't be written; it will be rebuilt");
    }
}

pub(super) fn saturating_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
