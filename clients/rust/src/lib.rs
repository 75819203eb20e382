//! Weir's client for Rust.
//!
//! A [`Connection`] says where Weir is and who asks, and makes the generated clients of its services. Their calls go through
//! [`channel`], which gives them deadlines, repeats them and spreads them over servers. [`stream`] sends batches of events
//! that count once, whatever happens to the connection.

pub mod channel;
mod connection;
pub mod stream;
mod token;

pub use channel::Channel;
pub use connection::{ApiKey, Connection, Credential, Endpoints, Error, Wire, is_transient};
pub use token::Covered;
