//! The one configuration of all services and of the `weir` binary.
//!
//! The defaults live in `default.toml`, with a comment on every key; [`Config::default`] parses that file, so what
//! `weir config` prints cannot differ from what runs. [`Config::load`] lays a file, the environment
//! (`WEIR__SECTION__KEY`) and overrides over it, in this order. A key that does not exist, or a value that does not fit,
//! is an [`Error`] that names the key, where it came from and what to write instead: an illegal configuration does not
//! start.
//!
//! Names with one underscore (`WEIR_ENDPOINT`, `WEIR_API_KEY`) belong to the command line client and are not read here.

mod bounds;
mod check;
mod error;
mod humane;
mod layers;
mod sections;

use std::path::PathBuf;

pub use bounds::{Bound, memory_table};
pub use error::{Error, Origin};
pub use humane::{Properties, Secret};
pub use sections::*;

/// The commented defaults, as `weir config` prints them.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Where the values that differ from the defaults come from; later fields win.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not start with `WEIR__` are ignored.
    pub env: Vec<(String, String)>,
    /// Dotted keys with their values, such as `("log.kind", "kafka")`.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// The environment of this process, with a file and overrides.
    pub fn from_process(file: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        // `vars()` panics at a variable that is not Unicode, whoever it belongs to.
        let env = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        Self { file, env, overrides }
    }
}

/// Whether passwords and keys are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// `(hidden)` instead.
    Hidden,
    /// As they are.
    Shown,
}

impl Default for Config {
    fn default() -> Self {
        Self::load(Sources::default()).expect("default.toml is complete and valid: held by a test")
    }
}

impl Config {
    /// Lays the sources over the defaults and checks the whole.
    ///
    /// # Errors
    /// [`Error`], for the first thing that is wrong: an unreadable file, an unknown key, a value of the wrong type or
    /// out of its range, values that contradict each other.
    pub fn load(sources: Sources) -> Result<Self, Error> {
        let mut config: Self = layers::Layers::new(&sources)?.parse()?;
        config.log.kafka.read_password_file()?;
        check::check(&config)?;
        config.allow_own_hosts();
        Ok(config)
    }

    /// What [`Config::load`] makes of the sources, as TOML: every key with the value in force.
    ///
    /// # Errors
    /// As of [`Config::load`].
    pub fn effective_toml(sources: Sources, secrets: Secrets) -> Result<String, Error> {
        let text = layers::Layers::new(&sources)?.to_toml(secrets);
        Self::load(sources)?;
        Ok(text)
    }

    /// Services of one configuration call each other by the names in its URLs.
    fn allow_own_hosts(&mut self) {
        let Gateway { producer_url, consumer_url, analytics_url, .. } = &self.gateway;
        let urls =
            [producer_url, consumer_url, analytics_url].into_iter().chain(&self.consumer.advertised_url);
        for url in urls {
            let host = url.parse::<http::Uri>().ok().and_then(|url| Some(url.host()?.to_owned()));
            // Addresses are known without.
            if let Some(host) = host.filter(|host| host.parse::<std::net::IpAddr>().is_err())
                && !self.server.allowed_hosts.contains(&host)
            {
                self.server.allowed_hosts.push(host);
            }
        }
    }

    /// Adds `offset` to every port that is still the default one, and to the upstream URLs that name such a port, so
    /// that a second system runs beside the first. Addresses that were configured stay as they are.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a port would exceed 65535.
    pub fn offset_ports(&mut self, offset: u16) -> Result<(), Error> {
        let defaults = Self::default();
        let shifted = |port: u16| {
            port.checked_add(offset).ok_or_else(|| Error::Conflict {
                reason: format!(
                    "port {port} + offset {offset} is over 65535; choose a smaller --port-offset"
                ),
            })
        };
        for (address, default) in self.addresses_mut().into_iter().zip(defaults.addresses()) {
            if *address == default {
                address.set_port(shifted(default.port())?);
            }
        }
        let upstreams = [
            (&mut self.gateway.producer_url, &defaults.gateway.producer_url, defaults.producer.grpc.port()),
            (&mut self.gateway.consumer_url, &defaults.gateway.consumer_url, defaults.consumer.grpc.port()),
            (
                &mut self.gateway.analytics_url,
                &defaults.gateway.analytics_url,
                defaults.analytics.grpc.port(),
            ),
        ];
        for (url, default, port) in upstreams {
            if url == default {
                *url = default.replace(&port.to_string(), &shifted(port)?.to_string());
            }
        }
        Ok(())
    }

    fn addresses(&self) -> [std::net::SocketAddr; 8] {
        let Self { producer, consumer, analytics, gateway, .. } = self;
        [
            producer.http,
            producer.grpc,
            consumer.http,
            consumer.grpc,
            consumer.internal,
            analytics.http,
            analytics.grpc,
            gateway.http,
        ]
    }

    fn addresses_mut(&mut self) -> [&mut std::net::SocketAddr; 8] {
        let Self { producer, consumer, analytics, gateway, .. } = self;
        [
            &mut producer.http,
            &mut producer.grpc,
            &mut consumer.http,
            &mut consumer.grpc,
            &mut consumer.internal,
            &mut analytics.http,
            &mut analytics.grpc,
            &mut gateway.http,
        ]
    }
}

#[cfg(test)]
mod tests;
