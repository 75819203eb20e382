//! A panic becomes an answer instead of a broken connection.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::extract::Request;
use futures::{FutureExt as _, future::CatchUnwind};
use http::Response;
use tonic::Status;
use tower::{Layer, Service};

use crate::{Metrics, status::Reason};

/// Answers `INTERNAL` where a handler or a layer panics.
#[derive(Debug, Clone)]
pub(super) struct CatchPanicLayer {
    pub(super) service: &'static str,
    pub(super) metrics: Metrics,
}

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner, layer: self.clone() }
    }
}

/// See [`CatchPanicLayer`].
#[derive(Debug, Clone)]
pub(crate) struct CatchPanic<S> {
    inner: S,
    layer: CatchPanicLayer,
}

impl<S, B> Service<Request> for CatchPanic<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let call = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        ResponseFuture { call, layer: self.layer.clone() }
    }
}

pin_project_lite::pin_project! {
    pub(crate) struct ResponseFuture<F> {
        #[pin]
        call: CatchUnwind<AssertUnwindSafe<F>>,
        layer: CatchPanicLayer,
    }
}

impl<F, B> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Default,
{
    type Output = Result<Response<B>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.call.poll(cx)) {
            Ok(answered) => answered,
            Err(panic) => Ok(report(&*panic, this.layer.service, &this.layer.metrics).into_http()),
        })
    }
}

/// Logs a panic and counts it. Its text stays in the log.
pub(in crate::server) fn report(
    panic: &(dyn Any + Send),
    service: &'static str,
    metrics: &Metrics,
) -> Status {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)");
    tracing::error!(service, message, "a handler panicked");
    metrics.errors(service, "panic").inc();
    Reason::Internal.status("internal error; the log has it under this request's id")
}
