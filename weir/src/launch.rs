//! Starts services in this process: ports, log, topics, then the services until the shutdown.
//!
//! Everything that can be refused is refused before the first service runs: a configuration that does not hold, a port that
//! is taken, a data directory in use.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use weir_log::{
    EmbeddedConfig, EmbeddedLog, EventLog, KafkaConfig, KafkaLog, Retention, TopicPolicy, TopicSpec,
    kafka::{Sasl, Tls},
};
use weir_runtime::{Config, Context, Listeners, Shutdown, config::LogKind};
use weir_store::{Bucket, Location, Store};

/// Where the embedded log lies within the data directory.
const LOG_FOLDER: &str = "log";
/// Where the event store lies within the data directory unless told otherwise.
const STORE_FOLDER: &str = "store";
/// How long the log may be away at the start, and the pause between attempts.
const LOG_PATIENCE: Duration = Duration::from_secs(60);
const LOG_PAUSE: Duration = Duration::from_secs(2);

/// One service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Producer,
    Consumer,
    Analytics,
    Gateway,
}

impl Service {
    /// In the order in which data passes them.
    pub(crate) const ALL: [Self; 4] = [Self::Producer, Self::Consumer, Self::Analytics, Self::Gateway];

    /// Its name in commands, metrics and settings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Analytics => "analytics",
            Self::Gateway => "gateway",
        }
    }

    /// Binds its ports. `alone` is a service that others ask from other processes.
    async fn bind(self, config: &Config, alone: bool) -> Result<Listeners> {
        let Config { producer, consumer, analytics, gateway, server, .. } = config;
        let (http, grpc) = match self {
            Self::Producer => (producer.http, Some(producer.grpc)),
            Self::Consumer => (consumer.http, Some(consumer.grpc)),
            Self::Analytics => (analytics.http, Some(analytics.grpc)),
            Self::Gateway => (gateway.http, None),
        };
        let listeners = Listeners::bind(http, grpc, server.insecure).await?;
        Ok(match self {
            Self::Consumer if alone => listeners.with_internal(consumer.internal, server.insecure).await?,
            _ => listeners,
        })
    }
}

/// Where a service listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) service: Service,
    pub(crate) http: std::net::SocketAddr,
    pub(crate) grpc: Option<std::net::SocketAddr>,
}

/// Services that run in this process.
pub(crate) struct Running {
    tasks: JoinSet<(Service, Result<()>)>,
    log: Option<Arc<dyn EventLog>>,
    context: Context,
    /// Where they listen, in the order in which they were named.
    pub(crate) addresses: Vec<Address>,
}

/// Starts the services. Those that run together find each other whatever their ports are.
///
/// # Errors
/// The first thing that prevents it; nothing runs then.
pub(crate) async fn start(mut config: Config, services: &[Service], shutdown: Shutdown) -> Result<Running> {
    let mut bound = Vec::new();
    for &service in services {
        let alone = !services.contains(&Service::Analytics);
        bound.push((service, service.bind(&config, alone).await?));
    }
    let addresses: Vec<Address> = bound
        .iter()
        .map(|(service, listeners)| Address {
            service: *service,
            http: listeners.http_address(),
            grpc: listeners.grpc_address(),
        })
        .collect();
    for address in &addresses {
        let Some(grpc) = address.grpc else { continue };
        let url = format!("http://{grpc}");
        match address.service {
            Service::Producer => config.gateway.producer_url = url,
            Service::Consumer => config.gateway.consumer_url = url,
            Service::Analytics => config.gateway.analytics_url = url,
            Service::Gateway => {}
        }
    }
    let needs_log = services.iter().any(|service| *service != Service::Gateway);
    let log = if needs_log { Some(open(&config, &shutdown).await?) } else { None };
    let needs_store =
        services.iter().any(|service| matches!(service, Service::Consumer | Service::Analytics));
    let store = if needs_store { Some(open_store(&config).await?) } else { None };

    let context = Context::new(config, shutdown);
    let mut tasks = JoinSet::new();
    for (service, listeners) in bound {
        let (context, log, store) = (context.clone(), log.clone(), store.clone());
        tasks.spawn(async move {
            let log = || log.expect("every service but the gateway has the log");
            let store = || store.expect("consumer and analytics have the store");
            let served = match service {
                Service::Producer => {
                    weir_producer::serve(context, log(), listeners).await.map_err(Into::into)
                }
                Service::Consumer => {
                    weir_consumer::serve(context, log(), store(), listeners).await.map_err(Into::into)
                }
                Service::Analytics => {
                    weir_analytics::serve(context, log(), store(), listeners).await.map_err(Into::into)
                }
                Service::Gateway => weir_gateway::serve(context, listeners).await.map_err(Into::into),
            };
            (service, served)
        });
    }
    Ok(Running { tasks, log, context, addresses })
}

