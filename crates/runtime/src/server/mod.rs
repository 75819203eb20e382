//! [`Host`] serves one service: its gRPC on one port, everything on HTTP on the other, until the shutdown; then drains.
//!
//! ```text
//! accept ─ limits of connections ─ [`port`]: CORS ─ trace ─ host ─┬─ gRPC, gRPC-Web: [`rpc`]: the layers, the tonic routes
//!                                                                 ├─ health, reflection
//!                                                                 └─ else (HTTP port only): /healthz /readyz /metrics, the
//!                                                                    service's router; REST goes on to [`rpc`] from there
//! ```
//! Both ports share the layers, their limits and their counters. The HTTP port takes gRPC-Web and gRPC, too.
//!
//! A service ends its own endless streams when the [`Shutdown`](crate::Shutdown) is requested; what still runs after
//! `server.drain_timeout` is cut and named in the log.

pub mod decoded;
mod memory;
mod method;
mod operations;
mod port;
mod rpc;

use std::{error, fmt, sync::Arc, time::Duration};

use axum::Router;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorSet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::{memory::Measure, method::Methods};
use crate::{Context, Health, Listeners, auth::Principal, clock, metrics};

pub use memory::{Budget, Lasting, RequestMemory};
pub use port::Route;
pub use rpc::{Deadline, ResponseFuture, Rpc};

/// Sets on a generated server what all of Weir's RPCs agree on: they take and send gzip and Zstandard, and messages of
/// `server.max_message_bytes`.
#[macro_export]
macro_rules! limited {
    ($server:expr, $limits:expr) => {
        $server
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(tonic::codec::CompressionEncoding::Zstd)
            .send_compressed(tonic::codec::CompressionEncoding::Gzip)
            .send_compressed(tonic::codec::CompressionEncoding::Zstd)
            .max_decoding_message_size($limits.max_message_bytes)
    };
}

/// After the last call ended: time for the connections to send what they hold. Those of health watchers never end by
/// themselves and are closed after it.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(250);

/// Makes the HTTP port's own routes of the RPCs that they may call.
type MakeRouter = Box<dyn FnOnce(Rpc) -> Result<Router, Box<dyn error::Error + Send + Sync>> + Send>;

/// One service, ready to be served.
pub struct Host {
    name: &'static str,
    context: Context,
    health: Health,
    routes: Routes,
    /// Full names of the RPC services that are served.
    services: Vec<String>,
    descriptors: FileDescriptorSet,
    /// The same as they came, with the options that the decoded ones lose.
    encoded: Vec<Vec<u8>>,
    http: MakeRouter,
    /// What the internal port serves, and the full names of its services.
    internal: Option<(Routes, Vec<String>)>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
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
    /// The descriptor sets do not fit together.
    #[error("the descriptors of {service}: {source}")]
    Pool {
        /// The service's name.
        service: &'static str,
        /// What is wrong with them.
        source: prost_reflect::DescriptorError,
    },
    /// An RPC that everybody could call.
    #[error("{method} names no scope: add `option (weir.auth.v1.scope)` to it in the schema")]
    NoScope {
        /// Its name.
        method: String,
    },
    /// The descriptor set decodes but does not fit together.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The routes of the HTTP port can't be made.
    #[error("the HTTP routes of {service}: {source}")]
    Http {
        /// The service's name.
        service: &'static str,
        /// Why.
        source: Box<dyn error::Error + Send + Sync>,
    },
}

/// The RPCs of a host, and what its ports share with them.
#[derive(Debug)]
struct Core {
    rpc: Rpc,
    methods: Arc<Methods>,
    admission: Arc<rpc::Admission>,
    measure: Arc<Measure>,
}

impl Core {
    /// Of some of a host's RPCs, called by `everybody`.
    fn new(host: &Host, routes: Routes, services: &[String], everybody: Principal) -> Result<Self, Error> {
        let Host { name, context, descriptors, encoded, .. } = host;
        let name = *name;
        let Context { config, metrics, budget, .. } = context;
        let limits = &config.server;
        let measure = Arc::new(Measure {
            service: name,
            metrics: metrics.clone(),
            schema: decoded::Schema::new(descriptors),
            budget: budget.clone(),
        });
        let mut pool = DescriptorPool::new();
        for set in [weir_proto::DESCRIPTORS].into_iter().chain(encoded.iter().map(Vec::as_slice)) {
            let added = pool.decode_file_descriptor_set(set);
            added.map_err(|source| Error::Pool { service: name, source })?;
        }
        let methods = Methods::new(&pool, &measure.schema, services);
        let methods = Arc::new(methods.map_err(|method| Error::NoScope { method })?);
        let admission = Arc::new(rpc::Admission::new(name, metrics, limits));
        let rpc =
            Rpc::new(routes.prepare().into_axum_router(), &methods, &admission, &measure, everybody, limits);
        Ok(Self { rpc, methods, admission, measure })
    }
}

impl Host {
    /// Serves no RPC yet. `name` is the `service` label of its metrics: "producer".
    pub fn new(name: &'static str, context: Context) -> Self {
        Self {
            name,
            context,
            health: Health::new(),
            routes: Routes::default(),
            services: vec![metrics::SERVICE_NAME.to_owned()],
            descriptors: metrics::descriptors(),
            encoded: Vec::new(),
            http: Box::new(|_| Ok(Router::new())),
            internal: None,
        }
    }

