//! Gives each request its place in a trace: the caller's, continued, or a new one. Answers bear it as `x-request-id`.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{extract::Request, response::Response};
use http::HeaderValue;
use tower::{Layer, Service};
use tracing::{Instrument as _, instrument::Instrumented};

use crate::trace::{TRACEPARENT, TraceContext};

/// Puts a [`TraceContext`] into each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

/// See [`TraceLayer`].
#[derive(Debug, Clone)]
pub(super) struct Traced<S> {
    inner: S,
}

impl<S> Service<Request> for Traced<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let caller = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse().ok());
        let trace = caller.map_or_else(TraceContext::root, TraceContext::child);
        request.extensions_mut().insert(trace);
        let request_id = trace.request_id();
        // At debug level, as even an unused span costs a tenth of a call; failures are logged with their trace anyway.
        let span = tracing::debug_span!(
            "request",
            trace_id = request_id.to_str().unwrap_or_default(),
            method = %request.method(),
            path = request.uri().path()
        );
        ResponseFuture { call: self.inner.call(request).instrument(span), request_id: Some(request_id) }
    }
}

pin_project_lite::pin_project! {
    pub(super) struct ResponseFuture<F> {
        #[pin]
        call: Instrumented<F>,
        request_id: Option<HeaderValue>,
    }
}

impl<F> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.call.poll(cx));
        if let Some(request_id) = this.request_id.take() {
            response.headers_mut().insert("x-request-id", request_id);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn the_answer_bears_the_trace_that_the_handler_saw() {
        let service = tower::service_fn(async |request: Request| {
            let trace = request.extensions().get::<TraceContext>().unwrap();
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert("seen", trace.request_id());
            Ok(response)
        });
        for parent in ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "no trace"] {
            let mut request = Request::new(Body::empty());
            request.headers_mut().insert(TRACEPARENT, parent.parse().unwrap());
            let Ok(response) = TraceLayer.layer(service).oneshot(request).await;
            let id = response.headers()["x-request-id"].to_str().unwrap();
            assert_eq!(id, response.headers()["seen"]);
            assert_eq!(id == "0af7651916cd43dd8448eb211c80319c", parent != "no trace");
        }
    }
}
