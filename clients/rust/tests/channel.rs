//! The client stack against servers that fail in every way.

#![allow(clippy::unwrap_used, reason = "clippy exempts only the tests themselves, not what they share")]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, transport::Endpoint};
use tonic_types::{ErrorDetails, StatusExt as _};
use weir_client::channel::{Channel, Options};
use weir_proto::{
    processing::v1::{
        GetStatusRequest, GetStatusResponse, WatchStatusRequest, WatchStatusResponse,
        processing_service_client::ProcessingServiceClient,
        processing_service_server::{ProcessingService, ProcessingServiceServer},
    },
    time::parse_timeout,
};

/// Answers `GetStatus`, after so many failures.
#[derive(Clone, Debug, Default)]
struct Failing {
    failures: Arc<Mutex<VecDeque<Status>>>,
    always: Option<Status>,
    delay: Duration,
    calls: Arc<AtomicUsize>,
    timeouts: Arc<Mutex<Vec<Duration>>>,
}

impl Failing {
    fn with(failures: impl IntoIterator<Item = Status>) -> Self {
        Self { failures: Arc::new(Mutex::new(failures.into_iter().collect())), ..Self::default() }
    }

    fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }
}

#[tonic::async_trait]
impl ProcessingService for Failing {
    type WatchStatusStream = ReceiverStream<Result<WatchStatusResponse, Status>>;

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.calls.fetch_add(1, Relaxed);
        if let Some(timeout) = request.metadata().get("grpc-timeout") {
            self.timeouts.lock().unwrap().push(parse_timeout(timeout.to_str().unwrap()).unwrap());
        }
        tokio::time::sleep(self.delay).await;
        let failure = self.failures.lock().unwrap().pop_front().or_else(|| self.always.clone());
        failure.map_or_else(|| Ok(Response::new(GetStatusResponse::default())), Err)
    }

    async fn watch_status(
        &self,
        _: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).await.unwrap()
}

/// A server in a runtime of its own, with which its connections end.
struct Serving(Option<Runtime>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

fn serve(listener: TcpListener, service: Failing) -> Serving {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = listener.into_std().unwrap();
    runtime.spawn(async move {
        let listener = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
        let server = tonic::transport::Server::builder().add_service(ProcessingServiceServer::new(service));
        server.serve_with_incoming(listener).await.unwrap();
    });
    Serving(Some(runtime))
}

fn client(address: SocketAddr, options: Options) -> ProcessingServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    ProcessingServiceClient::new(Channel::new(endpoint, options))
}

async fn started(service: &Failing, options: Options) -> (ProcessingServiceClient<Channel>, Serving) {
    let listener = listen("127.0.0.1:0").await;
    let address = listener.local_addr().unwrap();
    (client(address, options), serve(listener, service.clone()))
}

fn unavailable() -> Status {
    Status::unavailable("for the moment")
}

#[tokio::test]
async fn what_fails_for_the_moment_is_repeated() {
    let service = Failing::with([unavailable(), unavailable()]);
    let (mut client, _serving) = started(&service, Options::default()).await;
    client.get_status(GetStatusRequest::default()).await.unwrap();
    assert_eq!(service.calls(), 3);
}

#[tokio::test]
async fn a_call_is_repeated_three_times_at_most() {
    let service = Failing { always: Some(unavailable()), ..Failing::default() };
    let (mut client, _serving) = started(&service, Options::default()).await;
    let status = client.get_status(GetStatusRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "for the moment"));
    assert_eq!(service.calls(), 4);
}

