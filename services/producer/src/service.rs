//! The RPCs.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;
use weir_log::EventLog;
use weir_proto::{
    event::v1::Event,
    ingest::v1::{
        GetLogRequest, GetLogResponse, IngestEventRequest, IngestEventResponse, IngestEventsRequest,
        IngestEventsResponse, StreamEventsRequest, StreamEventsResponse, SyncClockRequest, SyncClockResponse,
        UploadEventsRequest, UploadEventsResponse, event_result, ingest_service_server::IngestService,
    },
    time::timestamp,
    token,
    validate::{Path, Validate as _, Violations},
};
use weir_runtime::{
    Context, Shutdown,
    auth::{Principal, Scope},
    clock::now_micros,
    config,
    config::PlaceholderIds,
    metrics::{Gauge, Histogram},
    server::Deadline,
    status::{Reason, invalid_argument},
    trace::{TRACEPARENT, TraceContext},
};

use crate::{
    SERVICE,
    append::{Appender, Pressure, Settled},
    batch::{Batch, Intake, Outcome, Place, Seen, invalid},
    clock::{Arrival, Clocks},
    error::Error,
    stream, upload,
    valid::{Incoming, Rules},
};

/// Metadata key of requests whose events belong to an import: they may be as old as they like and are never late.
const IMPORT: &str = "weir-import";

/// The producer's RPCs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    pub(crate) core: Arc<Core>,
}

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: config::Producer,
    pub(crate) appender: Appender,
    pub(crate) shutdown: Shutdown,
    intake: Intake,
    streams: Arc<Semaphore>,
    metrics: weir_runtime::Metrics,
    admit_duration: Histogram,
}

/// A long-lived call's place among those allowed at once.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    _permit: OwnedSemaphorePermit,
    gauge: Gauge,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Ingest {
    /// Over a log whose events topic exists, or will: until then calls are answered `UNAVAILABLE`.
    pub fn new(context: &Context, log: Arc<dyn EventLog>) -> Self {
        let config = context.config.producer.clone();
        let core = Core {
            appender: Appender::new(log, &context.config.topics.events, &config, &context.metrics),
            intake: Intake {
                rules: Rules {
                    max_event_bytes: config.max_event_bytes,
                    max_past: config.max_past,
                    max_future: config.max_future,
                    allow_placeholders: config.placeholder_ids == PlaceholderIds::Allow,
                },
                clocks: Clocks::new(),
            },
            streams: Arc::new(Semaphore::new(config.max_streams.min(Semaphore::MAX_PERMITS))),
            shutdown: context.shutdown.clone(),
            metrics: context.metrics.clone(),
            admit_duration: context.metrics.event_processing_duration(SERVICE, "admit"),
            config,
        };
        Self { core: Arc::new(core) }
    }
}

impl Core {
    /// What the metadata says about a call, now.
    ///
    /// # Errors
    /// When it marks the call as an import in a way that is none, or the caller may not import.
    pub(crate) fn arrival<T>(&self, request: &Request<T>) -> Result<Arrival, Status> {
        let (metadata, principal) = (request.metadata(), Principal::of(request)?);
        let import = metadata.get(IMPORT).map(|value| import(value.as_bytes())).transpose()?.flatten();
        let import = import.filter(|_| self.config.allow_import);
        if import.is_some() && !principal.scopes.contains(Scope::EventsImport) {
            let message = "importing needs the scope events:import; use a credential that has it, or leave out weir-import";
            return Err(Reason::ScopeMissing.error(message).with("scope", "events:import").into());
        }
        // Only a trace that a caller follows travels on: a header a record is a fifth of a small event.
        let trace = metadata.get(TRACEPARENT).and_then(|_| request.extensions().get::<TraceContext>());
        let trace = trace.map(|trace| Bytes::from(trace.to_string()));
        Ok(Arrival { import, trace, ..Arrival::at(principal.project.clone(), now_micros()) })
    }

    /// Validates and encodes.
    pub(crate) fn admit(
        &self,
        events: Vec<Incoming>,
        place: Place,
        partitions: u32,
        arrival: &mut Arrival,
        seen: &mut Seen,
    ) -> Batch {
        let _timer = self.admit_duration.start_timer();
        self.intake.admit(events, place, partitions, arrival, seen)
    }

    /// Validates, encodes and appends one request.
    async fn ingest(
        &self,
        events: Vec<Incoming>,
        place: Place,
        mut arrival: Arrival,
        deadline: Option<Instant>,
    ) -> Result<Settled, Status> {
        let partitions = self.appender.partitions(deadline).await?;
        let mut seen = Seen::new(events.len().max(1));
        let batch = self.admit(events, place, partitions, &mut arrival, &mut seen);
        let settled = self.appender.append(batch, Pressure::Refuse, deadline).await;
        match settled.failure {
            Some(error) => Err(error.into()),
            None => Ok(settled),
        }
    }

