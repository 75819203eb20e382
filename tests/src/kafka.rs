//! A real Apache Kafka broker for tests and benchmarks: one node, broker and controller in one, on loopback.
//!
//! It needs Java 17 and Maven. The jars (56 MB) and an archive of loaded classes, which makes a start cost 2 s instead of
//! 6 s of CPU time, are made once in `$WEIR_CACHE`, else `$XDG_CACHE_HOME/weir`, else `~/.cache/weir`.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tempfile::TempDir;

/// Name of the folder in the cache; its jars are those of `kafka/pom.xml`.
const VERSION: &str = "kafka-4.3.1";
const READY: &str = "Kafka Server started";
/// A loaded machine may take its time.
const START: Duration = Duration::from_secs(90);
/// Base64url of a fixed UUID: the cluster's name is of no importance here.
const CLUSTER: &str = "V2VpclRlc3RDbHVzdGVyMQ";

/// A broker. Dropping it kills the process and deletes its data.
#[derive(Debug)]
pub struct KafkaBroker {
    home: Home,
    dir: TempDir,
    port: u16,
    security: Security,
    child: Mutex<Option<Child>>,
}

/// How clients reach the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    Plaintext,
    SaslSsl,
}

/// User and password of [`KafkaBroker::start_secure`], by SCRAM-SHA-512.
pub const CREDENTIALS: (&str, &str) = ("weir", "correct-horse");

/// The broker that the tests of one process share, each with topics of its own. It ends with the process.
///
/// # Panics
/// When no broker can be started: the reason is in the message.
pub fn shared() -> &'static KafkaBroker {
    static SHARED: OnceLock<KafkaBroker> = OnceLock::new();
    SHARED.get_or_init(|| KafkaBroker::start().unwrap_or_else(|e| panic!("no Kafka broker: {e:#}")))
}

impl KafkaBroker {
    /// Starts a broker on a free port and waits until it serves.
    pub fn start() -> Result<Self> {
        Self::start_on(None)
    }

    /// Starts a broker on this port, or a free one.
    pub fn start_on(port: Option<u16>) -> Result<Self> {
        Self::start_with(&Home::get()?, port, Security::Plaintext, &[])
    }

    /// Starts a broker that speaks TLS only and asks for [`CREDENTIALS`].
    pub fn start_secure() -> Result<Self> {
        Self::start_with(&Home::get()?, None, Security::SaslSsl, &[])
    }

    /// `host:port` for clients.
    pub fn bootstrap(&self) -> String {
        let host = match self.security {
            Security::Plaintext => "127.0.0.1",
            // As in the certificate.
            Security::SaslSsl => "localhost",
        };
        format!("{host}:{}", self.port)
    }

