//! The messages of a gRPC request, measured before they are decoded.
//!
//! tonic would decompress and decode in one go. So messages are gathered and decompressed here, their decoded size is
//! estimated and held in the budget, and only then are they passed on, uncompressed. A call with one request holds it until it
//! is answered, a stream until the service asks for the next message.

use std::{
    convert::Infallible,
    io::{self, Read},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, extract::Request};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tower::{Layer, Service};

use super::metrics::Called;
use crate::{
    server::{
        decoded::MessageId,
        memory::{Measure, RequestMemory},
    },
    status::Reason,
};

/// Of a message on the wire: the flag that says whether it is compressed, and its length
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
const HEADER_BYTES: usize = 5;
/// The window that a Zstandard message may need at most: 2^23 bytes, as for the content coding (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;
/// What the messages of a stream may take together, decoded, before other tasks and the call's deadline get their turn: some
/// milliseconds of decoding.
const TURN_BYTES: usize = 1 << 20;
/// tonic copies a message once more before it decodes it.
const COPIES: usize = 2;

/// Measures the messages of a call before the handler decodes them.
#[derive(Debug, Clone)]
pub(super) struct MessagesLayer {
    pub(super) measure: Arc<Measure>,
    pub(super) max_message_bytes: usize,
    /// How long a message of a stream may take from its first byte to its last.
    pub(super) timeout: Duration,
}

impl<S> Layer<S> for MessagesLayer {
    type Service = Receiving<S>;

    fn layer(&self, inner: S) -> Receiving<S> {
        Receiving { inner, layer: self.clone() }
    }
}

/// See [`MessagesLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Receiving<S> {
    inner: S,
    layer: MessagesLayer,
}

impl<S, B> Service<Request> for Receiving<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<Corrected<B>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let memory = match request.extensions().get::<RequestMemory>() {
            Some(memory) => memory.clone(),
            None => {
                let memory = RequestMemory::new(&self.layer.measure);
                request.extensions_mut().insert(memory.clone());
                memory
            }
        };
        let method = request.extensions().get::<Called>();
        let expected = Expected {
            message: method.and_then(|called| called.0.input),
            streams: method.is_none_or(|called| called.0.uploads),
            max_bytes: self.layer.max_message_bytes,
            timeout: self.layer.timeout,
        };
        let (head, body) = request.into_parts();
        let body = Body::new(Messages::new(body, &head.headers, expected, memory));
        ResponseFuture { call: self.inner.call(Request::from_parts(head, body)) }
    }
}

pin_project_lite::pin_project! {
    pub(crate) struct ResponseFuture<F> {
        #[pin]
        call: F,
    }
}

impl<F, B> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Corrected<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(self.project().call.poll(cx));
        correct(response.headers_mut());
        Poll::Ready(Ok(response.map(|body| Corrected { body })))
    }
}

