//! Answers that are files: those of RPCs whose answer, or the field of it that the rule names as the body, is a
//! `google.api.HttpBody`.
//!
//! The bytes go out as they are, under the content type of the first message. When the call fails midway the connection is
//! broken off, so that nobody takes for whole what has come.

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use prost_reflect::DynamicMessage;
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};
use weir_runtime::status::Reason;

use super::{Caller, Rest, unary};
use crate::binding::{file::Place, rule::Binding};

/// What bytes are that do not say it.
const UNKNOWN: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The content type of an answer, if it is given, and the bytes.
fn piece(place: &Place, message: Bytes) -> Result<(Option<HeaderValue>, Bytes), Status> {
    let answer = unary::decode(&place.output, message)?;
    let Some(field) = &place.field else { return Ok(parts(&answer)) };
    Ok(answer.get_field(field).as_message().map(parts).unwrap_or_default())
}

fn parts(body: &DynamicMessage) -> (Option<HeaderValue>, Bytes) {
    let content_type = body.get_field_by_name("content_type");
    let content_type = content_type.as_ref().and_then(|value| value.as_str()).filter(|text| !text.is_empty());
    let data = body.get_field_by_name("data").and_then(|value| value.as_bytes().cloned());
    (content_type.and_then(|text| text.parse().ok()), data.unwrap_or_default())
}

/// Calls an RPC that streams a file.
pub(crate) async fn answer(
    rest: &Rest,
    binding: &Binding,
    place: &Place,
    variables: &[String],
    request: Request,
) -> Result<Response, Status> {
    let caller = Caller::of(&request, binding.rpc.shape);
    let message = unary::message(rest, binding, variables, request).await?;
    let (headers, messages) = super::server_stream(&rest.backend, &binding.rpc, &caller, message).await?;
    let mut file = File { messages, deadline: caller.deadline, place: place.clone() };
    // The head waits for the first piece, which says what the file is; an error until then is an ordinary one.
    let (content_type, first) = file.next().await?.unwrap_or_default();
    let rest = futures::stream::unfold(Some(file), async |file| {
        let mut file = file?;
        match file.next().await {
            Ok(Some((_, bytes))) => Some((Ok(bytes), Some(file))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    });
    let pieces = futures::StreamExt::chain(futures::stream::iter([Ok(first)]), rest);
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().extend(headers);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type.unwrap_or(UNKNOWN));
    Ok(response)
}

struct File {
    messages: Streaming<Bytes>,
    deadline: Option<Instant>,
    place: Place,
}

impl File {
    async fn next(&mut self) -> Result<Option<(Option<HeaderValue>, Bytes)>, Status> {
        let message = match self.deadline {
            None => self.messages.message().await,
            Some(deadline) => tokio::select! {
                message = self.messages.message() => message,
                () = sleep_until(deadline) => {
                    Err(Reason::DeadlineExceeded.status("the deadline of the call passed"))
                }
            },
        };
        message?.map(|message| piece(&self.place, message)).transpose()
    }
}
