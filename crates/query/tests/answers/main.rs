//! Questions and their answers, on events in memory.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod events;
mod limits;
mod oracle;
mod random;
mod retention;
mod shop;
mod sql;
mod sql_values;
