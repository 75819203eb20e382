//! The side of readers: everything that was accepted, published or not, as of one moment.
//!
//! A reader mirrors the chains and asks the owners for what comes after. An owner drops hot events only after the entry with their
//! segment is there, so a hot part that begins beyond the mirror's end means: read the entries, ask again. So nothing is missing
//! between segments and hot part, and nothing is in both.
//!
//! Files are not looked at until a question fails on one: then [`Reader::isolate`] finds which, and later snapshots leave it out and
//! name it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    ops::Range,
    sync::{Arc, Mutex as Lock, MutexGuard, PoisonError},
    time::Duration,
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::future::join_all;
use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

use crate::{
    damage::look,
    error::{Error, Result},
    hot::HotRead,
    manifest::{Chain, Segment, Span, State},
    segment,
    store::Store,
};

/// So often an owner is asked again because it has published meanwhile. It does so every few seconds at most.
const ATTEMPTS: usize = 4;
/// Files that are opened at a time to see whether they are there.
const OPENED: usize = 32;
/// Files that are read to their ends at a time: each takes a thread, and the memory of a row group.
const VERIFIED: usize = 2;
/// A segment that could not be read is tried again after this: somebody may have put it back.
const ISOLATED_FOR: Duration = Duration::from_secs(60);

/// Where the hot parts of partitions are read: in this process, or from their owners.
#[async_trait]
pub trait HotSource: Send + Sync + Debug {
    /// What a partition's owner has from an offset on.
    ///
    /// # Errors
    /// [`Error::NotOwner`] when there is no owner to be asked, and whatever kept him from answering.
    async fn read(&self, partition: u32, from: u64) -> Result<HotRead>;
}

/// Segments that can't be read, with the problem, and until when that is believed.
pub(crate) type Isolated = HashMap<Uuid, (String, Instant)>;

/// Reads a store.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    hot: Arc<dyn HotSource>,
    /// By partition; `None` until its chain was read once.
    mirrors: Vec<Mutex<Option<Chain>>>,
    isolated: Lock<Isolated>,
    /// Segments that were read to their ends and were sound, and when that began. Locked while others are read.
    sound: Mutex<HashMap<Uuid, Instant>>,
}

/// All events of a project as of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The project.
    pub project: Arc<str>,
    /// Published segments.
    pub segments: Vec<Arc<Segment>>,
    /// Their partitions.
    pub segment_partitions: Vec<u32>,
    /// Events that are in no segment.
    pub hot: Vec<RecordBatch>,
    /// The partition of each batch of them.
    pub hot_partitions: Vec<u32>,
    /// By partition, the offset after the last event that is here.
    pub next_offsets: BTreeMap<u32, u64>,
    /// No event before this moment is expected anymore in any partition that has events; microseconds since the Unix epoch,
    /// `i64::MIN` without events.
    pub watermark_micros: i64,
    /// Events that the log took before this moment are missing, because it had deleted some of them before they were read, in the
    /// partition where that was last so; microseconds since the Unix epoch, `i64::MIN` when all are there.
    pub complete_since_micros: i64,
    /// Partitions of which events are missing here, and why.
    pub stale: Vec<(u32, String)>,
    /// Those of them that no consumer owns yet: in seconds one will.
    pub unassigned: Vec<u32>,
    /// Segments that are left out because they can't be read.
    pub missing: Vec<Missing>,
}

/// A segment that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its partition.
    pub partition: u32,
    /// The object's name.
    pub path: String,
    /// Events in it.
    pub rows: u64,
    /// Earliest and latest time of its events, microseconds since the Unix epoch.
    pub times: Span<i64>,
    /// What is wrong with it and how to mend it.
    pub problem: String,
}

/// A partition's share of a snapshot: the chain, what its owner has beyond, what is missing.
pub(crate) type Share = (u32, Arc<State>, Option<HotRead>, Option<Error>);

impl Reader {
    /// A reader of the partitions below a number.
    pub fn new(store: Store, partitions: u32, hot: Arc<dyn HotSource>) -> Self {
        let mirrors = (0..partitions).map(|_| Mutex::new(None)).collect();
        Self { store, hot, mirrors, isolated: Lock::default(), sound: Mutex::default() }
    }

