//! What is known of a call before its handler runs, and the table of calls in progress.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, Request, Response, header};
use prost_types::FileDescriptorSet;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::{Code, Status};

use crate::{
    config,
    metrics::{Counter, Gauge, Histogram, Metrics},
    server::{
        decoded::{MessageId, Schema},
        receive::Budget,
    },
    status::{self, Reason},
};

/// When the caller stops waiting, in the extensions of every request that has a deadline. Handlers that wait for something
/// (a consistency token) wait no longer than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// The pattern that an HTTP request matched (`/v1/users/{user_id}`), in the extensions of the *response*: the metrics'
/// `route` label. Routers of axum set it by themselves; other routers insert it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route(pub Arc<str>);

/// How the caller speaks, which decides how it is refused. gRPC-Web has been translated by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

impl Protocol {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let is_grpc = content_type(request.headers()).is_some_and(|t| t.starts_with("application/grpc"));
        if is_grpc { Self::Grpc } else { Self::Http }
    }

    /// An error in the caller's own form.
    pub(super) fn refuse(self, status: Status) -> Response<Body> {
        match self {
            Self::Grpc => status.into_http(),
            Self::Http => status::into_http(&status),
        }
    }
}

pub(super) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

/// Ports' own business, which goes on under overload and holds up no drain.
pub(super) fn is_operational(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
        || path.starts_with("/grpc.health.")
        || path.starts_with("/grpc.reflection.")
}

/// One RPC of the schema with its bound instruments, or the place of all others.
#[derive(Debug)]
pub(super) struct Method {
    name: String,
    /// Whether it may last: no default deadline.
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

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// The table of a service: every RPC, and what is in flight.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) service: &'static str,
    pub(super) metrics: Metrics,
    methods: HashMap<String, Arc<Method>>,
    unknown: Arc<Method>,
    http: Arc<Method>,
    permits: Arc<Semaphore>,
    pub(super) request_timeout: Duration,
    pub(super) max_message_bytes: usize,
    pub(super) schema: Schema,
    pub(super) budget: Budget,
    gauge: Gauge,
    total: AtomicUsize,
    idle: Notify,
}

impl Calls {
    pub(super) fn new(
        service: &'static str,
        metrics: &Metrics,
        descriptors: &FileDescriptorSet,
        limits: &config::Server,
        budget: Budget,
    ) -> Self {
        let schema = Schema::new(descriptors);
        let mut methods = HashMap::new();
        for file in &descriptors.file {
            for service in &file.service {
                for rpc in &service.method {
                    let name = format!("{}.{}/{}", file.package(), service.name(), rpc.name());
                    let streaming = rpc.client_streaming() || rpc.server_streaming();
                    let input = schema.message(rpc.input_type());
                    let method = Method::new(name.clone(), streaming, rpc.client_streaming(), input);
                    methods.insert(format!("/{name}"), method);
                }
            }
        }
        Self {
            service,
            metrics: metrics.clone(),
            methods,
            // What does not exist, and RPCs whose descriptors were not given, which might stream.
            unknown: Method::new("other".to_owned(), true, true, None),
            http: Method::new("http".to_owned(), false, false, None),
            permits: Arc::new(Semaphore::new(limits.max_concurrent_requests.min(Semaphore::MAX_PERMITS))),
            request_timeout: limits.request_timeout,
            max_message_bytes: limits.max_message_bytes,
            schema,
            budget,
            gauge: metrics.requests_in_flight(service),
            total: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    pub(super) fn method(&self, protocol: Protocol, path: &str) -> &Arc<Method> {
        match protocol {
            Protocol::Grpc => self.methods.get(path).unwrap_or(&self.unknown),
            Protocol::Http => &self.http,
        }
    }

    /// A place among the calls in progress, or none when all are taken.
    pub(super) fn admit(self: &Arc<Self>, method: &Arc<Method>) -> Option<InFlight> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        self.total.fetch_add(1, Ordering::Relaxed);
        method.in_flight.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        Some(InFlight { calls: self.clone(), method: method.clone(), _permit: permit })
    }

    pub(super) fn record_grpc(&self, method: &Method, code: Code, elapsed: Duration) {
        let handling =
            method.handling.get_or_init(|| self.metrics.grpc_server_handling(self.service, &method.name));
        handling.observe(elapsed.as_secs_f64());
        let counter = method.handled[code as usize]
            .get_or_init(|| self.metrics.grpc_server_handled(self.service, &method.name, code_name(code)));
        counter.inc();
    }

    pub(super) fn record_http(&self, route: &str, code: http::StatusCode, elapsed: Duration) {
        self.metrics.http_request_duration(self.service, route).observe(elapsed.as_secs_f64());
        self.metrics.http_requests(self.service, route, code.as_str()).inc();
    }

    /// Resolves when no call is in progress, for the drain.
    pub(super) async fn none_in_flight(&self) {
        loop {
            let changed = self.idle.notified();
            if self.total.load(Ordering::Acquire) == 0 {
                return;
            }
            changed.await;
        }
    }

    /// The calls in progress, for the log: `weir.ingest.v1.IngestService/StreamEvents: 3`.
    pub(super) fn in_flight(&self) -> impl fmt::Display {
        let all = self.methods.values().chain([&self.unknown, &self.http]);
        let mut busy: Vec<String> = all
            .map(|method| (method, method.in_flight.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .map(|(method, count)| format!("{}: {count}", method.name))
            .collect();
        busy.sort();
        busy.join(", ")
    }
}

/// A call in progress; dropped with the last byte of its answer.
#[derive(Debug)]
pub(super) struct InFlight {
    calls: Arc<Calls>,
    method: Arc<Method>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.calls.gauge.dec();
        self.method.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.calls.total.fetch_sub(1, Ordering::Release) == 1 {
            self.calls.idle.notify_waiters();
        }
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

/// What prost says of bytes that are no message; tonic answers it with `INTERNAL`, as if the fault were ours.
const NOT_DECODED: &str = "failed to decode Protobuf message: ";

/// Says in the headers or trailers of a gRPC answer that a request which does not decode is the caller's fault.
pub(super) fn blame_undecodable_request(headers: &mut HeaderMap) {
    if headers.get(Status::GRPC_STATUS).is_none_or(|code| code != "13") {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else { return };
    let Some(what) = status.message().strip_prefix(NOT_DECODED) else { return };
    let status = Reason::BodyMalformed.status(format!(
        "the request is not the Protobuf message that this call takes: {what}; compare it with the schema, which \
         `grpcurl describe` shows, and nest properties at most 5 deep"
    ));
    // Its header values are ASCII, as gRPC encodes them.
    let _ = status.add_header(headers);
}

/// The caller's own deadline from `grpc-timeout`, which HTTP callers may send as well: up to eight digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>). A malformed one counts as none.
pub(super) fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_as_specified() {
        let timeout = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout_of(&headers)
        };
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "1", "m", "+1S", "123456789S", "1s", "1.5S"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
        assert_eq!(timeout_of(&HeaderMap::new()), None);
    }
}
