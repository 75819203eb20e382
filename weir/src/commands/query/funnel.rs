//! `weir query funnel`.

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use jiff::Timestamp;
use weir_proto::analytics::v1::{
    CountBy, FunnelExclusion, FunnelStep, QueryFunnelRequest, query_funnel_request,
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

/// Count how many get through a sequence of steps, and how long they take
///
/// Somebody reaches a step when, within the window, they did all the steps before it and then this one; other events may lie
/// between. Every possible first event is tried and the deepest chain counts.
#[derive(Args, Debug)]
#[command(
    group(ArgGroup::new("what").required(true)),
    after_long_help = "Examples:
  weir query funnel --steps catalog,product_view,add_to_cart,purchase --last 30d
  weir query funnel --steps catalog,product_view,purchase --window 7d --by platform --last 90d
  weir query funnel --step 'search|catalog' --step 'Pays much: purchase where amount > 100' --window 1h
  weir query funnel --steps cart,purchase --exclude error_page --exclude '1-2: support_chat' --count-by session
  weir query funnel --steps cart,purchase --last 1h --watch"
)]
pub(super) struct Funnel {
    /// The steps by the names of their events: a,b,c
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', value_parser = selector::step, group = "what")]
    steps: Vec<FunnelStep>,
    /// A step, in order; repeatable: EVENT, 'EVENT|EVENT' or *, with a label and tests where wanted, as in
    /// 'Pays: purchase where amount > 100 and plan = pro'
    #[arg(long, value_name = "STEP", value_parser = selector::step, group = "what")]
    step: Vec<FunnelStep>,
    /// Time from the first step to the last at most, up to 366d
    #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = moment::duration)]
    window: Duration,
    /// Whether the steps must be done in their order
    #[arg(long, default_value = "strict")]
    order: Order,
    /// Events that must not happen on the way, such as error_page or, between steps 2 and 3, '2-3: error_page'; repeatable
    #[arg(long = "exclude", value_name = "EVENTS", value_parser = selector::exclusion)]
    exclusions: Vec<FunnelExclusion>,
    /// What is counted
    #[arg(long, default_value = "user")]
    count_by: Counted,
    /// A funnel for each value that this field has in the first event; repeatable
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
enum Order {
    /// One after the other
    Strict,
    /// In any order
    Any,
}

impl Funnel {
    pub(super) fn asked(self, now: Timestamp) -> Result<Asked, String> {
        let Self {
            steps,
            step,
            window,
            order,
            exclusions,
            count_by,
            group_by,
            limit,
            range,
            passing,
            form,
            connection,
        } = self;
        let frame = Frame { group_by: group_by.clone(), ..Frame::new(range.zone.clone()) };
        let question = Question::Funnel(QueryFunnelRequest {
            time_range: range.resolve(now)?,
            steps: if steps.is_empty() { step } else { steps },
            window: Some(moment::duration_to_proto(window)),
            order: match order {
                Order::Strict => query_funnel_request::Order::Strict,
                Order::Any => query_funnel_request::Order::Any,
            }
            .into(),
            exclusions,
            count_by: CountBy::from(count_by).into(),
            filter: filter::all_of(passing.filters),
            group_by,
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
        args: Funnel,
    }

    fn asked(arguments: &[&str]) -> Result<QueryFunnelRequest, String> {
        let line = ["weir"].iter().chain(arguments);
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        match line.args.asked(Timestamp::UNIX_EPOCH)?.question {
            Question::Funnel(question) => Ok(question),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn steps_are_names_or_told_one_by_one() {
        let short = asked(&["--steps", "a,b|c,d", "--window", "7d", "--by", "platform"]).unwrap();
        let names: Vec<String> = short.steps.iter().map(|step| step.event_names.join("|")).collect();
        assert_eq!((names.join(" "), short.window.unwrap().seconds), ("a b|c d".to_owned(), 7 * 86_400));
        assert_eq!(short.order(), query_funnel_request::Order::Strict);
        assert_eq!(short.group_by, ["platform"]);

        let long = asked(&[
            "--step",
            "a",
            "--step",
            "Pays: b where x in 1, 2",
            "--order",
            "any",
            "--count-by",
            "session",
            "--exclude",
            "1-2: e",
        ])
        .unwrap();
        assert_eq!((long.steps[1].label.as_str(), long.steps.len()), ("Pays", 2));
        assert!(long.steps[1].filter.is_some());
        assert_eq!((long.count_by(), long.exclusions[0].before_step), (CountBy::Sessions, 2));
    }

    #[test]
    fn a_funnel_has_steps_of_one_form() {
        for arguments in [&[][..], &["--steps", "a,b", "--step", "c"], &["--steps", "a,,b"]] {
            assert!(asked(arguments).is_err(), "{arguments:?}");
        }
    }
}
