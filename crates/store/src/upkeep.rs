//! What is done for a partition behind its writer: deleting files that nobody needs, retention, compaction, checkpoints.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use uuid::Uuid;

use crate::{
    compact,
    error::{Error, Result},
    gc,
    hot::Hot,
    manifest::Chain,
    passed_over::PassedOver,
    retain,
    store::Store,
    writer::Progress,
};

/// A round begins after each flush, and at least so often: others may have added to the chain.
const INTERVAL: Duration = Duration::from_secs(60);
/// Files are listed so often for ones that nobody needs.
const GC_INTERVAL: Duration = Duration::from_secs(300);

pub(crate) struct Upkeep {
    store: Store,
    owner: Uuid,
    chain: Chain,
    hot: Arc<watch::Sender<Hot>>,
    reports: Arc<watch::Sender<Progress>>,
    /// Segments that can't be read or merged; compaction goes on without them.
    passed_over: PassedOver,
    next_gc: Instant,
}

/// However it ends: whoever still looks learns that segments are not tended anymore.
impl Drop for Upkeep {
    fn drop(&mut self) {
        let trouble = Error::Stopped { partition: self.chain.partition() }.to_string();
        self.reports.send_modify(|progress| progress.upkeep_trouble = Some(trouble));
    }
}

impl Upkeep {
    pub(crate) fn new(
        store: &Store,
        owner: Uuid,
        chain: Chain,
        hot: Arc<watch::Sender<Hot>>,
        reports: Arc<watch::Sender<Progress>>,
    ) -> Self {
        let (store, passed_over, next_gc) = (store.clone(), PassedOver::default(), Instant::now());
        Self { store, owner, chain, hot, reports, passed_over, next_gc }
    }

    pub(crate) async fn run(mut self, wake: Arc<Notify>) -> Error {
        loop {
            // Woken or not, it is time.
            let _ = timeout(INTERVAL, wake.notified()).await;
            let tended = self.round().await;
            if let Err(error) = &tended {
                tracing::warn!(partition = self.chain.partition(), %error, "segments can't be tended; trying again");
            }
            let trouble = tended.err().map(|error| error.to_string()).or_else(|| self.passed_over.trouble());
            self.reports.send_if_modified(|progress| {
                let news = progress.upkeep_trouble != trouble;
                progress.upkeep_trouble = trouble;
                news
            });
        }
    }

    /// Does each thing whether or not another fails; the first failure is told. Deleting comes first: on a full disk all else needs
    /// the room that it makes.
    async fn round(&mut self) -> Result<()> {
        let kept_from = self.store.kept_from();
        let deleted = self.delete().await;
        let retained = match kept_from {
            Some(from) => retain::run(&mut self.chain, self.owner, from).await.map(drop),
            None => Ok(()),
        };
        let compacted = self.compact(kept_from).await;
        // Readers learn that there are newer manifests.
        let version = self.chain.state().version;
        self.hot.send_modify(|hot| hot.published(0, i64::MIN, version));
        let checkpointed = self.chain.checkpoint_if_due().await;
        [deleted, retained, compacted, checkpointed].into_iter().collect()
    }

    async fn delete(&mut self) -> Result<()> {
        if Instant::now() >= self.next_gc {
            gc::run(self.store.objects(), &mut self.chain, self.owner).await?;
            self.next_gc = Instant::now() + GC_INTERVAL;
        }
        Ok(())
    }

    async fn compact(&mut self, kept_from: Option<i64>) -> Result<()> {
        let Self { store, chain, owner, passed_over, .. } = self;
        while compact::once(store, chain, *owner, kept_from, passed_over).await?.is_some() {}
        Ok(())
    }
}
