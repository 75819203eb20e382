//! The store of a process.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::ObjectStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use crate::{
    clock,
    compact::{self, Compacted},
    delete_user::{self, Erased},
    error::{Error, Result},
    gc,
    hot::{CleanBatch, Hot, HotRead, Part},
    manifest::{self, Chain, Change, Published, Refusal, Segment},
    objects::{Bucket, Created, Location, Objects, apart},
    passed_over::PassedOver,
    reader::{HotSource, Isolated, Snapshot},
    retain, segment,
    writer::Writer,
};

/// How a store works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it lies.
    pub location: Location,
    /// How long events stay in memory only, at most.
    pub flush_interval: Duration,
    /// Bytes of events in memory that are written at once, without waiting for the interval. For each partition.
    pub flush_bytes: usize,
    /// Bytes of events in memory, of all partitions that this process owns: each has an equal share, is written at half of it, and has no
    /// room beyond it.
    pub max_hot_bytes: usize,
    /// How long events are kept by their time; `None` for ever.
    pub retention: Option<Duration>,
    /// Properties that become columns wherever they occur; frequent ones do by themselves.
    pub columns: Vec<String>,
    /// So many segments of similar size are compacted into one.
    pub compact_files: usize,
    /// What is held of segments while they are compacted, bytes: a row group of each. Two are merged even where they have more.
    pub compaction_bytes: usize,
}

impl Settings {
    /// What Weir's configuration has by default: flushed every 45 s or 16 MB, 64 MB in memory at most, kept for ever, compacted by 16.
    pub fn new(location: Location) -> Self {
        Self {
            location,
            flush_interval: Duration::from_secs(45),
            flush_bytes: 16 << 20,
            max_hot_bytes: 64 << 20,
            retention: None,
            columns: Vec::new(),
            compact_files: 16,
            compaction_bytes: 32 << 20,
        }
    }

    /// Defaults for a local folder.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self::new(Location::Folder(path.into()))
    }

    /// Defaults for a bucket.
    pub fn bucket(bucket: Bucket) -> Self {
        Self::new(Location::Bucket(bucket))
    }
}

/// The event store, as a process sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: Objects,
    settings: Settings,
    /// The hot parts of the partitions that this process owns.
    owned: Mutex<HashMap<u32, Arc<watch::Sender<Hot>>>>,
    /// One compaction at a time bounds what they take of memory and of the machine.
    compacting: Arc<Semaphore>,
}

impl Store {
    /// Opens a store; creates the folder if it is absent.
    ///
    /// # Errors
    /// [`Error::Location`] when it can't be used, also for a bucket whose server ignores `If-None-Match`;
    /// [`Error::Unavailable`] when the bucket does not answer.
    pub async fn open(settings: Settings) -> Result<Self> {
        let objects = Objects::open(&settings.location)?;
        if let Location::Bucket(bucket) = &settings.location {
            probe(&objects, &bucket.name).await?;
        }
        Ok(Self::over(objects, settings))
    }

    /// A store on objects that are open already.
    pub fn over(objects: Objects, settings: Settings) -> Self {
        let (owned, compacting) = (Mutex::default(), Arc::new(Semaphore::new(1)));
        Self(Arc::new(Inner { objects, settings, owned, compacting }))
    }

    /// Ties the store to a log by its identity: to the first that it is told of.
    ///
    /// # Errors
    /// [`Error::OtherLog`] when it is another's, [`Error::Unavailable`].
    pub async fn bind(&self, log: &str) -> Result<()> {
        let objects = self.objects();
        // Whoever bound it may have died before that was durable.
        objects.settle(manifest::FOLDER).await?;
        let mut known = objects.get(manifest::LOG).await?;
        if known.is_none() {
            // Of two that are the first, one is.
            let _either = objects.create(manifest::LOG, log.to_owned().into()).await?;
            known = objects.get(manifest::LOG).await?;
        }
        let known = known.unwrap_or_default();
        if known == log.as_bytes() {
            return Ok(());
        }
        Err(Error::OtherLog {
            place: self.settings().location.to_string(),
            path: manifest::LOG.to_owned(),
            known: String::from_utf8_lossy(&known).into_owned(),
            log: log.to_owned(),
        })
    }

