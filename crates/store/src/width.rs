//! How much memory rows take. An event can be 64 KiB or 100 bytes: whatever holds many of them is cut by bytes, not by rows alone.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::DataType,
};

/// Rows of a batch that is read, where they are narrow.
pub(crate) const BATCH: usize = 8192;
/// Bytes of a batch that is read, about.
pub const BATCH_BYTES: usize = 2 << 20;
/// Rows of a batch, for rows that are wider and wider. Few different numbers, so that files with rows of about a width are read together.
const ROWS: [usize; 4] = [BATCH, 1024, 128, 16];
/// Texts up to this length count as their views: there are mostly few different ones, which rows share. Bytes.
const SHARED: u32 = 64;
/// Bytes of a view.
const VIEW: usize = 16;

/// Bytes that the rows of a batch take.
pub fn bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(of_array).sum()
}

/// Bytes that the values of an array take; those of a slice are only its own.
pub(crate) fn of_array(array: &ArrayRef) -> usize {
    let nulls = array.nulls().map_or(0, |_| array.len().div_ceil(8));
    let values = match array.data_type() {
        DataType::Utf8View => {
            let long = array.as_string_view().lengths().filter(|length| *length > SHARED);
            VIEW * array.len() + long.map(|length| length as usize).sum::<usize>()
        }
        DataType::Dictionary(..) => {
            let keys = array.as_any_dictionary();
            let width = keys.keys().data_type().primitive_width().unwrap_or(VIEW);
            width * array.len() + long_texts(array)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let offsets = map.value_offsets();
            entries(offsets, map.entries().columns()) + size_of_val(offsets)
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            entries(offsets, std::slice::from_ref(list.values())) + size_of_val(offsets)
        }
        // Fixed widths, and what is written as such.
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    };
    nulls + values
}

/// Bytes of the entries between the first and the last of some offsets.
fn entries(offsets: &[i32], columns: &[ArrayRef]) -> usize {
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return 0 };
    let rows = (last - first) as usize;
    columns.iter().map(|column| of_array(&column.slice(*first as usize, rows))).sum()
}

/// Bytes of the long texts of numbered texts, each as often as it occurs.
fn long_texts(array: &ArrayRef) -> usize {
    let dictionary = array.as_any_dictionary();
    let Some(texts) = dictionary.values().as_string_view_opt() else { return 0 };
    if texts.lengths().all(|length| length <= SHARED) {
        return 0;
    }
    let lengths: Vec<u32> = texts.lengths().collect();
    let keys = dictionary.normalized_keys();
    let valid = (0..array.len()).filter(|row| array.is_valid(*row));
    let lengths = valid.filter_map(|row| lengths.get(keys[row])).filter(|length| **length > SHARED);
    lengths.map(|length| *length as usize).sum()
}

/// Rows of a batch where one takes so many bytes.
pub(crate) fn rows(width: u64) -> usize {
    let fits = |rows: &&usize| width.saturating_mul(**rows as u64) <= BATCH_BYTES as u64;
    ROWS.iter().find(fits).copied().unwrap_or(ROWS[ROWS.len() - 1])
}

/// How many of the rows from one on take at most so many bytes, and how many they take. None when the first alone takes more.
pub(crate) fn prefix(
    batch: &RecordBatch,
    start: usize,
    most_rows: usize,
    most_bytes: usize,
) -> (usize, usize) {
    let (end, mut at, mut sum) = (batch.num_rows().min(start.saturating_add(most_rows)), start, 0);
    let mut step = BATCH;
    while at < end {
        let rows = step.min(end - at);
        let more = bytes(&batch.slice(at, rows));
        if sum + more <= most_bytes {
            (at, sum) = (at + rows, sum + more);
        } else if rows > 1 {
            step = rows / 2;
        } else {
            break;
        }
    }
    (at - start, sum)
}

/// The rows of a batch in pieces of at most so many bytes, or one row.
pub fn pieces(batch: &RecordBatch, most_bytes: usize) -> impl Iterator<Item = RecordBatch> + use<> {
    let (mut start, batch) = (0, batch.clone());
    std::iter::from_fn(move || {
        let left = batch.num_rows() - start;
        let rows = match prefix(&batch, start, left, most_bytes) {
            _ if left == 0 => return None,
            (0, _) => 1,
            (rows, _) => rows,
        };
        let piece = batch.slice(start, rows);
        start += rows;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, StringViewArray, types::Int32Type};

    use super::*;

    fn batch(lengths: &[usize]) -> RecordBatch {
        let texts: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..lengths.len() as i64));
        let plain: ArrayRef = Arc::new(StringViewArray::from_iter_values(&texts));
        RecordBatch::try_from_iter([("number", numbers), ("text", plain)]).unwrap()
    }

    #[test]
    fn long_texts_count_and_slices_only_have_their_own() {
        let batch = batch(&[10, 100_000, 10, 50_000]);
        assert_eq!(bytes(&batch), 4 * (8 + VIEW) + 150_000);
        assert_eq!(bytes(&batch.slice(2, 1)), 8 + VIEW);
        let long = "y".repeat(1000);
        let numbered: DictionaryArray<Int32Type> =
            [Some("a"), Some(&long), None, Some(&long)].into_iter().collect();
        let numbered = arrow::compute::cast(&numbered, &crate::view::dictionary_type()).unwrap();
        assert!((2016..2020).contains(&of_array(&numbered)), "{}", of_array(&numbered));
    }

    #[test]
    fn pieces_have_all_rows_in_order_and_few_bytes() {
        let lengths: Vec<usize> =
            (0..5000).map(|row| if row % 700 == 3 { 90_000 } else { row % 40 }).collect();
        let batch = batch(&lengths);
        let found: Vec<RecordBatch> = pieces(&batch, 50_000).collect();
        assert!(found.iter().all(|piece| bytes(piece) <= 50_000 || piece.num_rows() == 1));
        assert!(found.len() < 40, "{} pieces", found.len());
        assert_eq!(arrow::compute::concat_batches(batch.schema_ref(), &found).unwrap(), batch);
        assert_eq!(pieces(&batch.slice(0, 0), 10).count(), 0);
    }
}
