//! The transcoder and the gateway over real sockets, in front of real gRPC services.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod bodies;
mod errors;
mod files;
mod fixture;
mod forms;
mod gateway;
mod hostile;
mod layers;
mod schema;
mod streams;
mod upload;
