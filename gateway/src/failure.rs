//! Errors as HTTP callers see them.
//!
//! ```json
//! {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "…", "details": [{"@type": "…", …}]}}
//! ```
//! `code` is the HTTP status, `status` the name of the gRPC code, `details` the messages of `google.rpc.Status.details`
//! (<https://google.aip.dev/193#http11json-representation>). The same object goes into streams.

use axum::{body::Body, response::Response};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, header};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tonic::Status;
use tonic_types::StatusExt as _;
use weir_runtime::status::{code_name, http_status};

use crate::answer;

/// The error as JSON. Details whose type the pool does not know are shown encoded: `{"@type": …, "value": "<base64>"}`.
pub(crate) fn to_json(pool: &DescriptorPool, status: &Status) -> Value {
    let details = tonic_types::pb::Status::decode(status.details()).map(|status| status.details);
    let details: Vec<Value> = details
        .unwrap_or_default()
        .into_iter()
        .map(|any| {
            let known = any
                .type_url
                .rsplit('/')
                .next()
                .and_then(|name| pool.get_message_by_name(name))
                .and_then(|message| DynamicMessage::decode(message, any.value.as_slice()).ok())
                .and_then(|message| answer::to_value(&message).ok());
            match known {
                Some(Value::Object(mut fields)) => {
                    fields.insert("@type".to_owned(), Value::String(any.type_url));
                    Value::Object(fields)
                }
                Some(value) => json!({ "@type": any.type_url, "value": value }),
                None => json!({ "@type": any.type_url, "value": BASE64_STANDARD.encode(&any.value) }),
            }
        })
        .collect();
    json!({ "error": {
        "code": http_status(status).as_u16(),
        "status": code_name(status.code()),
        "message": status.message(),
        "details": details,
    } })
}

/// The answer to a call that failed before any of its answer was sent.
pub(crate) fn into_response(pool: &DescriptorPool, status: &Status) -> Response {
    let mut response = Response::new(Body::from(to_json(pool, status).to_string()));
    *response.status_mut() = http_status(status);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(pause) = status.get_details_retry_info().and_then(|retry| retry.retry_delay) {
        // Whole seconds; rounded up, since coming back too early is what it is there to prevent.
        let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
