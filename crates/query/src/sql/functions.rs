//! Aggregate functions for SQL.
//!
//! - `funnel_depth(time, window_seconds, step1, step2, …)`: of the events of a group (mostly `group by user_hash`), how many steps
//!   the best chain reaches within the window, see [`fold::funnel`](crate::fold::funnel). Events at one time are taken
//!   in the order of `log_offset`, as `QueryFunnel` takes them, wherever the time is a column beside one of that name; else in the
//!   order of the steps that they meet. `funnel_depth(time, log_offset, window_seconds, …)` says so itself.
//! - `retention(condition1, condition2, …)`: a list that tells for each condition whether some event meets it and some event meets
//!   the first.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit},
};
use datafusion::{
    common::{Column, ScalarValue, plan_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility,
        expr::AggregateFunction,
        function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs},
        simplify::SimplifyContext,
    },
};

use crate::fold::{
    Action,
    funnel::{Funnel, MAX_STEPS, Order},
};
use crate::gather::holds;
use weir_store::schema::column::LOG_OFFSET;

/// All of them.
pub(super) fn all() -> Vec<Arc<AggregateUDF>> {
    let of = |does| {
        Arc::new(AggregateUDF::from(Function {
            does,
            signature: Signature::variadic_any(Volatility::Immutable),
        }))
    };
    vec![of(Does::FunnelDepth), of(Does::Retention)]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Does {
    FunnelDepth,
    Retention,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    does: Does,
    signature: Signature,
}

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        match self.does {
            Does::FunnelDepth => "funnel_depth",
            Does::Retention => "retention",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let conditions = |all: &[DataType]| {
            (1..=MAX_STEPS).contains(&all.len()) && all.iter().all(|one| *one == DataType::Boolean)
        };
        match (self.does, arguments) {
            (Does::FunnelDepth, [DataType::Timestamp(_, _), window, steps @ ..])
                if window.is_numeric() && conditions(steps) =>
            {
                Ok(DataType::Int64)
            }
            (Does::FunnelDepth, [DataType::Timestamp(_, _), offset, window, steps @ ..])
                if offset.is_integer() && window.is_numeric() && conditions(steps) =>
            {
                Ok(DataType::Int64)
            }
            (Does::FunnelDepth, _) => plan_err!(
                "funnel_depth takes a time, a window in seconds and 1 to {MAX_STEPS} conditions, as in \
                 funnel_depth(time, 86400, event_name = 'visit', event_name = 'purchase')"
            ),
            (Does::Retention, all) if conditions(all) => {
                Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Boolean, true))))
            }
            (Does::Retention, _) => plan_err!("retention takes 1 to {MAX_STEPS} conditions"),
        }
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match self.does {
            Does::FunnelDepth => {
                let has_offset =
                    arguments.expr_fields.get(2).is_some_and(|field| field.data_type().is_numeric());
                let steps = arguments.exprs.len() - 2 - usize::from(has_offset);
                Box::new(FunnelDepth { has_offset, steps, window: 0, actions: Vec::new() })
            }
            Does::Retention => Box::new(Retention { conditions: arguments.exprs.len(), met: 0 }),
        })
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let state = match self.does {
            Does::FunnelDepth => DataType::Binary,
            Does::Retention => DataType::UInt32,
        };
        Ok(vec![Arc::new(Field::new(format!("{}[state]", arguments.name), state, true))])
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        (self.does == Does::FunnelDepth).then(|| Box::new(with_offset) as AggregateFunctionSimplification)
    }
}

/// Gives `funnel_depth(time, window, …)` the `log_offset` that stands beside the time, so that events at one time keep their order.
fn with_offset(mut function: AggregateFunction, context: &SimplifyContext) -> Result<Expr> {
    if let [Expr::Column(time), _, third, ..] = &*function.params.args
        && context.is_boolean_type(third)?
    {
        let offset = Column::new(time.relation.clone(), LOG_OFFSET);
        if context.schema().has_column(&offset) {
            function.params.args.insert(1, Expr::Column(offset));
        }
    }
    Ok(Expr::AggregateFunction(function))
}

