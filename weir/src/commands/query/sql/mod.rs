//! `weir query sql`: one statement, or a prompt.
//!
//! | module | what it is |
//! |---|---|
//! | [`answer`] | an answer as it arrives, as a table, JSON or CSV |
//! | [`words`] | what can be completed in a statement; pure |
//! | [`prompt`] | the prompt: editing, completion, history |

mod answer;
mod prompt;
mod words;

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result};
use clap::Args;
use weir_proto::analytics::v1::QuerySqlRequest;

use super::form::Shape;
use crate::{client::Connection, usage::Usage};

/// Ask in SQL: one statement, or a prompt when none is given
///
/// There is one table, `events`, with the events of your project; `describe events` lists its columns. Statements only read.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query sql 'select event_name, count(*) from events group by 1 order by 2 desc'
  weir query sql 'describe events'
  weir query sql --csv < question.sql > answer.csv
  weir query sql")]
pub(super) struct Sql {
    /// The statement; from standard input when that is no terminal
    statement: Option<String>,
    /// Rows at most
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Wait until the events of this consistency token are counted
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    token: String,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Runs it.
pub(super) async fn run(args: Sql) -> Result<()> {
    let mut args = args;
    let statement = match args.statement.take() {
        Some(statement) => statement,
        None if std::io::stdin().is_terminal() => return prompt::run(&args).await,
        None => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the statement from standard input")?;
            text
        }
    };
    if statement.trim().is_empty() {
        return Err(Usage::from("the statement is empty".to_owned()).into());
    }
    ask(&args, &statement).await
}

/// Asks a statement and prints its answer.
async fn ask(args: &Sql, statement: &str) -> Result<()> {
    let request = QuerySqlRequest {
        // One that ends in a semicolon is one statement all the same.
        statement: statement.trim().trim_end_matches(';').to_owned(),
        max_rows: args.limit,
        min_consistency_token: args.token.clone(),
    };
    let explain = |status| args.connection.explain(status);
    let stream =
        args.connection.analytics()?.query_sql(args.shape.request(request)).await.map_err(explain)?;
    answer::print(stream.into_inner(), &args.shape, &args.connection).await
}
