//! Aggregate functions for SQL.
//!
//! - `funnel_depth(time, window_seconds, step1, step2, …)`: of the events of a group (mostly `group by user_hash`), how many steps
//!   the best chain reaches within the window, see [`fold::funnel`](crate::fold::funnel). Events at one time are taken
//!   in the order of the steps that they meet.
//! - `retention(condition1, condition2, …)`: a list that tells for each condition whether some event meets it and some event meets
//!   the first.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit},
};
use datafusion::{
    common::{ScalarValue, plan_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};

use crate::fold::{
    Action,
    funnel::{Funnel, MAX_STEPS, Order},
};
use crate::gather::holds;

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
                Box::new(FunnelDepth { steps: arguments.exprs.len() - 2, window: 0, actions: Vec::new() })
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
    steps: usize,
    /// Microseconds.
    window: i64,
    actions: Vec<(i64, u32)>,
}

/// Bytes of an action in the state.
const ACTION: usize = 12;

impl Accumulator for FunnelDepth {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [time, window, steps @ ..] = values else { return plan_err!("funnel_depth lacks arguments") };
        let times = cast(time, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let times = cast(&times, &DataType::Int64)?;
        let (times, window) = (times.as_primitive::<Int64Type>(), cast(window, &DataType::Int64)?);
        let window = window.as_primitive::<Int64Type>();
        if let Some(seconds) = window.iter().flatten().next() {
            self.window = seconds.saturating_mul(1_000_000);
        }
        for (row, marks) in marks(steps, time.len()).into_iter().enumerate() {
            if marks != 0 && times.is_valid(row) {
                self.actions.push((times.value(row), marks));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.actions.sort_unstable();
        let action = |(offset, (time, marks)): (i64, &(i64, u32))| Action {
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
        size_of_val(self) + self.actions.capacity() * size_of::<(i64, u32)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = Vec::with_capacity(8 + ACTION * self.actions.len());
        bytes.extend(self.window.to_le_bytes());
        for (time, marks) in &self.actions {
            bytes.extend(time.to_le_bytes());
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
                if let (Some((time, _)), Some((_, marks))) =
                    (action.split_first_chunk(), action.split_last_chunk())
                {
                    self.actions.push((i64::from_le_bytes(*time), u32::from_le_bytes(*marks)));
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
