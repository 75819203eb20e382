//! Membership in the consumer group: partitions come and go, each with its thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use weir_log::{GroupMember, Membership};
use weir_runtime::Shutdown;

use crate::{
    Shared,
    error::Error,
    partition::{Backoff, News, Order, Owned, Report, View},
};

/// What a partition's thread shows, for each that is owned.
pub(crate) type Views = BTreeMap<u32, watch::Receiver<View>>;

/// How much longer than the drain timeout the threads may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Takes part in the group until the shutdown is requested; then gives everything up in order. While the log is away it waits.
///
/// # Errors
/// When the topics do not fit, which waiting does not change.
pub(crate) async fn take_part(
    shared: Arc<Shared>,
    shutdown: Shutdown,
    views: watch::Sender<Views>,
) -> Result<(), Error> {
    let mut backoff = Backoff::default();
    loop {
        let joined = tokio::select! {
            () = shutdown.requested() => return Ok(()),
            joined = join(&shared) => joined,
        };
        let ended = match joined {
            Ok(member) => {
                backoff = Backoff::default();
                let (reporting, reports) = mpsc::unbounded_channel();
                let part = Part {
                    shared: &shared,
                    member,
                    views: &views,
                    owned: BTreeMap::new(),
                    releasing: BTreeSet::new(),
                    reporting,
                    reports,
                    next_assignment: 0,
                };
                part.play(&shutdown).await.map(Error::from)
            }
            Err(Error::Log(error)) if error.is_retryable() => Some(error.into()),
            Err(error) => return Err(error),
        };
        let Some(error) = ended else { return Ok(()) };
        shared.meters.error("group");
        tracing::warn!(group = shared.settings.group, %error, "not in the consumer group; joining again");
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            () = backoff.pause() => {}
        }
    }
}

/// Joins, once it is certain that both topics have the same partitions: results are kept partition by partition.
async fn join(shared: &Shared) -> Result<Box<dyn GroupMember>, Error> {
    let Shared { log, settings, .. } = shared;
    let of_events = log.partitions(&settings.events).await?;
    let of_metrics = log.partitions(&settings.metrics).await?;
    if of_events != of_metrics {
        let (events, metrics) = (settings.events.clone(), settings.metrics.clone());
        return Err(Error::Partitions { events, of_events, metrics, of_metrics });
    }
    Ok(log.join(&settings.events, &settings.group).await?)
}

/// One membership.
struct Part<'a> {
    shared: &'a Arc<Shared>,
    member: Box<dyn GroupMember>,
    views: &'a watch::Sender<Views>,
    owned: BTreeMap<u32, Owned>,
    /// Asked back and not given up yet.
    releasing: BTreeSet<u32>,
    reporting: mpsc::UnboundedSender<Report>,
    /// Unbounded, for it must not make a thread wait, but a partition has at most one commit a second to report.
    reports: mpsc::UnboundedReceiver<Report>,
    next_assignment: u64,
}

impl Part<'_> {
    /// Returns when the shutdown was requested and everything is given up; or with the error that ended the membership.
    async fn play(mut self, shutdown: &Shutdown) -> Option<weir_log::Error> {
        let ended = loop {
            tokio::select! {
                () = shutdown.requested() => break None,
                change = self.member.next() => match change {
                    Ok(change) => self.change(change),
                    Err(error) => break Some(error),
                },
                Some(report) = self.reports.recv() => self.hear(report),
            }
        };
        // Without the membership nothing may be committed, and others may own the partitions already.
        let order = if ended.is_some() { Order::Drop } else { Order::Drain };
        let all: Vec<u32> = self.owned.keys().copied().collect();
        self.order(&all, order);
        let deadline = tokio::time::Instant::now() + self.shared.settings.drain_timeout + GRACE;
        while !self.owned.is_empty() {
            match tokio::time::timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(report)) => self.hear_last(report),
                Ok(None) | Err(_) => {
                    tracing::warn!(partitions = ?self.owned.keys(), "partitions did not end in time");
                    break;
                }
            }
        }
        all.into_iter().for_each(|partition| self.forget(partition));
        if let Err(error) = self.member.leave().await {
            tracing::warn!(%error, "leaving the consumer group failed");
        }
        ended
    }

    fn change(&mut self, change: Membership) {
        match change {
            Membership::Assigned(partitions) => {
                tracing::info!(?partitions, "partitions assigned");
                partitions.into_iter().for_each(|partition| self.start(partition));
            }
            Membership::Revoked(partitions) => {
                tracing::info!(?partitions, "partitions asked back");
                self.releasing.extend(partitions.iter().copied());
                self.order(&partitions, Order::Drain);
                self.release_if_ended();
            }
            Membership::Lost(partitions) => {
                tracing::warn!(?partitions, "partitions lost");
                self.order(&partitions, Order::Drop);
                // Dropped right here, so that nothing of theirs is committed any more.
                for partition in partitions {
                    self.forget(partition);
                }
                self.release_if_ended();
            }
        }
    }

    fn order(&self, partitions: &[u32], order: Order) {
        for owned in partitions.iter().filter_map(|partition| self.owned.get(partition)) {
            // A thread that has just ended does not listen any more.
            let _ = owned.orders.send(order);
        }
    }

    fn start(&mut self, partition: u32) {
        self.next_assignment += 1;
        let reporting = self.reporting.clone();
        match Owned::start(Arc::clone(self.shared), partition, self.next_assignment, reporting) {
            Ok(owned) => {
                let view = owned.view.clone();
                self.views.send_modify(|views| drop(views.insert(partition, view)));
                self.owned.insert(partition, owned);
            }
            Err(error) => {
                self.shared.meters.error("thread");
                tracing::error!(partition, %error, "the partition's thread can't be started");
            }
        }
    }

    fn hear(&mut self, report: Report) {
        let Some(owned) = self.owned.get(&report.partition) else { return };
        if owned.assignment != report.assignment {
            return;
        }
        match report.news {
            News::Commit(committed) => self.member.commit(report.partition, committed),
            News::Ended => {
                let expected = *owned.orders.borrow() != Order::Work;
                self.forget(report.partition);
                if expected {
                    self.release_if_ended();
                } else {
                    self.shared.meters.error("panic");
                    tracing::error!(
                        partition = report.partition,
                        "the partition's thread ended by itself; starting it again"
                    );
                    self.start(report.partition);
                }
            }
        }
    }

    /// When everything is being given up.
    fn hear_last(&mut self, report: Report) {
        match report.news {
            News::Ended
                if self.owned.get(&report.partition).is_some_and(|o| o.assignment == report.assignment) =>
            {
                self.forget(report.partition);
            }
            News::Ended | News::Commit(_) => self.hear(report),
        }
    }

    fn forget(&mut self, partition: u32) {
        self.owned.remove(&partition);
        self.views.send_modify(|views| drop(views.remove(&partition)));
        self.shared.meters.forget_lag(&self.shared.settings.events, partition);
    }

    fn release_if_ended(&mut self) {
        if !self.releasing.is_empty()
            && self.releasing.iter().all(|partition| !self.owned.contains_key(partition))
        {
            self.releasing.clear();
            self.member.released();
        }
    }
}
