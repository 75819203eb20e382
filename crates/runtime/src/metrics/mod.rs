//! Every metric of Weir: its name, unit, help and labels, here and nowhere else.
//!
//! One [`Metrics`] is made per process (or per system under test) and passed to whatever counts; there is no global
//! registry. A method per metric binds the labels and returns a handle; binding takes a lock and a hash, so it is done once,
//! outside loops, and the handle then costs one atomic addition (about 2 ns), for histograms a few more.
//!
//! Labels must stay bounded: services, stages, outcomes, topics, partitions and the RPCs of the schema, never a project, a
//! user, a path as it came, or an error's text.
//!
//! The `prometheus` crate is used as it is. OpenTelemetry's metrics would add a second aggregation and a translation before
//! the same text comes out, and Weir pushes metrics nowhere.
//!
//! They are read as text for Prometheus ([`Metrics::render`]), and as data ([`Metrics::families`]) by [`service()`], which
//! is `weir.metrics.v1.MetricsService`.

mod export;
mod read;
mod service;

use std::sync::Arc;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

pub(crate) use service::descriptors;
pub(crate) use service::service;
/// The full name of [`service()`] in the schema.
pub use weir_proto::metrics::v1::metrics_service_server::SERVICE_NAME;

/// A number of seconds that goes up and down: `set(seconds)`.
pub use prometheus::Gauge as SecondsGauge;
/// A distribution of seconds: `observe(seconds)`.
pub use prometheus::Histogram;
/// Counts up: `inc()`, `inc_by(n)`.
pub use prometheus::IntCounter as Counter;
/// A whole number that goes up and down: `set(n)`, `inc()`, `dec()`, `add(n)`.
pub use prometheus::IntGauge as Gauge;

/// The content type of [`Metrics::render`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Upper bounds of the buckets of every histogram, in seconds: from a stage of the hot path (10 µs) to a request's
/// deadline, close together round 60 ms, where the aim for the time from ingest to query lies.
const SECONDS: [f64; 18] = [
    0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 30.0,
];

macro_rules! metrics {
    ($($kind:ident $field:ident = $name:literal [$($label:ident),*] $help:literal;)*) => {
        #[derive(Debug)]
        struct Families { $($field: metrics!(@vec $kind),)* }

        /// The labels of each metric.
        const LABELS: &[&[&str]] = &[$(&[$(stringify!($label)),*]),*];

        impl Families {
            fn register(registry: &Registry) -> prometheus::Result<Self> {
                $(
                    let $field = metrics!(@new $kind $name $help [$(stringify!($label)),*]);
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { $($field,)* })
            }
        }

        impl Metrics {
            $(
                #[doc = concat!("`", $name, "`: ", $help)]
                pub fn $field(&self, $($label: &str),*) -> metrics!(@handle $kind) {
                    self.inner.families.$field.with_label_values(&[$($label),*])
                }
            )*

            /// Removes one series, such as the lag of a partition that is no longer owned; `values` in the order of the
            /// metric's labels. Unknown ones are ignored. Handles still bound go on counting for nobody.
            pub fn forget(&self, name: &str, values: &[&str]) {
                let _ = match name {
                    $($name => self.inner.families.$field.remove_label_values(values),)*
                    _ => Ok(()),
                };
            }
        }
    };
    (@vec counter) => { IntCounterVec };
    (@vec gauge) => { IntGaugeVec };
    (@vec seconds) => { GaugeVec };
    (@vec histogram) => { HistogramVec };
    (@handle counter) => { Counter };
    (@handle gauge) => { Gauge };
    (@handle seconds) => { SecondsGauge };
    (@handle histogram) => { Histogram };
    (@new counter $name:literal $help:literal [$($label:expr),*]) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),*])?
    };
    (@new gauge $name:literal $help:literal [$($label:expr),*]) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),*])?
    };
    (@new seconds $name:literal $help:literal [$($label:expr),*]) => {
        GaugeVec::new(Opts::new($name, $help), &[$($label),*])?
    };
    (@new histogram $name:literal $help:literal [$($label:expr),*]) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()), &[$($label),*])?
    };
}

