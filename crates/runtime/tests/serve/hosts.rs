//! The names that a server answers to.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::fixture::{Fixture, within};

/// What is answered to these lines, as they are.
async fn ask(port: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(port).await.unwrap();
    stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn requests_that_name_another_host_are_misdirected() {
    let fixture = Fixture::start(|limits| limits.allowed_hosts = vec!["weir.example".to_owned()]).await;
    let port = fixture.http.port();
    for (head, status) in [
        (format!("GET /v1/hello HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"), "200"),
        (format!("GET /v1/hello HTTP/1.1\r\nhost: localhost:{port}\r\n"), "200"),
        (format!("GET /v1/hello HTTP/1.1\r\nhost: Weir.Example:{port}\r\n"), "200"),
        ("GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\n".to_owned(), "200"),
        ("GET /v1/hello HTTP/1.1\r\n".to_owned(), "400"),
        ("GET /v1/hello HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n".to_owned(), "400"),
        ("GET /v1/hello HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n".to_owned(), "400"),
        ("GET /v1/hello HTTP/1.1\r\nhost: evil.example\r\n".to_owned(), "421"),
        ("GET http://evil.example/v1/hello HTTP/1.1\r\nhost: localhost\r\n".to_owned(), "421"),
        ("GET /metrics HTTP/1.1\r\nhost: evil.example\r\n".to_owned(), "421"),
        ("GET /readyz HTTP/1.1\r\nhost: evil.example\r\n".to_owned(), "421"),
    ] {
        let answer = ask(fixture.http, &head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}{answer}");
        if status == "421" {
            assert!(answer.contains("server.allowed_hosts") && answer.contains("HOST_UNKNOWN"), "{answer}");
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn rpcs_to_another_authority_are_misdirected() {
    let fixture = Fixture::start(|_| {}).await;
    let endpoint = Channel::from_shared(format!("http://{}", fixture.grpc)).unwrap();
    let channel = endpoint.origin("http://evil.example".parse().unwrap()).connect().await.unwrap();
    let error = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("server.allowed_hosts"), "{error}");
    fixture.stop().await;
}
