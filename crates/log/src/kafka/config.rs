//! How to reach Kafka, and how it translates into librdkafka's settings.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

/// How to reach Kafka. Everything but the brokers has a default: `KafkaConfig { tls: …, ..KafkaConfig::new(brokers) }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Bootstrap brokers as `host:port`.
    pub brokers: Vec<String>,
    /// Name of this process in the brokers' logs and quotas.
    pub client_id: String,
    /// Encryption; `None` speaks in the clear.
    pub tls: Option<Tls>,
    /// Credentials; `None` is anonymous (or the client certificate's name).
    pub sasl: Option<Sasl>,
    /// How long the producer waits for more records before it sends a batch. Longer is cheaper, and later.
    pub linger: Duration,
    /// Bytes of records that may wait for acknowledgement; beyond it an append is refused with
    /// [`Error::QueueFull`](crate::Error::QueueFull).
    pub queue_bytes: u64,
    /// How long an append may take, retries included, before it fails with
    /// [`Error::Unavailable`](crate::Error::Unavailable).
    pub delivery_timeout: Duration,
    /// How long a question to the cluster (metadata, bounds, committed positions, topics) may take.
    pub request_timeout: Duration,
    /// Largest record, bytes; also the `max.message.bytes` of topics that are created.
    pub max_record_bytes: u64,
    /// Bytes fetched ahead for each reader; a reader that does not take them is paused.
    pub reader_buffer_bytes: u64,
    /// The member's fixed name in its groups (`group.instance.id`), for StatefulSets: a restart keeps its partitions.
    pub instance_id: Option<String>,
    /// How long a group waits for a member that went silent (`session.timeout.ms`).
    pub session_timeout: Duration,
    /// Replicas of topics that are created.
    pub replication: i32,
    /// Any other librdkafka setting, taken last.
    pub extra: BTreeMap<String, String>,
}

/// Encryption towards the brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the certificate authorities to trust; `None` takes the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate and key (PEM) for mutual TLS.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// `SCRAM-SHA-512`, `SCRAM-SHA-256` or `PLAIN`.
    pub mechanism: String,
    /// User name.
    pub user: String,
    /// Password; never printed.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl KafkaConfig {
    /// The defaults, for these brokers.
    pub fn new(brokers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            brokers: brokers.into_iter().map(Into::into).collect(),
            client_id: "weir".to_owned(),
            tls: None,
            sasl: None,
            linger: Duration::from_millis(5),
            queue_bytes: 64 << 20,
            delivery_timeout: Duration::from_secs(300),
            request_timeout: Duration::from_secs(10),
            max_record_bytes: 8 << 20,
            reader_buffer_bytes: 8 << 20,
            instance_id: None,
            session_timeout: Duration::from_secs(10),
            replication: 3,
            extra: BTreeMap::new(),
        }
    }
}