#[tokio::test]
async fn what_fails_for_good_is_not_repeated() {
    for code in [Code::InvalidArgument, Code::ResourceExhausted, Code::Internal, Code::DeadlineExceeded] {
        let service = Failing::with([Status::new(code, "no")]);
        let (mut client, _serving) = started(&service, Options::default()).await;
        let status = client.get_status(GetStatusRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert_eq!(service.calls(), 1, "{code:?}");
    }
}

#[tokio::test]
async fn a_pause_that_the_server_asks_for_is_kept() {
    let asked = Duration::from_millis(300);
    let busy = || {
        let details = ErrorDetails::with_retry_info(Some(asked));
        Status::with_error_details(Code::ResourceExhausted, "busy", details)
    };
    let service = Failing::with([busy()]);
    let (mut calls, _serving) = started(&service, Options::default()).await;
    let begun = Instant::now();
    calls.get_status(GetStatusRequest::default()).await.unwrap();
    assert!(begun.elapsed() >= asked, "{:?}", begun.elapsed());
    assert_eq!(service.calls(), 2);

    // There is no time for it.
    let service = Failing::with([busy()]);
    let (mut calls, _serving) =
        started(&service, Options { deadline: Some(asked / 2), ..Options::default() }).await;
    let status = calls.get_status(GetStatusRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(service.calls(), 1);
}

#[tokio::test]
async fn a_server_that_is_down_is_not_buried_under_repetitions() {
    const CALLS: usize = 400;
    let service = Failing { always: Some(unavailable()), ..Failing::default() };
    let (client, _serving) = started(&service, Options::default()).await;
    let calls = (0..CALLS).map(|_| {
        let mut client = client.clone();
        async move { client.get_status(GetStatusRequest::default()).await.unwrap_err() }
    });
    let begun = Instant::now();
    futures::future::join_all(calls).await;
    // What the budget holds at first, and what it gains in the meantime.
    let budget = 100 + 10 * (begun.elapsed().as_secs() as usize + 1);
    let repeated = service.calls() - CALLS;
    assert!((1..=budget).contains(&repeated), "{repeated} repetitions, with a budget of {budget}");
}

#[tokio::test]
async fn the_deadline_is_for_all_attempts_together() {
    let service =
        Failing { always: Some(unavailable()), delay: Duration::from_millis(150), ..Failing::default() };
    let deadline = Duration::from_millis(400);
    let (mut client, _serving) =
        started(&service, Options { deadline: Some(deadline), ..Options::default() }).await;
    let begun = Instant::now();
    let status = client.get_status(GetStatusRequest::default()).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable), "{status:?}");
    assert!(begun.elapsed() < deadline * 3, "{:?}", begun.elapsed());
    let timeouts = service.timeouts.lock().unwrap().clone();
    assert!(timeouts.len() >= 2, "{timeouts:?}");
    assert!(timeouts[0] <= deadline && timeouts.is_sorted_by(|a, b| a > b), "{timeouts:?}");
}

#[tokio::test]
async fn a_call_states_its_own_deadline() {
    let service = Failing { delay: Duration::from_secs(60), ..Failing::default() };
    let (mut client, _serving) =
        started(&service, Options { deadline: Some(Duration::from_secs(50)), ..Options::default() }).await;
    let mut request = Request::new(GetStatusRequest::default());
    request.set_timeout(Duration::from_millis(50));
    let status = client.get_status(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let stated = service.timeouts.lock().unwrap()[0];
    assert!(stated <= Duration::from_millis(50), "{stated:?}");
}

#[tokio::test]
async fn who_is_not_there_is_found_once_it_is() {
    let free = listen("127.0.0.1:0").await;
    let address = free.local_addr().unwrap();
    drop(free);
    let mut client = client(address, Options::default());
    for _ in 0..3 {
        let status = client.get_status(GetStatusRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("refused"), "{status:?}");
    }
    let service = Failing::default();
    let serving = serve(listen(&address.to_string()).await, service.clone());
    // An attempt that has just failed may be what the first one meets.
    let found = async { while client.get_status(GetStatusRequest::default()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), found).await.unwrap();
    client.get_status(GetStatusRequest::default()).await.unwrap();

    drop(serving);
    let status = client.get_status(GetStatusRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}
