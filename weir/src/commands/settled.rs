//! Waiting until what was sent is counted, and asking whether it is there at all.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tonic::Code;
use weir_proto::{
    analytics::v1::{GetSummaryRequest, TimeRange},
    processing::v1::{GetStatusRequest, partition_status::State},
    token,
};

use crate::client::{Connection, is_transient};

/// How long one question waits; asked again until the patience is used up.
const ATTEMPT: Duration = Duration::from_secs(10);

/// How long a consumer may take to look at the log's end.
const LOOK: Duration = Duration::from_secs(10);

/// Whether the log holds what the token covers: it does not when its data was deleted since. Where the consumer that answers
/// cannot tell, because it is away or owns other partitions, it is taken to be there.
pub(crate) async fn known(connection: &Connection, token: &str) -> Result<bool> {
    let offsets = token::decode(token).unwrap_or_default();
    let mut client = connection.processing()?;
    let began = Instant::now();
    loop {
        let Ok(answer) = client.get_status(GetStatusRequest {}).await else { return Ok(true) };
        let partitions = answer.into_inner().status.unwrap_or_default().partitions;
        let is_short = |partition: u32, end: u64| offsets.get(&partition).is_some_and(|&last| last >= end);
        let mut short = partitions.iter().filter(|p| is_short(p.partition, p.end_offset)).peekable();
        if short.peek().is_none() {
            return Ok(true);
        }
        // What a consumer knows of the end is a moment old.
        if began.elapsed() >= LOOK {
            return Ok(!short.all(|partition| partition.state() == State::Running));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

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
            ..GetSummaryRequest::default()
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
