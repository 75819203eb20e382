//! Arithmetic without wrong signs: what does not fit is an error, and floating-point numbers have one zero and one NaN.
//!
//! DataFusion's own operators wrap integers around, and compare and hash floating-point numbers by their bits: −0.0 and 0.0 are two groups
//! and two distinct values there, and not equal. Here −0.0 is never made. [`Planner`] puts these functions in the place of operators.

use std::{
    cell::Cell,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray as _, Datum},
    compute::{cast, kernels::numeric},
    datatypes::{DataType, Float32Type, Float64Type},
    error::ArrowError,
};
use datafusion::{
    common::{DFSchema, ScalarValue, plan_err},
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable as _, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
        Signature, Volatility,
        expr::ScalarFunction,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
        type_coercion::binary::BinaryTypeCoercer,
    },
    sql::sqlparser::ast::BinaryOperator,
};

use super::{allowed::Cost, meter::Meter, metered::Metered};

/// The functions that stand for operators, held to the account of a statement.
#[derive(Debug)]
pub(super) struct Planner {
    meter: Arc<Meter>,
}

impl Planner {
    pub(super) fn of(meter: &Arc<Meter>) -> Arc<dyn ExprPlanner> {
        Arc::new(Self { meter: Arc::clone(meter) })
    }

    fn call(&self, does: Does, arguments: Vec<Expr>) -> Expr {
        let cost = if does == Does::Concat { Cost::Joining } else { Cost::Constant };
        let function = Metered::udf(does.udf(), cost, &self.meter);
        Expr::ScalarFunction(ScalarFunction::new_udf(function, arguments))
    }
}

impl ExprPlanner for Planner {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (left, right) = (raw.left.get_type(schema)?, raw.right.get_type(schema)?);
        let are_numbers =
            [&left, &right].into_iter().all(|side| side.is_numeric() || *side == DataType::Null);
        let operator = match raw.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Modulo,
            BinaryOperator::StringConcat if !is_list(&left) && !is_list(&right) => {
                return Ok(PlannerResult::Planned(self.call(Does::Concat, vec![raw.left, raw.right])));
            }
            _ => return Ok(PlannerResult::Original(raw)),
        };
        // Of times and intervals there is nothing to check here.
        if !are_numbers {
            return Ok(PlannerResult::Original(raw));
        }
        Ok(PlannerResult::Planned(self.call(Does::Compute(operator), vec![raw.left, raw.right])))
    }
}

