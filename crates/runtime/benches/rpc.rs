//! What the layers add to a unary RPC: a call through all of them beside one to the bare routes, without a socket. The service
//! answers at once.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark has no callers, and what fails here fails it"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    convert::Infallible,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task,
};

use axum::body::Body;
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http_body_util::{BodyExt as _, Full};
use prost_types::Duration;
use tonic::{Request, Response, Status, service::Routes};
use tonic_prost::ProstCodec;
use tower::{Service, ServiceExt as _};
use weir_runtime::{Config, Context, Host, Shutdown};

/// A gRPC frame of `google.protobuf.Duration { seconds: 7 }`.
const FRAME: [u8; 7] = [0, 0, 0, 0, 2, 0x08, 7];
const PATH: &str = "/weir.ingest.v1.IngestService/SyncClock";

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: all calls go to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone)]
struct Echo;

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "weir.ingest.v1.IngestService";
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let echo = tower::service_fn(async |request: Request<Duration>| {
            Ok::<_, Status>(Response::new(request.into_inner()))
        });
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Duration, Duration>::default());
            Ok(grpc.unary(echo, request).await)
        })
    }
}

async fn call<S, B>(service: S)
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let request = http::Request::post(PATH).header("content-type", "application/grpc");
    let request = request.body(Body::new(Full::new(Bytes::from_static(&FRAME)))).unwrap();
    let Ok(response) = service.oneshot(request).await;
    let answer = response.into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
}

fn layers(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let routes = Routes::new(Echo);
    let bare = routes.clone().prepare().into_axum_router();
    let context = Context::new(Config::default(), Shutdown::new());
    let host = Host::new("bench", context);
    let all = host
        .grpc(routes, &[<Echo as tonic::server::NamedService>::NAME], &[weir_proto::DESCRIPTORS])
        .unwrap()
        .into_rpc()
        .unwrap();

    criterion.bench_function("bare routes", |bencher| {
        bencher.iter(|| runtime.block_on(call(bare.clone())));
    });
    criterion.bench_function("all layers", |bencher| {
        bencher.iter(|| runtime.block_on(call(all.clone())));
    });
    let allocations = |what: &str, run: &dyn Fn()| {
        run();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..100).for_each(|_| run());
        println!("{what}: {} allocations a call", (ALLOCATIONS.load(Ordering::Relaxed) - before) / 100);
    };
    allocations("bare routes", &|| runtime.block_on(call(bare.clone())));
    allocations("all layers", &|| runtime.block_on(call(all.clone())));
}

criterion_group!(benches, layers);
criterion_main!(benches);
