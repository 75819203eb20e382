//! What a partition shows of itself.

use weir_log::Offset;
use weir_proto::{processing::v1::partition_status::State, rollup::v1::Tally};
use weir_store::Writer;

use crate::sink::{Events, Rollups};

/// The state of one owned partition, as its thread last said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    /// Stage.
    pub(crate) state: State,
    /// Next source offset to be read; while rebuilding how far that has come.
    pub(crate) position: Offset,
    /// How far each sink has come.
    pub(crate) sinks: Vec<Progress>,
    /// Every record that the log took before this moment is counted; microseconds since the Unix epoch.
    pub(crate) watermark_micros: i64,
    /// Of all batches that became durable since the partition was assigned.
    pub(crate) tally: Tally,
    /// More about the state.
    pub(crate) detail: String,
}

impl Default for View {
    fn default() -> Self {
        Self {
            state: State::Claiming,
            position: 0,
            sinks: Vec::new(),
            watermark_micros: 0,
            tally: Tally::default(),
            detail: String::new(),
        }
    }
}

impl View {
    /// The source offset up to which queries see every sink's output.
    pub(crate) fn next_offset(&self) -> Option<Offset> {
        self.sinks.iter().map(|sink| sink.next).min()
    }
}

/// How far a sink has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Its name.
    pub(crate) sink: &'static str,
    /// The source offset after the last one whose output queries see.
    pub(crate) next: Offset,
    /// The source offset after the last one whose output is durable.
    pub(crate) durable: Offset,
}

impl Progress {
    /// Rollups are seen once they are durable.
    pub(crate) fn rollups(next: Offset) -> Self {
        Self { sink: Rollups::NAME, next, durable: next }
    }

    /// Events are seen at once.
    pub(crate) fn store(writer: &Writer) -> Self {
        Self { sink: Events::NAME, next: writer.next_offset(), durable: writer.status().durable }
    }
}
