//! The consumer on a real embedded log: what was sent against what the results add up to, by an oracle of its own.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod exactly_once;
mod fixture;
mod flaky;
mod operation;
mod oracle;
mod wrong_clock;
