//! Stopping.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use weir_proto::ingest::v1::{
    IngestEventRequest, StreamEventsRequest, UploadEventsRequest, stream_events_response::Message,
};

use crate::{
    fault_log::{Fault, FaultLog},
    rig::{Rig, event},
};

#[tokio::test(flavor = "multi_thread")]
async fn appends_under_way_are_finished_and_acknowledged() {
    let log = Arc::new(FaultLog::default());
    let mut rig = Rig::on(log.clone(), |_| {}).await;
    let release = Arc::new(Semaphore::new(0));
    log.fail_all(&[Fault::Wait(release.clone()), Fault::Wait(release.clone())]);

    let mut client = rig.client.clone();
    let request = IngestEventRequest { event: Some(event("ann")) };
    let unary = tokio::spawn(async move { client.ingest_event(request).await });
    let (batches, receiver) = mpsc::channel(1);
    let mut stream =
        rig.client.clone().stream_events(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    batches.send(StreamEventsRequest { batch_id: 1, events: vec![event("ann")] }).await.unwrap();
    log.tried(2).await;

    let requested = rig.context.shutdown.requested();
    let stopped = rig.stop();
    requested.await;
    release.add_permits(2);
    stopped.await.unwrap().unwrap();
    unary.await.unwrap().unwrap();
    let mut acknowledged = false;
    let status = loop {
        match stream.message().await {
            Ok(Some(response)) => {
                acknowledged |= matches!(response.message, Some(Message::Acknowledgement(_)))
            }
            Ok(None) => panic!("a stream that is cut says so"),
            Err(status) => break status,
        }
    };
    assert!(acknowledged && status.code() == Code::Unavailable, "{status}");
    assert_eq!(log.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_upload_is_ended_with_unavailable() {
    let log = Arc::new(FaultLog::default());
    let mut rig = Rig::on(log.clone(), |_| {}).await;
    let (events, receiver) = mpsc::channel(1);
    let mut client = rig.client.clone();
    let upload = tokio::spawn(async move { client.upload_events(ReceiverStream::new(receiver)).await });
    events.send(UploadEventsRequest { event: Some(event("ann")) }).await.unwrap();
    log.tried(1).await;
    rig.stop().await.unwrap().unwrap();
    assert_eq!(upload.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(log.len(), 1);
}
