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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_and_counted_and_its_text_kept_back() {
        let metrics = Metrics::new();
        let layer = CatchPanicLayer { service: "test", metrics: metrics.clone() };
        let service = tower::service_fn(async |_: Request| -> Result<Response<Body>, Infallible> {
            panic!("a secret")
        });
        let Ok(response) = layer.layer(service).oneshot(Request::new(Body::empty())).await;
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::Internal);
        assert!(!status.message().contains("secret"), "{status}");
        assert!(metrics.render().contains(r#"errors_total{kind="panic",service="test"} 1"#));
    }
}