impl Running {
    /// Waits until every service answers its readiness check; false when one ended or the stop was requested before.
    pub(crate) async fn ready(&self) -> bool {
        for address in &self.addresses {
            while !crate::probe::is_ready(address.http).await {
                let is_over = self.context.shutdown.is_requested() || self.tasks.len() < self.addresses.len();
                if is_over {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        true
    }

    /// Waits until all have ended. One that fails takes the others along: a process that does half its work looks healthy
    /// and is not.
    ///
    /// # Errors
    /// Why the first one failed.
    pub(crate) async fn ended(mut self) -> Result<()> {
        let mut failure = None;
        while let Some(joined) = self.tasks.join_next().await {
            let failed = match joined {
                Ok((service, served)) => served.with_context(|| format!("the {} failed", service.name())),
                Err(panic) => Err(panic).context("a service panicked"),
            };
            if let Err(error) = failed {
                failure.get_or_insert(error);
                self.context.shutdown.trigger();
            }
        }
        let patience = self.context.config.server.drain_timeout;
        if let Err(left) = self.context.shutdown.drained(patience).await {
            tracing::warn!(tasks = left, "stopped with work under way");
        }
        if let Some(log) = &self.log {
            log.close().await.context("cannot close the log")?;
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Opens the log and makes sure of its topics.
///
/// # Errors
/// When the log is not as it must be, or away for [`LOG_PATIENCE`].
pub(crate) async fn open(config: &Config, shutdown: &Shutdown) -> Result<Arc<dyn EventLog>> {
    let log: Arc<dyn EventLog> = match config.log.kind {
        LogKind::Embedded => {
            let settings = embedded(config);
            tokio::task::spawn_blocking(|| EmbeddedLog::open(settings))
                .await
                .context("opening the log failed")??
        }
        LogKind::Kafka => KafkaLog::connect(kafka(config))?,
    };
    let policy = if config.log.create_topics { TopicPolicy::Create } else { TopicPolicy::Check };
    let began = tokio::time::Instant::now();
    loop {
        match log.ensure_topics(&topics(config), policy).await {
            Ok(()) => return Ok(log),
            Err(error @ weir_log::Error::Unavailable(_)) if began.elapsed() < LOG_PATIENCE => {
                tracing::warn!(%error, "waiting for the log");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(LOG_PAUSE) => {}
            () = shutdown.requested() => anyhow::bail!("stopped while waiting for the log"),
        }
    }
}

/// Opens the event store.
///
/// # Errors
/// When its folder can't be made, or its bucket can't be used.
pub(crate) async fn open_store(config: &Config) -> Result<Store> {
    Store::open(store(config)?)
        .await
        .context("cannot open the event store (see [store] of the configuration)")
}

fn store(config: &Config) -> Result<weir_store::Settings> {
    let settings = &config.store;
    let location = match settings.location.as_deref() {
        None => Location::Folder(config.data_dir.join(STORE_FOLDER)),
        Some(location) => match location.strip_prefix("s3://") {
            None => Location::Folder(location.into()),
            Some(bucket) => {
                let (name, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
                anyhow::ensure!(
                    !name.is_empty(),
                    "`store.location` = \"{location}\": expected s3://bucket/prefix"
                );
                Location::Bucket(Bucket {
                    name: name.to_owned(),
                    prefix: prefix.trim_matches('/').to_owned(),
                    endpoint: settings.s3.endpoint.clone(),
                    region: settings.s3.region.clone(),
                    access_key_id: settings.s3.access_key_id.clone(),
                    secret_access_key: settings
                        .s3
                        .secret_access_key
                        .as_ref()
                        .map(|key| key.expose().to_owned()),
                })
            }
        },
    };
    Ok(weir_store::Settings {
        location,
        flush_interval: settings.flush_interval,
        flush_bytes: settings.flush_bytes,
        max_hot_bytes: settings.max_hot_bytes,
        retention: settings.retention,
        columns: settings.columns.clone(),
        compact_files: settings.compact_files,
        compaction_bytes: settings.compaction_bytes,
    })
}

/// What the topics must look like.
pub(crate) fn topics(config: &Config) -> Vec<TopicSpec> {
    let topics = &config.topics;
    [
        (&topics.events, topics.events_retention, topics.events_retention_bytes),
        (&topics.metrics, topics.metrics_retention, topics.metrics_retention_bytes),
        (&topics.dead_letters, topics.dead_letters_retention, topics.dead_letters_retention_bytes),
    ]
    .map(|(name, age, bytes)| TopicSpec {
        name: name.clone(),
        partitions: topics.partitions,
        retention: Retention { age, bytes },
    })
    .into()
}

fn embedded(config: &Config) -> EmbeddedConfig {
    EmbeddedConfig {
        segment_bytes: config.log.embedded.segment_bytes,
        max_pending_bytes: config.log.embedded.max_pending_bytes as u64,
        ..EmbeddedConfig::at(config.data_dir.join(LOG_FOLDER))
    }
}

fn kafka(config: &Config) -> KafkaConfig {
    let settings = &config.log.kafka;
    let protocol = settings.security_protocol;
    let client = settings.client_certificate_file.clone().zip(settings.client_key_file.clone());
    let credentials = settings.sasl_username.clone().zip(settings.sasl_password.as_ref());
    KafkaConfig {
        client_id: settings.client_id.clone(),
        tls: protocol.uses_tls().then(|| Tls { ca: settings.ca_file.clone(), client }),
        sasl: credentials.filter(|_| protocol.uses_sasl()).map(|(user, password)| Sasl {
            mechanism: settings.sasl_mechanism.as_str().to_owned(),
            user,
            password: password.expose().to_owned(),
        }),
        linger: Duration::from_millis(settings.linger_ms.into()),
        queue_bytes: config.producer.max_in_flight_bytes as u64,
        instance_id: config.consumer.group_instance_id.clone(),
        replication: Some(config.topics.replication_factor),
        extra: settings.extra.expose().clone(),
        ..KafkaConfig::new(settings.brokers.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_runtime::config::Sources;

    #[test]
    fn kafka_gets_what_was_configured() {
        let overrides = [
            ("log.kind", "kafka"),
            ("log.kafka.brokers", "a:1,b:2"),
            ("log.kafka.security_protocol", "sasl_ssl"),
            ("log.kafka.sasl_username", "weir"),
            ("log.kafka.sasl_password", "secret"),
            ("log.kafka.ca_file", "ca.pem"),
            ("log.kafka.client_certificate_file", "client.pem"),
            ("log.kafka.client_key_file", "client.key"),
            ("topics.replication_factor", "3"),
        ];
        let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let settings = kafka(&Config::load(Sources { overrides, ..Sources::default() }).unwrap());
        assert_eq!(settings.brokers, ["a:1", "b:2"]);
        assert_eq!(settings.replication, Some(3));
        let client = Some(("client.pem".into(), "client.key".into()));
        assert_eq!(settings.tls, Some(Tls { ca: Some("ca.pem".into()), client }));
        let sasl = settings.sasl.unwrap();
        assert_eq!((sasl.mechanism.as_str(), sasl.user.as_str()), ("SCRAM-SHA-512", "weir"));
    }

    #[test]
    fn results_are_partitioned_like_events() {
        let topics = topics(&Config::default());
        assert_eq!(topics.len(), 3);
        assert!(topics.iter().all(|topic| topic.partitions == topics[0].partitions));
        assert_eq!(topics[1].retention.age, None);
    }
}
