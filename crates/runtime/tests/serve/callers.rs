//! What callers do wrong: they are told, and it is no failure of the service.

use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tonic::{Code, Status};

use super::{
    fixture::{Fixture, Method, http_post, within},
    framed,
};

const GRPC_WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");

impl Fixture {
    fn assert_no_internal_errors(&self) {
        let metrics = self.metrics.render();
        let internal = metrics.lines().find(|line| line.contains(r#"kind="internal""#));
        assert_eq!(internal, None);
    }
}

#[tokio::test]
async fn bodies_that_are_no_message_are_refused() {
    let fixture = Fixture::start(|limits| limits.max_message_bytes = 10_000).await;
    let message = framed(0, &[8, 7]);
    for (what, headers, body) in [
        ("flag 2", vec![GRPC_WEB], framed(2, &[8, 7])),
        ("names no compression", vec![GRPC_WEB], framed(1, &[8, 7])),
        ("not the Gzip", vec![GRPC_WEB, ("grpc-encoding", "gzip")], framed(1, &[8, 7])),
        ("not the Zstd", vec![GRPC_WEB, ("grpc-encoding", "zstd")], framed(1, &[8, 7])),
        ("ends within a message", vec![GRPC_WEB], message[..6].to_vec()),
        ("ends within a message", vec![GRPC_WEB], message[..3].to_vec()),
        ("holds no message", vec![GRPC_WEB], Vec::new()),
        ("exceeds 10000 bytes", vec![GRPC_WEB], framed(0, &[0; 10_001])),
        ("exceeds 10000 bytes", vec![GRPC_WEB], vec![0, 255, 255, 255, 255]),
    ] {
        let answer = http_post(fixture.http, "/test.v1.Test/Echo", &headers, body).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        // The service takes no compression, which tonic says before it reads the body.
        let expected = if headers.len() > 1 { Code::Unimplemented } else { Code::InvalidArgument };
        assert_eq!(status.code(), expected, "{what}: {status}");
        assert!(expected == Code::Unimplemented || status.message().contains(what), "{what}: {status}");
    }
    fixture.assert_no_internal_errors();
    fixture.stop().await;
}

#[tokio::test]
async fn streams_that_are_reset_are_no_failures() {
    let fixture = Fixture::start(|_| {}).await;
    for _ in 0..100 {
        let call = fixture.spawn_call(Method::Wait);
        fixture.until_waiting().await;
        call.abort();
    }
    let line = r#"grpc_server_handled_total{code="Canceled",method="test.v1.Test/Wait",service="test"} 100"#;
    fixture.until_metrics_show(line).await;
    // The connection goes in the middle of a message, over both protocols.
    let partial = "POST /test.v1.Test/Echo HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc-web+proto\r\n\
                   content-length: 100\r\n\r\n\0\0\0";
    for head in
        [partial, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage, and no settings", "\x16\x03\x01\x02\0\x01"]
    {
        let mut stream = TcpStream::connect(fixture.http).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        drop(stream);
    }
    fixture.until_metrics_show(r#"requests_in_flight{service="test"} 0"#).await;
    assert!(fixture.call(Method::Echo, 1).await.is_ok());
    fixture.assert_no_internal_errors();
    fixture.stop().await;
}

#[tokio::test]
async fn a_body_that_never_comes_is_not_waited_for() {
    let fixture = Fixture::start(|limits| limits.request_timeout = Duration::from_millis(100)).await;
    let mut stream = TcpStream::connect(fixture.http).await.unwrap();
    let head = "POST /test.v1.Test/Echo HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc-web+proto\r\n\
                content-length: 100\r\n\r\n\0\0";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 1000];
    let read = within(tokio::io::AsyncReadExt::read(&mut stream, &mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.contains("grpc-status: 4"), "{answer}");
    fixture.assert_no_internal_errors();
    fixture.stop().await;
}
