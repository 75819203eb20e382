//! Counts calls and the time that they take, by method and code.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::extract::Request;
use http::Response;
use tokio::time::Instant;
use tonic::Code;
use tower::{Layer, Service};

use super::observe::{Observed, Observing, OnEnd};
use crate::{
    Metrics,
    server::method::{Method, Methods},
};

/// Finds the method of a call, for itself and for the layers below, and records how the call ended.
#[derive(Debug, Clone)]
pub(super) struct MetricsLayer {
    pub(super) service: &'static str,
    pub(super) metrics: Metrics,
    pub(super) methods: Arc<Methods>,
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, layer: self.clone() }
    }
}

/// See [`MetricsLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Measured<S> {
    inner: S,
    layer: MetricsLayer,
}

/// The method of a call, in the extensions of its request.
#[derive(Debug, Clone)]
pub(super) struct Called(pub(super) Arc<Method>);

impl<S, B> Service<Request> for Measured<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<Observed<B, Record>>;
    type Error = Infallible;
    type Future = Observing<S::Future, Record>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let method = self.layer.methods.get(request.uri().path()).clone();
        request.extensions_mut().insert(Called(method.clone()));
        let record = Record {
            service: self.layer.service,
            metrics: self.layer.metrics.clone(),
            method,
            started: Instant::now(),
        };
        Observing::new(self.inner.call(request), record)
    }
}

/// Records a call when it has ended.
#[derive(Debug)]
pub(crate) struct Record {
    service: &'static str,
    metrics: Metrics,
    method: Arc<Method>,
    started: Instant,
}

impl OnEnd for Record {
    fn ended(&mut self, code: Code) {
        self.method.record(self.service, &self.metrics, code, self.started.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tonic::Status;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{metrics, server::decoded::Schema};

    #[tokio::test]
    async fn calls_are_counted_under_their_method_and_unknown_ones_together() {
        let pool = prost_reflect::DescriptorPool::decode(weir_proto::DESCRIPTORS).unwrap();
        let schema = Schema::new(&metrics::descriptors());
        let methods = Arc::new(Methods::new(&pool, &schema, &[]).unwrap());
        let metrics = Metrics::new();
        let layer = MetricsLayer { service: "test", metrics: metrics.clone(), methods };
        let service = tower::service_fn(async |_: Request| Ok(Status::not_found("").into_http::<Body>()));
        for path in ["/weir.metrics.v1.MetricsService/GetMetrics", "/a.B/C", "/a.B/D"] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let Ok(response) = layer.layer(service).oneshot(request).await;
            drop(response);
        }
        let counted = metrics.render();
        for line in [
            r#"grpc_server_handled_total{code="NotFound",method="weir.metrics.v1.MetricsService/GetMetrics",service="test"} 1"#,
            r#"grpc_server_handled_total{code="NotFound",method="other",service="test"} 2"#,
        ] {
            assert!(counted.contains(line), "{line} is not in\n{counted}");
        }
    }
}
