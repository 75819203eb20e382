//! Operators that can be stopped and are accounted. Only where a task waits can it be stopped, and DataFusion's operators wait for
//! their input alone; and some hold rows that no account knows.
//!
//! Between any two operators of a plan stands a [`YieldExec`]. It checks the deadline, gives other tasks a turn, cuts batches to a size
//! that bounds what the operator above does with one, and accounts for what is cut and for what window functions hold.

use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::DataType};
use datafusion::{
    common::{
        JoinType,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{InListExpr, Literal},
    },
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
        aggregates::AggregateExec,
        execution_plan::replace_children_if_necessary,
        joins::HashJoinExec,
        metrics::MetricsSet,
        stream::RecordBatchStreamAdapter,
        windows::{BoundedWindowAggExec, WindowAggExec},
    },
};
use futures::{StreamExt as _, stream};

use super::{
    bytes,
    meter::{Meter, begin_batch, take_turns},
    metered::Metered,
};

/// Rows of one side that a join without keys compares with the whole other side before it can be stopped: a second or so where the
/// other side has 10 million.
const CROSSED: usize = 128;
/// Rows of one side that a join with keys looks up at once where it leaves matches out: each may have as many as the other side has
/// rows, and only what is left fills a batch.
const LOOKED_UP: usize = 64;
/// Bytes of a batch: with what functions may make of it, and with [`CONSTANTS`], the most that an operator holds for a moment,
/// unaccounted.
const BATCH: usize = 1 << 20;
/// Bytes that an operator makes of its constants for a batch, at most: each is repeated for every row.
const CONSTANTS: usize = 16 << 20;
/// Rows of a batch of which functions make more than it has: a row can become a hundred kilobytes before there is too much.
const GROWING: usize = 256;
/// Bytes of new groups that an aggregation makes of a batch, at most: it accounts for them only when it is through with it.
const GROUPS: usize = 4 << 20;
/// Bytes that a window function holds for a row beside the value: what it computes is a scalar first, then an element of an array.
const WINDOW_ROW: usize = 128;

/// Lets every operator of a plan be stopped.
pub(super) fn yielding(plan: Arc<dyn ExecutionPlan>, meter: &Arc<Meter>) -> Result<Arc<dyn ExecutionPlan>> {
    let wrap = |plan: Arc<dyn ExecutionPlan>| {
        let children: Vec<_> = plan.children().into_iter().map(Arc::clone).collect();
        if children.is_empty() {
            return Ok(Transformed::no(plan));
        }
        let constants = constants(&plan)?;
        let mut rows = CONSTANTS / constants.max(1);
        if grows(&plan)? {
            rows = rows.min(GROWING);
        }
        rows = rows.min(GROUPS / group(&plan)?.max(1));
        let held = held(&plan)?;
        let last = children.len() - 1;
        match plan.name() {
            "NestedLoopJoinExec" | "CrossJoinExec" | "PiecewiseMergeJoinExec" => rows = rows.min(CROSSED),
            "SortMergeJoinExec" | "SymmetricHashJoinExec" => rows = rows.min(LOOKED_UP),
            _ if leaves_out(&plan) => rows = rows.min(LOOKED_UP),
            _ => {}
        }
        let wrapped = children.into_iter().enumerate().map(|(at, input)| {
            let rows = if at == last { rows } else { BATCH };
            let meter = Arc::clone(meter);
            Arc::new(YieldExec { input, rows: rows.max(1), held, meter }) as Arc<dyn ExecutionPlan>
        });
        let wrapped = wrapped.collect();
        Ok(Transformed::yes(replace_children_if_necessary(plan, wrapped)?))
    };
    let plan = plan.transform_up(wrap)?.data;
    let meter = Arc::clone(meter);
    Ok(Arc::new(YieldExec { input: plan, rows: BATCH, held: None, meter }))
}

/// Whether a join looks at more pairs than it gives.
fn leaves_out(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<HashJoinExec>().is_some_and(|join| {
        let gives_pairs =
            matches!(join.join_type(), JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full);
        join.filter().is_some() || !gives_pairs
    })
}

