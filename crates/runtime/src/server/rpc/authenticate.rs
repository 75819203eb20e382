//! Finds out who calls.
//!
//! Until there are credentials everybody is the principal that the host was given. Who administers the instance may name the project
//! that a call is about, in the metadata `weir-project`; for all others it is their own.

use std::{
    convert::Infallible,
    future::Ready,
    task::{Context, Poll},
};

use axum::extract::Request;
use futures::future::Either;
use http::{HeaderMap, Response};
use tonic::Status;
use tower::{Layer, Service};

use crate::{
    auth::{NotAProject, Principal, Scope},
    status::{Reason, invalid_argument},
};

/// The metadata that names the project of a call.
const PROJECT: &str = "weir-project";
/// Metadata that only Weir's own services may send, and not yet from outside.
const INTERNAL_METADATA: [&str; 1] = ["weir-subject"];

/// Puts the [`Principal`] into each request.
#[derive(Debug, Clone)]
pub(super) struct AuthenticateLayer {
    pub(super) everybody: Principal,
}

impl AuthenticateLayer {
    /// Who calls, and takes what is internal from the headers.
    fn authenticate(&self, headers: &mut HeaderMap) -> Result<Principal, Status> {
        for name in INTERNAL_METADATA {
            headers.remove(name);
        }
        let principal = self.everybody.clone();
        // It stays: a gateway passes it on, and the service behind it authenticates again.
        let Some(project) = headers.get(PROJECT) else { return Ok(principal) };
        if !principal.scopes.contains(Scope::InstanceAdmin) {
            let message = format!("the credential is of one project; leave out `{PROJECT}`");
            return Err(Reason::ScopeMissing.status(message));
        }
        let project = project.to_str().unwrap_or_default().parse();
        let project =
            project.map_err(|malformed: NotAProject| invalid_argument([(PROJECT, malformed.to_string())]))?;
        Ok(Principal { project, ..principal })
    }
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
    B: Default,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<B>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.layer.authenticate(request.headers_mut()) {
            Ok(principal) => {
                request.extensions_mut().insert(principal);
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(std::future::ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{ProjectId, Scopes};

    fn authenticate(scopes: Scopes, headers: &[(&'static str, &str)]) -> Result<(String, HeaderMap), Status> {
        let project = ProjectId::default_project();
        let layer = AuthenticateLayer {
            everybody: Principal { project, subject: "test".into(), scopes, quota: None },
        };
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            sent.insert(*name, value.parse().unwrap());
        }
        let principal = layer.authenticate(&mut sent)?;
        Ok((principal.project.to_string(), sent))
    }

    #[test]
    fn only_an_administrator_names_the_project() {
        let admin = Scopes::of(&[Scope::InstanceAdmin]);
        assert_eq!(authenticate(admin, &[]).unwrap().0, "default");
        assert_eq!(authenticate(admin, &[(PROJECT, "shop")]).unwrap().0, "shop");
        assert_eq!(authenticate(Scopes::default(), &[]).unwrap().0, "default");
        let refused = authenticate(Scopes::of(&[Scope::ProjectAdmin]), &[(PROJECT, "shop")]).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        let malformed = authenticate(admin, &[(PROJECT, "Shop!")]).unwrap_err();
        assert_eq!(malformed.code(), tonic::Code::InvalidArgument);
        assert!(malformed.message().contains("weir-project"), "{malformed}");
    }

    #[test]
    fn what_is_internal_does_not_go_on() {
        let (_, left) =
            authenticate(Scopes::DEVELOPMENT, &[("weir-subject", "root"), ("weir-import", "true")]).unwrap();
        assert!(!left.contains_key("weir-subject"));
        assert!(left.contains_key("weir-import"));
    }
}
