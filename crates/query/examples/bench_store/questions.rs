//! The questions, as [`weir_query`] is asked them, and their answers as rows that other programs can be compared by. Times are
//! microseconds since the Unix epoch.

use std::{sync::Arc, time::Duration};

use arrow::{array::AsArray, datatypes::TimestampMicrosecondType};
use datafusion::catalog::TableProvider;
use prost_types::value::Kind;
use serde_json::{Value, json};
use weir_proto::{
    analytics::v1::{self as pb, condition::Operator, filter::Expression},
    validate::{Path, Violations},
};
use weir_query::{
    Actor, Engine, Events,
    engine::{Read, Settings},
    export::Timeline,
    filter::Filter,
    fold::{funnel::Order, retention::Cohorts},
    funnel,
    measure::Measure,
    retention,
    series::{self, Measured, Shape},
};
use weir_rollup::{
    calendar::{Interval, Zone},
    field::Field,
};
use weir_store::{
    EventStore as _, Snapshot, Store,
    table::Table,
    view::{Column, View},
};

use crate::{
    Result,
    events::{END, PARTITIONS, PROJECT, START, STEPS},
};

/// No question takes longer.
const LIMIT: Duration = Duration::from_secs(600);
const DAY: i64 = 86_400_000_000;
/// Memory for a question, bytes.
const MEMORY: usize = 8 << 30;
/// The regular visitor whose timeline is asked for.
const USER: &str = "user_0000006";

/// Asks a store.
pub(crate) struct Asker {
    engine: Engine,
    events: Arc<Stored>,
}

struct Stored {
    store: Store,
    snapshot: Snapshot,
}

impl Events for Stored {
    fn table(&self, columns: &[Column]) -> std::result::Result<Arc<dyn TableProvider>, weir_query::Error> {
        Ok(Arc::new(Table::of(View::new(columns.iter().cloned()), &self.snapshot, &self.store)))
    }
}

impl Asker {
    pub(crate) async fn new(store: &Store, threads: usize) -> Result<Self> {
        let engine = Engine::new(Settings { memory_bytes: MEMORY, threads })?;
        let url = store.object_store_url();
        engine.environment().register_object_store(url.as_ref(), store.object_store());
        let snapshot = store.scan(PROJECT, PARTITIONS).await?;
        Ok(Self { engine, events: Arc::new(Stored { store: store.clone(), snapshot }) })
    }

    /// The answer to a question by its name, and what was read for it.
    pub(crate) async fn ask(&self, question: &str) -> Result<(Value, Read)> {
        match question {
            "day_name" => {
                let question = series::Question {
                    interval: Some(Interval::Day),
                    by: vec![Field::EventName],
                    ..series(Measure::Events)
                };
                self.series(question, |values, bucket, count| json!([bucket, values[0], count])).await
            }
            "users_exact" | "users_approximate" => {
                // Weir counts them exactly either way: of events, an estimate would cost as much.
                let question =
                    series::Question { interval: Some(Interval::Day), ..series(Measure::UniqueUsers) };
                self.series(question, |_, bucket, count| json!([bucket, count])).await
            }
            "filtered_hours" => {
                let question = series::Question {
                    interval: Some(Interval::Hour),
                    filter: filter(&[("event_name", "product_view"), ("properties.platform", "android")])?,
                    ..series(Measure::Events)
                };
                self.series(question, |_, bucket, count| json!([bucket, count])).await
            }
            "top" => {
                let question = series::Question {
                    by: vec![Field::Property("product".to_owned())],
                    filter: filter(&[("event_name", "product_view")])?,
                    max_series: 10,
                    ..series(Measure::Events)
                };
                self.series(question, |values, _, count| json!([values[0], count])).await
            }
            "funnel" => self.funnel().await,
            "retention" => self.retention().await,
            "timeline" => self.timeline().await,
            other => Err(format!("{other} is no question").into()),
        }
    }

    async fn series(
        &self,
        question: series::Question,
        row: impl Fn(&[Option<String>], i64, u64) -> Value,
    ) -> Result<(Value, Read)> {
        let answer = self.engine.series(Arc::clone(&self.events) as _, question, LIMIT).await?;
        let rows = answer.series.iter().flat_map(|series| {
            let (row, buckets) = (&row, &answer.buckets);
            series.points.iter().map(move |point| {
                let count = point.figures[0].estimate.map_or(0.0, |estimate| estimate.value).round() as u64;
                row(&series.values, buckets[point.bucket].start, count)
            })
        });
        Ok((rows.collect(), answer.read))
    }

    async fn funnel(&self) -> Result<(Value, Read)> {
        let steps = STEPS.iter().map(|step| filter(&[("event_name", step)])).collect::<Result<_>>()?;
        let question = funnel::Question {
            range: START..END,
            filter: Filter::default(),
            steps,
            exclusions: Vec::new(),
            window: DAY,
            order: Order::Strict,
            actor: Actor::User,
            by: Vec::new(),
            max_groups: 1,
        };
        let answer = self.engine.funnel(Arc::clone(&self.events) as _, question, LIMIT).await?;
        Ok((answer.total.iter().map(|step| step.count).collect(), answer.read))
    }

    async fn retention(&self) -> Result<(Value, Read)> {
        let question = retention::Question {
            range: START..END,
            interval: Interval::Week,
            zone: Zone::UTC,
            cohorts: Cohorts::First,
            start: Filter::default(),
            returns: Filter::default(),
            watched: 5,
            by: Vec::new(),
            max_cohorts: 5,
        };
        let answer = self.engine.retention(Arc::clone(&self.events) as _, question, LIMIT).await?;
        let rows = answer.cohorts.iter().flat_map(|cohort| {
            (0..).zip(&cohort.returned).map(|(week, users)| json!([cohort.start, week, users]))
        });
        Ok((rows.collect(), answer.read))
    }

    async fn timeline(&self) -> Result<(Value, Read)> {
        let question = Timeline {
            user: USER.to_owned(),
            range: START..END,
            filter: Filter::default(),
            newest_first: true,
            after: None,
            page: 100,
        };
        let page = self.engine.timeline(Arc::clone(&self.events) as _, question, LIMIT).await?;
        let times = page.events.column_by_name("time").ok_or("there is a time")?;
        let times = times.as_primitive::<TimestampMicrosecondType>().values();
        Ok((times.iter().copied().collect(), page.read))
    }
}

fn series(measure: Measure) -> series::Question {
    series::Question {
        range: START..END,
        interval: None,
        zone: Zone::UTC,
        measures: vec![Measured { measure, filter: Filter::default() }],
        formulas: Vec::new(),
        filter: Filter::default(),
        by: Vec::new(),
        shape: Shape::Plain,
        max_series: 1000,
        only: None,
        max_points: 100_000,
    }
}

/// Events of which each of these fields has this text.
fn filter(conditions: &[(&str, &str)]) -> Result<Filter> {
    let filters = conditions.iter().map(|(field, text)| {
        let value = prost_types::Value { kind: Some(Kind::StringValue((*text).to_owned())) };
        let (field, operator) = ((*field).to_owned(), Operator::In.into());
        let condition = pb::Condition { field, operator, values: vec![value] };
        pb::Filter { expression: Some(Expression::Condition(condition)) }
    });
    let all =
        pb::Filter { expression: Some(Expression::AllOf(pb::FilterList { filters: filters.collect() })) };
    let mut found = Violations::default();
    let filter = Filter::parse(Some(&all), &Path::ROOT, &mut found);
    found.into_result().map_err(|problem| format!("{problem:?}"))?;
    Ok(filter)
}
