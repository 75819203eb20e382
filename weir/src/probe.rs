//! Asks a service over HTTP whether it is ready.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// A service on this machine answers in less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether `/readyz` answers 200.
pub(crate) async fn is_ready(address: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .ok()?;
        // "HTTP/1.1 200".
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.ok()?;
        Some(start.ends_with(b" 200"))
    };
    timeout(PATIENCE, asked).await.ok().flatten().unwrap_or(false)
}
