//! `weir config`: the settings there are, and those in force.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use weir_runtime::{
    Config,
    config::{DEFAULT_TOML, Secrets, Sources, memory_table},
};

use crate::{output, settings::Settings};

/// Print every setting with its default, or check a file
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir config > weir.toml                 a file to start from: keep only what differs
  weir config check weir.toml             names the key, the value and what to write instead
  weir config --effective --config weir.toml --set consumer.dedup_window=2h")]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print what is in force after the file, the environment and --set, instead of the defaults
    #[arg(long)]
    effective: bool,
    /// With --effective: print passwords and keys instead of (hidden)
    #[arg(long, requires = "effective")]
    show_secrets: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Check a file, with the environment laid over it
    Check {
        /// The file
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Runs it.
pub(crate) fn run(args: &ConfigCommand) -> Result<()> {
    if let Some(Action::Check { file }) = &args.action {
        Config::load(Sources::from_process(Some(file.clone()), Vec::new()))?;
        output::line(format_args!("{} is valid", file.display()))?;
    } else if args.effective {
        let secrets = if args.show_secrets { Secrets::Shown } else { Secrets::Hidden };
        output::text(args.settings.effective_toml(secrets)?)?;
        output::text(memory_table(&args.settings.load()?))?;
    } else {
        output::text(DEFAULT_TOML)?;
        output::text(memory_table(&Config::load(Sources::default())?))?;
    }
    Ok(())
}
