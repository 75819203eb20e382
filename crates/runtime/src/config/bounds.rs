//! What a process may hold in memory at most, by budget: each has a key, and their sum is printed by `weir config`.

use super::{Config, LogKind};

/// A budget of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The key that sets it.
    pub key: &'static str,
    /// What it holds.
    pub holds: &'static str,
    /// Bytes at most, all instances of it in a process that runs every service.
    pub bytes: u64,
}

/// Bytes that an event id takes in the table of those that were seen, at most.
const DEDUP_ENTRY: u64 = 20;

impl Config {
    /// The budgets of a process that runs every service. Their sum is what requests and readers can make it hold beyond what it has when
    /// idle.
    pub fn memory_bounds(&self) -> Vec<Bound> {
        let Self { log, producer, analytics, server, store, .. } = self;
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let bound = |key, holds, bytes| Bound { key, holds, bytes };
        let mut bounds = vec![
            bound("server.request_memory_bytes", "requests in progress", bytes(server.request_memory_bytes)),
            bound(
                "producer.max_in_flight_bytes",
                "events that are not durable yet",
                bytes(producer.max_in_flight_bytes),
            ),
            bound("store.max_hot_bytes", "events that are not in segments yet", bytes(store.max_hot_bytes)),
            bound("store.flush_bytes", "segments that are being written", self.flushing()),
            bound("store.compaction_bytes", "segments that are being merged", bytes(store.compaction_bytes)),
            bound(
                "analytics.query_memory_bytes",
                "questions about events",
                bytes(analytics.query_memory_bytes),
            ),
            bound("analytics.cache_bytes", "answers that are kept", analytics.cache_bytes),
            bound(
                "analytics.export_buffer_bytes",
                "exports that wait for readers",
                bytes(analytics.export_buffer_bytes),
            ),
            bound(
                "analytics.watch_buffer_bytes",
                "live events that wait for readers",
                bytes(analytics.watch_buffer_bytes),
            ),
        ];
        if log.kind == LogKind::Embedded {
            let pending = bytes(log.embedded.max_pending_bytes);
            bounds.push(bound("log.embedded.max_pending_bytes", "appends that wait for the disk", pending));
        }
        bounds
    }

    /// What grows with the number of events and not with requests: the ids of those of the deduplication window. Bytes at most.
    pub fn dedup_bytes(&self) -> u64 {
        let events = u64::try_from(self.consumer.dedup_max_events).unwrap_or(u64::MAX);
        events.saturating_mul(DEDUP_ENTRY).saturating_mul(self.topics.partitions.into())
    }

    /// Every partition may be writing a segment, of at most half of its share of the events in memory.
    fn flushing(&self) -> u64 {
        let partitions = u64::from(self.topics.partitions).max(1);
        let share = (self.store.max_hot_bytes as u64) / partitions / 2;
        partitions.saturating_mul(share.min(self.store.flush_bytes as u64))
    }
}

/// The budgets of a configuration as a table in comments of TOML, with their sum.
pub fn memory_table(config: &Config) -> String {
    const MIB: f64 = (1_u64 << 20) as f64;
    let line = |key: &str, bytes: u64, holds: &str| {
        let mib = bytes as f64 / MIB;
        format!("#   {key:<34} {mib:>9.1} MiB   {holds}\n")
    };
    let bounds = config.memory_bounds();
    let mut table = String::from(
        "\n# Memory bounds: what a process with all services holds at most beyond what it has when idle.\n",
    );
    bounds.iter().for_each(|bound| table.push_str(&line(bound.key, bound.bytes, bound.holds)));
    let sum = bounds.iter().map(|bound| bound.bytes).fold(0, u64::saturating_add);
    table.push_str(&line("sum", sum, ""));
    table.push_str("# Beside it, what grows with the events of the last consumer.dedup_window:\n");
    table.push_str(&line("consumer.dedup_max_events", config.dedup_bytes(), "ids of events, at most"));
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn by_default_the_budgets_come_to_less_than_half_a_gigabyte() {
        let config = Config::load(Sources::default()).unwrap();
        let sum: u64 = config.memory_bounds().iter().map(|bound| bound.bytes).sum();
        assert!(sum < 512 << 20, "{} MiB: {:#?}", sum >> 20, config.memory_bounds());
    }
}
