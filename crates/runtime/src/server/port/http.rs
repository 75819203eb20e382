//! Requests over HTTP that are no gRPC: REST, health, metrics.
//!
//! What becomes an RPC passes the layers of RPCs as well. What is done here is for the request around it: its body is limited, and
//! it is counted by its route.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use futures::FutureExt as _;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::Status;
use tower::ServiceExt as _;

use crate::{
    Metrics,
    server::{
        memory::{Lasting, Measure, Received, RequestMemory},
        method::Methods,
        rpc::{Admission, Deadline, Place, report_panic, timeout_of},
    },
    status,
};

/// The pattern that an HTTP request matched (`/v1/users/{user_id}`), in the extensions of the *response*: the metrics'
/// `route` label. Routers of axum set it by themselves; other routers insert it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route(pub Arc<str>);

/// The HTTP side of a port.
#[derive(Debug, Clone)]
pub(super) struct Http {
    pub(super) router: Router,
    pub(super) methods: Arc<Methods>,
    pub(super) admission: Arc<Admission>,
    pub(super) measure: Arc<Measure>,
    /// Of requests whose caller sets no deadline.
    pub(super) timeout: Duration,
}

/// Probes and scrapes, which are answered under overload, too, and are not counted.
fn is_operational(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
}

impl Http {
    pub(super) async fn answer(self, mut request: Request) -> Response {
        if is_operational(request.uri().path()) {
            return infallible(self.router.oneshot(request).await);
        }
        let memory = RequestMemory::new(&self.measure);
        let mut record = Record::new(self.measure.service, &self.measure.metrics);

        // Before the body is read. The RPC that becomes of the request takes this place over.
        let place = match self.admission.admit(self.methods.http()) {
            Ok(place) => place,
            Err(status) => {
                let refusal = status::into_http(&status);
                record.answered(&refusal);
                return refusal;
            }
        };
        request.extensions_mut().insert(place.clone());

        // Only the router knows which requests may last: it declares it, or the default deadline holds.
        let lasting = Lasting::default();
        let stated = timeout_of(request.headers());
        if stated.is_none() {
            request.extensions_mut().insert(lasting.clone());
        }
        let deadline = Deadline::after(stated.unwrap_or(self.timeout));
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(memory.clone());
        let request = request.map(|body| Body::new(Received::new(body, memory.clone(), lasting.clone())));

        let mut call = pin!(AssertUnwindSafe(self.router.oneshot(request)).catch_unwind());
        let answered = match tokio::time::timeout_at(deadline.at, &mut call).await {
            Err(_) if lasting.is_declared() => Ok(call.await),
            answered => answered,
        };
        let response = match answered {
            Ok(Ok(answered)) => infallible(answered),
            Ok(Err(panic)) => {
                status::into_http(&report_panic(&*panic, self.measure.service, &self.measure.metrics))
            }
            Err(_) => status::into_http(&deadline.exceeded()),
        };
        record.answered(&response);
        response.map(|body| Body::new(Recorded { body, _record: record, _place: place, _memory: memory }))
    }
}

/// Counts a request when it has ended.
#[derive(Debug)]
struct Record {
    service: &'static str,
    metrics: Metrics,
    started: Instant,
    /// The route and the status, once there is an answer.
    head: Option<(Arc<str>, StatusCode)>,
}

impl Record {
    fn new(service: &'static str, metrics: &Metrics) -> Self {
        Self { service, metrics: metrics.clone(), started: Instant::now(), head: None }
    }

    fn answered(&mut self, response: &Response) {
        let route = response.extensions().get::<Route>().map(|route| route.0.clone());
        self.head = Some((route.unwrap_or_else(|| "(unmatched)".into()), response.status()));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // 499, as for a cancelled call: the caller went away before there was an answer.
        let cancelled = || ("(cancelled)".into(), status::http_status(&Status::cancelled("")));
        let (route, code) = self.head.take().unwrap_or_else(cancelled);
        let elapsed = self.started.elapsed().as_secs_f64();
        self.metrics.http_request_duration(self.service, &route).observe(elapsed);
        self.metrics.http_requests(self.service, &route, code.as_str()).inc();
    }
}

pin_project_lite::pin_project! {
    /// The body of an answer, with what is held until it ended.
    struct Recorded {
        #[pin]
        body: Body,
        _record: Record,
        _place: Place,
        _memory: RequestMemory,
    }
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn infallible(answered: Result<Response, Infallible>) -> Response {
    let Ok(response) = answered;
    response
}
