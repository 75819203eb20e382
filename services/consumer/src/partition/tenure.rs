//! The time from one claim of a partition to its end: claim, rebuild, run.
//!
//! Nothing outlives it: whatever goes wrong, the claim is given up, and what the log says then is where the next one starts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time};
use weir_log::{Bounds, Committed, PartitionReader, RecordBatch};
use weir_proto::processing::v1::partition_status::State;
use weir_rollup::tally;
use weir_runtime::clock::now_micros;
use weir_store::Writer;

use super::{
    Order, Outlet,
    flight::{Flight, Landed},
    rebuild::rebuild,
    tail::{Standing, Tail},
    view::Progress,
};
use crate::{
    Shared,
    error::Error,
    shard::Shard,
    sink::{Cut, Events, Limits, Rollups, Sink},
};

/// How long to wait for records at most before looking round.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two commits, and between two looks at what does not happen by itself.
const TICK: Duration = Duration::from_secs(1);
/// Time without a batch after which a heartbeat is written.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How far a heartbeat's watermark stays behind the log's clock: more than a record is on its way between its stamp and its being
/// readable (one group commit), and than clocks of well-kept machines differ.
const HEARTBEAT_MARGIN_MICROS: i64 = 1_000_000;
/// A micro-batch may wait for this share of the lag that its events have already: who is seconds behind gains more from large
/// batches, which are cheaper to make, to write and to read, than from early ones.
const SHARE_OF_LAG: u32 = 10;
/// And for this long at most.
const MAX_DELAY: Duration = Duration::from_millis(250);
/// Bytes of events that are handed to the store without waiting for the micro-batch: bounds what a burst makes it copy at a time.
const EVENTS_BYTES: usize = 4 << 20;
/// An append that takes longer than this is reported as blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(2);

/// How a tenure ended.
pub(super) enum End {
    /// As ordered.
    Ordered,
    /// Another consumer has claimed the partition.
    Fenced(Tail),
    /// Something failed.
    Failed(Error),
}

/// Holds the partition until something ends it. `limits` bound its micro-batches.
pub(super) async fn hold(
    shared: &Arc<Shared>,
    partition: u32,
    limits: Limits,
    orders: &mut watch::Receiver<Order>,
    outlet: &Outlet,
) -> End {
    let prepared = tokio::select! {
        biased;
        // Nothing was processed, so there is nothing to finish.
        _ = orders.wait_for(|order| *order != Order::Work) => return End::Ordered,
        prepared = prepare(shared, partition, limits, outlet) => prepared,
    };
    match prepared {
        Ok(running) => running.run(orders).await,
        Err(error) => End::Failed(error),
    }
}

async fn prepare<'a>(
    shared: &'a Arc<Shared>,
    partition: u32,
    limits: Limits,
    outlet: &'a Outlet,
) -> Result<Running<'a>, Error> {
    let Shared { log, store, settings, meters, .. } = &**shared;
    let started = Instant::now();
    outlet.show(|view| {
        view.state = State::Claiming;
        view.detail.clear();
    });
    let tail = Tail::claim(log, settings, partition).await?;
    meters.claim.observe(started.elapsed().as_secs_f64());

    let state = tail.state().clone();
    store.bind(&log.identity().await?).await?;
    let writer = store.writer(partition, tail.owner()).await?;
    let end = log.bounds(&settings.events, partition).await?.end;
    let sinks =
        [("the rollups go", state.next_source_offset), ("the event store goes", writer.next_offset())];
    if let Some((ahead, counted)) = sinks.into_iter().find(|(_, counted)| *counted > end) {
        return Err(shared.source_behind(partition, end, ahead, counted));
    }
    let resume = state.next_source_offset.min(writer.next_offset());
    let started = Instant::now();
    outlet.show(|view| {
        view.state = State::Rebuilding;
        view.sinks = vec![Progress::rollups(state.next_source_offset), Progress::store(&writer)];
        view.watermark_micros = state.watermark;
    });
    let progress = |position| outlet.show(|view| view.position = position);
    let decider = rebuild(log, settings, partition, resume, progress).await?;
    meters.rebuild.observe(started.elapsed().as_secs_f64());
    tracing::info!(partition, resume, owner = %tail.owner(), "the partition is claimed");

    let catalog = Arc::clone(&settings.catalog);
    let rollups = Rollups::new(catalog, settings.lateness, state.next_source_offset, state.watermark);
    let events = Events::new(settings.lateness, writer.next_offset());
    let mut shard = Shard::new(decider, rollups, events);
    let bounds = log.bounds(&settings.events, partition).await?;
    if bounds.start > resume {
        lost(&mut shard, partition, bounds, &tail);
    }
    let now = Instant::now();
    Ok(Running {
        shared,
        partition,
        limits,
        outlet,
        events: log.reader(&settings.events, partition, shard.position()).await?,
        flight: Flight::new(Arc::clone(log), settings, partition),
        durable: state.next_source_offset,
        cut_at: (shard.rollups().is_pending() || shard.events().is_pending()).then_some(now),
        shard,
        writer,
        tail,
        held: None,
        stepping: Duration::ZERO,
        last_batch: now,
        committed: None,
        draining: None,
    })
}

