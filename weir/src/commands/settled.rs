//! Asking whether what was sent is in the log, waiting until it is counted, and what became of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use tonic::{Code, Status};
use uuid::Uuid;
use weir_client::is_transient;
use weir_proto::{
    analytics::v1::{GetImportRequest, GetSummaryRequest, Import, TimeRange},
    ingest::v1::{GetLogRequest, GetLogResponse},
    token,
};

use crate::client::Connection;

/// How long one question waits; asked again until the patience is used up.
const ATTEMPT: Duration = Duration::from_secs(10);
/// The pause before a service that is away is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// The log that the producer appends to; asked again while it is away, until the patience is used up. `None` when the service is
/// too old to tell.
///
/// # Errors
/// When it does not answer in time.
pub(crate) async fn log(
    connection: &Connection,
    patience: Duration,
    mut retrying: impl FnMut(&Status),
) -> Result<Option<GetLogResponse>> {
    let mut client = connection.ingest()?;
    let began = Instant::now();
    loop {
        match client.get_log(GetLogRequest {}).await {
            Ok(response) => return Ok(Some(response.into_inner())),
            Err(status) if status.code() == Code::Unimplemented => return Ok(None),
            Err(status) if is_transient(&status) && began.elapsed() < patience => {
                retrying(&status);
                tokio::time::sleep(RETRY).await;
            }
            Err(status) => return Err(connection.explain(status)),
        }
    }
}

/// Whether the log reaches as far as the token says. It does not when its topics were deleted and created again since.
pub(crate) fn holds(log: &GetLogResponse, token: &str) -> bool {
    let end = |number: u32| log.partitions.iter().find(|p| p.partition == number).map(|p| p.end_offset);
    let offsets = token::decode(token).unwrap_or_default();
    offsets.iter().all(|(partition, last)| end(*partition).is_some_and(|end| *last < end))
}

/// What became of an import, once everything that the token covers is counted; `None` when the service does not know the import.
///
/// # Errors
/// When it is not counted after `patience`, or the analytics service answers something else.
pub(crate) async fn outcome(
    connection: &Connection,
    import: Uuid,
    token: &str,
    patience: Duration,
) -> Result<Option<Import>> {
    let mut client = connection.analytics()?;
    let ask = async || {
        let mut request = tonic::Request::new(GetImportRequest {
            import_id: import.to_string(),
            min_consistency_token: token.to_owned(),
        });
        request.set_timeout(ATTEMPT);
        client.get_import(request).await
    };
    match persist(patience, ask).await {
        Ok(response) => Ok(response.into_inner().import),
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
            counted(connection, token, patience).await?;
            Ok(None)
        }
        Err(status) => Err(not_counted(connection, status, patience)),
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
    let ask = async || {
        // The cheapest question: the first day of the epoch, a bucket that every retention keeps.
        let instant = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let mut request = tonic::Request::new(GetSummaryRequest {
            time_range: Some(TimeRange { start_time: instant(0), end_time: instant(86_400), last: None }),
            top_events: 1,
            min_consistency_token: token.to_owned(),
            ..GetSummaryRequest::default()
        });
        request.set_timeout(ATTEMPT);
        client.get_summary(request).await
    };
    persist(patience, ask).await.map(drop).map_err(|status| not_counted(connection, status, patience))
}

/// Asks until there is an answer that no further asking changes, or the patience is used up.
async fn persist<T>(
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, Status>,
) -> Result<T, Status> {
    let began = Instant::now();
    loop {
        match ask().await {
            Err(status) if is_transient(&status) && began.elapsed() < patience => {
                if status.code() != Code::DeadlineExceeded {
                    tokio::time::sleep(RETRY).await;
                }
            }
            answered => return answered,
        }
    }
}

fn not_counted(connection: &Connection, status: Status, patience: Duration) -> anyhow::Error {
    if status.code() == Code::DeadlineExceeded {
        return anyhow::anyhow!(
            "everything is accepted and durable, but not counted after {} s: see `weir status`, or don't wait with --no-wait",
            patience.as_secs()
        );
    }
    connection.explain(status)
}

#[cfg(test)]
mod tests {
    use weir_proto::ingest::v1::LogPartition;

    use super::*;

    #[test]
    fn a_log_that_ends_before_a_token_is_another() {
        let partition = |partition, end_offset| LogPartition { partition, start_offset: 0, end_offset };
        let log =
            GetLogResponse { identity: "a".to_owned(), partitions: vec![partition(0, 5), partition(1, 1)] };
        let token = |offsets: &[(u32, u64)]| token::encode(&offsets.iter().copied().collect());
        assert!(holds(&log, ""));
        assert!(holds(&log, &token(&[(0, 4), (1, 0)])));
        assert!(!holds(&log, &token(&[(0, 5)])));
        assert!(!holds(&log, &token(&[(0, 4), (2, 0)])), "it has fewer partitions");
    }
}
