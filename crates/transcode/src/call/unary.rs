//! One request, one answer.

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::Status;
use weir_runtime::status::Reason;

use super::{Caller, Rest};
use crate::{
    answer,
    binding::rule::{Binding, RequestBody},
    body,
    memory::Memory,
    message::json,
    query,
};

/// Calls a unary RPC.
pub(crate) async fn answer(
    rest: &Rest,
    binding: &Binding,
    variables: &[String],
    request: Request,
) -> Result<Response, Status> {
    let caller = Caller::of(&request, binding.rpc.shape);
    let message = message(rest, binding, variables, request).await?;
    let (headers, bytes) = super::unary(&rest.backend, &binding.rpc, &caller, message).await?;
    respond(binding, headers, &bytes)
}

/// The request message that a path, a query and a body make together, encoded.
pub(crate) async fn message(
    rest: &Rest,
    binding: &Binding,
    variables: &[String],
    request: Request,
) -> Result<Bytes, Status> {
    let (parts, body) = request.into_parts();
    let memory = Memory::of(&parts.extensions);
    let mut encoded = match &binding.body {
        RequestBody::None => Vec::new(),
        RequestBody::Message => {
            let json = body::read(&parts.headers, body, rest.limits.bytes, &memory).await?;
            match json.bytes() {
                [] => Vec::new(),
                json => json::decode(&binding.rpc.input, json, "", rest.limits)?,
            }
        }
        RequestBody::Field(field) => {
            let json = body::read(&parts.headers, body, rest.limits.bytes, &memory).await?;
            match json.bytes() {
                [] => Vec::new(),
                json => json::decode_field(field, json, rest.limits)?,
            }
        }
    };
    // What follows in the same message adds to what is there.
    if let Some(query) = parts.uri.query() {
        let mut message = DynamicMessage::new(binding.rpc.input.clone());
        query::apply_query(&mut message, binding, query)?;
        message.encode_raw(&mut encoded);
    }
    // Last, since the path says what the request is about: nothing in the body may change it, not even to a default.
    if !variables.is_empty() {
        let mut message = decode(&binding.rpc.input, encoded.into())?;
        query::apply_variables(&mut message, binding, variables)?;
        encoded = message.encode_to_vec();
    }
    Ok(encoded.into())
}

/// An answer's message.
pub(crate) fn decode(output: &MessageDescriptor, bytes: Bytes) -> Result<DynamicMessage, Status> {
    DynamicMessage::decode(output.clone(), bytes)
        .map_err(|error| Reason::Internal.status(format!("the answer is no {}: {error}", output.full_name())))
}

/// The answer, encoded, over HTTP.
pub(crate) fn respond(binding: &Binding, headers: HeaderMap, encoded: &[u8]) -> Result<Response, Status> {
    let json = answer::encode(&binding.rpc.output, encoded, binding.response_body.as_ref())?;
    let mut response = Response::new(Body::from(json));
    response.headers_mut().extend(headers);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
