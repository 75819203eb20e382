//! Questions and their answers, on events in memory.

mod events;
mod limits;
mod random;
mod shop;
mod sql;
