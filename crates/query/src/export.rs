//! Events as they are, and the events of one user.

use std::{ops::Range, sync::Arc, time::Duration};

use arrow::{
    array::{AsArray as _, RecordBatch},
    compute::concat_batches,
    datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType},
};
use datafusion::{
    logical_expr::{Expr, lit},
    physical_plan::{ExecutionPlan, execute_stream},
};
use futures::StreamExt as _;
use weir_store::{
    schema::column as name,
    table::rows_at_once,
    view::{Column, View},
    width,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Engine, Error, Events,
    engine::{Read, read},
    filter::Filter,
    rows::Rows,
    scan::{Scan, moment},
};

/// The place of a row in its file, which has the rows in this order: user hash, time, log offset.
pub type Key = (i64, i64, i64);

/// Events to export: those of a file in its order, those in memory as they came.
#[derive(Debug, Clone)]
pub struct Export {
    /// Their times, microseconds since the Unix epoch.
    pub range: Range<i64>,
    /// Which of them.
    pub filter: Filter,
    /// Only those after a row.
    pub after: Option<Key>,
    /// Only those of these offsets of the log.
    pub offsets: Option<Range<u64>>,
    /// Events at most.
    pub max_rows: usize,
}

/// The columns of exported events.
pub fn columns() -> SchemaRef {
    Arc::clone(View::new(all_columns()).schema())
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
    /// The events in order, with the columns of the schema.
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

/// Keeps the rows after one.
fn keep_after(scan: &mut Scan, (user, time, offset): Key) {
    let mut column = |of| scan.column(Column::Core(of));
    let (users, times, offsets) = (column(name::USER_HASH), column(name::TIME), column(name::LOG_OFFSET));
    let later = times.clone().gt(moment(time)).or(times.eq(moment(time)).and(offsets.gt(lit(offset))));
    // By this, pages are passed over unread.
    scan.keep(users.clone().gt_eq(lit(user)));
    scan.keep(users.gt(lit(user)).or(later));
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
            if let Some(after) = export.after {
                keep_after(&mut scan, after);
            }
            if let Some(Range { start, end }) = export.offsets {
                let offset = scan.column(Column::Core(name::LOG_OFFSET));
                let end = lit(i64::try_from(end).unwrap_or(i64::MAX));
                scan.keep(
                    offset.clone().gt_eq(lit(i64::try_from(start).unwrap_or(i64::MAX))).and(offset.lt(end)),
                );
            }
            all_columns().into_iter().for_each(|column| scan.select_as_is(column));
            scan.in_order();
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

/// A page is cut at so many bytes of events: it is held several times over while it is encoded.
const PAGE_BYTES: usize = 2 << 20;

/// Rows that a scan reads at a time from which on they are wide: then those of a page are found before anything else of them is read.
const WIDE: usize = 128;

async fn page(engine: &Engine, events: &dyn Events, mut timeline: Timeline) -> Result<Page, Error> {
    let scan = |columns: Vec<Column>, timeline: &Timeline, last: Option<(i64, i64)>| {
        let mut scan = Scan::of(&timeline.range);
        of_user(&mut scan, &timeline.user);
        let condition = scan.filter(&timeline.filter);
        scan.keep(condition);
        let time = scan.column(Column::Core(name::TIME));
        let offset = scan.column(Column::Core(name::LOG_OFFSET));
        let mut keep = |(at, of): (i64, i64), up: bool, or_same: bool| {
            let beyond: fn(Expr, Expr) -> Expr = if up { Expr::gt } else { Expr::lt };
            let within: fn(Expr, Expr) -> Expr = match (up, or_same) {
                (true, true) => Expr::gt_eq,
                (false, true) => Expr::lt_eq,
                (_, false) => beyond,
            };
            let same = time.clone().eq(moment(at)).and(within(offset.clone(), lit(of)));
            scan.keep(beyond(time.clone(), moment(at)).or(same));
        };
        let up = !timeline.newest_first;
        timeline.after.into_iter().for_each(|after| keep(after, up, false));
        last.into_iter().for_each(|last| keep(last, !up, true));
        columns.into_iter().for_each(|column| scan.select_as_is(column));
        scan.top(vec![time.sort(up, false), offset.sort(up, false)], timeline.page.saturating_add(1));
        scan
    };
    let whole = scan(all_columns(), &timeline, None).plan(engine, events).await?;
    let rows_at_once = rows_at_once(&whole);
    let mut plan = whole;
    let (mut before, mut more) = (Read::default(), false);
    if rows_at_once <= WIDE {
        let keys = vec![Column::Core(name::TIME), Column::Core(name::LOG_OFFSET)];
        let (found, read) =
            collected(engine, scan(keys, &timeline, None).plan(engine, events).await?).await?;
        before = read;
        // Twice as many as would fill the page if all were as wide as can be.
        let page = timeline.page.min(2 * PAGE_BYTES / width::BATCH_BYTES * rows_at_once);
        more = found.num_rows() > page;
        if let Some(last) = found.num_rows().min(page).checked_sub(1) {
            let time = found.column(0).as_primitive::<TimestampMicrosecondType>().value(last);
            let offset = found.column(1).as_primitive::<Int64Type>().value(last);
            timeline.page = page;
            plan = scan(all_columns(), &timeline, Some((time, offset))).plan(engine, events).await?;
        }
    }
    let (all, read) = collected(engine, plan).await?;
    let fitting = width::pieces(&all, PAGE_BYTES).next().map_or(0, |first| first.num_rows());
    let shown = fitting.min(timeline.page);
    let read = Read { rows: read.rows, bytes: read.bytes + before.bytes, ..read };
    Ok(Page { events: all.slice(0, shown), more: more || all.num_rows() > shown, read })
}

/// All rows of a plan as one batch.
async fn collected(engine: &Engine, plan: Arc<dyn ExecutionPlan>) -> Result<(RecordBatch, Read), Error> {
    let _admitted = engine.admit(&plan).await?;
    let memory = engine.memory("a page of events");
    let (context, _) = engine.metered(&plan);
    let stream =
        execute_stream(Arc::clone(&plan), context.task_ctx()).map_err(|error| engine.failure(error))?;
    let (schema, mut stream) = (stream.schema(), stream);
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|error| engine.failure(error))?;
        // Once as it comes, once put together.
        memory.try_grow(2 * width::bytes(&batch)).map_err(|error| engine.failure(error))?;
        batches.push(batch);
    }
    let all = concat_batches(&schema, &batches).map_err(|error| engine.failure(error.into()))?;
    Ok((all, read(&plan)))
}
