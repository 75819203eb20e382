//! An S3-compatible server with conditional writes, for tests: moto, in memory, on loopback.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

use crate::python;

/// A bucket that is there.
pub const BUCKET: &str = "weir-test";
/// Region, key and secret that the server accepts, as it does any other.
pub const REGION: &str = "us-east-1";
/// See [`REGION`].
pub const KEY: &str = "test";

/// A server. It ends when its input does: with this process, however that ends.
#[derive(Debug)]
pub struct Server {
    url: String,
    child: Child,
}

/// The server that the tests of one process share, each with a prefix of its own in [`BUCKET`].
///
/// # Panics
/// When none can be started: the reason is in the message.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start().unwrap_or_else(|e| panic!("no S3-compatible server: {e:#}")))
}

impl Server {
    /// Starts a server and waits until it serves.
    pub fn start() -> Result<Self> {
        let mut child =
            python::script("s3_server.py")?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut url = String::new();
        BufReader::new(output).read_line(&mut url)?;
        let url = url.trim().to_owned();
        ensure!(url.starts_with("http://"), "s3_server.py ended without serving");
        Ok(Self { url, child })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
