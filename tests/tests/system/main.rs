//! Whole-system tests: real processes, a real Kafka, real data. One module a behaviour.

mod answers;
mod bad_input;
mod bad_questions;
mod bounds;
mod gaps;
mod imports;
mod isolation;
mod kill;
mod log_conformance;
mod outcomes;
mod streams;
mod values;