    /// The certificate authority that signed the broker's certificate (PEM).
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Ends the broker in order (SIGTERM).
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Kills the broker (SIGKILL). Its data stays.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and data.
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        self.launch(&[])
    }

    /// Waits until the process ends by itself.
    pub fn wait(&self) -> Result<()> {
        if let Some(mut child) = self.take() {
            let status = child.wait()?;
            ensure!(status.success(), "the broker ended with {status}:\n{}", self.log_tail());
        }
        Ok(())
    }

    fn start_with(home: &Home, port: Option<u16>, security: Security, jvm: &[String]) -> Result<Self> {
        let mut last = None;
        // Another process may take a free port before Kafka does.
        for _ in 0..5 {
            let dir = tempfile::Builder::new().prefix("weir-kafka-").tempdir()?;
            let port = port.map_or_else(free_port, Ok)?;
            let child = Mutex::new(None);
            let broker = Self { home: home.clone(), dir, port, security, child };
            broker.format()?;
            match broker.launch(jvm) {
                Ok(()) => return Ok(broker),
                Err(e) if broker.log_tail().contains("Address already in use") => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(last.expect("the loop ran")).context("every port was taken")
    }

    /// Writes the configuration and an empty, formatted data directory.
    fn format(&self) -> Result<()> {
        let (dir, port) = (self.dir.path(), self.port);
        let data = dir.join("data");
        fs::create_dir(&data)?;
        let controller = free_port()?;
        let mut properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={data}\n\
             offsets.topic.num.partitions=1\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.num.partitions=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             group.min.session.timeout.ms=1000\n\
             auto.create.topics.enable=false\n\
             log.cleaner.dedupe.buffer.size=2097152\n\
             num.network.threads=2\n\
             num.io.threads=4\n",
            data = data.display()
        );
        match self.security {
            Security::Plaintext => {
                properties += &format!(
                    "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                     advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
                     inter.broker.listener.name=PLAINTEXT\n\
                     listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
                );
            }
            Security::SaslSsl => {
                let internal = free_port()?;
                properties += &format!(
                    "listeners=CLIENT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller}\n\
                     advertised.listeners=CLIENT://localhost:{port},INTERNAL://127.0.0.1:{internal}\n\
                     inter.broker.listener.name=INTERNAL\n\
                     listener.security.protocol.map=CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                     listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
                     listener.name.client.scram-sha-512.sasl.jaas.config=\
                     org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
                     listener.name.client.ssl.keystore.type=PEM\n\
                     listener.name.client.ssl.keystore.location={}\n",
                    dir.join("keystore.pem").display()
                );
            }
        }
        fs::write(dir.join("server.properties"), properties)?;
        match self.security {
            // What StorageTool would write, without starting a JVM for it.
            Security::Plaintext => {
                let meta = format!("version=1\ncluster.id={CLUSTER}\nnode.id=1\ndirectory.id={CLUSTER}\n");
                fs::write(data.join("meta.properties"), meta)?;
                fs::write(
                    data.join("bootstrap.checkpoint"),
                    include_bytes!("../kafka/bootstrap.checkpoint"),
                )?;
            }
            Security::SaslSsl => {
                make_certificate(dir)?;
                let (user, password) = CREDENTIALS;
                run(Command::new(java())
                    .args([
                        "-cp",
                        &self.home.class_path()?,
                        "kafka.tools.StorageTool",
                        "format",
                        "-t",
                        CLUSTER,
                    ])
                    .arg("-c")
                    .arg(dir.join("server.properties"))
                    .args(["--add-scram", &format!("SCRAM-SHA-512=[name={user},password={password}]")]))?;
            }
        }
        Ok(())
    }

    fn launch(&self, jvm: &[String]) -> Result<()> {
        let dir = self.dir.path();
        let log = File::create(dir.join("broker.log"))?;
        let mut command = Command::new(java());
        command
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Xlog:cds=off", "-Xlog:cds+dynamic=off"])
            .args(if jvm.is_empty() { self.home.archive_options() } else { jvm.to_vec() })
            .arg(format!("-Dlog4j2.configurationFile={}", self.home.log4j().display()))
            .args(["-cp", &self.home.class_path()?, "kafka.Kafka"])
            .arg(dir.join("server.properties"))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        *self.child.lock().expect("no panic while it is held") = Some(spawn(command)?);

        let deadline = Instant::now() + START;
        while !self.log()?.contains(READY) {
            let ended = match &mut *self.child.lock().expect("no panic while it is held") {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if let Some(status) = ended {
                bail!("the broker ended with {status} while starting:\n{}", self.log_tail());
            }
            ensure!(
                Instant::now() < deadline,
                "the broker did not get ready in {START:?}:\n{}",
                self.log_tail()
            );
            // Kafka tells nobody but its log that it is ready.
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn take(&self) -> Option<Child> {
        self.child.lock().expect("no panic while it is held").take()
    }

    fn end(&self, signal: Signal) -> Result<()> {
        if let Some(mut child) = self.take() {
            // A process that has ended by itself is as good.
            let _ = kill_process(Pid::from_child(&child), signal);
            child.wait()?;
        }
        Ok(())
    }

    fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.path().join("broker.log"))?).into_owned())
    }

    fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What brokers have in common: jars, logging, the archive of classes.
#[derive(Clone, Debug)]
struct Home(PathBuf);

impl Home {
    /// The cache folder, filled if it has to be. One process fills it at a time.
    fn get() -> Result<Self> {
        let home = Self(crate::cache()?.join(VERSION));
        fs::create_dir_all(&home.0)?;
        let lock = File::create(home.0.join("lock"))?;
        lock.lock()?;
        fs::write(home.log4j(), include_bytes!("../kafka/log4j2.properties"))?;
        if !home.jars().is_dir() {
            home.fetch()
                .context("fetching Kafka with Maven (mvn and a JDK of version 17 or later are needed)")?;
        }
        if !home.archive().is_file() {
            home.make_archive().context("making the archive of classes")?;
        }
        Ok(home)
    }

