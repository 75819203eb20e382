//! Power cuts, full disks and failing disks, over the log and the store as they run in production.
//!
//! A workload runs once on a disk that records; then the power is cut at any of its operations, what may be left on the disk is
//! opened by the same code, and the oracle compares it with what had been acknowledged. `make verify-crash` does that at length.

#![allow(clippy::unwrap_used, reason = "a panic with the error in it is how these tests fail")]

mod cuts;
mod history;
mod oracle;
mod planted;
mod rooms;
mod states;
mod system;
mod workload;
