//! Events as they are, and the events of one user.

use std::{ops::Range, sync::Arc, time::Duration};

use arrow::{array::RecordBatch, compute::concat_batches};
use datafusion::{
    logical_expr::{Expr, lit},
    physical_plan::collect,
};
use weir_store::{
    schema::{column as name, schema},
    view::Column,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Engine, Error, Events,
    engine::{Read, read},
    filter::Filter,
    rows::Rows,
    scan::{Scan, moment},
};

/// Events to export, in no particular order.
#[derive(Debug, Clone)]
pub struct Export {
    /// Their times, microseconds since the Unix epoch.
    pub range: Range<i64>,
    /// Which of them.
    pub filter: Filter,
    /// Events at most.
    pub max_rows: usize,
}

/// A page of a user's events.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// `user_id`, or `anonymous_id` of a user without one.
    pub user: String,
    /// Their times, microseconds since the Unix epoch.
    pub range: Range<i64>,
    /// Which of them.
    pub filter: Filter,
    /// The latest first.
    pub newest_first: bool,
    /// Time and log offset of the last event of the page before.
    pub after: Option<(i64, i64)>,
    /// Events of a page.
    pub page: usize,
}

/// A page of events.
#[derive(Debug, Clone)]
pub struct Page {
    /// The events in order, with the columns of [`schema`].
    pub events: RecordBatch,
    /// Whether another page follows.
    pub more: bool,
    /// What was read.
    pub read: Read,
}

/// Every column of a stored event.
pub(crate) fn all_columns() -> Vec<Column> {
    const FIXED: [&str; 18] = [
        name::USER_HASH,
        name::TIME,
        name::LOG_OFFSET,
        name::EVENT_NAME,
        name::EVENT_TYPE,
        name::USER_ID,
        name::ANONYMOUS_ID,
        name::SESSION_ID,
        name::INSTALL_ID,
        name::SEQUENCE,
        name::EVENT_ID,
        name::CLIENT_TIME,
        name::RECEIVE_TIME,
        name::LATE,
        name::REVENUE,
        name::CURRENCY,
        name::PROPERTIES,
        name::PROPERTY_KINDS,
    ];
    let context = weir_rollup::field::ContextField::ALL.iter();
    let context = context.map(|field| weir_store::schema::context_column(*field));
    FIXED.into_iter().chain(context).map(Column::Core).collect()
}

/// Keeps the events of one user.
pub(crate) fn of_user(scan: &mut Scan, user: &str) {
    let hash = scan.column(Column::Core(name::USER_HASH)).eq(lit(xxh3_64(user.as_bytes()) as i64));
    let id = scan.column(Column::Core(name::USER_ID));
    let anonymous = scan.column(Column::Core(name::ANONYMOUS_ID));
    // Two users can have one hash.
    let named = id.clone().is_not_null().and(id.clone().eq(lit(user)));
    let unnamed = id.is_null().and(anonymous.clone().is_not_null()).and(anonymous.eq(lit(user)));
    scan.keep(hash);
    scan.keep(named.or(unnamed));
}

impl Engine {
    /// Exports events.
    ///
    /// # Errors
    /// When the events can't be read.
    pub async fn export(
        &self,
        events: Arc<dyn Events>,
        export: Export,
        limit: Duration,
    ) -> Result<Rows, Error> {
        let planned = self.run(limit, move |engine| async move {
            let mut scan = Scan::of(&export.range);
            let condition = scan.filter(&export.filter);
            scan.keep(condition);
            all_columns().into_iter().for_each(|column| scan.select_as_is(column));
            scan.plan(&engine, &*events).await
        });
        Ok(self.rows(planned.await?, limit, export.max_rows, Self::failure))
    }

    /// A page of a user's events.
    ///
    /// # Errors
    /// When the events can't be read, or not within `limit`.
    pub async fn timeline(
        &self,
        events: Arc<dyn Events>,
        timeline: Timeline,
        limit: Duration,
    ) -> Result<Page, Error> {
        self.run(limit, move |engine| async move { page(&engine, &*events, timeline).await }).await
    }
}

async fn page(engine: &Engine, events: &dyn Events, timeline: Timeline) -> Result<Page, Error> {
    let mut scan = Scan::of(&timeline.range);
    of_user(&mut scan, &timeline.user);
    let condition = scan.filter(&timeline.filter);
    scan.keep(condition);
    let time = scan.column(Column::Core(name::TIME));
    let offset = scan.column(Column::Core(name::LOG_OFFSET));
    if let Some((at, last)) = timeline.after {
        let beyond: fn(Expr, Expr) -> Expr = if timeline.newest_first { Expr::lt } else { Expr::gt };
        let same = time.clone().eq(moment(at)).and(beyond(offset.clone(), lit(last)));
        scan.keep(beyond(time.clone(), moment(at)).or(same));
    }
    all_columns().into_iter().for_each(|column| scan.select_as_is(column));
    let up = !timeline.newest_first;
    scan.top(vec![time.sort(up, false), offset.sort(up, false)], timeline.page.saturating_add(1));
    let plan = scan.plan(engine, events).await?;
    let batches = collect(Arc::clone(&plan), engine.context().task_ctx()).await;
    let batches = batches.map_err(|error| engine.failure(error))?;
    let all = match batches.first() {
        Some(first) => concat_batches(first.schema_ref(), &batches),
        None => Ok(RecordBatch::new_empty(schema())),
    };
    let all = all.map_err(|error| engine.failure(error.into()))?;
    let shown = all.num_rows().min(timeline.page);
    Ok(Page { events: all.slice(0, shown), more: all.num_rows() > shown, read: read(&plan) })
}
