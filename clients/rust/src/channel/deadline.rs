//! Ends a call when its time is over, all of its attempts together.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderValue, Request};
use tokio::time::{Instant, timeout_at};
use tonic::{Status, TimeoutExpired};
use tower::{BoxError, Layer, Service};
use weir_proto::time::{format_timeout, parse_timeout};

use super::balance::causes;

/// The header with the time that a call has.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// When a call ends at the latest, in the extensions of its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry(pub(super) Instant);

impl Expiry {
    /// Writes the time that is left into an attempt, for the server.
    pub(super) fn stamp<B>(mut attempt: Request<B>) -> Request<B> {
        if let Some(Self(expiry)) = attempt.extensions().get() {
            let left = format_timeout(expiry.saturating_duration_since(Instant::now()));
            let left = HeaderValue::try_from(left).expect("digits and a letter");
            attempt.headers_mut().insert(GRPC_TIMEOUT, left);
        }
        attempt
    }
}

/// Gives each call the time that it states in `grpc-timeout`, or else the default.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeadlineLayer {
    /// Of calls that state none; `None` is endless.
    pub(super) default: Option<Duration>,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, default: self.default }
    }
}

/// See [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub(super) struct Limited<S> {
    inner: S,
    default: Option<Duration>,
}

impl<S, B> Service<Request<B>> for Limited<S>
where
    S: Service<Request<B>, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let stated = request.headers().get(GRPC_TIMEOUT).and_then(|text| parse_timeout(text.to_str().ok()?));
        let Some(time) = stated.or(self.default) else {
            return Box::pin(self.inner.call(request));
        };
        let expiry = Instant::now() + time;
        request.extensions_mut().insert(Expiry(expiry));
        let call = self.inner.call(request);
        Box::pin(async move {
            let exceeded = || {
                Status::deadline_exceeded(format!(
                    "no answer within {time:?}; whether the call took effect is unknown"
                ))
            };
            match timeout_at(expiry, call).await {
                // The connection looks at the time of the attempt as well, and calls it something else.
                Ok(Err(error)) if causes(&*error).any(|cause| cause.is::<TimeoutExpired>()) => {
                    Err(exceeded().into())
                }
                Ok(answer) => answer,
                Err(_) => Err(exceeded().into()),
            }
        })
    }
}
