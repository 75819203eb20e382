//! Binding a service's ports, with errors that say who is in the way.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

/// The bound ports of one service. Port 0 asks the system for a free one, which the addresses then name.
#[derive(Debug)]
pub struct Listeners {
    /// REST, gRPC-Web, health and metrics.
    pub http: TcpListener,
    /// gRPC; the gateway has none.
    pub grpc: Option<TcpListener>,
    /// What other services of Weir ask for.
    pub internal: Option<TcpListener>,
}

/// Why a port could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens there.
    #[error(
        "{address} is in use{}; stop it, configure another address, or shift every default port with \
         --port-offset N",
        holder.as_deref().map(|holder| format!(" by {holder}")).unwrap_or_default()
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// The process that has it, where the system tells: `weir (pid 4711)`.
        holder: Option<String>,
    },
    /// Other machines could reach it, without any authentication.
    #[error(
        "{address} can be reached from other machines, and nothing authenticates them yet; listen on 127.0.0.1, or \
         accept it with --insecure (`server.insecure`)"
    )]
    Exposed {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else: a port below 1024, an address that this machine does not have.
    #[error("cannot listen on {address}: {source}")]
    Refused {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Listeners {
    /// Binds both ports or none.
    ///
    /// # Errors
    /// [`Error`]; an address other than loopback is refused unless `insecure`, and is then warned about.
    pub async fn bind(http: SocketAddr, grpc: Option<SocketAddr>, insecure: bool) -> Result<Self, Error> {
        let grpc = match grpc {
            Some(address) => Some(bind(address, insecure).await?),
            None => None,
        };
        Ok(Self { http: bind(http, insecure).await?, grpc, internal: None })
    }

    /// Binds a port for other services of Weir, too.
    ///
    /// # Errors
    /// As of [`Listeners::bind`].
    pub async fn with_internal(self, address: SocketAddr, insecure: bool) -> Result<Self, Error> {
        Ok(Self { internal: Some(bind(address, insecure).await?), ..self })
    }

    /// The address of the internal port.
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(|listener| listener.local_addr().expect("a bound socket has an address"))
    }

    /// The address of the HTTP port.
    pub fn http_address(&self) -> SocketAddr {
        self.http.local_addr().expect("a bound socket has an address")
    }

    /// The address of the gRPC port.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(|listener| listener.local_addr().expect("a bound socket has an address"))
    }
}

async fn bind(address: SocketAddr, insecure: bool) -> Result<TcpListener, Error> {
    if !address.ip().is_loopback() {
        if !insecure {
            return Err(Error::Exposed { address });
        }
        tracing::warn!(%address, "listening beyond this machine without authentication");
    }
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::InUse { address, holder: holder(address.port()) },
        _ => Error::Refused { address, source },
    })
}

/// The process that listens on `port`, from /proc: the socket's inode, then the process that has it open. Only processes
/// of the same user show their sockets; elsewhere than on Linux there is nothing to read.
fn holder(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let local_port = fields.get(1)?.rsplit(':').next()?;
            let listens = *fields.get(3)? == LISTEN && u16::from_str_radix(local_port, 16) == Ok(port);
            listens.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
        })
    })?;
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let open = std::fs::read_dir(process.path().join("fd")).ok()?;
        let holds = open
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == inode.as_str()));
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        holds.then(|| format!("{} (pid {pid})", name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[tokio::test]
    async fn port_0_is_resolved() {
        let listeners = Listeners::bind(ANY, Some(ANY), false).await.unwrap();
        assert_ne!(listeners.http_address().port(), 0);
        assert_ne!(listeners.http_address(), listeners.grpc_address().unwrap());
        assert!(Listeners::bind(ANY, None, false).await.unwrap().grpc_address().is_none());
    }

    #[tokio::test]
    async fn an_occupied_port_names_its_holder() {
        let first = Listeners::bind(ANY, None, false).await.unwrap();
        let error = Listeners::bind(first.http_address(), None, false).await.unwrap_err().to_string();
        assert!(
            error.contains(&first.http_address().to_string()) && error.contains("--port-offset"),
            "{error}"
        );
        if cfg!(target_os = "linux") {
            assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        }
    }

    #[tokio::test]
    async fn other_machines_are_kept_out_unless_accepted() {
        let everywhere = "0.0.0.0:0".parse().unwrap();
        let error = Listeners::bind(everywhere, None, false).await.unwrap_err();
        assert!(matches!(error, Error::Exposed { .. }), "{error}");
        Listeners::bind(everywhere, None, true).await.unwrap();
    }
}
