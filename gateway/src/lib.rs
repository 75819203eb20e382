//! REST over any gRPC service, from its descriptors, and the gateway that serves all of Weir at one address.
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
//! | `template` | path templates, parsed and matched; pure |
//! | `rule` | the bindings of a service, read and checked from its descriptors |
//! | `table` | which binding a method and a path mean; pure |
//! | `json`, `query`, `scalar` | JSON, query parameters and path variables into messages and back; pure |
//! | `exact` | keeps whole numbers beyond 64 bits; pure |
//! | `body` | request bodies: content types, decompression, limits, lines |
//! | `call` | one gRPC call with ready-made message bytes, its metadata and deadline |
//! | `unary`, `stream`, `upload` | the three shapes of an RPC over HTTP |
//! | `file` | answers that are files: `google.api.HttpBody` |
//! | `upstream`, [`serve()`] | the standalone gateway |

mod answer;
mod body;
mod call;
mod error;
mod exact;
mod file;
mod json;
mod memory;
mod query;
mod rest;
mod rule;
mod scalar;
mod serve;
mod stream;
mod table;
mod template;
mod transcode;
mod unary;
mod upload;
mod upstream;

pub use error::Error;
pub use rest::rest;
pub use serve::serve;
