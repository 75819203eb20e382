//! The analytics service: materialises what the consumers counted, answers questions about it, and keeps the answers up to
//! date.
//!
//! ```text
//! metrics-data ─ partition (one actor each: chain, cells, snapshots) ─ views ─ rollups ─┐
//!                                                                                       ├─ planner ─ service, watch
//! event store ─ segments and hot parts ─ events ────────────────────────────────────────┘
//! analytics-events ─ live (one tail for all watchers) ─ service
//! ```
//!
//! It holds no state of its own: everything is a fold of `metrics-data` or read from the event store, so any number of instances
//! answer alike, and a snapshot only shortens the way back after a restart. Not here: counting and storing (the consumer's).
//!
//! | module | what it is |
//! |---|---|
//! | [`materialise`] | the state of one partition; pure |
//! | [`snapshot`] | that state on disk |
//! | [`partition`] | the actor that owns it and reads the log |
//! | [`lag`] | how far it is behind |
//! | [`question`] | what can be asked and watched |
//! | [`planner`] | who answers it, rollups or events: the one way to an answer |
//! | [`answers`] | answers under way and answers kept |
//! | [`rollups`] | answers from what is counted |
//! | [`events`] | answers from the events themselves |
//! | [`import`] | what became of imports |
//! | [`watch`] | `WatchQuery` |
//! | [`live`] | `WatchEvents` |
//! | [`service`] | the RPCs |

mod answers;
mod error;
mod events;
mod import;
mod lag;
mod live;
mod materialise;
mod partition;
mod planner;
mod question;
mod rollups;
mod service;
mod snapshot;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod watch;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, watch as cell};
use tonic::service::Routes;
use weir_log::EventLog;
use weir_proto::analytics::v1::analytics_service_server::{AnalyticsServiceServer, SERVICE_NAME};
use weir_rollup::{
    definition::{Catalog, CatalogSpec},
    level::Retention,
};
use weir_runtime::{Context, Host, Listeners, Shutdown, config, metrics};
use weir_store::Store;

use answers::Answers;
use events::{Events, hot::Owners, turns::Exports};
use materialise::Limits;
use partition::Pulse;
use planner::{Answered, Planner};
use rollups::engine::Engine;
use service::Analytics;

/// The `service` label of the metrics.
const SERVICE: &str = "analytics";
/// The folder of the snapshots within the data directory.
const SNAPSHOTS: &str = "analytics";
/// How long the log may be away when the service starts, before it gives up.
const LOG_PATIENCE: Duration = Duration::from_secs(30);
/// How long the last snapshots may take at a shutdown; they are tried again at the next one.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(20);

/// Why the service could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its ports.
    #[error(transparent)]
    Server(#[from] weir_runtime::server::Error),
    /// The rollups of the configuration.
    #[error("[rollups]: {0}")]
    Rollups(#[from] weir_rollup::Error),
    /// The threads that answer questions.
    #[error("can't start the threads of [analytics] query_threads: {0}")]
    Threads(std::io::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] weir_log::Error),
}

