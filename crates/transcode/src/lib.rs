//! REST over any gRPC service, from its descriptors.
//!
//! [`rest()`] gives every RPC that has a `google.api.http` rule its HTTP form: path templates, query parameters and bodies
//! become the request message, the answer becomes ProtoJSON; server streams become server-sent events or NDJSON, those of
//! `google.api.HttpBody` files; a client stream is read from an NDJSON body. Nothing here knows an event or a query: a new RPC
//! needs its rule and no code.
//!
//! It deliberately does no gRPC-Web, CORS, admission or measuring; `weir_runtime::Host` does those for every port alike.
//!
//! | module | what it is |
//! |---|---|
//! | `binding` | which RPC a method and a path mean |
//! | `message` | JSON and texts into messages |
//! | `query` | query parameters and path variables into messages |
//! | `body`, `memory` | request bodies: content types, decompression, limits, lines, and what they may take |
//! | `answer` | messages into JSON |
//! | `call` | one gRPC call, and the shapes of an RPC over HTTP |

mod answer;
mod binding;
mod body;
mod call;
mod error;
mod memory;
mod message;
mod query;
mod rest;

pub use error::Error;
pub use rest::rest;
