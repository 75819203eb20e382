//! Owning a partition: from the group's assignment until it is given up or lost.
//!
//! Every owned partition has a thread of its own that drives its future. A shard computes for milliseconds on end, and for
//! seconds while it rebuilds; on the runtime's workers that would hold up every call and timer of the process, and
//! `block_in_place` would move whole workers about for it. With a thread the system's scheduler shares the cores, and nothing has to yield.
//! I/O and timers stay with the runtime.
//!
//! Map: `tenure` one claim from beginning to end; `tail` claims and reads `metrics-data`; `rebuild` the deduplication window;
//! `flight` appends; `view` what is shown of it.

mod backoff;
mod flight;
mod rebuild;
mod tail;
mod tenure;
mod view;

use std::{sync::Arc, thread};

use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use weir_log::Committed;
use weir_proto::processing::v1::partition_status::State;

pub(crate) use backoff::Backoff;
pub(crate) use flight::Landed;
#[cfg(test)]
pub(crate) use view::Progress;
pub(crate) use view::View;

use crate::{Shared, error::Error};
use tail::Tail;
use tenure::End;

/// What the group wants of a partition's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Work.
    Work,
    /// Finish what is begun, commit and end.
    Drain,
    /// End at once: the partition is somebody else's.
    Drop,
}

/// What a partition's thread tells the group.
#[derive(Debug)]
pub(crate) struct Report {
    /// The partition.
    pub(crate) partition: u32,
    /// Which assignment of it.
    pub(crate) assignment: u64,
    /// What is told.
    pub(crate) news: News,
}

#[derive(Debug)]
pub(crate) enum News {
    /// To be committed.
    Commit(Committed),
    /// The thread has ended.
    Ended,
}

/// Where a partition's thread speaks to.
struct Outlet {
    partition: u32,
    assignment: u64,
    view: watch::Sender<View>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Outlet {
    fn show(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(change);
    }

    fn commit(&self, committed: Committed) {
        self.report(News::Commit(committed));
    }

    fn report(&self, news: News) {
        let Self { partition, assignment, .. } = *self;
        // The group ends after its threads; if it has gone, nobody needs the news.
        let _ = self.reports.send(Report { partition, assignment, news });
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // Also when the thread panicked.
        self.report(News::Ended);
    }
}

/// A running partition.
#[derive(Debug)]
pub(crate) struct Owned {
    /// Tells assignments of the same partition apart.
    pub(crate) assignment: u64,
    /// What it is told to do.
    pub(crate) orders: watch::Sender<Order>,
    /// What it shows.
    pub(crate) view: watch::Receiver<View>,
}

impl Owned {
    /// Starts a partition's thread. It ends with [`News::Ended`].
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(
        shared: Arc<Shared>,
        partition: u32,
        assignment: u64,
        reports: mpsc::UnboundedSender<Report>,
    ) -> std::io::Result<Self> {
        let (orders, mut received) = watch::channel(Order::Work);
        let (show, view) = watch::channel(View::default());
        let outlet = Outlet { partition, assignment, view: show, reports };
        let runtime = Handle::current();
        thread::Builder::new().name(format!("partition {partition}")).spawn(move || {
            runtime.block_on(own(&shared, partition, &mut received, &outlet));
        })?;
        Ok(Self { assignment, orders, view })
    }
}

/// Claims the partition, again and again if need be, until it is ordered to end.
async fn own(shared: &Arc<Shared>, partition: u32, orders: &mut watch::Receiver<Order>, outlet: &Outlet) {
    let mut limits = shared.settings.limits;
    let mut backoff = Backoff::default();
    while *orders.borrow_and_update() == Order::Work {
        let before = outlet.view.borrow().next_offset();
        let end = tenure::hold(shared, partition, limits, orders, outlet).await;
        if outlet.view.borrow().next_offset() > before {
            backoff = Backoff::default();
        }
        match end {
            End::Ordered => return,
            End::Fenced(tail) => {
                shared.meters.error("fenced");
                outlet.show(|view| {
                    view.state = State::Fenced;
                    view.detail = format!("{} has claimed the partition", tail.state().address);
                });
                tracing::warn!(
                    partition,
                    by = tail.state().address,
                    "another consumer has claimed the partition"
                );
                tokio::select! {
                    _ = orders.wait_for(|order| *order != Order::Work) => return,
                    () = silence(shared, partition, tail) => {}
                }
            }
            End::Failed(error) => {
                if let Error::Log(weir_log::Error::TooLarge { .. }) = error {
                    limits.records = (limits.records / 2).max(1);
                    limits.cells = (limits.cells / 2).max(1);
                }
                shared.meters.error(error.kind());
                tracing::warn!(partition, %error, "the partition is given up and will be claimed again");
                outlet.show(|view| {
                    view.state = State::Blocked;
                    view.detail = error.to_string();
                });
                tokio::select! {
                    _ = orders.wait_for(|order| *order != Order::Work) => return,
                    () = backoff.pause() => {}
                }
            }
        }
    }
}

/// Returns when whoever fenced this consumer writes nothing any more. As long as the group assigns the partition here too, somebody has to go
/// on with it; a live owner is never interrupted.
async fn silence(shared: &Shared, partition: u32, mut tail: Tail) {
    loop {
        match tail.read(shared.settings.silence).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::warn!(partition, %error, "the other owner can't be watched");
                tokio::time::sleep(shared.settings.silence).await;
                break;
            }
        }
    }
    tracing::warn!(partition, "the other owner has fallen silent; claiming the partition back");
}
