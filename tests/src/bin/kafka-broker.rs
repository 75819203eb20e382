//! A Kafka broker to try things on: `cargo run --release -p weir-tests --bin kafka-broker -- --port 9092`.
//!
//! It runs until Ctrl-C; its data goes with it.

use anyhow::{Context, Result, bail};
use weir_tests::kafka::KafkaBroker;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut port = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--port" => port = Some(arguments.next().context("--port needs a number")?.parse()?),
            other => bail!("unknown argument {other:?}; usage: kafka-broker [--port N]"),
        }
    }
    let broker = KafkaBroker::start_on(port)?;
    println!("Kafka serves {}; Ctrl-C ends it", broker.bootstrap());
    broker.wait()
}
