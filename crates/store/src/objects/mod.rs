//! Where the store's files lie: a local folder, or a bucket of an S3-compatible server.
//!
//! Both offer what the [manifest](crate::manifest) needs: an object is created only if it is absent, whole or not at all, and is
//! durable when [`Objects::create`] returns. [`folder`] does that for local files, whose file systems need more than a write;
//! buckets do it by themselves (`If-None-Match: *`). Names are relative to the store's root, parts joined by `/`.

mod folder;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, S3ConditionalPut},
    buffered::BufWriter,
    local::LocalFileSystem,
    path::Path as Name,
    prefix::PrefixStore,
};
use parquet::{arrow::async_writer::AsyncFileWriter, errors::ParquetError};
use tokio::{io::AsyncWriteExt, runtime::Handle, sync::oneshot};
use weir_disk::{Disk, RealDisk, Staged};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use folder::Folder;

pub use weir_disk::Created;

/// Where a store lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine; created if absent.
    Folder(PathBuf),
    /// A bucket of an S3-compatible server that honours `If-None-Match: *`.
    Bucket(Bucket),
}

impl std::fmt::Display for Location {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::Folder(path) => path.display().fmt(out),
            Location::Bucket(bucket) => write!(out, "s3://{}/{}", bucket.name, bucket.prefix),
        }
    }
}

/// A bucket. What is `None` is taken from the environment (`AWS_…`) or the machine's role.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What all names in it begin with; empty for the whole bucket.
    pub prefix: String,
    /// URL of the server, when it is not Amazon's.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The access key's public part.
    pub access_key_id: Option<String>,
    /// The access key's secret part.
    pub secret_access_key: Option<String>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, prefix, endpoint, region, .. } = self;
        let mut shown = out.debug_struct("Bucket");
        shown.field("name", name).field("prefix", prefix).field("endpoint", endpoint).field("region", region);
        shown.finish_non_exhaustive()
    }
}

/// How long one call of a bucket is tried again before it counts as failed; callers try on with backoff.
const CALL_RETRY: Duration = Duration::from_secs(20);
/// Bytes of a segment sent at a time to a bucket.
const UPLOAD_PART: usize = 8 << 20;

/// The objects of a store.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    folder: Option<Arc<Folder>>,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, microseconds since the Unix epoch by the clock of the folder or server.
    pub modified_micros: i64,
}

impl Objects {
    /// Opens a folder or bucket.
    ///
    /// # Errors
    /// [`Error::Location`] when the folder can't be made or the bucket's configuration is incomplete. A bucket is not contacted.
    pub fn open(location: &Location) -> Result<Self> {
        match location {
            Location::Folder(path) => Self::on_disk(path, Arc::new(RealDisk)),
            Location::Bucket(bucket) => Ok(Self { store: bucket.open()?, folder: None }),
        }
    }

