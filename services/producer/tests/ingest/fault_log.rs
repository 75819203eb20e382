//! An event log in memory that fails and waits as it is told.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};
use weir_log::{
    Appended, Bounds, Committed, Error, EventLog, GroupMember, Offset, PartitionReader, Record, Result,
    TopicPolicy, TopicSpec,
};

use crate::rig::PARTITIONS;

/// What an append does instead of appending.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Fails as a broker that is away does.
    Unavailable,
    /// Fails as a full queue does.
    QueueFull,
    /// Fails as records that are too large do.
    TooLarge,
    /// Appends once there is a permit for it.
    Wait(Arc<Semaphore>),
    /// Appends once so many appends are under way.
    Together(Arc<tokio::sync::Barrier>),
}

/// Takes the next fault of the append's partition, or appends when there is none.
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    faults: [Mutex<VecDeque<Fault>>; PARTITIONS as usize],
    appended: [Mutex<Vec<Record>>; PARTITIONS as usize],
    calls: AtomicUsize,
    started: Notify,
}

impl FaultLog {
    /// Faults for the next appends to this partition.
    pub(crate) fn fail(&self, partition: u32, faults: impl IntoIterator<Item = Fault>) {
        self.faults[partition as usize].lock().unwrap().extend(faults);
    }

    /// Faults for the next appends to every partition.
    pub(crate) fn fail_all(&self, faults: &[Fault]) {
        (0..PARTITIONS).for_each(|partition| self.fail(partition, faults.iter().cloned()));
    }

    /// Appends that were tried.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Waits until `count` appends were tried.
    pub(crate) async fn tried(&self, count: usize) {
        loop {
            let next = self.started.notified();
            if self.calls() >= count {
                return;
            }
            next.await;
        }
    }

    /// Records in all partitions.
    pub(crate) fn len(&self) -> usize {
        self.appended.iter().map(|partition| partition.lock().unwrap().len()).sum()
    }
}

#[async_trait]
impl EventLog for FaultLog {
    async fn partitions(&self, _: &str) -> Result<u32> {
        Ok(PARTITIONS)
    }

    async fn append(&self, _: &str, partition: u32, records: Vec<Record>) -> Result<Appended> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.started.notify_waiters();
        let fault = self.faults[partition as usize].lock().unwrap().pop_front();
        match fault {
            Some(Fault::Unavailable) => return Err(Error::Unavailable("no broker answers".into())),
            Some(Fault::QueueFull) => return Err(Error::QueueFull { limit: 1 }),
            Some(Fault::TooLarge) => return Err(Error::TooLarge { bytes: 2, limit: 1 }),
            Some(Fault::Wait(until)) => until.acquire().await.unwrap().forget(),
            Some(Fault::Together(barrier)) => {
                barrier.wait().await;
            }
            None => {}
        }
        let mut appended = self.appended[partition as usize].lock().unwrap();
        let first = appended.len() as Offset;
        appended.extend(records);
        Ok(Appended { first, last: appended.len() as Offset - 1 })
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    // A producer has no business with the rest.
    async fn identity(&self) -> Result<String> {
        Err(Error::Closed)
    }
    async fn ensure_topics(&self, _: &[TopicSpec], _: TopicPolicy) -> Result<()> {
        Err(Error::Closed)
    }
    async fn bounds(&self, _: &str, _: u32) -> Result<Bounds> {
        Err(Error::Closed)
    }
    async fn offset_at_time(&self, _: &str, _: u32, _: i64) -> Result<Offset> {
        Err(Error::Closed)
    }
    async fn reader(&self, _: &str, _: u32, _: Offset) -> Result<Box<dyn PartitionReader>> {
        Err(Error::Closed)
    }
    async fn join(&self, _: &str, _: &str) -> Result<Box<dyn GroupMember>> {
        Err(Error::Closed)
    }
    async fn committed(&self, _: &str, _: &str, _: u32) -> Result<Option<Committed>> {
        Err(Error::Closed)
    }
}
