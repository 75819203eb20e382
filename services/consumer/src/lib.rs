//! The consumer service: deduplicates, aggregates and emits micro-batches.
