//! `weir query`: questions and their answers as tables, charts, JSON or CSV.

mod show;

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use weir_proto::analytics::v1::{
    Filter, GetSummaryRequest, Interval, Measure, QueryBreakdownRequest, QueryTimeSeriesRequest,
    WatchQueryRequest, watch_query_request::Query as Question, watch_query_response::Result as Answer,
};

use crate::{
    ask::{filter, measure, range::Range},
    client::Connection,
    moment, output, protojson,
    usage::Usage,
};

/// Ask: key figures, measures over time, measures by values
///
/// Ranges are given in UTC unless --zone says otherwise, and their end is not part of them. Every answer says how good it is:
/// up to when events are counted, and how large the error of an estimate is.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query summary --last 24h
  weir query time-series --last 7d --interval hour --measure count --measure unique_users
  weir query time-series --from 2024-01-01 --to 2024-07-01 --interval day --zone Asia/Kolkata --csv
  weir query breakdown --by platform --event purchase --measure revenue:EUR --last 30d
  weir query summary --last 1h --watch")]
pub(crate) struct Query {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand, Debug)]
enum Kind {
    /// Key figures beside those of the time before: events, users, sessions, revenue, top events
    Summary(Summary),
    /// Measures over time
    TimeSeries(TimeSeries),
    /// Measures by the values of one or more fields, greatest first
    Breakdown(Breakdown),
}

/// How answers are given.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Answer")]
struct Form {
    /// Print the response message as JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV
    #[arg(long)]
    csv: bool,
    /// Draw a chart even where there is no terminal
    #[arg(long, overrides_with = "no_chart")]
    chart: bool,
    /// Draw no chart
    #[arg(long)]
    no_chart: bool,
    /// Go on: show the answer again whenever it changes
    #[arg(long, short, conflicts_with = "csv")]
    watch: bool,
    /// Wait until the events of this consistency token are counted
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    token: String,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = moment::duration)]
    timeout: Duration,
}

impl Form {
    fn has_chart(&self) -> bool {
        !self.json && !self.csv && (self.chart || (!self.no_chart && output::is_terminal()))
    }
}

/// Which events.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Events")]
struct Which {
    /// Only events of this name; repeatable
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,
    /// Only events that pass, such as 'platform=ios', 'plan in free, pro' or 'price > 10'; repeatable: all must hold
    #[arg(long = "where", value_name = "TEST", value_parser = filter::parse)]
    filters: Vec<Filter>,
}

#[derive(Args, Debug)]
struct Summary {
    /// Number of top events
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args, Debug)]
struct TimeSeries {
    /// Width of the buckets; after the range when left out
    #[arg(long)]
    interval: Option<Width>,
    /// What to measure; repeatable: count, unique_users, sessions, revenue, revenue:EUR, or sum, min, max, avg, median, p95 with a
    /// property, as in p95:duration
    #[arg(long = "measure", short, value_name = "MEASURE", value_parser = measure::parse, default_value = "count")]
    measures: Vec<Measure>,
    /// One series for each value of this field; repeatable
    #[arg(long = "by", value_name = "FIELD")]
    group_by: Vec<String>,
    /// Series at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Show buckets without events, too
    #[arg(long)]
    fill: bool,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args, Debug)]
struct Breakdown {
    /// The field, such as event_name, platform or context.os.name; repeatable for combinations
    #[arg(long = "by", value_name = "FIELD", required = true)]
    group_by: Vec<String>,
    /// What to measure, as for a time series; rows are in descending order of the first
    #[arg(long = "measure", short, value_name = "MEASURE", value_parser = measure::parse, default_value = "count")]
    measures: Vec<Measure>,
    /// Rows at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    connection: Connection,
}

/// Widths of buckets.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Width {
    Second,
    Minute,
    QuarterHour,
    Hour,
    Day,
    Week,
    Month,
}

impl From<Width> for Interval {
    fn from(width: Width) -> Self {
        match width {
            Width::Second => Self::Second,
            Width::Minute => Self::Minute,
            Width::QuarterHour => Self::QuarterHour,
            Width::Hour => Self::Hour,
            Width::Day => Self::Day,
            Width::Week => Self::Week,
            Width::Month => Self::Month,
        }
    }
}

/// A question with what is needed to show its answer.
struct Asked {
    question: Question,
    frame: show::Frame,
    form: Form,
    connection: Connection,
}

