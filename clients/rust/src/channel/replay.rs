//! Keeps the request of a call that may be repeated.

use std::{
    collections::HashSet,
    sync::LazyLock,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use prost_types::{FileDescriptorSet, method_options::IdempotencyLevel};
use tonic::body::Body;
use tower::{BoxError, Layer, Service};

/// The paths of the RPCs with one request whose schema says that repeating them does no harm (`idempotency_level`).
static REPEATABLE: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let schema =
        FileDescriptorSet::decode(weir_proto::DESCRIPTORS).expect("a test proves that it is current");
    let mut paths = HashSet::new();
    for file in &schema.file {
        for service in &file.service {
            for method in &service.method {
                let level = method.options.as_ref().map(|options| options.idempotency_level());
                let harmless =
                    matches!(level, Some(IdempotencyLevel::NoSideEffects | IdempotencyLevel::Idempotent));
                if harmless && !method.client_streaming() {
                    paths.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
    }
    paths
});

/// What an attempt sends.
#[derive(Debug)]
pub(super) enum Content {
    /// For this attempt only.
    Once(Body),
    /// As often as needed.
    Again(Bytes),
}

impl From<Content> for Body {
    fn from(content: Content) -> Self {
        match content {
            Content::Once(body) => body,
            Content::Again(bytes) => Self::new(Full::new(bytes)),
        }
    }
}

/// Reads the request of a call that may be repeated to its end before it is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplayLayer;

impl<S> Layer<S> for ReplayLayer {
    type Service = Kept<S>;

    fn layer(&self, inner: S) -> Kept<S> {
        Kept { inner }
    }
}

/// See [`ReplayLayer`].
#[derive(Clone, Debug)]
pub(super) struct Kept<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Kept<S>
where
    S: Service<Request<Content>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !REPEATABLE.contains(request.uri().path()) {
            return Box::pin(self.inner.call(request.map(Content::Once)));
        }
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await?.to_bytes();
            inner.call(Request::from_parts(parts, Content::Again(bytes))).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_may_be_repeated_and_what_writes_may_not() {
        assert!(REPEATABLE.contains("/weir.analytics.v1.AnalyticsService/QueryTimeSeries"));
        assert!(REPEATABLE.contains("/weir.analytics.v1.AnalyticsService/WatchQuery"));
        assert!(REPEATABLE.contains("/weir.store.v1.HotService/ReadHot"));
        assert!(!REPEATABLE.iter().any(|path| path.starts_with("/weir.ingest.v1.IngestService/Ingest")));
        assert!(!REPEATABLE.contains("/weir.ingest.v1.IngestService/StreamEvents"));
    }
}
