//! Scalar functions that are held to their [cost](Cost): a batch is cut into slices of bounded work, the deadline is checked between
//! them, and what they make is charged.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::ArrayRef,
    compute::concat,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    common::{config::ConfigOptions, resources_err},
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature,
        sort_properties::{ExprProperties, SortProperties},
    },
};

use super::{allowed::Cost, arithmetic::one_zero, bytes, meter::Meter};

/// Bytes of arguments in a slice, and bytes that may come of them: a few milliseconds.
const LINEAR: usize = 4 << 20;
/// Bytes of texts that are searched for a pattern in a slice: the engine of regular expressions takes a step for each byte and state of
/// the pattern at worst.
const SEARCHED: usize = 64 << 10;
/// Longest text that is searched for a pattern, bytes: longer than an event.
const MAX_SEARCHED: usize = 256 << 10;
/// Products of lengths in a slice: tens of milliseconds.
const QUADRATIC: usize = 16 << 20;
/// The product of the lengths for one row at most: two texts of 8 KiB, or one of 64 KiB and one of 1.
const MAX_QUADRATIC: usize = 64 << 20;

/// A function with its cost and the account that it is charged to.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Arc<ScalarUDF>,
    cost: Cost,
    meter: Arc<Meter>,
}

impl Metered {
    pub(super) fn udf(inner: Arc<ScalarUDF>, cost: Cost, meter: &Arc<Meter>) -> Arc<ScalarUDF> {
        Arc::new(Self { inner, cost, meter: Arc::clone(meter) }.into())
    }

    /// Whether it makes more of a batch than the batch has.
    pub(super) fn grows(&self) -> bool {
        matches!(self.cost, Cost::Joining | Cost::Replacing | Cost::PatternReplacing)
    }

    /// The work that a slice takes, as a multiple of what a slice may take; `Err` for what no slice may take.
    fn slices(&self, arguments: &ScalarFunctionArgs) -> Result<usize> {
        let rows = arguments.number_rows;
        let total = |values: &[ColumnarValue]| {
            values.iter().map(|value| bytes::of_value(value, rows)).fold(0, usize::saturating_add)
        };
        let (work, each) = match (self.cost, arguments.args.as_slice()) {
            (Cost::Constant, _) => (0, LINEAR),
            (Cost::Linear | Cost::Joining | Cost::Replaced | Cost::Internal, all) => (total(all), LINEAR),
            (Cost::Pattern, all) => (total(&all[..all.len().min(1)]), SEARCHED),
            (Cost::Quadratic, [one, other, rest @ ..]) => {
                let longest =
                    bytes::longest(other).max(rest.iter().map(bytes::longest).max().unwrap_or_default());
                if bytes::longest(one).min(64 << 20).saturating_mul(longest) > MAX_QUADRATIC {
                    return resources_err!("{} is called with texts that are too long", self.inner.name());
                }
                (bytes::of_value(one, rows).saturating_mul(longest), QUADRATIC)
            }
            (Cost::Replacing | Cost::PatternReplacing, [text, others @ ..]) => {
                // Each byte of the first can become one of the others.
                let times = others.iter().map(bytes::longest).max().unwrap_or_default().saturating_add(1);
                let made = bytes::of_value(text, rows).saturating_mul(times);
                match self.cost {
                    Cost::PatternReplacing => {
                        (made.max(bytes::of_value(text, rows).saturating_mul(LINEAR / SEARCHED)), LINEAR)
                    }
                    _ => (made, LINEAR),
                }
            }
            (Cost::Quadratic | Cost::Replacing | Cost::PatternReplacing, _) => (0, LINEAR),
        };
        if matches!(self.cost, Cost::Pattern | Cost::PatternReplacing)
            && arguments.args.first().is_some_and(|text| bytes::longest(text) > MAX_SEARCHED)
        {
            return resources_err!("{} searches texts of at most {MAX_SEARCHED} bytes", self.inner.name());
        }
        Ok(work.div_ceil(each).max(1))
    }

    /// Refuses what would make more than is left before it is made.
    fn expect(&self, arguments: &ScalarFunctionArgs) -> Result<()> {
        let rows = arguments.number_rows;
        let made = match (self.cost, arguments.args.as_slice()) {
            (Cost::Joining, all) => {
                all.iter().map(|value| bytes::of_value(value, rows)).fold(0, usize::saturating_add)
            }
            (Cost::Replacing | Cost::PatternReplacing, [text, others @ ..]) => {
                let times = others.iter().map(bytes::longest).max().unwrap_or_default().saturating_add(1);
                bytes::of_value(text, rows).saturating_mul(times)
            }
            _ => 0,
        };
        if made > self.meter.left() {
            return self.meter.charge(made);
        }
        Ok(())
    }

    fn slice(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.meter.check()?;
        self.expect(&arguments)?;
        let rows = arguments.number_rows;
        let value = self.inner.invoke_with_args(arguments)?;
        let rows = if matches!(value, ColumnarValue::Scalar(_)) { 1 } else { rows };
        self.meter.charge(bytes::of_value(&value, rows))?;
        one_zero(value)
    }
}

impl PartialEq for Metered {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Metered {}

impl Hash for Metered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

/// It is not simplified where that would put the function itself in its place.
impl ScalarUDFImpl for Metered {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        self.inner.schema_name(arguments)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = Arc::new(self.inner.inner().with_updated_config(config)?);
        Some(Self { inner, cost: self.cost, meter: Arc::clone(&self.meter) }.into())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn placement(&self, arguments: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.placement(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let is_scalar = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let slices = self.slices(&arguments)?;
        if slices == 1 || rows <= 1 || is_scalar {
            return self.slice(arguments);
        }
        let each = rows.div_ceil(slices).max(1);
        let parts = (0..rows).step_by(each).map(|start| {
            let length = each.min(rows - start);
            let cut = |value: &ColumnarValue| match value {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, length)),
                ColumnarValue::Scalar(_) => value.clone(),
            };
            let args = arguments.args.iter().map(cut).collect();
            let part = ScalarFunctionArgs { args, number_rows: length, ..arguments.clone() };
            self.slice(part)?.into_array(length)
        });
        let parts: Vec<ArrayRef> = parts.collect::<Result<_>>()?;
        let parts: Vec<_> = parts.iter().map(|part| &**part).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}
