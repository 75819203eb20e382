//! What a process does, at random: everything that changes files, with restarts, kills and faults of the disk in between.

use std::{path::Path, sync::Arc};

use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use weir_log::EventLog;
use weir_store::EventStore;
use weir_tests::power::{Fault, Recorder, Trace};

use crate::{
    history::{Ack, At, Begun, History},
    system::{EVENTS, Failure, System, TOPICS, USERS, age, record, time_of},
};

/// A process, its disk, and what it was told.
#[derive(Debug)]
pub(crate) struct Workload {
    dir: TempDir,
    pub(crate) disk: Arc<Recorder>,
    pub(crate) system: Option<System>,
    pub(crate) history: History,
    rng: StdRng,
}

/// A directory in memory, where there is one: nothing here is lost when the machine's power is cut.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl Workload {
    pub(crate) fn new(seed: u64) -> Self {
        let dir = scratch();
        let disk = Arc::new(Recorder::new(dir.path()).unwrap());
        Self { dir, disk, system: None, history: History::default(), rng: StdRng::seed_from_u64(seed) }
    }

    /// Does so many things, and ends with a process that is well.
    pub(crate) async fn run(mut self, steps: usize) -> (Trace, History) {
        self.start().await.unwrap();
        for _ in 0..steps {
            self.step().await;
        }
        self.until_well().await;
        self.append_and_consume().await.unwrap();
        self.system = None;
        self.disk.check_complete(&["lock"]).unwrap();
        (self.disk.trace(), self.history)
    }

    async fn step(&mut self) {
        let (kind, reach) = (self.rng.random_range(0..24), self.rng.random_range(1..40));
        let calls = self.disk.calls();
        match kind {
            0 => self.restart().await.unwrap(),
            // A process that dies at any operation; the power stays on.
            1 | 2 => {
                self.disk.fail(calls + reach..usize::MAX, Fault::Killed);
                self.some().await;
                self.stop();
                self.disk.heal();
                self.start().await.unwrap();
            }
            3 | 4 => {
                self.disk.fail(calls + reach / 4..calls + reach, Fault::NoSpace);
                self.some().await;
            }
            5 | 6 => {
                self.disk.fail(calls + reach / 4..calls + reach / 4 + 2, Fault::SyncFails);
                self.some().await;
            }
            7 => {
                self.disk.fail(calls..calls + reach, Fault::RemoveFails);
                self.some().await;
            }
            _ => {
                self.any().await.unwrap();
            }
        }
        if kind < 8 {
            self.until_well().await;
        }
    }

    /// A few things that may fail.
    async fn some(&mut self) {
        for _ in 0..3 {
            // That it fails is what is wanted.
            let _ = self.any().await;
        }
    }

    async fn any(&mut self) -> Result<(), Failure> {
        match self.rng.random_range(0..12) {
            0..=3 => {
                let topic = TOPICS[self.rng.random_range(0..TOPICS.len())];
                self.append(topic).await
            }
            4..=7 => self.append_and_consume().await,
            8 => {
                self.system().store.compact(0).await?;
                Ok(())
            }
            9 => {
                let user = self.rng.random_range(0..USERS);
                self.begin(Begun::Erasure { user });
                let end = self.system().erase(user).await?;
                self.acknowledge(Ack::Erased { user, end });
                Ok(())
            }
            10 => {
                let before = self.system().store.next_offset(0).await? / 3;
                self.begin(Begun::Retention { before });
                self.system().store.retain(0, time_of(before)).await?;
                let left =
                    self.system().events().await?.into_keys().filter(|offset| *offset < before).collect();
                self.acknowledge(Ack::Retained { before, left });
                Ok(())
            }
            _ => {
                let mut chain = self.system().store.chain(0).await?;
                if chain.state().version > 0 {
                    chain.write_checkpoint().await?;
                }
                age(&self.root().join("store"));
                self.system().store.clean(0).await?;
                Ok(())
            }
        }
    }

    /// Several callers at once, so that they share a sync.
    pub(crate) async fn append(&mut self, topic: &'static str) -> Result<(), Failure> {
        let calls: Vec<Vec<u64>> = (0..self.rng.random_range(1..4))
            .map(|_| {
                let first = self.history.next_number;
                self.history.next_number += self.rng.random_range(1..4);
                (first..self.history.next_number).collect()
            })
            .collect();
        let log = Arc::clone(&self.system().log);
        let appends = calls
            .iter()
            .map(|numbers| log.append(topic, 0, numbers.iter().map(|number| record(*number)).collect()));
        let answers = join_all(appends).await;
        let mut outcome = Ok(());
        for (numbers, answer) in calls.into_iter().zip(answers) {
            match answer {
                Ok(appended) => {
                    for (offset, number) in (appended.first..).zip(numbers) {
                        self.acknowledge(Ack::Appended { topic, offset, number });
                    }
                }
                Err(error) => outcome = Err(error.into()),
            }
        }
        outcome
    }

    pub(crate) async fn append_and_consume(&mut self) -> Result<(), Failure> {
        self.append(EVENTS).await?;
        let end = self.system().consume().await?;
        self.acknowledge(Ack::Stored { end });
        Ok(())
    }

    /// Ends the faults; a process that a failed sync has stopped is started anew.
    async fn until_well(&mut self) {
        self.disk.heal();
        let is_well = match &self.system {
            Some(system) => system.log.ping().await.is_ok(),
            None => false,
        };
        if !is_well {
            self.restart().await.unwrap();
        }
    }

    pub(crate) async fn restart(&mut self) -> Result<(), Failure> {
        self.stop();
        self.start().await
    }

    pub(crate) fn stop(&mut self) {
        self.system = None;
    }

    pub(crate) async fn start(&mut self) -> Result<(), Failure> {
        let system = System::open(&self.root(), self.disk.clone())?;
        self.system = Some(system);
        let identity = self.system().bind().await?;
        self.acknowledge(Ack::Topics);
        self.acknowledge(Ack::Bound { identity });
        Ok(())
    }

    pub(crate) fn system(&self) -> &System {
        self.system.as_ref().expect("a process runs")
    }

    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    fn acknowledge(&mut self, what: Ack) {
        self.history.acks.push(At { position: self.disk.position(), what });
    }

    fn begin(&mut self, what: Begun) {
        self.history.begun.push(At { position: self.disk.position(), what });
    }
}