fn lost(shard: &mut Shard, partition: u32, bounds: Bounds, tail: &Tail) {
    let (from, until) = (shard.position(), bounds.start);
    tracing::error!(
        partition,
        from,
        until,
        "retention deleted events before they were read; they are counted as unavailable"
    );
    let nothing_follows = bounds.start == bounds.end;
    shard.lose(until, nothing_follows.then(|| tail.log_time_micros() - HEARTBEAT_MARGIN_MICROS));
}

struct Running<'a> {
    shared: &'a Shared,
    partition: u32,
    limits: Limits,
    outlet: &'a Outlet,
    events: Box<dyn PartitionReader>,
    tail: Tail,
    shard: Shard,
    /// Takes the events that the shard makes rows of.
    writer: Writer,
    /// What was read, and the index of the next record to process.
    held: Option<(RecordBatch, usize)>,
    /// Time spent on the held batch.
    stepping: Duration,
    /// When the batch in the making is to be cut.
    cut_at: Option<Instant>,
    flight: Flight,
    /// Source offset up to which output was acknowledged.
    durable: u64,
    last_batch: Instant,
    /// `metrics-data` offset of the hint committed last.
    committed: Option<u64>,
    /// Since when it is being given up.
    draining: Option<Instant>,
}

impl Running<'_> {
    async fn run(mut self, orders: &mut watch::Receiver<Order>) -> End {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            self.work().await;
            match self.tail.standing() {
                Standing::Owner => {}
                Standing::Fenced { .. } => return End::Fenced(self.tail),
                Standing::Void(reason) => return End::Failed(Error::Void(reason)),
            }
            if let Some(since) = self.draining {
                let drained = !self.shard.rollups().is_pending()
                    && self.flight.is_empty()
                    && self.tail.state().next_source_offset == self.shard.rollups().next_offset();
                if drained {
                    self.commit();
                    return self.settle(since).await;
                }
                if since.elapsed() >= self.shared.settings.drain_timeout {
                    tracing::warn!(
                        partition = self.partition,
                        "giving the partition up with output that is not acknowledged"
                    );
                    return End::Ordered;
                }
            }
            self.show();

            let reading = self.draining.is_none() && self.held.is_none();
            let cut_at = self.cut_at.filter(|_| self.flight.has_room());
            let done = tokio::select! {
                biased;
                changed = orders.changed() => match changed.map(|()| *orders.borrow_and_update()) {
                    Ok(Order::Work) => Ok(()),
                    Ok(Order::Drain) => {
                        // What was read and not processed is the next owner's.
                        self.held = None;
                        self.draining = Some(Instant::now());
                        Ok(())
                    }
                    Ok(Order::Drop) | Err(_) => return End::Ordered,
                },
                _ = tick.tick() => self.tick().await,
                landed = self.flight.landed() => landed.map(|landed| self.landed(&landed)).map_err(Error::from),
                read = self.tail.read(PATIENCE) => read.map(drop),
                batch = self.events.next(PATIENCE), if reading => self.take(batch).await,
                changed = self.writer.changed() => changed.map_err(Error::from),
                () = until(cut_at), if cut_at.is_some() => Ok(()),
            };
            if let Err(error) = done {
                return End::Failed(error);
            }
        }
    }

    /// Processes what is held and cuts what is due, as far as there is room.
    async fn work(&mut self) {
        loop {
            let full = self.shard.rollups().is_full(&self.limits);
            let due = full || self.draining.is_some() || self.cut_at.is_some_and(|at| at <= Instant::now());
            if due || self.shard.events().bytes() >= EVENTS_BYTES {
                self.hand_over();
            }
            if due && !self.shard.rollups().is_pending() {
                self.cut_at = None;
            } else if due && self.flight.has_room() {
                self.cut().await;
                continue;
            }
            let Some((batch, index)) = &mut self.held else { break };
            if full || !self.writer.has_room() {
                break;
            }
            let started = Instant::now();
            *index = self.shard.step(batch, *index);
            let through = *index >= batch.len();
            self.stepping += started.elapsed();
            self.cut_at
                .get_or_insert_with(|| started + self.shared.settings.batch_delay.max(patience(batch)));
            if through {
                self.held = None;
                self.shared.meters.process.observe(std::mem::take(&mut self.stepping).as_secs_f64());
            }
        }
    }

    /// Gives the store what there is for it; queries see it from then on.
    fn hand_over(&mut self) {
        if let Some(batch) = self.shard.events_mut().cut() {
            self.writer.append(batch);
        }
    }

    /// Makes the events durable, so that the next owner has nothing to read again.
    async fn settle(self, since: Instant) -> End {
        let left = self.shared.settings.drain_timeout.saturating_sub(since.elapsed());
        let partition = self.partition;
        match time::timeout(left, self.writer.drain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(partition, %error, "events are left to be read from the log again")
            }
            Err(_) => {
                tracing::warn!(partition, "no time is left for events; they are read from the log again")
            }
        }
        End::Ordered
    }

    async fn cut(&mut self) {
        let started = Instant::now();
        let cut = self.shard.rollups_mut().cut(self.tail.owner());
        self.cut_at = None;
        self.submit(cut).await;
        self.shared.meters.encode.observe(started.elapsed().as_secs_f64());
    }

    async fn submit(&mut self, cut: Cut) {
        self.last_batch = Instant::now();
        self.flight.submit(cut).await;
    }

    fn landed(&mut self, landed: &Landed) {
        self.durable = landed.end;
        self.shared.meters.landed(landed);
        self.outlet.show(|view| tally::add(&mut view.tally, &landed.tally));
    }

    async fn take(&mut self, batch: weir_log::Result<RecordBatch>) -> Result<(), Error> {
        match batch {
            Ok(batch) if batch.next_offset() > self.shard.position() => self.held = Some((batch, 0)),
            Ok(_) => {}
            Err(weir_log::Error::OutOfRange { start, end, .. }) if start > self.shard.position() => {
                self.hand_over();
                lost(&mut self.shard, self.partition, Bounds { start, end }, &self.tail);
                self.cut_at.get_or_insert_with(Instant::now);
                let Shared { log, settings, .. } = self.shared;
                self.events = log.reader(&settings.events, self.partition, start).await?;
            }
            Err(weir_log::Error::OutOfRange { offset, end, .. }) => {
                return Err(self.shared.source_behind(self.partition, end, "records were read", offset));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What is done every second: the commit, and the heartbeat if there is nothing else to say.
    async fn tick(&mut self) -> Result<(), Error> {
        self.commit();
        let idle = self.draining.is_none()
            && self.held.is_none()
            && self.flight.is_empty()
            && !self.shard.rollups().is_pending();
        if idle && self.last_batch.elapsed() >= HEARTBEAT {
            let watermark = self.tail.log_time_micros() - HEARTBEAT_MARGIN_MICROS;
            let Shared { log, settings, .. } = self.shared;
            let bounds = log.bounds(&settings.events, self.partition).await?;
            if bounds.end == self.shard.position() {
                let heartbeat = self.shard.rollups_mut().heartbeat(self.tail.owner(), watermark);
                self.submit(heartbeat).await;
            }
        }
        Ok(())
    }

    /// Commits what was read back, never what was only appended.
    fn commit(&mut self) {
        if let Some(hint) = self.tail.hint().filter(|hint| Some(hint.metrics_offset) != self.committed) {
            self.committed = Some(hint.metrics_offset);
            self.outlet
                .commit(Committed { position: hint.state.next_source_offset, metadata: hint.to_string() });
        }
    }

    fn show(&self) {
        let waiting = self.flight.oldest().filter(|oldest| *oldest >= BLOCKED_AFTER);
        let full = !self.writer.has_room();
        self.outlet.show(|view| {
            view.state = if waiting.is_some() || full { State::Blocked } else { State::Running };
            view.position = self.shard.position();
            view.sinks.clear();
            view.sinks.extend([Progress::rollups(self.durable), Progress::store(&self.writer)]);
            view.watermark_micros = self.tail.state().watermark;
            view.detail.clear();
            if let Some(waiting) = waiting {
                let seconds = waiting.as_secs();
                view.detail = format!("the log has not acknowledged a micro-batch for {seconds} s");
                if let Some(trouble) = self.flight.trouble() {
                    view.detail.push_str(&format!(": {trouble}"));
                }
            }
            if let Some(trouble) = self.writer.status().trouble {
                let separator = if view.detail.is_empty() { "" } else { "; " };
                view.detail.push_str(&format!("{separator}the event store: {trouble}"));
            }
        });
    }
}

/// How long a micro-batch that begins with these records may wait for the sake of being large.
fn patience(batch: &RecordBatch) -> Duration {
    let Some(last) = batch.len().checked_sub(1) else { return Duration::ZERO };
    let lag = now_micros().saturating_sub(batch.get(last).append_time_ms.saturating_mul(1000));
    (Duration::from_micros(u64::try_from(lag).unwrap_or_default()) / SHARE_OF_LAG).min(MAX_DELAY)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
