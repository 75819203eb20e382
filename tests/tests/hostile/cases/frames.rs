//! gRPC and gRPC-Web calls whose messages, frames or headers are hostile.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use prost_reflect::MethodDescriptor;
use rand::{Rng as _, rngs::StdRng};

use super::{Action, Case, Port, Request, pick, protobuf};

/// What each call allows itself; the answer must be there soon after.
pub(crate) const TIMEOUT: &str = "1000m";

/// A call of a method.
pub(super) fn grpc(rng: &mut StdRng, method: &MethodDescriptor, port: Port) -> Case {
    let (family, message) = protobuf::message(rng, &method.input());
    let compressed = rng.random_range(0..3) == 0;
    let message = if compressed { gzip(&message) } else { message };
    let mut body = framed(&message, compressed);
    let mut headers = vec![("te", "trailers".to_owned()), ("grpc-timeout", TIMEOUT.to_owned())];
    if compressed {
        headers.push(("grpc-encoding", "gzip".to_owned()));
    }
    match rng.random_range(0..20) {
        // Lengths that lie.
        0 => body[1..5].copy_from_slice(&rng.random::<u32>().to_be_bytes()),
        // Many messages where one is expected.
        1 if body.len() < 64 << 10 => body = body.repeat(rng.random_range(2..100)),
        2 => body.truncate(rng.random_range(0..body.len())),
        // Compressed without saying how.
        3 => body[0] = rng.random(),
        4 => {
            headers.push(("grpc-encoding", pick(rng, &["zstd", "deflate", "br", "identity", ""]).to_owned()))
        }
        5 => headers
            .push(("grpc-timeout", pick(rng, &["0n", "99999999H", "-1S", "1", "1000000000S"]).to_owned())),
        6 => headers.push(("x-fill", "y".repeat(super::size(rng, 1, 15_000)))),
        7 => headers.push(("traceparent", protobuf::text(rng).replace(|c: char| !c.is_ascii_graphic(), ""))),
        _ => {}
    }
    // gRPC-Web is served on HTTP ports.
    let (port, kind) = match rng.random_range(0..5) {
        0 if port != Port::ConsumerGrpc => (
            if port == Port::ProducerGrpc { Port::ProducerHttp } else { Port::AnalyticsHttp },
            "application/grpc-web+proto",
        ),
        _ => (port, "application/grpc"),
    };
    headers.push(("content-type", kind.to_owned()));
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    Case { family, port, action: Action::Http(Request { http2: true, method: "POST", path, headers, body }) }
}

/// The gRPC frame of a message.
pub(super) fn framed(message: &[u8], compressed: bool) -> Vec<u8> {
    let mut body = vec![u8::from(compressed)];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    body
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a Vec takes everything");
    encoder.finish().expect("a Vec takes everything")
}
