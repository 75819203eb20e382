//! REST requests with hostile bodies, targets and headers, and connections that don't speak HTTP.

use prost_reflect::{MethodDescriptor, Value};
use rand::{Rng as _, RngCore as _, rngs::StdRng};

use super::{
    Action, Case, Port, Request, Scope,
    frames::{TIMEOUT, gzip},
    json, pick, size,
};

/// Method and path of an RPC's REST form, with `{variables}`.
fn route(method: &MethodDescriptor) -> Option<(&'static str, String)> {
    let extension = super::pool().get_extension_by_name("google.api.http")?;
    let options = method.options();
    let rule = options.get_extension(&extension);
    let rule = rule.as_message()?;
    [("GET", "get"), ("POST", "post")].into_iter().find_map(|(verb, field)| {
        let path = rule.get_field_by_name(field)?;
        match &*path {
            Value::String(path) if !path.is_empty() => Some((verb, path.clone())),
            _ => None,
        }
    })
}

/// A request to the REST form of a method.
fn request(rng: &mut StdRng, method: &MethodDescriptor) -> Request {
    let (verb, path) = route(method).unwrap_or(("POST", "/v1/events".to_owned()));
    let path = path.replace("{user_id}", pick(rng, &["ada", "%00", "..%2f..", "a%2Fb", &"x".repeat(300)]));
    Request {
        http2: rng.random(),
        method: verb,
        path,
        headers: vec![("grpc-timeout", TIMEOUT.to_owned())],
        body: Vec::new(),
    }
}

fn port_of(rng: &mut StdRng, grpc: Port, scope: Scope) -> Port {
    match grpc {
        Port::ProducerGrpc if scope == Scope::Producer || rng.random() => Port::ProducerHttp,
        Port::AnalyticsGrpc if rng.random() => Port::AnalyticsHttp,
        _ => Port::Gateway,
    }
}

/// A body that is hostile.
pub(super) fn json(rng: &mut StdRng, method: &MethodDescriptor, grpc: Port, scope: Scope) -> Case {
    let (family, mut body) = json::body(rng, &method.input());
    let mut request = request(rng, method);
    request.method = "POST";
    request.headers.push(("content-type", content_type(rng).to_owned()));
    if rng.random_range(0..3) == 0 {
        body = gzip(&body);
        request.headers.push(("content-encoding", "gzip".to_owned()));
        match rng.random_range(0..6) {
            0 => body.truncate(body.len() / 2),
            1 => body.extend([0; 100]),
            2 => body.extend(body.clone()),
            3 => body.extend(b"garbage"),
            _ => {}
        }
    }
    request.body = body;
    Case { family, port: port_of(rng, grpc, scope), action: Action::Http(request) }
}

fn content_type(rng: &mut StdRng) -> &'static str {
    match rng.random_range(0..10) {
        0 => pick(
            rng,
            &["text/plain", "application/xml", "application/json; charset=utf-16", "", "multipart/form-data"],
        ),
        1..4 => "application/x-ndjson",
        _ => "application/json",
    }
}

/// A request line or headers that are hostile.
pub(super) fn form(rng: &mut StdRng, method: &MethodDescriptor, grpc: Port, scope: Scope) -> Case {
    let mut request = request(rng, method);
    let fields: Vec<_> = method.input().fields().map(|field| field.json_name().to_owned()).collect();
    let field =
        fields.get(rng.random_range(0..fields.len().max(1))).cloned().unwrap_or_else(|| "a".to_owned());
    match rng.random_range(0..10) {
        0 => request.path += &format!("?{}", format!("{field}=1&").repeat(size(rng, 1, 5000))),
        1 => request.path += &format!("?{field}={}", "x".repeat(size(rng, 1, 15_000))),
        2 => request.path += &format!("?{}=1", format!("{field}.").repeat(size(rng, 1, 3000))),
        3 => request.path += "?timeRange.last=99999999999999s&timeRange.startTime=0000-00-00T00:00:00Z",
        4 => request.path += "?%",
        5 => request.path = format!("/v1/{}", "a/".repeat(size(rng, 1, 7000))),
        6 => request
            .headers
            .push(("content-encoding", pick(rng, &["gzip, gzip", "zstd", "br", "x"]).to_owned())),
        7 => request.headers.push(("accept", pick(rng, &["text/event-stream", "*/*;q=9", "a/b"]).to_owned())),
        8 => request
            .headers
            .push(("host", pick(rng, &["evil.example", "127.0.0.1.evil.example", "[::1", ""]).to_owned())),
        _ => request.method = pick(rng, &["DELETE", "PUT", "PATCH", "OPTIONS", "HEAD", "TRACE"]),
    }
    // What is no URL can't be sent by this client; the connections of `bytes` do.
    request.path.retain(|c| c.is_ascii_graphic());
    Case { family: "request form", port: port_of(rng, grpc, scope), action: Action::Http(request) }
}

/// A connection whose bytes are hostile.
pub(super) fn bytes(rng: &mut StdRng, scope: Scope) -> Case {
    let post = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let bytes = match rng.random_range(0..14) {
        0 => {
            let mut bytes = vec![0; size(rng, 1, 10_000)];
            rng.fill_bytes(&mut bytes);
            bytes
        }
        1 => [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), vec![0xff; size(rng, 1, 1000)]].concat(),
        2 => [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), rapid_reset(size(rng, 1, 2000) as u32)].concat(),
        3 => format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(size(rng, 1, 5000))).into_bytes(),
        4 => format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(size(rng, 1, 100_000))).into_bytes(),
        5 => format!("{post}content-length: 99999999999999999999\r\n\r\n{{}}").into_bytes(),
        6 => format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}").into_bytes(),
        7 => format!("{post}transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{{}}").into_bytes(),
        8 => format!("{post}transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{{}}").into_bytes(),
        9 => format!("{post}transfer-encoding: chunked\r\n\r\n{}", "1\r\n \r\n".repeat(size(rng, 1, 50_000)))
            .into_bytes(),
        10 => b"GET /v1 HTTP/1.1\r\n\r\n".to_vec(),
        11 => b"GET /v1 HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n".to_vec(),
        12 => b"GET http://evil.example/v1 HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        _ => b"GET /v1 HTTP/1.1\r\nhost: evil.example\r\n\r\n".to_vec(),
    };
    let ports: &[Port] = match scope {
        Scope::Producer => &[Port::ProducerHttp, Port::ProducerGrpc],
        Scope::Everything => &[
            Port::ProducerHttp,
            Port::ProducerGrpc,
            Port::ConsumerGrpc,
            Port::AnalyticsHttp,
            Port::AnalyticsGrpc,
            Port::Gateway,
        ],
    };
    Case { family: "connection", port: ports[rng.random_range(0..ports.len())], action: Action::Bytes(bytes) }
}

/// HTTP/2 frames that open streams and reset them at once (CVE-2023-44487).
fn rapid_reset(streams: u32) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    };
    let mut bytes = frame(4, 0, 0, &[]);
    // `:method POST`, `:scheme http`, `:path /`, `:authority localhost` of HPACK's static table, the last as a literal.
    let headers = [&[0x83, 0x86, 0x84, 0x01, 9][..], b"localhost"].concat();
    for number in 0..streams {
        let stream = 1 + 2 * number;
        bytes.extend(frame(1, 4, stream, &headers));
        bytes.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    bytes
}
