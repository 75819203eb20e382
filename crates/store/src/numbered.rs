//! Texts of which few are distinct, as segments hold them: numbers, and a dictionary of what they stand for. What depends on such a
//! text alone is computed once for each entry of the dictionary and not for each row.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{AnyDictionaryArray, Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array},
    buffer::{BooleanBuffer, NullBuffer},
    compute::{cast, concat, take},
    datatypes::{DataType, Field, Int32Type, Schema, SchemaRef},
};
use datafusion::{
    common::{
        DataFusionError,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::ColumnarValue,
    physical_expr::{PhysicalExpr, expressions::Column as PhysicalColumn},
};
use parquet::{
    arrow::parquet_to_arrow_schema,
    basic::Encoding,
    file::metadata::{ColumnChunkMetaData, KeyValue, ParquetMetaData},
};

use crate::{texts, view::external};

/// Entries up to which truths fit into a word.
const WORD: usize = 64;
/// Bytes of a dictionary in a file up to which it is kept: some thousand texts, fewer than a batch has rows.
const DICTIONARY: i64 = 16 << 10;

/// What files are read as, where some columns are to keep their dictionaries.
#[derive(Debug)]
pub(crate) struct Schemas<'c> {
    /// The columns' names.
    columns: &'c [String],
    /// By what a file says of its types, and by which of its columns have dictionaries: many files have them in common.
    known: Vec<(Option<Vec<KeyValue>>, Vec<bool>, SchemaRef)>,
}

impl<'c> Schemas<'c> {
    pub(crate) fn new(columns: &'c [String]) -> Self {
        Self { columns, known: Vec::new() }
    }

    /// The types with which to read a file; `None`: those that it names.
    pub(crate) fn of(&mut self, file: &ParquetMetaData) -> Option<SchemaRef> {
        let has_dictionary: Vec<bool> =
            self.columns.iter().map(|column| has_dictionary(file, column)).collect();
        if !has_dictionary.contains(&true) {
            return None;
        }
        let (of_file, names) = (file.file_metadata(), self.columns);
        let types = of_file.key_value_metadata();
        let known = self.known.iter().find(|(same, has, _)| same.as_ref() == types && *has == has_dictionary);
        if let Some((.., schema)) = known {
            return Some(Arc::clone(schema));
        }
        let schema = parquet_to_arrow_schema(of_file.schema_descr(), types).ok()?;
        let fields = schema.fields().iter().map(|field| {
            let chosen = names.iter().zip(&has_dictionary).any(|(name, has)| *has && name == field.name());
            match field.data_type() {
                DataType::Utf8View if chosen => Arc::new(field.as_ref().clone().with_data_type(numbered())),
                _ => Arc::clone(field),
            }
        });
        let schema =
            Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()));
        self.known.push((types.cloned(), has_dictionary, Arc::clone(&schema)));
        Some(schema)
    }
}

fn numbered() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Whether a file has a column, and nothing but small dictionaries and numbers for it.
fn has_dictionary(file: &ParquetMetaData, column: &str) -> bool {
    let leaves = file.file_metadata().schema_descr().columns();
    let Some(leaf) = leaves.iter().position(|leaf| leaf.path().parts() == [column]) else { return false };
    let small = |chunk: &ColumnChunkMetaData| {
        chunk.dictionary_page_offset().is_some_and(|start| chunk.data_page_offset() - start <= DICTIONARY)
            && chunk.page_encoding_stats_mask().is_some_and(|pages| pages.is_only(Encoding::RLE_DICTIONARY))
    };
    file.row_groups().iter().all(|group| small(group.column(leaf)))
}

/// An expression of a numbered text and nothing else.
#[derive(Debug, Eq)]
pub(crate) struct OfNumbered {
    /// A dictionary.
    numbers: Arc<dyn PhysicalExpr>,
    /// The expression, of the only column of [`TEXT`].
    of_text: Arc<dyn PhysicalExpr>,
}

// As deriving them would; but what that makes can't compare what is behind an `Arc<dyn …>`.
impl PartialEq for OfNumbered {
    fn eq(&self, other: &Self) -> bool {
        self.numbers.eq(&other.numbers) && self.of_text.eq(&other.of_text)
    }
}

impl Hash for OfNumbered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.numbers.hash(state);
        self.of_text.hash(state);
    }
}

static TEXT: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8View, true)])));

