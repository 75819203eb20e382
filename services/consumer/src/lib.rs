//! The consumer service: deduplicates and aggregates events and emits micro-batches, exactly once for every event.
//!
//! What an event goes through, partition by partition:
//!
//! ```text
//! analytics-events/p → decode → reject? → dedup ┬→ sink::Rollups → MicroBatch → metrics-data/p
//!                                  │             └→ sink::Events → event store
//!                                  └→ analytics-events-dlq/p
//! ```
//!
//! The core is pure and takes time from the records: [`plan`], [`reject`], [`dedup`], [`sink`], and [`shard`], which joins
//! them. Round it lies a thin shell: membership in the group, and for each owned partition a thread that claims it, rebuilds
//! the deduplication window, and then reads, steps, cuts and appends until it is told to stop (`partition/`).
//!
//! What must stay true:
//! - Offsets travel with the output. How far a partition has come is what `metrics-data` says, read back through the claim/accept
//!   machine; committed positions are hints and serve lag monitoring.
//! - Everything decided about an event is a function of the log, so that whoever takes over decides the same.
//! - A dead letter is durable before the batch that covers it is appended.
//! - After any failure a partition is claimed anew and goes on from the log's truth. Nothing is assumed.

mod board;
pub mod dedup;
mod error;
mod group;
mod hot;
mod meters;
mod partition;
pub mod plan;
pub mod reject;
mod service;
mod settings;
pub mod shard;
pub mod sink;

use std::sync::Arc;

use tokio::sync::watch;
use tonic::service::Routes;
use weir_log::EventLog;
use weir_proto::{
    processing::v1::processing_service_server::{ProcessingServiceServer, SERVICE_NAME},
    store::v1::hot_service_server::{HotServiceServer, SERVICE_NAME as HOT_SERVICE_NAME},
};
use weir_runtime::{Context, Host, Listeners, metrics};
use weir_store::Store;

pub use error::Error;
pub use settings::{Settings, catalog};

use board::Board;
use hot::Hot;
use meters::Meters;
use service::Processing;

/// What all partitions of a consumer share.
#[derive(Debug)]
struct Shared {
    log: Arc<dyn EventLog>,
    store: Store,
    settings: Settings,
    meters: Meters,
    instance: String,
}

impl Shared {
    /// The events of a partition end before what was made of them does.
    fn source_behind(&self, partition: u32, end: u64, ahead: &'static str, counted: u64) -> Error {
        let Self { settings, store, .. } = self;
        Error::SourceBehind {
            topic: settings.events.clone(),
            partition,
            end,
            ahead,
            counted,
            metrics: settings.metrics.clone(),
            store: store.settings().location.to_string(),
        }
    }
}

/// Runs the consumer until the shutdown is requested and everything is given up in order.
///
/// # Errors
/// When the configuration or the topics do not fit; while it runs, nothing ends it but the shutdown.
pub async fn serve(
    context: Context,
    log: Arc<dyn EventLog>,
    store: Store,
    listeners: Listeners,
) -> Result<(), Error> {
    let host = Host::new(meters::SERVICE, context.clone());
    let Context { config, metrics, shutdown, instance, .. } = context;
    let internal = listeners.internal_address().unwrap_or(config.consumer.internal);
    let settings = Settings::new(&config, internal)?;
    let meters = Meters::new(metrics.clone(), &settings);
    let hot = weir_runtime::limited!(HotServiceServer::new(Hot { store: store.clone() }), config.server);
    let shared = Arc::new(Shared { log, store, settings, meters, instance });

    let (publishing, shown) = watch::channel(group::Shown::default());
    let board = Board::new(Arc::clone(&shared), shown);
    let (log_check, partitions_check) = (host.health().register("log"), host.health().register("partitions"));

    let service = Processing { board: board.clone(), shutdown: shutdown.clone() };
    let service = weir_runtime::limited!(ProcessingServiceServer::new(service), config.server);
    let limits = config.server.clone();
    let host = host
        .grpc(Routes::new(service), &[SERVICE_NAME], &[weir_proto::DESCRIPTORS])?
        .internal(Routes::new(hot), &[HOT_SERVICE_NAME])?
        .http(move |rpc| {
            weir_transcode::rest(
                weir_proto::DESCRIPTORS,
                &[SERVICE_NAME, metrics::SERVICE_NAME],
                rpc,
                &limits,
            )
        });

    tokio::try_join!(
        async { host.serve(listeners).await.map_err(Error::from) },
        group::take_part(shared, shutdown.clone(), publishing),
        async {
            board.look_on(shutdown.clone(), log_check, partitions_check).await;
            Ok(())
        },
    )?;
    Ok(())
}
