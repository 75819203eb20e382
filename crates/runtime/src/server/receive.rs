//! What callers may make the process hold before any service has seen it: the bytes of bodies that are still being received.
//!
//! Each body is limited by itself, but thousands may come at once, and slowly. Bytes count from when they arrive until the body
//! has been read to its end, when the service's own limits take over. Calls that stream are not counted: they hold one
//! message at a time, and services limit their number.

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

use crate::{Metrics, status::Reason};

/// In the extensions of an HTTP request without a deadline of its caller's: the handler that recognises an upload, which may
/// last, says so before it reads the body. From then on neither the default deadline nor the budget of bodies holds for it.
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

/// The bytes of all bodies that are being received.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    held: AtomicUsize,
    service: &'static str,
    metrics: Metrics,
}

impl Budget {
    pub(super) fn new(limit: usize, service: &'static str, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0), service, metrics })
    }
}

/// A body whose bytes count. Dropping it, as whoever has read it does, gives them back.
#[derive(Debug)]
pub(super) struct Received {
    body: Body,
    budget: Arc<Budget>,
    held: usize,
    lasting: Lasting,
}

impl Received {
    pub(super) fn new(body: Body, budget: Arc<Budget>, lasting: Lasting) -> Self {
        Self { body, budget, held: 0, lasting }
    }

    fn take(&mut self, bytes: usize) -> Result<(), axum::Error> {
        self.held += bytes;
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= self.budget.limit {
            return Ok(());
        }
        self.budget.metrics.errors(self.budget.service, "overload").inc();
        Err(axum::Error::new(Reason::ConcurrencyExceeded.status(format!(
            "requests of {} bytes are being received at once, which is the limit; retry after a pause, or raise \
             server.max_receiving_bytes",
            self.budget.limit
        ))))
    }

    fn give_back(&mut self) {
        self.budget.held.fetch_sub(std::mem::take(&mut self.held), Ordering::Relaxed);
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
        if self.lasting.is_declared() {
            self.give_back();
        } else if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.take(data.len())?;
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