impl OfNumbered {
    /// An expression with one column, of texts, where these are a dictionary.
    pub(crate) fn new(
        expr: Arc<dyn PhysicalExpr>,
        numbers: Arc<dyn PhysicalExpr>,
    ) -> Result<Self, DataFusionError> {
        let of_text = expr.transform(|expr| {
            Ok(match expr.is::<PhysicalColumn>() {
                true => Transformed::yes(Arc::new(PhysicalColumn::new("text", 0)) as _),
                false => Transformed::no(expr),
            })
        })?;
        Ok(Self { numbers, of_text: of_text.data })
    }

    fn of(&self, texts: ArrayRef) -> Result<ArrayRef, DataFusionError> {
        let batch = RecordBatch::try_new(Arc::clone(&TEXT), vec![texts])?;
        self.of_text.evaluate(&batch)?.into_array(batch.num_rows())
    }

    /// By row, from what is found for each entry and for rows without a text.
    fn by_entry(&self, dictionary: &dyn AnyDictionaryArray) -> Result<ArrayRef, DataFusionError> {
        let mut entries = cast(dictionary.values(), &DataType::Utf8View)?;
        let numbers = cast(dictionary.keys(), &DataType::Int32)?;
        let mut numbers = numbers.as_primitive::<Int32Type>().clone();
        if numbers.null_count() > 0 {
            let missing = entries.len() as i32;
            numbers = numbers.iter().map(|number| number.unwrap_or(missing)).collect();
            entries = concat(&[&entries, &new_null_array(&DataType::Utf8View, 1)])?;
        }
        let found = self.of(entries)?;
        Ok(match found.as_boolean_opt().filter(|found| found.len() <= WORD) {
            Some(found) => {
                let by_row = |entries: &BooleanBuffer| {
                    let bits = entries.set_indices().fold(0, |bits, entry| bits | 1u64 << entry);
                    let word = |numbers: &[i32]| {
                        let bit = |number: &i32| bits >> (*number as usize % WORD) & 1;
                        numbers.iter().rev().fold(0, |word, number| word << 1 | bit(number))
                    };
                    let words: Vec<u64> = numbers.values().chunks(WORD).map(word).collect();
                    BooleanBuffer::new(words.into(), 0, numbers.len())
                };
                let nulls = found.nulls().map(|nulls| NullBuffer::new(by_row(nulls.inner())));
                Arc::new(BooleanArray::new(by_row(found.values()), nulls))
            }
            None => take(&found, &numbers, None)?,
        })
    }
}

impl fmt::Display for OfNumbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of_numbered({}, {})", self.numbers, self.of_text)
    }
}

impl PhysicalExpr for OfNumbered {
    fn data_type(&self, _file: &Schema) -> Result<DataType, DataFusionError> {
        self.of_text.data_type(&TEXT)
    }

