//! The HTTP form of real services over real sockets.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod bodies;
mod errors;
mod files;
#[allow(dead_code, reason = "the tests of the gateway share it")]
mod fixture;
mod forms;
mod hostile;
mod layers;
mod schema;
mod streams;
mod upload;
