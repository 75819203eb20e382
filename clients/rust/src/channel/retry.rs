//! Repeats calls that failed for the moment.
//!
//! At most three times, and all calls of a channel together only as often as a budget allows: one call in five, and ten a second.
//! So a server that is overloaded is not buried under repetitions.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use http::{Request, Response, StatusCode};
use tokio::time::{Instant, Sleep, sleep};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;
use tower::{
    BoxError,
    retry::{
        Policy,
        budget::{Budget as _, TpsBudget},
    },
};

use super::{
    balance::{Unreachable, causes},
    deadline::Expiry,
    replay::Content,
};

/// Pauses before the repetitions of a call, unless the server asks for more.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_secs(1))
    .with_max_times(3)
    .with_jitter();
/// The longest pause that a server may ask of a call without a deadline.
const LONGEST_ASKED: Duration = Duration::from_secs(10);

/// When to repeat which call.
#[derive(Clone, Debug)]
pub(super) struct Repeat {
    budget: Arc<TpsBudget>,
    repeated: usize,
}

impl Repeat {
    pub(super) fn new() -> Self {
        Self { budget: Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2)), repeated: 0 }
    }
}

impl Policy<Request<Content>, Response<Body>, BoxError> for Repeat {
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Content>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Sleep> {
        let asked = match result {
            Ok(response) => match momentary(response) {
                Some(asked) => asked,
                None => {
                    self.budget.deposit();
                    return None;
                }
            },
            // No address can be reached: who is gone is not worth waiting for.
            Err(error) if causes(&**error).any(|cause| cause.is::<Unreachable>()) => return None,
            Err(_) => Duration::ZERO,
        };
        let pause = PAUSES.build().nth(self.repeated)?.max(asked);
        let Expiry(expiry) =
            request.extensions().get().copied().unwrap_or(Expiry(Instant::now() + LONGEST_ASKED));
        if Instant::now() + pause >= expiry || !self.budget.withdraw() {
            return None;
        }
        self.repeated += 1;
        Some(sleep(pause))
    }

    fn clone_request(&mut self, request: &Request<Content>) -> Option<Request<Content>> {
        let Content::Again(bytes) = request.body() else { return None };
        let mut again = Request::new(Content::Again(bytes.clone()));
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.version_mut() = request.version();
        *again.headers_mut() = request.headers().clone();
        *again.extensions_mut() = request.extensions().clone();
        Some(again)
    }
}

/// The pause after which a call may succeed, when its answer says that it failed for the moment.
fn momentary(response: &Response<Body>) -> Option<Duration> {
    let Some(status) = Status::from_header_map(response.headers()) else {
        // Not of a gRPC server: of something in front of it, which can't reach it.
        let gateway = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        return gateway.contains(&response.status()).then_some(Duration::ZERO);
    };
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Unavailable => Some(asked.unwrap_or_default()),
        // It took all the time that it had, and would again.
        Code::DeadlineExceeded => None,
        // The server names a pause only where it helps.
        _ => asked,
    }
}
