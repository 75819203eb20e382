//! Hostile requests, generated from a seed: what an attacker, a broken client or a fuzzer sends.
//!
//! A case is a function of the seed and its number alone, so that a failure is repeated by naming both.

mod frames;
mod http;
mod import;
mod json;
mod plausible;
mod protobuf;

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, MethodDescriptor};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Largest body of a case, before compression: the default of `server.max_message_bytes`.
pub(crate) const MAX_BODY: usize = 8 << 20;

/// A listener of Weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    ProducerHttp,
    ProducerGrpc,
    ConsumerGrpc,
    AnalyticsHttp,
    AnalyticsGrpc,
    Gateway,
}

/// What is done to the system.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// A request that an HTTP client can make.
    Http(Request),
    /// Bytes on a connection, whatever they mean; the answer is read until the server closes or the time is over.
    Bytes(Vec<u8>),
    /// A file for `weir import`, with arguments.
    Import { file: Vec<u8>, name: &'static str, args: Vec<String> },
}

/// An HTTP request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) http2: bool,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// One hostile request.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The kind, for messages and statistics.
    pub(crate) family: &'static str,
    pub(crate) port: Port,
    pub(crate) action: Action,
}

/// What cases may be aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The producer's two ports.
    Producer,
    /// All services, and the command line.
    Everything,
}

/// The schemas of all services.
pub(crate) fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(weir_proto::DESCRIPTORS).expect("the schemas decode"))
}

/// The methods in scope and the gRPC port that serves each.
fn methods(scope: Scope) -> Vec<(MethodDescriptor, Port)> {
    let mut methods = Vec::new();
    for service in pool().services() {
        let port = match service.full_name() {
            "weir.ingest.v1.IngestService" => Port::ProducerGrpc,
            "weir.analytics.v1.AnalyticsService" if scope == Scope::Everything => Port::AnalyticsGrpc,
            "weir.processing.v1.ProcessingService" if scope == Scope::Everything => Port::ConsumerGrpc,
            _ => continue,
        };
        methods.extend(service.methods().map(|method| (method, port)));
    }
    methods
}

impl Case {
    /// Case `number` of a seed.
    pub(crate) fn new(seed: u64, number: u64, scope: Scope) -> Self {
        // Neighbouring numbers must not give neighbouring states of the generator: the golden ratio spreads them.
        let rng = &mut StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kind = match scope {
            Scope::Producer => rng.random_range(0..80),
            // A command costs a process: one case in 200.
            Scope::Everything if rng.random_range(0..200) == 0 => return import::case(rng),
            Scope::Everything => rng.random_range(0..100),
        };
        let methods = methods(scope);
        let (method, port) = &methods[rng.random_range(0..methods.len())];
        match kind {
            0..32 => frames::grpc(rng, method, *port),
            32..64 => http::json(rng, method, *port, scope),
            64..72 => http::form(rng, method, *port, scope),
            72..80 => http::bytes(rng, scope),
            _ => plausible::case(rng, method, *port),
        }
    }
}

/// A size between two bounds, small ones as likely as large ones: uniform in its logarithm.
fn size(rng: &mut StdRng, least: usize, most: usize) -> usize {
    let (least, most) = ((least as f64).ln(), (most as f64).ln());
    rng.random_range(least..=most).exp() as usize
}

/// One of some things.
fn pick<'a, T: ?Sized>(rng: &mut StdRng, of: &[&'a T]) -> &'a T {
    of[rng.random_range(0..of.len())]
}

/// Changes some bytes, cuts the end off, or repeats a part.
fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..4) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes.truncate(at),
            _ => {
                let end = (at + rng.random_range(1..64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
}
