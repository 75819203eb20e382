//! Client streams: an NDJSON body, one message a line, one receipt at the end.
//!
//! A line that cannot be read must not fail its neighbours, and must count. It is passed on as an empty message, which
//! keeps its place in the stream and which the service rejects like any other that lacks what it needs; in the receipt
//! the service's reason is then replaced by what is really wrong with the line. A receipt is recognised by its shape:
//! lists of messages with the fields `index` (place in the stream) and `error` (`google.rpc.Status`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use futures::Stream;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value};
use tokio::sync::oneshot;
use tonic::{Code, Status};
use tonic_types::pb;
use weir_runtime::status::Reason;

use super::{Caller, Rest, unary};
use crate::{
    binding::rule::{Binding, RequestBody},
    body::{self, Line, Lines},
    memory::{Charge, Memory},
    message::json,
    query,
};

/// Bad lines that are remembered: a service reports the first rejected ones, and those are among the first.
const MAX_REMEMBERED: usize = 1000;

/// Why the line at each place of the stream could not be read.
type BadLines = Arc<Mutex<BTreeMap<u64, Status>>>;

/// Calls a client-streaming RPC.
pub(crate) async fn answer(rest: &Rest, binding: &Binding, request: Request) -> Result<Response, Status> {
    let caller = Caller::of(&request, binding.rpc.shape);
    let (parts, body) = request.into_parts();
    let mut template = DynamicMessage::new(binding.rpc.input.clone());
    if let Some(query) = parts.uri.query() {
        query::apply_query(&mut template, binding, query)?;
    }
    let memory = Memory::of(&parts.extensions);
    let lines = body::lines(&parts.headers, body, rest.limits.bytes, rest.line_timeout, &memory)?;
    let bad = BadLines::default();
    let (broken, broke) = oneshot::channel();
    let parser = Parser {
        input: template.descriptor(),
        template: template.encode_to_vec(),
        body: binding.body.clone(),
        limits: rest.limits,
        memory,
    };
    let messages = messages(lines, parser, bad.clone(), broken);
    let answered = tokio::select! {
        answered = super::client_stream(&rest.backend, &binding.rpc, &caller, messages) => answered,
        // Ending the stream would look like success. Dropping the call cancels it.
        Ok(status) = broke => Err(status),
    };
    let (headers, bytes) = answered?;
    let mut receipt = unary::decode(&binding.rpc.output, bytes)?;
    explain(&mut receipt, &bad.lock().unwrap_or_else(PoisonError::into_inner));
    unary::respond(binding, headers, &receipt.encode_to_vec())
}

struct Parser {
    input: MessageDescriptor,
    /// What the query sets in every message, encoded.
    template: Vec<u8>,
    body: RequestBody,
    limits: json::Limits,
    memory: Memory,
}

impl Parser {
    /// The message, encoded, with what it holds.
    fn parse(&self, line: &Line) -> Result<(Bytes, Charge), Status> {
        let Some(text) = &line.text else {
            let message = format!("the line exceeds {} bytes", self.limits.bytes);
            return Err(Reason::BodyTooLarge.error(message).into());
        };
        let message = match &self.body {
            RequestBody::Field(field) => {
                [self.template.as_slice(), &json::decode_field(field, text, self.limits)?].concat()
            }
            RequestBody::Message | RequestBody::None => json::decode(&self.input, text, "", self.limits)?,
        };
        // Here, so that one line that takes too much does not end the upload.
        self.memory.check(&self.input, &message)?;
        let mut held = self.memory.charge();
        held.set(message.len())?;
        Ok((message.into(), held))
    }
}

fn messages(
    lines: Lines,
    parser: Parser,
    bad: BadLines,
    broken: oneshot::Sender<Status>,
) -> impl Stream<Item = Bytes> + Send + 'static {
    futures::stream::unfold((lines, parser, bad, Some(broken), 0, None), async |state| {
        let (mut lines, parser, bad, mut broken, index, previous) = state;
        // The next one is asked for when the service is through with it.
        drop(previous);
        let parsed = match lines.next().await {
            Ok(None) => return None,
            Ok(Some(line)) => match parser.parse(&line) {
                Ok((message, held)) => Ok((message, Some(held))),
                Err(status) if status.code() == Code::InvalidArgument => {
                    let mut bad = bad.lock().unwrap_or_else(PoisonError::into_inner);
                    if bad.len() < MAX_REMEMBERED {
                        bad.insert(index, in_line(line.number, status));
                    }
                    Ok((Bytes::new(), None))
                }
                // No fault of the line's: it must be sent again.
                Err(status) => Err(in_line(line.number, status)),
            },
            Err(status) => Err(status),
        };
        match parsed {
            Ok((message, held)) => Some((message, (lines, parser, bad, broken, index + 1, held))),
            Err(status) => {
                if let Some(broken) = broken.take() {
                    // Nobody listens any more when the call is over; then nothing is left to tell.
                    let _ = broken.send(status);
                }
                std::future::pending().await
            }
        }
    })
}

fn in_line(number: u64, status: Status) -> Status {
    let message = format!("line {number}: {}", status.message());
    Status::with_details(status.code(), message, Bytes::copy_from_slice(status.details()))
}

/// Puts the true reasons into a receipt.
fn explain(receipt: &mut DynamicMessage, bad: &BTreeMap<u64, Status>) {
    if bad.is_empty() {
        return;
    }
    for (_, value) in receipt.fields_mut() {
        let Value::List(items) = value else { continue };
        for item in items.iter_mut().filter_map(Value::as_message_mut) {
            let index = match item.get_field_by_name("index").as_deref() {
                Some(Value::U32(index)) => u64::from(*index),
                Some(Value::U64(index)) => *index,
                _ => continue,
            };
            if let Some(status) = bad.get(&index) {
                replace_error(item, status);
            }
        }
    }
}

fn replace_error(item: &mut DynamicMessage, status: &Status) {
    let field = item.descriptor().get_field_by_name("error");
    let Some(field) = field else { return };
    let Kind::Message(kind) = field.kind() else { return };
    if kind.full_name() != "google.rpc.Status" {
        return;
    }
    let details = pb::Status::decode(status.details()).unwrap_or_default().details;
    let error = pb::Status { code: status.code() as i32, message: status.message().to_owned(), details };
    let mut value = DynamicMessage::new(kind);
    if value.transcode_from(&error).is_ok() {
        item.set_field(&field, Value::Message(value));
    }
}
