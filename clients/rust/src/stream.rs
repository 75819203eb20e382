//! Sending batches over `StreamEvents` so that each is acknowledged once and in order, whatever happens to the connection.
//!
//! Batches that are not acknowledged are kept, and sent again in order on a new connection; their events have ids, so what
//! was taken twice counts once. A batch of which the log could not take an event for now counts as not acknowledged.
//! Memory is bounded by [`MAX_PENDING`] batches.

use std::{collections::VecDeque, pin::pin, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{Stream, StreamExt as _, stream::FusedStream};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use uuid::Uuid;
use weir_proto::{
    event::v1::Event,
    ingest::v1::{
        EventResult, StreamEventsRequest, StreamEventsResponse, ingest_service_client::IngestServiceClient,
        stream_events_response::Message,
    },
};

use crate::{Wire, is_transient};

/// Most events that a batch may hold: the service's limit.
pub const MAX_BATCH_EVENTS: usize = 1000;
/// Encoded size at which a batch is full: half the service's limit of 4 MiB, an event being at most 64 KiB.
pub const MAX_BATCH_BYTES: usize = 2 << 20;
/// Batches read ahead of their acknowledgement. Above the credits that a service grants, so that those decide.
const MAX_PENDING: usize = 32;

/// Pauses between attempts to reconnect: 100 ms, doubled up to 5 s, with jitter.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times()
    .with_jitter();

/// Events that go together, with whatever the caller needs to know again when they are acknowledged.
#[derive(Debug)]
pub struct Batch<T> {
    /// At most [`MAX_BATCH_EVENTS`], each with an `event_id`; may be empty, and is then only passed through in order.
    pub events: Vec<Event>,
    /// The caller's own.
    pub tag: T,
}

/// A batch of which every accepted event is durable.
#[derive(Debug)]
pub struct Acknowledged<T> {
    /// The batch's.
    pub tag: T,
    /// Its events that are in the log.
    pub accepted: u32,
    /// Duplicates within the batch and events that were rejected for good.
    pub exceptions: Vec<EventResult>,
    /// With it, a query waits until the batch is counted.
    pub consistency_token: String,
}

/// How to send.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The import that the events belong to, for which no limit of age holds.
    pub import: Option<Uuid>,
    /// How long to try again without an acknowledgement before giving up.
    pub patience: Duration,
}

struct Pending<T> {
    id: u64,
    batch: Batch<T>,
    sent: bool,
}

/// Sends the batches of `input` until it ends and everything is acknowledged. `done` is called for each batch in order.
///
/// # Errors
/// The status that ended it: one that no retry mends, or the last one when `patience` ran out.
pub async fn send<T>(
    client: IngestServiceClient<Wire>,
    options: Options,
    input: impl Stream<Item = Batch<T>>,
    mut done: impl FnMut(Acknowledged<T>),
    mut retrying: impl FnMut(&Status, Duration),
) -> Result<(), Status> {
    let mut input = pin!(input.fuse());
    let mut pending: VecDeque<Pending<T>> = VecDeque::new();
    let mut next_id = 1;
    let mut failing_since: Option<Instant> = None;
    let mut pauses = PAUSES.build();
    loop {
        let mut acknowledged = |batch| {
            failing_since = None;
            pauses = PAUSES.build();
            done(batch);
        };
        match connection(client.clone(), options, &mut input, &mut pending, &mut next_id, &mut acknowledged)
            .await
        {
            Ok(()) => return Ok(()),
            Err(status) => {
                let since = *failing_since.get_or_insert_with(Instant::now);
                if !is_transient(&status) || since.elapsed() >= options.patience {
                    return Err(status);
                }
                let pause = pauses.next().expect("without a number of times there is always a next");
                retrying(&status, pause);
                tokio::time::sleep(pause).await;
                pending.iter_mut().for_each(|pending| pending.sent = false);
            }
        }
    }
}

