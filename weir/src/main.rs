//! The `weir` binary: every service, and the command line that speaks to them.
//!
//! It deliberately decides nothing: services live in their crates, and a command only turns arguments into calls and answers
//! into text.
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`], [`commands`] | what can be typed, one module a command |
//! | [`client`] | how to reach a running Weir, and what its errors mean; the calls themselves are in `weir_client` |
//! | [`ask`], [`moment`], [`money`] | questions, times and amounts as people write them; pure |
//! | [`render`], [`protojson`], [`output`] | answers for people and for programs |
//! | [`settings`], [`launch`], [`probe`] | the services: their configuration, their start, whether they are ready |
//! | [`usage`] | errors in the call |
//! | [`allocator`] | the allocator, and memory going back to the system |

mod allocator;
mod ask;
mod cli;
mod client;
mod commands;
mod launch;
mod moment;
mod money;
mod output;
mod probe;
mod protojson;
mod render;
mod settings;
mod usage;

use std::{io, process::ExitCode};

use clap::Parser as _;

fn main() -> ExitCode {
    allocator::configure();
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cli.run());
    // Not waiting: a thread may be reading standard input, which nobody will end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough: `weir query … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let said = render::printable(&format!("{error:#}"));
            anstream::eprintln!("{} {said}", render::paint(render::BAD, "error:"));
            ExitCode::from(if error.is::<usage::Usage>() { 2 } else { 1 })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(is_pipe)
}
