//! `weir query retention`.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use weir_proto::analytics::v1::{
    EventSelector, QueryRetentionRequest, RetentionPeriod, query_retention_request::CohortKind,
    watch_query_request::Query as Question,
};

use super::{
    form::{Form, Passing},
    question::Asked,
    show::Frame,
};
use crate::{
    ask::{range::Range, selector},
    client::Connection,
};

/// Count how many users come back, period by period
///
/// A user belongs to the cohort of the period of their first event in the range, or, with --recurring, of every period in
/// which they have one.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir query retention --period week --last 90d
  weir query retention --period day --start signup --return 'purchase where amount > 10' --periods 14 --last 30d
  weir query retention --period month --recurring --by platform --from 2024-01-01 --to 2024-07-01 --csv")]
pub(super) struct Retention {
    /// Width of the periods
    #[arg(long, default_value = "week")]
    period: Period,
    /// Events that bring a user into a cohort, such as signup or 'a|b where plan = pro'; any when left out
    #[arg(long, value_name = "EVENTS", value_parser = selector::parse)]
    start: Option<EventSelector>,
    /// Events by which a user has come back; any when left out
    #[arg(long = "return", value_name = "EVENTS", value_parser = selector::parse)]
    returning: Option<EventSelector>,
    /// Users are in the cohort of every period in which they have a start event, not only of the first
    #[arg(long)]
    recurring: bool,
    /// Follow each cohort for this many periods at most, its own among them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=400))]
    periods: Option<u32>,
    /// Cohorts also by the values of this field; repeatable
    #[arg(long = "by", value_name = "FIELD")]
    group_by: Vec<String>,
    /// Groups at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    passing: Passing,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Period {
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Retention {
    pub(super) fn asked(self, now: Timestamp) -> Result<Asked, String> {
        let Self {
            period,
            start,
            returning,
            recurring,
            periods,
            group_by,
            limit,
            range,
            passing,
            form,
            connection,
        } = self;
        let frame = Frame { group_by: group_by.clone(), ..Frame::new(range.zone.clone()) };
        let kind = if recurring { CohortKind::Recurring } else { CohortKind::FirstTime };
        let question = Question::Retention(QueryRetentionRequest {
            time_range: range.resolve(now)?,
            period: match period {
                Period::Day => RetentionPeriod::Day,
                Period::Week => RetentionPeriod::Week,
                Period::Month => RetentionPeriod::Month,
                Period::Quarter => RetentionPeriod::Quarter,
                Period::Year => RetentionPeriod::Year,
            }
            .into(),
            time_zone: range.zone_name(),
            cohort_kind: kind.into(),
            start_event: selector::narrowed(start, &passing.filters),
            return_event: selector::narrowed(returning, &passing.filters),
            group_by,
            periods: periods.unwrap_or(0),
            max_groups: limit,
            min_consistency_token: form.token.clone(),
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
        args: Retention,
    }

    #[test]
    fn tests_hold_for_start_and_return() {
        let line = ["weir", "--period", "day", "--start", "signup", "--where", "plan=pro", "--recurring"];
        let asked = Line::try_parse_from(line).unwrap().args.asked(Timestamp::UNIX_EPOCH).unwrap();
        let Question::Retention(question) = asked.question else { panic!("{:?}", asked.question) };
        assert_eq!(
            (question.period(), question.cohort_kind()),
            (RetentionPeriod::Day, CohortKind::Recurring)
        );
        let (start, returning) = (question.start_event.unwrap(), question.return_event.unwrap());
        assert_eq!((start.event_names.len(), returning.event_names.len()), (1, 0));
        assert!(start.filter.is_some() && start.filter == returning.filter);
    }
}