/// Bytes of the constants in the expressions of an operator: each is repeated for every row.
fn constants(plan: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let mut sum = 0;
    plan.apply_expressions(&mut |expr| {
        expr.apply(|part| {
            // What is looked up is hashed once and not repeated.
            if part.is::<InListExpr>() {
                return Ok(TreeNodeRecursion::Jump);
            }
            if let Some(literal) = part.downcast_ref::<Literal>() {
                sum += literal.value().try_as_str().flatten().map_or(size_of::<u64>(), str::len);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(sum)
}

/// Whether an operator calls functions that make more of a batch than it has.
fn grows(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut grows = false;
    plan.apply_expressions(&mut |expr| {
        expr.apply(|part| {
            let called = part.downcast_ref::<ScalarFunctionExpr>().map(|call| call.fun().inner());
            grows |= called.and_then(|called| called.downcast_ref::<Metered>()).is_some_and(Metered::grows);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(grows)
}

/// Bytes that an aggregation sets aside for each group in functions that have no state of their own for many groups.
fn group(plan: &Arc<dyn ExecutionPlan>) -> Result<usize> {
    let Some(aggregation) = plan.downcast_ref::<AggregateExec>() else { return Ok(0) };
    if aggregation.group_expr().is_empty() {
        return Ok(0);
    }
    let functions =
        aggregation.aggr_expr().iter().filter(|function| !function.groups_accumulator_supported());
    functions.map(|function| Ok(function.create_accumulator()?.size())).sum()
}

/// Window functions of an operator.
#[derive(Debug, Clone, Copy)]
struct Held {
    functions: usize,
    /// Those among them whose value for each row is a copy of a text.
    texts: usize,
    /// Those whose value for each row is a copy of a list or map.
    lists: usize,
}

fn held(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Held>> {
    let functions = match (plan.downcast_ref::<WindowAggExec>(), plan.downcast_ref::<BoundedWindowAggExec>())
    {
        (Some(window), _) => window.window_expr(),
        (_, Some(window)) => window.window_expr(),
        _ => return Ok(None),
    };
    let (mut texts, mut lists) = (0, 0);
    for function in functions {
        let field = function.field()?;
        texts += usize::from(is_text(field.data_type()));
        lists += usize::from(field.data_type().is_nested());
    }
    Ok(Some(Held { functions: functions.len(), texts, lists }))
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

/// What the rows take that went into window functions.
#[derive(Debug, Default)]
struct Rows {
    rows: usize,
    bytes: usize,
    /// The longest text.
    longest: usize,
    /// The largest batch: what a list or map has at most.
    largest: usize,
}

impl Rows {
    fn add(&mut self, batch: &RecordBatch, bytes: usize) {
        self.rows += batch.num_rows();
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
        let texts = batch.columns().iter().filter(|column| is_text(column.data_type()));
        self.longest = self.longest.max(texts.map(bytes::longest_of).max().unwrap_or_default());
    }

    /// The rows, joined to one batch for a moment, and the values.
    fn held(&self, held: Held) -> usize {
        let values = self.rows.saturating_mul(held.functions * WINDOW_ROW);
        let copies = held.texts * self.longest + held.lists.saturating_mul(self.largest);
        let copies = self.rows.saturating_mul(copies);
        self.bytes.saturating_mul(2).saturating_add(values).saturating_add(copies)
    }
}

/// Yields before each batch, of at most so many rows and [`BATCH`] bytes.
#[derive(Debug)]
struct YieldExec {
    input: Arc<dyn ExecutionPlan>,
    rows: usize,
    held: Option<Held>,
    meter: Arc<Meter>,
}

impl DisplayAs for YieldExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YieldExec")
    }
}

impl ExecutionPlan for YieldExec {
    fn name(&self) -> &'static str {
        "YieldExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _apply: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return Ok(self) };
        Ok(Arc::new(Self { input, rows: self.rows, held: self.held, meter: Arc::clone(&self.meter) }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        None
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let memory = |name: &str| MemoryConsumer::new(name).register(context.memory_pool());
        let state = Cutting {
            input: self.input.execute(partition, context.clone())?,
            rest: None,
            rows: self.rows,
            held: self.held,
            went: Rows::default(),
            cut: memory("rows of a batch"),
            windows: memory("window functions"),
            meter: Arc::clone(&self.meter),
        };
        let stream = stream::unfold(state, |mut state| async move {
            let next = state.next().await?;
            Some((next, state))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), stream.fuse())))
    }
}

struct Cutting {
    input: SendableRecordBatchStream,
    rest: Option<RecordBatch>,
    rows: usize,
    held: Option<Held>,
    went: Rows,
    cut: MemoryReservation,
    windows: MemoryReservation,
    meter: Arc<Meter>,
}

impl Cutting {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        take_turns().await;
        if let Err(error) = self.meter.check() {
            return Some(Err(error));
        }
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.input.next().await? {
                Ok(batch) => match self.received(&batch) {
                    Ok(()) => batch,
                    Err(error) => return Some(Err(error)),
                },
                Err(error) => return Some(Err(error)),
            },
        };
        begin_batch();
        Some(self.cut(batch))
    }

    /// Accounts for a batch that came.
    fn received(&mut self, batch: &RecordBatch) -> Result<()> {
        let bytes = bytes::of_batch(batch);
        if let Some(held) = self.held {
            self.went.add(batch, bytes);
            self.windows.try_resize(self.went.held(held))?;
        }
        // What fits into one piece goes on at once.
        self.cut.try_resize(if bytes > BATCH { bytes } else { 0 })
    }

    /// The first piece of a batch; the rest stays.
    fn cut(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let (rows, bytes) = (batch.num_rows(), bytes::of_batch(&batch));
        let fit = rows.saturating_mul(BATCH) / bytes.max(1);
        let now = rows.min(self.rows).min(fit.max(1));
        if now < rows {
            self.rest = Some(batch.slice(now, rows - now));
        }
        Ok(batch.slice(0, now))
    }
}
