//! `weir query`: questions and their answers as tables, charts, JSON or CSV.
//!
//! | module | what it is |
//! |---|---|
//! | [`form`] | arguments that questions share |
//! | [`measured`], [`funnel`], [`retention`], [`paths`] | questions that can be watched: arguments into requests; pure |
//! | [`question`] | such a question asked, once or for as long as it is watched |
//! | [`show`] | answers as text; pure |
//! | [`user`], [`discover`], [`export`], [`import`], [`sql`] | commands of their own shape |

mod discover;
mod export;
mod form;
mod funnel;
mod import;
mod measured;
mod paths;
mod question;
mod retention;
mod show;
mod sql;
mod user;

use anyhow::Result;
use clap::{Args, Subcommand};
use jiff::{Timestamp, tz::TimeZone};
use weir_proto::analytics::v1::ResultInfo;

use crate::{output, usage::Usage};

/// Ask: key figures, measures, funnels, retention, paths, one user, SQL; take events out
///
/// Ranges are given in UTC unless --zone says otherwise, and their end is not part of them. Every answer says how good it is:
/// up to when events are counted, and how large the error of an estimate is.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query events
  weir query summary --last 24h
  weir query time-series --last 7d --interval hour --measure count --measure unique_users
  weir query time-series --from 2024-01-01 --to 2024-07-01 --interval day --zone Asia/Kolkata --csv
  weir query breakdown --by platform --event purchase --measure revenue:EUR --last 30d
  weir query funnel --steps catalog,product_view,add_to_cart,purchase --window 1d --last 30d
  weir query retention --period week --last 90d
  weir query user user_000042
  weir query sql 'select event_name, count(*) from events group by 1 order by 2 desc'
  weir query summary --last 1h --watch")]
pub(crate) struct Query {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand, Debug)]
enum Kind {
    Summary(measured::Summary),
    TimeSeries(measured::TimeSeries),
    Breakdown(measured::Breakdown),
    Funnel(funnel::Funnel),
    Retention(retention::Retention),
    Paths(paths::Paths),
    User(user::User),
    Events(discover::Events),
    Properties(discover::Properties),
    Export(export::Export),
    Import(import::Import),
    Sql(sql::Sql),
}

/// Runs it.
pub(crate) async fn run(query: Query) -> Result<()> {
    let now = Timestamp::now();
    let asked = match query.kind {
        Kind::Summary(args) => args.asked(now),
        Kind::TimeSeries(args) => args.asked(now),
        Kind::Breakdown(args) => args.asked(now),
        Kind::Funnel(args) => args.asked(now),
        Kind::Retention(args) => args.asked(now),
        Kind::Paths(args) => args.asked(now),
        Kind::User(args) => return user::run(args, now).await,
        Kind::Events(args) => return discover::events(args, now).await,
        Kind::Properties(args) => return discover::properties(args, now).await,
        Kind::Export(args) => return export::run(args, now).await,
        Kind::Import(args) => return import::run(args).await,
        Kind::Sql(args) => return sql::run(args).await,
    };
    question::run(asked.map_err(Usage::from)?).await
}

/// Tells on standard error what an answer lacks, where standard output is for programs.
fn note_lacking(info: Option<&ResultInfo>, zone: &TimeZone) {
    info.into_iter().flat_map(|info| show::lacking(info, zone)).for_each(output::note);
}