/// One connection, until it breaks or all is done.
async fn connection<T>(
    mut client: IngestServiceClient<Wire>,
    options: Options,
    input: &mut (impl FusedStream<Item = Batch<T>> + Unpin),
    pending: &mut VecDeque<Pending<T>>,
    next_id: &mut u64,
    done: &mut impl FnMut(Acknowledged<T>),
) -> Result<(), Status> {
    let (requests, outgoing) = mpsc::channel(MAX_PENDING);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    if let Some(import) = options.import {
        let import = import.to_string().parse().expect("a UUID is ASCII");
        request.metadata_mut().insert("weir-import", import);
    }
    let mut responses: Streaming<StreamEventsResponse> = client.stream_events(request).await?.into_inner();
    let (mut credits, mut window): (u64, Option<u64>) = (0, None);
    loop {
        pass_empty(pending, done);
        if pending.is_empty() && input.is_terminated() {
            return Ok(());
        }
        for waiting in pending.iter_mut().filter(|pending| !pending.sent) {
            let cost = waiting.batch.events.len() as u64;
            if let Some(window) = window.filter(|window| cost > *window) {
                return Err(Status::failed_precondition(format!(
                    "the service takes at most {window} events that are not acknowledged, a batch has {cost}: raise its \
                     producer.stream_credits"
                )));
            }
            if cost > credits {
                break;
            }
            let message = StreamEventsRequest { batch_id: waiting.id, events: waiting.batch.events.clone() };
            // The channel holds as many as can be pending; it is full or closed only when the call has ended.
            if cost > 0 && requests.try_send(message).is_err() {
                break;
            }
            credits -= cost;
            waiting.sent = true;
        }
        tokio::select! {
            response = responses.message() => match response?.and_then(|response| response.message) {
                Some(Message::Credit(grant)) => {
                    credits += u64::from(grant.events);
                    // The first grant is all there will ever be.
                    window.get_or_insert(credits);
                }
                Some(Message::Acknowledgement(acknowledgement)) => {
                    if let Some(status) = acknowledgement.exceptions.iter().find_map(unsettled) {
                        return Err(status);
                    }
                    let is_next = pending.front().is_some_and(|first| first.id == acknowledgement.batch_id);
                    let Some(first) = pending.pop_front_if(|_| is_next) else {
                        return Err(Status::internal(format!(
                            "batch {} was acknowledged out of order",
                            acknowledgement.batch_id
                        )));
                    };
                    done(Acknowledged {
                        tag: first.batch.tag,
                        accepted: acknowledgement.accepted,
                        exceptions: acknowledgement.exceptions,
                        consistency_token: acknowledgement.consistency_token,
                    });
                }
                None => return Err(Status::unavailable("the service closed the stream")),
            },
            batch = input.next(), if pending.len() < MAX_PENDING && !input.is_terminated() => {
                if let Some(batch) = batch {
                    pending.push_back(Pending { id: *next_id, batch, sent: false });
                    *next_id += 1;
                }
            }
        }
    }
}

/// Why an event has to be sent again: the log could not take it for now, or may not have.
pub fn unsettled(result: &EventResult) -> Option<Status> {
    let error = result.error.as_ref()?;
    let status = Status::new(error.code.into(), error.message.clone());
    is_transient(&status).then_some(status)
}