/// Serves on both ports until the shutdown is requested; then finishes what is under way and writes snapshots.
///
/// # Errors
/// [`Error`], before anything is served.
pub async fn serve(
    context: Context,
    log: Arc<dyn EventLog>,
    store: Store,
    listeners: Listeners,
) -> Result<(), Error> {
    let host = Host::new(SERVICE, context.clone());
    let Context { config, metrics, shutdown, .. } = context;
    let catalog = Arc::new(catalog(&config.rollups)?);
    let partitions = partitions(&log, &config.topics.metrics, &shutdown).await?;

    // The actors answer calls that are being drained, so they stop after the server.
    let stop_actors = Shutdown::new();
    let (pulse, pulses) = cell::channel(Pulse::default());
    let handles = (0..partitions).map(|number| {
        let settings = partition::Settings {
            number,
            topic: config.topics.metrics.clone(),
            limits: Limits {
                retention: catalog.retention().clone(),
                max_values: config.rollups.max_values_per_dimension,
            },
            snapshot_dir: config.data_dir.join(SNAPSHOTS),
            snapshot_interval: config.analytics.snapshot_interval,
        };
        let check = host.health().register(format!("{}/{number}", config.topics.metrics));
        partition::start(settings, log.clone(), check, &metrics, pulse.clone(), &stop_actors)
    });
    let handles: Vec<_> = handles.collect();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let engine = Arc::new(Engine {
        partitions: handles,
        pulse: pulses,
        catalog,
        evaluations: Arc::new(Semaphore::new(cores)),
        query_timeout: config.analytics.query_timeout,
        max_rows: config.analytics.max_result_rows,
        gather_duration: metrics.event_processing_duration(SERVICE, "query_gather"),
        evaluate_duration: metrics.event_processing_duration(SERVICE, "query_evaluate"),
    });
    let owners = engine.partitions.iter().map(|partition| partition.progress()).collect();
    let owners = Arc::new(Owners::new(store.clone(), owners));
    let computing = weir_query::Engine::new(weir_query::engine::Settings {
        memory_bytes: config.analytics.query_memory_bytes,
        threads: config.analytics.query_threads(cores),
    });
    // Two, so that one which finds little of what it looks for does not keep all others waiting.
    let at_once = config.analytics.query_threads(cores).max(2);
    let exports = Exports::new(config.analytics.export_buffer_bytes, at_once);
    let events = Events::new(store, partitions, owners, computing.map_err(Error::Threads)?);
    let analytics = Analytics {
        planner: Arc::new(Planner {
            rollups: engine,
            events,
            answers: Answers::new(config.analytics.cache_bytes),
            answered: Answered::new(&metrics),
            query_timeout: config.analytics.query_timeout,
            exact_up_to_events: config.analytics.exact_up_to_events,
        }),
        tail: live::Tail::start(log, config.topics.events.clone(), partitions, &stop_actors),
        shutdown: shutdown.clone(),
        metrics: metrics.clone(),
        watches: Arc::new(Semaphore::new(config.analytics.max_watches.min(Semaphore::MAX_PERMITS))),
        exports,
        limits: config.analytics.clone(),
    };
    let routes = Routes::new(weir_runtime::limited!(AnalyticsServiceServer::new(analytics), config.server));
    let limits = config.server.clone();
    let served = host
        .grpc(routes, &[SERVICE_NAME], &[weir_proto::DESCRIPTORS])?
        .http(move |rpc| {
            weir_transcode::rest(
                weir_proto::DESCRIPTORS,
                &[SERVICE_NAME, metrics::SERVICE_NAME],
                rpc,
                &limits,
            )
        })
        .serve(listeners)
        .await;

    stop_actors.trigger();
    if let Err(left) = stop_actors.drained(SNAPSHOT_PATIENCE).await {
        tracing::warn!(left, "gave up waiting for snapshots; a restart will read more of the log");
    }
    Ok(served?)
}

/// The rollups that a configuration describes.
fn catalog(rollups: &config::Rollups) -> Result<Catalog, weir_rollup::Error> {
    let config::RollupRetention { second, minute, quarter_hour, hour, day } = rollups.retention;
    Catalog::new(CatalogSpec {
        dimensions: rollups.dimensions.clone(),
        numerics: rollups.numeric.clone(),
        definitions: rollups
            .definitions
            .iter()
            .map(|definition| (definition.name.clone(), definition.dimensions.clone()))
            .collect(),
        retention: Retention::new(second, minute, quarter_hour, hour, day)?,
    })
}

/// The number of partitions, as soon as the log can be reached.
async fn partitions(
    log: &Arc<dyn EventLog>,
    topic: &str,
    shutdown: &Shutdown,
) -> Result<u32, weir_log::Error> {
    let started = tokio::time::Instant::now();
    loop {
        match log.partitions(topic).await {
            Err(error)
                if error.is_retryable() && started.elapsed() < LOG_PATIENCE && !shutdown.is_requested() =>
            {
                tracing::warn!(topic, %error, "waiting for the log");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            partitions => return partitions,
        }
    }
}
