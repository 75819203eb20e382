//! How to reach Kafka, and how it translates into librdkafka's settings.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use rdkafka::ClientConfig;

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
    /// Replicas of topics that are created; `None` leaves it to the brokers' `default.replication.factor`.
    pub replication: Option<u16>,
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
            replication: None,
            extra: BTreeMap::new(),
        }
    }

    /// What every client needs.
    fn client(&self) -> ClientConfig {
        let mut c = ClientConfig::new();
        c.set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", &self.client_id)
            .set("allow.auto.create.topics", "false")
            .set("socket.keepalive.enable", "true")
            // Idle connections are closed by brokers as a matter of course.
            .set("log.connection.close", "false")
            // A broker that comes back is found soon.
            .set("reconnect.backoff.max.ms", "1000")
            .set("security.protocol", self.protocol());
        if let Some(tls) = &self.tls {
            if let Some(ca) = &tls.ca {
                c.set("ssl.ca.location", ca.to_string_lossy());
            }
            if let Some((certificate, key)) = &tls.client {
                c.set("ssl.certificate.location", certificate.to_string_lossy());
                c.set("ssl.key.location", key.to_string_lossy());
            }
        }
        if let Some(sasl) = &self.sasl {
            c.set("sasl.mechanism", &sasl.mechanism);
            c.set("sasl.username", &sasl.user).set("sasl.password", &sasl.password);
        }
        c
    }

    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        }
    }

    fn with_extra(&self, mut c: ClientConfig) -> ClientConfig {
        for (key, value) in &self.extra {
            c.set(key, value);
        }
        c
    }

    /// For questions and administration.
    pub(super) fn admin(&self) -> ClientConfig {
        self.with_extra(self.client())
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut c = self.client();
        c.set("acks", "all")
            .set("enable.idempotence", "true")
            .set("max.in.flight.requests.per.connection", "5")
            .set("message.timeout.ms", ms(self.delivery_timeout))
            .set("linger.ms", ms(self.linger))
            // Room for the request around the largest record.
            .set("message.max.bytes", (self.max_record_bytes + 64 * 1024).to_string())
            // Bytes are what is bounded, by us and before the first record of an append is taken; librdkafka's own bound
            // stands above it, so that it never refuses the rest of one.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", (self.queue_bytes / 1024 * 2 + 64 * 1024).to_string());
        self.with_extra(c)
    }

    /// Reads assigned partitions, outside any group: the group's name is only there because librdkafka wants one.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut c = self.client();
        c.set("group.id", format!("{}-readers", self.client_id))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A position that is gone must be told, never skipped.
            .set("auto.offset.reset", "error")
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "10")
            .set("fetch.queue.backoff.ms", "1")
            .set("queued.max.messages.kbytes", (self.reader_buffer_bytes / 1024 * 2).max(1).to_string());
        self.with_extra(c)
    }

    /// Takes part in a group without reading.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut c = self.client();
        c.set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("group.protocol", "classic")
            .set("session.timeout.ms", ms(self.session_timeout))
            .set("heartbeat.interval.ms", ms(self.session_timeout / 4));
        if let Some(id) = &self.instance_id {
            c.set("group.instance.id", id);
        }
        self.with_extra(c)
    }
}

fn ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}
