//! The sections, field by field as in `default.toml`, where each key is explained.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    Error, Origin, Properties, Secret,
    humane::{duration, limit, optional, retention},
};

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where this process keeps its files.
    pub data_dir: PathBuf,
    /// Which log carries the events.
    pub log: Log,
    /// The topics' names and sizes.
    pub topics: Topics,
    /// The producer service.
    pub producer: Producer,
    /// The consumer service.
    pub consumer: Consumer,
    /// The analytics service.
    pub analytics: Analytics,
    /// Where the events themselves are kept.
    pub store: Store,
    /// The gateway.
    pub gateway: Gateway,
    /// What is aggregated as it arrives.
    pub rollups: Rollups,
    /// Limits of every service's ports.
    pub server: Server,
    /// Log output.
    pub telemetry: Telemetry,
}

/// The two implementations of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// Segments on this machine.
    Embedded,
    /// An Apache Kafka cluster.
    Kafka,
}

/// What happens to user and session ids such as `n/a` and `-1`, which exports write for "nobody".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceholderIds {
    /// Events of such users are refused; such sessions count as none.
    Reject,
    /// They are ids as any other.
    Allow,
}

/// Which log carries the events, and how it is reached.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The implementation.
    pub kind: LogKind,
    /// Whether missing topics are created.
    pub create_topics: bool,
    /// Read when `kind` is embedded.
    pub embedded: EmbeddedLog,
    /// Read when `kind` is kafka.
    pub kafka: KafkaLog,
}

/// The log in segments under `data_dir`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedLog {
    /// Size at which a segment is closed, bytes.
    pub segment_bytes: u64,
    /// Appends waiting for the group commit, bytes.
    pub max_pending_bytes: usize,
}

/// How brokers are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated.
    Plaintext,
    /// TLS.
    Ssl,
    /// A password in the clear.
    SaslPlaintext,
    /// A password over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// As librdkafka spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether the connection is encrypted.
    pub fn uses_tls(self) -> bool {
        match self {
            Self::Plaintext | Self::SaslPlaintext => false,
            Self::Ssl | Self::SaslSsl => true,
        }
    }

    /// Whether a user name and password are sent.
    pub fn uses_sasl(self) -> bool {
        match self {
            Self::Plaintext | Self::Ssl => false,
            Self::SaslPlaintext | Self::SaslSsl => true,
        }
    }
}

/// How the password is proven to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SaslMechanism {
    /// Sent as it is.
    #[serde(rename = "plain")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// As librdkafka spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The Kafka cluster.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaLog {
    /// Bootstrap servers, `host:port`.
    pub brokers: Vec<String>,
    /// Names this process in the broker's logs and quotas.
    pub client_id: String,
    /// Encryption and authentication.
    pub security_protocol: SecurityProtocol,
    /// Read when the protocol uses SASL.
    pub sasl_mechanism: SaslMechanism,
    /// The user.
    #[serde(deserialize_with = "optional::deserialize")]
    pub sasl_username: Option<String>,
    /// The password; [`super::Config::load`] fills it in from `sasl_password_file`.
    #[serde(deserialize_with = "optional::deserialize")]
    pub sasl_password: Option<Secret>,
    /// The file that holds the password.
    #[serde(deserialize_with = "optional::deserialize")]
    pub sasl_password_file: Option<PathBuf>,
    /// Trusted authorities, PEM.
    #[serde(deserialize_with = "optional::deserialize")]
    pub ca_file: Option<PathBuf>,
    /// Our certificate, PEM.
    #[serde(deserialize_with = "optional::deserialize")]
    pub client_certificate_file: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(deserialize_with = "optional::deserialize")]
    pub client_key_file: Option<PathBuf>,
    /// How long a record waits for company, milliseconds.
    pub linger_ms: u32,
    /// Any other librdkafka property.
    pub extra: Properties,
}

impl KafkaLog {
    /// Fills in the password from its file.
    pub(super) fn read_password_file(&mut self) -> Result<(), Error> {
        let Some(path) = &self.sasl_password_file else { return Ok(()) };
        let key = "log.kafka.sasl_password_file";
        if self.sasl_password.is_some() {
            let reason = format!("set either `log.kafka.sasl_password` or `{key}`, not both");
            return Err(Error::Conflict { reason });
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Unreadable { path: path.clone(), source })?;
        let secret = text.strip_suffix('\n').unwrap_or(&text);
        if secret.is_empty() {
            return Err(Error::Invalid {
                key: key.to_owned(),
                value: format!("{:?}", path.display().to_string()),
                origin: Origin::File(path.clone()),
                reason: "the file is empty; write the password into it".to_owned(),
            });
        }
        self.sasl_password = Some(Secret::from(secret.to_owned()));
        Ok(())
    }
}

