//! Spreads calls over the addresses of a host.
//!
//! The name is resolved again and again, and each address gets connections of its own. Calls go to addresses that are connected:
//! of two at random to the one with fewer calls in progress ("power of two choices", as `tower::balance` has it). An address that
//! can no longer be reached gets no calls until it is connected again.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    error::Error as StdError,
    fmt, io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::{Notify, mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{
    ConnectError,
    body::Body,
    transport::{self, Endpoint},
};
use tower::{
    BoxError, Service,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::Change,
    load::{CompleteOnResponse, PendingRequests},
};

/// Time between two resolutions of a name.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);
/// What a resolution may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls that wait for a connection.
const WAITING_CALLS: usize = 1024;

type Request = http::Request<Body>;
type Response = http::Response<Body>;
/// An address and which of the connections to it.
type Key = (SocketAddr, usize);
type Changes = ReceiverStream<Result<Change<Key, PendingRequests<Member>>, Infallible>>;

/// Pauses between attempts to connect or to resolve: 50 ms, doubled up to 1 s, with jitter.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_secs(1))
    .without_max_times()
    .with_jitter();

/// Connections to all addresses of a host. They come about with the first call.
#[derive(Clone)]
pub(super) struct Balanced {
    members: Buffer<Request, <Balance<Changes, Request> as Service<Request>>::Future>,
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
}

impl Balanced {
    /// Has `connections` to each address of `endpoint`'s host.
    pub(super) fn new(endpoint: Endpoint, names: Names, connections: usize) -> Self {
        let (changes, received) = mpsc::channel(16);
        let (state, states) = watch::channel(State::default());
        let wanted = Arc::new(Notify::new());
        let shared = Arc::new(Shared { endpoint, names, changes, state });
        tokio::spawn(follow(shared, connections, Arc::clone(&wanted)));
        let balance = Balance::new(ReceiverStream::new(received));
        Self { members: Buffer::new(balance, WAITING_CALLS), state: states, wanted }
    }
}

impl fmt::Debug for Balanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Service<Request> for Balanced {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.members.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let sent = Sent::default();
        request.extensions_mut().insert(sent.clone());
        // Only what happens from now on counts: an address that was down a moment ago may be up.
        let mut state = self.state.clone();
        state.mark_unchanged();
        self.wanted.notify_one();
        let call = self.members.call(request);
        Box::pin(async move {
            let mut call = pin!(call);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut call => return answer,
                    Ok(()) = state.changed(), if !sent.0.load(Ordering::Relaxed) => {
                        let problem = state.borrow_and_update().unreachable();
                        // It may have been sent meanwhile.
                        if let Some(problem) = problem.filter(|_| !sent.0.load(Ordering::Relaxed)) {
                            return Err(ConnectError(problem.into()).into());
                        }
                    }
                }
            }
        })
    }
}

/// Set on a request once it is on a connection: from then on only the connection says how it ends.
#[derive(Clone, Debug, Default)]
struct Sent(Arc<AtomicBool>);

/// How it stands with each connection.
#[derive(Debug, Default)]
struct State {
    connections: HashMap<Key, Phase>,
    /// Why the name could not be resolved, when it was last tried.
    unresolved: Option<Unreachable>,
}

#[derive(Debug)]
enum Phase {
    Connecting,
    Connected,
    Failed(Unreachable),
}

impl State {
    /// Why no address can be reached for now.
    fn unreachable(&self) -> Option<Unreachable> {
        let mut problem = self.unresolved.as_ref();
        for phase in self.connections.values() {
            match phase {
                Phase::Connecting | Phase::Connected => return None,
                Phase::Failed(error) => problem = Some(error),
            }
        }
        problem.cloned()
    }
}

/// No address of a host can be reached: what the last attempt met.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(Arc<str>);

