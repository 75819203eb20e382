//! `weir query import`: what became of an import.

use anyhow::Result;
use clap::Args;
use uuid::Uuid;
use weir_proto::analytics::v1::GetImportRequest;

use crate::{client::Connection, output, protojson, render::grouped};

/// What became of the events of an import
///
/// `weir import` prints the id. Events that were sent again after a broken connection are among the duplicates.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query import 0199a3c5-7d2b-7c41-9f0a-3b5d8e6f1a27")]
pub(super) struct Import {
    /// The import's id
    id: Uuid,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs it.
pub(super) async fn run(args: Import) -> Result<()> {
    let request = GetImportRequest { import_id: args.id.to_string(), ..GetImportRequest::default() };
    let answer = args.connection.analytics()?.get_import(request).await;
    let import =
        answer.map_err(|status| args.connection.explain(status))?.into_inner().import.unwrap_or_default();
    if args.json {
        return Ok(output::line(protojson::to_line(&import))?);
    }
    let number = |name: &str, number| (name.to_owned(), grouped(number));
    output::facts([
        number("counted", import.counted),
        number("duplicates", import.duplicates),
        number("dead-lettered", import.dead_lettered),
    ])?;
    if import.incomplete {
        output::note("the numbers may be too small: a partition has forgotten imports of that time");
    }
    Ok(())
}
