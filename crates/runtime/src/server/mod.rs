//! Serves one service: its gRPC on one port, everything on HTTP on the other, until the shutdown; then drains.
//!
//! ```text
//! accept ─ connection limits ─ the chain of layers ─┬─ content type application/grpc: the tonic routes, reflection, health,
//!                                                    │  `weir.metrics.v1.MetricsService`
//!                                                    └─ else (HTTP port only): /healthz /readyz /metrics, the service's router
//! ```
//! Both ports share the chain ([`layers`]), its limits and its counters. The HTTP port takes gRPC-Web and gRPC, too.
//!
//! A service ends its own endless streams when the [`Shutdown`] is requested; what still runs after
//! `server.drain_timeout` is cut and named in the log.

mod accept;
mod body;
mod call;
pub mod decoded;
mod host;
mod layers;
mod messages;
mod operations;
mod receive;

use std::{sync::Arc, time::Duration};

use axum::Router;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{Health, Listeners, Metrics, Shutdown, config, metrics};
use call::Calls;

pub use call::{Deadline, Route};
pub use receive::{Budget, Lasting, RequestMemory};

/// After the last call ended: time for the connections to send what they hold. Those of health watchers never end by
/// themselves and are closed after it.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(250);

/// One service, ready to be served.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    metrics: Metrics,
    health: Health,
    limits: config::Server,
    budget: Option<Budget>,
    routes: Routes,
    /// Full names of the RPC services that are served.
    services: Vec<String>,
    descriptors: FileDescriptorSet,
    /// The same as they came, with the options that the decoded ones lose.
    encoded: Vec<Vec<u8>>,
    http: Router,
}

/// Why a service could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor set is not the one that was compiled in.
    #[error("the file descriptor set of {service} does not decode: {source}")]
    Descriptors {
        /// The service's name.
        service: &'static str,
        /// What is wrong with it.
        source: prost::DecodeError,
    },
    /// A service is in no descriptor set.
    #[error("the descriptors of {service} have no service {name}")]
    UnknownService {
        /// The server's name.
        service: &'static str,
        /// The RPC service that is missing.
        name: String,
    },
    /// The descriptor set decodes but does not fit together.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Server {
    /// An empty service with the default limits. `name` is the `service` label of its metrics: "producer".
    pub fn new(name: &'static str, metrics: Metrics) -> Self {
        Self {
            name,
            metrics,
            health: Health::new(),
            limits: config::Config::default().server,
            budget: None,
            routes: Routes::default(),
            services: vec![metrics::SERVICE_NAME.to_owned()],
            descriptors: metrics::descriptors(),
            encoded: Vec::new(),
            http: Router::new(),
        }
    }

    /// The RPCs, the full names of their services, and the encoded `FileDescriptorSet`s that describe them, among others. The descriptors tell unary from streaming calls
    /// (which have no default deadline), bound the metrics' method label and are what reflection shows; message size and
    /// compression are set on the tonic servers within the routes. Reflection, health and `weir.metrics.v1.MetricsService`
    /// are added by the server and must not be among them.
    ///
    /// # Errors
    /// [`Error::Descriptors`] when a set does not decode, [`Error::UnknownService`] when none describes a service.
    pub fn grpc(
        mut self,
        routes: Routes,
        services: &[&str],
        descriptor_sets: &[&[u8]],
    ) -> Result<Self, Error> {
        for encoded in descriptor_sets {
            let set = FileDescriptorSet::decode(*encoded)
                .map_err(|source| Error::Descriptors { service: self.name, source })?;
            for file in set.file {
                // Sets overlap in what they import.
                if !self.descriptors.file.iter().any(|known| known.name == file.name) {
                    self.descriptors.file.push(file);
                }
            }
        }
        for name in services {
            let described = self.descriptors.file.iter().any(|file| {
                file.service.iter().any(|known| format!("{}.{}", file.package(), known.name()) == **name)
            });
            if !described {
                return Err(Error::UnknownService { service: self.name, name: (*name).to_owned() });
            }
            self.services.push((*name).to_owned());
        }
        self.encoded.extend(descriptor_sets.iter().map(|encoded| encoded.to_vec()));
        self.routes = routes;
        Ok(self)
    }

    /// The HTTP port's own routes, a fallback of their own included. What they refuse without a body (404, 405) is answered
    /// with a JSON `google.rpc.Status`.
    pub fn http(mut self, router: Router) -> Self {
        self.http = router;
        self
    }

    /// The checks behind `/readyz` and `grpc.health.v1`.
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// The limits, from the configuration.
    pub fn limits(mut self, limits: config::Server) -> Self {
        self.limits = limits;
        self
    }

    /// The memory of requests in progress, shared with the other services of the process. Without it, the service has a
    /// budget of its own.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Serves until `shutdown` is requested and the calls in progress ended or were cut.
    ///
    /// # Errors
    /// [`Error`], before the first connection is accepted; afterwards nothing stops it but the shutdown.
    pub async fn serve(self, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
        let Self { name, metrics, health, limits, budget, routes, services, descriptors, encoded, http } =
            self;
        let budget = budget.unwrap_or_else(|| Budget::new(&limits));
        let calls = Arc::new(Calls::new(name, &metrics, &descriptors, &limits, budget));
        let routes = routes.add_service(metrics::service(metrics.clone(), shutdown.clone()));
        let operations = operations::grpc(routes, services, descriptors, &encoded, &limits)?;
        let http = operations::http(http, health.clone(), metrics.clone(), &limits);

        let mut background = JoinSet::new();
        background.spawn(operations::report_health(health.clone(), operations.reporter, operations.services));

        let accepting = CancellationToken::new();
        let ports = accept::Ports {
            service: name,
            limits: limits.clone(),
            metrics,
            stop: accepting.clone(),
            connections: accept::Connections::default(),
        };
        if let Some(listener) = listeners.grpc {
            let chain = layers::chain(operations.routes.clone(), layers::not_http(), &calls, &limits);
            background.spawn(ports.clone().accept(listener, "grpc", chain));
        }
        let chain = layers::chain(operations.routes, http, &calls, &limits);
        background.spawn(ports.clone().accept(listeners.http, "http", chain));

        shutdown.requested().await;
        health.drain();
        accepting.cancel();
        if tokio::time::timeout(limits.drain_timeout, calls.none_in_flight()).await.is_err() {
            tracing::warn!(service = name, calls = %calls.in_flight(), "cut the calls that did not end in time");
        }
        ports.connections.close(FLUSH_TIMEOUT).await;
        tracing::debug!(service = name, "drained");
        Ok(())
    }
}
