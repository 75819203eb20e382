//! `weir query paths`.

use std::time::Duration;

use clap::{ArgGroup, Args};
use jiff::Timestamp;
use weir_proto::analytics::v1::{
    CountBy, EventSelector, QueryPathsRequest, query_paths_request::Direction,
    watch_query_request::Query as Question,
};

use super::{
    form::{Counted, Form, Passing},
    question::Asked,
    show::Frame,
};
use crate::{
    ask::{filter, range::Range, selector},
    client::Connection,
    moment,
};

/// What users do after or before an event
#[derive(Args, Debug)]
#[command(
    group(ArgGroup::new("from_where").required(true)),
    after_long_help = "Examples:
  weir query paths --after catalog --last 30d
  weir query paths --before purchase --depth 5 --branches 3 --count-by session
  weir query paths --after 'search where results = 0' --max-gap 5m --fold"
)]
pub(super) struct Paths {
    /// Show what comes after this event, such as catalog or 'search|catalog where platform = ios'
    #[arg(long, value_name = "EVENTS", value_parser = selector::parse, group = "from_where")]
    after: Option<EventSelector>,
    /// Show what comes before this event
    #[arg(long, value_name = "EVENTS", value_parser = selector::parse, group = "from_where")]
    before: Option<EventSelector>,
    /// Events on a path at most, without the one that it begins at
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10))]
    depth: u32,
    /// Branches of each event at most: the most frequent
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    branches: u32,
    /// Time between two events of a path at most
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = moment::duration)]
    max_gap: Duration,
    /// Make paths of the values of this field, such as page, instead of names of events
    #[arg(long = "by", value_name = "FIELD", default_value = "", hide_default_value = true)]
    field: String,
    /// What is counted
    #[arg(long, default_value = "user")]
    count_by: Counted,
    /// Take the same event several times in a row for one
    #[arg(long)]
    fold: bool,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    passing: Passing,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    connection: Connection,
}

impl Paths {
    pub(super) fn asked(self, now: Timestamp) -> Result<Asked, String> {
        let Self {
            after,
            before,
            depth,
            branches,
            max_gap,
            field,
            count_by,
            fold,
            range,
            passing,
            form,
            connection,
        } = self;
        let direction = if after.is_some() { Direction::After } else { Direction::Before };
        let question = Question::Paths(QueryPathsRequest {
            time_range: range.resolve(now)?,
            event: after.or(before),
            direction: direction.into(),
            depth,
            max_branches: branches,
            max_gap: Some(moment::duration_to_proto(max_gap)),
            count_by: CountBy::from(count_by).into(),
            filter: filter::all_of(passing.filters),
            fold_repeats: fold,
            min_consistency_token: form.token.clone(),
            explain: form.explain,
            field,
        });
        Ok(Asked { question, frame: Frame::new(range.zone), form, connection })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Paths,
    }

    #[test]
    fn paths_go_one_way() {
        let line = ["weir", "--before", "purchase", "--depth", "2"];
        let asked = Line::try_parse_from(line).unwrap().args.asked(Timestamp::UNIX_EPOCH).unwrap();
        let Question::Paths(question) = asked.question else { panic!("{:?}", asked.question) };
        assert_eq!((question.direction(), question.depth), (Direction::Before, 2));
        assert_eq!(question.event.unwrap().event_names, ["purchase"]);
        for line in [&["weir"][..], &["weir", "--after", "a", "--before", "b"]] {
            assert!(Line::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}
