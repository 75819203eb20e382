//! Measures: over a range, over time, by values.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use weir_proto::analytics::v1::{
    Formula, GetSummaryRequest, Interval, Measure, QueryBreakdownRequest, QueryTimeSeriesRequest,
    watch_query_request::Query as Question,
};

use super::{
    form::{Form, Which},
    question::Asked,
    show::Frame,
};
use crate::{
    ask::{filter, measure, range::Range},
    client::Connection,
    moment,
};

/// Key figures beside those of the time before: events, users, sessions, revenue, top events
#[derive(Args, Debug)]
pub(super) struct Summary {
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

/// What is measured.
#[derive(Args, Debug, Clone)]
struct Measured {
    /// What to measure; repeatable: count, unique_users, sessions, visits, revenue, revenue:EUR, or sum, min, max, avg, median,
    /// p95, distinct with a property, as in p95:duration; each also of some of the events: 'count where event_name=purchase'
    #[arg(long = "measure", short, value_name = "MEASURE", value_parser = measure::parse, default_value = "count")]
    measures: Vec<Measure>,
    /// What to compute from the measures, A being the first: 'A / B' or 'conversion = 100 * A / B'; repeatable
    #[arg(long = "formula", value_name = "FORMULA", value_parser = measure::formula)]
    formulas: Vec<Formula>,
    /// Count users, sessions and distinct values one by one instead of estimating them
    #[arg(long)]
    exact: bool,
    /// Also show the range of the same length before, and the change
    #[arg(long)]
    compare: bool,
}

impl Measured {
    fn measures(&self) -> Vec<Measure> {
        self.measures.iter().map(|measure| Measure { exact: self.exact, ..measure.clone() }).collect()
    }

    fn frame(&self, range: &Range, group_by: &[String]) -> Frame {
        let formulas = self.formulas.iter().map(|formula| formula.name.clone());
        Frame {
            names: self.measures.iter().map(measure::name).chain(formulas).collect(),
            group_by: group_by.to_vec(),
            ..Frame::new(range.zone.clone())
        }
    }
}

/// Measures over time
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query time-series --last 7d --interval hour --measure count --measure unique_users
  weir query time-series --last 30d --interval day --measure p95:duration --by platform
  weir query time-series --last 90d --interval day --measure unique_users --rolling 7d
  weir query time-series --last 30d --measure 'unique_users where event_name=purchase' --measure unique_users \\
      --formula 'conversion = A / B'
  weir query time-series --last 7d --interval day --compare")]
pub(super) struct TimeSeries {
    /// Width of the buckets; after the range when left out
    #[arg(long)]
    interval: Option<Width>,
    #[command(flatten)]
    measured: Measured,
    /// One series for each value of this field; repeatable
    #[arg(long = "by", value_name = "FIELD")]
    group_by: Vec<String>,
    /// Series at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Measure in each bucket everything since the beginning of the range
    #[arg(long, conflicts_with = "rolling")]
    cumulative: bool,
    /// Measure in each bucket this long up to its end: a number of buckets, or with --interval a duration such as 7d
    #[arg(long, value_name = "LENGTH", value_parser = rolling)]
    rolling: Option<Rolling>,
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

/// Measures by the values of one or more fields, greatest first
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query breakdown --by event_name --measure count --measure unique_users --last 7d
  weir query breakdown --by platform --event purchase --measure revenue:EUR --last 30d --compare
  weir query breakdown --by context.os.name --by plan --measure visits --exact")]
pub(super) struct Breakdown {
    /// The field, such as event_name, platform or context.os.name; repeatable for combinations
    #[arg(long = "by", value_name = "FIELD", required = true)]
    group_by: Vec<String>,
    #[command(flatten)]
    measured: Measured,
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
    Quarter,
    Year,
}

impl Width {
    /// Seconds that it has, but for changes of the clock; months and longer have none.
    fn seconds(self) -> Option<u64> {
        match self {
            Self::Second => Some(1),
            Self::Minute => Some(60),
            Self::QuarterHour => Some(900),
            Self::Hour => Some(3600),
            Self::Day => Some(86_400),
            Self::Week => Some(604_800),
            Self::Month | Self::Quarter | Self::Year => None,
        }
    }
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
            Width::Quarter => Self::Quarter,
            Width::Year => Self::Year,
        }
    }
}

/// How much a rolling bucket covers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rolling {
    Buckets(u32),
    Seconds(u64),
}

fn rolling(text: &str) -> Result<Rolling, String> {
    match text.parse() {
        Ok(buckets) => Ok(Rolling::Buckets(buckets)),
        Err(_) => moment::duration(text).map(|length| Rolling::Seconds(length.as_secs())),
    }
}