    /// The checks behind `/readyz` and `grpc.health.v1`, for the service to register its own.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The RPCs, the full names of their services, and the encoded `FileDescriptorSet`s that describe them, among others. The descriptors tell unary from streaming calls
    /// (which have no default deadline), bound the metrics' method label and are what reflection shows; message size and
    /// compression are set on the tonic servers within the routes, with [`limited`]. Reflection, health and `weir.metrics.v1.MetricsService`
    /// are added by the host and must not be among them.
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
            self.check_described(name)?;
            self.services.push((*name).to_owned());
        }
        self.encoded.extend(descriptor_sets.iter().map(|encoded| encoded.to_vec()));
        self.routes = routes;
        Ok(self)
    }

    /// The HTTP port's own routes, a fallback of their own included, made of the RPCs behind their layers. What they refuse without
    /// a body (404, 405) is answered with a JSON `google.rpc.Status`.
    pub fn http<E>(mut self, router: impl FnOnce(Rpc) -> Result<Router, E> + Send + 'static) -> Self
    where
        E: Into<Box<dyn error::Error + Send + Sync>>,
    {
        self.http = Box::new(|rpc| router(rpc).map_err(Into::into));
        self
    }

    /// The RPCs that only other services of Weir may call, on the internal port where there is one, and the full names of their
    /// services. Their scope is `internal`, which nobody has on the other ports.
    ///
    /// # Errors
    /// [`Error::UnknownService`] when the descriptors that were given before have no such service.
    pub fn internal(mut self, routes: Routes, services: &[&str]) -> Result<Self, Error> {
        for name in services {
            self.check_described(name)?;
        }
        self.internal = Some((routes, services.iter().map(|name| (*name).to_owned()).collect()));
        Ok(self)
    }

    fn check_described(&self, name: &str) -> Result<(), Error> {
        let described = self.descriptors.file.iter().any(|file| {
            file.service.iter().any(|known| format!("{}.{}", file.package(), known.name()) == name)
        });
        if described {
            Ok(())
        } else {
            Err(Error::UnknownService { service: self.name, name: name.to_owned() })
        }
    }

    /// The RPCs that everybody may call.
    fn core(&self) -> Result<Core, Error> {
        let Context { config, metrics, shutdown, .. } = &self.context;
        let metrics = metrics::service(metrics.clone(), shutdown.clone(), &config.server);
        let routes = self.routes.clone().add_service(metrics);
        Core::new(self, routes, &self.services, self.context.everybody())
    }

    /// The RPCs behind their layers, for calls within the process. Nothing is bound.
    ///
    /// # Errors
    /// [`Error`], where the descriptors are not as they must be.
    pub fn into_rpc(self) -> Result<Rpc, Error> {
        Ok(self.core()?.rpc)
    }

    /// Serves until the shutdown of its context is requested and the calls in progress ended or were cut.
    ///
    /// # Errors
    /// [`Error`], before the first connection is accepted; afterwards nothing stops it but the shutdown.
    pub async fn serve(self, listeners: Listeners) -> Result<(), Error> {
        let core = self.core()?;
        let internal = match (&self.internal, listeners.internal) {
            (Some((routes, services)), Some(listener)) => {
                Some((Core::new(&self, routes.clone(), services, self.context.internal())?, listener))
            }
            _ => None,
        };
        let Self { name, context, health, services, descriptors, encoded, http, routes: _, internal: _ } =
            self;
        let Context { config, metrics, shutdown, .. } = context;
        let limits = &config.server;
        let operations = operations::grpc(services, descriptors, &encoded, limits)?;
        let http = http(core.rpc.clone()).map_err(|source| Error::Http { service: name, source })?;
        let http = operations::http(http, health.clone(), metrics.clone(), limits);

        let mut background = JoinSet::new();
        background.spawn(clock::watch(metrics.clone(), name, shutdown.clone()));
        background.spawn(operations::report_health(health.clone(), operations.reporter, operations.services));

        let accepting = CancellationToken::new();
        let ports = port::Ports {
            service: name,
            limits: limits.clone(),
            metrics,
            stop: accepting.clone(),
            connections: port::Connections::default(),
        };
        if let Some(listener) = listeners.grpc {
            let stack = port::stack(&core, operations.routes.clone(), port::not_http(), limits);
            background.spawn(ports.clone().accept(listener, "grpc", port::Tcp, stack));
        }
        let internal = internal.map(|(internal, listener)| {
            let stack = port::stack(&internal, operations.routes.clone(), port::not_http(), limits);
            background.spawn(ports.clone().accept(listener, "internal", port::Tcp, stack));
            internal
        });
        let stack = port::stack(&core, operations.routes, http, limits);
        background.spawn(ports.clone().accept(listeners.http, "http", port::Tcp, stack));

        shutdown.requested().await;
        health.drain();
        accepting.cancel();
        let ended = async {
            core.admission.none_in_flight().await;
            if let Some(internal) = &internal {
                internal.admission.none_in_flight().await;
            }
        };
        if tokio::time::timeout(limits.drain_timeout, ended).await.is_err() {
            tracing::warn!(
                service = name,
                calls = core.methods.in_flight(),
                "cut the calls that did not end in time"
            );
        }
        ports.connections.close(FLUSH_TIMEOUT).await;
        tracing::debug!(service = name, "drained");
        Ok(())
    }
}
