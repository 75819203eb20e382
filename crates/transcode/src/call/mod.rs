//! One gRPC call with message bytes that are ready made, to routes in this process or to a channel alike, and the shapes that an RPC
//! has over HTTP.
//!
//! | module | what it is |
//! |---|---|
//! | `unary`, `stream`, `upload` | one answer, a stream of them, a stream of requests |
//! | `file` | answers that are files: `google.api.HttpBody` |

pub(crate) mod file;
pub(crate) mod stream;
pub(crate) mod unary;
pub(crate) mod upload;

use std::time::Duration;

use axum::extract::Request as HttpRequest;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures::Stream;
use http::{Extensions, HeaderMap};
use tokio::time::Instant;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{KeyAndValueRef, MetadataMap},
};
use tower::util::BoxCloneSyncService;
use weir_runtime::{
    config,
    server::{Deadline, Lasting},
    trace::{TRACEPARENT, TraceContext},
};

use crate::{
    binding::rule::{Rpc, Shape},
    message::json,
};

/// Whatever answers gRPC requests.
pub(crate) type Backend =
    BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, Status>;

/// A silent stream shows this often that it lives, so that proxies keep it and a dead reader is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What answers calls, and within which limits.
#[derive(Debug)]
pub(crate) struct Rest {
    backend: Backend,
    /// What one message may take.
    limits: json::Limits,
    /// How long a line of an upload may take from its first byte to its last.
    line_timeout: Duration,
    heartbeat: Duration,
}

impl Rest {
    pub(crate) fn new(backend: Backend, limits: &config::Server) -> Self {
        let (line_timeout, limits) = (limits.request_timeout, json::Limits::new(limits));
        Self { backend, limits, line_timeout, heartbeat: HEARTBEAT }
    }
}

/// An answer's bytes at most. Services bound their answers by rows; this keeps a faulty one from taking all memory.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Request headers that become metadata, beside those that begin with [`OWN`].
const FORWARDED: &[&str] = &["authorization", "traceparent", "tracestate", "x-request-id", "x-forwarded-for"];
/// Headers of this prefix go both ways.
const OWN: &str = "weir-";

/// What a call takes over from the HTTP request.
#[derive(Debug)]
pub(crate) struct Caller {
    headers: HeaderMap,
    /// What the server knows of the request: the peer's address, the trace, the deadline. A handler in this process finds
    /// it where it would if the call had come as gRPC.
    extensions: Extensions,
    /// When the caller stops waiting.
    pub(crate) deadline: Option<Instant>,
}

impl Caller {
    /// Reads the request's head.
    pub(crate) fn of(request: &HttpRequest, shape: Shape) -> Self {
        let forwarded = |name: &str| FORWARDED.contains(&name) || name.starts_with(OWN);
        let headers = request.headers().iter().filter(|(name, _)| forwarded(name.as_str()));
        let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.at);
        // A stream outlives the default deadline, which is meant for calls that end by themselves.
        let limited = shape == Shape::Unary || request.headers().contains_key("grpc-timeout");
        if shape == Shape::ClientStream
            && let Some(lasting) = request.extensions().get::<Lasting>()
        {
            lasting.declare();
        }
        let mut extensions = request.extensions().clone();
        if !limited {
            extensions.remove::<Deadline>();
        }
        Self {
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
            extensions,
            deadline: deadline.filter(|_| limited),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        if let Some(trace) = self.extensions.get::<TraceContext>()
            && let Ok(value) = trace.to_string().parse()
        {
            request.metadata_mut().insert(TRACEPARENT, value);
        }
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        *request.extensions_mut() = self.extensions.clone();
        request
    }
}

/// Sends one message and takes one.
///
/// # Errors
/// The call's status.
pub(crate) async fn unary(
    backend: &Backend,
    rpc: &Rpc,
    caller: &Caller,
    message: Bytes,
) -> Result<(HeaderMap, Bytes), Status> {
    client_stream(backend, rpc, caller, futures::stream::iter([message])).await
}

/// Sends a stream and takes one message.
///
/// # Errors
/// The call's status.
pub(crate) async fn client_stream(
    backend: &Backend,
    rpc: &Rpc,
    caller: &Caller,
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<(HeaderMap, Bytes), Status> {
    let mut grpc = ready(backend).await?;
    let answer = grpc.client_streaming(caller.request(messages), rpc.path.clone(), Raw).await?;
    let (metadata, message, _) = answer.into_parts();
    Ok((own_headers(&metadata), message))
}

/// Sends one message and takes a stream.
///
/// # Errors
/// The call's status, if it failed before the first message.
pub(crate) async fn server_stream(
    backend: &Backend,
    rpc: &Rpc,
    caller: &Caller,
    message: Bytes,
) -> Result<(HeaderMap, Streaming<Bytes>), Status> {
    let mut grpc = ready(backend).await?;
    let answer = grpc.server_streaming(caller.request(message), rpc.path.clone(), Raw).await?;
    let (metadata, stream, _) = answer.into_parts();
    Ok((own_headers(&metadata), stream))
}

async fn ready(backend: &Backend) -> Result<Grpc<Backend>, Status> {
    let mut grpc = Grpc::new(backend.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
    grpc.ready().await?;
    Ok(grpc)
}

fn own_headers(metadata: &MetadataMap) -> HeaderMap {
    let own = metadata.iter().filter_map(|entry| match entry {
        KeyAndValueRef::Ascii(key, _) if key.as_str().starts_with(OWN) => Some(key.as_str()),
        KeyAndValueRef::Ascii(..) | KeyAndValueRef::Binary(..) => None,
    });
    own.filter_map(|key| Some((key.parse().ok()?, metadata.as_ref().get(key)?.clone()))).collect()
}

/// Messages as they are on the wire.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
