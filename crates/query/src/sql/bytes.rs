//! How many bytes values take: those of their rows alone, where an array shares its buffers with others.

use arrow::{
    array::{Array, AsArray as _, RecordBatch},
    datatypes::DataType,
};
use datafusion::logical_expr::ColumnarValue;

/// Bytes of a view: what a text takes beside its own.
const VIEW: usize = 16;

/// Bytes of a batch.
pub(super) fn of_batch(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(of_array).sum()
}

/// Bytes of an array.
pub(super) fn of_array(array: impl AsRef<dyn Array>) -> usize {
    let array = array.as_ref();
    let rows = array.len();
    match array.data_type() {
        DataType::Utf8View => array.as_string_view().lengths().map(|length| length as usize + VIEW).sum(),
        DataType::BinaryView => array.as_binary_view().lengths().map(|length| length as usize + VIEW).sum(),
        DataType::Utf8 => span(array.as_string::<i32>().value_offsets()) + 4 * rows,
        DataType::LargeUtf8 => span(array.as_string::<i64>().value_offsets()) + 8 * rows,
        DataType::Binary => span(array.as_binary::<i32>().value_offsets()) + 4 * rows,
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (first, length) = (list.value_offsets()[0] as usize, span(list.value_offsets()));
            of_array(list.values().slice(first, length)) + 4 * rows
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (first, length) = (map.value_offsets()[0] as usize, span(map.value_offsets()));
            map.entries()
                .columns()
                .iter()
                .map(|entries| of_array(entries.slice(first, length)))
                .sum::<usize>()
                + 4 * rows
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(of_array).sum(),
        DataType::Dictionary(_, _) => {
            // The rows' share, where an array is a part of another with the same values.
            let values = array.as_any_dictionary().values();
            let (bytes, distinct) = (of_array(values), values.len().max(1));
            bytes.min(bytes.div_ceil(distinct).saturating_mul(rows)) + 4 * rows
        }
        other => match other.primitive_width() {
            Some(width) => width * rows,
            None => array
                .get_array_memory_size()
                .min(array.to_data().get_slice_memory_size().unwrap_or(usize::MAX)),
        },
    }
}

fn span<T: Copy + TryInto<usize>>(offsets: &[T]) -> usize {
    let at = |offset: Option<&T>| offset.and_then(|offset| (*offset).try_into().ok()).unwrap_or_default();
    at(offsets.last()).saturating_sub(at(offsets.first()))
}

/// Bytes of a value for so many rows.
pub(super) fn of_value(value: &ColumnarValue, rows: usize) -> usize {
    match value {
        ColumnarValue::Scalar(_) => longest(value).saturating_mul(rows),
        ColumnarValue::Array(array) => of_array(array),
    }
}

/// Bytes of the longest of the values; of all together where they are not texts.
pub(super) fn longest(value: &ColumnarValue) -> usize {
    match value {
        ColumnarValue::Scalar(scalar) => match scalar.try_as_str() {
            Some(text) => text.map_or(0, str::len),
            None => scalar.size(),
        },
        ColumnarValue::Array(array) => longest_of(array),
    }
}

/// The same of an array.
pub(super) fn longest_of(array: impl AsRef<dyn Array>) -> usize {
    let array = array.as_ref();
    match array.data_type() {
        DataType::Utf8View => array.as_string_view().lengths().max().unwrap_or_default() as usize,
        DataType::Utf8 => {
            let offsets = array.as_string::<i32>().value_offsets();
            offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or_default()
        }
        _ => of_array(array.slice(0, array.len())),
    }
}