metrics! {
    // The work.
    counter events_processed = "events_processed_total" [service, topic, outcome]
        "Events that a service finished with, by what became of them (accepted, rejected, duplicate, processed, dead_lettered, failed).";
    histogram event_processing_duration = "event_processing_duration_seconds" [service, stage]
        "Time that a stage takes for one call or micro-batch.";
    counter errors = "errors_total" [service, kind]
        "Things that went wrong, by kind.";
    counter dlq_events = "dlq_events_total" [service, reason]
        "Events sent to the dead letter topic, by reason.";
    counter late_events = "late_events_total" [service]
        "Events that arrived far behind the watermark and were merged into their own bucket; those of imports do not count.";
    counter duplicates_suppressed = "duplicates_suppressed_total" [service]
        "Events whose event_id was seen before within the window.";

    counter answers = "answers_total" [service, kind]
        "Answers to questions by how they came about: evaluated on rollups or events, shared with another who asked the same, cached.";

    // Being up to date.
    gauge kafka_consumer_lag = "kafka_consumer_lag_total" [topic, partition]
        "Records of a partition that are appended and not yet processed.";
    seconds consumer_lag = "consumer_lag_seconds" [topic, partition]
        "Age of the oldest record of a partition that is not yet processed; 0 when there is none.";
    histogram event_end_to_end_latency = "event_end_to_end_latency_seconds" [service]
        "Time from receiving an event to its being counted in answers.";

    // The log.
    histogram log_append_duration = "log_append_duration_seconds" [service, topic]
        "Time from handing records to the log to their being durable.";
    counter log_append_retries = "log_append_retries_total" [service, topic]
        "Appends that were tried again.";

    // Bounds and how full they are.
    gauge in_flight_bytes = "in_flight_bytes" [service]
        "Bytes of events received and not yet durable.";
    gauge active_streams = "active_streams" [service, kind]
        "Long-lived calls and watches in progress, by kind.";
    gauge open_connections = "open_connections" [service, port]
        "Connections of a port (grpc, http).";
    gauge requests_in_flight = "requests_in_flight" [service]
        "Requests and streams in progress.";

    // The servers.
    counter grpc_server_handled = "grpc_server_handled_total" [service, method, code]
        "RPCs that ended, by the schema's service and method and the gRPC code.";
    histogram grpc_server_handling = "grpc_server_handling_seconds" [service, method]
        "Time from an RPC's headers to its end; a stream's whole life.";
    counter http_requests = "http_requests_total" [service, route, code]
        "HTTP requests that ended, by route pattern and status.";
    histogram http_request_duration = "http_request_duration_seconds" [service, route]
        "Time from an HTTP request's headers to the end of its answer.";

    counter clock_jumps = "clock_jumps_total" [service, direction]
        "Times that the machine's clock was set while the process ran, by more than NTP corrects: forwards or back.";

    gauge build_info = "weir_build_info" [version]
        "Always 1; the version that runs.";
}

/// The metrics of one process. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    families: Families,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own, with everything at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let families =
            Families::register(&registry).expect("names and labels are valid and unique: held by a test");
        #[cfg(target_os = "linux")]
        {
            let pid = std::process::id().cast_signed();
            let process = prometheus::process_collector::ProcessCollector::new(pid, "");
            registry.register(Box::new(process)).expect("process metrics have names of their own");
        }
        let metrics = Self { inner: Arc::new(Inner { registry, families }) };
        metrics.build_info(env!("CARGO_PKG_VERSION")).set(1);
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_shows_what_was_counted() {
        let metrics = Metrics::new();
        metrics.events_processed("producer", "analytics-events", "accepted").inc_by(3);
        metrics.kafka_consumer_lag("analytics-events", "0").set(7);
        metrics.event_processing_duration("consumer", "decode").observe(0.002);
        let text = metrics.render();
        for line in [
            r#"events_processed_total{outcome="accepted",service="producer",topic="analytics-events"} 3"#,
            r#"kafka_consumer_lag_total{partition="0",topic="analytics-events"} 7"#,
            r#"event_processing_duration_seconds_bucket{service="consumer",stage="decode",le="0.0025"} 1"#,
            "# TYPE event_processing_duration_seconds histogram",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn two_systems_in_a_process_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.late_events("consumer").inc();
        assert_eq!(other.late_events("consumer").get(), 0);
    }

    #[test]
    fn a_series_can_be_forgotten() {
        let metrics = Metrics::new();
        metrics.kafka_consumer_lag("t", "5").set(9);
        metrics.forget("kafka_consumer_lag_total", &["t", "5"]);
        metrics.forget("no_such_metric", &[]);
        assert!(!metrics.render().contains("kafka_consumer_lag_total{"));
    }
}
