//! Appends batches to the log: bounded, concurrently over partitions, tried again while the log is away.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::future::join_all;
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};
use tonic::Status;
use weir_log::{Bounds, EventLog, Offset, Record};
use weir_proto::ingest::v1::{GetLogResponse, LogPartition};
use weir_runtime::{
    Metrics, config,
    metrics::{Counter, Gauge, Histogram},
};

use crate::{
    SERVICE,
    batch::{Batch, Group, Outcome},
    error::Error,
};

/// What to do while there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Tell the caller at once, who has the batch and can wait better.
    Refuse,
    /// Wait: the caller is a stream, which this slows down.
    Wait,
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) struct Settled {
    /// What became of each event; no `Accepted` is in doubt.
    pub(crate) outcomes: Vec<Outcome>,
    /// Last offset by partition: covers every accepted event.
    pub(crate) offsets: BTreeMap<u32, Offset>,
    /// Why the log took nothing, if there was something to take.
    pub(crate) failure: Option<Error>,
}

/// The way into the log.
#[derive(Debug)]
pub(crate) struct Appender {
    log: Arc<dyn EventLog>,
    topic: String,
    partitions: OnceCell<u32>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    backoff: ExponentialBuilder,
    patience: Duration,
    instruments: Instruments,
}

#[derive(Debug)]
struct Instruments {
    accepted: Counter,
    duplicate: Counter,
    rejected: Counter,
    failed: Counter,
    retries: Counter,
    duration: Histogram,
    in_flight: Gauge,
    metrics: Metrics,
}

/// Bytes of the budget, given back on drop.
#[derive(Debug)]
struct InFlight {
    _permit: OwnedSemaphorePermit,
    gauge: Gauge,
    bytes: i64,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}

