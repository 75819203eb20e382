//! From the events of a request to records, grouped by partition: validated, without duplicates, encoded once.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use tonic::Status;
use uuid::Uuid;
use weir_log::Record;
use weir_proto::{
    ingest::v1::{EventResult, event_result},
    validate::{Path, Violations},
};
use weir_runtime::{status, trace};

use crate::{
    clock::{Arrival, Clocks},
    error::to_proto,
    partition::partition,
    recent::Recent,
    valid::{Incoming, Rules, ValidEvent},
};

/// What `EventRecord`, a generated id and the key add to an event, generously: for sizing the buffer of a batch.
const RECORD_OVERHEAD: usize = 128;

/// The ids seen lately in a request or stream.
pub(crate) type Seen = Recent<Uuid, ()>;

/// Turns events into batches. Pure but for the clocks that it remembers and the ids that it generates.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) rules: Rules,
    pub(crate) clocks: Clocks,
}

/// Where the events stand in their request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// One, in the field `event`.
    Single,
    /// In the list `events`.
    List,
}

/// What became of one event so far.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It is on its way to the log, or there.
    Accepted(Uuid),
    /// The id came before.
    Duplicate(Uuid),
    /// It breaks a rule.
    Rejected(Status),
    /// The log did not take it, or it is unknown whether it did.
    Failed(Uuid, Status),
}

impl Outcome {
    /// As answers tell it.
    pub(crate) fn into_result(self, index: usize) -> EventResult {
        use event_result::Outcome as Kind;
        let (id, kind, error) = match self {
            Self::Accepted(id) => (Some(id), Kind::Accepted, None),
            Self::Duplicate(id) => (Some(id), Kind::Duplicate, None),
            Self::Rejected(error) => (None, Kind::Rejected, Some(error)),
            Self::Failed(id, error) => (Some(id), Kind::Rejected, Some(error)),
        };
        EventResult {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            event_id: id.map(|id| id.to_string()).unwrap_or_default(),
            outcome: kind.into(),
            error: error.as_ref().map(to_proto),
        }
    }
}

/// Records for one partition.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// For each record the place of its event in [`Batch::outcomes`].
    pub(crate) indices: Vec<usize>,
    /// In the order of the request.
    pub(crate) records: Vec<Record>,
}

/// Events ready for the log.
#[derive(Debug)]
pub(crate) struct Batch {
    /// What became of each event, in the order of the request.
    pub(crate) outcomes: Vec<Outcome>,
    /// By partition; those without records are empty.
    pub(crate) groups: Vec<Group>,
    /// Size of keys and values.
    pub(crate) bytes: usize,
}

impl Intake {
    /// Takes in the events of one request. Those whose id is among `seen` are duplicates; the ids of the others are added.
    pub(crate) fn admit(
        &self,
        events: Vec<Incoming>,
        place: Place,
        partitions: u32,
        arrival: &mut Arrival,
        seen: &mut Seen,
    ) -> Batch {
        // One allocation for all records of the request, which they share.
        let size = events.iter().map(|event| event.bytes + RECORD_OVERHEAD).sum();
        let mut buffer = BytesMut::with_capacity(size);
        let mut batch = Batch {
            outcomes: Vec::with_capacity(events.len()),
            groups: std::iter::repeat_with(Group::default).take(partitions as usize).collect(),
            bytes: 0,
        };
        let list = Path::ROOT.field("events");
        for (index, event) in events.into_iter().enumerate() {
            let at = match place {
                Place::Single => Path::ROOT.field("event"),
                Place::List => list.index(index),
            };
            let outcome = match ValidEvent::new(event, &at, &self.rules, &self.clocks, arrival) {
                Err(violations) => Outcome::Rejected(invalid(violations)),
                Ok(valid) if !valid.is_new() && seen.remember(valid.id(), ()).1 => {
                    Outcome::Duplicate(valid.id())
                }
                Ok(valid) => {
                    let record = encode(&valid, &mut buffer, arrival.trace.as_ref());
                    let group = &mut batch.groups[partition(&record.key, partitions) as usize];
                    batch.bytes += record.key.len() + record.value.len();
                    group.indices.push(index);
                    group.records.push(record);
                    Outcome::Accepted(valid.id())
                }
            };
            batch.outcomes.push(outcome);
        }
        batch
    }
}

