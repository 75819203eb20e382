//! Membership in the consumer group: partitions come and go, each with its thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time,
};
use weir_log::{GroupMember, Membership, Offset};
use weir_proto::processing::v1::partition_status::State;
use weir_runtime::Shutdown;

use crate::{
    Shared,
    error::Error,
    partition::{Backoff, News, Order, Owned, Report, View},
};

/// What is shown of the membership.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// What the thread of each owned partition shows.
    pub(crate) views: BTreeMap<u32, watch::Receiver<View>>,
    /// Why there are no partitions, when that is not as it should be.
    refused: Option<String>,
    /// Partitions that don't get on, and why.
    fallen: BTreeMap<u32, String>,
}

impl Shown {
    /// What is amiss.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = String> {
        let fallen = self.fallen.iter().map(|(partition, why)| format!("partition {partition}: {why}"));
        self.refused.iter().map(|why| format!("not in the consumer group: {why}")).chain(fallen)
    }
}

/// A partition whose thread ended by itself, which is a bug that the next record may bring out again, or could not be started.
#[derive(Debug)]
struct Fall {
    /// How far it had come.
    reached: Reached,
    backoff: Backoff,
    /// When it is started again, or was.
    again: Instant,
}

/// How far a partition has come: none of it ever falls, and an idle one moves its watermark.
type Reached = (Option<Offset>, i64);

fn reached(view: &View) -> Reached {
    (view.next_offset(), view.watermark_micros)
}

/// Between two looks at what has fallen.
const TICK: Duration = Duration::from_secs(1);
/// Longest pause before a fallen partition is started again: each time it appends a claim and rebuilds its window. One that
/// runs for so long is well.
const LONGEST_FALL: Duration = Duration::from_secs(60);
/// How much longer than the drain timeout the threads may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Takes part in the group until the shutdown is requested; then gives everything up in order. While the log is away it waits.
///
/// # Errors
/// When the topics do not fit, which waiting does not change.
pub(crate) async fn take_part(
    shared: Arc<Shared>,
    shutdown: Shutdown,
    shown: watch::Sender<Shown>,
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
                shown.send_modify(|shown| shown.refused = None);
                let (reporting, reports) = mpsc::unbounded_channel();
                let part = Part {
                    shared: &shared,
                    member,
                    shown: &shown,
                    owned: BTreeMap::new(),
                    falls: BTreeMap::new(),
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
        shown.send_modify(|shown| shown.refused = Some(error.to_string()));
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
    shown: &'a watch::Sender<Shown>,
    owned: BTreeMap<u32, Owned>,
    falls: BTreeMap<u32, Fall>,
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
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                () = shutdown.requested() => break None,
                change = self.member.next() => match change {
                    Ok(change) => self.change(change),
                    Err(error) => break Some(error),
                },
                Some(report) = self.reports.recv() => self.hear(report),
                _ = tick.tick(), if !self.falls.is_empty() => self.look_after_falls(),
            }
        };
        // Without the membership nothing may be committed, and others may own the partitions already.
        let order = if ended.is_some() { Order::Drop } else { Order::Drain };
        let all: BTreeSet<u32> = self.owned.keys().chain(self.falls.keys()).copied().collect();
        self.order(all.iter().copied(), order);
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
                self.shown.send_modify(|shown| shown.refused = None);
                partitions.into_iter().for_each(|partition| self.start(partition));
            }
            Membership::Revoked(partitions) => {
                tracing::info!(?partitions, "partitions asked back");
                self.releasing.extend(partitions.iter().copied());
                self.order(partitions.iter().copied(), Order::Drain);
                // Those that wait to be started again have nothing to finish.
                for partition in
                    partitions.into_iter().filter(|p| !self.owned.contains_key(p)).collect::<Vec<_>>()
                {
                    self.forget(partition);
                }
                self.release_if_ended();
            }
            Membership::Lost(partitions) => {
                tracing::warn!(?partitions, "partitions lost");
                self.order(partitions.iter().copied(), Order::Drop);
                // Dropped right here, so that nothing of theirs is committed any more.
                for partition in partitions {
                    self.forget(partition);
                }
                self.release_if_ended();
            }
            Membership::Refused(why) => {
                self.shared.meters.error("group");
                tracing::warn!(
                    group = self.shared.settings.group,
                    why,
                    "the consumer group gives no partitions"
                );
                self.shown.send_modify(|shown| shown.refused = Some(why));
            }
        }
    }

    fn order(&self, partitions: impl Iterator<Item = u32>, order: Order) {
        for owned in partitions.filter_map(|partition| self.owned.get(&partition)) {
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
                self.shown.send_modify(|shown| drop(shown.views.insert(partition, view)));
                self.owned.insert(partition, owned);
            }
            Err(error) => {
                self.shared.meters.error("thread");
                self.fall(partition, View::default(), format!("its thread can't be started ({error})"));
            }
        }
    }

    /// Has a partition started again, the later the more often it falls without getting on. `last` is what it showed last.
    fn fall(&mut self, partition: u32, last: View, why: String) {
        let mut fall = match self.falls.remove(&partition) {
            Some(fall) if reached(&last) <= fall.reached => fall,
            Some(_) | None => {
                Fall { reached: reached(&last), backoff: Backoff::up_to(LONGEST_FALL), again: Instant::now() }
            }
        };
        let pause = fall.backoff.step();
        fall.again = Instant::now() + pause;
        self.falls.insert(partition, fall);
        tracing::error!(partition, why, ?pause, "the partition fell; starting it again");
        let (_, view) = watch::channel(View { state: State::Blocked, detail: why.clone(), ..last });
        self.shown.send_modify(|shown| {
            shown.views.insert(partition, view);
            shown.fallen.insert(partition, why);
        });
    }

    /// Starts what is due, and forgets the fall of what has got on since.
    fn look_after_falls(&mut self) {
        let now = Instant::now();
        let (mut due, mut well) = (Vec::new(), Vec::new());
        for (&partition, fall) in &self.falls {
            match self.owned.get(&partition) {
                Some(owned) => {
                    let got_on = reached(&owned.view.borrow()) > fall.reached;
                    well.extend((got_on || now >= fall.again + LONGEST_FALL).then_some(partition));
                }
                None => due.extend((now >= fall.again).then_some(partition)),
            }
        }
        for partition in well {
            self.falls.remove(&partition);
            self.shown.send_modify(|shown| drop(shown.fallen.remove(&partition)));
        }
        due.into_iter().for_each(|partition| self.start(partition));
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
                let last = owned.view.borrow().clone();
                if expected {
                    self.forget(report.partition);
                    self.release_if_ended();
                } else {
                    self.owned.remove(&report.partition);
                    self.shared.meters.error("panic");
                    let why = "its thread panicked, which is a bug: the log has the message".to_owned();
                    self.fall(report.partition, last, why);
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
        self.falls.remove(&partition);
        self.shown.send_modify(|shown| {
            shown.views.remove(&partition);
            shown.fallen.remove(&partition);
        });
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
