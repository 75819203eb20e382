//! The RPCs that a server knows, with what its layers need to know of each.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prost_reflect::{DescriptorPool, ExtensionDescriptor, MethodDescriptor, Value};
use tonic::Code;

use super::decoded::{MessageId, Schema};
use crate::{
    auth::Scope,
    metrics::{Counter, Histogram, Metrics},
};

/// The option of a method that names its scope.
const SCOPE_OPTION: &str = "weir.auth.v1.scope";

/// One RPC of the schema with its bound instruments.
#[derive(Debug)]
pub(super) struct Method {
    /// `weir.ingest.v1.IngestService/IngestEvents`
    pub(super) name: String,
    /// Whether it streams in either direction: it may last, so it has no default deadline.
    pub(super) streaming: bool,
    /// Whether its request is a stream, of which only one message is held at a time.
    pub(super) uploads: bool,
    /// The type of its request.
    pub(super) input: Option<MessageId>,
    /// What a caller needs. Only methods that are not served have none.
    pub(super) scope: Option<Scope>,
    in_flight: AtomicUsize,
    /// Bound at the first call, and the codes when they first occur, so that `/metrics` lists nothing that never happened.
    handling: OnceLock<Histogram>,
    /// By gRPC code.
    handled: [OnceLock<Counter>; 17],
}

impl Method {
    /// A place for calls that are no method of the schema.
    fn other(name: &str, streaming: bool) -> Self {
        Self {
            name: name.to_owned(),
            streaming,
            uploads: streaming,
            input: None,
            scope: None,
            in_flight: AtomicUsize::new(0),
            handling: OnceLock::new(),
            handled: Default::default(),
        }
    }

    fn described(method: &MethodDescriptor, schema: &Schema, option: Option<&ExtensionDescriptor>) -> Self {
        let name = format!("{}/{}", method.parent_service().full_name(), method.name());
        let scope = option.and_then(|option| {
            let Value::EnumNumber(number) = *method.options().get_extension(option) else { return None };
            Scope::try_from(number).ok().filter(|scope| *scope != Scope::Unspecified)
        });
        Self {
            uploads: method.is_client_streaming(),
            input: schema.message(method.input().full_name()),
            scope,
            ..Self::other(&name, method.is_client_streaming() || method.is_server_streaming())
        }
    }

    /// Counts a call that ended.
    pub(super) fn record(&self, service: &'static str, metrics: &Metrics, code: Code, elapsed: Duration) {
        let handling = self.handling.get_or_init(|| metrics.grpc_server_handling(service, &self.name));
        handling.observe(elapsed.as_secs_f64());
        let counter = self.handled[code as usize]
            .get_or_init(|| metrics.grpc_server_handled(service, &self.name, code_name(code)));
        counter.inc();
    }

    pub(super) fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The RPCs of a server by path, and a place for all others.
#[derive(Debug)]
pub(super) struct Methods {
    by_path: HashMap<String, Arc<Method>>,
    /// What does not exist, and RPCs whose descriptors were not given, which might stream.
    unknown: Arc<Method>,
    /// Requests over HTTP that have not become an RPC.
    http: Arc<Method>,
}

impl Methods {
    /// # Errors
    /// The name of a method of `served` that has no scope.
    pub(super) fn new(pool: &DescriptorPool, schema: &Schema, served: &[String]) -> Result<Self, String> {
        let option = pool.get_extension_by_name(SCOPE_OPTION);
        let mut by_path = HashMap::new();
        for service in pool.services() {
            let is_served = served.iter().any(|name| name == service.full_name());
            for method in service.methods() {
                let method = Method::described(&method, schema, option.as_ref());
                if is_served && method.scope.is_none() {
                    return Err(method.name);
                }
                by_path.insert(format!("/{}", method.name), Arc::new(method));
            }
        }
        Ok(Self {
            by_path,
            unknown: Arc::new(Method::other("other", true)),
            http: Arc::new(Method::other("http", false)),
        })
    }

    /// The RPC with a path: `/weir.ingest.v1.IngestService/IngestEvents`.
    pub(super) fn get(&self, path: &str) -> &Arc<Method> {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }

    pub(super) fn http(&self) -> &Arc<Method> {
        &self.http
    }

    /// The calls in progress, for the log: `weir.ingest.v1.IngestService/StreamEvents: 3`.
    pub(super) fn in_flight(&self) -> String {
        let all = self.by_path.values().chain([&self.unknown, &self.http]);
        let mut busy: Vec<String> = all
            .map(|method| (method, method.in_flight.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .map(|(method, count)| format!("{}: {count}", method.name))
            .collect();
        busy.sort();
        busy.join(", ")
    }
}

/// The codes' names in the schema of metrics dashboards, as in go-grpc-prometheus.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
