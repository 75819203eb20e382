//! Errors as callers see them: `tonic::Status` with machine-readable details, and the same as JSON over HTTP.
//!
//! Every error that a service makes itself has a [`Reason`], which decides its code, its HTTP status and whether a retry
//! can help, in one exhaustive match each. The details follow `google.rpc`: `ErrorInfo` always, `BadRequest` naming the
//! fields, `RetryInfo` only where a retry can help.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, StatusCode, header};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json, value};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// `ErrorInfo.domain` of every error made here.
pub const DOMAIN: &str = "weir.dev";

/// Why a call failed: stable names that programs may match on (`ErrorInfo.reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A field breaks its constraint; `BadRequest` says which.
    FieldInvalid,
    /// The body cannot be parsed at all.
    BodyMalformed,
    /// The body or message exceeds its limit.
    BodyTooLarge,
    /// The content type or compression is not one of ours.
    MediaTypeUnsupported,
    /// The call brings no credential or a wrong one.
    CredentialInvalid,
    /// The credential lacks the scope.
    ScopeMissing,
    /// The server does not answer to the name that the request was sent to.
    HostUnknown,
    /// No RPC or resource has this name.
    RouteNotFound,
    /// The resource is there, but does not take this HTTP method.
    MethodNotAllowed,
    /// The thing asked for does not exist.
    ResourceNotFound,
    /// It exists already.
    ResourceExists,
    /// No rollup covers the query; the metadata names the dimension.
    DimensionNotCovered,
    /// The buckets that are still kept are too wide for the edges of the range or of the intervals.
    RangeTooFine,
    /// The answer would exceed its limit; narrow the query.
    ResultTooLarge,
    /// The events received and not yet durable fill their budget.
    InFlightFull,
    /// The project has used up what it may do for now.
    QuotaExceeded,
    /// All requests or streams allowed at once are in use.
    ConcurrencyExceeded,
    /// The reader of a stream is too slow for it.
    ReaderTooSlow,
    /// The sender of a stream sent more than it had credits for.
    CreditsExceeded,
    /// The log cannot be reached.
    LogUnavailable,
    /// The event store cannot be read.
    StoreUnavailable,
    /// Another service cannot be reached.
    UpstreamUnavailable,
    /// The service is starting, or its partition is changing hands.
    NotReady,
    /// The service is stopping.
    Draining,
    /// Time ran out; whether the call took effect is unknown.
    DeadlineExceeded,
    /// A fault of ours.
    Internal,
}

impl Reason {
    /// The gRPC code.
    pub fn code(self) -> Code {
        match self {
            Self::FieldInvalid
            | Self::BodyMalformed
            | Self::BodyTooLarge
            | Self::MediaTypeUnsupported
            | Self::HostUnknown => Code::InvalidArgument,
            Self::CredentialInvalid => Code::Unauthenticated,
            Self::ScopeMissing => Code::PermissionDenied,
            Self::RouteNotFound | Self::ResourceNotFound => Code::NotFound,
            Self::MethodNotAllowed => Code::Unimplemented,
            Self::ResourceExists => Code::AlreadyExists,
            Self::DimensionNotCovered | Self::RangeTooFine => Code::FailedPrecondition,
            Self::ResultTooLarge
            | Self::InFlightFull
            | Self::QuotaExceeded
            | Self::ConcurrencyExceeded
            | Self::ReaderTooSlow
            | Self::CreditsExceeded => Code::ResourceExhausted,
            Self::LogUnavailable
            | Self::StoreUnavailable
            | Self::UpstreamUnavailable
            | Self::NotReady
            | Self::Draining => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Internal => Code::Internal,
        }
    }

