//! Committed positions: one small file, replaced as a whole.
//!
//! Positions are hints and a measure of lag, so a commit does not wait for the disk: a thread writes them at most once a
//! second, and when a member leaves or the log closes.

use std::{
    collections::BTreeMap,
    fs, io, mem,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tracing::warn;
use weir_disk::Disk;

use super::directory::replace;
use crate::{Committed, Error, Offset, Result, sync::locked};

/// How long a committed position may be known to this process only.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// group → topic → partition → position.
type Table = BTreeMap<String, BTreeMap<String, BTreeMap<u32, Position>>>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Position {
    position: Offset,
    metadata: String,
}

/// The committed positions of all groups.
#[derive(Debug)]
pub(super) struct Positions {
    disk: Arc<dyn Disk>,
    file: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while the file is written, so that an older state never replaces a newer one.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    table: Table,
    dirty: bool,
    stop: bool,
}

impl Positions {
    /// Reads the file, if there is one, and starts the thread that writes it.
    pub(super) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(Arc<Self>, JoinHandle<()>)> {
        let file = dir.join("positions.json");
        let table = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::Corrupt(format!("{}: {e}; delete it to let groups start over", file.display()))
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Table::new(),
            Err(e) => return Err(Error::io(format!("reading {}", file.display()), e)),
        };
        let state = Mutex::new(State { table, dirty: false, stop: false });
        let (disk, changed, writing) = (Arc::clone(disk), Condvar::new(), Mutex::new(()));
        let positions = Arc::new(Self { disk, file, state, changed, writing });
        let writer = Arc::clone(&positions);
        let thread = thread::Builder::new()
            .name("log positions".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| Error::io("starting a thread".to_owned(), e))?;
        Ok((positions, thread))
    }

    pub(super) fn get(&self, group: &str, topic: &str, partition: u32) -> Option<Committed> {
        let state = locked(&self.state);
        let found = state.table.get(group)?.get(topic)?.get(&partition)?;
        Some(Committed { position: found.position, metadata: found.metadata.clone() })
    }

    pub(super) fn set(&self, group: &str, topic: &str, partition: u32, committed: Committed) {
        let mut state = locked(&self.state);
        let of_group = state.table.entry(group.to_owned()).or_default();
        let Committed { position, metadata } = committed;
        of_group.entry(topic.to_owned()).or_default().insert(partition, Position { position, metadata });
        if !mem::replace(&mut state.dirty, true) {
            self.changed.notify_one();
        }
    }

    /// Writes what has changed. Blocks.
    pub(super) fn flush(&self) -> Result<()> {
        let _writing = locked(&self.writing);
        let bytes = {
            let mut state = locked(&self.state);
            if !mem::take(&mut state.dirty) {
                return Ok(());
            }
            serde_json::to_vec_pretty(&state.table).expect("string keys and plain values make JSON")
        };
        replace(&self.disk, &self.file, &bytes).inspect_err(|_| locked(&self.state).dirty = true)
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        locked(&self.state).stop = true;
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut state = locked(&self.state);
        loop {
            let idle = |s: &mut State| !s.dirty && !s.stop;
            state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            // Commits of the next moment go along.
            let collecting = |s: &mut State| !s.stop;
            let waited = self.changed.wait_timeout_while(state, FLUSH_EVERY, collecting);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let stop = state.stop;
            drop(state);
            if let Err(e) = self.flush() {
                warn!(error = %e, "committed positions can't be written; trying again");
            }
            if stop {
                return;
            }
            state = locked(&self.state);
        }
    }
}
