//! The consumer's metrics, bound once.

use weir_runtime::{
    Metrics,
    metrics::{Counter, Histogram},
};

use crate::{partition::Landed, settings::Settings};

pub(crate) const SERVICE: &str = "consumer";

/// Bound handles.
#[derive(Debug)]
pub(crate) struct Meters {
    metrics: Metrics,
    processed: Counter,
    duplicate: Counter,
    dead_lettered: Counter,
    duplicates: Counter,
    late: Counter,
    malformed: Counter,
    invalid: Counter,
    /// Decoding, deduplicating and aggregating what was read at once.
    pub(crate) process: Histogram,
    /// Cutting and encoding a micro-batch.
    pub(crate) encode: Histogram,
    append: Histogram,
    log_append: Histogram,
    /// Claiming a partition.
    pub(crate) claim: Histogram,
    /// Rebuilding the deduplication window.
    pub(crate) rebuild: Histogram,
}

impl Meters {
    pub(crate) fn new(metrics: Metrics, settings: &Settings) -> Self {
        let events = |outcome| metrics.events_processed(SERVICE, &settings.events, outcome);
        let stage = |stage| metrics.event_processing_duration(SERVICE, stage);
        Self {
            processed: events("processed"),
            duplicate: events("duplicate"),
            dead_lettered: events("dead_lettered"),
            duplicates: metrics.duplicates_suppressed(SERVICE),
            late: metrics.late_events(SERVICE),
            malformed: metrics.dlq_events(SERVICE, "malformed"),
            invalid: metrics.dlq_events(SERVICE, "invalid"),
            process: stage("process"),
            encode: stage("encode"),
            append: stage("append"),
            log_append: metrics.log_append_duration(SERVICE, &settings.metrics),
            claim: stage("claim"),
            rebuild: stage("rebuild"),
            metrics,
        }
    }

    /// A micro-batch became durable.
    pub(crate) fn landed(&self, landed: &Landed) {
        self.processed.inc_by(landed.tally.counted);
        self.duplicate.inc_by(landed.tally.duplicates);
        self.dead_lettered.inc_by(landed.tally.dead_lettered);
        self.duplicates.inc_by(landed.tally.duplicates);
        self.late.inc_by(landed.tally.late);
        self.malformed.inc_by(landed.malformed);
        self.invalid.inc_by(landed.invalid);
        self.append.observe(landed.took.as_secs_f64());
        self.log_append.observe(landed.took.as_secs_f64());
    }

    /// Something went wrong. It is rare, so nothing is bound.
    pub(crate) fn error(&self, kind: &str) {
        self.metrics.errors(SERVICE, kind).inc();
    }

    /// How far a partition is behind.
    pub(crate) fn lag(&self, topic: &str, partition: u32, events: u64, seconds: f64) {
        let partition = partition.to_string();
        self.metrics.kafka_consumer_lag(topic, &partition).set(i64::try_from(events).unwrap_or(i64::MAX));
        self.metrics.consumer_lag(topic, &partition).set(seconds);
    }

    /// The partition is no longer ours.
    pub(crate) fn forget_lag(&self, topic: &str, partition: u32) {
        let partition = partition.to_string();
        for name in ["kafka_consumer_lag_total", "consumer_lag_seconds"] {
            self.metrics.forget(name, &[topic, &partition]);
        }
    }
}