pin_project_lite::pin_project! {
    /// An answer whose trailers blame the caller for a request that does not decode.
    #[derive(Debug, Default)]
    pub(crate) struct Corrected<B> {
        #[pin]
        body: B,
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Corrected<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut frame = ready!(self.project().body.poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            correct(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What prost says of bytes that are no message; tonic answers it with `INTERNAL`, as if the service had failed.
const NOT_DECODED: &str = "failed to decode Protobuf message: ";

/// Says in the headers or trailers of an answer that a request which does not decode is the caller's error.
fn correct(headers: &mut HeaderMap) {
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

/// What messages may be.
#[derive(Debug, Clone)]
struct Expected {
    /// Their type; without it they are limited by their length alone.
    message: Option<MessageId>,
    /// Whether there may be more than one.
    streams: bool,
    max_bytes: usize,
    /// How long a message may take from its first byte to its last, in a stream.
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Zstd,
}

/// The request's body.
#[derive(Debug)]
struct Messages {
    body: Body,
    expected: Expected,
    encoding: Option<Encoding>,
    memory: RequestMemory,
    /// What has come of the next message.
    partial: BytesMut,
    /// Runs while a message of a stream is incomplete.
    patience: Option<Pin<Box<Sleep>>>,
    /// What the message that was passed on last holds.
    current: usize,
    /// What has been passed on since the task last paused.
    turn: usize,
    passed_on: usize,
    failed: bool,
}

impl Messages {
    fn new(body: Body, headers: &HeaderMap, expected: Expected, memory: RequestMemory) -> Self {
        let encoding = headers.get("grpc-encoding").and_then(|value| match value.as_bytes() {
            b"gzip" => Some(Encoding::Gzip),
            b"zstd" => Some(Encoding::Zstd),
            _ => None,
        });
        Self {
            body,
            expected,
            encoding,
            memory,
            partial: BytesMut::new(),
            patience: None,
            current: 0,
            turn: 0,
            passed_on: 0,
            failed: false,
        }
    }

    /// Takes the next message out of `partial` if it is complete, measured and held.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((head, _)) = self.partial.split_at_checked(HEADER_BYTES) else { return Ok(None) };
        let (flag, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize);
        // Before its bytes are waited for.
        if length > self.expected.max_bytes {
            return Err(too_large(self.expected.max_bytes));
        }
        if self.partial.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        if !self.expected.streams && self.passed_on > 0 {
            return Err(Reason::BodyMalformed.status("this call takes one message, not a stream of them"));
        }
        let whole = self.partial.split_to(HEADER_BYTES + length).freeze();
        // What was charged as it came is from here on part of what the message holds.
        self.memory.release(whole.len());
        let whole = match (flag, self.encoding) {
            (0, _) => whole,
            (1, Some(encoding)) => decompress(encoding, &whole[HEADER_BYTES..], self.expected.max_bytes)?,
            (1, None) => {
                return Err(Reason::BodyMalformed.status(
                    "a message is flagged as compressed, but grpc-encoding names no compression; set it to gzip or zstd",
                ));
            }
            (flag, _) => {
                return Err(Reason::BodyMalformed
                    .status(format!("a message begins with the flag {flag}; expected 0 or 1 (compressed)")));
            }
        };
        self.memory.charge(COPIES * whole.len())?;
        self.current += COPIES * whole.len();
        if let Some(message) = self.expected.message {
            self.current += self.memory.charge_decoded(message, &whole[HEADER_BYTES..])?;
        }
        self.passed_on += 1;
        Ok(Some(whole))
    }

    /// What is wrong with how the request ended.
    fn check_end(&self) -> Result<(), Status> {
        if !self.partial.is_empty() {
            return Err(Reason::BodyMalformed.status("the request ends within a message"));
        }
        if !self.expected.streams && self.passed_on == 0 {
            return Err(Reason::BodyMalformed.status("the request holds no message"));
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // The service asks for the next message: it is through with the last one.
        if self.expected.streams {
            self.turn += self.current;
            self.memory.release(std::mem::take(&mut self.current));
            if self.turn >= TURN_BYTES {
                self.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        loop {
            if let Some(message) = self.next().map_err(axum::Error::new)? {
                self.patience = None;
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            if let Some(patience) = &mut self.patience
                && patience.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Some(Err(axum::Error::new(Reason::DeadlineExceeded.status(format!(
                    "a message was not complete {:?} after it began; send it again",
                    self.expected.timeout
                ))))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.memory.charge(data.len()).map_err(axum::Error::new)?;
                        // A message mostly comes in one piece, which need not be copied.
                        if self.partial.is_empty() {
                            self.partial = BytesMut::from(data);
                        } else {
                            self.partial.put(data);
                        }
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => {
                    self.memory.declare_broken();
                    return Poll::Ready(Some(Err(if self.expected.streams {
                        error
                    } else {
                        axum::Error::new(
                            Reason::BodyMalformed.status(format!("the request broke off: {error}")),
                        )
                    })));
                }
                None => {
                    self.check_end().map_err(axum::Error::new)?;
                    return Poll::Ready(None);
                }
            }
            if self.expected.streams && !self.partial.is_empty() && self.patience.is_none() {
                self.patience = Some(Box::pin(sleep(self.expected.timeout)));
            }
        }
    }
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let polled = self.poll(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.failed = true;
            self.memory.release(self.partial.len());
            self.partial = BytesMut::new();
        }
        polled
    }
}

/// The message with its header, as if it had come uncompressed.
fn decompress(encoding: Encoding, compressed: &[u8], max_bytes: usize) -> Result<Bytes, Status> {
    let mut whole = vec![0; HEADER_BYTES];
    let limit = max_bytes as u64 + 1;
    let read = match encoding {
        Encoding::Gzip => flate2::read::GzDecoder::new(compressed).take(limit).read_to_end(&mut whole),
        Encoding::Zstd => zstd(compressed).and_then(|decoder| decoder.take(limit).read_to_end(&mut whole)),
    };
    read.map_err(|error| {
        Reason::BodyMalformed
            .status(format!("a message is not the {encoding:?} that grpc-encoding says it is: {error}"))
    })?;
    let length = whole.len() - HEADER_BYTES;
    if length > max_bytes {
        return Err(too_large(max_bytes));
    }
    let length = u32::try_from(length).map_err(|_| too_large(max_bytes))?;
    (&mut whole[1..HEADER_BYTES]).put_u32(length);
    Ok(whole.into())
}

fn zstd(compressed: &[u8]) -> io::Result<impl Read + '_> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

fn too_large(limit: usize) -> Status {
    Reason::BodyTooLarge
        .error(format!("a message exceeds {limit} bytes (decompressed); send it in parts, or raise server.max_message_bytes"))
        .with("limitBytes", limit)
        .into()
}
