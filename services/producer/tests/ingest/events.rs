//! One event a call, and the clock.

use std::{collections::BTreeMap, time::SystemTime};

use prost_types::Timestamp;
use tonic::{Code, Request, codec::CompressionEncoding};
use tonic_types::StatusExt as _;
use weir_producer::partition::partition;
use weir_proto::{
    event::v1::{App, Context, Event},
    google::r#type::Money,
    ingest::v1::{IngestEventRequest, SyncClockRequest},
    token,
};

use crate::rig::{PARTITIONS, Rig, event, id, numbered, reason};

fn request(event: Event) -> IngestEventRequest {
    IngestEventRequest { event: Some(event) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_event_is_in_the_log_where_its_token_says() {
    let mut rig = Rig::embedded().await;
    let sent = Event {
        revenue: Some(Money { currency_code: "USD".into(), units: 12, nanos: 500_000_000 }),
        context: Some(Context {
            app: Some(App { name: "shop".into(), ..App::default() }),
            ..Context::default()
        }),
        ..numbered("ann", 1)
    };
    let mut offsets = BTreeMap::new();
    for _ in 0..2 {
        let answer = rig.client.ingest_event(request(sent.clone())).await.unwrap().into_inner();
        assert_eq!(answer.event_id, id(1));
        offsets = token::decode(&answer.consistency_token).unwrap();
    }
    let home = partition(b"ann", PARTITIONS);
    assert_eq!(offsets, BTreeMap::from([(home, 1)]), "the second of two, in the user's partition");
    let records = rig.records().await;
    assert_eq!(records[home as usize].len(), 2, "duplicates across requests are the consumer's to remove");
    let record = &records[home as usize][0];
    assert_eq!(record.project, "default");
    assert_eq!(record.corrected_time_micros / 1_000_000, sent.event_time.unwrap().seconds);
    assert!(record.receive_time_micros >= record.corrected_time_micros);
    let stored = record.event.clone().unwrap();
    assert_eq!(Event { event_type: 0, ..stored }, sent);
    assert_eq!(rig.counted("accepted"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_is_answered_with_every_bad_field() {
    let mut rig = Rig::embedded().await;
    let bad = Event { event_name: String::new(), user_id: "undefined".into(), ..event("ann") };
    let status = rig.client.ingest_event(request(bad)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "FIELD_INVALID"));
    let fields = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(
        fields.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(),
        ["event.event_name", "event.user_id"]
    );

    let status = rig.client.ingest_event(IngestEventRequest::default()).await.unwrap_err();
    assert_eq!(status.message(), "event: is required");
    assert!(rig.events().await.is_empty());
    assert_eq!(rig.counted("rejected"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_needs_the_import_mark() {
    let mut rig = Rig::embedded().await;
    let old = Event { event_time: Some(Timestamp { seconds: 1_000_000_000, nanos: 0 }), ..event("ann") };
    let status = rig.client.ingest_event(request(old.clone())).await.unwrap_err();
    assert!(status.message().contains("weir import"), "{status}");
    let mut import = Request::new(request(old));
    import.metadata_mut().insert("weir-import", "true".parse().unwrap());
    rig.client.ingest_event(import).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_may_be_compressed_and_the_limits_hold_for_what_comes_out() {
    let rig = Rig::embedded().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = rig.client.clone().send_compressed(encoding).accept_compressed(encoding);
        client.ingest_event(request(event("ann"))).await.unwrap();
        // 64 MiB that travel as a few KiB.
        let bomb = Event { session_id: "x".repeat(64 << 20), ..event("ann") };
        let status = client.ingest_event(request(bomb)).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains("8388608"), "{status}");
        client.ingest_event(request(event("ann"))).await.unwrap();
    }
    assert_eq!(rig.events().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_can_be_compared() {
    let mut rig = Rig::embedded().await;
    let client_time = Some(Timestamp { seconds: 17, nanos: 42 });
    let before = Timestamp::from(SystemTime::now());
    let answer = rig.client.sync_clock(SyncClockRequest { client_time }).await.unwrap().into_inner();
    assert_eq!(answer.client_time, client_time);
    let (receive, transmit) = (answer.receive_time.unwrap(), answer.transmit_time.unwrap());
    assert!(before.seconds <= receive.seconds);
    assert!((receive.seconds, receive.nanos) <= (transmit.seconds, transmit.nanos));
    let status = rig.client.sync_clock(SyncClockRequest::default()).await.unwrap_err();
    assert_eq!(status.message(), "client_time: is required");
}
