//! Events as questions read them: which columns, which rows, and who takes the batches.

use std::{ops::Range, sync::Arc};

use arrow::array::{AsArray as _, RecordBatch};
use datafusion::{
    common::ScalarValue,
    logical_expr::{Expr, SortExpr, lit},
    physical_plan::{ExecutionPlan, execute_stream_partitioned},
};
use futures::StreamExt as _;
use tokio::task::JoinSet;
use weir_store::{schema::column as name, view::Column};

use crate::{
    Engine, Error, Events,
    engine::{Read, read, stopped},
    events::column,
    filter::Filter,
    gather::holds,
};

/// Takes the batches of one stream. Columns are in the order in which they were selected; others may follow.
pub(crate) trait Sink: Send + 'static {
    /// Takes one.
    fn take(&mut self, batch: &RecordBatch) -> Result<(), Error>;
    /// Memory it uses, bytes.
    fn bytes(&self) -> usize;
}

/// Which events, and what of them.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    columns: Vec<Column>,
    keep: Vec<Expr>,
    select: Vec<Expr>,
    /// Where it says of a row whether it is to be kept, if others may come, too.
    holds: Option<usize>,
    /// By what rows are sorted, and how many of them are wanted.
    top: Option<(Vec<SortExpr>, usize)>,
    /// Whether rows come in one stream, in the order in which they are stored.
    in_order: bool,
}

impl Scan {
    /// Of the events in a range of time, microseconds since the Unix epoch.
    pub(crate) fn of(range: &Range<i64>) -> Self {
        let mut scan = Self::default();
        if range.start > i64::MIN {
            let from = scan.column(Column::Core(name::TIME)).gt_eq(moment(range.start));
            scan.keep.push(from);
        }
        if range.end < i64::MAX {
            let to = scan.column(Column::Core(name::TIME)).lt(moment(range.end));
            scan.keep.push(to);
        }
        scan
    }

    /// A column in an expression.
    pub(crate) fn column(&mut self, wanted: Column) -> Expr {
        let expr = column(&wanted);
        if !self.columns.contains(&wanted) {
            self.columns.push(wanted);
        }
        expr
    }

    /// A filter as an expression.
    pub(crate) fn filter(&mut self, filter: &Filter) -> Expr {
        filter.columns().for_each(|needed| drop(self.column(needed)));
        filter.expr()
    }

    /// Only events for which this holds.
    pub(crate) fn keep(&mut self, condition: Expr) {
        self.keep.push(condition);
    }

    /// Selects an expression; its position in the batches.
    pub(crate) fn select(&mut self, expr: Expr) -> usize {
        self.select.push(expr.alias(format!("c{}", self.select.len())));
        self.select.len() - 1
    }

    /// Selects a column; its position in the batches.
    pub(crate) fn select_column(&mut self, wanted: Column) -> usize {
        let expr = self.column(wanted);
        self.select(expr)
    }

    /// Selects a column under its own name.
    pub(crate) fn select_as_is(&mut self, wanted: Column) {
        let expr = self.column(wanted);
        self.select.push(expr);
    }

    /// Selects whether a row is to be kept; its position in the batches. Others come, too: leaving rows out is dearer than passing
    /// over them.
    pub(crate) fn select_holds(&mut self) -> usize {
        let at = self.select_column(Column::Holds);
        self.holds = Some(at);
        at
    }

    /// Only the first rows in this order.
    pub(crate) fn top(&mut self, order: Vec<SortExpr>, rows: usize) {
        self.top = Some((order, rows));
    }

    /// Rows in the order in which each file has them, file after file.
    pub(crate) fn in_order(&mut self) {
        self.in_order = true;
    }

    pub(crate) async fn plan(
        self,
        engine: &Engine,
        events: &dyn Events,
    ) -> Result<Arc<dyn ExecutionPlan>, Error> {
        let context = if self.in_order { engine.context_in_order() } else { engine.context() };
        let table = events.table(&self.columns)?;
        let planned = async {
            let mut frame = context.read_table(table)?;
            for condition in self.keep {
                frame = frame.filter(condition)?;
            }
            if let Some((order, rows)) = self.top {
                frame = frame.sort(order)?.limit(0, Some(rows))?;
            }
            frame.select(self.select)?.create_physical_plan().await
        };
        planned.await.map_err(|error| engine.failure(error))
    }

    /// Runs it with a sink for each of the streams, which the engine's threads share. Runs on them.
    pub(crate) async fn run<S: Sink>(
        mut self,
        engine: &Engine,
        events: &dyn Events,
        sink: impl Fn() -> S,
    ) -> Result<(Vec<S>, Read), Error> {
        let (late_at, holds_at) = (self.select_column(Column::Core(name::LATE)), self.holds);
        let plan = self.plan(engine, events).await?;
        let _admitted = engine.admit(&plan).await?;
        let task_context = engine.context().task_ctx();
        let streams = execute_stream_partitioned(Arc::clone(&plan), task_context)
            .map_err(|error| engine.failure(error))?;
        let mut tasks = JoinSet::new();
        for mut stream in streams {
            let (engine, mut sink) = (engine.clone(), sink());
            tasks.spawn(async move {
                let memory = engine.memory("events of a question");
                let mut late = 0;
                while let Some(batch) = stream.next().await {
                    let batch = batch.map_err(|error| engine.failure(error))?;
                    let mut late_rows = holds(batch.column(late_at).as_boolean());
                    if let Some(at) = holds_at {
                        late_rows = &late_rows & &holds(batch.column(at).as_boolean());
                    }
                    late += late_rows.count_set_bits() as u64;
                    engine.deadline().check()?;
                    sink.take(&batch)?;
                    memory.try_resize(sink.bytes()).map_err(|error| engine.failure(error))?;
                    // A stream that is always ready would never let a cancelled question stop.
                    tokio::task::yield_now().await;
                }
                Ok::<_, Error>((sink, memory, late))
            });
        }
        let (mut sinks, mut accounts, mut late) = (Vec::new(), Vec::new(), 0);
        while let Some(done) = tasks.join_next().await {
            let (sink, memory, of_stream) = done.map_err(stopped)??;
            sinks.push(sink);
            accounts.push(memory);
            late += of_stream;
        }
        // Accounts are kept until all streams have ended, so that they are charged together.
        drop(accounts);
        Ok((sinks, Read { late, ..read(&plan) }))
    }
}

/// A moment, microseconds since the Unix epoch, in an expression.
pub(crate) fn moment(micros: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
}
