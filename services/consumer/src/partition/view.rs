//! What a partition shows of itself.

use weir_log::Offset;
use weir_proto::{processing::v1::partition_status::State, rollup::v1::Tally};

/// The state of one owned partition, as its thread last said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    /// Stage.
    pub(crate) state: State,
    /// Next source offset to be read; while rebuilding how far that has come.
    pub(crate) position: Offset,
    /// By sink the source offset after the last one whose output is durable.
    pub(crate) sinks: Vec<(&'static str, Offset)>,
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
    /// The source offset up to which every sink's output is durable.
    pub(crate) fn next_offset(&self) -> Option<Offset> {
        self.sinks.iter().map(|(_, next)| *next).min()
    }
}
