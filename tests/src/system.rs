//! Whole systems made of real processes: everything in one binary on the embedded log, or three services on Kafka.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    process::{Plan, Ports, Process, binary, free_ports},
    s3,
};

/// Rollups that the questions about the shop's clickstream need.
const ROLLUPS: &str = r#"
[rollups]
dimensions = ["platform"]

[[rollups.definitions]]
name = "by_channel_and_lifecycle"
dimensions = ["acquisition_channel", "user_lifecycle"]
"#;

/// Settings with which the store writes and compacts segments all the time, as it does in hours of a large site.
pub const RESTLESS_STORE: [(&str, &str); 2] =
    [("WEIR__STORE__FLUSH_INTERVAL", "50ms"), ("WEIR__STORE__COMPACT_FILES", "3")];

/// Where the services on Kafka share the event store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedStore {
    /// A folder.
    Folder,
    /// A bucket of the [S3-compatible server](crate::s3).
    Bucket,
}

/// A running system.
#[derive(Debug)]
pub struct System {
    /// Files of the system: configuration, data, output of the processes.
    pub dir: TempDir,
    /// Where its processes listen.
    pub addresses: Addresses,
    /// How to start each process again.
    pub plans: BTreeMap<&'static str, Plan>,
    /// Running processes by name.
    pub processes: BTreeMap<&'static str, Process>,
}

/// Where the services of a system listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Producer.
    pub producer: Ports,
    /// First consumer.
    pub consumer: Ports,
    /// Second consumer, where there is one.
    pub second_consumer: Ports,
    /// Analytics.
    pub analytics: Ports,
    /// Gateway.
    pub gateway: u16,
}

impl Addresses {
    fn free() -> Self {
        let [gateway] = free_ports();
        Self {
            producer: Ports::free(),
            consumer: Ports::free(),
            second_consumer: Ports::free(),
            analytics: Ports::free(),
            gateway,
        }
    }

    /// What clients use: the gateway.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway)
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let mut settings: BTreeMap<_, _> = self.producer.settings("producer").into_iter().collect();
        settings.extend(self.consumer.settings("consumer"));
        settings.extend(self.analytics.settings("analytics"));
        settings.insert("WEIR__GATEWAY__HTTP".into(), format!("127.0.0.1:{}", self.gateway));
        for (name, ports) in
            [("PRODUCER", self.producer), ("CONSUMER", self.consumer), ("ANALYTICS", self.analytics)]
        {
            settings.insert(format!("WEIR__GATEWAY__{name}_URL"), ports.grpc());
        }
        settings
    }
}

impl System {
    /// `weir up` on the embedded log.
    pub fn one_binary() -> Result<Self> {
        Self::one_binary_with(&[])
    }

    /// `weir up` with some settings.
    pub fn one_binary_with(settings: &[(&str, &str)]) -> Result<Self> {
        let (dir, addresses) = (tempfile::tempdir()?, Addresses::free());
        let data = dir.path().join("data");
        let mut plan = plan(dir.path(), "up", &addresses)?;
        plan.args.extend(["--data-dir".into(), data.display().to_string()]);
        plan.env.extend(settings.iter().map(|(key, value)| ((*key).into(), (*value).into())));
        plan.ready = vec![
            format!("{}/readyz", addresses.endpoint()),
            format!("{}/readyz", addresses.analytics.http()),
        ];
        Self::start(dir, addresses, [("up", plan)].into())
    }

    /// Producer, analytics, gateway and one or two consumers as processes of their own, on the Kafka at `bootstrap`. Topics,
    /// group and the place of the events have names of this system's own.
    pub fn on_kafka(bootstrap: &str, consumers: usize, store: SharedStore) -> Result<Self> {
        Self::on_kafka_with(bootstrap, consumers, store, &[])
    }

