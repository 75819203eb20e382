//! What callers may make the process hold: the memory of requests in progress.
//!
//! Each request is limited by itself, but thousands may come at once, and slowly. Bytes count from when they arrive, and with
//! what they take once decoded until the request is answered. A stream counts with the message that it is at.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;

use super::decoded::{MessageId, Schema};
use crate::{Metrics, config, status::Reason};

/// In the extensions of an HTTP request without a deadline of its caller's: the handler that recognises an upload, which may
/// last, says so before it reads the body. From then on the default deadline does not hold for it, and the handler itself
/// states what it holds of the body, through [`RequestMemory`].
#[derive(Debug, Clone, Default)]
pub struct Lasting(Arc<AtomicBool>);

impl Lasting {
    /// The call may last.
    pub fn declare(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_declared(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The memory of all requests in progress: one budget for all ports of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    /// `server.request_memory_bytes`
    total: usize,
    /// `server.message_memory_bytes`
    message: usize,
    held: AtomicUsize,
}

impl Budget {
    /// As configured.
    pub fn new(limits: &config::Server) -> Self {
        Self(Arc::new(Limits {
            total: limits.request_memory_bytes,
            message: limits.message_memory_bytes,
            held: AtomicUsize::new(0),
        }))
    }

    /// What requests hold at this moment, in bytes.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }
}

/// What requests to one server are measured with.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) service: &'static str,
    pub(super) metrics: Metrics,
    pub(super) schema: Schema,
    pub(super) budget: Budget,
}

/// What one request holds of the [`Budget`], in the extensions of every request: handlers that build something of their own
/// from a body charge it here. It is given back when the request is answered.
#[derive(Debug, Clone)]
pub struct RequestMemory(Arc<Share>);

#[derive(Debug)]
struct Share {
    measure: Arc<Measure>,
    held: AtomicUsize,
    /// Whether the caller broke off its request, so that failing is no fault of the service.
    broken: AtomicBool,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.measure.budget.0.held.fetch_sub(*self.held.get_mut(), Ordering::Relaxed);
    }
}

impl RequestMemory {
    pub(super) fn new(measure: &Arc<Measure>) -> Self {
        Self(Arc::new(Share {
            measure: measure.clone(),
            held: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }))
    }

    /// Holds this many more bytes.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when all requests together would hold more than the budget.
    pub fn charge(&self, bytes: usize) -> Result<(), Status> {
        let limits = &self.0.measure.budget.0;
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
        let before = limits.held.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= limits.total {
            return Ok(());
        }
        self.0.measure.metrics.errors(self.0.measure.service, "overload").inc();
        Err(Reason::ConcurrencyExceeded.status(format!(
            "the requests in progress take all of their {} bytes of memory; retry after a pause, or raise \
             server.request_memory_bytes",
            limits.total
        )))
    }

    /// Gives this many bytes back.
    pub fn release(&self, bytes: usize) {
        self.0.held.fetch_sub(bytes, Ordering::Relaxed);
        self.0.measure.budget.0.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Measures what a message will take once decoded and holds it. Returns what was charged.
    ///
    /// # Errors
    /// As [`RequestMemory::measure`] and [`RequestMemory::charge`].
    pub(super) fn charge_decoded(&self, message: MessageId, bytes: &[u8]) -> Result<usize, Status> {
        let size = self.measure(message, bytes)?;
        self.charge(size)?;
        Ok(size)
    }

    /// What a message will take once decoded, in bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field when that is more than one message may take.
    pub fn measure(&self, message: MessageId, bytes: &[u8]) -> Result<usize, Status> {
        let limit = self.message_limit();
        self.0.measure.schema.measure(message, bytes, limit).map_err(|exceeded| {
            let within = match exceeded.field.as_str() {
                "" => String::new(),
                field => format!(" (within {field})"),
            };
            let message = format!(
                "the message takes more than {limit} bytes of memory once decoded{within}; send it in parts, or raise \
                 server.message_memory_bytes"
            );
            Status::from(Reason::BodyTooLarge.error(message).with("limitBytes", limit).with("field", &exceeded.field))
        })
    }

    /// The type of a message in the service's schema.
    pub fn message(&self, full_name: &str) -> Option<MessageId> {
        self.0.measure.schema.message(full_name)
    }

    /// The most that one decoded message may take.
    pub fn message_limit(&self) -> usize {
        self.0.measure.budget.0.message
    }

    pub(super) fn declare_broken(&self) {
        self.0.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
    }
}

/// An HTTP body whose bytes count. Dropping it gives them back.
#[derive(Debug)]
pub(super) struct Received {
    body: Body,
    memory: RequestMemory,
    held: usize,
    lasting: Lasting,
}

impl Received {
    pub(super) fn new(body: Body, memory: RequestMemory, lasting: Lasting) -> Self {
        Self { body, memory, held: 0, lasting }
    }

    fn give_back(&mut self) {
        self.memory.release(std::mem::take(&mut self.held));
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            _ if self.lasting.is_declared() => self.give_back(),
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.held += bytes;
                self.memory.charge(bytes).map_err(axum::Error::new)?;
            }
            Some(Err(_)) => self.memory.declare_broken(),
            None => {}
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
