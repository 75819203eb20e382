//! The connections to one service behind the standalone gateway.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::future::BoxFuture;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tonic::{Status, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::{Service, ServiceExt as _};
use weir_client::channel::{Channel, Options};
use weir_runtime::{Shutdown, health::Check, status::Reason};

use crate::Error;

/// Connections to each address of a service: one is one lock for all calls on it.
const CONNECTIONS: usize = 4;
/// What a service may send on one call before the client has read it, bytes: what a slow reader makes the gateway hold.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
/// The same for all calls of a connection: the most that HTTP/2 has, so that slow readers never keep the other calls waiting.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// A peer that does not accept in this time is as good as gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Probes that find a peer that went without a word.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two checks of a service that is well, and what one may take.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two checks of a service that is not well: 100 ms, doubled up to 5 s.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times();

/// A service that gRPC requests are passed on to. It connects when first used, and again whenever a connection is lost.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    name: &'static str,
    url: Arc<str>,
    channel: Channel,
    endless: Arc<HashSet<String>>,
    shutdown: Shutdown,
}

impl Upstream {
    /// `endless` are the paths of the RPCs that stream their answers: those are ended when the shutdown comes.
    ///
    /// # Errors
    /// [`Error::Upstream`] when `url`, the value of the configuration's `key`, is none.
    pub(crate) fn new(
        name: &'static str,
        key: &'static str,
        url: &str,
        endless: HashSet<String>,
        shutdown: Shutdown,
    ) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|source| Error::Upstream { key, url: url.to_owned(), source })?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = Channel::new(endpoint, Options { connections: CONNECTIONS, deadline: None });
        Ok(Self { name, url: url.into(), channel, endless: endless.into(), shutdown })
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Status {
        let message = format!("the {} at {} cannot be reached: {}", self.name, self.url, chain(error));
        Reason::UpstreamUnavailable.error(message).with("upstream", self.name).into()
    }

    /// Keeps `check` at what the service says of its own health, until the shutdown.
    pub(crate) async fn watch(self, check: Check) {
        let mut failing = PAUSES.build();
        loop {
            let pause = match self.is_serving().await {
                Ok(()) => {
                    check.ok();
                    failing = PAUSES.build();
                    CHECK_INTERVAL
                }
                Err(reason) => {
                    check.failing(reason);
                    failing.next().expect("without a number of times there is always a next")
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shutdown.requested() => return,
            }
        }
    }

    async fn is_serving(&self) -> Result<(), String> {
        let mut client = HealthClient::new(self.channel.clone());
        let check = client.check(HealthCheckRequest::default());
        match tokio::time::timeout(CHECK_TIMEOUT, check).await {
            Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
            Ok(Ok(_)) => Err(format!("the {} at {} is not ready", self.name, self.url)),
            Ok(Err(status)) => Err(self.unreachable(&status).message().to_owned()),
            Err(_) => Err(format!("the {} at {} did not answer in {CHECK_TIMEOUT:?}", self.name, self.url)),
        }
    }
}

impl Service<Request> for Upstream {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let upstream = self.clone();
        Box::pin(async move {
            // gRPC-Web comes over HTTP/1.1 as well.
            let mut request = request.map(tonic::body::Body::new);
            *request.version_mut() = http::Version::HTTP_2;
            let shutdown = upstream.endless.contains(request.uri().path()).then(|| upstream.shutdown.clone());
            Ok(match upstream.channel.clone().oneshot(request).await {
                Ok(response) => response.map(|body| {
                    // A connection lost in mid-answer is told as what it is, not as a fault of ours.
                    let body = Body::new(body.map_err(move |error| upstream.unreachable(&error)));
                    match shutdown {
                        Some(shutdown) => ended_by(shutdown, body),
                        None => body,
                    }
                }),
                Err(error) => match error.downcast::<Status>() {
                    Ok(status) => status.into_http(),
                    Err(error) => upstream.unreachable(&*error).into_http(),
                },
            })
        })
    }
}

/// The body of a streamed answer, which at the shutdown ends with a status that asks to come again.
fn ended_by(shutdown: Shutdown, body: Body) -> Body {
    let requested = Box::pin(shutdown.requested());
    let frames = futures::stream::unfold(Some((body, requested)), async |state| {
        let (mut body, mut requested) = state?;
        tokio::select! {
            frame = body.frame() => Some((frame?, Some((body, requested)))),
            () = &mut requested => {
                let status = Reason::Draining.status("the gateway is stopping; connect again");
                let mut trailers = HeaderMap::new();
                // Its header values are ASCII, as gRPC encodes them.
                status.add_header(&mut trailers).ok()?;
                Some((Ok(Frame::trailers(trailers)), None))
            }
        }
    });
    Body::new(StreamBody::new(frames))
}

/// An error with its causes; transport errors say what happened only in the innermost.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}
