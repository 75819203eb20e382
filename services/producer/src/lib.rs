//! The producer service: takes events in and answers when they are durable in the log.
//!
//! ```text
//! service ─┬─ unary, batch ──┐   valid: rules, identity, corrected time     ┌ partition 0 ┐
//!          ├─ upload (chunks)├─▶ batch: without duplicates, encoded once ─▶ ├ partition 1 ├─▶ the log
//!          └─ stream (credits)┘   partition: Kafka's murmur2 of the user    └ partition 2 ┘   append: bounded, retried
//! ```
//!
//! It keeps no state that matters: any number of producers may run beside each other, and the offsets of clients' clocks
//! that one remembers are stamped into the records. It does not remove duplicates across requests (the consumer does, where
//! all requests of a user meet), and it queues nothing of its own: what waits is in the log's bounded queue, counted
//! against `producer.max_in_flight_bytes`.

mod append;
mod batch;
mod clock;
mod error;
pub mod partition;
mod recent;
mod service;
mod stream;
mod upload;
mod valid;

use std::{sync::Arc, time::Duration};

use tokio::time::{interval, timeout};
use tonic::service::Routes;
use weir_log::EventLog;
use weir_proto::ingest::v1::ingest_service_server::{IngestServiceServer, SERVICE_NAME};
use weir_runtime::{Context, Host, Listeners, health::Check, metrics};

pub use service::Ingest;

/// The `service` label of the producer's metrics.
const SERVICE: &str = "producer";

/// How often the log is asked whether it can be reached, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Why the service could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its ports.
    #[error(transparent)]
    Server(#[from] weir_runtime::server::Error),
}

/// The RPCs as tonic routes, with their compression and size limits.
pub fn routes(context: &Context, log: Arc<dyn EventLog>) -> Routes {
    routes_of(Ingest::new(context, log), context)
}

fn routes_of(ingest: Ingest, context: &Context) -> Routes {
    Routes::new(weir_runtime::limited!(IngestServiceServer::new(ingest), context.config.server))
}

/// Serves on both ports until the shutdown is requested, then finishes what is under way.
///
/// # Errors
/// [`Error`], before anything is served.
pub async fn serve(context: Context, log: Arc<dyn EventLog>, listeners: Listeners) -> Result<(), Error> {
    let host = Host::new(SERVICE, context.clone());
    let ingest = Ingest::new(&context, log);
    context.shutdown.spawn(watch_log(
        ingest.clone(),
        host.health().register("log"),
        context.shutdown.clone(),
    ));
    let routes = routes_of(ingest, &context);
    let limits = context.config.server.clone();
    host.grpc(routes, &[SERVICE_NAME], &[weir_proto::DESCRIPTORS])?
        .http(move |rpc| {
            weir_transcode::rest(
                weir_proto::DESCRIPTORS,
                &[SERVICE_NAME, metrics::SERVICE_NAME],
                rpc,
                &limits,
            )
        })
        .serve(listeners)
        .await?;
    Ok(())
}

/// Keeps the readiness check current.
async fn watch_log(ingest: Ingest, check: Check, shutdown: weir_runtime::Shutdown) {
    let mut ticks = interval(PING_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.requested() => return,
        }
        match timeout(PING_INTERVAL, ingest.core.appender.ping()).await {
            Ok(Ok(())) => check.ok(),
            Ok(Err(error)) => check.failing(error.to_string()),
            Err(_elapsed) => check.failing(format!("the log did not answer within {PING_INTERVAL:?}")),
        }
    }
}