/// Batches without events need no acknowledgement, only their place in the order.
fn pass_empty<T>(pending: &mut VecDeque<Pending<T>>, done: &mut impl FnMut(Acknowledged<T>)) {
    while let Some(first) = pending.pop_front_if(|first| first.batch.events.is_empty()) {
        done(Acknowledged {
            tag: first.batch.tag,
            accepted: 0,
            exceptions: Vec::new(),
            consistency_token: String::new(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Response, Streaming};
    use weir_proto::{
        ingest::v1::{
            BatchAcknowledgement, CreditGrant, GetLogRequest, GetLogResponse, IngestEventRequest,
            IngestEventResponse, IngestEventsRequest, IngestEventsResponse, SyncClockRequest,
            SyncClockResponse, UploadEventsRequest, UploadEventsResponse,
            event_result::Outcome,
            ingest_service_server::{IngestService, IngestServiceServer},
        },
        rpc,
    };

    use super::*;
    use crate::{Connection, Endpoints};

    /// Takes `per_connection` batches in, acknowledges all of them but the last, then breaks the connection; grants the
    /// credits of three batches of two events. It refuses who sends more. While its log is away, it answers so for the second
    /// event of each batch.
    #[derive(Clone)]
    struct Breaking {
        per_connection: usize,
        log_away: Arc<AtomicUsize>,
        taken: Arc<Mutex<Vec<String>>>,
        end: fn() -> Status,
    }

    type Responses = ReceiverStream<Result<StreamEventsResponse, Status>>;

    #[tonic::async_trait]
    impl IngestService for Breaking {
        type StreamEventsStream = Responses;

        async fn stream_events(
            &self,
            request: Request<Streaming<StreamEventsRequest>>,
        ) -> Result<Response<Responses>, Status> {
            let (mut batches, service) = (request.into_inner(), self.clone());
            let (responses, stream) = mpsc::channel(100);
            let say = |message| Ok(StreamEventsResponse { message: Some(message) });
            tokio::spawn(async move {
                let mut credits = 6;
                let _ = responses.send(say(Message::Credit(CreditGrant { events: 6 }))).await;
                for number in 1.. {
                    let Ok(Some(batch)) = batches.message().await else { return };
                    let cost = batch.events.len();
                    if cost > credits {
                        let _ = responses.send(Err(Status::invalid_argument("more than was granted"))).await;
                        return;
                    }
                    credits -= cost;
                    service
                        .taken
                        .lock()
                        .unwrap()
                        .extend(batch.events.into_iter().map(|event| event.event_name));
                    if number == service.per_connection {
                        let _ = responses.send(Err((service.end)())).await;
                        return;
                    }
                    let away = |away: usize| away.checked_sub(1);
                    let away = service.log_away.fetch_update(Relaxed, Relaxed, away).is_ok();
                    let failed = EventResult {
                        index: 1,
                        outcome: Outcome::Rejected.into(),
                        error: Some(rpc::Status {
                            code: 14,
                            message: "the log is away".into(),
                            details: vec![],
                        }),
                        ..EventResult::default()
                    };
                    let done = BatchAcknowledgement {
                        batch_id: batch.batch_id,
                        accepted: (cost - usize::from(away)) as u32,
                        exceptions: away.then_some(failed).into_iter().collect(),
                        ..BatchAcknowledgement::default()
                    };
                    let _ = responses.send(say(Message::Acknowledgement(done))).await;
                    credits += cost;
                    let _ = responses.send(say(Message::Credit(CreditGrant { events: cost as u32 }))).await;
                }
            });
            Ok(Response::new(ReceiverStream::new(stream)))
        }

        async fn ingest_event(
            &self,
            _: Request<IngestEventRequest>,
        ) -> Result<Response<IngestEventResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn ingest_events(
            &self,
            _: Request<IngestEventsRequest>,
        ) -> Result<Response<IngestEventsResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn upload_events(
            &self,
            _: Request<Streaming<UploadEventsRequest>>,
        ) -> Result<Response<UploadEventsResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn get_log(&self, _: Request<GetLogRequest>) -> Result<Response<GetLogResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn sync_clock(
            &self,
            _: Request<SyncClockRequest>,
        ) -> Result<Response<SyncClockResponse>, Status> {
            Err(Status::unimplemented(""))
        }
    }

    /// Sends ten batches, the fifth of them empty; returns their order of acknowledgement, and what the service took.
    async fn sent(
        per_connection: usize,
        end: fn() -> Status,
    ) -> (Result<(), Status>, Vec<usize>, Vec<String>) {
        let service = Breaking { per_connection, log_away: Arc::default(), taken: Arc::default(), end };
        sent_to(service, 2, Duration::from_secs(60)).await
    }

    async fn sent_to(
        service: Breaking,
        size: usize,
        patience: Duration,
    ) -> (Result<(), Status>, Vec<usize>, Vec<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoints::one(&format!("http://{}", listener.local_addr().unwrap()));
        let server = IngestServiceServer::new(service.clone());
        let serving = tonic::transport::Server::builder().add_service(server);
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        let batches = (0..10).map(|tag| {
            let event = |nth| Event { event_name: format!("{tag}.{nth}"), ..Event::default() };
            Batch { events: if tag == 4 { Vec::new() } else { (0..size).map(event).collect() }, tag }
        });
        let mut done = Vec::new();
        let options = Options { import: None, patience };
        let client = Connection::to(endpoint).ingest().unwrap();
        let batches = futures::stream::iter(batches);
        let acknowledged = |batch: Acknowledged<usize>| {
            assert!(batch.exceptions.is_empty(), "{:?}", batch.exceptions);
            done.push(batch.tag);
        };
        let outcome = send(client, options, batches, acknowledged, |_, _| {}).await;
        let taken = service.taken.lock().unwrap().clone();
        (outcome, done, taken)
    }

    #[tokio::test]
    async fn batches_are_acknowledged_once_and_in_order() {
        let (outcome, done, taken) = sent(usize::MAX, || unreachable!()).await;
        outcome.unwrap();
        assert_eq!(done, (0..10).collect::<Vec<_>>());
        assert_eq!(taken.len(), 18);
    }

    #[tokio::test]
    async fn a_broken_connection_costs_neither_batch_nor_order() {
        let (outcome, done, mut taken) = sent(3, || Status::unavailable("gone")).await;
        outcome.unwrap();
        assert_eq!(done, (0..10).collect::<Vec<_>>());
        assert!(taken.len() > 18, "what was not acknowledged is sent again");
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), 18);
    }

    fn with_log_away_for(answers: usize) -> Breaking {
        let log_away = Arc::new(AtomicUsize::new(answers));
        Breaking { per_connection: usize::MAX, log_away, taken: Arc::default(), end: || unreachable!() }
    }

    #[tokio::test]
    async fn what_the_log_could_not_take_is_sent_again_until_it_can() {
        let (outcome, done, taken) = sent_to(with_log_away_for(3), 2, Duration::from_secs(60)).await;
        outcome.unwrap();
        assert_eq!(done, (0..10).collect::<Vec<_>>());
        assert!(taken.len() > 18, "what had failed is sent again");
    }

    #[tokio::test]
    async fn a_log_that_stays_away_ends_it_without_booking_anything() {
        let (outcome, done, _) = sent_to(with_log_away_for(usize::MAX), 2, Duration::ZERO).await;
        assert_eq!(outcome.unwrap_err().message(), "the log is away");
        assert!(done.is_empty(), "{done:?}");
    }

    #[tokio::test]
    async fn a_batch_that_no_credits_will_ever_cover_is_an_error() {
        let (outcome, _, taken) = sent_to(with_log_away_for(0), 7, Duration::from_secs(60)).await;
        let status = outcome.unwrap_err();
        assert!(
            status.message().contains("at most 6") && status.message().contains("stream_credits"),
            "{status}"
        );
        assert!(taken.is_empty());
    }

    #[tokio::test]
    async fn what_no_retry_mends_is_told_at_once() {
        let (outcome, done, _) = sent(3, || Status::permission_denied("no")).await;
        assert_eq!(outcome.unwrap_err().code(), tonic::Code::PermissionDenied);
        assert_eq!(done, [0, 1]);
    }
}
