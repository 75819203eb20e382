//! Refuses calls whose caller lacks the scope that the schema asks for.

use std::{
    convert::Infallible,
    future::Ready,
    task::{Context, Poll},
};

use axum::extract::Request;
use futures::future::Either;
use http::Response;
use tower::{Layer, Service};

use super::metrics::Called;
use crate::{
    auth::{Principal, scope_name},
    status::Reason,
};

/// Compares the scope of the method with those of the [`Principal`].
#[derive(Debug, Clone, Copy)]
pub(super) struct AuthorizeLayer;

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner }
    }
}

/// See [`AuthorizeLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Authorized<S> {
    inner: S,
}

impl<S, B> Service<Request> for Authorized<S>
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
        // What has no scope is no RPC of the schema, and will not be found.
        let needed = request.extensions().get::<Called>().and_then(|called| called.0.scope);
        let scopes = request.extensions().get::<Principal>().map(|principal| principal.scopes);
        match needed.filter(|scope| !scopes.is_some_and(|scopes| scopes.contains(*scope))) {
            None => Either::Left(self.inner.call(request)),
            Some(scope) => {
                let name = scope_name(scope);
                let message = format!("the credential lacks the scope {name}; use one that has it");
                let status: tonic::Status = Reason::ScopeMissing.error(message).with("scope", name).into();
                Either::Right(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use prost_reflect::DescriptorPool;
    use tonic::Status;
    use tonic_types::StatusExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        auth::{Scope, Scopes},
        metrics,
        server::{decoded::Schema, method::Methods},
    };

    /// What `ListEventNames` answers to a caller with these scopes.
    async fn call(scopes: Option<Scopes>) -> Status {
        let pool = DescriptorPool::decode(weir_proto::DESCRIPTORS).unwrap();
        let methods = Methods::new(&pool, &Schema::new(&metrics::descriptors()), &[]).unwrap();
        let service = tower::service_fn(async |_: Request| Ok(Status::ok("").into_http::<Body>()));
        let mut request = Request::new(Body::empty());
        let method = methods.get("/weir.analytics.v1.AnalyticsService/ListEventNames").clone();
        request.extensions_mut().insert(Called(method));
        if let Some(scopes) = scopes {
            let principal =
                Principal { project: "p".parse().unwrap(), subject: "s".into(), scopes, quota: None };
            request.extensions_mut().insert(principal);
        }
        let Ok(response) = AuthorizeLayer.layer(service).oneshot(request).await;
        Status::from_header_map(response.headers()).unwrap()
    }

    #[tokio::test]
    async fn a_call_needs_the_scope_of_its_method() {
        assert_eq!(call(Some(Scopes::of(&[Scope::QueryRead]))).await.code(), tonic::Code::Ok);
        for scopes in [Some(Scopes::of(&[Scope::EventsWrite, Scope::EventsRead])), None] {
            let status = call(scopes).await;
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
            assert!(status.message().contains("query:read"), "{status}");
            assert_eq!(status.get_details_error_info().unwrap().metadata["scope"], "query:read");
        }
    }
}
