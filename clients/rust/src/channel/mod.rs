//! The way of a call from a client to a server.
//!
//! One chain of layers for every client of Weir, read from top to bottom:
//!
//! 1. `deadline` ends the call when its time is over, all attempts together;
//! 2. `replay` keeps the request of a call that may be repeated: the schema says which;
//! 3. `retry` repeats what failed for the moment, within a budget;
//! 4. `deadline` again tells the server of each attempt how much time is left;
//! 5. `balance` chooses a connection to one of the addresses of the host.

mod balance;
mod deadline;
mod replay;
mod retry;

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::{body::Body, transport::Endpoint};
use tower::{BoxError, Service, ServiceBuilder, retry::Retry, util::MapRequest};

use self::{
    balance::{Balanced, Names},
    deadline::{DeadlineLayer, Expiry, Limited},
    replay::{Content, Kept, ReplayLayer},
    retry::Repeat,
};

type Attempts = MapRequest<Balanced, fn(Request<Content>) -> Request<Body>>;

/// What differs between the clients of Weir.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Connections to each address: one is one lock for all calls on it.
    pub connections: usize,
    /// What a call may take whose request states no `grpc-timeout`. `None` is endless.
    pub deadline: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: 1, deadline: None }
    }
}

/// Calls on a host: they have a deadline, are repeated where the schema allows it, and spread over the addresses of the host.
///
/// Clones share the connections, which come about with the first call.
#[derive(Clone, Debug)]
pub struct Channel {
    stack: Limited<Kept<Retry<Repeat, Attempts>>>,
}

impl Channel {
    /// Calls the host of `endpoint`, with its settings for each connection. Needs a Tokio runtime.
    pub fn new(endpoint: Endpoint, options: Options) -> Self {
        let names = Names::of(endpoint.uri());
        let stamp: fn(Request<Content>) -> Request<Body> = |attempt| Expiry::stamp(attempt).map(Body::from);
        let stack = ServiceBuilder::new()
            .layer(DeadlineLayer { default: options.deadline })
            .layer(ReplayLayer)
            .retry(Repeat::new())
            .map_request(stamp)
            .service(Balanced::new(endpoint, names, options.connections));
        Self { stack }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.stack.call(request)
    }
}
