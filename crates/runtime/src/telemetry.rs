//! The tracing subscriber: the only global of a process.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogFormat, Telemetry};

/// The level is not one.
#[derive(Debug, thiserror::Error)]
#[error(
    "`telemetry.level` = \"{level}\": {reason}; expected error, warn, info, debug or trace, or directives such as \
     \"info,weir_consumer=debug\""
)]
pub struct Error {
    level: String,
    reason: String,
}

/// Sends log lines to standard error, so that standard output stays a program's own. `RUST_LOG`, when set, wins over the
/// configured level. A second call in a process (tests) changes nothing.
///
/// # Errors
/// When the level does not parse.
pub fn init(config: &Telemetry) -> Result<(), Error> {
    let level = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|level| !level.is_empty());
    let level = level.unwrap_or_else(|| config.level.clone());
    let filter = EnvFilter::builder()
        .parse(&level)
        .map_err(|error| Error { level: level.clone(), reason: error.to_string() })?;
    let pretty = match config.format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(true);
    // An error here means that a subscriber is set already, which is then kept.
    let _ = if pretty {
        registry.with(lines.compact().with_ansi(std::io::stderr().is_terminal())).try_init()
    } else {
        registry
            .with(lines.json().flatten_event(true).with_current_span(true).with_span_list(false))
            .try_init()
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn a_second_call_is_harmless_and_a_wrong_level_is_not() {
        let mut telemetry = Config::default().telemetry;
        init(&telemetry).unwrap();
        init(&telemetry).unwrap();
        telemetry.level = "weir=loud".to_owned();
        assert!(init(&telemetry).unwrap_err().to_string().contains("weir=loud"));
    }
}