    /// Opens a folder that is changed through `disk`, creating it if it is absent.
    ///
    /// # Errors
    /// [`Error::Location`] when the folder can't be made.
    pub fn on_disk(path: &std::path::Path, disk: Arc<dyn Disk>) -> Result<Self> {
        let wrong = |problem: String| Error::Location { place: path.display().to_string(), problem };
        let folder = Folder::open(disk, path).map_err(|error| wrong(error.to_string()))?;
        let store =
            LocalFileSystem::new_with_prefix(folder.root()).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { store: Arc::new(store), folder: Some(Arc::new(folder)) })
    }

    /// Uses any object store whose `PutMode::Create` is atomic and durable (the local one's isn't durable).
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, folder: None }
    }

    /// The objects for readers such as DataFusion.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Creates an object only if there is none of that name. It is durable when this returns, also when it existed.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: whether the object was created is then not known.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<Created> {
        let what = || format!("create {path}");
        if let Some((folder, path)) = self.folder(path) {
            let made = blocking(move || folder.create(&path, &bytes)).await;
            return made.map_err(|error| Error::unavailable(what(), error));
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&name(path)?, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(Created::New),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Created::Exists)
            }
            Err(error) => Err(Error::unavailable(what(), error)),
        }
    }

    /// Begins an object that is written in pieces; nothing is seen of it before [`AsyncFileWriter::complete`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the local file can't be begun.
    pub async fn upload(&self, path: &str) -> Result<Upload> {
        let Some((folder, file)) = self.folder(path) else {
            let writer = BufWriter::with_capacity(self.object_store(), name(path)?, UPLOAD_PART);
            return Ok(Upload::to(To::Bucket(Some(writer))));
        };
        let staged = blocking(move || folder.begin(&file)).await;
        let staged = staged.map_err(|error| Error::unavailable(format!("create {path}"), error))?;
        Ok(Upload::to(To::Folder(Some(staged))))
    }

    /// An object's bytes, `None` when there is no such object.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let failed = |error| Error::unavailable(format!("read {path}"), error);
        match self.store.get(&name(path)?).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// XXH3 (64 bit) of an object, 16 hexadecimal digits; `None` when there is no such object.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn checksum(&self, path: &str) -> Result<Option<String>> {
        let failed = |error| Error::unavailable(format!("read {path}"), error);
        let found = match self.store.get(&name(path)?).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(failed)?,
        };
        let mut checksum = Xxh3::new();
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.try_next().await.map_err(failed)? {
            checksum.update(&piece);
        }
        Ok(Some(format!("{:016x}", checksum.digest())))
    }

    /// An object's size in bytes, `None` when there is no such object.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn size(&self, path: &str) -> Result<Option<u64>> {
        match self.store.head(&name(path)?).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::unavailable(format!("look at {path}"), error)),
        }
    }

    /// All objects below a folder, by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list(&self, below: &str) -> Result<Vec<Object>> {
        let found = self.store.list(Some(&name(below)?)).map_ok(|meta| Object {
            path: meta.location.to_string(),
            size: meta.size,
            modified_micros: meta.last_modified.timestamp_micros(),
        });
        let found: Result<Vec<_>, _> = found.try_collect().await;
        let mut found = found.map_err(|error| Error::unavailable(format!("list {below}"), error))?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The folders directly below a folder, by name.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn folders(&self, below: &str) -> Result<BTreeSet<String>> {
        let found = self.store.list_with_delimiter(Some(&name(below)?)).await;
        let found = found.map_err(|error| Error::unavailable(format!("list {below}"), error))?;
        Ok(found.common_prefixes.into_iter().map(String::from).collect())
    }

    /// Deletes an object; one that is gone already is fine.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete(&self, path: &str) -> Result<()> {
        if let Some((folder, name)) = self.folder(path) {
            let removed = blocking(move || folder.remove(&name)).await;
            return removed.map_err(|error| Error::unavailable(format!("delete {path}"), error));
        }
        match self.store.delete(&name(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::unavailable(format!("delete {path}"), error)),
        }
    }

    /// Makes durable what other processes created in a folder, should they have died between creating and settling it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn settle(&self, below: &str) -> Result<()> {
        let Some((folder, name)) = self.folder(below) else { return Ok(()) };
        let settled = blocking(move || folder.settle(&name)).await;
        settled.map_err(|error| Error::unavailable(format!("sync {below}"), error))
    }

    /// Deletes what crashes left of files that were being written, when untouched for `age`. Returns how many those were.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn clean_staging(&self, below: &str, age: Duration) -> Result<usize> {
        let Some((folder, name)) = self.folder(below) else { return Ok(0) };
        let cleaned = blocking(move || folder.clean(&name, age)).await;
        cleaned.map_err(|error| Error::unavailable(format!("clean {below}"), error))
    }

    /// The folder, when it is one, and a name to be used on a thread that may block.
    fn folder(&self, path: &str) -> Option<(Arc<Folder>, String)> {
        Some((Arc::clone(self.folder.as_ref()?), path.to_owned()))
    }
}