/// The topics' names and sizes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// What the producer appends.
    pub events: String,
    /// What the consumer makes of it.
    pub metrics: String,
    /// What could not be processed.
    pub dead_letters: String,
    /// Projects, keys, rollup definitions, alert rules; compacted, one partition.
    pub control: String,
    /// Partitions of `events`, `metrics` and `dead_letters`.
    pub partitions: u32,
    /// Replicas on Kafka.
    pub replication_factor: u16,
    /// Age at which events go; `None`: never.
    #[serde(deserialize_with = "retention::deserialize")]
    pub events_retention: Option<Duration>,
    /// Size of a partition at which the oldest events go; `None`: any.
    #[serde(deserialize_with = "limit::deserialize")]
    pub events_retention_bytes: Option<u64>,
    /// Age at which results go; `None`: never.
    #[serde(deserialize_with = "retention::deserialize")]
    pub metrics_retention: Option<Duration>,
    /// Size of a partition at which the oldest results go; `None`: any.
    #[serde(deserialize_with = "limit::deserialize")]
    pub metrics_retention_bytes: Option<u64>,
    /// Age at which dead letters go; `None`: never.
    #[serde(deserialize_with = "retention::deserialize")]
    pub dead_letters_retention: Option<Duration>,
    /// Size of a partition at which the oldest dead letters go; `None`: any.
    #[serde(deserialize_with = "limit::deserialize")]
    pub dead_letters_retention_bytes: Option<u64>,
}

/// The producer service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    /// HTTP address.
    pub http: SocketAddr,
    /// gRPC address.
    pub grpc: SocketAddr,
    /// Size of one encoded event, bytes.
    pub max_event_bytes: usize,
    /// Events in a batch.
    pub max_batch_events: usize,
    /// Size of a batch after decompression, bytes.
    pub max_batch_bytes: usize,
    /// How old an event may be.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_past: Duration,
    /// How far ahead of our clock an event may be.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_future: Duration,
    /// What happens to ids that stand for nobody.
    pub placeholder_ids: PlaceholderIds,
    /// Whether requests marked `weir-import: true` may bring events older than `max_past`.
    pub allow_import: bool,
    /// Events received and not yet durable, bytes.
    pub max_in_flight_bytes: usize,
    /// How long an append is tried again.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_deadline: Duration,
    /// Pause before the first retry, before jitter.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_initial_backoff: Duration,
    /// The longest pause between retries.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_max_backoff: Duration,
    /// Unacknowledged events of one `StreamEvents` call.
    pub stream_credits: u32,
    /// Long-lived calls at once.
    pub max_streams: usize,
}

/// The consumer service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// HTTP address.
    pub http: SocketAddr,
    /// gRPC address.
    pub grpc: SocketAddr,
    /// Address for other services of Weir alone, of a consumer that runs by itself.
    pub internal: SocketAddr,
    /// Where other services reach the internal port; see [`Consumer::advertised_url`].
    #[serde(deserialize_with = "optional::deserialize")]
    pub advertised_url: Option<String>,
    /// The consumer group.
    pub group: String,
    /// This instance's lasting name in the group.
    #[serde(deserialize_with = "optional::deserialize")]
    pub group_instance_id: Option<String>,
    /// Log-append time within which a repeated `event_id` is a duplicate.
    #[serde(deserialize_with = "duration::deserialize")]
    pub dedup_window: Duration,
    /// Events remembered by a partition.
    pub dedup_max_events: usize,
    /// Age at which a micro-batch is written.
    #[serde(deserialize_with = "duration::deserialize")]
    pub micro_batch_delay: Duration,
    /// Events at which a micro-batch is written.
    pub micro_batch_events: usize,
    /// Time between an event and its append to the log from which an event is reported as late.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lateness: Duration,
}

impl Consumer {
    /// The URL that claims carry: the configured one, else that of the address that is bound for them.
    pub fn advertised_url(&self, bound: SocketAddr) -> String {
        self.advertised_url.clone().unwrap_or_else(|| format!("http://{bound}"))
    }
}

/// The analytics service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analytics {
    /// HTTP address.
    pub http: SocketAddr,
    /// gRPC address.
    pub grpc: SocketAddr,
    /// Time between snapshots.
    #[serde(deserialize_with = "duration::deserialize")]
    pub snapshot_interval: Duration,
    /// Least time between two updates of a watch.
    #[serde(deserialize_with = "duration::deserialize")]
    pub watch_min_interval: Duration,
    /// Watches at once.
    pub max_watches: usize,
    /// Updates a reader may be behind.
    pub watch_buffer: usize,
    /// Memory for events that wait for readers of live tails, bytes.
    pub watch_buffer_bytes: usize,
    /// The longest a query may run.
    #[serde(deserialize_with = "duration::deserialize")]
    pub query_timeout: Duration,
    /// The longest a query waits for its consistency token.
    #[serde(deserialize_with = "duration::deserialize")]
    pub consistency_timeout: Duration,
    /// Rows or points in an answer, each counted as often as it has figures.
    pub max_result_rows: usize,
    /// Events that are read for an exact answer where rollups have another.
    pub exact_up_to_events: u64,
    /// Memory for all questions that are answered from the events, bytes.
    pub query_memory_bytes: usize,
    /// Threads that answer them; 0: see [`Analytics::query_threads`].
    pub query_threads: usize,
    /// Memory for answers that are kept, bytes.
    pub cache_bytes: u64,
    /// Memory for parts of exports that wait for their readers, bytes.
    pub export_buffer_bytes: usize,
}

