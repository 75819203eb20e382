//! Values within properties that are structs, by path: `cart.total` is 5 in `{"cart": {"total": 5}}`.
//!
//! Segments keep a struct as JSON in the map of properties. So old segments answer, too, and what nobody asks for costs nothing.

use arrow::array::{Float64Array, StringViewArray, StringViewBuilder};
use serde_json::Value;
use weir_rollup::field::write_number;

use crate::{schema::Kind, shape::Entries};

/// The text of the value at a path, row by row, as [`crate::view::Column::Text`] has it.
pub(crate) fn texts(entries: &Entries<'_>, path: &str) -> StringViewArray {
    let mut texts = StringViewBuilder::with_capacity(entries.rows());
    let mut text = String::new();
    for row in 0..entries.rows() {
        match value(entries, row, path) {
            Some(Value::String(value)) => texts.append_value(value),
            Some(Value::Bool(value)) => texts.append_value(if value { "true" } else { "false" }),
            Some(Value::Number(number)) => {
                text.clear();
                write_number(number.as_f64().unwrap_or_default(), &mut text);
                texts.append_value(&text);
            }
            Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => texts.append_null(),
        }
    }
    texts.finish()
}

/// The number at a path, row by row.
pub(crate) fn numbers(entries: &Entries<'_>, path: &str) -> Float64Array {
    (0..entries.rows()).map(|row| value(entries, row, path)?.as_f64()).collect()
}

fn value(entries: &Entries<'_>, row: usize, path: &str) -> Option<Value> {
    let (outer, path) = path.split_once('.')?;
    let Some((Kind::Json, json)) = entries.get(row, outer) else { return None };
    let mut value: Value = serde_json::from_str(json).ok()?;
    for key in path.split('.') {
        value = value.as_object_mut()?.remove(key)?;
    }
    Some(value)
}
