//! Accepting connections and speaking HTTP/1.1 or HTTP/2 on them, within limits.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::ConnectInfo, extract::Request, response::Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::TcpConnectInfo;
use tower::{Service, ServiceExt as _};

use crate::{Metrics, config};

/// How long to wait when the system has no descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/2 flow control: what a peer may send before it is read, on one stream and on all of a connection. The defaults
/// (64 KiB) stall a batch of 4 MiB on every round trip.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The least that hyper takes for an HTTP/1 header buffer.
const MIN_HTTP1_BUFFER_BYTES: usize = 8192;

/// Makes of an accepted connection what HTTP is spoken on.
pub(in crate::server) trait Acceptor: Clone + Send + Sync + 'static {
    /// What HTTP is spoken on.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Is called once the peer has sent something, and cut off when it takes too long.
    fn accept(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Plain TCP.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Tcp;

impl Acceptor for Tcp {
    type Stream = TcpStream;

    async fn accept(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// The ports of one service.
#[derive(Debug, Clone)]
pub(in crate::server) struct Ports {
    pub(in crate::server) service: &'static str,
    pub(in crate::server) limits: config::Server,
    pub(in crate::server) metrics: Metrics,
    /// Ends accepting, and asks connections to finish.
    pub(in crate::server) stop: CancellationToken,
    pub(in crate::server) connections: Connections,
}

/// The connections in use, to be waited for and cut.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Connections {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Connections {
    /// Waits for the connections to end, then cuts the rest. Returns when all are gone.
    pub(in crate::server) async fn close(&self, timeout: Duration) {
        self.tasks.close();
        if tokio::time::timeout(timeout, self.tasks.wait()).await.is_err() {
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Ports {
    /// Accepts until the stop. `port` names it in the metrics.
    pub(in crate::server) async fn accept<A, S>(
        self,
        listener: TcpListener,
        port: &'static str,
        acceptor: A,
        service: S,
    ) where
        A: Acceptor,
        S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
            + Clone
            + Send
            + 'static,
    {
        let protocol = Arc::new(protocol(&self.limits));
        let open = self.metrics.open_connections(self.service, port);
        // Acquired before accepting: beyond the limit callers wait in the system's backlog instead of here.
        let places = Arc::new(Semaphore::new(self.limits.max_connections.min(Semaphore::MAX_PERMITS)));
        loop {
            let accepted = async {
                let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = accepted => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(service = self.service, port, %error, "cannot accept a connection");
                    self.metrics.errors(self.service, "accept").inc();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = connection(
                stream,
                peer,
                acceptor.clone(),
                service.clone(),
                protocol.clone(),
                self.limits.keep_alive_interval + self.limits.keep_alive_timeout,
                self.stop.clone(),
            );
            let cut = self.connections.cut.clone();
            let open = open.clone();
            open.inc();
            self.connections.tasks.spawn(async move {
                tokio::select! {
                    () = connection => {}
                    () = cut.cancelled() => {}
                }
                open.dec();
                drop(place);
            });
        }
    }
}

async fn connection<A, S>(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: A,
    service: S,
    protocol: Arc<Builder<TokioExecutor>>,
    silence: Duration,
    stop: CancellationToken,
) where
    A: Acceptor,
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
{
    // Small frames of streams must not wait for the acknowledgement of the last ones.
    let _ = stream.set_nodelay(true);
    // Until the first byte the protocol is unknown, and no timeout of either applies.
    let spoke = tokio::select! {
        spoke = tokio::time::timeout(silence, stream.readable()) => matches!(spoke, Ok(Ok(()))),
        () = stop.cancelled() => false,
    };
    if !spoke {
        return;
    }
    let local_addr = stream.local_addr().ok();
    let stream = tokio::select! {
        accepted = tokio::time::timeout(silence, acceptor.accept(stream)) => match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "a connection was not accepted"),
            Err(_) => return,
        },
        () = stop.cancelled() => return,
    };
    let service = service.map_request(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(TcpConnectInfo { local_addr, remote_addr: Some(peer) });
        request
    });
    let connection = protocol.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a connection broke");
    }
}

fn protocol(limits: &config::Server) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.keep_alive_interval)
        .max_buf_size(MIN_HTTP1_BUFFER_BYTES.max(limits.max_header_bytes as usize));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_bytes)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits.keep_alive_interval)
        .keep_alive_timeout(limits.keep_alive_timeout);
    builder
}