    /// Everything that was accepted of a project. What can't be asked or read is named in [`Snapshot::stale`] and
    /// [`Snapshot::missing`]; the rest is there.
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
                Err(error) => states.push((partition, Arc::default(), None, Some(error))),
            }
        }
        Ok(Snapshot::of(project, states, &self.isolated()))
    }

    /// Looks whether segments of a snapshot can be read because a question about a range of time, microseconds since the Unix epoch,
    /// could not; those that can't are left out of later snapshots for a minute. Whether there are any: then ask again.
    ///
    /// Files that are gone or have another size are looked for first; then those that may hold events of the range are read and
    /// compared with their checksums, once for all questions that wait for it. What is found counts at once, also when the caller
    /// does not wait for the end, and the next look begins with what this one did not come to.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store does not answer: nothing is known about its segments then.
    pub async fn isolate(&self, snapshot: &Snapshot, range: &Range<i64>) -> Result<bool> {
        let failed = Instant::now();
        let objects = self.store.objects();
        let open = |segment: Arc<Segment>| async move { segment::open(objects, &segment).await.map(drop) };
        look(&snapshot.segments, OPENED, open, |segment, looked| self.note(segment, looked)).await?;
        if self.has_isolated(snapshot) {
            return Ok(true);
        }
        let mut sound = self.sound.lock().await;
        if self.has_isolated(snapshot) {
            return Ok(true);
        }
        let live: HashSet<Uuid> = snapshot.segments.iter().map(|segment| segment.id).collect();
        sound.retain(|id, _| live.contains(id));
        // What was sound before tells nothing about why the question failed, but it is the least likely reason.
        let is_unknown = |segment: &&Arc<Segment>| sound.get(&segment.id).is_none_or(|since| *since < failed);
        let asked = snapshot.segments.iter().filter(|segment| segment.times.meets(range));
        let mut asked: Vec<_> = asked.filter(is_unknown).cloned().collect();
        asked.sort_by_key(|segment| sound.get(&segment.id).copied());
        let since = Instant::now();
        let verify = |segment: Arc<Segment>| async move { self.store.verify(&segment).await };
        let found = |segment: &Segment, looked: Result<()>| {
            sound.extend(looked.is_ok().then_some((segment.id, since)));
            self.note(segment, looked);
        };
        look(&asked, VERIFIED, verify, found).await?;
        Ok(self.has_isolated(snapshot))
    }

    fn has_isolated(&self, snapshot: &Snapshot) -> bool {
        let isolated = self.isolated();
        snapshot.segments.iter().any(|segment| isolated.contains_key(&segment.id))
    }

    fn note(&self, segment: &Segment, looked: Result<()>) {
        let Err(error) = looked else { return };
        tracing::error!(%error, "a segment is left out of answers");
        self.isolated().insert(segment.id, (error.to_string(), Instant::now() + ISOLATED_FOR));
    }

    fn isolated(&self) -> MutexGuard<'_, Isolated> {
        let mut isolated = self.isolated.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        isolated.retain(|_, (_, until)| now < *until);
        isolated
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
                return Ok((partition, state, read.ok(), damage));
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
                    return Ok((partition, state, Some(read), damage));
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
        Ok((partition, state, None, damage.or(trouble)))
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
    pub(crate) fn of(project: &str, shares: Vec<Share>, isolated: &Isolated) -> Self {
        let mut snapshot = Self {
            project: project.into(),
            segments: Vec::new(),
            segment_partitions: Vec::new(),
            hot: Vec::new(),
            hot_partitions: Vec::new(),
            next_offsets: BTreeMap::new(),
            watermark_micros: i64::MIN,
            complete_since_micros: i64::MIN,
            stale: Vec::new(),
            unassigned: Vec::new(),
            missing: Vec::new(),
        };
        let mut watermarks = Vec::new();
        for (partition, state, hot, trouble) in shares {
            for segment in state.of_project(project) {
                match isolated.get(&segment.id) {
                    None => {
                        snapshot.segments.push(Arc::clone(segment));
                        snapshot.segment_partitions.push(partition);
                    }
                    Some((problem, _)) => snapshot.missing.push(Missing {
                        partition,
                        path: segment.path.clone(),
                        rows: segment.rows,
                        times: segment.times,
                        problem: problem.clone(),
                    }),
                }
            }
            let (mut end, mut watermark) = (state.next_offset, state.watermark_micros);
            let mut complete_since = state.complete_since_micros;
            if let Some(hot) = hot {
                let batches = hot.parts.iter().filter_map(|part| part.events.get(project));
                snapshot.hot.extend(batches.cloned());
                snapshot.hot_partitions.resize(snapshot.hot.len(), partition);
                (end, watermark) = (end.max(hot.end), watermark.max(hot.watermark_micros));
                complete_since = complete_since.max(hot.complete_since_micros);
            }
            snapshot.next_offsets.insert(partition, end);
            watermarks.push(watermark);
            snapshot.complete_since_micros = snapshot.complete_since_micros.max(complete_since);
            if let Some(trouble) = trouble {
                if matches!(trouble, Error::NotOwner { .. }) {
                    snapshot.unassigned.push(partition);
                }
                snapshot.stale.push((partition, trouble.to_string()));
            }
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
}