impl Rolling {
    fn buckets(self, interval: Option<Width>) -> Result<u32, String> {
        match (self, interval.map(Width::seconds)) {
            (Self::Buckets(buckets), _) => Ok(buckets),
            (Self::Seconds(_), None | Some(None)) => {
                Err("--rolling with a duration needs --interval, up to week; or give a number of buckets"
                    .to_owned())
            }
            (Self::Seconds(length), Some(Some(width))) if length.is_multiple_of(width) && length > 0 => {
                u32::try_from(length / width).map_err(|_| "--rolling covers too many buckets".to_owned())
            }
            (Self::Seconds(_), Some(Some(_))) => {
                Err("--rolling must be a whole number of the buckets that --interval asks for".to_owned())
            }
        }
    }
}

impl Summary {
    pub(super) fn asked(self, now: Timestamp) -> Result<Asked, String> {
        let Self { range, limit, form, connection } = self;
        let question = Question::Summary(GetSummaryRequest {
            time_range: range.resolve(now)?,
            top_events: limit,
            min_consistency_token: form.token.clone(),
            explain: form.explain,
        });
        Ok(Asked { question, frame: Frame::new(range.zone), form, connection })
    }
}

impl TimeSeries {
    pub(super) fn asked(self, now: Timestamp) -> Result<Asked, String> {
        let Self {
            interval,
            measured,
            group_by,
            limit,
            cumulative,
            rolling,
            fill,
            range,
            which,
            form,
            connection,
        } = self;
        let frame =
            Frame { with_empty: fill, rolling: rolling.is_some(), ..measured.frame(&range, &group_by) };
        let question = Question::TimeSeries(QueryTimeSeriesRequest {
            time_range: range.resolve(now)?,
            interval: interval.map_or(Interval::Unspecified, Into::into).into(),
            time_zone: range.zone_name(),
            measures: measured.measures(),
            event_names: which.events,
            filter: filter::all_of(which.passing.filters),
            group_by,
            max_series: limit,
            // A chart's axis is time, whether anything happened or not.
            fill_empty: fill || form.has_chart(),
            min_consistency_token: form.token.clone(),
            formulas: measured.formulas,
            compare_previous: measured.compare,
            cumulative,
            rolling_buckets: rolling.map_or(Ok(0), |rolling| rolling.buckets(interval))?,
            explain: form.explain,
        });
        Ok(Asked { question, frame, form, connection })
    }
}

impl Breakdown {
    pub(super) fn asked(self, now: Timestamp) -> Result<Asked, String> {
        let Self { group_by, measured, limit, range, which, form, connection } = self;
        let frame = measured.frame(&range, &group_by);
        let question = Question::Breakdown(QueryBreakdownRequest {
            time_range: range.resolve(now)?,
            group_by,
            measures: measured.measures(),
            event_names: which.events,
            filter: filter::all_of(which.passing.filters),
            max_rows: limit,
            min_consistency_token: form.token.clone(),
            formulas: measured.formulas,
            compare_previous: measured.compare,
            explain: form.explain,
        });
        Ok(Asked { question, frame, form, connection })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TimeSeries,
    }

    fn asked(line: &str) -> Result<QueryTimeSeriesRequest, String> {
        let line = Line::try_parse_from(shell(line)).map_err(|error| error.to_string())?;
        match line.args.asked(Timestamp::UNIX_EPOCH)?.question {
            Question::TimeSeries(question) => Ok(question),
            other => panic!("{other:?}"),
        }
    }

    /// Arguments separated by `;`, after the program's name.
    fn shell(line: &str) -> impl Iterator<Item = &str> {
        std::iter::once("weir").chain(line.split(';').filter(|argument| !argument.is_empty()))
    }

    #[test]
    fn series_are_put_as_they_are_typed() {
        let question = asked(
            "--interval;day;-m;unique_users where event_name=purchase;-m;unique_users;--formula;rate = A/B;--exact;\
             --compare;--rolling;7d",
        )
        .unwrap();
        assert_eq!(question.measures.len(), 2);
        assert!(question.measures.iter().all(|measure| measure.exact));
        assert!(question.measures[0].filter.is_some() && question.measures[1].filter.is_none());
        assert_eq!((question.formulas[0].name.as_str(), question.rolling_buckets), ("rate", 7));
        assert!(question.compare_previous && !question.cumulative);
        assert_eq!(asked("--rolling;28").unwrap().rolling_buckets, 28);
    }

    #[test]
    fn a_rolling_length_must_fit_the_buckets() {
        for line in ["--rolling;7d", "--rolling;7d;--interval;month", "--rolling;36h;--interval;day"] {
            assert!(asked(line).unwrap_err().contains("--interval"), "{line}");
        }
        assert!(asked("--rolling;7;--cumulative").is_err());
    }
}