impl Unreachable {
    /// Only the innermost cause says what happened.
    fn new(error: &(dyn StdError + 'static)) -> Self {
        Self(causes(error).last().unwrap_or(error).to_string().into())
    }
}

/// Finds the addresses of a host.
pub(super) struct Names {
    lookup: Box<dyn Fn() -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>,
    interval: Duration,
}

impl Names {
    /// Asks the system for the host of a URL.
    pub(super) fn of(uri: &Uri) -> Self {
        let host: Arc<str> = uri.host().unwrap_or_default().trim_matches(['[', ']']).into();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let lookup = move || -> BoxFuture<'static, _> {
            let host = Arc::clone(&host);
            Box::pin(async move { Ok(lookup_host((&*host, port)).await?.collect()) })
        };
        Self { lookup: Box::new(lookup), interval: RESOLVE_INTERVAL }
    }

    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, (self.lookup)()).await;
        let addresses = resolved.map_err(|_| io::Error::other("its name was not resolved in time"))??;
        if addresses.is_empty() {
            return Err(io::Error::other("its name has no address"));
        }
        Ok(addresses)
    }
}

struct Shared {
    endpoint: Endpoint,
    names: Names,
    changes: mpsc::Sender<Result<Change<Key, PendingRequests<Member>>, Infallible>>,
    state: watch::Sender<State>,
}

impl Shared {
    fn enter(&self, key: Key, phase: Phase) {
        self.state.send_modify(|state| _ = state.connections.insert(key, phase));
    }

    async fn change(&self, change: Change<Key, PendingRequests<Member>>) {
        // It fails only when nobody calls any more.
        _ = self.changes.send(Ok(change)).await;
    }
}

/// Resolves the name again and again and keeps connections to each of its addresses, from the first call on until nobody can call.
async fn follow(shared: Arc<Shared>, connections: usize, wanted: Arc<Notify>) {
    tokio::select! {
        () = wanted.notified() => {}
        () = shared.changes.closed() => return,
    }
    let mut kept: HashMap<Key, AbortOnDropHandle<()>> = HashMap::new();
    let mut failing = PAUSES.build();
    loop {
        let pause = match shared.names.resolve().await {
            Ok(addresses) => {
                let keys: BTreeSet<Key> = addresses
                    .into_iter()
                    .flat_map(|address| (0..connections).map(move |connection| (address, connection)))
                    .collect();
                for key in keys.iter().filter(|key| !kept.contains_key(key)).copied().collect::<Vec<_>>() {
                    shared.enter(key, Phase::Connecting);
                    kept.insert(key, AbortOnDropHandle::new(tokio::spawn(keep(Arc::clone(&shared), key))));
                }
                for key in kept.keys().filter(|key| !keys.contains(key)).copied().collect::<Vec<_>>() {
                    if let Some(task) = kept.remove(&key) {
                        task.abort();
                        _ = task.await;
                    }
                    shared.state.send_modify(|state| _ = state.connections.remove(&key));
                    shared.change(Change::Remove(key)).await;
                }
                shared.state.send_modify(|state| state.unresolved = None);
                failing = PAUSES.build();
                shared.names.interval
            }
            Err(error) => {
                shared.state.send_modify(|state| state.unresolved = Some(Unreachable::new(&error)));
                failing.next().expect("without a number of times there is always a next")
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.changes.closed() => return,
        }
    }
}

/// Keeps one connection: it is made again whenever it is lost.
async fn keep(shared: Arc<Shared>, key: Key) {
    loop {
        let mut failing = PAUSES.build();
        let channel = loop {
            match connect(&shared.endpoint, key.0).await {
                Ok(channel) => break channel,
                Err(error) => {
                    shared.enter(key, Phase::Failed(Unreachable::new(&error)));
                    tokio::time::sleep(
                        failing.next().expect("without a number of times there is always a next"),
                    )
                    .await;
                    shared.enter(key, Phase::Connecting);
                }
            }
        };
        let lost = CancellationToken::new();
        let member = Member { channel, lost: lost.clone() };
        shared.enter(key, Phase::Connected);
        shared.change(Change::Insert(key, PendingRequests::new(member, CompleteOnResponse::default()))).await;
        lost.cancelled().await;
        shared.enter(key, Phase::Connecting);
    }
}

/// Connects to an address of the endpoint's host, which stays the authority of all requests.
async fn connect(endpoint: &Endpoint, address: SocketAddr) -> Result<transport::Channel, transport::Error> {
    let connector = tower::service_fn(move |_: Uri| async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(TokioIo::new(stream))
    });
    endpoint.connect_with_connector(connector).await
}

/// A connection that was made, until it can't be made again.
#[derive(Debug)]
struct Member {
    channel: transport::Channel,
    lost: CancellationToken,
}

