//! Ends calls at their deadline.
//!
//! Below admission, so that the time covers the handler alone. A call that may last has only the deadline that its caller sets;
//! others have the default of the server at least.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::extract::Request;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tower::{Layer, Service};
use weir_proto::time::parse_timeout;

use super::metrics::Called;
use crate::status::Reason;

/// When the caller stops waiting, in the extensions of every request that has a deadline. Handlers that wait for something
/// (a consistency token) wait no longer than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The moment.
    pub at: Instant,
    /// The time that the call had when it began.
    pub timeout: Duration,
}

impl Deadline {
    /// So long from now.
    pub fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    /// What a caller is told whose call did not end in time.
    pub(in crate::server) fn exceeded(self) -> Status {
        Reason::DeadlineExceeded.status(format!(
            "no answer within {:?}; whether the call took effect is unknown, so repeat it unchanged",
            self.timeout
        ))
    }
}

/// The caller's own deadline from `grpc-timeout`, which HTTP callers may send as well. A malformed one counts as none.
pub(in crate::server) fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    parse_timeout(headers.get("grpc-timeout")?.to_str().ok()?)
}

/// Puts a [`Deadline`] into each request that has one, and ends the call there.
#[derive(Debug, Clone)]
pub(super) struct DeadlineLayer {
    /// Of calls whose caller sets none.
    pub(super) default: Duration,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, default: self.default }
    }
}

/// See [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Limited<S> {
    inner: S,
    default: Duration,
}

impl<S, B> Service<Request> for Limited<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<Until<B>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let streams = request.extensions().get::<Called>().is_some_and(|called| called.0.streaming);
        let deadline = request.extensions().get::<Deadline>().copied().or_else(|| {
            let timeout = timeout_of(request.headers()).or((!streams).then_some(self.default))?;
            let deadline = Deadline::after(timeout);
            request.extensions_mut().insert(deadline);
            Some(deadline)
        });
        ResponseFuture {
            call: self.inner.call(request),
            sleep: deadline.map(|deadline| sleep_until(deadline.at)),
            deadline,
            streams,
        }
    }
}

pin_project_lite::pin_project! {
    pub(crate) struct ResponseFuture<F> {
        #[pin]
        call: F,
        #[pin]
        sleep: Option<Sleep>,
        deadline: Option<Deadline>,
        streams: bool,
    }
}

impl<F, B> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Default,
{
    type Output = Result<Response<Until<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(Ok(response)) = this.call.poll(cx) {
            let deadline = this.deadline.filter(|_| *this.streams);
            let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline.at)));
            return Poll::Ready(Ok(response.map(|body| Until { body, deadline, expired: false })));
        }
        let (Some(sleep), Some(deadline)) = (this.sleep.as_pin_mut(), *this.deadline) else {
            return Poll::Pending;
        };
        ready!(sleep.poll(cx));
        Poll::Ready(Ok(deadline.exceeded().into_http()))
    }
}

pin_project_lite::pin_project! {
    /// A body that ends with `DEADLINE_EXCEEDED` when a stream reaches the caller's deadline.
    #[derive(Debug)]
    pub(crate) struct Until<B> {
        #[pin]
        body: B,
        deadline: Option<Pin<Box<Sleep>>>,
        expired: bool,
    }
}

impl<B: Default> Default for Until<B> {
    fn default() -> Self {
        Self { body: B::default(), deadline: None, expired: false }
    }
}

impl<B: Body<Data = Bytes>> Body for Until<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if *this.expired {
            return Poll::Ready(None);
        }
        if let Some(deadline) = this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            *this.expired = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers()))));
        }
        this.body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.expired || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn trailers() -> HeaderMap {
    let status = Reason::DeadlineExceeded.status("the call's deadline passed while its answer was streamed");
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("4"));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use axum::body::Body as AnswerBody;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    /// Calls what never answers.
    async fn call(timeout: Option<&str>) -> Status {
        let service = tower::service_fn(async |_: Request| {
            std::future::pending::<Result<Response<AnswerBody>, Infallible>>().await
        });
        let mut request = Request::new(AnswerBody::empty());
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        let layer = DeadlineLayer { default: Duration::from_millis(20) };
        let Ok(response) = layer.layer(service).oneshot(request).await;
        Status::from_header_map(response.headers()).unwrap()
    }

    #[tokio::test]
    async fn a_call_ends_at_its_own_deadline_or_else_at_the_default() {
        for (timeout, expected) in [(Some("3m"), "3ms"), (None, "20ms")] {
            let status = call(timeout).await;
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
            assert!(status.message().contains(expected), "{status}");
        }
    }

    #[tokio::test]
    async fn the_body_of_a_stream_ends_at_the_deadline() {
        let frames = futures::stream::pending::<Result<Bytes, Infallible>>();
        let deadline = Some(Box::pin(sleep_until(Instant::now() + Duration::from_millis(3))));
        let body = Until { body: AnswerBody::from_stream(frames), deadline, expired: false };
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap();
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), tonic::Code::DeadlineExceeded);
    }
}
