//! Long-lived streams of batches, acknowledgements and credits.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use weir_proto::{
    event::v1::Event,
    ingest::v1::{
        BatchAcknowledgement, StreamEventsRequest, StreamEventsResponse, event_result::Outcome,
        stream_events_response::Message,
    },
    token,
};

use crate::{
    fault_log::{Fault, FaultLog},
    rig::{PARTITIONS, Rig, event, numbered, reason},
};

struct Session {
    requests: mpsc::Sender<StreamEventsRequest>,
    responses: Streaming<StreamEventsResponse>,
    credits: u32,
}

impl Session {
    /// Opens a stream and waits for its first credits.
    async fn open(rig: &Rig) -> Self {
        let (requests, receiver) = mpsc::channel(64);
        let responses =
            rig.client.clone().stream_events(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let mut session = Self { requests, responses, credits: 0 };
        match session.message().await {
            Ok(Some(Message::Credit(grant))) => session.credits = grant.events,
            other => panic!("the first response grants credits: {other:?}"),
        }
        session
    }

    async fn message(&mut self) -> Result<Option<Message>, Status> {
        Ok(self.responses.message().await?.and_then(|response| response.message))
    }

    /// Sends a batch, taking no account of credits.
    async fn send(&self, batch_id: u64, events: Vec<Event>) {
        self.requests.send(StreamEventsRequest { batch_id, events }).await.unwrap();
    }

    /// The next acknowledgement; credits on the way are added up.
    async fn acknowledged(&mut self) -> Result<BatchAcknowledgement, Status> {
        loop {
            match self.message().await? {
                Some(Message::Acknowledgement(acknowledgement)) => return Ok(acknowledgement),
                Some(Message::Credit(grant)) => self.credits += grant.events,
                None => panic!("the stream ended"),
            }
        }
    }

    /// What the stream ends with.
    async fn end(mut self) -> Result<(), Status> {
        while self.message().await?.is_some() {}
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_acknowledged_in_order_and_credits_come_back() {
    let rig = Rig::embedded().await;
    let mut session = Session::open(&rig).await;
    let window = session.credits;
    let (mut sent, mut acknowledged) = (0_u32, 0_u32);
    // Many times the window, with as much under way as the credits allow.
    while acknowledged < 60 {
        while sent < 60 && session.credits >= 1000 {
            session
                .send(sent.into(), (0..1000).map(|n| numbered(&n.to_string(), sent * 1000 + n)).collect())
                .await;
            session.credits -= 1000;
            sent += 1;
        }
        let acknowledgement = match session.message().await.unwrap() {
            Some(Message::Acknowledgement(acknowledgement)) => acknowledgement,
            Some(Message::Credit(grant)) => {
                session.credits += grant.events;
                continue;
            }
            None => panic!("the stream ended"),
        };
        assert_eq!(acknowledgement.batch_id, u64::from(acknowledged));
        assert_eq!((acknowledgement.accepted, acknowledgement.exceptions.len()), (1000, 0));
        assert_eq!(token::decode(&acknowledgement.consistency_token).unwrap().len(), PARTITIONS as usize);
        acknowledged += 1;
    }
    match session.message().await.unwrap() {
        Some(Message::Credit(grant)) => session.credits += grant.events,
        other => panic!("with nothing under way all credits are back: {other:?}"),
    }
    assert_eq!(session.credits, window);
    let Session { requests, mut responses, .. } = session;
    drop(requests);
    assert_eq!(responses.message().await.unwrap(), None, "the client's end is the stream's");
    assert_eq!(rig.events().await.len(), 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_name_only_what_was_not_accepted() {
    let rig = Rig::embedded().await;
    let mut session = Session::open(&rig).await;
    let bad = Event { event_name: String::new(), ..event("ann") };
    session.send(7, vec![numbered("ann", 1), bad, numbered("ann", 1), numbered("ann", 2)]).await;
    let acknowledgement = session.acknowledged().await.unwrap();
    assert_eq!((acknowledgement.batch_id, acknowledgement.accepted), (7, 2));
    let exceptions: Vec<_> = acknowledgement.exceptions.iter().map(|e| (e.index, e.outcome())).collect();
    assert_eq!(exceptions, [(1, Outcome::Rejected), (2, Outcome::Duplicate)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_more_than_the_credits_is_cut_off_after_what_is_under_way() {
    let log = Arc::new(FaultLog::default());
    let rig = Rig::on(log.clone(), |config| config.producer.stream_credits = 1500).await;
    let release = Arc::new(Semaphore::new(0));
    log.fail_all(&[Fault::Wait(release.clone())]);
    let mut session = Session::open(&rig).await;
    assert_eq!(session.credits, 1500);
    session.send(1, vec![event("ann"); 1000]).await;
    session.send(2, vec![event("ann"); 501]).await;
    // Only once the server has read the second batch: the first one's acknowledgement would bring its credits back.
    rig.until_metric(r#"errors_total{kind="credits_exceeded",service="producer"}"#, 1.0).await;
    release.add_permits(1);
    assert_eq!(session.acknowledged().await.unwrap().batch_id, 1);
    let status = session.end().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "CREDITS_EXCEEDED"));
    assert_eq!(log.len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_batches_are_under_way_at_once() {
    let log = Arc::new(FaultLog::default());
    let together = Fault::Together(Arc::new(tokio::sync::Barrier::new(3)));
    let rig = Rig::on(log.clone(), |_| {}).await;
    let mut session = Session::open(&rig).await;
    log.fail_all(&[together.clone(), together.clone(), together]);
    for batch in 0..3 {
        session.send(batch, vec![event("ann")]).await;
    }
    for batch in 0..3 {
        assert_eq!(session.acknowledged().await.unwrap().batch_id, batch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_holds_no_bytes_in_flight() {
    let log = Arc::new(FaultLog::default());
    let rig = Rig::on(log.clone(), |_| {}).await;
    let release = Arc::new(Semaphore::new(0));
    const BATCHES: u64 = 600;
    log.fail_all(&vec![Fault::Wait(release.clone()); BATCHES as usize]);
    let mut session = Session::open(&rig).await;
    // All are under way before the first is answered; the answers are more than the connection takes unread.
    for batch in 0..BATCHES {
        let bad = Event { event_name: String::new(), ..event("ann") };
        session.send(batch, vec![event("ann"), bad.clone(), bad.clone(), bad]).await;
    }
    log.tried(BATCHES as usize).await;
    release.add_permits(BATCHES as usize);
    let freed = async {
        while rig.metric(r#"in_flight_bytes{service="producer"}"#) > 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), freed)
        .await
        .expect("nothing waits for the reader");
    assert_eq!(log.len() as u64, BATCHES);
    for batch in 0..BATCHES {
        assert_eq!(session.acknowledged().await.unwrap().batch_id, batch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_against_the_schema_ends_the_stream() {
    let rig = Rig::embedded().await;
    for (events, message) in [(vec![], "at least 1"), (vec![event("ann"); 1001], "at most 1000")] {
        let session = Session::open(&rig).await;
        session.send(1, events).await;
        let status = session.end().await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains(message), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_limited_in_number() {
    let rig = Rig::on(Arc::new(FaultLog::default()), |config| config.producer.max_streams = 1).await;
    let session = Session::open(&rig).await;
    let (_requests, receiver) = mpsc::channel(1);
    let status = rig.client.clone().stream_events(ReceiverStream::new(receiver)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "CONCURRENCY_EXCEEDED"));
    let Session { requests, responses, .. } = session;
    drop(requests);
    let ended = Session { requests: mpsc::channel(1).0, responses, credits: 0 };
    ended.end().await.unwrap();
}
