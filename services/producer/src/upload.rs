//! `UploadEvents`: any number of events, one receipt.
//!
//! Events are gathered in a chunk while the chunk before is being appended, so that memory holds two chunks however long
//! the stream, and nothing is in the log before all that came ahead of it in the stream is.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

use futures::future::{BoxFuture, FutureExt as _};
use tokio::time::Instant;
use tonic::{Status, Streaming};
use weir_log::Offset;
use weir_proto::{
    event::v1::Event,
    ingest::v1::{EventResult, InstallSequence, UploadEventsRequest, UploadEventsResponse},
    token,
};
use weir_runtime::clock::now_micros;

use crate::{
    append::{Pressure, Settled},
    batch::{Outcome, Place, Seen},
    clock::Arrival,
    error::Error,
    service::Core,
    valid::Incoming,
};

/// Events of a chunk; as large as a batch may be.
const CHUNK_EVENTS: usize = 1000;
/// Bytes of a chunk, one event more or less.
const CHUNK_BYTES: usize = 1 << 20;
/// Ids that a stream remembers to drop duplicates: the last 64 Ki at least, 5 MiB at most.
const SEEN: usize = 1 << 16;
/// Rejected events in a receipt.
const MAX_ERRORS: usize = 100;
/// Installs in a receipt.
const MAX_INSTALLS: usize = 10_000;

/// Reads the stream to its end and appends it.
pub(crate) async fn run(
    core: &Core,
    mut requests: Streaming<UploadEventsRequest>,
    mut arrival: Arrival,
    deadline: Option<Instant>,
) -> Result<UploadEventsResponse, Status> {
    let partitions = core.appender.partitions(deadline).await?;
    let stopping = core.shutdown.requested();
    tokio::pin!(stopping);
    let (mut receipt, mut seen) = (Receipt::default(), Seen::new(SEEN));
    let (mut chunk, mut open) = (Chunk::default(), true);
    let mut appending: Option<BoxFuture<'_, Settled>> = None;
    loop {
        if appending.is_none() && !chunk.events.is_empty() {
            let Chunk { events, .. } = mem::take(&mut chunk);
            arrival.receive_micros = now_micros();
            let batch = core.admit(events, Place::Single, partitions, &mut arrival, &mut seen);
            appending = Some(core.appender.append(batch, Pressure::Wait, deadline).boxed());
        }
        tokio::select! {
            settled = async { appending.as_mut().expect("a branch with a condition").await },
                if appending.is_some() =>
            {
                appending = None;
                receipt.add(settled)?;
            }
            message = requests.message(), if open && !chunk.is_full() => match message? {
                // A message without an event counts, and is rejected for what it lacks.
                Some(request) => {
                    let event = request.event.unwrap_or_default();
                    receipt.receive(&event);
                    chunk.push(event.into());
                }
                None => open = false,
            },
            () = &mut stopping, if open => {
                // What is under way is finished, but there is no telling how long the stream would go on.
                if let Some(last) = appending {
                    last.await;
                }
                return Err(Error::Draining.into());
            }
            else => return Ok(receipt.finish()),
        }
    }
}

#[derive(Debug, Default)]
struct Chunk {
    events: Vec<Incoming>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, event: Incoming) {
        self.bytes += event.bytes;
        self.events.push(event);
    }

    fn is_full(&self) -> bool {
        self.events.len() >= CHUNK_EVENTS || self.bytes >= CHUNK_BYTES
    }
}

/// The receipt as it grows. It is given only when everything before its end is settled, so that what was received may count
/// as such.
#[derive(Debug, Default)]
struct Receipt {
    received: u64,
    settled: usize,
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    errors: Vec<EventResult>,
    offsets: BTreeMap<u32, Offset>,
    installs: HashMap<String, u64>,
}

impl Receipt {
    /// Notes an event's place in the stream and within its install.
    fn receive(&mut self, event: &Event) {
        self.received += 1;
        if event.sequence == 0 || event.install_id.is_empty() {
            return;
        }
        if let Some(last) = self.installs.get_mut(&event.install_id) {
            // After a gap the install has to resume where it opens.
            if last.checked_add(1) == Some(event.sequence) {
                *last = event.sequence;
            }
        } else if self.installs.len() < MAX_INSTALLS {
            self.installs.insert(event.install_id.clone(), event.sequence);
        }
    }

    /// Adds what became of a chunk.
    fn add(&mut self, settled: Settled) -> Result<(), Status> {
        for outcome in settled.outcomes {
            match outcome {
                Outcome::Accepted(_) => self.accepted += 1,
                Outcome::Duplicate(_) => self.duplicates += 1,
                Outcome::Rejected(_) => {
                    self.rejected += 1;
                    if self.errors.len() < MAX_ERRORS {
                        self.errors.push(outcome.into_result(self.settled));
                    }
                }
                // What comes later in the stream must not get ahead of it.
                Outcome::Failed(_, status) => return Err(status),
            }
            self.settled += 1;
        }
        self.offsets.extend(settled.offsets);
        Ok(())
    }

    fn finish(self) -> UploadEventsResponse {
        let mut last_sequences: Vec<_> = self
            .installs
            .into_iter()
            .map(|(install_id, sequence)| InstallSequence { install_id, sequence })
            .collect();
        last_sequences.sort_unstable_by(|a, b| a.install_id.cmp(&b.install_id));
        UploadEventsResponse {
            received: self.received,
            accepted: self.accepted,
            duplicates: self.duplicates,
            rejected: self.rejected,
            errors: self.errors,
            last_sequences,
            consistency_token: token::encode(&self.offsets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_stop_at_the_first_gap() {
        let mut receipt = Receipt::default();
        for (install, sequence) in
            [("a", 5), ("b", 1), ("a", 6), ("a", 6), ("a", 8), ("a", 0), ("", 9), ("b", 2)]
        {
            receipt.receive(&Event { install_id: install.into(), sequence, ..Event::default() });
        }
        let response = receipt.finish();
        let sequences: Vec<_> =
            response.last_sequences.iter().map(|i| (i.install_id.as_str(), i.sequence)).collect();
        assert_eq!(sequences, [("a", 6), ("b", 2)]);
        assert_eq!(response.received, 8);
    }
}
