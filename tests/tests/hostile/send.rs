//! Sending cases, and what came back.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use reqwest::{Client, Method, header::HeaderMap};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use weir_tests::process::binary;

use crate::{
    cases::{Action, Case, Port, Request},
    process::Memory,
};

/// What every case allows itself (`grpc-timeout`), and the server its queries.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);
/// How much later than the deadline an answer may end.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// After this the client gives up, which is a failure.
const GIVE_UP: Duration = Duration::from_secs(20);
/// How long a connection that makes no sense is listened to.
const LISTEN: Duration = Duration::from_millis(300);
/// Memory and time of `weir import`, whatever the file is.
const COMMAND_BYTES: u64 = 512 << 20;
const COMMAND_TIME: Duration = Duration::from_secs(60);

/// Clients of a system.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    http1: Client,
    http2: Client,
    addresses: BTreeMap<&'static str, String>,
}

/// How a case was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) elapsed: Duration,
    /// HTTP status and, for gRPC, its code; or how the connection ended.
    pub(crate) text: String,
    /// What is wrong with it.
    pub(crate) problem: Option<String>,
}

fn name(port: Port) -> &'static str {
    match port {
        Port::ProducerHttp => "producer HTTP",
        Port::ProducerGrpc => "producer gRPC",
        Port::ConsumerGrpc => "consumer gRPC",
        Port::AnalyticsHttp => "analytics HTTP",
        Port::AnalyticsGrpc => "analytics gRPC",
        Port::Gateway => "gateway",
    }
}

impl Sender {
    /// `addresses`: `host:port` of each listener.
    pub(crate) fn new(addresses: &[(Port, String)]) -> Result<Self> {
        let client = || Client::builder().timeout(GIVE_UP).no_proxy();
        Ok(Self {
            http1: client().http1_only().build()?,
            http2: client().http2_prior_knowledge().build()?,
            addresses: addresses.iter().map(|(port, address)| (name(*port), address.clone())).collect(),
        })
    }

    /// Sends the case and judges the answer.
    ///
    /// # Errors
    /// When it could not be sent for a reason on this side.
    pub(crate) async fn send(&self, case: &Case) -> Result<Answer> {
        let address = &self.addresses[name(case.port)];
        match &case.action {
            Action::Http(request) => Ok(self.http(address, request).await),
            Action::Bytes(bytes) => Ok(connection(address, bytes).await),
            Action::Import { file, name, args } => import(address, file, name, args).await,
        }
    }

    async fn http(&self, address: &str, request: &Request) -> Answer {
        let client = if request.http2 { &self.http2 } else { &self.http1 };
        let method = Method::from_bytes(request.method.as_bytes()).expect("cases have methods of HTTP");
        let mut builder =
            client.request(method, format!("http://{address}{}", request.path)).body(request.body.clone());
        for (name, value) in &request.headers {
            builder = builder.header(*name, value.as_bytes());
        }
        let began = Instant::now();
        let sent = async {
            let mut response = builder.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            while response.chunk().await?.is_some() {}
            Ok::<_, reqwest::Error>((status, headers))
        };
        match sent.await {
            Ok((status, headers)) => {
                let elapsed = began.elapsed();
                let code = code(&headers);
                let text = format!("{status} {}", code.unwrap_or(""));
                let problem = if elapsed > DEADLINE + GRACE {
                    Some(format!("answered after {elapsed:?}"))
                } else if status == 500 || matches!(code, Some("2" | "13")) {
                    let detail = headers.get("grpc-message").map(|message| format!("{message:?}"));
                    Some(format!("{text}: an internal error, {}", detail.unwrap_or_default()))
                } else {
                    None
                };
                Answer { elapsed, text, problem }
            }
            // What can't be sent at all, and connections that the server closes over a protocol error, are answers, too.
            Err(error) if error.is_builder() || !error.is_timeout() => {
                Answer { elapsed: began.elapsed(), text: "connection closed".to_owned(), problem: None }
            }
            Err(error) => Answer {
                elapsed: began.elapsed(),
                text: "none".to_owned(),
                problem: Some(format!("no answer: {error}")),
            },
        }
    }
}

fn code(headers: &HeaderMap) -> Option<&str> {
    headers.get("grpc-status")?.to_str().ok()
}

/// Writes bytes and reads whatever comes for a while.
async fn connection(address: &str, bytes: &[u8]) -> Answer {
    let began = Instant::now();
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        // The server may have had enough before everything is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(LISTEN, (&mut stream).take(1 << 20).read_to_end(&mut answer)).await;
        std::io::Result::Ok(answer)
    };
    let (text, problem) = match timeout(GIVE_UP, talk).await {
        Ok(Ok(answer)) => {
            let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
            let problem = head.ends_with(" 500").then(|| format!("an internal error: {head}"));
            (head, problem)
        }
        Ok(Err(error)) => ("none".to_owned(), Some(format!("no connection: {error}"))),
        Err(_) => ("none".to_owned(), Some("the connection hangs".to_owned())),
    };
    Answer { elapsed: began.elapsed(), text, problem }
}

/// Runs `weir import` on a file.
async fn import(address: &str, file: &[u8], name: &str, args: &[String]) -> Result<Answer> {
    let dir = TempDir::new()?;
    let path = dir.path().join(name);
    std::fs::write(&path, file)?;
    let began = Instant::now();
    let mut child = Command::new(binary())
        .arg("import")
        .arg(&path)
        .args(args)
        .env("WEIR_ENDPOINT", format!("http://{address}"))
        .env("XDG_STATE_HOME", dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut errors = child.stderr.take().context("it is piped")?;
    let errors = tokio::spawn(async move {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text).await;
        text
    });
    let memory = Memory::of(child.id().context("it has not ended")?);
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak = memory.peak().unwrap_or(peak);
        if began.elapsed() > COMMAND_TIME {
            let problem = Some(format!("weir import {name} runs for more than {COMMAND_TIME:?}"));
            return Ok(Answer { elapsed: began.elapsed(), text: "none".to_owned(), problem });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let errors = errors.await?;
    let problem = match status.code() {
        None | Some(101) => Some(format!("weir import {name} crashed, {status}: {errors}")),
        _ if peak > COMMAND_BYTES => Some(format!("weir import {name} took {} MB", peak >> 20)),
        Some(code) if code != 0 && errors.trim().is_empty() => {
            Some(format!("weir import {name} failed with {code} and says nothing"))
        }
        Some(_) => None,
    };
    Ok(Answer { elapsed: began.elapsed(), text: status.to_string(), problem })
}
