//! The producer over real gRPC, on a real embedded log and on one that fails as told.
#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod batches;
mod drain;
mod events;
mod fault_log;
mod faults;
mod rig;
mod streams;
mod uploads;
