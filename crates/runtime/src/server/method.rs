//! The RPCs that a server knows, with what its layers need to know of each.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prost_types::FileDescriptorSet;
use tonic::Code;

use super::decoded::{MessageId, Schema};
use crate::metrics::{Counter, Histogram, Metrics};

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
    in_flight: AtomicUsize,
    /// Bound at the first call, and the codes when they first occur, so that `/metrics` lists nothing that never happened.
    handling: OnceLock<Histogram>,
    /// By gRPC code.
    handled: [OnceLock<Counter>; 17],
}

impl Method {
    fn new(name: String, streaming: bool, uploads: bool, input: Option<MessageId>) -> Arc<Self> {
        Arc::new(Self {
            name,
            streaming,
            uploads,
            input,
            in_flight: AtomicUsize::new(0),
            handling: OnceLock::new(),
            handled: Default::default(),
        })
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
    pub(super) fn new(descriptors: &FileDescriptorSet, schema: &Schema) -> Self {
        let mut by_path = HashMap::new();
        for file in &descriptors.file {
            for service in &file.service {
                for rpc in &service.method {
                    let name = format!("{}.{}/{}", file.package(), service.name(), rpc.name());
                    let streaming = rpc.client_streaming() || rpc.server_streaming();
                    let input = schema.message(rpc.input_type());
                    by_path.insert(
                        format!("/{name}"),
                        Method::new(name, streaming, rpc.client_streaming(), input),
                    );
                }
            }
        }
        Self {
            by_path,
            unknown: Method::new("other".to_owned(), true, true, None),
            http: Method::new("http".to_owned(), false, false, None),
        }
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