impl Appender {
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        topic: &str,
        config: &config::Producer,
        metrics: &Metrics,
    ) -> Self {
        // The permits of one acquisition are counted in 32 bits.
        let budget_bytes = config.max_in_flight_bytes.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let outcome = |outcome| metrics.events_processed(SERVICE, topic, outcome);
        Self {
            log,
            topic: topic.to_owned(),
            partitions: OnceCell::new(),
            budget: Arc::new(Semaphore::new(budget_bytes)),
            budget_bytes,
            backoff: ExponentialBuilder::new()
                .with_min_delay(config.retry_initial_backoff)
                .with_max_delay(config.retry_max_backoff)
                .with_jitter()
                .without_max_times(),
            patience: config.retry_deadline,
            instruments: Instruments {
                accepted: outcome("accepted"),
                duplicate: outcome("duplicate"),
                rejected: outcome("rejected"),
                failed: outcome("failed"),
                retries: metrics.log_append_retries(SERVICE, topic),
                duration: metrics.log_append_duration(SERVICE, topic),
                in_flight: metrics.in_flight_bytes(SERVICE),
                metrics: metrics.clone(),
            },
        }
    }

    /// The number of partitions, which is asked for once.
    pub(crate) async fn partitions(&self, caller: Option<Instant>) -> Result<u32, Error> {
        let ask =
            || self.persist(Pressure::Refuse, self.deadline(caller), || self.log.partitions(&self.topic));
        self.partitions.get_or_try_init(ask).await.copied().inspect_err(|error| self.count(error))
    }

    /// Which log events go to, and how far it reaches.
    pub(crate) async fn describe(&self, caller: Option<Instant>) -> Result<GetLogResponse, Error> {
        let deadline = self.deadline(caller);
        let described = async {
            let identity = self.persist(Pressure::Refuse, deadline, || self.log.identity()).await?;
            let mut partitions = Vec::new();
            for partition in 0..self.partitions(caller).await? {
                let bounds = || self.log.bounds(&self.topic, partition);
                let Bounds { start, end } = self.persist(Pressure::Refuse, deadline, bounds).await?;
                partitions.push(LogPartition { partition, start_offset: start, end_offset: end });
            }
            Ok(GetLogResponse { identity, partitions })
        };
        described.await.inspect_err(|error| self.count(error))
    }

    /// Appends a batch and returns when each of its records is durable or given up, at the latest at the caller's deadline.
    pub(crate) async fn append(&self, batch: Batch, pressure: Pressure, caller: Option<Instant>) -> Settled {
        let Batch { mut outcomes, groups, bytes } = batch;
        let deadline = self.deadline(caller);
        let in_flight = self.enter(bytes, pressure, deadline).await;
        let groups = (0..).zip(groups).filter(|(_, group)| !group.records.is_empty());
        let appends = groups.map(|(partition, Group { indices, records })| {
            let in_flight = &in_flight;
            async move {
                let appended = match in_flight {
                    Ok(_) => self.append_group(partition, records, pressure, deadline).await,
                    Err(error) => Err(error.clone()),
                };
                (partition, indices, appended)
            }
        });
        let (mut offsets, mut failure) = (BTreeMap::new(), None);
        for (partition, indices, appended) in join_all(appends).await {
            match appended {
                Ok(last) => {
                    offsets.insert(partition, last);
                }
                Err(error) => {
                    let status = Status::from(&error);
                    for index in indices {
                        if let Outcome::Accepted(id) = outcomes[index] {
                            outcomes[index] = Outcome::Failed(id, status.clone());
                        }
                    }
                    self.count(&error);
                    failure = Some(error);
                }
            }
        }
        self.count_outcomes(&outcomes);
        Settled { failure: failure.filter(|_| offsets.is_empty()), outcomes, offsets }
    }

    /// Counts an error that is not an outcome of single events.
    pub(crate) fn count(&self, error: &Error) {
        self.instruments.metrics.errors(SERVICE, error.kind()).inc();
    }

    /// Whether the log can be reached.
    pub(crate) async fn ping(&self) -> weir_log::Result<()> {
        self.log.ping().await
    }

    /// Until when something is tried: the caller's deadline, but not longer than is configured.
    fn deadline(&self, caller: Option<Instant>) -> Instant {
        let own = Instant::now() + self.patience;
        caller.map_or(own, |caller| caller.min(own))
    }

    /// Takes the bytes out of the budget. More than the whole budget takes all of it.
    async fn enter(&self, bytes: usize, pressure: Pressure, deadline: Instant) -> Result<InFlight, Error> {
        let limit = self.budget_bytes;
        let permits = u32::try_from(bytes.min(limit)).expect("the budget fits 32 bits");
        let full = Error::InFlightFull { limit };
        let permit = match pressure {
            Pressure::Refuse => self.budget.clone().try_acquire_many_owned(permits).map_err(|_| full)?,
            Pressure::Wait => {
                match timeout_at(deadline, self.budget.clone().acquire_many_owned(permits)).await {
                    Ok(permit) => permit.expect("the budget is never closed"),
                    Err(_elapsed) => return Err(full),
                }
            }
        };
        let (gauge, bytes) = (self.instruments.in_flight.clone(), i64::try_from(bytes).unwrap_or(i64::MAX));
        gauge.add(bytes);
        Ok(InFlight { _permit: permit, gauge, bytes })
    }

    /// The last offset of the records, all durable.
    async fn append_group(
        &self,
        partition: u32,
        records: Vec<Record>,
        pressure: Pressure,
        deadline: Instant,
    ) -> Result<Offset, Error> {
        let _timer = self.instruments.duration.start_timer();
        // Cloning records copies no bytes.
        let append = || self.log.append(&self.topic, partition, records.clone());
        Ok(self.persist(pressure, deadline, append).await?.last)
    }

    /// Calls the log until it answers, with exponentially growing pauses, no longer than to the deadline.
    async fn persist<T, F>(
        &self,
        pressure: Pressure,
        deadline: Instant,
        call: impl Fn() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = weir_log::Result<T>>,
    {
        let mut pauses = self.backoff.build();
        loop {
            let error = match timeout_at(deadline, call()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_elapsed) => return Err(Error::Unknown),
            };
            let full = matches!(error, weir_log::Error::QueueFull { .. });
            let last = |error: weir_log::Error| match error {
                weir_log::Error::QueueFull { .. } => Error::LogFull(error.to_string()),
                // Shutting down, the log may close before the last call has ended.
                error if error.is_retryable() || matches!(error, weir_log::Error::Closed) => {
                    Error::LogUnavailable(error.to_string())
                }
                error => {
                    tracing::error!(topic = self.topic, %error, "the log refuses events");
                    Error::LogRefused(error.to_string())
                }
            };
            if !error.is_retryable() || full && pressure == Pressure::Refuse {
                return Err(last(error));
            }
            let pause = pauses.next().expect("without a number of times there is always a next");
            if Instant::now() + pause >= deadline {
                return Err(last(error));
            }
            tracing::debug!(topic = self.topic, %error, ?pause, "trying again");
            self.instruments.retries.inc();
            sleep(pause).await;
        }
    }

    fn count_outcomes(&self, outcomes: &[Outcome]) {
        let (mut accepted, mut duplicate, mut rejected, mut failed) = (0, 0, 0, 0);
        for outcome in outcomes {
            match outcome {
                Outcome::Accepted(_) => accepted += 1,
                Outcome::Duplicate(_) => duplicate += 1,
                Outcome::Rejected(_) => rejected += 1,
                Outcome::Failed(..) => failed += 1,
            }
        }
        self.instruments.accepted.inc_by(accepted);
        self.instruments.duplicate.inc_by(duplicate);
        self.instruments.rejected.inc_by(rejected);
        self.instruments.failed.inc_by(failed);
    }
}
