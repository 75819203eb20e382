//! Server streams: as server-sent events, or one JSON object a line where the caller accepts NDJSON.
//!
//! ```text
//! id: 1                      {"events": […], "missed": "0"}
//! data: {"events": […]}
//!
//! event: error               {"error": {"code": 503, …}}
//! data: {"error": {…}}
//! ```
//! A stream that ends well ends with `event: end` as server-sent events, so that a browser knows not to connect again.

use std::convert::Infallible;

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use prost_reflect::{FieldDescriptor, MessageDescriptor};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tonic::{Status, Streaming};
use weir_runtime::status::{self, Reason};

use super::{Caller, Rest, unary};
use crate::{answer, binding::rule::Binding};

/// Calls a server-streaming RPC.
pub(crate) async fn answer(
    rest: &Rest,
    binding: &Binding,
    variables: &[String],
    request: Request,
) -> Result<Response, Status> {
    let format = Format::accepted(request.headers());
    let caller = Caller::of(&request, binding.rpc.shape);
    let message = unary::message(rest, binding, variables, request).await?;
    let (headers, messages) = super::server_stream(&rest.backend, &binding.rpc, &caller, message).await?;
    let mut heartbeat = interval_at(Instant::now() + rest.heartbeat, rest.heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reply = Reply {
        messages,
        format,
        heartbeat,
        deadline: caller.deadline,
        sent: 0,
        output: binding.rpc.output.clone(),
        field: binding.response_body.clone(),
    };
    let chunks = futures::stream::unfold(Some(reply), async |reply| {
        let (chunk, reply) = reply?.next().await;
        Some((Ok::<_, Infallible>(chunk), reply))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let out = response.headers_mut();
    out.extend(headers);
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks nginx not to gather what is meant to arrive at once.
    out.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Events,
    Lines,
}

impl Format {
    fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let lines = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
        if lines.iter().any(|media| accept.contains(media)) { Self::Lines } else { Self::Events }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }
}

struct Reply {
    messages: Streaming<Bytes>,
    format: Format,
    heartbeat: Interval,
    deadline: Option<Instant>,
    sent: u64,
    output: MessageDescriptor,
    field: Option<FieldDescriptor>,
}

enum Step {
    Message(Bytes),
    Silence,
    End,
    Failed(Status),
}

impl Reply {
    /// What to send next, and what is left; nothing after the end. Dropping it cancels the call.
    async fn next(mut self) -> (Bytes, Option<Self>) {
        match self.step().await {
            Step::Message(bytes) => match answer::encode(&self.output, &bytes, self.field.as_ref()) {
                Ok(json) => (self.message(&json), Some(self)),
                Err(status) => (self.failure(&status), None),
            },
            Step::Silence => (Bytes::from_static(b":\n\n"), Some(self)),
            Step::End => match self.format {
                Format::Events => (Bytes::from_static(b"event: end\ndata: {}\n\n"), None),
                Format::Lines => (Bytes::new(), None),
            },
            Step::Failed(status) => (self.failure(&status), None),
        }
    }

    async fn step(&mut self) -> Step {
        let deadline = self.deadline;
        let expired = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            message = self.messages.message() => match message {
                Ok(Some(bytes)) => Step::Message(bytes),
                Ok(None) => Step::End,
                Err(status) => Step::Failed(status),
            },
            () = expired => Step::Failed(Reason::DeadlineExceeded.status("the deadline of the call passed")),
            // NDJSON has no way to say nothing.
            _ = self.heartbeat.tick(), if self.format == Format::Events => Step::Silence,
        }
    }

    fn message(&mut self, json: &[u8]) -> Bytes {
        self.sent += 1;
        self.heartbeat.reset();
        match self.format {
            Format::Events => {
                [format!("id: {}\ndata: ", self.sent).as_bytes(), json, b"\n\n"].concat().into()
            }
            Format::Lines => [json, b"\n"].concat().into(),
        }
    }

    fn failure(&self, status: &Status) -> Bytes {
        let json = status::to_error_json(status);
        match self.format {
            Format::Events => format!("event: error\ndata: {json}\n\n").into(),
            Format::Lines => format!("{json}\n").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::response::IntoResponse as _;
    use http_body_util::BodyExt as _;
    use tower::util::BoxCloneSyncService;

    use prost_reflect::DescriptorPool;

    use super::*;
    use crate::binding::rule::{Shape, bindings};

    /// Begins an answer and never says anything.
    async fn silent(
        _: http::Request<tonic::body::Body>,
    ) -> Result<http::Response<tonic::body::Body>, Status> {
        let body = Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
        Ok(([(header::CONTENT_TYPE, "application/grpc")], body).into_response().map(tonic::body::Body::new))
    }

    #[tokio::test]
    async fn a_silent_stream_shows_that_it_lives() {
        let backend = BoxCloneSyncService::new(tower::service_fn(silent));
        let mut rest = Rest::new(backend, &weir_runtime::Config::default().server);
        rest.heartbeat = Duration::from_millis(1);
        let pool = DescriptorPool::decode(weir_proto::DESCRIPTORS).unwrap();
        let bindings =
            bindings(&pool.get_service_by_name("weir.metrics.v1.MetricsService").unwrap()).unwrap();
        let watch = bindings.iter().find(|binding| binding.rpc.shape == Shape::ServerStream);
        let binding = watch.expect("the schema lets metrics be watched");
        let request = Request::new(Body::empty());
        let mut body = answer(&rest, binding, &[], request).await.unwrap().into_body();
        for _ in 0..3 {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), ":\n\n");
        }
    }
}
