//! Waiting until what was sent is counted.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tonic::Code;
use weir_proto::analytics::v1::{GetSummaryRequest, TimeRange};

use crate::client::{Connection, is_transient};

/// How long one question waits; asked again until the patience is used up.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Answers when everything that the token covers is counted.
///
/// # Errors
/// When it is not after `patience`, or the analytics service answers something else.
pub(crate) async fn counted(connection: &Connection, token: &str, patience: Duration) -> Result<()> {
    if token.is_empty() {
        return Ok(());
    }
    let mut client = connection.analytics()?;
    let began = Instant::now();
    loop {
        // The cheapest question: the first day of the epoch, a bucket that every retention keeps.
        let instant = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let mut request = tonic::Request::new(GetSummaryRequest {
            time_range: Some(TimeRange { start_time: instant(0), end_time: instant(86_400), last: None }),
            top_events: 1,
            min_consistency_token: token.to_owned(),
        });
        request.set_timeout(ATTEMPT);
        match client.get_summary(request).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::DeadlineExceeded && began.elapsed() >= patience => bail!(
                "everything is accepted and durable, but not counted after {} s: see `weir status`, or don't wait with \
                 --no-wait",
                patience.as_secs()
            ),
            Err(status) if is_transient(&status) && began.elapsed() < patience => {
                if status.code() != Code::DeadlineExceeded {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            Err(status) => return Err(connection.explain(status)),
        }
    }
}
