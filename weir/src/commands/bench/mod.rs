//! `weir bench`: how fast it is, measured with real processes and, where results are made, checked against counts kept
//! beside them.

mod child;
mod consume;
mod funnels;
mod ingest;
mod latency;
mod oracle;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Measure: events in, processing, and the time until an event is visible
///
/// Each benchmark starts the services it measures as child processes with data of their own in a temporary folder, and prints
/// what it found as a table or, with --json, as JSON. On Kafka, topics get names of their own and are left behind: delete
/// those that begin with weir-bench-.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir bench ingest --seconds 10
  weir bench latency --rate 2000 --seconds 20 --kafka localhost:9092 --apart
  weir bench consume --events 5000000 --duplicates 0.02 --json")]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Acknowledged events a second by single calls, batches and streams
    Ingest(ingest::Ingest),
    /// Time from the call that sends an event until a live query and an ad-hoc funnel count it
    Latency(latency::Latency),
    /// CPU time for processing events that lie in the log, every result checked
    Consume(consume::Consume),
}

/// Runs it.
pub(crate) async fn run(bench: Bench) -> Result<()> {
    match bench.what {
        What::Ingest(args) => ingest::run(args).await,
        What::Latency(args) => latency::run(args).await,
        What::Consume(args) => consume::run(args).await,
    }
}