/// Runs it.
pub(crate) async fn run(query: Query) -> Result<()> {
    let asked = asked(query.kind, Timestamp::now()).map_err(Usage::from)?;
    if asked.form.watch { watch(asked).await } else { once(asked).await }
}

fn asked(kind: Kind, now: Timestamp) -> Result<Asked, String> {
    Ok(match kind {
        Kind::Summary(Summary { range, limit, form, connection }) => Asked {
            question: Question::Summary(GetSummaryRequest {
                time_range: range.resolve(now)?,
                top_events: limit,
                min_consistency_token: form.token.clone(),
            }),
            frame: frame(&range, &[], &[]),
            form,
            connection,
        },
        Kind::TimeSeries(TimeSeries {
            range,
            interval,
            measures,
            group_by,
            which,
            limit,
            fill,
            form,
            connection,
        }) => Asked {
            frame: show::Frame { with_empty: fill, ..frame(&range, &measures, &group_by) },
            question: Question::TimeSeries(QueryTimeSeriesRequest {
                time_range: range.resolve(now)?,
                interval: interval.map_or(Interval::Unspecified, Into::into).into(),
                time_zone: range.zone_name(),
                measures,
                event_names: which.events,
                filter: filter::all_of(which.filters),
                group_by,
                max_series: limit,
                // A chart's axis is time, whether anything happened or not.
                fill_empty: fill || form.has_chart(),
                min_consistency_token: form.token.clone(),
            }),
            form,
            connection,
        },
        Kind::Breakdown(Breakdown { range, group_by, measures, which, limit, form, connection }) => Asked {
            frame: frame(&range, &measures, &group_by),
            question: Question::Breakdown(QueryBreakdownRequest {
                time_range: range.resolve(now)?,
                group_by,
                measures,
                event_names: which.events,
                filter: filter::all_of(which.filters),
                max_rows: limit,
                min_consistency_token: form.token.clone(),
            }),
            form,
            connection,
        },
    })
}

fn frame(range: &Range, measures: &[Measure], group_by: &[String]) -> show::Frame {
    show::Frame {
        with_empty: false,
        zone: range.zone.clone(),
        names: measures.iter().map(measure::name).collect(),
        group_by: group_by.to_vec(),
    }
}

async fn once(asked: Asked) -> Result<()> {
    let mut client = asked.connection.analytics()?;
    fn request<T>(message: T, timeout: Duration) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(timeout);
        request
    }
    let timeout = asked.form.timeout;
    let answer = match asked.question {
        Question::Summary(question) => client
            .get_summary(request(question, timeout))
            .await
            .map(|answer| Answer::Summary(answer.into_inner())),
        Question::TimeSeries(question) => client
            .query_time_series(request(question, timeout))
            .await
            .map(|answer| Answer::TimeSeries(answer.into_inner())),
        Question::Breakdown(question) => client
            .query_breakdown(request(question, timeout))
            .await
            .map(|answer| Answer::Breakdown(answer.into_inner())),
    };
    let answer = answer.map_err(|status| asked.connection.explain(status))?;
    if asked.form.json {
        output::line(match &answer {
            Answer::Summary(answer) => protojson::to_pretty(answer),
            Answer::TimeSeries(answer) => protojson::to_pretty(answer),
            Answer::Breakdown(answer) => protojson::to_pretty(answer),
        })?;
    } else {
        print(&answer, &asked.frame, &asked.form)?;
    }
    Ok(())
}

async fn watch(asked: Asked) -> Result<()> {
    let request = WatchQueryRequest { query: Some(asked.question), min_interval: None };
    let explain = |status| asked.connection.explain(status);
    let mut stream = asked.connection.analytics()?.watch_query(request).await.map_err(explain)?.into_inner();
    while let Some(response) = stream.message().await.map_err(explain)? {
        if asked.form.json {
            output::line(protojson::to_line(&response))?;
        } else if let Some(answer) = &response.result {
            output::redraw(true)?;
            print(answer, &asked.frame, &asked.form)?;
        }
    }
    anyhow::bail!("the service closed the stream")
}

fn print(answer: &Answer, frame: &show::Frame, form: &Form) -> Result<()> {
    if form.csv {
        output::text(show::csv(answer, frame))?;
    } else {
        output::text(show::text(answer, frame, form.has_chart()))?;
    }
    Ok(())
}
