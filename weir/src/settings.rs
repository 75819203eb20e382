//! How the services are configured from the command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use weir_runtime::{
    Config,
    config::{Secrets, Sources},
};

/// File, overrides and their shorthands.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct Settings {
    /// A TOML file with the settings that differ from the defaults; see `weir config`
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Any setting, such as --set consumer.dedup_window=2h
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// Where files are kept (data_dir); .weir when left out
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Kafka brokers as host:port,… (log.kind = kafka, log.kafka.brokers)
    #[arg(long, value_name = "BROKERS")]
    pub(crate) kafka_brokers: Option<String>,
    /// Add N to every default port, to run beside another Weir
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    /// Allow addresses that other machines reach, although nothing authenticates them (server.insecure)
    #[arg(long)]
    pub(crate) insecure: bool,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("expected SECTION.KEY=VALUE".to_owned()),
    }
}

impl Settings {
    fn overrides(&self) -> Vec<(String, String)> {
        let mut overrides = self.set.clone();
        let mut put = |key: &str, value: String| overrides.push((key.to_owned(), value));
        if let Some(path) = &self.data_dir {
            put("data_dir", path.display().to_string());
        }
        if let Some(brokers) = &self.kafka_brokers {
            put("log.kind", "kafka".to_owned());
            put("log.kafka.brokers", brokers.clone());
        }
        if self.insecure {
            put("server.insecure", "true".to_owned());
        }
        overrides
    }

    /// The configuration that they make, as TOML.
    ///
    /// # Errors
    /// As of [`Settings::load`].
    pub(crate) fn effective_toml(&self, secrets: Secrets) -> Result<String> {
        let config = self.load()?;
        let mut overrides = self.overrides();
        if self.port_offset > 0 {
            let Config { producer, consumer, analytics, gateway, .. } = config;
            overrides.extend(
                [
                    ("producer.http", producer.http.to_string()),
                    ("producer.grpc", producer.grpc.to_string()),
                    ("consumer.http", consumer.http.to_string()),
                    ("consumer.grpc", consumer.grpc.to_string()),
                    ("analytics.http", analytics.http.to_string()),
                    ("analytics.grpc", analytics.grpc.to_string()),
                    ("gateway.http", gateway.http.to_string()),
                    ("gateway.producer_url", gateway.producer_url),
                    ("gateway.consumer_url", gateway.consumer_url),
                    ("gateway.analytics_url", gateway.analytics_url),
                ]
                .map(|(key, value)| (key.to_owned(), value)),
            );
        }
        Ok(Config::effective_toml(Sources::from_process(self.config.clone(), overrides), secrets)?)
    }

    /// The configuration that they make with the environment.
    ///
    /// # Errors
    /// The first setting that is wrong, with where it was written.
    pub(crate) fn load(&self) -> Result<Config> {
        let mut config = Config::load(Sources::from_process(self.config.clone(), self.overrides()))?;
        if self.port_offset > 0 {
            config.offset_ports(self.port_offset)?;
        }
        Ok(config)
    }
}