    fn jars(&self) -> PathBuf {
        self.0.join("lib")
    }

    fn log4j(&self) -> PathBuf {
        self.0.join("log4j2.properties")
    }

    fn archive(&self) -> PathBuf {
        self.0.join("broker.jsa")
    }

    fn archive_options(&self) -> Vec<String> {
        vec![format!("-XX:SharedArchiveFile={}", self.archive().display())]
    }

    fn fetch(&self) -> Result<()> {
        let pom = self.0.join("pom.xml");
        fs::write(&pom, include_bytes!("../kafka/pom.xml"))?;
        let partial = self.0.join("lib.partial");
        run(Command::new("mvn")
            .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"])
            .arg(&pom)
            .arg(format!("-DoutputDirectory={}", partial.display())))?;
        fs::rename(partial, self.jars())?;
        Ok(())
    }

    /// The archive is only valid for this JVM and class path; otherwise the JVM ignores it, and the start is slower.
    fn make_archive(&self) -> Result<()> {
        let partial = self.0.join("broker.jsa.partial");
        let options = [format!("-XX:ArchiveClassesAtExit={}", partial.display())];
        let broker = KafkaBroker::start_with(self, None, Security::Plaintext, &options)?;
        broker.stop()?;
        fs::rename(partial, self.archive())?;
        Ok(())
    }

    /// Explicit and sorted: the archive belongs to exactly this class path.
    fn class_path(&self) -> Result<String> {
        let mut jars = Vec::new();
        for entry in fs::read_dir(self.jars())? {
            jars.push(entry?.path().display().to_string());
        }
        jars.sort_unstable();
        Ok(jars.join(":"))
    }
}

fn java() -> PathBuf {
    env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| Path::new(&home).join("bin/java"))
}

/// A free port below those that the system hands out by itself.
fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 20000 and 32000")
}

/// Starts a process that is killed when this one ends, however it ends.
///
/// Linux sends that signal when the *thread* that started the process ends, and test threads do: so one thread that
/// never ends starts them all.
fn spawn(mut command: Command) -> Result<Child> {
    type Order = (Command, mpsc::SyncSender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    // SAFETY: between fork and exec only an async-signal-safe system call is made.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, waiting) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in waiting {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::sync_channel(1);
    let program = command.get_program().to_owned();
    spawner.send((command, reply)).ok().context("the thread that starts processes is gone")?;
    answer.recv()?.with_context(|| format!("starting {}", program.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let text = |bytes: &[u8]| {
        BufReader::new(bytes).lines().map_while(Result::ok).take(60).collect::<Vec<_>>().join("\n")
    };
    ensure!(
        output.status.success(),
        "{} ended with {}:\n{}\n{}",
        command.get_program().display(),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(())
}

/// Makes `ca.pem` and `keystore.pem` (key, certificate for localhost, authority) with openssl.
fn make_certificate(dir: &Path) -> Result<()> {
    let file = |name: &str| dir.join(name).display().to_string();
    let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments));
    let (ca, ca_key) = (file("ca.pem"), file("ca.key"));
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let request = |more: &[&str]| openssl(&[&["req"], &new_key[..], more].concat());
    request(&["-x509", "-days", "2", "-subj", "/CN=weir test CA", "-keyout", &ca_key, "-out", &ca])?;
    let (key, csr, extensions, certificate) =
        (file("broker.key"), file("broker.csr"), file("broker.ext"), file("broker.pem"));
    request(&["-subj", "/CN=localhost", "-keyout", &key, "-out", &csr])?;
    fs::write(&extensions, "subjectAltName=DNS:localhost,IP:127.0.0.1\n")?;
    let sign = ["x509", "-req", "-days", "2", "-CAcreateserial"];
    let what = ["-in", &csr, "-CA", &ca, "-CAkey", &ca_key, "-extfile", &extensions, "-out", &certificate];
    openssl(&[&sign[..], &what[..]].concat())?;
    let pem = [key, certificate, ca].iter().map(fs::read_to_string).collect::<Result<String, _>>()?;
    fs::write(dir.join("keystore.pem"), pem)?;
    Ok(())
}