    /// The name in `ErrorInfo.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FieldInvalid => "FIELD_INVALID",
            Self::BodyMalformed => "BODY_MALFORMED",
            Self::BodyTooLarge => "BODY_TOO_LARGE",
            Self::MediaTypeUnsupported => "MEDIA_TYPE_UNSUPPORTED",
            Self::CredentialInvalid => "CREDENTIAL_INVALID",
            Self::ScopeMissing => "SCOPE_MISSING",
            Self::HostUnknown => "HOST_UNKNOWN",
            Self::RouteNotFound => "ROUTE_NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::ResourceNotFound => "RESOURCE_NOT_FOUND",
            Self::ResourceExists => "RESOURCE_EXISTS",
            Self::DimensionNotCovered => "ROLLUP_MISSING",
            Self::RangeTooFine => "RANGE_TOO_FINE",
            Self::ResultTooLarge => "RESULT_TOO_LARGE",
            Self::InFlightFull => "IN_FLIGHT_FULL",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::ConcurrencyExceeded => "CONCURRENCY_EXCEEDED",
            Self::ReaderTooSlow => "READER_TOO_SLOW",
            Self::CreditsExceeded => "CREDITS_EXCEEDED",
            Self::LogUnavailable => "LOG_UNAVAILABLE",
            Self::StoreUnavailable => "STORE_UNAVAILABLE",
            Self::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            Self::NotReady => "NOT_READY",
            Self::Draining => "DRAINING",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Internal => "INTERNAL",
        }
    }

    /// How long a caller should wait before it tries the same again; `None` where that cannot help. Short where the
    /// shortage passes by itself, long where somebody must come back.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::InFlightFull | Self::ConcurrencyExceeded => Some(Duration::from_millis(250)),
            Self::LogUnavailable
            | Self::StoreUnavailable
            | Self::UpstreamUnavailable
            | Self::NotReady
            | Self::Draining
            | Self::QuotaExceeded
            | Self::DeadlineExceeded => Some(Duration::from_secs(1)),
            Self::FieldInvalid
            | Self::BodyMalformed
            | Self::BodyTooLarge
            | Self::MediaTypeUnsupported
            | Self::CredentialInvalid
            | Self::ScopeMissing
            | Self::HostUnknown
            | Self::RouteNotFound
            | Self::MethodNotAllowed
            | Self::ResourceNotFound
            | Self::ResourceExists
            | Self::DimensionNotCovered
            | Self::RangeTooFine
            | Self::ResultTooLarge
            | Self::ReaderTooSlow
            | Self::CreditsExceeded
            | Self::Internal => None,
        }
    }

    /// Starts an error. The message tells the caller what to do next.
    pub fn error(self, message: impl Into<String>) -> Error {
        Error {
            reason: self,
            message: message.into(),
            metadata: HashMap::new(),
            retry_after: self.retry_after(),
        }
    }

    /// The error without further details.
    pub fn status(self, message: impl Into<String>) -> Status {
        self.error(message).into()
    }
}