    /// Checks the size of a batch, which is refused or taken up as a whole.
    pub(crate) fn weigh(&self, events: Vec<Event>) -> Result<Vec<Incoming>, Status> {
        let (count, limit) = (events.len(), self.config.max_batch_events);
        if count > limit {
            let mut found = Violations::default();
            found.add(
                &Path::ROOT.field("events"),
                format_args!("must have at most {limit} items, has {count}"),
            );
            return Err(invalid(found));
        }
        let events: Vec<_> = events.into_iter().map(Incoming::from).collect();
        let bytes: usize = events.iter().map(|event| event.bytes).sum();
        let limit = self.config.max_batch_bytes;
        if bytes > limit {
            let message =
                format!("the events have {bytes} bytes together, at most {limit} are accepted; send fewer");
            return Err(Reason::BodyTooLarge.status(message));
        }
        Ok(events)
    }

    /// A place for a call that may last.
    pub(crate) fn open_stream(&self, kind: &str) -> Result<StreamPlace, Error> {
        if self.shutdown.is_requested() {
            return Err(Error::Draining);
        }
        let limit = self.config.max_streams;
        let permit = self.streams.clone().try_acquire_owned().map_err(|_| Error::TooManyStreams { limit })?;
        let gauge = self.metrics.active_streams(SERVICE, kind);
        gauge.inc();
        Ok(StreamPlace { _permit: permit, gauge })
    }
}

/// What the metadata [`IMPORT`] says: the import's identifier, nil for one without.
fn import(value: &[u8]) -> Result<Option<Uuid>, Status> {
    match value {
        b"true" => Ok(Some(Uuid::nil())),
        b"false" | b"" => Ok(None),
        id => Uuid::try_parse_ascii(id)
            .map(Some)
            .map_err(|_| invalid_argument([(IMPORT, "must be `true` or the UUID of the import")])),
    }
}

/// When the caller stops waiting, if it said so.
pub(crate) fn deadline<T>(request: &Request<T>) -> Option<Instant> {
    request.extensions().get::<Deadline>().map(|deadline| deadline.at)
}

#[tonic::async_trait]
impl IngestService for Ingest {
    async fn ingest_event(
        &self,
        request: Request<IngestEventRequest>,
    ) -> Result<Response<IngestEventResponse>, Status> {
        let (arrival, deadline) = (self.core.arrival(&request)?, deadline(&request));
        let request = request.into_inner();
        let Some(event) = request.event else {
            return Err(invalid(request.validate().expect_err("the schema requires the event")));
        };
        let mut settled = self.core.ingest(vec![event.into()], Place::Single, arrival, deadline).await?;
        match settled.outcomes.pop().expect("an outcome for each event") {
            Outcome::Accepted(id) | Outcome::Duplicate(id) => Ok(Response::new(IngestEventResponse {
                event_id: id.to_string(),
                consistency_token: token::encode(&settled.offsets),
            })),
            Outcome::Rejected(status) | Outcome::Failed(_, status) => Err(status),
        }
    }

    async fn ingest_events(
        &self,
        request: Request<IngestEventsRequest>,
    ) -> Result<Response<IngestEventsResponse>, Status> {
        let (arrival, deadline) = (self.core.arrival(&request)?, deadline(&request));
        let request = request.into_inner();
        request.validate().map_err(invalid)?;
        let events = self.core.weigh(request.events)?;
        let settled = self.core.ingest(events, Place::List, arrival, deadline).await?;
        let mut response = IngestEventsResponse {
            consistency_token: token::encode(&settled.offsets),
            ..IngestEventsResponse::default()
        };
        for (index, outcome) in settled.outcomes.into_iter().enumerate() {
            let result = outcome.into_result(index);
            match result.outcome() {
                event_result::Outcome::Accepted => response.accepted += 1,
                event_result::Outcome::Duplicate => response.duplicates += 1,
                event_result::Outcome::Rejected | event_result::Outcome::Unspecified => {
                    response.rejected += 1
                }
            }
            response.results.push(result);
        }
        Ok(Response::new(response))
    }

    async fn upload_events(
        &self,
        request: Request<Streaming<UploadEventsRequest>>,
    ) -> Result<Response<UploadEventsResponse>, Status> {
        let _place = self.core.open_stream("upload").inspect_err(|error| self.core.appender.count(error))?;
        let (arrival, deadline) = (self.core.arrival(&request)?, deadline(&request));
        upload::run(&self.core, request.into_inner(), arrival, deadline).await.map(Response::new)
    }

    type StreamEventsStream = BoxStream<'static, Result<StreamEventsResponse, Status>>;

    async fn stream_events(
        &self,
        request: Request<Streaming<StreamEventsRequest>>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let place = self.core.open_stream("stream").inspect_err(|error| self.core.appender.count(error))?;
        let (arrival, deadline) = (self.core.arrival(&request)?, deadline(&request));
        Ok(Response::new(stream::run(self.core.clone(), request.into_inner(), arrival, deadline, place)))
    }

    async fn get_log(&self, request: Request<GetLogRequest>) -> Result<Response<GetLogResponse>, Status> {
        Ok(Response::new(self.core.appender.describe(deadline(&request)).await?))
    }

    async fn sync_clock(
        &self,
        request: Request<SyncClockRequest>,
    ) -> Result<Response<SyncClockResponse>, Status> {
        let receive_time = Some(timestamp(now_micros()));
        let request = request.into_inner();
        request.validate().map_err(invalid)?;
        let (client_time, transmit_time) = (request.client_time, Some(timestamp(now_micros())));
        Ok(Response::new(SyncClockResponse { client_time, receive_time, transmit_time }))
    }
}
