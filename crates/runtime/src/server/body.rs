//! The answer's body, watched to its end: only there is it known how a gRPC call went.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status};

use super::{
    call::{Calls, InFlight, Method, Protocol, Route, blame_undecodable_request},
    receive::RequestMemory,
};
use crate::{status::Reason, trace::TraceContext};

/// What to record when the answer ends, in whichever way.
#[derive(Debug)]
pub(super) struct Outcome {
    calls: Arc<Calls>,
    method: Arc<Method>,
    started: Instant,
    trace: TraceContext,
    ended: Ended,
    /// Held until the answer ended.
    memory: RequestMemory,
}

#[derive(Debug)]
enum Ended {
    /// `None` until the trailers came: if they never do, the caller went away.
    Grpc(Option<Code>),
    Http(Option<(Arc<str>, StatusCode)>),
}

impl Outcome {
    pub(super) fn new(
        calls: &Arc<Calls>,
        method: &Arc<Method>,
        protocol: Protocol,
        trace: TraceContext,
        memory: RequestMemory,
    ) -> Self {
        let ended = match protocol {
            Protocol::Grpc => Ended::Grpc(None),
            Protocol::Http => Ended::Http(None),
        };
        Self { calls: calls.clone(), method: method.clone(), started: Instant::now(), trace, ended, memory }
    }

    /// Reads what the head of the answer tells already: the HTTP status, or the code of a gRPC answer without a body.
    pub(super) fn head(&mut self, response: &Response<Body>) {
        match &mut self.ended {
            Ended::Grpc(code) => *code = grpc_code(response.headers()),
            Ended::Http(head) => {
                let route = response.extensions().get::<Route>().map(|route| route.0.clone());
                *head = Some((route.unwrap_or_else(|| "(unmatched)".into()), response.status()));
            }
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Ended::Grpc(code) = &mut self.ended {
            *code = grpc_code(trailers).or(*code);
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let faulty = match &self.ended {
            Ended::Grpc(code) => {
                let code = code.unwrap_or(Code::Cancelled);
                self.calls.record_grpc(&self.method, code, elapsed);
                matches!(code, Code::Unknown | Code::Internal | Code::DataLoss)
            }
            Ended::Http(Some((route, code))) => {
                self.calls.record_http(route, *code, elapsed);
                *code == StatusCode::INTERNAL_SERVER_ERROR
            }
            // 499, as for a cancelled call: the caller went away before there was an answer.
            Ended::Http(None) => {
                let code = crate::status::http_status(&Status::cancelled(""));
                self.calls.record_http("(cancelled)", code, elapsed);
                false
            }
        };
        // Whatever became of a request that broke off, it was the caller who ended it.
        if faulty && !self.memory.is_broken() {
            self.calls.metrics.errors(self.calls.service, "internal").inc();
            let trace_id = self.trace.request_id();
            let trace_id = trace_id.to_str().unwrap_or_default();
            tracing::error!(
                service = self.calls.service,
                trace_id,
                call = self.method.name(),
                "a call failed through a fault of ours"
            );
        }
    }
}

fn grpc_code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

pin_project_lite::pin_project! {
    /// The body with what must happen at its end: the outcome is recorded, the call leaves the table. When a gRPC stream
    /// reaches the caller's deadline, it ends with `DEADLINE_EXCEEDED`.
    pub(super) struct Watched {
        #[pin]
        body: Body,
        deadline: Option<Pin<Box<Sleep>>>,
        expired: bool,
        outcome: Outcome,
        in_flight: InFlight,
    }
}

impl Watched {
    pub(super) fn new(body: Body, deadline: Option<Instant>, outcome: Outcome, in_flight: InFlight) -> Self {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Self { body, deadline, expired: false, outcome, in_flight }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        if *this.expired {
            return Poll::Ready(None);
        }
        if let Some(deadline) = this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            *this.expired = true;
            let trailers = deadline_trailers();
            this.outcome.trailers(&trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let mut frame = std::task::ready!(this.body.poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            blame_undecodable_request(trailers);
            this.outcome.trailers(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.expired || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn deadline_trailers() -> HeaderMap {
    let status = Reason::DeadlineExceeded.status("the call's deadline passed while its answer was streamed");
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("4"));
    }
    trailers
}