    /// The side of a partition's owner. One that this process had before is no longer asked by readers.
    ///
    /// # Errors
    /// [`Error::Manifest`] when the partition's chain is damaged, [`Error::Unavailable`].
    pub async fn writer(&self, partition: u32, owner: Uuid) -> Result<Writer> {
        Writer::begin(self, partition, owner).await
    }

    /// The objects, for DataFusion to read segments by the paths in the manifest.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        self.0.objects.object_store()
    }

    /// The URL under which to register [`Store::object_store`] with DataFusion.
    pub fn object_store_url(&self) -> ObjectStoreUrl {
        ObjectStoreUrl::parse("weir://events").expect("it has a scheme and a host")
    }

    /// The objects of the store.
    pub fn objects(&self) -> &Objects {
        &self.0.objects
    }

    /// How it works.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// A partition's chain as it is now.
    ///
    /// # Errors
    /// [`Error::Manifest`] when none of it can be read, [`Error::Unavailable`].
    pub async fn chain(&self, partition: u32) -> Result<Chain> {
        Chain::load(&self.0.objects, partition).await
    }

    /// Reads a segment to its end and compares it with its manifest.
    ///
    /// # Errors
    /// [`Error::Segment`] with the difference, [`Error::Unavailable`].
    pub async fn verify(&self, segment: &Segment) -> Result<()> {
        let (objects, segment) = (self.0.objects.clone(), segment.clone());
        apart(async move { segment::verify(&objects, &segment).await }).await
    }

    /// Deletes the files of a partition that nobody needs: removed segments, what crashes left, old manifests. Returns how many those
    /// were. A writer does this by itself.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; what is left is deleted the next time.
    pub async fn clean(&self, partition: u32) -> Result<usize> {
        let mut chain = self.chain(partition).await?;
        gc::run(self.objects(), &mut chain, Uuid::now_v7()).await
    }

    pub(crate) fn own(&self, partition: u32, hot: &Arc<watch::Sender<Hot>>) {
        self.owned().insert(partition, Arc::clone(hot));
    }

    pub(crate) fn disown(&self, partition: u32, hot: &Arc<watch::Sender<Hot>>) {
        let mut owned = self.owned();
        if owned.get(&partition).is_some_and(|owner| Arc::ptr_eq(owner, hot)) {
            owned.remove(&partition);
        }
    }

    fn owned(&self) -> MutexGuard<'_, HashMap<u32, Arc<watch::Sender<Hot>>>> {
        self.0.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes from which on a partition that this process owns has no room.
    pub(crate) fn hot_share(&self) -> usize {
        self.settings().max_hot_bytes / self.owned().len().max(1)
    }

    /// Bytes at which events of a partition are written: some that come meanwhile have room.
    pub(crate) fn flush_bytes(&self) -> usize {
        self.settings().flush_bytes.min(self.hot_share() / 2).max(1)
    }

    /// Since when events are kept, microseconds since the Unix epoch; `None` for ever.
    pub(crate) fn kept_from(&self) -> Option<i64> {
        let kept = self.settings().retention?;
        Some(clock::now_micros().saturating_sub(clock::micros(kept)))
    }

    /// Waits until no other compaction of this process runs.
    pub(crate) async fn turn_to_compact(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.0.compacting).acquire_owned().await.expect("it is never closed")
    }

    /// Writes the segments of some parts, on a thread of its own.
    pub(crate) async fn write_parts(&self, partition: u32, parts: &[Arc<Part>]) -> Result<Vec<Segment>> {
        let mut events: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (project, batch) in parts.iter().flat_map(|part| &part.events) {
            events.entry(Arc::clone(project)).or_default().push(batch.clone());
        }
        let store = self.clone();
        apart(async move {
            segment::write_all(store.objects(), partition, events, &store.settings().columns).await
        })
        .await
    }
}

/// Whether a bucket creates only what is absent.
async fn probe(objects: &Objects, name: &str) -> Result<()> {
    let path = format!("manifest/probe/{}", Uuid::now_v7());
    // A call that is tried again because its answer was lost finds what it has created.
    let (Created::New | Created::Exists) = objects.create(&path, Bytes::from_static(b"{}")).await?;
    let second = objects.create(&path, Bytes::from_static(b"{}")).await?;
    objects.delete(&path).await?;
    match second {
        Created::Exists => Ok(()),
        Created::New => Err(Error::Location {
            place: format!("s3://{name}"),
            problem: "its server ignores `If-None-Match: *`, so two consumers could overwrite each other: use one with conditional writes"
                .to_owned(),
        }),
    }
}