impl Service<Request> for Member {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.lost.is_cancelled() {
            // The balancer forgets it.
            return Poll::Ready(Err("the connection is lost".into()));
        }
        self.channel.poll_ready(cx).map_err(BoxError::from)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if let Some(Sent(sent)) = request.extensions().get() {
            sent.store(true, Ordering::Relaxed);
        }
        let call = self.channel.call(request);
        let lost = self.lost.clone();
        Box::pin(async move {
            call.await.map_err(|error| {
                if is_connect_error(&error) {
                    lost.cancel();
                }
                error.into()
            })
        })
    }
}

fn is_connect_error(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|error| error.is::<ConnectError>())
}

/// An error with its causes.
pub(super) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::{
        net::TcpListener,
        runtime::{Builder, Runtime},
    };
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Status, service::Routes};
    use tower::ServiceExt as _;

    use super::*;

    /// A server that says its name in every answer. It has a runtime of its own, with which its connections end.
    struct Server {
        address: SocketAddr,
        runtime: Option<Runtime>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
        }
    }

    impl Server {
        fn start(name: &'static str) -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let answer = move || async move { ([("name", name), ("grpc-status", "0")], "") };
            let routes = Routes::from(axum::Router::new().fallback(answer));
            runtime.spawn(async move {
                let listener = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
                tonic::transport::Server::builder()
                    .add_routes(routes)
                    .serve_with_incoming(listener)
                    .await
                    .unwrap();
            });
            Self { address, runtime: Some(runtime) }
        }
    }

    type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

    fn balanced(addresses: &Addresses, connections: usize) -> Balanced {
        let addresses = Arc::clone(addresses);
        let lookup = move || -> BoxFuture<'static, _> {
            let found = addresses.lock().unwrap().clone();
            Box::pin(async { Ok(found) })
        };
        let names = Names { lookup: Box::new(lookup), interval: Duration::from_millis(20) };
        Balanced::new(Endpoint::from_static("http://weir.example"), names, connections)
    }

    async fn call(channel: &Balanced) -> Result<String, BoxError> {
        let request = http::Request::post("http://weir.example/a.B/C").body(Body::empty()).unwrap();
        let response = channel.clone().oneshot(request).await?;
        Ok(response.headers()["name"].to_str().unwrap().to_owned())
    }

    /// Who answers 40 calls, none of which may fail.
    async fn answering(channel: &Balanced) -> BTreeSet<String> {
        let calls = (0..40).map(|_| call(channel));
        futures::future::try_join_all(calls).await.unwrap().into_iter().collect()
    }

    async fn until(channel: &Balanced, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        let reached = async {
            while answering(channel).await != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.expect("the addresses are followed");
    }

    #[tokio::test]
    async fn calls_spread_over_the_addresses_as_they_change() {
        let (a, b, c) = (Server::start("a"), Server::start("b"), Server::start("c"));
        let addresses = Addresses::new(Mutex::new(vec![a.address, b.address]));
        let channel = balanced(&addresses, 2);
        until(&channel, &["a", "b"]).await;
        *addresses.lock().unwrap() = vec![b.address, c.address];
        until(&channel, &["b", "c"]).await;
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_gets_no_calls() {
        let (a, b) = (Server::start("a"), Server::start("b"));
        let nobody = SocketAddr::from(([127, 0, 0, 2], a.address.port()));
        let channel = balanced(&Addresses::new(Mutex::new(vec![nobody, a.address, b.address])), 1);
        until(&channel, &["a", "b"]).await;
        drop(a);
        // The calls that meet the end of the connection fail; after them none does.
        let ended = async {
            loop {
                let answers = futures::future::join_all((0..20).map(|_| call(&channel))).await;
                if answers.iter().all(|answer| matches!(answer.as_deref(), Ok("b"))) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
        assert_eq!(answering(&channel).await, BTreeSet::from(["b".to_owned()]));
    }

    #[tokio::test]
    async fn a_name_without_addresses_says_so() {
        let addresses = Addresses::default();
        let channel = balanced(&addresses, 1);
        let error = call(&channel).await.unwrap_err();
        let status = Status::from_error(error);
        assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, "its name has no address"));
        let a = Server::start("a");
        addresses.lock().unwrap().push(a.address);
        let found = async { while call(&channel).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(10), found).await.unwrap();
    }
}
