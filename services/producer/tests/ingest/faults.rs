//! The log is slow, full or away.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Barrier, Semaphore};
use tonic::{Code, Request};
use weir_producer::partition::partition;
use weir_proto::ingest::v1::{
    IngestEventRequest, IngestEventsRequest, IngestEventsResponse, event_result::Outcome,
};
use weir_runtime::Config;

use crate::{
    fault_log::{Fault, FaultLog},
    rig::{PARTITIONS, Rig, event, reason, retry_after},
};

async fn rig(change: impl FnOnce(&mut Config)) -> (Rig, Arc<FaultLog>) {
    let log = Arc::new(FaultLog::default());
    (Rig::on(log.clone(), change).await, log)
}

fn one() -> IngestEventRequest {
    IngestEventRequest { event: Some(event("ann")) }
}

/// 30 users, of every partition.
fn many() -> IngestEventsRequest {
    IngestEventsRequest { events: (0..30).map(|n| event(&n.to_string())).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_comes_back_costs_only_time() {
    let (mut rig, log) = rig(|_| {}).await;
    log.fail_all(&[Fault::Unavailable, Fault::Unavailable, Fault::Unavailable]);
    rig.client.ingest_event(one()).await.unwrap();
    assert_eq!((log.calls(), log.len()), (4, 1));
    let retries = rig.metric(r#"log_append_retries_total{service="producer",topic="analytics-events"}"#);
    assert_eq!(retries, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_stays_away_is_unavailable_with_when_to_retry() {
    let (mut rig, log) = rig(|config| config.producer.retry_deadline = Duration::from_millis(100)).await;
    log.fail_all(&vec![Fault::Unavailable; 1000]);
    let status = rig.client.ingest_event(one()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "LOG_UNAVAILABLE"));
    assert!(status.message().contains("same event_id"), "{status}");
    assert!(retry_after(&status).is_some());
    assert!(log.calls() > 2, "tried again {} times", log.calls());
    assert_eq!(rig.metric(r#"errors_total{kind="log_unavailable",service="producer"}"#), 1.0);
    assert_eq!(rig.counted("failed"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told_at_once() {
    let (mut rig, log) = rig(|_| {}).await;
    log.fail_all(&[Fault::QueueFull]);
    let status = rig.client.ingest_event(one()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(retry_after(&status).is_some());
    assert_eq!((log.calls(), log.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_hangs_ends_with_the_callers_deadline_as_unknown() {
    let (mut rig, log) = rig(|_| {}).await;
    log.fail_all(&[Fault::Wait(Arc::new(Semaphore::new(0)))]);
    let mut request = Request::new(one());
    request.set_timeout(Duration::from_millis(200));
    let status = rig.client.ingest_event(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    rig.client.ingest_event(one()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_hangs_ends_with_our_own_deadline_too() {
    let (mut rig, log) = rig(|config| config.producer.retry_deadline = Duration::from_millis(100)).await;
    log.fail_all(&[Fault::Wait(Arc::new(Semaphore::new(0)))]);
    let status = rig.client.ingest_event(one()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(status.message().contains("may or may not"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_refuses_is_not_tried_again() {
    let (mut rig, log) = rig(|_| {}).await;
    log.fail_all(&[Fault::TooLarge]);
    let status = rig.client.ingest_event(one()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(retry_after(&status).is_none());
    assert_eq!(log.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_flight_are_bounded() {
    // Room for one event, not for two.
    let (rig, log) = rig(|config| config.producer.max_in_flight_bytes = 150).await;
    let release = Arc::new(Semaphore::new(0));
    log.fail_all(&[Fault::Wait(release.clone())]);
    let mut client = rig.client.clone();
    let first = tokio::spawn(async move { client.ingest_event(one()).await });
    log.tried(1).await;
    let in_flight = r#"in_flight_bytes{service="producer"}"#;
    assert!((75.0..=150.0).contains(&rig.metric(in_flight)), "{}", rig.metric(in_flight));
    let status = rig.client.clone().ingest_event(one()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "IN_FLIGHT_FULL"));
    assert!(retry_after(&status).is_some());
    release.add_permits(1);
    first.await.unwrap().unwrap();
    assert_eq!(rig.metric(in_flight), 0.0);
    rig.client.clone().ingest_event(one()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_appended_to_at_once() {
    let (mut rig, log) = rig(|_| {}).await;
    // Each append waits for the other two.
    log.fail_all(&[Fault::Together(Arc::new(Barrier::new(PARTITIONS as usize)))]);
    let answer = rig.client.ingest_events(many()).await.unwrap().into_inner();
    assert_eq!(answer.accepted, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_fails_fails_only_its_events() {
    let (mut rig, log) = rig(|config| config.producer.retry_deadline = Duration::from_millis(50)).await;
    log.fail(1, vec![Fault::Unavailable; 1000]);
    let IngestEventsResponse { results, accepted, rejected, .. } =
        rig.client.ingest_events(many()).await.unwrap().into_inner();
    assert!(accepted > 0 && rejected > 0 && accepted + rejected == 30);
    for (user, result) in (0..30).zip(&results) {
        let failed = partition(user.to_string().as_bytes(), PARTITIONS) == 1;
        assert_eq!(result.outcome() == Outcome::Rejected, failed, "user {user}");
        if failed {
            let error = result.error.as_ref().unwrap();
            assert_eq!(error.code, Code::Unavailable as i32);
            assert!(error.details.iter().any(|detail| detail.type_url.ends_with("google.rpc.RetryInfo")));
        }
    }
    assert_eq!(log.len(), accepted as usize);
}
