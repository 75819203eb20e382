//! Up to 1000 events a call.

use tonic::Code;
use weir_proto::{
    event::v1::Event,
    ingest::v1::{IngestEventsRequest, event_result::Outcome},
    token,
};

use crate::rig::{Rig, event, id, numbered, reason};

#[tokio::test(flavor = "multi_thread")]
async fn each_event_has_its_own_result() {
    let mut rig = Rig::embedded().await;
    let nameless = Event { event_name: String::new(), ..event("cid") };
    let events = vec![numbered("ann", 1), nameless, numbered("bob", 1), event("bob"), numbered("ann", 2)];
    let answer = rig.client.ingest_events(IngestEventsRequest { events }).await.unwrap().into_inner();
    let outcomes: Vec<_> = answer.results.iter().map(|result| result.outcome()).collect();
    use Outcome::{Accepted, Duplicate, Rejected};
    assert_eq!(outcomes, [Accepted, Rejected, Duplicate, Accepted, Accepted]);
    assert_eq!((answer.accepted, answer.duplicates, answer.rejected), (3, 1, 1));
    assert!(answer.results.iter().map(|result| result.index).eq(0..5));
    assert_eq!(answer.results[2].event_id, id(1));
    assert_eq!(answer.results[3].event_id.len(), 36, "generated");
    let error = answer.results[1].error.clone().unwrap();
    assert_eq!(error.message, "events[1].event_name: must not be empty");
    assert!(error.details.iter().any(|detail| detail.type_url.ends_with("google.rpc.BadRequest")));

    let records = rig.records().await;
    for (partition, last) in token::decode(&answer.consistency_token).unwrap() {
        assert_eq!(records[partition as usize].len() as u64, last + 1);
    }
    assert_eq!(records.iter().map(Vec::len).sum::<usize>(), 3);
    for (outcome, count) in [("accepted", 3.0), ("duplicate", 1.0), ("rejected", 1.0)] {
        assert_eq!(rig.counted(outcome), count, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_is_refused_whole() {
    let mut rig = Rig::embedded().await;
    let events = vec![event("ann"); 1001];
    let status = rig.client.ingest_events(IngestEventsRequest { events }).await.unwrap_err();
    assert_eq!(status.message(), "events: must have at most 1000 items, has 1001");
    let status = rig.client.ingest_events(IngestEventsRequest { events: vec![] }).await.unwrap_err();
    assert_eq!(status.message(), "events: must have at least 1 items, has 0");

    let heavy = Event { session_id: "x".repeat(5_000), ..event("ann") };
    let status =
        rig.client.ingest_events(IngestEventsRequest { events: vec![heavy; 1000] }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "BODY_TOO_LARGE"));
    assert!(rig.events().await.is_empty());

    let events = vec![event("ann"); 1000];
    let answer = rig.client.ingest_events(IngestEventsRequest { events }).await.unwrap().into_inner();
    assert_eq!(answer.accepted, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_large_fails_alone() {
    let mut rig = Rig::embedded().await;
    let large = Event { session_id: "x".repeat(70_000), ..event("ann") };
    let events = vec![event("ann"), large];
    let answer = rig.client.ingest_events(IngestEventsRequest { events }).await.unwrap().into_inner();
    assert_eq!((answer.accepted, answer.rejected), (1, 1));
    let message = &answer.results[1].error.as_ref().unwrap().message;
    assert!(message.starts_with("events[1]: must have at most 65536 bytes encoded"), "{message}");
}