/// An error being put together; `Status::from` or `?` finishes it.
#[derive(Debug, Clone)]
pub struct Error {
    reason: Reason,
    message: String,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl Error {
    /// Adds to `ErrorInfo.metadata`, for programs: keys in lower camel case.
    pub fn with(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// Replaces the reason's usual pause before a retry.
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let Error { reason, message, metadata, retry_after } = error;
        let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Self::with_error_details(reason.code(), message, details)
    }
}

/// `INVALID_ARGUMENT` with a `BadRequest` of `(field, description)`; fields as paths (`events[3].event_name`).
pub fn invalid_argument<F, D>(violations: impl IntoIterator<Item = (F, D)>) -> Status
where
    F: Into<String>,
    D: Into<String>,
{
    let violations: Vec<_> = violations.into_iter().map(|(f, d)| FieldViolation::new(f, d)).collect();
    let message = match violations.as_slice() {
        [] => "the request is invalid".to_owned(),
        [only] => format!("{}: {}", only.field, only.description),
        [first, rest @ ..] => {
            format!("{}: {} (and {} more, see the details)", first.field, first.description, rest.len())
        }
    };
    let mut details = ErrorDetails::with_error_info(
        Reason::FieldInvalid.as_str(),
        DOMAIN,
        HashMap::<String, String>::new(),
    );
    details.set_bad_request(violations);
    Status::with_error_details(Reason::FieldInvalid.code(), message, details)
}

/// The HTTP status of an error: by its code, but for reasons that have one of their own.
pub fn http_status(status: &Status) -> StatusCode {
    if matches!(status.code(), Code::InvalidArgument | Code::Unimplemented)
        && let Some(info) = status.get_details_error_info()
    {
        let own = [
            (Reason::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE),
            (Reason::MediaTypeUnsupported, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (Reason::MethodNotAllowed, StatusCode::METHOD_NOT_ALLOWED),
        ];
        if let Some((_, code)) = own.iter().find(|(reason, _)| reason.as_str() == info.reason) {
            return *code;
        }
    }
    match status.code() {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        // 499: the client closed the request; no name in the registry, but what proxies write.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Fields at their default are shown, too.
const SERIALIZE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// Weir's schemas, which describe the details of errors.
static SCHEMA: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(weir_proto::DESCRIPTORS).expect("compiled in, and held by a test")
});

/// `google.rpc.Status` in ProtoJSON: `{"code": 3, "message": "…", "details": [{"@type": …}]}`. Details whose type the schemas do not
/// know are shown encoded: `{"@type": …, "value": "<base64>"}`.
pub fn to_json(status: &Status) -> Value {
    let details = tonic_types::pb::Status::decode(status.details()).map(|status| status.details);
    let details: Vec<Value> = details
        .unwrap_or_default()
        .into_iter()
        .map(|any| {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            let known = SCHEMA
                .get_message_by_name(name)
                .and_then(|message| DynamicMessage::decode(message, any.value.as_slice()).ok())
                .and_then(|message| message.serialize_with_options(value::Serializer, &SERIALIZE).ok());
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
    json!({ "code": status.code() as i32, "message": status.message(), "details": details })
}

/// The name of a code in `google.rpc.Code`.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The form of the REST API's errors: `{"error": {"code": 404, "status": "NOT_FOUND", "message": …, "details": […]}}`, with the HTTP
/// status as the code (<https://google.aip.dev/193#http11json-representation>).
pub fn to_error_json(status: &Status) -> Value {
    let mut error = to_json(status);
    error["code"] = http_status(status).as_u16().into();
    error["status"] = code_name(status.code()).into();
    json!({ "error": error })
}

/// The answer to an HTTP caller, with `Retry-After` (whole seconds, rounded up) where a retry can help.
pub fn into_http(status: &Status) -> http::Response<Body> {
    let mut response = http::Response::new(Body::from(to_error_json(status).to_string()));
    *response.status_mut() = http_status(status);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(pause) = status.get_details_retry_info().and_then(|retry| retry.retry_delay) {
        let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_named() {
        let status =
            invalid_argument([("events[3].event_name", "must not be empty"), ("page_size", "≤ 1000")]);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "events[3].event_name: must not be empty (and 1 more, see the details)");
        let bad = status.get_details_bad_request().unwrap();
        assert_eq!(bad.field_violations[1].field, "page_size");
        assert_eq!(http_status(&status), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn retryable_errors_say_when_to_come_back() {
        let status = Reason::InFlightFull.status("the log is slower than the events; retry");
        let response = into_http(&status);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let json = to_json(&status);
        assert_eq!(json["code"], 8);
        let [retry, info] = json["details"].as_array().unwrap().as_slice() else { panic!("{json}") };
        assert_eq!(info["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
        assert_eq!((&info["reason"], &info["domain"]), (&json!("IN_FLIGHT_FULL"), &json!("weir.dev")));
        assert_eq!(retry["retryDelay"], "0.250s");

        let status = Reason::ResourceNotFound.status("no such user");
        assert!(into_http(&status).headers().get(header::RETRY_AFTER).is_none());
        assert!(status.get_details_retry_info().is_none());
    }

    #[test]
    fn details_travel_with_the_error() {
        let status: Status = Reason::DimensionNotCovered
            .error("no rollup by `plan`; add it to rollups.dimensions")
            .with("dimension", "plan")
            .into();
        assert_eq!(status.get_details_error_info().unwrap().metadata["dimension"], "plan");
    }

    #[test]
    fn http_tells_too_large_and_unsupported_apart() {
        assert_eq!(http_status(&Reason::BodyTooLarge.status("")), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(http_status(&Reason::MediaTypeUnsupported.status("")), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(http_status(&Status::invalid_argument("")), StatusCode::BAD_REQUEST);
        assert_eq!(http_status(&Reason::DeadlineExceeded.status("")), StatusCode::GATEWAY_TIMEOUT);
    }
}
