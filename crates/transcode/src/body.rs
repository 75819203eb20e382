//! Request bodies: what they claim to be, decompressed, and never more than the limit of it.

use std::{
    error::Error,
    io, iter,
    pin::{Pin, pin},
    time::Duration,
};

use async_compression::{
    tokio::bufread::{GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use axum::body::Body;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::TryStreamExt as _;
use http::{HeaderMap, header};
use http_body::Body as _;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    time::{Instant, sleep},
};
use tokio_util::io::StreamReader;
use tonic::Status;
use weir_runtime::status::Reason;

use crate::memory::{Charge, Memory};

/// Media types of one JSON value.
const JSON: &[&str] = &["application/json"];
/// Media types of one JSON value a line; the first is the one to recommend.
const NDJSON: &[&str] = &[
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/json",
];
/// The window that a Zstandard content coding may need at most: 2^23 bytes, RFC 9659.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The whole body of a request that holds one JSON value; empty when there is none.
///
/// # Errors
/// Unsupported type or compression, too large once decompressed, broken compression.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    memory: &Memory,
) -> Result<Whole, Status> {
    if body.is_end_stream() {
        return Ok(Whole { bytes: Bytes::new(), _held: memory.charge() });
    }
    check_type(headers, JSON)?;
    let coding = coding(headers)?;
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    // Decompressed only when all of it is there: whoever sends slowly makes us hold no more than was sent.
    let received = whole(Coding::Identity, body, limit, memory).await?;
    match coding {
        Coding::Identity => Ok(received),
        Coding::Gzip | Coding::Deflate | Coding::Zstd => {
            whole(coding, Body::from(received.bytes.clone()), limit, memory).await
        }
    }
}

/// All that comes out of a body.
async fn whole(coding: Coding, body: Body, limit: usize, memory: &Memory) -> Result<Whole, Status> {
    let mut held = memory.charge();
    let mut reader = decoded(coding, body).take(limit as u64 + 1);
    let mut whole = BytesMut::new();
    while reader.read_buf(&mut whole).await.map_err(|error| broken(coding, &error))? > 0 {
        held.set(whole.capacity())?;
    }
    if whole.len() > limit {
        return Err(too_large(limit));
    }
    Ok(Whole { bytes: whole.freeze(), _held: held })
}

/// All of a body.
#[derive(Debug)]
pub(crate) struct Whole {
    bytes: Bytes,
    _held: Charge,
}

impl Whole {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The lines of an NDJSON body.
///
/// # Errors
/// Unsupported type or compression.
pub(crate) fn lines(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    timeout: Duration,
    memory: &Memory,
) -> Result<Lines, Status> {
    if !body.is_end_stream() {
        check_type(headers, NDJSON)?;
    }
    let coding = coding(headers)?;
    Ok(Lines { reader: decoded(coding, body), coding, limit, timeout, number: 0, held: memory.charge() })
}

/// Lines, one after the other, each of bounded length.
pub(crate) struct Lines {
    reader: Reader,
    coding: Coding,
    limit: usize,
    /// From a line's first byte to its last.
    timeout: Duration,
    number: u64,
    /// For the line that was read last.
    held: Charge,
}

/// One line that is not blank.
pub(crate) struct Line {
    /// Counted from 1, blank ones included, so that it is the line that an editor shows.
    pub(crate) number: u64,
    /// The text without its end; `None` if it is longer than the limit.
    pub(crate) text: Option<BytesMut>,
}

impl Lines {
    /// The next line.
    ///
    /// # Errors
    /// The body broke off or does not decompress; there is nothing after it.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, Status> {
        loop {
            let (mut text, mut too_long, mut any) = (BytesMut::new(), false, false);
            let mut patience = pin!(sleep(self.timeout));
            loop {
                let available = tokio::select! {
                    biased;
                    available = self.reader.fill_buf() => available.map_err(|error| broken(self.coding, &error))?,
                    () = &mut patience, if any => return Err(stalled(self.number + 1, self.timeout)),
                };
                if !any {
                    patience.as_mut().reset(Instant::now() + self.timeout);
                }
                if available.is_empty() {
                    break;
                }
                any = true;
                let end = available.iter().position(|&byte| byte == b'\n');
                let piece = &available[..end.unwrap_or(available.len())];
                too_long |= text.len() + piece.len() > self.limit;
                if !too_long {
                    text.extend_from_slice(piece);
                }
                self.held.set(text.capacity())?;
                let used = piece.len() + usize::from(end.is_some());
                self.reader.consume(used);
                if end.is_some() {
                    break;
                }
            }
            if !any {
                return Ok(None);
            }
            self.number += 1;
            if too_long {
                return Ok(Some(Line { number: self.number, text: None }));
            }
            // A byte order mark is what some editors put before the first line.
            if self.number == 1 && text.starts_with(b"\xef\xbb\xbf") {
                text.advance(3);
            }
            if !text.trim_ascii().is_empty() {
                return Ok(Some(Line { number: self.number, text: Some(text) }));
            }
        }
    }
}

type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
}

fn coding(headers: &HeaderMap) -> Result<Coding, Status> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(Coding::Identity) };
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        "deflate" => Ok(Coding::Deflate),
        "zstd" => Ok(Coding::Zstd),
        other => Err(Reason::MediaTypeUnsupported
            .status(format!("content-encoding {other:?} is not supported; use gzip, zstd, deflate or none"))),
    }
}

fn check_type(headers: &HeaderMap, accepted: &[&str]) -> Result<(), Status> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        let message = format!("the body has no content-type; send \"content-type: {}\"", accepted[0]);
        return Err(Reason::MediaTypeUnsupported.status(message));
    };
    let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let (essence, parameters) = value.split_once(';').unwrap_or((&value, ""));
    let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
    let utf8 = charset.is_none_or(|name| matches!(name.trim_matches('"'), "utf-8" | "utf8"));
    if accepted.contains(&essence.trim()) && utf8 {
        return Ok(());
    }
    let message =
        format!("content-type {value:?} is not supported; send \"content-type: {}\" in UTF-8", accepted[0]);
    Err(Reason::MediaTypeUnsupported.status(message))
}

fn decoded(coding: Coding, body: Body) -> Reader {
    let raw = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    match coding {
        Coding::Identity => Box::pin(raw),
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(raw);
            decoder.multiple_members(true);
            Box::pin(BufReader::new(decoder))
        }
        Coding::Deflate => Box::pin(BufReader::new(ZlibDecoder::new(raw))),
        Coding::Zstd => {
            let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
            Box::pin(BufReader::new(ZstdDecoder::with_params(raw, &window)))
        }
    }
}

fn stalled(line: u64, timeout: Duration) -> Status {
    Reason::DeadlineExceeded
        .status(format!("line {line} was not complete {timeout:?} after it began; send it again"))
}

fn too_large(limit: usize) -> Status {
    Reason::BodyTooLarge
        .error(format!("the body exceeds {limit} bytes (decompressed); send it in parts"))
        .with("limitBytes", limit)
        .into()
}

fn broken(coding: Coding, error: &io::Error) -> Status {
    // The server's own limits end a body with a status.
    let inner = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
    let mut causes = iter::successors(inner, |&cause| cause.source());
    if let Some(status) = causes.find_map(|cause| cause.downcast_ref::<Status>()) {
        return status.clone();
    }
    let message = match coding {
        Coding::Identity => format!("the body broke off: {error}"),
        Coding::Gzip | Coding::Deflate | Coding::Zstd => {
            format!("the body broke off or is not the {coding:?} that its content-encoding says: {error}")
        }
    };
    Reason::BodyMalformed.status(message)
}
