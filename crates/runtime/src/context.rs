//! What a service is started with, besides its log and its listeners.

use std::sync::Arc;

use crate::{
    Config, Metrics, Shutdown,
    auth::{Principal, ProjectId, Scope, Scopes},
    server::Budget,
};

/// Everything that the services of one process share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// The configuration, as loaded.
    pub config: Arc<Config>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The request to stop; services drain and return when it comes.
    pub shutdown: Shutdown,
    /// The memory of all requests in progress.
    pub budget: Budget,
    /// Name of this process among its kind, for status and logs: `host-pid` unless told otherwise.
    pub instance: String,
}

impl Context {
    /// Who calls while no credentials are asked for.
    pub fn everybody(&self) -> Principal {
        Principal {
            project: ProjectId::default_project(),
            subject: "development".into(),
            scopes: Scopes::DEVELOPMENT,
            quota: None,
        }
    }

    /// Who calls the internal port.
    pub(crate) fn internal(&self) -> Principal {
        Principal {
            project: ProjectId::default_project(),
            subject: "internal".into(),
            scopes: Scopes::of(&[Scope::Internal]),
            quota: None,
        }
    }

    /// A context with fresh metrics and the instance name `host-pid`.
    pub fn new(config: Config, shutdown: Shutdown) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
        Self {
            budget: Budget::new(&config.server),
            config: Arc::new(config),
            metrics: Metrics::new(),
            shutdown,
            instance: format!("{host}-{}", std::process::id()),
        }
    }
}
