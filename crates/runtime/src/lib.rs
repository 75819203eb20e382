//! What every Weir service shares: configuration, listeners, the server and its chain of layers, health,
//! shutdown, metrics, telemetry and error statuses.
//!
//! Nothing here knows events, topics' contents or RPCs (but for those that read the metrics): a service hands over its
//! tonic routes and its HTTP router and gets both served, limited, measured and drained in the same way as every other.
//! There is no global state but the tracing subscriber, so several whole systems run side by side in one test process.
//!
//! | module | what it is |
//! |---|---|
//! | [`auth`] | who calls, and what they may do |
//! | [`config`] | the one typed [`Config`], its commented defaults, files, environment and overrides |
//! | [`context`] | what a service is started with, and the project that everything belongs to |
//! | [`clock`] | the wall clock |
//! | [`listen`] | bound sockets, with errors that say who holds the port |
//! | [`server`] | serves gRPC and HTTP on them until the shutdown, then drains |
//! | [`health`] | named checks behind `/readyz` and `grpc.health.v1` |
//! | [`shutdown`] | the request to stop, and the tasks to wait for |
//! | [`metrics`] | every metric's name, help and labels, bound handles for hot paths, and `MetricsService` |
//! | [`status`] | `tonic::Status` with details, and its JSON form |
//! | [`trace`] | the W3C trace context |
//! | [`telemetry`] | the tracing subscriber |

pub mod auth;
pub mod clock;
pub mod config;
pub mod context;
pub mod health;
pub mod listen;
pub mod metrics;
pub mod server;
pub mod shutdown;
pub mod status;
pub mod telemetry;
pub mod trace;

pub use config::Config;
pub use context::Context;
pub use health::Health;
pub use listen::Listeners;
pub use metrics::Metrics;
pub use server::Host;
pub use shutdown::Shutdown;
