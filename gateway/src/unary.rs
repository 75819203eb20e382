//! One request, one answer.

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::Status;
use weir_runtime::status::Reason;

use crate::{
    body,
    call::{self, Caller},
    json, query,
    rest::Rest,
    rule::{Binding, RequestBody},
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
    let (headers, bytes) = call::unary(&rest.backend, &binding.rpc, &caller, message).await?;
    let answer = decode(&binding.rpc.output, bytes)?;
    respond(binding, headers, &answer)
}

/// The request message that a path, a query and a body make together, encoded.
pub(crate) async fn message(
    rest: &Rest,
    binding: &Binding,
    variables: &[String],
    request: Request,
) -> Result<Bytes, Status> {
    let (parts, body) = request.into_parts();
    let mut message = DynamicMessage::new(binding.rpc.input.clone());
    match &binding.body {
        RequestBody::None => {}
        RequestBody::Message => {
            let json = body::read(&parts.headers, body, rest.max_message_bytes).await?;
            if !json.is_empty() {
                message = json::decode(&binding.rpc.input, &json, "")?;
            }
        }
        RequestBody::Field(field) => {
            let json = body::read(&parts.headers, body, rest.max_message_bytes).await?;
            if !json.is_empty() {
                json::decode_field(&mut message, field, &json)?;
            }
        }
    }
    if let Some(query) = parts.uri.query() {
        query::apply_query(&mut message, binding, query)?;
    }
    // Last, since the path says what the request is about: nothing in the body may change it.
    query::apply_variables(&mut message, binding, variables)?;
    Ok(message.encode_to_vec().into())
}

/// An answer's message.
pub(crate) fn decode(output: &MessageDescriptor, bytes: Bytes) -> Result<DynamicMessage, Status> {
    DynamicMessage::decode(output.clone(), bytes)
        .map_err(|error| Reason::Internal.status(format!("the answer is no {}: {error}", output.full_name())))
}

/// The answer over HTTP.
pub(crate) fn respond(
    binding: &Binding,
    headers: HeaderMap,
    answer: &DynamicMessage,
) -> Result<Response, Status> {
    let mut response = Response::new(Body::from(json::encode(answer, binding.response_body.as_ref())?));
    response.headers_mut().extend(headers);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