    /// The same with some settings.
    pub fn on_kafka_with(
        bootstrap: &str,
        consumers: usize,
        store: SharedStore,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let (dir, addresses) = (tempfile::tempdir()?, Addresses::free());
        let prefix = uuid::Uuid::new_v4().simple().to_string();
        let names = ["producer", "consumer", "second_consumer", "analytics", "gateway"];
        let mut plans = BTreeMap::new();
        for name in names.into_iter().filter(|n| consumers == 2 || *n != "second_consumer") {
            let mut plan = plan(dir.path(), name.trim_start_matches("second_"), &addresses)?;
            plan.name = name.into();
            plan.log = dir.path().join(format!("{name}.log"));
            plan.env.extend(
                [
                    ("WEIR__LOG__KIND", "kafka".into()),
                    ("WEIR__LOG__KAFKA__BROKERS", bootstrap.into()),
                    ("WEIR__DATA_DIR", dir.path().join(name).display().to_string()),
                    ("WEIR__TOPICS__EVENTS", format!("{prefix}-events")),
                    ("WEIR__TOPICS__METRICS", format!("{prefix}-metrics")),
                    ("WEIR__TOPICS__DEAD_LETTERS", format!("{prefix}-dlq")),
                    ("WEIR__TOPICS__CONTROL", format!("{prefix}-control")),
                    ("WEIR__CONSUMER__GROUP", format!("{prefix}-consumer")),
                    // The shortest that brokers allow: a member that is gone is soon replaced.
                    ("WEIR__LOG__KAFKA__EXTRA__SESSION__TIMEOUT__MS", "6000".into()),
                ]
                .map(|(k, v)| (k.to_owned(), v)),
            );
            plan.env.extend(store.settings(dir.path(), &prefix).map(|(k, v)| (k.to_owned(), v)));
            plan.env.extend(settings.iter().map(|(key, value)| ((*key).into(), (*value).into())));
            let ports = match name {
                "producer" => addresses.producer.http,
                "consumer" => addresses.consumer.http,
                "second_consumer" => addresses.second_consumer.http,
                "analytics" => addresses.analytics.http,
                _ => addresses.gateway,
            };
            if name == "second_consumer" {
                plan.env.extend(addresses.second_consumer.settings("consumer"));
            }
            plan.ready = vec![format!("http://127.0.0.1:{ports}/readyz")];
            plans.insert(name, plan);
        }
        Self::start(dir, addresses, plans)
    }

    fn start(dir: TempDir, addresses: Addresses, plans: BTreeMap<&'static str, Plan>) -> Result<Self> {
        let mut processes = BTreeMap::new();
        for (name, plan) in &plans {
            processes.insert(*name, plan.spawn()?);
        }
        for process in processes.values_mut() {
            process.wait_ready()?;
        }
        Ok(Self { dir, addresses, plans, processes })
    }

    /// Kills a process with SIGKILL.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn kill(&mut self, name: &str) {
        self.processes.remove(name).expect("a process of that name runs").kill();
    }

    /// Starts a process again that was killed.
    pub fn restart(&mut self, name: &'static str) -> Result<()> {
        self.processes.insert(name, self.plans[name].start()?);
        Ok(())
    }

    /// The command `weir store …` on the system's store.
    ///
    /// # Panics
    /// When nothing in the system writes one.
    pub fn store_command(&self, action: &str) -> Command {
        let writer = self.plans.get("up").or_else(|| self.plans.get("consumer"));
        let plan = writer.expect("`weir up` or a consumer writes the store");
        let mut command = Command::new(binary());
        command.args(["store", action]).args(&plan.args[1..]).envs(&plan.env);
        command
    }

    /// Runs a client command against the system.
    pub fn weir(&self, args: &[&str]) -> Result<String> {
        crate::process::weir(&self.addresses.endpoint(), args)
    }
}

impl SharedStore {
    fn settings(self, dir: &Path, prefix: &str) -> [(&'static str, String); 5] {
        let (location, server) = match self {
            Self::Folder => (dir.join("store").display().to_string(), ""),
            Self::Bucket => (format!("s3://{}/{prefix}", s3::BUCKET), s3::shared().url()),
        };
        [
            ("WEIR__STORE__LOCATION", location),
            ("WEIR__STORE__S3__ENDPOINT", server.into()),
            ("WEIR__STORE__S3__REGION", s3::REGION.into()),
            ("WEIR__STORE__S3__ACCESS_KEY_ID", s3::KEY.into()),
            ("WEIR__STORE__S3__SECRET_ACCESS_KEY", s3::KEY.into()),
        ]
    }
}

fn plan(dir: &Path, command: &str, addresses: &Addresses) -> Result<Plan> {
    let config = dir.join("weir.toml");
    std::fs::write(&config, ROLLUPS)?;
    Ok(Plan {
        name: command.into(),
        args: vec![command.into(), "--config".into(), config.display().to_string()],
        env: addresses.settings(),
        ready: Vec::new(),
        log: dir.join(format!("{command}.log")),
    })
}
