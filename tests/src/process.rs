//! Real `weir` processes, started as a user would start them: by the binary, on ports of their own.

use std::{
    collections::BTreeMap,
    fs::File,
    net::TcpListener,
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// How long a process may take to get ready or to end. Generous: CI machines are slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test, built by `make test` into the same target directory as the tests.
pub fn binary() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let path = exe.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps").join("weir");
    assert!(
        path.exists(),
        "{} is missing: run the tests with `make test`, which builds it first",
        path.display()
    );
    path
}

/// Where ports are taken from: below those that the system gives to outgoing connections (32768 on), which would take one
/// while its process is down, and below Kafka's (see `kafka.rs`).
const PORTS: Range<u16> = 10_000..20_000;
/// Ports taken at once.
const BLOCK: u16 = 50;

/// Ports that are this process's as long as it lives: a listener on the first of them says so to the other test processes.
#[derive(Debug)]
struct Block {
    _mark: TcpListener,
    rest: Range<u16>,
}

impl Block {
    fn take() -> Self {
        let is_ours = |first: u16| {
            let mark = TcpListener::bind(("127.0.0.1", first)).ok()?;
            Some(Self { _mark: mark, rest: first + 1..first + BLOCK })
        };
        let count = PORTS.len() / usize::from(BLOCK);
        // Each process begins somewhere else, so that they seldom meet.
        PORTS
            .step_by(BLOCK.into())
            .cycle()
            .skip(std::process::id() as usize % count)
            .take(count)
            .find_map(is_ours)
            .expect("one of 200 blocks of ports is free")
    }
}

/// Free ports on loopback, for processes that are started on them again and again: nobody else takes them in between.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static BLOCKS: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    std::array::from_fn(|_| {
        loop {
            match blocks.last_mut().and_then(|block| block.rest.next()) {
                Some(port) if TcpListener::bind(("127.0.0.1", port)).is_ok() => break port,
                Some(_) => {}
                None => blocks.push(Block::take()),
            }
        }
    })
}

/// Addresses of one service.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// HTTP port.
    pub http: u16,
    /// gRPC port.
    pub grpc: u16,
    /// Port for other services.
    pub internal: u16,
}

impl Ports {
    /// Free ports.
    pub fn free() -> Self {
        let [http, grpc, internal] = free_ports();
        Self { http, grpc, internal }
    }

    /// Base URL of the HTTP port.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Base URL of the gRPC port.
    pub fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Settings that make `service` listen here.
    pub fn settings(&self, service: &str) -> Vec<(String, String)> {
        let mut ports = vec![("HTTP", self.http), ("GRPC", self.grpc)];
        if service == "consumer" {
            ports.push(("INTERNAL", self.internal));
        }
        let setting =
            |(name, port)| (format!("WEIR__{}__{name}", service.to_uppercase()), format!("127.0.0.1:{port}"));
        ports.into_iter().map(setting).collect()
    }
}

/// What a `weir` process is started with; keep it to start the same again after a kill.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name for messages.
    pub name: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Configuration by environment.
    pub env: BTreeMap<String, String>,
    /// `/readyz` URLs that must all answer 200.
    pub ready: Vec<String>,
    /// Its output is appended here.
    pub log: PathBuf,
}

impl Plan {
    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or stays unready; with the last lines of its output.
    pub fn start(&self) -> Result<Process> {
        let mut process = self.spawn()?;
        process.wait_ready()?;
        Ok(process)
    }

    /// Starts the process without waiting.
    pub fn spawn(&self) -> Result<Process> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(binary())
            .args(&self.args)
            .env_clear()
            .envs(std::env::vars().filter(|(k, _)| !k.starts_with("WEIR_")))
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        Ok(Process { plan: self.clone(), child })
    }
}

/// A running `weir` process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    plan: Plan,
    child: Child,
}

impl Process {
    /// Waits until every readiness URL answers 200.
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for url in self.plan.ready.clone() {
            while get(&url).is_none() {
                if let Some(status) = self.child.try_wait()? {
                    bail!("{} ended with {status}:\n{}", self.plan.name, self.tail());
                }
                ensure!(
                    Instant::now() < deadline,
                    "{} is not ready at {url}:\n{}",
                    self.plan.name,
                    self.tail()
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGSTOP: it lives and does nothing, as under a debugger or in a long pause of its machine.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// SIGCONT: it goes on and does not know that any time has passed.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).with_context(|| format!("signalling {}", self.plan.name))
    }

    /// SIGKILL: no time for anything.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("a killed process ends");
    }

    /// SIGTERM, then waits for the drain.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "{} does not end on SIGTERM:\n{}",
                self.plan.name,
                self.tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last lines of its output.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.plan.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // The test harness keeps it to itself unless the test fails.
        eprintln!("--- last output of {}:\n{}", self.plan.name, self.tail());
    }
}

/// What a GET of `url` answers if it is 200, head and body; by hand, so that it can be asked from blocking and asynchronous
/// tests alike.
pub fn get(url: &str) -> Option<String> {
    use std::io::{Read, Write};
    let (host, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut stream = std::net::TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// Runs a client command of `weir` to its end and gives its standard output.
///
/// # Errors
/// When it fails; with its standard error.
pub fn weir(endpoint: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(binary())
        .args(args)
        .env_clear()
        .envs(std::env::vars().filter(|(k, _)| !k.starts_with("WEIR_")))
        .env("WEIR_ENDPOINT", endpoint)
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        output.status.success(),
        "weir {} failed with {}:\n{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