fn is_list(of_type: &DataType) -> bool {
    matches!(of_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

/// What one of the functions does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Does {
    /// An operator on numbers.
    Compute(Operator),
    /// `||`: null if a side is null, as SQL has it and `concat` has it not.
    Concat,
    /// `-x`
    Negative,
    /// A number with one zero and one NaN.
    OneZero,
}

impl Does {
    pub(super) fn udf(self) -> Arc<ScalarUDF> {
        Arc::new(Function { does: self, signature: Signature::user_defined(Volatility::Immutable) }.into())
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    does: Does,
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.does {
            Does::Compute(Operator::Plus) => "add",
            Does::Compute(Operator::Minus) => "subtract",
            Does::Compute(Operator::Multiply) => "multiply",
            Does::Compute(Operator::Divide) => "divide",
            Does::Compute(_) => "modulo",
            Does::Concat => "||",
            Does::Negative => "negative",
            Does::OneZero => "one_zero",
        }
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        Ok(named(self.does, arguments))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match (self.does, arguments) {
            (Does::Compute(operator), [left, right]) => {
                let (left, right) = BinaryTypeCoercer::new(left, &operator, right).get_input_types()?;
                Ok(vec![left, right])
            }
            (Does::Concat, [_, _]) => Ok(vec![DataType::Utf8View; 2]),
            (Does::Negative, [of]) => match of {
                DataType::Null => Ok(vec![DataType::Int64]),
                of if of.is_numeric() || matches!(of, DataType::Interval(_) | DataType::Duration(_)) => {
                    // What has no sign gets one.
                    let to = match of {
                        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
                        DataType::UInt64 => DataType::Decimal128(20, 0),
                        other => other.clone(),
                    };
                    Ok(vec![to])
                }
                other => plan_err!("`-` takes a number or an interval, not {other}"),
            },
            (Does::OneZero, [of]) => Ok(vec![of.clone()]),
            _ => plan_err!("{} is called with {} arguments", self.name(), arguments.len()),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match (self.does, arguments) {
            (Does::Compute(operator), [left, right]) => {
                BinaryTypeCoercer::new(left, &operator, right).get_result_type()
            }
            (Does::Concat, _) => Ok(DataType::Utf8View),
            (_, [first, ..]) => Ok(first.clone()),
            (_, []) => plan_err!("{} is called without arguments", self.name()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        match (self.does, arguments.args.as_slice()) {
            (Does::Compute(operator), [left, right]) => {
                let compute = match operator {
                    Operator::Plus => numeric::add,
                    Operator::Minus => numeric::sub,
                    Operator::Multiply => numeric::mul,
                    Operator::Divide => numeric::div,
                    _ => numeric::rem,
                };
                apply(left, right, compute)
            }
            (Does::Concat, [left, right]) => concatenated(left, right, rows),
            (Does::Negative, [of]) => match of {
                ColumnarValue::Scalar(value) => {
                    let array = numeric::neg(&value.to_array()?)?;
                    Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
                }
                ColumnarValue::Array(array) => Ok(ColumnarValue::Array(numeric::neg(array)?)),
            },
            (_, [of, ..]) => one_zero(of.clone()),
            (_, []) => plan_err!("{} is called without arguments", self.name()),
        }
    }
}

/// How deep names show what they are names of. The planner asks for the name of every part of an expression, which would take time by
/// the cube of a chain such as `1 + 1 + 1`.
const SHOWN: u32 = 6;

/// The name of a call: its text, as far as it is not too deep, and a hash of what is deeper.
fn named(does: Does, arguments: &[Expr]) -> String {
    thread_local! {
        static DEPTH: Cell<u32> = const { Cell::new(0) };
    }
    let depth = DEPTH.get();
    if depth >= SHOWN {
        let mut hasher = DefaultHasher::new();
        (does, arguments).hash(&mut hasher);
        return format!("…{:016x}", hasher.finish());
    }
    DEPTH.set(depth + 1);
    let show = |expr: &Expr| expr.schema_name().to_string();
    let name = match (does, arguments) {
        (Does::Compute(operator), [left, right]) => format!("{} {operator} {}", show(left), show(right)),
        (Does::Concat, [left, right]) => format!("{} || {}", show(left), show(right)),
        (Does::Negative, [of]) => format!("- {}", show(of)),
        (_, all) => format!("one_zero({})", all.iter().map(show).collect::<String>()),
    };
    DEPTH.set(depth);
    name
}

/// Applies a kernel to arrays and scalars.
fn apply(
    left: &ColumnarValue,
    right: &ColumnarValue,
    compute: fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError>,
) -> Result<ColumnarValue> {
    Ok(match (left, right) {
        (ColumnarValue::Array(left), ColumnarValue::Array(right)) => {
            ColumnarValue::Array(compute(left, right)?)
        }
        (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => {
            ColumnarValue::Array(compute(left, &right.to_scalar()?)?)
        }
        (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => {
            ColumnarValue::Array(compute(&left.to_scalar()?, right)?)
        }
        (ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)) => {
            let value = compute(&left.to_scalar()?, &right.to_scalar()?)?;
            ColumnarValue::Scalar(ScalarValue::try_from_array(&value, 0)?)
        }
    })
}

fn concatenated(left: &ColumnarValue, right: &ColumnarValue, rows: usize) -> Result<ColumnarValue> {
    let is_scalar = [left, right].into_iter().all(|side| matches!(side, ColumnarValue::Scalar(_)));
    let rows = if is_scalar { 1 } else { rows };
    let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
    let (left, right) = (cast(&left, &DataType::Utf8View)?, cast(&right, &DataType::Utf8View)?);
    let mut made = arrow::array::StringViewBuilder::with_capacity(rows);
    let mut text = String::new();
    for (left, right) in left.as_string_view().iter().zip(right.as_string_view()) {
        match (left, right) {
            (Some(left), Some(right)) => {
                text.clear();
                text.push_str(left);
                text.push_str(right);
                made.append_value(&text);
            }
            _ => made.append_null(),
        }
    }
    let made: ArrayRef = Arc::new(made.finish());
    match is_scalar {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
        false => Ok(ColumnarValue::Array(made)),
    }
}

/// A value of floating-point numbers with one zero and one NaN; any other as it is.
pub(super) fn one_zero(value: ColumnarValue) -> Result<ColumnarValue> {
    fn canonical64(number: f64) -> f64 {
        if number.is_nan() { f64::NAN } else { number + 0.0 }
    }
    fn canonical32(number: f32) -> f32 {
        if number.is_nan() { f32::NAN } else { number + 0.0 }
    }
    Ok(match value {
        ColumnarValue::Scalar(ScalarValue::Float64(Some(number))) => {
            ColumnarValue::Scalar(ScalarValue::Float64(Some(canonical64(number))))
        }
        ColumnarValue::Scalar(ScalarValue::Float32(Some(number))) => {
            ColumnarValue::Scalar(ScalarValue::Float32(Some(canonical32(number))))
        }
        ColumnarValue::Array(array) => ColumnarValue::Array(match array.data_type() {
            DataType::Float64 => {
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical64))
            }
            DataType::Float32 => {
                Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(canonical32))
            }
            _ => array,
        }),
        other => other,
    })
}
