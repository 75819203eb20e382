//! Joins that let a deadline pass. A join can make very much out of little without ever waiting for anything, and only where a
//! task waits can it be stopped.

use std::{fmt, sync::Arc};

use arrow::array::RecordBatch;
use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::Result,
    execution::TaskContext,
    physical_expr::PhysicalExpr,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
        execution_plan::replace_children_if_necessary, stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt as _, stream};

/// Rows of one side that a join without keys compares with the whole other side before it can be stopped: a second or so where the
/// other side has 10 million.
const ROWS: usize = 128;

/// Lets every join of a plan be stopped.
pub(super) fn patient(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let wrap = |plan: Arc<dyn ExecutionPlan>| {
        let without_keys = match plan.name() {
            "NestedLoopJoinExec" | "CrossJoinExec" | "PiecewiseMergeJoinExec" => true,
            "HashJoinExec" | "SortMergeJoinExec" | "SymmetricHashJoinExec" => false,
            _ => return Ok(Transformed::no(plan)),
        };
        let mut children: Vec<_> = plan.children().into_iter().map(Arc::clone).collect();
        if let Some(right) = children.pop() {
            let rows = if without_keys { ROWS } else { usize::MAX };
            children.push(Arc::new(Patient { input: right, rows }));
        }
        let join = replace_children_if_necessary(plan, children)?;
        Ok(Transformed::yes(Arc::new(Patient { input: join, rows: usize::MAX }) as Arc<dyn ExecutionPlan>))
    };
    Ok(plan.transform_up(wrap)?.data)
}

/// Waits a moment before each batch, of at most so many rows.
#[derive(Debug)]
struct Patient {
    input: Arc<dyn ExecutionPlan>,
    rows: usize,
}

impl DisplayAs for Patient {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patient")
    }
}

impl ExecutionPlan for Patient {
    fn name(&self) -> &str {
        "Patient"
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
        Ok(match children.pop() {
            Some(input) => Arc::new(Self { input, rows: self.rows }),
            None => self,
        })
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (schema, rows) = (self.input.schema(), self.rows);
        let next = move |(mut input, rest): (SendableRecordBatchStream, Option<RecordBatch>)| async move {
            tokio::task::yield_now().await;
            let batch = match rest {
                Some(rest) => rest,
                None => match input.next().await? {
                    Ok(batch) => batch,
                    Err(error) => return Some((Err(error), (input, None))),
                },
            };
            let now = rows.min(batch.num_rows());
            let rest = (now < batch.num_rows()).then(|| batch.slice(now, batch.num_rows() - now));
            Some((Ok(batch.slice(0, now)), (input, rest)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::unfold((input, None), next))))
    }
}