/// The conditions that a row meets, a bit each.
fn marks(conditions: &[ArrayRef], rows: usize) -> Vec<u32> {
    let mut marks = vec![0; rows];
    for (bit, condition) in conditions.iter().enumerate() {
        holds(condition.as_boolean()).set_indices().for_each(|row| marks[row] |= 1 << bit);
    }
    marks
}

#[derive(Debug)]
struct FunnelDepth {
    /// Whether the arguments have a `log_offset`.
    has_offset: bool,
    steps: usize,
    /// Microseconds.
    window: i64,
    /// Times, log offsets (0 without any) and the steps that are met. Sorted, they are in the order in which they count.
    actions: Vec<(i64, i64, u32)>,
}

/// Bytes of an action in the state.
const ACTION: usize = 20;

impl Accumulator for FunnelDepth {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (values, offsets) = match values {
            [time, offset, rest @ ..] if self.has_offset => {
                ([std::slice::from_ref(time), rest].concat(), Some(cast(offset, &DataType::Int64)?))
            }
            _ => (values.to_vec(), None),
        };
        let [time, window, steps @ ..] = &*values else {
            return plan_err!("funnel_depth lacks arguments");
        };
        let offsets = offsets.as_ref().map(|offsets| offsets.as_primitive::<Int64Type>());
        let times = cast(time, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let times = cast(&times, &DataType::Int64)?;
        let (times, window) = (times.as_primitive::<Int64Type>(), cast(window, &DataType::Int64)?);
        let window = window.as_primitive::<Int64Type>();
        if let Some(seconds) = window.iter().flatten().next() {
            self.window = seconds.saturating_mul(1_000_000);
        }
        for (row, marks) in marks(steps, time.len()).into_iter().enumerate() {
            if marks != 0 && times.is_valid(row) {
                self.actions.push((times.value(row), offsets.map_or(0, |offsets| offsets.value(row)), marks));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.actions.sort_unstable();
        // Numbered anew: log offsets of several partitions may be equal.
        let action = |(offset, (time, _, marks)): (i64, &(i64, i64, u32))| Action {
            actor: 0,
            time: *time,
            offset,
            marks: *marks,
            breaks: 0,
            group: 0,
        };
        let actions: Vec<_> = (0..).zip(&self.actions).map(action).collect();
        let passage = Funnel::new(Order::Strict, self.steps, self.window).pass(&actions);
        Ok(ScalarValue::Int64(Some(passage.map_or(0, |passage| passage.depth as i64))))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.actions.capacity() * size_of::<(i64, i64, u32)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = Vec::with_capacity(8 + ACTION * self.actions.len());
        bytes.extend(self.window.to_le_bytes());
        for (time, offset, marks) in &self.actions {
            bytes.extend(time.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            bytes.extend(marks.to_le_bytes());
        }
        Ok(vec![ScalarValue::Binary(Some(bytes))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in states[0].as_binary::<i32>().iter().flatten() {
            let Some((window, actions)) = state.split_first_chunk::<8>() else { continue };
            self.window = self.window.max(i64::from_le_bytes(*window));
            let (actions, _) = actions.as_chunks::<ACTION>();
            for action in actions {
                if let (Some((time, rest)), Some((_, marks))) =
                    (action.split_first_chunk(), action.split_last_chunk())
                    && let Some((offset, _)) = rest.split_first_chunk()
                {
                    let (time, offset) = (i64::from_le_bytes(*time), i64::from_le_bytes(*offset));
                    self.actions.push((time, offset, u32::from_le_bytes(*marks)));
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Retention {
    conditions: usize,
    met: u32,
}

impl Accumulator for Retention {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for (bit, condition) in values.iter().enumerate() {
            if holds(condition.as_boolean()).count_set_bits() > 0 {
                self.met |= 1 << bit;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let began = self.met & 1 != 0;
        let met = (0..self.conditions).map(|bit| Some(began && self.met >> bit & 1 != 0));
        let met: Vec<_> = met.map(ScalarValue::Boolean).collect();
        Ok(ScalarValue::List(ScalarValue::new_list_nullable(&met, &DataType::Boolean)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::UInt32(Some(self.met))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        use arrow::datatypes::UInt32Type;
        states[0].as_primitive::<UInt32Type>().iter().flatten().for_each(|met| self.met |= met);
        Ok(())
    }
}