fn encode(event: &ValidEvent, buffer: &mut BytesMut, trace: Option<&Bytes>) -> Record {
    event.record().encode(buffer).expect("the buffer grows");
    let value = buffer.split().freeze();
    buffer.put_slice(event.key().as_bytes());
    let key = buffer.split().freeze();
    let headers = trace.map(|trace| (trace::TRACEPARENT.to_owned(), trace.clone())).into_iter().collect();
    Record { key, value, headers }
}

/// `INVALID_ARGUMENT` naming the fields.
pub(crate) fn invalid(violations: Violations) -> Status {
    status::invalid_argument(violations)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_proto::event::v1::{Event, EventRecord};
    use weir_runtime::auth::ProjectId;

    use super::*;

    fn intake() -> Intake {
        let day = Duration::from_secs(86_400);
        Intake {
            rules: Rules {
                max_event_bytes: 65_536,
                max_past: 30 * day,
                max_future: day,
                allow_placeholders: false,
            },
            clocks: Clocks::new(),
        }
    }

    fn event(user: &str, id: &str) -> Event {
        Event { event_name: "e".into(), user_id: user.into(), event_id: id.into(), ..Event::default() }
    }

    fn admit(events: Vec<Event>, seen: &mut Seen) -> Batch {
        let mut arrival = Arrival {
            trace: Some(Bytes::from_static(b"00-a-b-01")),
            ..Arrival::at(ProjectId::default_project(), 1_700_000_000_000_000)
        };
        let events = events.into_iter().map(Incoming::from).collect();
        intake().admit(events, Place::List, 3, &mut arrival, seen)
    }

    const ID: &str = "019a3c5e-7d2b-7c41-9f0a-3b5d8e6f1a27";

    #[test]
    fn events_of_a_user_keep_their_order_in_one_partition() {
        let events = (0..300).map(|n| Event { sequence: n, ..event(&format!("u{}", n % 7), "") });
        let batch = admit(events.collect(), &mut Seen::new(1000));
        assert_eq!(batch.groups.len(), 3);
        let mut bytes = 0;
        for (number, group) in (0..).zip(&batch.groups) {
            assert!(group.indices.is_sorted());
            for (record, &index) in group.records.iter().zip(&group.indices) {
                let decoded = EventRecord::decode(record.value.clone()).unwrap().event.unwrap();
                assert_eq!(decoded.sequence, index as u64);
                assert_eq!(decoded.user_id.as_bytes(), record.key);
                assert_eq!(partition(&record.key, 3), number);
                assert_eq!(record.headers[0].0, "traceparent");
                bytes += record.key.len() + record.value.len();
            }
        }
        assert_eq!(batch.bytes, bytes);
        assert_eq!(batch.groups.iter().map(|g| g.records.len()).sum::<usize>(), 300);
    }

    #[test]
    fn an_id_is_taken_once_whatever_its_case() {
        let mut seen = Seen::new(1000);
        let batch = admit(vec![event("a", ID), event("b", &ID.to_uppercase()), event("a", "")], &mut seen);
        assert!(matches!(
            batch.outcomes.as_slice(),
            [Outcome::Accepted(_), Outcome::Duplicate(_), Outcome::Accepted(_)]
        ));
        let again = admit(vec![event("a", ID)], &mut seen);
        assert!(matches!(again.outcomes.as_slice(), [Outcome::Duplicate(_)]), "remembered through a stream");
    }

    #[test]
    fn a_bad_event_fails_alone_and_blocks_no_id() {
        let bad = Event { event_name: String::new(), ..event("a", ID) };
        let batch = admit(vec![event("a", ""), bad, event("a", ID)], &mut Seen::new(1000));
        let [Outcome::Accepted(_), Outcome::Rejected(error), Outcome::Accepted(_)] =
            batch.outcomes.as_slice()
        else {
            panic!("{:?}", batch.outcomes)
        };
        assert_eq!(error.message(), "events[1].event_name: must not be empty");
        let result = batch.outcomes[1].clone().into_result(1);
        assert_eq!(result.error.unwrap().details.len(), 2, "ErrorInfo and BadRequest");
    }
}
