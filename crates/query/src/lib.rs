//! Questions about events, answered from the events themselves: series, breakdowns, funnels, retention, paths, users, SQL.
//!
//! - [`filter`] and [`measure`] are what questions are made of, [`formula`] combines measures;
//! - [`fold`] holds what a user's events tell, as pure functions of these events in order;
//! - [`engine`] runs a question: DataFusion scans, filters and projects the events of a [`Events`] table on threads of the engine's
//!   own, and a *sink* per stream takes the batches up. Whatever needs a user's events together is partitioned by the user's
//!   hash, sorted (stored events are: merging their runs is all there is to do) and folded;
//! - a module for each kind of question.
//!
//! Deliberately not here: the choice between rollups and events, RPCs, caching; and no I/O besides the scan.

pub mod buckets;
mod deadline;
pub mod engine;
mod error;
pub mod events;
pub mod export;
pub mod fields;
pub mod filter;
pub mod fold;
pub mod formula;
pub mod funnel;
mod gather;
mod marks;
pub mod measure;
pub mod names;
pub mod paths;
mod pile;
mod recent;
pub mod retention;
mod rows;
mod scan;
pub mod series;
pub mod sql;
mod texts;
pub mod user;

pub use engine::Engine;
pub use error::Error;
pub use events::Events;
pub use gather::Actor;
pub use rows::Rows;
pub use texts::Values;
