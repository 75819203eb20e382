//! Places to store in, and faults.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use uuid::Uuid;
use weir_store::{Bucket, Location, Settings, Store};
use weir_tests::s3;

/// A store of its own for each test.
pub(crate) struct Depot {
    pub(crate) location: Location,
    _folder: Option<TempDir>,
}

/// The places to run a test on.
pub(crate) fn depots() -> Vec<Depot> {
    let folder = tempfile::tempdir().unwrap();
    let local = Depot { location: Location::Folder(folder.path().join("store")), _folder: Some(folder) };
    let bucket = Bucket {
        name: s3::BUCKET.to_owned(),
        prefix: Uuid::now_v7().to_string(),
        endpoint: Some(s3::shared().url().to_owned()),
        region: Some(s3::REGION.to_owned()),
        access_key_id: Some(s3::KEY.to_owned()),
        secret_access_key: Some(s3::KEY.to_owned()),
    };
    vec![local, Depot { location: Location::Bucket(bucket), _folder: None }]
}

impl Depot {
    /// A process's store here.
    pub(crate) async fn store(&self, change: impl FnOnce(&mut Settings)) -> Store {
        let mut settings = Settings::new(self.location.clone());
        change(&mut settings);
        Store::open(settings).await.unwrap()
    }
}

/// An object store with faults.
#[derive(Debug, Default)]
pub(crate) struct Faulty {
    pub(crate) inner: InMemory,
    /// Objects are overwritten where they should be created only if absent.
    pub(crate) unfenced: bool,
    /// The next object is created, but the answer is lost.
    pub(crate) lose_answer: AtomicBool,
    /// Objects below this name can't be created.
    pub(crate) refuse: Mutex<Option<&'static str>>,
    /// The object of this name can't be read.
    pub(crate) unreadable: Mutex<Option<String>>,
    /// Whole objects that were read.
    pub(crate) read: AtomicUsize,
    /// No whole object can be read while there are permits for none.
    pub(crate) reading: Mutex<Option<Arc<Semaphore>>>,
    /// Creating an object panics, as a bug in writing would.
    pub(crate) poisoned: AtomicBool,
}

impl Faulty {
    pub(crate) fn spoil(&self, path: &str) {
        *self.unreadable.lock().unwrap() = Some(path.to_owned());
    }

    pub(crate) fn refuse(&self, below: Option<&'static str>) {
        *self.refuse.lock().unwrap() = below;
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("faulty")
    }
}

fn broken(what: &str) -> Error {
    Error::Generic { store: "faulty", source: what.into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        assert!(!self.poisoned.load(Ordering::SeqCst), "a planted bug");
        if self.refuse.lock().unwrap().is_some_and(|below| at.as_ref().starts_with(below)) {
            return Err(broken("the disk is full"));
        }
        if self.unfenced {
            options.mode = PutMode::Overwrite;
        }
        let put = self.inner.put_opts(at, payload, options).await?;
        if self.lose_answer.swap(false, Ordering::SeqCst) {
            return Err(broken("the connection was lost"));
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if self.unreadable.lock().unwrap().as_deref() == Some(at.as_ref()) {
            return Err(broken("the disk has lost a sector"));
        }
        if at.as_ref().ends_with(".parquet") && options.range.is_none() && !options.head {
            self.read.fetch_add(1, Ordering::SeqCst);
            let reading = self.reading.lock().unwrap().clone();
            if let Some(reading) = reading {
                reading.acquire().await.expect("it is never closed").forget();
            }
        }
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, below: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(below)
    }

    async fn list_with_delimiter(&self, below: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(below).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store with faults.
pub(crate) fn faulty(change: impl FnOnce(&mut Settings)) -> (Arc<Faulty>, Store) {
    let faults = Arc::new(Faulty::default());
    let objects = weir_store::Objects::over(Arc::clone(&faults) as Arc<dyn ObjectStore>);
    let mut settings = Settings::folder("unused");
    change(&mut settings);
    (faults, Store::over(objects, settings))
}
