//! Pure aggregation: what events add up to, and which additions count. No I/O, no clock: time and log order come in as
//! values, so that a replay decides the same.
//!
//! From an event to an answer:
//! - [`field`] names the parts of an event; [`definition`] combines them to rollups, whose list is the [`Catalog`];
//! - [`accumulate`] turns events into mergeable [`cell`]s: counts, [`distinct`] users, [`numeric`] summaries and [`money`],
//!   each in a time bucket of a [`level`];
//! - [`chain`] decides which micro-batches on `metrics-data` count: every source offset exactly once;
//! - [`watermark`] says how far time has come, also when a clock was wrong;
//! - [`imports`] tells what became of the records of an import;
//! - [`calendar`] finds the buckets of a local day, week or month, and the cells that cover a range exactly.
//!
//! Everything that merges is a monoid: associative, commutative, with an empty element. The wire format is
//! [`weir_proto::rollup::v1`].
//!
//! Deliberately not here: reading events, deduplication (a matter of the log) and the store of materialised cells.
//!
//! [`Catalog`]: definition::Catalog

pub mod accumulate;
pub mod calendar;
pub mod cell;
pub mod chain;
pub mod cover;
mod currency;
pub mod definition;
pub mod distinct;
mod error;
mod estimate;
pub mod field;
pub mod imports;
pub mod level;
pub mod money;
pub mod numeric;
pub mod tally;
pub mod watermark;

pub use error::Error;
pub use estimate::Estimate;
