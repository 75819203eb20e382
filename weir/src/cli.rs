//! The command line.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::commands::{
    bench::{self, Bench},
    completions, config,
    import::{self, Import},
    query::{self, Query},
    send::{self, Send},
    simulate::{self, Simulate},
    status, store,
    tail::{self, Tail},
    up::{self, Alone, Up},
};
use crate::launch::Service;

/// Real-time event analytics: send events, and a fraction of a second later query, chart and watch them
#[derive(Parser, Debug)]
#[command(
    name = "weir",
    version,
    arg_required_else_help = true,
    after_long_help = "Begin with:
  weir up                                  everything on this machine; prints where
  weir simulate --rate 200                 in a second terminal: some traffic
  weir query summary --last 1h --watch     in a third: watch it being counted

Exit codes: 0 done, 1 failed, 2 called wrongly. `weir COMMAND --help` explains each command with examples."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(Up),
    Send(Send),
    Import(Import),
    Query(Query),
    Tail(Tail),
    Status(status::StatusCommand),
    Store(store::StoreCommand),
    Simulate(Simulate),
    /// Run the producer alone: takes events in
    Producer(Alone),
    /// Run a consumer alone: deduplicates and aggregates
    Consumer(Alone),
    /// Run the analytics service alone: answers and watches
    Analytics(Alone),
    /// Run the gateway alone: REST, gRPC-Web and gRPC of all services at one address
    Gateway(Alone),
    Config(config::ConfigCommand),
    Bench(Bench),
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<()> {
        match self.command {
            Command::Up(args) => up::up(&args).await,
            Command::Producer(args) => up::alone(Service::Producer, &args).await,
            Command::Consumer(args) => up::alone(Service::Consumer, &args).await,
            Command::Analytics(args) => up::alone(Service::Analytics, &args).await,
            Command::Gateway(args) => up::alone(Service::Gateway, &args).await,
            Command::Send(args) => send::run(args).await,
            Command::Import(args) => import::run(args).await,
            Command::Query(args) => query::run(args).await,
            Command::Tail(args) => tail::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Store(args) => store::run(args).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Bench(args) => bench::run(args).await,
            Command::Config(args) => config::run(&args),
            Command::Completions(args) => completions::run(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
