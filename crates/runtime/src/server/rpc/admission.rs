//! Limits how many calls are in progress at once.
//!
//! Before any work is done for a call: overload is refused while that is cheap. A call keeps its place until the last byte of
//! its answer.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::extract::Request;
use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tower::{Layer, Service};

use super::metrics::Called;
use crate::{Metrics, config, metrics::Gauge, server::method::Method, status::Reason};

/// The calls in progress of one server, on all its ports.
#[derive(Debug)]
pub(in crate::server) struct Admission {
    service: &'static str,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    gauge: Gauge,
    total: AtomicUsize,
    idle: Notify,
}

impl Admission {
    pub(in crate::server) fn new(service: &'static str, metrics: &Metrics, limits: &config::Server) -> Self {
        Self {
            service,
            metrics: metrics.clone(),
            permits: Arc::new(Semaphore::new(limits.max_concurrent_requests.min(Semaphore::MAX_PERMITS))),
            gauge: metrics.requests_in_flight(service),
            total: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    /// A place among the calls in progress.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when all are taken.
    pub(in crate::server) fn admit(self: &Arc<Self>, method: &Arc<Method>) -> Result<Place, Status> {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            self.metrics.errors(self.service, "overload").inc();
            return Err(Reason::ConcurrencyExceeded.status(
                "too many requests at once; retry after a pause, or raise server.max_concurrent_requests",
            ));
        };
        self.total.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        method.enter();
        Ok(Place(Arc::new(Taken { admission: self.clone(), method: method.clone(), _permit: permit })))
    }

    /// Resolves when no call is in progress, for the drain.
    pub(in crate::server) async fn none_in_flight(&self) {
        loop {
            let changed = self.idle.notified();
            if self.total.load(Ordering::Acquire) == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// A place among the calls in progress, free again when all clones are dropped. A request over HTTP takes one before its body
/// is read, and the call that becomes of it finds that one in its extensions.
#[derive(Debug, Clone)]
pub(in crate::server) struct Place(#[expect(dead_code, reason = "held, not read")] Arc<Taken>);

#[derive(Debug)]
struct Taken {
    admission: Arc<Admission>,
    method: Arc<Method>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.admission.gauge.dec();
        self.method.leave();
        if self.admission.total.fetch_sub(1, Ordering::Release) == 1 {
            self.admission.idle.notify_waiters();
        }
    }
}

/// Refuses calls above the limit.
#[derive(Debug, Clone)]
pub(super) struct AdmissionLayer(pub(super) Arc<Admission>);

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, admission: self.0.clone() }
    }
}

/// See [`AdmissionLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Admitted<S> {
    inner: S,
    admission: Arc<Admission>,
}

impl<S, B> Service<Request> for Admitted<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<Holding<B>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let place = match request.extensions_mut().remove::<Place>() {
            Some(place) => Ok(place),
            None => {
                let called = request.extensions().get::<Called>().expect("the layer above found the method");
                self.admission.admit(&called.0)
            }
        };
        match place {
            Ok(place) => ResponseFuture::Admitted { call: self.inner.call(request), place: Some(place) },
            Err(status) => ResponseFuture::Refused { status },
        }
    }
}

pin_project_lite::pin_project! {
    #[project = Projected]
    pub(crate) enum ResponseFuture<F> {
        Admitted {
            #[pin]
            call: F,
            place: Option<Place>,
        },
        Refused {
            status: Status,
        },
    }
}

impl<F, B> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Default,
{
    type Output = Result<Response<Holding<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(match self.project() {
            Projected::Admitted { call, place } => {
                let Ok(response) = ready!(call.poll(cx));
                response.map(|body| Holding { body, place: place.take() })
            }
            Projected::Refused { status } => status.clone().into_http(),
        }))
    }
}

pin_project_lite::pin_project! {
    /// A body that keeps the place of its call.
    #[derive(Debug)]
    pub(crate) struct Holding<B> {
        #[pin]
        body: B,
        place: Option<Place>,
    }
}

impl<B: Default> Default for Holding<B> {
    fn default() -> Self {
        Self { body: B::default(), place: None }
    }
}

impl<B: Body<Data = Bytes>> Body for Holding<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as AnswerBody;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        Config,
        server::{decoded::Schema, method::Methods},
    };

    fn admission(places: usize) -> Arc<Admission> {
        let mut limits = Config::default().server;
        limits.max_concurrent_requests = places;
        Arc::new(Admission::new("test", &Metrics::new(), &limits))
    }

    fn method() -> Arc<Method> {
        let schema = Schema::new(&prost_types::FileDescriptorSet::default());
        let pool = prost_reflect::DescriptorPool::new();
        Methods::new(&pool, &schema, &[]).unwrap().get("/any").clone()
    }

    async fn call(admission: &Arc<Admission>, place: Option<Place>) -> Response<Holding<AnswerBody>> {
        let service = tower::service_fn(async |_: Request| Ok(Response::new(AnswerBody::empty())));
        let mut request = Request::new(AnswerBody::empty());
        request.extensions_mut().insert(Called(method()));
        if let Some(place) = place {
            request.extensions_mut().insert(place);
        }
        let Ok(response) = AdmissionLayer(admission.clone()).layer(service).oneshot(request).await;
        response
    }

    fn is_refused(response: &Response<Holding<AnswerBody>>) -> bool {
        Status::from_header_map(response.headers())
            .is_some_and(|status| status.code() == tonic::Code::ResourceExhausted)
    }

    #[tokio::test]
    async fn a_place_is_kept_until_the_body_is_dropped() {
        let admission = admission(1);
        let first = call(&admission, None).await;
        assert!(is_refused(&call(&admission, None).await));
        drop(first);
        assert!(!is_refused(&call(&admission, None).await));
        admission.none_in_flight().await;
    }

    #[tokio::test]
    async fn a_place_that_the_request_has_already_is_taken_over() {
        let admission = admission(1);
        let place = admission.admit(&method()).unwrap();
        let response = call(&admission, Some(place.clone())).await;
        assert!(!is_refused(&response));
        drop(place);
        assert!(admission.admit(&method()).is_err(), "the answer still holds it");
        drop(response);
        assert!(admission.admit(&method()).is_ok());
    }
}
