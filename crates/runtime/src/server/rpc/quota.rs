//! Refuses calls of a project that makes more of them than it may.
//!
//! Below authorization, so that only calls that would have been answered count.

use std::{
    convert::Infallible,
    future::Ready,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::extract::Request;
use futures::future::Either;
use governor::{DefaultDirectRateLimiter, RateLimiter, clock::Clock as _};
use http::Response;
use quick_cache::sync::Cache;
use tower::{Layer, Service};

use crate::{
    auth::{Principal, ProjectId, Quota},
    status::Reason,
};

/// Projects whose calls are counted at a time. Of one that was long not heard of the count is full again.
const PROJECTS: usize = 10_000;

/// Counts the calls of each project.
#[derive(Debug, Clone)]
pub(super) struct QuotaLayer(Arc<Cache<ProjectId, Arc<Counted>>>);

/// What is left to a project of its quota.
#[derive(Debug)]
struct Counted {
    quota: Quota,
    limiter: DefaultDirectRateLimiter,
}

impl Counted {
    fn new(quota: Quota) -> Arc<Self> {
        let rate = governor::Quota::per_second(quota.calls_per_second).allow_burst(quota.burst);
        Arc::new(Self { quota, limiter: RateLimiter::direct(rate) })
    }
}

impl QuotaLayer {
    pub(super) fn new() -> Self {
        Self(Arc::new(Cache::new(PROJECTS)))
    }

    /// Takes a call from the project's quota. The time after which there is one left, if there is none.
    fn take(&self, project: &ProjectId, quota: Quota) -> Result<(), Duration> {
        let known = self.0.get(project).filter(|known| known.quota == quota);
        let counted = known.unwrap_or_else(|| {
            // Also when the quota has changed, which begins anew.
            let counted = Counted::new(quota);
            self.0.insert(project.clone(), Arc::clone(&counted));
            counted
        });
        let now = counted.limiter.clock().now();
        counted.limiter.check().map_err(|none| none.wait_time_from(now))
    }
}

impl<S> Layer<S> for QuotaLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, quotas: self.clone() }
    }
}

/// See [`QuotaLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Metered<S> {
    inner: S,
    quotas: QuotaLayer,
}

impl<S, B> Service<Request> for Metered<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<B>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let principal = request.extensions().get::<Principal>();
        let quota = principal.and_then(|principal| Some((principal.quota?, &principal.project)));
        match quota.map(|(quota, project)| (quota, self.quotas.take(project, quota))) {
            None | Some((_, Ok(()))) => Either::Left(self.inner.call(request)),
            Some((quota, Err(pause))) => {
                let status: tonic::Status = Reason::QuotaExceeded
                    .error(format!(
                        "the project may make {} calls a second; slow down, or have its quota raised",
                        quota.calls_per_second
                    ))
                    .retry_after(pause)
                    .into();
                Either::Right(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use axum::body::Body;
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::auth::Scopes;

    fn quota(calls_per_second: u32, burst: u32) -> Option<Quota> {
        let number = |number| NonZeroU32::new(number).unwrap();
        Some(Quota { calls_per_second: number(calls_per_second), burst: number(burst) })
    }

    async fn call(layer: &QuotaLayer, project: &str, quota: Option<Quota>) -> Status {
        let service = tower::service_fn(async |_: Request| Ok(Status::ok("").into_http::<Body>()));
        let mut request = Request::new(Body::empty());
        let principal = Principal {
            project: project.parse().unwrap(),
            subject: "s".into(),
            scopes: Scopes::default(),
            quota,
        };
        request.extensions_mut().insert(principal);
        let Ok(response) = layer.layer(service).oneshot(request).await;
        Status::from_header_map(response.headers()).unwrap()
    }

    #[tokio::test]
    async fn a_project_makes_as_many_calls_as_it_may() {
        let layer = QuotaLayer::new();
        for _ in 0..3 {
            assert_eq!(call(&layer, "a", quota(1, 3)).await.code(), Code::Ok);
        }
        let refused = call(&layer, "a", quota(1, 3)).await;
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "QUOTA_EXCEEDED");
        let pause = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(pause > Duration::ZERO && pause <= Duration::from_secs(1), "{pause:?}");
        // It is nothing to others, and a new quota holds at once.
        assert_eq!(call(&layer, "b", quota(1, 3)).await.code(), Code::Ok);
        assert_eq!(call(&layer, "a", quota(2, 3)).await.code(), Code::Ok);
    }

    #[tokio::test]
    async fn the_quota_comes_back_with_time() {
        let layer = QuotaLayer::new();
        let mut answered = 0;
        let begun = std::time::Instant::now();
        while answered < 20 {
            answered += u32::from(call(&layer, "a", quota(100, 1)).await.code() == Code::Ok);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn without_a_quota_there_is_no_limit() {
        let layer = QuotaLayer::new();
        for _ in 0..1000 {
            assert_eq!(call(&layer, "a", None).await.code(), Code::Ok);
        }
    }
}
