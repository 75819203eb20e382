//! How fast questions about many events are answered: makes the events, then answers the questions of `compare.py` one line at a
//! time. `make bench-store` runs all of it.
//!
//! - `generate FOLDER [--events N] [--segments N]` writes a store;
//! - `answer FOLDER [--threads N]` reads the names of [`questions`] from its input, and for each writes a line of JSON with the
//!   seconds it took, the CPU seconds of all threads, what was read, and the answer.

mod events;
mod questions;

use std::{
    error::Error,
    io::{BufRead as _, Write as _, stdin, stdout},
    time::Instant,
};

use rustix::time::{ClockId, clock_gettime};
use weir_store::{Settings, Store};

/// What the binary uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// CPU time of this process or thread, seconds.
fn cpu_seconds(of: ClockId) -> f64 {
    let spent = clock_gettime(of);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// The number that follows an option.
fn option(arguments: &[String], name: &str, default: u64) -> Result<u64> {
    match arguments.iter().position(|argument| argument == name) {
        None => Ok(default),
        Some(at) => {
            let number = arguments.get(at + 1).and_then(|number| number.replace('_', "").parse().ok());
            Ok(number.ok_or_else(|| format!("{name} needs a number"))?)
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, folder, ..] = arguments.as_slice() else {
        return Err(
            "usage: bench_store generate|answer FOLDER [--events N] [--segments N] [--threads N]".into()
        );
    };
    let columns = events::COLUMNS.map(str::to_owned).to_vec();
    let settings = Settings { columns, ..Settings::folder(folder) };
    let runtime = tokio::runtime::Runtime::new()?;
    let store = runtime.block_on(Store::open(settings))?;
    match command.as_str() {
        "generate" => {
            let count = option(&arguments, "--events", 10_000_000)?;
            let segments = option(&arguments, "--segments", 12)?;
            let (started, before) = (Instant::now(), cpu_seconds(ClockId::ProcessCPUTime));
            let made = runtime.block_on(events::write(&store, count, segments))?;
            let report = serde_json::json!({
                "events": count,
                "users": made.users,
                "segments": made.segments,
                "bytes": made.bytes,
                "seconds": started.elapsed().as_secs_f64(),
                "cpu": cpu_seconds(ClockId::ProcessCPUTime) - before,
                "cpu_generating": made.cpu_generating,
            });
            println!("{report}");
        }
        "answer" => {
            let threads = option(&arguments, "--threads", 2)? as usize;
            let asker = runtime.block_on(questions::Asker::new(&store, threads))?;
            for question in stdin().lock().lines() {
                let (started, before) = (Instant::now(), cpu_seconds(ClockId::ProcessCPUTime));
                let (answer, read) = runtime.block_on(asker.ask(&question?))?;
                let line = serde_json::json!({
                    "seconds": started.elapsed().as_secs_f64(),
                    "cpu": cpu_seconds(ClockId::ProcessCPUTime) - before,
                    "rows_read": read.rows,
                    "bytes_read": read.bytes,
                    "answer": answer,
                });
                println!("{line}");
                stdout().flush()?;
            }
        }
        other => return Err(format!("{other} is neither generate nor answer").into()),
    }
    Ok(())
}
