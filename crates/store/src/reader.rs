//! The side of readers: everything that was accepted, published or not, as of one moment.
//!
//! A reader mirrors the chains and asks the owners for what comes after. An owner drops hot events only after the entry with their
//! segment is there, so a hot part that begins beyond the mirror's end means: read the entries, ask again. So nothing is missing
//! between segments and hot part, and nothing is in both.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{StreamExt, future::join_all, stream};
use tokio::sync::Mutex;

use crate::{
    error::{Error, Result},
    hot::HotRead,
    manifest::{Chain, Segment, State},
    store::Store,
};

/// So often an owner is asked again because it has published meanwhile. It does so every few seconds at most.
const ATTEMPTS: usize = 4;
/// Files that are looked at at a time.
const LOOKS: usize = 32;

/// Where the hot parts of partitions are read: in this process, or from their owners.
#[async_trait]
pub trait HotSource: Send + Sync + Debug {
    /// What a partition's owner has from an offset on.
    ///
    /// # Errors
    /// [`Error::NotOwner`] when there is no owner to be asked, and whatever kept him from answering.
    async fn read(&self, partition: u32, from: u64) -> Result<HotRead>;
}

/// Reads a store.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    hot: Arc<dyn HotSource>,
    /// By partition; `None` until its chain was read once.
    mirrors: Vec<Mutex<Option<Chain>>>,
}

/// All events of a project as of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The project.
    pub project: Arc<str>,
    /// Published segments.
    pub segments: Vec<Arc<Segment>>,
    /// Events that are in no segment.
    pub hot: Vec<RecordBatch>,
    /// By partition, the offset after the last event that is here.
    pub next_offsets: BTreeMap<u32, u64>,
    /// No event before this moment is expected anymore in any partition that has events; microseconds since the Unix epoch,
    /// `i64::MIN` without events.
    pub watermark_micros: i64,
    /// Partitions of which events are missing here, and why.
    pub stale: Vec<(u32, String)>,
}

/// A partition's share of a snapshot: the chain, what its owner has beyond, what is missing.
pub(crate) type Share = (u32, Arc<State>, Option<HotRead>, Option<String>);

impl Reader {
    /// A reader of the partitions below a number.
    pub fn new(store: Store, partitions: u32, hot: Arc<dyn HotSource>) -> Self {
        let mirrors = (0..partitions).map(|_| Mutex::new(None)).collect();
        Self { store, hot, mirrors }
    }

    /// Everything that was accepted of a project. What can't be asked or read is named in [`Snapshot::stale`]; the rest is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Manifest`] when the chains of all partitions can't be read.
    pub async fn snapshot(&self, project: &str) -> Result<Snapshot> {
        let shares = (0..).zip(&self.mirrors).map(|(partition, mirror)| self.share(partition, mirror));
        let shares = join_all(shares).await;
        let failed = shares.iter().all(Result::is_err);
        let mut states = Vec::with_capacity(shares.len());
        for (partition, share) in (0..).zip(shares) {
            match share {
                Ok(share) => states.push(share),
                Err(error) if failed => return Err(error),
                Err(error) => states.push((partition, Arc::default(), None, Some(error.to_string()))),
            }
        }
        Ok(Snapshot::of(project, states))
    }

    async fn share(&self, partition: u32, mirror: &Mutex<Option<Chain>>) -> Result<Share> {
        let (mut state, mut damage) = self.state(partition, mirror, None).await?;
        let mut trouble = None;
        for attempt in 1..=ATTEMPTS {
            let before = state.version;
            let read = self.hot.read(partition, state.next_offset).await;
            if read
                .as_ref()
                .is_ok_and(|read| read.start <= state.next_offset && read.manifest_version <= before)
            {
                return Ok((partition, state, read.ok(), damage.map(|damage| damage.to_string())));
            }
            // The mirror is behind, or all there is.
            match self.state(partition, mirror, Some(before)).await {
                Ok(newer) => (state, damage) = newer,
                Err(error) => trouble = Some(error),
            }
            match read {
                Ok(_) if state.version > before && attempt < ATTEMPTS => {}
                // What is newer in the manifest is another's work, and this still fits.
                Ok(read) if read.start <= state.next_offset => {
                    let read = read.beyond(state.next_offset);
                    return Ok((partition, state, Some(read), damage.map(|damage| damage.to_string())));
                }
                Ok(read) => {
                    let outrun = Error::Outrun { partition, start: read.start, end: state.next_offset };
                    trouble = Some(trouble.unwrap_or(outrun));
                    break;
                }
                Err(error) => {
                    trouble = Some(error);
                    break;
                }
            }
        }
        let trouble = damage.or(trouble).map(|trouble| trouble.to_string());
        Ok((partition, state, None, trouble))
    }

    /// The mirror's state, brought up to date where it is not newer than `known`, and the manifest because of which it ends early.
    async fn state(
        &self,
        partition: u32,
        mirror: &Mutex<Option<Chain>>,
        known: Option<u64>,
    ) -> Result<(Arc<State>, Option<Error>)> {
        let mut mirror = mirror.lock().await;
        let chain = match &mut *mirror {
            Some(chain) => {
                if known.is_some_and(|known| chain.state().version <= known) {
                    chain.follow().await?;
                }
                chain
            }
            empty => empty.insert(self.store.chain(partition).await?),
        };
        Ok((Arc::clone(chain.state()), chain.damage()))
    }
}

impl Snapshot {
    pub(crate) fn of(project: &str, shares: Vec<Share>) -> Self {
        let mut snapshot = Self {
            project: project.into(),
            segments: Vec::new(),
            hot: Vec::new(),
            next_offsets: BTreeMap::new(),
            watermark_micros: i64::MIN,
            stale: Vec::new(),
        };
        let mut watermarks = Vec::new();
        for (partition, state, hot, trouble) in shares {
            snapshot.segments.extend(state.of_project(project).cloned());
            let (mut end, mut watermark) = (state.next_offset, state.watermark_micros);
            if let Some(hot) = hot {
                let batches = hot.parts.iter().filter_map(|part| part.events.get(project));
                snapshot.hot.extend(batches.cloned());
                (end, watermark) = (end.max(hot.end), watermark.max(hot.watermark_micros));
            }
            snapshot.next_offsets.insert(partition, end);
            watermarks.push(watermark);
            snapshot.stale.extend(trouble.map(|trouble| (partition, trouble)));
        }
        let known = watermarks.into_iter().filter(|watermark| *watermark != i64::MIN);
        snapshot.watermark_micros = known.min().unwrap_or(i64::MIN);
        snapshot
    }

    /// Events in it.
    pub fn rows(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.rows).sum::<u64>();
        segments + self.hot.iter().map(|batch| batch.num_rows() as u64).sum::<u64>()
    }

    /// The segments whose file is gone or has another size, and why: what a query that failed can be asked again
    /// [without](Snapshot::without).
    pub async fn unreadable(&self, store: &Store) -> Vec<(Arc<Segment>, Error)> {
        let looks = self.segments.iter().map(|segment| async move {
            let opened = crate::segment::open(store.objects(), segment).await;
            opened.err().map(|error| (Arc::clone(segment), error))
        });
        stream::iter(looks).buffered(LOOKS).filter_map(std::future::ready).collect().await
    }

    /// The snapshot without some segments.
    #[must_use]
    pub fn without(mut self, segments: &[Arc<Segment>]) -> Self {
        self.segments.retain(|segment| !segments.iter().any(|other| other.id == segment.id));
        self
    }
}