impl Analytics {
    /// Threads that answer questions from events: the configured number, else one core is left to ingest.
    pub fn query_threads(&self, cores: usize) -> usize {
        if self.query_threads == 0 { cores.saturating_sub(1).max(1) } else { self.query_threads }
    }
}

/// Where the events themselves are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// A folder or `s3://bucket/prefix`; `None`: a folder in the data directory.
    #[serde(deserialize_with = "optional::deserialize")]
    pub location: Option<String>,
    /// Age at which events are written to segments.
    #[serde(deserialize_with = "duration::deserialize")]
    pub flush_interval: Duration,
    /// Size at which they are, bytes in one partition.
    pub flush_bytes: usize,
    /// Size of all partitions of a process that are not in segments, bytes.
    pub max_hot_bytes: usize,
    /// Age at which events go; `None`: never.
    #[serde(deserialize_with = "retention::deserialize")]
    pub retention: Option<Duration>,
    /// Properties that always become columns.
    pub columns: Vec<String>,
    /// Segments that are compacted into one.
    pub compact_files: usize,
    /// Memory for what a compaction reads, bytes.
    pub compaction_bytes: usize,
    /// Read when the location is a bucket.
    pub s3: S3,
}

/// An S3-compatible server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// Its URL; `None`: Amazon's.
    #[serde(deserialize_with = "optional::deserialize")]
    pub endpoint: Option<String>,
    /// The region.
    #[serde(deserialize_with = "optional::deserialize")]
    pub region: Option<String>,
    /// The public part of the key.
    #[serde(deserialize_with = "optional::deserialize")]
    pub access_key_id: Option<String>,
    /// The secret part.
    #[serde(deserialize_with = "optional::deserialize")]
    pub secret_access_key: Option<Secret>,
}

/// The gateway.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// HTTP address.
    pub http: SocketAddr,
    /// The producer's gRPC.
    pub producer_url: String,
    /// The consumer's gRPC.
    pub consumer_url: String,
    /// The analytics service's gRPC.
    pub analytics_url: String,
}

/// What is aggregated as it arrives. Always kept: every event name with all its events.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollups {
    /// Dimensions that each get a rollup by event name and by themselves.
    pub dimensions: Vec<String>,
    /// Numeric properties to aggregate.
    pub numeric: Vec<String>,
    /// Further rollups.
    pub definitions: Vec<RollupDefinition>,
    /// Values of a dimension told apart in a day.
    pub max_values_per_dimension: usize,
    /// How long buckets are kept.
    pub retention: RollupRetention,
}

/// One combination of dimensions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollupDefinition {
    /// A unique name: lower case letters, digits and `_`.
    pub name: String,
    /// One to four dimensions.
    pub dimensions: Vec<String>,
}

/// How long the buckets of each width are kept; `None`: for ever.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollupRetention {
    /// Buckets of one second.
    #[serde(deserialize_with = "retention::deserialize")]
    pub second: Option<Duration>,
    /// Buckets of one minute.
    #[serde(deserialize_with = "retention::deserialize")]
    pub minute: Option<Duration>,
    /// Buckets of fifteen minutes.
    #[serde(deserialize_with = "retention::deserialize")]
    pub quarter_hour: Option<Duration>,
    /// Buckets of one hour.
    #[serde(deserialize_with = "retention::deserialize")]
    pub hour: Option<Duration>,
    /// Buckets of one UTC day.
    #[serde(deserialize_with = "retention::deserialize")]
    pub day: Option<Duration>,
}

/// Limits of every service's ports.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Allow addresses other than loopback.
    pub insecure: bool,
    /// Connections of one port.
    pub max_connections: usize,
    /// Host names that requests may be sent to.
    pub allowed_hosts: Vec<String>,
    /// Requests and streams in progress on a service.
    pub max_concurrent_requests: usize,
    /// Streams of one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// A request's header block, bytes.
    pub max_header_bytes: u32,
    /// A message or body after decompression, bytes.
    pub max_message_bytes: usize,
    /// Requests that are still being received, bytes.
    pub request_memory_bytes: usize,
    /// Memory of one decoded message, bytes.
    pub message_memory_bytes: usize,
    /// The deadline of a unary call that brings none.
    #[serde(deserialize_with = "duration::deserialize")]
    pub request_timeout: Duration,
    /// How long calls in progress may go on at a shutdown.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain_timeout: Duration,
    /// Time between probes of an idle connection.
    #[serde(deserialize_with = "duration::deserialize")]
    pub keep_alive_interval: Duration,
    /// How long a probe's answer may take.
    #[serde(deserialize_with = "duration::deserialize")]
    pub keep_alive_timeout: Duration,
    /// Serve gRPC reflection.
    pub reflection: bool,
    /// Origins of web pages that may call.
    pub cors_origins: Vec<String>,
    /// Of the calls that end well, one in so many has a line in the log; 0 is none.
    pub log_one_call_in: u64,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Log output.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines appear: a level, or directives by module.
    pub level: String,
}
