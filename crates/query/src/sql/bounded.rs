//! Functions whose values can be many times as long as their arguments.

use std::sync::Arc;

use arrow::{
    array::{Array as _, AsArray as _},
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    common::resources_err,
    error::Result,
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature},
};

/// Those that put texts in the place of each byte. Nested, they would grow without end, and none of it is accounted for.
const REPLACING: [&str; 3] = ["replace", "regexp_replace", "array_to_string"];
/// Those that put all of their arguments together, as often as they are given.
const JOINING: [&str; 5] = ["concat", "concat_ws", "make_array", "struct", "named_struct"];
/// What one may make of a batch of rows at most, bytes.
const LIMIT: usize = 256 << 20;

/// The function, held to the limit if it is one of these.
pub(super) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let is_one = [&REPLACING[..], &JOINING].concat().contains(&function.name());
    if is_one { Arc::new(Bounded { inner: function }.into()) } else { function }
}

/// Refuses to evaluate what may become too long. It is not simplified: that would put the function itself in its place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let total = |value| total(value, arguments.number_rows);
        let bytes = match arguments.args.as_slice() {
            all if JOINING.contains(&self.name()) => all.iter().map(total).fold(0, usize::saturating_add),
            [text, others @ ..] => {
                // Each byte of the first can become one of the others at most.
                let times = others.iter().map(longest).max().unwrap_or_default().saturating_add(1);
                total(text).saturating_mul(times)
            }
            [] => 0,
        };
        if bytes > LIMIT {
            return resources_err!("{} may make more than {LIMIT} bytes of a batch of rows", self.name());
        }
        self.inner.invoke_with_args(arguments)
    }
}

/// Bytes of a value for all rows.
fn total(value: &ColumnarValue, rows: usize) -> usize {
    match value {
        ColumnarValue::Scalar(_) => longest(value).saturating_mul(rows),
        ColumnarValue::Array(array) => match array.as_string_view_opt() {
            Some(texts) => texts.lengths().map(|length| length as usize).sum(),
            None => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
        },
    }
}

/// Bytes of the longest of the values.
fn longest(value: &ColumnarValue) -> usize {
    match value {
        ColumnarValue::Scalar(scalar) => {
            scalar.try_as_str().map_or_else(|| scalar.size(), |text| text.map_or(0, str::len))
        }
        ColumnarValue::Array(array) => match array.as_string_view_opt() {
            Some(texts) => texts.lengths().max().unwrap_or_default() as usize,
            None => total(value, array.len()),
        },
    }
}
