//! The event store.

pub mod schema;
