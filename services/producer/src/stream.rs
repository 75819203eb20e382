//! `StreamEvents`: batches in, acknowledgements and credits out, for as long as the connection lasts.
//!
//! Several batches are appended at once, acknowledgements come in the order of the batches. What the reader has not taken
//! yet waits apart from the appends, so that a reader who takes nothing holds none of the bytes that all calls share. Credits
//! bound what a stream may have unacknowledged, and so the memory at both ends: an event takes a credit when it is sent and
//! gives it back when its acknowledgement leaves.

use std::{collections::VecDeque, sync::Arc};

use futures::{
    future::{BoxFuture, FutureExt as _},
    stream::{BoxStream, FuturesOrdered, StreamExt as _},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use weir_proto::{
    ingest::v1::{
        BatchAcknowledgement, CreditGrant, StreamEventsRequest, StreamEventsResponse,
        stream_events_response::Message,
    },
    token,
    validate::Validate as _,
};
use weir_runtime::clock::now_micros;

use crate::{
    append::{Pressure, Settled},
    batch::{Outcome, Place, Seen, invalid},
    clock::Arrival,
    error::Error,
    service::{Core, StreamPlace},
};

/// Responses that may wait for a slow reader; while more do, no batch is read. Those of the batches that were under way by
/// then still come to it, no more than there were credits.
const RESPONSES: usize = 16;

type Responses = mpsc::Sender<Result<StreamEventsResponse, Status>>;

/// Starts the stream's task and returns what flows back.
pub(crate) fn run(
    core: Arc<Core>,
    requests: Streaming<StreamEventsRequest>,
    arrival: Arrival,
    deadline: Option<Instant>,
    place: StreamPlace,
) -> BoxStream<'static, Result<StreamEventsResponse, Status>> {
    let (responses, receiver) = mpsc::channel(RESPONSES);
    let shutdown = core.shutdown.clone();
    shutdown.spawn(async move {
        let _place = place;
        let mut stream =
            Session { credits: Credits::new(core.config.stream_credits), arrival, deadline, core: &core };
        if let Err(status) = stream.serve(requests, &responses).await {
            // Gone readers need no status.
            let _ = responses.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver).boxed()
}

struct Session<'a> {
    core: &'a Core,
    credits: Credits,
    arrival: Arrival,
    deadline: Option<Instant>,
}

impl<'a> Session<'a> {
    /// Reads until the client has no more, it breaks a rule, or the process stops; then settles what is under way. The
    /// reader's going away ends it at once.
    async fn serve(
        &mut self,
        mut requests: Streaming<StreamEventsRequest>,
        responses: &Responses,
    ) -> Result<(), Status> {
        let partitions = self.core.appender.partitions(self.deadline).await?;
        let stopping = self.core.shutdown.requested();
        tokio::pin!(stopping);
        let mut under_way: FuturesOrdered<BoxFuture<'a, (u64, Settled)>> = FuturesOrdered::new();
        let mut end = None;
        let mut waiting: VecDeque<Response> =
            self.credits.grant(true).map(Response::from).into_iter().collect();
        loop {
            tokio::select! {
                Some((batch_id, settled)) = under_way.next(), if !under_way.is_empty() => {
                    let events = settled.outcomes.len();
                    waiting.push_back(Response { message: acknowledge(batch_id, settled), events });
                }
                place = responses.reserve(), if !waiting.is_empty() => {
                    let place = place.map_err(|_| Status::cancelled("the client is gone"))?;
                    let Response { message, events } = waiting.pop_front().expect("a branch with a condition");
                    place.send(Ok(StreamEventsResponse { message: Some(message) }));
                    // Only what the reader has taken brings credits back.
                    self.credits.settle(events);
                    let idle = under_way.is_empty() && waiting.is_empty();
                    // Ahead of what waits: the client goes on sending meanwhile.
                    if let Some(grant) = self.credits.grant(idle) {
                        waiting.push_front(grant.into());
                    }
                }
                message = requests.message(), if end.is_none() && waiting.len() < RESPONSES => match message {
                    Ok(Some(request)) => match self.take(request, partitions) {
                        Ok(batch) => under_way.push_back(batch),
                        Err(status) => end = Some(Err(status)),
                    },
                    Ok(None) => end = Some(Ok(())),
                    // Nobody is there to be told.
                    Err(status) => return Err(status),
                },
                () = &mut stopping, if end.is_none() => end = Some(Err(Error::Draining.into())),
                else => return end.expect("the reading branch is off only when there is an end"),
            }
        }
    }

    /// Starts a batch on its way.
    fn take(
        &mut self,
        request: StreamEventsRequest,
        partitions: u32,
    ) -> Result<BoxFuture<'a, (u64, Settled)>, Status> {
        let core = self.core;
        request.validate().map_err(invalid)?;
        self.credits.spend(request.events.len()).inspect_err(|error| core.appender.count(error))?;
        self.arrival.receive_micros = now_micros();
        let (batch_id, events) = (request.batch_id, core.weigh(request.events)?);
        let mut seen = Seen::new(events.len());
        let batch = core.admit(events, Place::List, partitions, &mut self.arrival, &mut seen);
        let settled = core.appender.append(batch, Pressure::Wait, self.deadline);
        Ok(settled.map(move |settled| (batch_id, settled)).boxed())
    }
}

