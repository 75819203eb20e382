//! One line in the log for a call that failed with an internal error; for others at level `debug`.
//!
//! A line names the method, never a key, a user or a query.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::extract::Request;
use http::Response;
use tonic::Code;
use tower::{Layer, Service};

use super::{
    metrics::Called,
    observe::{Observed, Observing, OnEnd},
};
use crate::{
    Metrics,
    server::{memory::RequestMemory, method::Method},
    trace::TraceContext,
};

/// Logs calls as they end.
#[derive(Debug, Clone)]
pub(super) struct LogLayer {
    pub(super) service: &'static str,
    pub(super) metrics: Metrics,
}

impl<S> Layer<S> for LogLayer {
    type Service = Logged<S>;

    fn layer(&self, inner: S) -> Logged<S> {
        Logged { inner, layer: self.clone() }
    }
}

/// See [`LogLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Logged<S> {
    inner: S,
    layer: LogLayer,
}

impl<S, B> Service<Request> for Logged<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<Observed<B, Line>>;
    type Error = Infallible;
    type Future = Observing<S::Future, Line>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let extensions = request.extensions();
        let line = Line {
            service: self.layer.service,
            metrics: self.layer.metrics.clone(),
            method: extensions.get::<Called>().map(|called| called.0.clone()),
            trace: extensions.get::<TraceContext>().copied(),
            memory: extensions.get::<RequestMemory>().cloned(),
        };
        Observing::new(self.inner.call(request), line)
    }
}

/// What is written when a call has ended.
#[derive(Debug)]
pub(crate) struct Line {
    service: &'static str,
    metrics: Metrics,
    method: Option<Arc<Method>>,
    trace: Option<TraceContext>,
    memory: Option<RequestMemory>,
}

impl OnEnd for Line {
    fn ended(&mut self, code: Code) {
        let method = self.method.as_ref().map_or("", |method| method.name.as_str());
        let internal = matches!(code, Code::Unknown | Code::Internal | Code::DataLoss);
        // Whatever became of a request that broke off, it was the caller who ended it.
        if internal && !self.memory.as_ref().is_some_and(RequestMemory::is_broken) {
            self.metrics.errors(self.service, "internal").inc();
            let trace_id = self.trace.map(TraceContext::request_id);
            let trace_id = trace_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
            tracing::error!(service = self.service, trace_id, method, "call failed with an internal error");
        } else {
            tracing::debug!(service = self.service, method, ?code, "call ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tonic::Status;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn only_errors_of_the_service_count_as_internal() {
        let metrics = Metrics::new();
        let layer = LogLayer { service: "test", metrics: metrics.clone() };
        for code in [Code::Ok, Code::InvalidArgument, Code::Unavailable, Code::Internal, Code::DataLoss] {
            let service = tower::service_fn(move |_: Request| {
                std::future::ready(Ok(Status::new(code, "").into_http::<Body>()))
            });
            let Ok(response) = layer.layer(service).oneshot(Request::new(Body::empty())).await;
            drop(response);
        }
        assert!(metrics.render().contains(r#"errors_total{kind="internal",service="test"} 2"#));
    }
}
