//! Client streams with one receipt.

use futures::stream;
use tonic::Code;
use weir_proto::{
    event::v1::Event,
    ingest::v1::{UploadEventsRequest, UploadEventsResponse},
    token,
};

use crate::{
    fault_log::{Fault, FaultLog},
    rig::{Rig, event, numbered},
};

async fn upload(
    rig: &Rig,
    events: impl Iterator<Item = Event> + Send + 'static,
) -> Result<UploadEventsResponse, tonic::Status> {
    let requests = stream::iter(events.map(|event| UploadEventsRequest { event: Some(event) }));
    Ok(rig.client.clone().upload_events(requests).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_events_gets_one_receipt_and_keeps_its_order() {
    let rig = Rig::embedded().await;
    let user = |n: u32| ["ann", "bob", "cid", "dee"][n as usize % 4];
    let install = |n: u32| format!("phone-{}", n % 4);
    let events = (0..5000).map(move |n| Event {
        install_id: install(n),
        sequence: u64::from(n / 4) + 1,
        ..numbered(user(n), n)
    });
    let receipt = upload(&rig, events).await.unwrap();
    assert_eq!((receipt.received, receipt.accepted), (5000, 5000));
    assert_eq!((receipt.duplicates, receipt.rejected), (0, 0));
    let sequences: Vec<_> =
        receipt.last_sequences.iter().map(|i| (i.install_id.as_str(), i.sequence)).collect();
    assert_eq!(sequences, [("phone-0", 1250), ("phone-1", 1250), ("phone-2", 1250), ("phone-3", 1250)]);

    let records = rig.records().await;
    assert_eq!(records.iter().map(Vec::len).sum::<usize>(), 5000);
    for (partition, last) in token::decode(&receipt.consistency_token).unwrap() {
        assert_eq!(records[partition as usize].len() as u64, last + 1);
    }
    for partition in records {
        for user in ["ann", "bob", "cid", "dee"] {
            let of_user = partition.iter().filter_map(|r| r.event.as_ref()).filter(|e| e.user_id == user);
            assert!(of_user.map(|e| e.sequence).is_sorted(), "{user}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_and_repeated_events_are_counted_and_the_first_bad_ones_named() {
    let rig = Rig::embedded().await;
    let bad = |n: u32| Event { event_name: String::new(), ..numbered("ann", n) };
    let events = (0..3000).map(move |n| match n % 3 {
        0 => numbered("ann", n),
        1 => numbered("ann", n - 1),
        _ => bad(n),
    });
    let receipt = upload(&rig, events).await.unwrap();
    assert_eq!((receipt.received, receipt.accepted), (3000, 1000));
    assert_eq!((receipt.duplicates, receipt.rejected), (1000, 1000));
    assert_eq!(receipt.errors.len(), 100);
    assert_eq!(receipt.errors[99].index, 299, "the place in the stream");
    assert!(receipt.errors[0].error.as_ref().unwrap().message.starts_with("event.event_name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_stream_gets_an_empty_receipt() {
    let rig = Rig::embedded().await;
    let receipt = upload(&rig, std::iter::empty()).await.unwrap();
    assert_eq!(receipt, UploadEventsResponse::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_an_event_counts_as_rejected() {
    let mut rig = Rig::embedded().await;
    let requests = [UploadEventsRequest { event: None }, UploadEventsRequest { event: Some(event("ann")) }];
    let receipt = rig.client.upload_events(stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!((receipt.accepted, receipt.rejected), (1, 1));
    assert_eq!(receipt.errors[0].index, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_slows_an_upload_down_instead_of_failing_it() {
    let log = std::sync::Arc::new(FaultLog::default());
    log.fail_all(&[Fault::QueueFull, Fault::QueueFull, Fault::Unavailable]);
    let rig = Rig::on(log.clone(), |_| {}).await;
    let receipt = upload(&rig, (0..2500).map(|n| numbered(&n.to_string(), n))).await.unwrap();
    assert_eq!(receipt.accepted, 2500);
    assert_eq!(log.len(), 2500);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_overtakes_what_the_log_did_not_take() {
    let log = std::sync::Arc::new(FaultLog::default());
    log.fail(0, [Fault::TooLarge]);
    let rig = Rig::on(log.clone(), |_| {}).await;
    let status = upload(&rig, (0..50_000).map(|n| numbered(&n.to_string(), n))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(log.len() <= 1000, "only the chunk in question: {}", log.len());
}
