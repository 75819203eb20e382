//! A partition as its users see it: a bounded queue towards the writer thread, and a view of what is durable.
//!
//! The writer (`writer.rs`) alone touches the files. It publishes what is durable in the [`View`], then moves the
//! [`Tail`], which wakes readers, then answers the appends.

use std::{
    fs, io, mem,
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use super::{
    index::{Index, Segment},
    segment,
};
use crate::{
    Appended, Bounds, Error, Offset, Record, Result, Retention,
    sync::{Room, locked},
};

/// One partition of a topic.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) number: u32,
    pub(super) dir: PathBuf,
    queue: Mutex<Queue>,
    /// Wakes the writer.
    arrived: Condvar,
    view: Mutex<View>,
    tail: watch::Sender<Tail>,
}

/// What waits for the writer.
#[derive(Debug)]
struct Queue {
    appends: Vec<Append>,
    retention: Retention,
    stop: bool,
}

/// Records on their way, and who waits for them.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) records: Vec<Record>,
    pub(super) reply: oneshot::Sender<Result<Appended>>,
    /// Gives the room in the queue back when the append is over.
    pub(super) _room: Room,
}

/// What the writer is to do next.
pub(super) struct Work {
    pub(super) appends: Vec<Append>,
    pub(super) retention: Retention,
    pub(super) stop: bool,
}

/// What is durable, by segment.
#[derive(Debug)]
pub(super) struct View {
    /// Whole segments, rising. Their indexes are on disk.
    pub(super) sealed: Vec<Segment>,
    /// The segment being written.
    pub(super) active: Index,
    /// Why the partition takes no more appends.
    pub(super) failed: Option<String>,
}

/// Where the durable records end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) end: Offset,
    pub(super) closed: bool,
}

/// A segment that holds an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located {
    pub(super) base: Offset,
    /// Durable bytes.
    pub(super) len: u64,
}

impl View {
    pub(super) fn bounds(&self) -> Bounds {
        let start = self.sealed.first().map_or(self.active.segment.base, |s| s.base);
        Bounds { start, end: self.active.segment.next }
    }

    /// The segment that holds `offset`, or will; `None` below the start and above the end.
    fn locate(&self, offset: Offset) -> Option<Located> {
        let Bounds { start, end } = self.bounds();
        if offset < start || offset > end {
            return None;
        }
        let active = &self.active.segment;
        let segment = if offset >= active.base {
            active
        } else {
            &self.sealed[self.sealed.partition_point(|s| s.next <= offset)]
        };
        Some(Located { base: segment.base, len: segment.len })
    }
}

impl Partition {
    pub(super) fn new(topic: String, number: u32, dir: PathBuf, retention: Retention, view: View) -> Self {
        let tail = Tail { end: view.bounds().end, closed: false };
        Self {
            topic,
            number,
            dir,
            queue: Mutex::new(Queue { appends: Vec::new(), retention, stop: false }),
            arrived: Condvar::new(),
            view: Mutex::new(view),
            tail: watch::Sender::new(tail),
        }
    }

    /// `topic/number`, for messages.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.topic, self.number)
    }

    /// Hands records to the writer.
    pub(super) fn enqueue(
        &self,
        records: Vec<Record>,
        room: Room,
    ) -> Result<oneshot::Receiver<Result<Appended>>> {
        let (reply, answer) = oneshot::channel();
        let mut queue = locked(&self.queue);
        if queue.stop {
            return Err(self.gone());
        }
        queue.appends.push(Append { records, reply, _room: room });
        // The writer takes all there is: it needs to be woken for the first only.
        if queue.appends.len() == 1 {
            self.arrived.notify_one();
        }
        Ok(answer)
    }

    /// Waits for appends, or the end, for at most `patience`.
    pub(super) fn work(&self, patience: Duration) -> Work {
        let idle = |q: &mut Queue| q.appends.is_empty() && !q.stop;
        let waited = self.arrived.wait_timeout_while(locked(&self.queue), patience, idle);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Work { appends: mem::take(&mut queue.appends), retention: queue.retention, stop: queue.stop }
    }

    /// Says what the writer may delete from now on.
    pub(super) fn retain(&self, retention: Retention) {
        locked(&self.queue).retention = retention;
    }

    /// Takes no more appends; the writer completes those that wait.
    pub(super) fn stop(&self) {
        locked(&self.queue).stop = true;
        self.arrived.notify_one();
    }

    /// Goes on without a writer: takes no more appends, and lets those go that wait for it. What is durable can still be read.
    pub(super) fn abandon(&self, why: String) {
        self.view().failed = Some(why);
        let mut queue = locked(&self.queue);
        queue.stop = true;
        queue.appends.clear();
        drop(queue);
        // Wakes those who look at the failure.
        self.tail.send_modify(|_| {});
    }

    /// Why there is nobody any more to append.
    pub(super) fn gone(&self) -> Error {
        let failed = self.view().failed.clone();
        failed.map_or(Error::Closed, |why| Error::io(why, io::ErrorKind::Other.into()))
    }

    /// The same for an append that the writer let go of: it is about to be abandoned, and the reason known.
    pub(super) async fn gone_after_all(&self) -> Error {
        let _ = self.watch().wait_for(|tail| tail.closed || self.view().failed.is_some()).await;
        self.gone()
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        locked(&self.view)
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.view().bounds()
    }

    /// The segment that holds `offset`, or will.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub(super) fn locate(&self, offset: Offset) -> Result<Located> {
        let located = self.view().locate(offset);
        located.ok_or_else(|| self.out_of_range(offset))
    }

    /// Lets readers know of a new end.
    pub(super) fn publish(&self, end: Offset) {
        self.tail.send_modify(|tail| tail.end = end);
    }

    /// Lets readers know that nothing will follow.
    pub(super) fn publish_closed(&self) {
        self.tail.send_modify(|tail| tail.closed = true);
    }

    pub(super) fn watch(&self) -> watch::Receiver<Tail> {
        self.tail.subscribe()
    }

    pub(super) fn out_of_range(&self, offset: Offset) -> Error {
        let Bounds { start, end } = self.bounds();
        Error::OutOfRange { topic: self.topic.clone(), partition: self.number, offset, start, end }
    }

    /// The index of the segment at `base`, from the writer or from disk; `None` when it is not there. Blocks.
    pub(super) fn index(&self, base: Offset) -> Option<Index> {
        {
            let view = self.view();
            if view.active.segment.base == base {
                return Some(view.active.clone());
            }
        }
        let bytes = fs::read(segment::index_path(&self.dir, base)).ok()?;
        Index::decode(&bytes).filter(|index| index.segment.base == base)
    }
}
