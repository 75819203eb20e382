//! The storage half of the store, from outside: nothing lost, nothing twice, whoever writes, dies, compacts or reads meanwhile.
//!
//! Every test runs on a local folder and on an S3-compatible server.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod chain;
mod depot;
mod fixture;
mod open_data;
mod reader;
mod suspended;
mod upkeep;
mod writer;
