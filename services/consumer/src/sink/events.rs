//! The sink that keeps the events themselves: they become the rows of the event store.

use std::{sync::Arc, time::Duration};

use weir_log::Offset;
use weir_rollup::watermark;
use weir_store::{
    CleanBatch,
    encode::{Encoder, Row},
};

use super::{Chunk, Lateness, Outcome, Sink};

/// Projects up to which encoders are kept: finding one means looking at all, and each remembers up to some MB of texts. Beyond that they
/// begin anew with each batch, without knowing what is frequent.
const PROJECTS: usize = 64;

/// Turns fresh events into rows, by project.
#[derive(Debug)]
pub struct Events {
    lateness: Lateness,
    /// Start of the batch in the making, and its end so far.
    start: Offset,
    next: Offset,
    watermark_micros: i64,
    /// Whether retention deleted what was before, and nothing follows that would say so to the store.
    has_lost: bool,
    /// Each keeps its encoder from batch to batch, up to [`PROJECTS`] of them.
    projects: Vec<(Arc<str>, Encoder)>,
}

impl Events {
    /// Its name in `processing.v1.SinkStatus`.
    pub const NAME: &str = "store";

    /// Continues at the source offset `next`. An event that reached the log more than `lateness` after its time is late.
    pub fn new(lateness: Duration, next: Offset) -> Self {
        Self {
            lateness: Lateness::new(lateness),
            start: next,
            next,
            watermark_micros: i64::MIN,
            has_lost: false,
            projects: Vec::new(),
        }
    }

    /// Whether there is something to cut.
    pub fn is_pending(&self) -> bool {
        self.next > self.start || self.has_lost
    }

    /// What the rows of the batch in the making take, roughly: bytes.
    pub fn bytes(&self) -> usize {
        self.projects.iter().map(|(_, encoder)| encoder.bytes()).sum()
    }

    /// Cuts the batch in the making off; `None` when there is none.
    pub fn cut(&mut self) -> Option<CleanBatch> {
        if !self.is_pending() {
            return None;
        }
        self.has_lost = false;
        let filled = self.projects.iter_mut().filter(|(_, encoder)| !encoder.is_empty());
        let batch = CleanBatch {
            start: self.start,
            end: self.next,
            watermark_micros: self.watermark_micros,
            events: filled.map(|(project, encoder)| (Arc::clone(project), encoder.finish())).collect(),
        };
        self.start = self.next;
        if self.projects.len() > PROJECTS {
            self.projects.clear();
        }
        Some(batch)
    }

    /// Says that retention deleted the records below `until` before they could be read. What was taken before is cut off first.
    /// Where nothing follows, `log_time_micros` is a moment before which the log has taken everything: the next batch is then one
    /// without events, by which the store learns what it lacks.
    pub fn lose(&mut self, until: Offset, log_time_micros: Option<i64>) {
        debug_assert_eq!(self.next, self.start, "the batch in the making is cut off");
        if until > self.next {
            (self.start, self.next) = (until, until);
            if let Some(log_time_micros) = log_time_micros {
                self.watermark_micros = watermark::advance(self.watermark_micros, log_time_micros);
                self.has_lost = true;
            }
        }
    }

    fn encoder(&mut self, project: &str) -> &mut Encoder {
        let known = self.projects.iter().position(|(known, _)| **known == *project);
        let index = known.unwrap_or_else(|| {
            self.projects.push((project.into(), Encoder::default()));
            self.projects.len() - 1
        });
        &mut self.projects[index].1
    }
}

impl Sink for Events {
    fn next_offset(&self) -> Offset {
        self.next
    }

    fn take(&mut self, chunk: &Chunk<'_>) {
        let first = chunk.records.partition_point(|record| record.offset < self.next);
        for (record, outcome) in chunk.records.iter().zip(&chunk.outcomes).skip(first) {
            let append_micros = record.append_time_ms.saturating_mul(1000);
            self.watermark_micros = watermark::advance(self.watermark_micros, append_micros);
            let Outcome::Fresh(event) = outcome else { continue };
            let (_, late) = self.lateness.of(record, event);
            self.encoder(event.project).push(&Row {
                offset: record.offset,
                late,
                event: *event,
                context: chunk.parts.context(event),
                properties: chunk.parts.properties(event),
            });
        }
        if let Some(last) = chunk.records.last() {
            self.advance(last.offset + 1);
        }
    }

    fn advance(&mut self, next: Offset) {
        self.next = self.next.max(next);
    }
}
