//! What the consumer is told, in the shape in which it is used.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use weir_rollup::{
    definition::{Catalog, CatalogSpec},
    level::Retention,
};
use weir_runtime::{Config, config};

use crate::{error::Error, plan::Plan, sink::Limits};

/// Cells in a micro-batch at most. With the usual 100 to 200 bytes a cell that keeps it below half of what the log takes as one
/// record; should one be larger nevertheless, the partition starts over with smaller ones.
const MAX_CELLS: usize = 24_000;
/// Bytes of dead letters at which a micro-batch is cut: bounds memory, and what is appended in one go.
const DEAD_LETTER_BYTES: usize = 1 << 20;

/// What the consumer is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Topic of events.
    pub events: String,
    /// Topic of micro-batches.
    pub metrics: String,
    /// Topic of dead letters.
    pub dead_letters: String,
    /// Consumer group.
    pub group: String,
    /// Where others reach this consumer's gRPC; written into claims.
    pub address: String,
    /// The rollups.
    pub catalog: Arc<Catalog>,
    /// What is read from events for them.
    pub plan: Plan,
    /// Deduplication window.
    pub dedup_window: Duration,
    /// Events remembered for it by a partition.
    pub dedup_max_events: usize,
    /// Distance between an event's time and its append from which it is late.
    pub lateness: Duration,
    /// Age of its first event at which a micro-batch is written.
    pub batch_delay: Duration,
    /// Size at which it is.
    pub limits: Limits,
    /// Time to finish in when partitions are given up; what is not written then is left to the next owner.
    pub drain_timeout: Duration,
    /// A partition that another consumer claimed but the group still assigns to this one is claimed back when the other has
    /// written nothing for so long. Live owners write a heartbeat every 5 s.
    pub silence: Duration,
}

impl Settings {
    /// From the configuration; `internal` is the address that the internal port is bound to.
    ///
    /// # Errors
    /// [`Error::Rollups`] when the rollups' configuration makes no sense.
    pub fn new(config: &Config, internal: SocketAddr) -> Result<Self, Error> {
        let Config { topics, consumer, server, .. } = config;
        let catalog = Arc::new(catalog(&config.rollups)?);
        Ok(Self {
            events: topics.events.clone(),
            metrics: topics.metrics.clone(),
            dead_letters: topics.dead_letters.clone(),
            group: consumer.group.clone(),
            address: consumer.advertised_url(internal),
            plan: Plan::new(catalog.dimension_fields(), catalog.numeric_fields()),
            catalog,
            dedup_window: consumer.dedup_window,
            dedup_max_events: consumer.dedup_max_events,
            lateness: consumer.lateness,
            batch_delay: consumer.micro_batch_delay,
            limits: Limits {
                records: consumer.micro_batch_events as u64,
                cells: MAX_CELLS,
                dead_letter_bytes: DEAD_LETTER_BYTES,
            },
            drain_timeout: server.drain_timeout,
            silence: Duration::from_secs(15),
        })
    }
}

/// The rollups that a configuration asks for.
///
/// # Errors
/// When it makes no sense, with what to change.
pub fn catalog(config: &config::Rollups) -> Result<Catalog, weir_rollup::Error> {
    let retention = &config.retention;
    Catalog::new(CatalogSpec {
        dimensions: config.dimensions.clone(),
        numerics: config.numeric.clone(),
        definitions: config.definitions.iter().map(|d| (d.name.clone(), d.dimensions.clone())).collect(),
        retention: Retention::new(
            retention.second,
            retention.minute,
            retention.quarter_hour,
            retention.hour,
            retention.day,
        )?,
    })
}