impl Bucket {
    fn open(&self) -> Result<Arc<dyn ObjectStore>> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.name)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(RetryConfig { retry_timeout: CALL_RETRY, ..RetryConfig::default() });
        if let Some(endpoint) = &self.endpoint {
            let options = ClientOptions::new().with_allow_http(endpoint.starts_with("http://"));
            builder = builder.with_endpoint(endpoint).with_client_options(options);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(id) = &self.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &self.secret_access_key {
            builder = builder.with_secret_access_key(secret);
        }
        let place = format!("s3://{}/{}", self.name, self.prefix);
        let store = builder.build().map_err(|error| Error::Location { place, problem: error.to_string() })?;
        Ok(match self.prefix.trim_matches('/') {
            "" => Arc::new(store),
            prefix => Arc::new(PrefixStore::new(store, prefix)),
        })
    }
}

/// An object on its way. Dropped before it is complete, it was never there.
///
/// For local files its methods block: to be used on a thread that may.
pub struct Upload {
    to: To,
    checksum: Xxh3,
}

/// `None` once completed, whether that succeeded or not.
enum To {
    Folder(Option<Staged>),
    Bucket(Option<BufWriter>),
}

impl AsyncFileWriter for Upload {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move {
            self.checksum.update(&bytes);
            match &mut self.to {
                To::Folder(staged) => staged.as_mut().expect("not complete yet").write_all(&bytes)?,
                To::Bucket(writer) => {
                    writer.as_mut().expect("not complete yet").put(bytes).await.map_err(external)?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move {
            match &mut self.to {
                To::Folder(staged) => match staged.take().expect("completed once").create()? {
                    Created::New => Ok(()),
                    Created::Exists => Err(ParquetError::General("an object of that name exists".to_owned())),
                },
                To::Bucket(writer) => Ok(writer.take().expect("completed once").shutdown().await?),
            }
        }
        .boxed()
    }
}

impl Upload {
    fn to(to: To) -> Self {
        Self { to, checksum: Xxh3::new() }
    }

    /// XXH3 (64 bit) of what was written so far, 16 hexadecimal digits.
    pub fn checksum(&self) -> String {
        format!("{:016x}", self.checksum.digest())
    }

    /// Gives up: nothing of the object stays.
    pub async fn abort(self) {
        if let To::Bucket(Some(mut writer)) = self.to {
            // The server's rule for unfinished uploads cleans up where this can't.
            let _ = writer.abort().await;
        }
    }
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

fn name(path: &str) -> Result<Name> {
    Name::parse(path).map_err(|error| Error::unavailable(format!("name an object {path}"), error))
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(io::Error::other("the process is shutting down")),
        },
    }
}

/// Runs a future that computes for long, or blocks, on a thread that may. When this is dropped, it is, too, where it waits next.
///
/// # Errors
/// Its own; [`Error::Unavailable`] when the process is shutting down.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let runtime = Handle::current();
    let (wanted, dropped) = oneshot::channel::<Infallible>();
    let work = async move {
        tokio::select! {
            biased;
            _ = dropped => Err(io::Error::other("nobody waits for it")),
            done = work => Ok(done),
        }
    };
    let done = blocking(move || runtime.block_on(work)).await;
    drop(wanted);
    done.map_err(|error| Error::unavailable("go on", error))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_apart_ends_with_whoever_wants_it() {
        let (begin, begun) = oneshot::channel();
        let (held, released) = oneshot::channel::<Infallible>();
        let (_end, ended) = oneshot::channel::<Infallible>();
        let work = apart(async move {
            let _held = held;
            begin.send(()).expect("the test waits for it");
            let _at_the_end_of_the_test = ended.await;
            Ok(())
        });
        let work = tokio::spawn(work);
        begun.await.unwrap();
        work.abort();
        let released = tokio::time::timeout(Duration::from_secs(60), released).await;
        assert!(released.expect("the work ends").is_err());
    }

    #[test]
    fn a_runtime_that_shuts_down_takes_no_work_and_says_so() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let refused = handle.block_on(blocking(|| Ok(()))).unwrap_err();
        assert!(refused.to_string().contains("shutting down"), "{refused}");
    }
}
