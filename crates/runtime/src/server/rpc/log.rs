//! One line in the log for each call: for internal errors always, for other failures so many a second, for a success one time in
//! so many.
//!
//! A line names the method, never a key, a user or a query.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use axum::extract::Request;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::Response;
use tokio::time::Instant;
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

/// Lines a second about calls that failed, but for internal errors: a caller can't fill the log.
const FAILURES_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("it is not 0");

/// Logs calls as they end.
#[derive(Debug, Clone)]
pub(super) struct LogLayer {
    service: &'static str,
    metrics: Metrics,
    sampling: Arc<Sampling>,
}

impl LogLayer {
    /// Of calls that end well, logs the first of `one_in` and then each that many after; none when it is 0.
    pub(super) fn new(service: &'static str, metrics: Metrics, one_in: u64) -> Self {
        let sampling = Sampling {
            one_in,
            ended_well: AtomicU64::new(0),
            failures: RateLimiter::direct(Quota::per_second(FAILURES_PER_SECOND)),
            left_out: AtomicU64::new(0),
        };
        Self { service, metrics, sampling: Arc::new(sampling) }
    }
}

/// Which calls get a line.
#[derive(Debug)]
struct Sampling {
    one_in: u64,
    ended_well: AtomicU64,
    failures: DefaultDirectRateLimiter,
    /// Failures without a line since the last one that has one.
    left_out: AtomicU64,
}

impl Sampling {
    fn ended_well(&self) -> bool {
        self.one_in > 0 && self.ended_well.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.one_in)
    }

    /// How many were left out before this one, if it gets a line.
    fn failed(&self) -> Option<u64> {
        match self.failures.check() {
            Ok(()) => Some(self.left_out.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
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
            layer: self.layer.clone(),
            begun: Instant::now(),
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
    layer: LogLayer,
    begun: Instant,
    method: Option<Arc<Method>>,
    trace: Option<TraceContext>,
    memory: Option<RequestMemory>,
}

impl OnEnd for Line {
    fn ended(&mut self, code: Code) {
        let LogLayer { service, metrics, sampling } = &self.layer;
        let method = self.method.as_ref().map_or("", |method| method.name.as_str());
        let trace_id = || self.trace.map(|trace| format!("{:032x}", trace.trace_id()));
        let internal = matches!(code, Code::Unknown | Code::Internal | Code::DataLoss);
        let elapsed = self.begun.elapsed();
        // Whatever became of a request that broke off, it was the caller who ended it.
        if internal && !self.memory.as_ref().is_some_and(RequestMemory::is_broken) {
            metrics.errors(service, "internal").inc();
            tracing::error!(
                service,
                trace_id = trace_id().as_deref(),
                method,
                ?elapsed,
                "call failed with an internal error"
            );
        } else if code == Code::Ok {
            if sampling.ended_well() {
                tracing::info!(service, trace_id = trace_id().as_deref(), method, ?elapsed, "call ended");
            }
        } else if let Some(left_out) = sampling.failed() {
            tracing::info!(
                service,
                trace_id = trace_id().as_deref(),
                method,
                ?code,
                ?elapsed,
                left_out,
                "call failed"
            );
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
        let layer = LogLayer::new("test", metrics.clone(), 1000);
        for code in [Code::Ok, Code::InvalidArgument, Code::Unavailable, Code::Internal, Code::DataLoss] {
            let service = tower::service_fn(move |_: Request| {
                std::future::ready(Ok(Status::new(code, "").into_http::<Body>()))
            });
            let Ok(response) = layer.layer(service).oneshot(Request::new(Body::empty())).await;
            drop(response);
        }
        assert!(metrics.render().contains(r#"errors_total{kind="internal",service="test"} 2"#));
    }

    #[test]
    fn one_call_in_so_many_gets_a_line() {
        let sampled = |one_in: u64| {
            let layer = LogLayer::new("test", Metrics::new(), one_in);
            (0..1000).filter(|_| layer.sampling.ended_well()).count()
        };
        assert_eq!((sampled(1), sampled(100), sampled(5000), sampled(0)), (1000, 10, 1, 0));
    }

    #[test]
    fn failures_do_not_fill_the_log() {
        let layer = LogLayer::new("test", Metrics::new(), 1);
        let begun = std::time::Instant::now();
        let lines: Vec<u64> = (0..1000).filter_map(|_| layer.sampling.failed()).collect();
        let most = 10 + 10 * (begun.elapsed().as_secs() as usize + 1);
        assert!((10..=most).contains(&lines.len()), "{} lines", lines.len());
        let left_out = layer.sampling.left_out.load(Ordering::Relaxed);
        assert_eq!(lines.iter().sum::<u64>() + lines.len() as u64 + left_out, 1000);
    }
}