    fn nullable(&self, _file: &Schema) -> Result<bool, DataFusionError> {
        self.of_text.nullable(&TEXT)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue, DataFusionError> {
        let numbers = self.numbers.evaluate(batch)?.into_array(batch.num_rows())?;
        let by_entry = match numbers.as_any_dictionary_opt() {
            // An expression may fail for an entry that none of these rows has.
            Some(dictionary) if dictionary.values().len() < numbers.len() => self.by_entry(dictionary).ok(),
            Some(_) | None => None,
        };
        let found = match by_entry {
            Some(found) => found,
            None => self.of(texts::plain(&numbers).map_err(external)?)?,
        };
        Ok(ColumnarValue::Array(found))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.numbers]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let numbers = children.pop().unwrap_or_else(|| Arc::clone(&self.numbers));
        Ok(Arc::new(Self { numbers, of_text: Arc::clone(&self.of_text) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.of_text.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int32Array, StringArray, StringViewArray};
    use datafusion::{
        logical_expr::Operator,
        physical_expr::expressions::{CastExpr, binary, in_list, is_null, lit, not},
    };
    use parquet::{
        arrow::ArrowWriter,
        file::{metadata::ParquetMetaDataReader, properties::WriterProperties},
    };
    use proptest::prelude::*;

    use super::*;

    fn text() -> Arc<dyn PhysicalExpr> {
        Arc::new(PhysicalColumn::new("text", 0))
    }

    fn view(text: &str) -> Arc<dyn PhysicalExpr> {
        lit(datafusion::common::ScalarValue::Utf8View(Some(text.to_owned())))
    }

    fn batch(array: ArrayRef) -> RecordBatch {
        let field = Field::new("text", array.data_type().clone(), true);
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap()
    }

    fn evaluate(
        expr: &Arc<dyn PhysicalExpr>,
        dictionary: DictionaryArray<Int32Type>,
    ) -> Result<ArrayRef, DataFusionError> {
        let batch = batch(Arc::new(dictionary));
        let numbered = OfNumbered::new(Arc::clone(expr), Arc::new(PhysicalColumn::new("text", 0)))?;
        assert_eq!(numbered.data_type(&batch.schema())?, expr.data_type(&TEXT)?);
        numbered.evaluate(&batch)?.into_array(batch.num_rows())
    }

    proptest! {
        #[test]
        fn what_is_found_for_entries_is_what_rows_have(
            rows in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 0..200),
            entries in prop::sample::select(vec![1, 2, 63, 64, 65, 150]),
        ) {
            let texts: Vec<String> = (0..entries).map(|entry| format!("text {entry}")).collect();
            let numbers: Int32Array = rows.iter().map(|row| row.map(|row| row.index(entries) as i32)).collect();
            let plain: StringViewArray =
                numbers.iter().map(|number| number.map(|number| texts[number as usize].as_str())).collect();
            let dictionary = DictionaryArray::new(numbers, Arc::new(StringArray::from(texts)));
            let equal = binary(text(), Operator::Eq, view("text 1"), &TEXT).unwrap();
            let some = in_list(text(), vec![view("text 0"), view("text 70")], &false, &TEXT).unwrap();
            let joined = binary(text(), Operator::StringConcat, view("!"), &TEXT).unwrap();
            for expr in [not(equal.clone()).unwrap(), equal, some, is_null(text()).unwrap(), joined] {
                let expected = expr.evaluate(&batch(Arc::new(plain.clone()))).unwrap();
                let expected = expected.into_array(plain.len()).unwrap();
                prop_assert_eq!(&evaluate(&expr, dictionary.clone()).unwrap(), &expected, "{}", expr);
            }
        }
    }

    #[test]
    fn an_entry_that_no_row_has_fails_nothing() {
        let number = Arc::new(CastExpr::new(text(), DataType::Int64, None)) as _;
        let texts = Arc::new(StringArray::from(vec!["7", "seven"]));
        let of = |numbers: Vec<i32>| evaluate(&number, DictionaryArray::new(numbers.into(), texts.clone()));
        assert_eq!(of(vec![0, 0, 0]).unwrap().null_count(), 0);
        assert!(of(vec![0, 1, 0]).is_err());
    }

    #[test]
    fn only_small_whole_dictionaries_are_kept() {
        let few: StringViewArray = (0..40_000).map(|row| Some(format!("{}", row % 30))).collect();
        let many: StringViewArray = (0..40_000).map(|row| Some(format!("{:08x}", row * 7919))).collect();
        let number = Int32Array::from_iter_values(0..40_000);
        let columns: [(&str, ArrayRef); 3] =
            [("few", Arc::new(few)), ("many", Arc::new(many)), ("number", Arc::new(number))];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let names = ["few", "many", "number", "missing"].map(str::to_owned);
        let mut schemas = Schemas::new(&names);
        let mut kept = |limit: usize| {
            let properties = WriterProperties::builder()
                .set_dictionary_page_size_limit(limit)
                .set_data_page_row_count_limit(1000)
                .set_write_batch_size(100);
            let mut file = Vec::new();
            let mut writer =
                ArrowWriter::try_new(&mut file, rows.schema(), Some(properties.build())).unwrap();
            writer.write(&rows).unwrap();
            writer.close().unwrap();
            let file = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(file)).unwrap();
            let schema = schemas.of(&file)?;
            let is_kept = |field: &Arc<Field>| *field.data_type() == numbered();
            Some(
                schema
                    .fields()
                    .iter()
                    .filter(|field| is_kept(field))
                    .map(|field| field.name().clone())
                    .collect(),
            )
        };
        // A dictionary of any size, and one that is full after a few texts, so that the others are written in full.
        assert_eq!(kept(1 << 20), Some(vec!["few".to_owned()]));
        assert_eq!(kept(100), None);
    }
}
