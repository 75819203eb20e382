//! Arguments that questions share.

use std::time::Duration;

use clap::Args;
use weir_proto::analytics::v1::{CountBy, Filter};

use crate::{ask::filter, moment, output};

/// How a result is printed.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Answer")]
pub(super) struct Shape {
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    pub(super) json: bool,
    /// Print CSV
    #[arg(long)]
    pub(super) csv: bool,
    /// Give up after this long
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = moment::duration)]
    pub(super) timeout: Duration,
}

impl Shape {
    /// The message with the deadline.
    pub(super) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}

/// How answers are given.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Answer")]
pub(super) struct Form {
    #[command(flatten)]
    pub(super) shape: Shape,
    /// Draw a chart even where there is no terminal
    #[arg(long, overrides_with = "no_chart")]
    chart: bool,
    /// Draw no chart
    #[arg(long)]
    no_chart: bool,
    /// Go on: show the answer again whenever it changes
    #[arg(long, short, conflicts_with = "csv")]
    pub(super) watch: bool,
    /// Also say how the question was answered: from a rollup or from the events, and what was read
    #[arg(long)]
    pub(super) explain: bool,
    /// Wait until the events of this consistency token are counted
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    pub(super) token: String,
}

impl Form {
    pub(super) fn has_chart(&self) -> bool {
        !self.shape.json && !self.shape.csv && (self.chart || (!self.no_chart && output::is_terminal()))
    }
}

/// Which events.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Events")]
pub(super) struct Which {
    /// Only events of this name; repeatable
    #[arg(long = "event", value_name = "NAME")]
    pub(super) events: Vec<String>,
    #[command(flatten)]
    pub(super) passing: Passing,
}

/// Which events, where their names are given otherwise.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Events")]
pub(super) struct Passing {
    /// Only events that pass, such as 'platform=ios', 'plan in free, pro' or 'price > 10'; repeatable: all must hold
    #[arg(long = "where", value_name = "TEST", value_parser = filter::parse)]
    pub(super) filters: Vec<Filter>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Counted {
    /// Users
    User,
    /// Sessions; where clients send none, visits that end after 30 idle minutes
    Session,
}

impl From<Counted> for CountBy {
    fn from(counted: Counted) -> Self {
        match counted {
            Counted::User => Self::Users,
            Counted::Session => Self::Sessions,
        }
    }
}
