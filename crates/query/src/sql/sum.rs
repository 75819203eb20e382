//! `sum` without wrong signs. DataFusion's own adds integers and decimals up in their own width and wraps around; here they are added up
//! in twice the width, and a result that does not fit is an error.

use arrow::{
    array::{ArrayRef, BooleanArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    common::ScalarValue,
    error::Result,
    functions_aggregate::sum::sum_udaf,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};
use std::sync::Arc;

/// Casts that fail where a value does not fit.
const CHECKED: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };
/// Digits of decimals of which 128 bits hold the sum of ten billion.
const NARROW: u8 = 28;

/// The function.
pub(super) fn udaf() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Sum { inner: sum_udaf() }))
}

/// What values are added up as, where their own type is too narrow.
fn wide(of: &DataType) -> Option<DataType> {
    match of {
        DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(38, 0)),
        DataType::Decimal128(digits, scale) if *digits > NARROW => Some(DataType::Decimal256(76, *scale)),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    inner: Arc<AggregateUDF>,
}

impl Sum {
    /// Calls the inner function with arguments of a type.
    fn with<T>(
        arguments: AccumulatorArgs,
        to: &DataType,
        call: impl FnOnce(AccumulatorArgs) -> Result<T>,
    ) -> Result<T> {
        let field: FieldRef = Arc::new(Field::new("sum", to.clone(), true));
        let fields = [Arc::clone(&field)];
        call(AccumulatorArgs { return_field: field, expr_fields: &fields, ..arguments })
    }
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let Some(to) = arguments.input_fields.first().and_then(|field| wide(field.data_type())) else {
            return self.inner.state_fields(arguments);
        };
        let field: FieldRef = Arc::new(Field::new(arguments.name, to, true));
        let inputs = [Arc::clone(&field)];
        self.inner.state_fields(StateFieldsArgs { return_field: field, input_fields: &inputs, ..arguments })
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let of = arguments.return_field.data_type().clone();
        let Some(to) = wide(arguments.expr_fields[0].data_type()) else {
            return self.inner.accumulator(arguments);
        };
        let inner = Self::with(arguments, &to, |arguments| self.inner.accumulator(arguments))?;
        Ok(Box::new(Wide { inner, to, of }))
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let of = arguments.return_field.data_type().clone();
        let Some(to) = wide(arguments.expr_fields[0].data_type()) else {
            return self.inner.create_sliding_accumulator(arguments);
        };
        let inner = Self::with(arguments, &to, |arguments| self.inner.create_sliding_accumulator(arguments))?;
        Ok(Box::new(Wide { inner, to, of }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_udf()
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        !arguments.is_distinct
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let of = arguments.return_field.data_type().clone();
        let Some(to) = wide(arguments.expr_fields[0].data_type()) else {
            return self.inner.create_groups_accumulator(arguments);
        };
        let inner = Self::with(arguments, &to, |arguments| self.inner.create_groups_accumulator(arguments))?;
        Ok(Box::new(WideGroups { inner, to, of }))
    }
}

/// Adds up in a wider type.
#[derive(Debug)]
struct Wide {
    inner: Box<dyn Accumulator>,
    to: DataType,
    of: DataType,
}

fn widened(values: &[ArrayRef], to: &DataType) -> Result<Vec<ArrayRef>> {
    let cast = |array: &ArrayRef| cast_with_options(array, to, &CHECKED);
    Ok(values.iter().map(cast).collect::<Result<_, _>>()?)
}

impl Accumulator for Wide {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&widened(values, &self.to)?)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&widened(values, &self.to)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&cast_with_options(&sum, &self.of, &CHECKED)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}

/// The same for many groups.
struct WideGroups {
    inner: Box<dyn GroupsAccumulator>,
    to: DataType,
    of: DataType,
}

impl GroupsAccumulator for WideGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.inner.update_batch(&widened(values, &self.to)?, groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(cast_with_options(&self.inner.evaluate(emit_to)?, &self.of, &CHECKED)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&widened(values, &self.to)?, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
