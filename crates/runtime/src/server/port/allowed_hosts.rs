//! Which names a server answers to.
//!
//! A web page can make its own name lead to an address of this machine (DNS rebinding) and then read what is served there, since
//! for the browser it is the page's own server. The name that the browser sends tells: only known ones are answered.

use std::{
    convert::Infallible,
    future::Ready,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{extract::Request, response::Response};
use futures::future::Either;
use http::{HeaderMap, StatusCode, Uri, Version, header, uri::Authority};
use tonic::{Status, transport::server::TcpConnectInfo};
use tower::{Layer, Service};

use super::protocol::Protocol;
use crate::status::Reason;

/// Refuses requests for other names, before anything is done for them.
#[derive(Debug, Clone)]
pub(super) struct AllowedHostsLayer(Arc<Hosts>);

impl AllowedHostsLayer {
    /// With the names of `server.allowed_hosts`.
    pub(super) fn new(allowed: &[String]) -> Self {
        Self(Arc::new(Hosts::new(allowed)))
    }
}

impl<S> Layer<S> for AllowedHostsLayer {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked { inner, hosts: self.0.clone() }
    }
}

/// See [`AllowedHostsLayer`].
#[derive(Debug, Clone)]
pub(super) struct Checked<S> {
    inner: S,
    hosts: Arc<Hosts>,
}

impl<S> Service<Request> for Checked<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let local = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::local_addr);
        match self.hosts.check(request.version(), request.uri(), request.headers(), local) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(refusal) => {
                let mut response = Protocol::of(&request).refuse(refusal.status);
                *response.status_mut() = refusal.http;
                Either::Right(std::future::ready(Ok(response)))
            }
        }
    }
}

/// The names of `server.allowed_hosts`, beside those that need not be configured: addresses of the connection and of loopback, and
/// `localhost`.
#[derive(Debug, Clone, Default)]
struct Hosts {
    any: bool,
    names: Vec<String>,
}

/// Why a request is not answered, and the HTTP status for it.
#[derive(Debug)]
struct Refusal {
    http: StatusCode,
    status: Status,
}

impl Hosts {
    fn new(allowed: &[String]) -> Self {
        let names = allowed.iter().map(|name| canonical(name)).collect();
        Self { any: allowed.iter().any(|name| name == "*"), names }
    }

    /// Checks the names in a request that came to `local`.
    fn check(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
        local: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(malformed("the request has more than one Host header; send one"));
        }
        let host = match host {
            None => None,
            Some(text) => {
                let parsed = text.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
                let parsed = parsed.filter(|host| !host.as_str().contains('@'));
                Some(parsed.ok_or_else(|| malformed("the Host header is no host name or address"))?)
            }
        };
        // HTTP/1.0 has no Host; what still speaks it is no browser.
        if host.is_none() && uri.authority().is_none() && version >= Version::HTTP_11 {
            return Err(malformed("the request names no host; send a Host header (HTTP/2: :authority)"));
        }
        for authority in host.iter().chain(uri.authority()) {
            if !self.allows(authority.host(), local) {
                return Err(Refusal {
                    http: StatusCode::MISDIRECTED_REQUEST,
                    status: Reason::HostUnknown.status(format!(
                        "this server does not answer to the name {:?}; use its address, or add the name to \
                         server.allowed_hosts",
                        authority.host()
                    )),
                });
            }
        }
        Ok(())
    }

    fn allows(&self, host: &str, local: Option<SocketAddr>) -> bool {
        let name = canonical(host);
        if self.any || self.names.contains(&name) {
            return true;
        }
        match name.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                address.is_loopback() || local.is_some_and(|local| local.ip().to_canonical() == address)
            }
            Err(_) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

/// Without the dot that a fully qualified name may end with, and in lower case.
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn malformed(what: &str) -> Refusal {
    Refusal { http: StatusCode::BAD_REQUEST, status: Reason::BodyMalformed.status(what) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], version: Version, uri: &str, hosts: &[&str]) -> u16 {
        let hosts = hosts.iter().map(|host| (header::HOST, host.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in hosts {
            headers.append(name, value);
        }
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let local = Some("10.1.2.3:8080".parse().unwrap());
        let checked = Hosts::new(&allowed).check(version, &uri.parse().unwrap(), &headers, local);
        checked.map_or_else(|refusal| refusal.http.as_u16(), |()| 200)
    }

    #[test]
    fn a_server_answers_to_its_addresses_and_its_names() {
        let http1 = |hosts: &[&str]| check(&["Weir.example"], Version::HTTP_11, "/v1", hosts);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "weir.localhost",
            "127.0.0.1:8080",
            "127.8.8.8",
            "[::1]:8080",
            "10.1.2.3",
            "10.1.2.3:9",
            "[::ffff:10.1.2.3]",
            "weir.example",
            "WEIR.example.:80",
        ] {
            assert_eq!(http1(&[host]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "10.1.2.4",
            "[::2]",
            "weir.example.evil.example",
            "localhost.evil.example",
            "0.0.0.0",
            "localhost..",
            "2130706433",
            "0x7f000001",
        ] {
            assert_eq!(http1(&[host]), 421, "{host}");
        }
        for hosts in [
            &[][..],
            &["localhost", "localhost"],
            &["localhost, evil.example"],
            &["a@localhost"],
            &[""],
            &["a/b"],
        ] {
            assert_eq!(http1(hosts), 400, "{hosts:?}");
        }
        assert_eq!(check(&["*"], Version::HTTP_11, "/", &["evil.example"]), 200);
    }

    #[test]
    fn every_form_of_the_name_is_checked() {
        let check = |version, uri: &str, hosts: &[&str]| check(&[], version, uri, hosts);
        assert_eq!(check(Version::HTTP_11, "http://evil.example/v1", &["localhost"]), 421);
        assert_eq!(check(Version::HTTP_11, "http://localhost/v1", &["evil.example"]), 421);
        assert_eq!(check(Version::HTTP_11, "http://localhost/v1", &["localhost"]), 200);
        assert_eq!(check(Version::HTTP_2, "http://localhost:1/v1", &[]), 200);
        assert_eq!(check(Version::HTTP_2, "http://evil.example/v1", &[]), 421);
        assert_eq!(check(Version::HTTP_2, "http://localhost/v1", &["evil.example"]), 421);
        assert_eq!(check(Version::HTTP_2, "/v1", &[]), 400);
        assert_eq!(check(Version::HTTP_10, "/healthz", &[]), 200);
        assert_eq!(check(Version::HTTP_10, "/healthz", &["evil.example"]), 421);
    }
}
