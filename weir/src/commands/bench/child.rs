//! A service as a child process, with free ports and what it costs.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child as Process, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use weir_client::Endpoints;

use crate::{client::Connection, launch::Service, probe};

/// How long a child may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);
/// Unit of CPU times in /proc: Linux reports them in hundredths of a second on every architecture (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// A running child; killed when dropped.
pub(super) struct Child {
    process: Process,
    /// gRPC addresses of the services in it, by [`Service::ALL`].
    grpc: Vec<(Service, SocketAddr)>,
    log: PathBuf,
}

/// What the children of one benchmark share.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// Where files go.
    pub(super) dir: PathBuf,
    /// Settings as `section.key=value`.
    pub(super) settings: Vec<(String, String)>,
}

impl Ground {
    /// On the embedded log in `dir`, or on Kafka with topics and a group of this run's own.
    pub(super) fn new(dir: &Path, kafka: Option<&str>) -> Self {
        let mut settings = vec![("data_dir".to_owned(), dir.join("data").display().to_string())];
        if let Some(brokers) = kafka {
            let run = format!("weir-bench-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
            for (key, value) in [
                ("log.kind", "kafka".to_owned()),
                ("log.kafka.brokers", brokers.to_owned()),
                ("topics.events", format!("{run}-events")),
                ("topics.metrics", format!("{run}-metrics")),
                ("topics.dead_letters", format!("{run}-dlq")),
                ("topics.control", format!("{run}-control")),
                ("consumer.group", run.clone()),
            ] {
                settings.push((key.to_owned(), value));
            }
        }
        Self { dir: dir.to_owned(), settings }
    }

    /// With one more setting.
    pub(super) fn with(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }
}

impl Child {
    /// Starts this program with `command` (`up` or a service's name), and waits until it is ready.
    pub(super) async fn start(command: &str, services: &[Service], ground: &Ground) -> Result<Self> {
        let log = ground.dir.join(format!("{command}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let mut settings = ground.settings.clone();
        let (mut grpc, mut ready) = (Vec::new(), Vec::new());
        for &service in services {
            let http = free_port()?;
            settings.push((format!("{}.http", service.name()), http.to_string()));
            ready.push(http);
            if service != Service::Gateway {
                let address = free_port()?;
                settings.push((format!("{}.grpc", service.name()), address.to_string()));
                grpc.push((service, address));
            }
        }
        let mut run = Command::new(std::env::current_exe().context("cannot find this program")?);
        run.arg(command).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        for (key, value) in &settings {
            run.arg("--set").arg(format!("{key}={value}"));
        }
        // What the caller's environment says is about the Weir that it uses, not about this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEIR_") {
                run.env_remove(name);
            }
        }
        let process = run.spawn().with_context(|| format!("cannot start `weir {command}`"))?;
        let mut child = Self { process, grpc, log };
        let began = Instant::now();
        for http in ready {
            while !probe::is_ready(http).await {
                if let Some(status) = child.process.try_wait()? {
                    bail!("`weir {command}` ended with {status}:\n{}", child.last_words());
                }
                if began.elapsed() > PATIENCE {
                    bail!("`weir {command}` does not get ready:\n{}", child.last_words());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(child)
    }

    /// A connection to the services in it.
    pub(super) fn connection(&self) -> Connection {
        connection(&self.grpc)
    }

    /// CPU seconds used so far, in user and system mode.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.process.id())
    }

    /// Largest memory used so far, MiB.
    pub(super) fn peak_mib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib / 1024)
    }

    /// Ends it in order.
    pub(super) async fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let began = Instant::now();
        while self.process.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                bail!("a child does not end:\n{}", self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// The end of what it said.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All services of a Weir.
pub(super) struct Fleet(Vec<Child>);

impl Fleet {
    /// In one process.
    pub(super) async fn together(ground: &Ground) -> Result<Self> {
        Ok(Self(vec![Child::start("up", &Service::ALL, ground).await?]))
    }

    /// Each in a process of its own; on Kafka, with a folder of events that they share.
    pub(super) async fn apart(ground: &Ground) -> Result<Self> {
        let ground = ground.clone().with("store.location", &ground.dir.join("store").display().to_string());
        let mut children = Vec::new();
        for service in [Service::Producer, Service::Consumer, Service::Analytics] {
            let folder = ground.dir.join(service.name()).display().to_string();
            let ground = ground.clone().with("data_dir", &folder);
            children.push(Child::start(service.name(), &[service], &ground).await?);
        }
        Ok(Self(children))
    }

    /// A connection to the services themselves.
    pub(super) fn connection(&self) -> Connection {
        let all: Vec<_> = self.0.iter().flat_map(|child| child.grpc.clone()).collect();
        connection(&all)
    }

    /// CPU seconds used so far, in user and system mode.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        self.0.iter().map(Child::cpu_seconds).sum()
    }

    /// Ends them in order.
    pub(super) async fn stop(self) -> Result<()> {
        for child in self.0 {
            child.stop().await?;
        }
        Ok(())
    }
}

fn connection(grpc: &[(Service, SocketAddr)]) -> Connection {
    let of = |wanted: Service| {
        let found = grpc.iter().find(|(service, _)| *service == wanted);
        found.map(|(_, address)| format!("http://{address}")).unwrap_or_default()
    };
    Connection::to(Endpoints {
        producer: of(Service::Producer),
        consumer: of(Service::Consumer),
        analytics: of(Service::Analytics),
    })
}

/// CPU seconds of a process so far, in user and system mode.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).context("CPU times come from /proc: Linux only")?;
    // The second field, the name in parentheses, may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    // Fields 14 and 15 of proc(5), counted from the state, which is the third.
    Ok((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
}

/// An address on loopback that is free at this moment.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