/// What waits for the reader.
struct Response {
    message: Message,
    /// Events that are done with when it has been taken.
    events: usize,
}

impl From<Message> for Response {
    fn from(message: Message) -> Self {
        Self { message, events: 0 }
    }
}

fn acknowledge(batch_id: u64, settled: Settled) -> Message {
    let mut accepted = 0;
    let mut exceptions = Vec::new();
    for (index, outcome) in settled.outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Accepted(_) => accepted += 1,
            Outcome::Duplicate(_) | Outcome::Rejected(_) | Outcome::Failed(..) => {
                exceptions.push(outcome.into_result(index));
            }
        }
    }
    let consistency_token = token::encode(&settled.offsets);
    Message::Acknowledgement(BatchAcknowledgement { batch_id, accepted, exceptions, consistency_token })
}

/// What a client may still send, in events.
#[derive(Debug)]
struct Credits {
    window: u32,
    granted: u32,
    settled: u32,
}

impl Credits {
    /// All of the window is still to be granted.
    fn new(window: u32) -> Self {
        Self { window, granted: 0, settled: window }
    }

    /// Takes credits for a batch.
    fn spend(&mut self, events: usize) -> Result<(), Error> {
        let left = u32::try_from(events).ok().and_then(|events| self.granted.checked_sub(events));
        self.granted = left.ok_or(Error::CreditsExceeded { events, left: self.granted })?;
        Ok(())
    }

    /// Takes back the credits of a batch that is done with.
    fn settle(&mut self, events: usize) {
        self.settled += u32::try_from(events).expect("spent before");
    }

    /// Grants what came back, in halves of the window so that few messages are needed, or all of it when nothing else is
    /// under way that could bring the rest.
    fn grant(&mut self, all: bool) -> Option<Message> {
        let due = self.settled > 0 && (all || self.settled >= self.window / 2);
        due.then(|| {
            let events = std::mem::take(&mut self.settled);
            self.granted += events;
            Message::Credit(CreditGrant { events })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(message: Option<Message>) -> Option<u32> {
        match message? {
            Message::Credit(grant) => Some(grant.events),
            Message::Acknowledgement(_) => None,
        }
    }

    #[test]
    fn credits_come_back_when_batches_are_settled() {
        let mut credits = Credits::new(1000);
        assert!(credits.spend(1).is_err(), "nothing was granted yet");
        assert_eq!(granted(credits.grant(true)), Some(1000));
        credits.spend(600).unwrap();
        credits.spend(400).unwrap();
        assert!(matches!(credits.spend(1), Err(Error::CreditsExceeded { events: 1, left: 0 })));
        credits.settle(400);
        assert_eq!(granted(credits.grant(false)), None, "less than half");
        credits.settle(600);
        assert_eq!(granted(credits.grant(false)), Some(1000));
        credits.spend(10).unwrap();
        credits.settle(10);
        assert_eq!(granted(credits.grant(true)), Some(10), "nothing else is under way");
        assert_eq!(granted(credits.grant(true)), None);
    }
}