/// What a store of events must offer. [`Store`] does it on Parquet; others may do it in a database.
///
/// A partition's events are appended in the log's order, each range of offsets once; whoever appends has to continue where
/// [`EventStore::next_offset`] says.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// The offset after the last event that is durable.
    async fn next_offset(&self, partition: u32) -> Result<u64>;

    /// Appends a batch and returns when it is durable, with the next offset; that is beyond the batch's end when another process
    /// was faster. What the store has already of the batch is skipped. (A [`Writer`] does this for many small batches.)
    async fn append(&self, partition: u32, owner: Uuid, batch: CleanBatch) -> Result<u64>;

    /// The durable events of a project in the partitions below a number, as they are now.
    async fn scan(&self, project: &str, partitions: u32) -> Result<Snapshot>;

    /// Removes all durable events of a user in a partition. [`Error::NotErased`] when some segments are damaged; all others lose him
    /// nevertheless.
    async fn delete_user(&self, partition: u32, project: &str, user: &str) -> Result<Erased>;

    /// Compacts what is worth it in a partition.
    async fn compact(&self, partition: u32) -> Result<Compacted>;

    /// Drops the segments of a partition whose events are all before a moment (microseconds since the Unix epoch); returns how
    /// many those were.
    async fn retain(&self, partition: u32, from_micros: i64) -> Result<usize>;
}

#[async_trait]
impl EventStore for Store {
    async fn next_offset(&self, partition: u32) -> Result<u64> {
        let chain = self.chain(partition).await?;
        chain.damage().map_or_else(|| Ok(chain.state().next_offset), Err)
    }

    async fn append(&self, partition: u32, owner: Uuid, batch: CleanBatch) -> Result<u64> {
        let mut chain = self.chain(partition).await?;
        loop {
            let start = chain.state().next_offset;
            let mut hot = Hot::new(chain.state());
            hot.push(batch.clone());
            let parts = hot.seal(usize::MAX);
            if parts.is_empty() {
                return Ok(start);
            }
            let segments = self.write_parts(partition, &parts).await?;
            let end = hot.end();
            let change = Change::Append {
                start,
                end,
                watermark_micros: batch.watermark_micros,
                complete_since_micros: hot.complete_since_micros(),
                segments,
            };
            match chain.publish(owner, &change).await? {
                Published::Done => return Ok(end),
                Published::Refused(Refusal::NotNext { .. } | Refusal::Discarded(_)) => {}
                Published::Refused(refusal) => return Err(Error::Refused { partition, refusal }),
            }
        }
    }

    async fn scan(&self, project: &str, partitions: u32) -> Result<Snapshot> {
        let mut states = Vec::new();
        for partition in 0..partitions {
            let chain = self.chain(partition).await?;
            states.push((partition, Arc::clone(chain.state()), None, chain.damage()));
        }
        Ok(Snapshot::of(project, states, &Isolated::new()))
    }

    async fn delete_user(&self, partition: u32, project: &str, user: &str) -> Result<Erased> {
        delete_user::run(self, partition, project, user).await
    }

    async fn compact(&self, partition: u32) -> Result<Compacted> {
        let mut chain = self.chain(partition).await?;
        let writer = Uuid::now_v7();
        let mut fewer = 0;
        let mut passed_over = PassedOver::default();
        let kept_from = self.kept_from();
        while let Some(one) = compact::once(self, &mut chain, writer, kept_from, &mut passed_over).await? {
            fewer += one;
        }
        let passed_over = passed_over.problems().map(str::to_owned).collect();
        Ok(Compacted { fewer, passed_over })
    }

    async fn retain(&self, partition: u32, from_micros: i64) -> Result<usize> {
        let mut chain = self.chain(partition).await?;
        retain::run(&mut chain, Uuid::now_v7(), from_micros).await
    }
}

#[async_trait]
impl HotSource for Store {
    async fn read(&self, partition: u32, from: u64) -> Result<HotRead> {
        let hot = self.owned().get(&partition).cloned().ok_or(Error::NotOwner { partition })?;
        let read = hot.borrow().read(from);
        Ok(read)
    }
}
