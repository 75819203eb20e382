//! Finds out who calls.
//!
//! Until there are credentials everybody is the principal that the host was given.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::extract::Request;
use http::Response;
use tower::{Layer, Service};

use crate::auth::Principal;

/// Metadata that only Weir's own services may send, and not yet from outside: the principal is the only source of the project.
const INTERNAL_METADATA: [&str; 2] = ["weir-project", "weir-subject"];

/// Puts the [`Principal`] into each request.
#[derive(Debug, Clone)]
pub(super) struct AuthenticateLayer {
    pub(super) everybody: Principal,
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated { inner, layer: self.clone() }
    }
}

/// See [`AuthenticateLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Authenticated<S> {
    inner: S,
    layer: AuthenticateLayer,
}

impl<S, B> Service<Request> for Authenticated<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        for name in INTERNAL_METADATA {
            request.headers_mut().remove(name);
        }
        request.extensions_mut().insert(self.layer.everybody.clone());
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;
    use crate::auth::{ProjectId, Scopes};

    #[tokio::test]
    async fn the_project_comes_from_the_principal_alone() {
        let everybody = Principal {
            project: ProjectId::new("shop"),
            subject: "test".into(),
            scopes: Scopes::default(),
            quota: None,
        };
        let service = tower::service_fn(async |request: Request| {
            assert!(!request.headers().contains_key("weir-project"));
            let principal = request.extensions().get::<Principal>().unwrap();
            Ok(Response::new(Body::from(principal.project.to_string())))
        });
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert("weir-project", "another".parse().unwrap());
        let Ok(response) = AuthenticateLayer { everybody }.layer(service).oneshot(request).await;
        assert_eq!(axum::body::to_bytes(response.into_body(), 100).await.unwrap(), "shop");
    }
}
