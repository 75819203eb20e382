//! `count(distinct …)` of texts with its memory accounted. DataFusion's own sets aside 33 KB for each group and accounts for none of it;
//! here a set begins empty, and all that it holds is known.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewArray},
    compute::cast,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    common::{ScalarValue, utils::SingleRowListArrayBuilder},
    error::Result,
    functions_aggregate::count::count_udaf,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
        Signature, StatisticsArgs,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};
use hashbrown::HashSet;

/// What an allocation takes beside its bytes, at most.
const ALLOCATION: usize = 16;

/// The function.
pub(super) fn udaf() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Count { inner: count_udaf() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Count {
    inner: Arc<AggregateUDF>,
}

/// The type of texts that are counted, without their dictionary; `None` for what is no text.
fn text(of: &DataType) -> Option<&DataType> {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(of),
        DataType::Dictionary(_, values) => text(values),
        _ => None,
    }
}

impl AggregateUDFImpl for Count {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match (arguments.is_distinct, arguments.expr_fields) {
            (true, [field]) => match text(field.data_type()) {
                Some(of) => Ok(Box::new(DistinctTexts::new(of.clone()))),
                None => self.inner.accumulator(arguments),
            },
            _ => self.inner.accumulator(arguments),
        }
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(arguments)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn default_value(&self, of: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(of)
    }

    fn value_from_stats(&self, arguments: &StatisticsArgs) -> Option<ScalarValue> {
        self.inner.value_from_stats(arguments)
    }

    fn set_monotonicity(&self, of: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(of)
    }
}

/// The texts of a group.
#[derive(Debug)]
struct DistinctTexts {
    of: DataType,
    texts: HashSet<Box<str>>,
    /// What the texts take.
    bytes: usize,
}

impl DistinctTexts {
    fn new(of: DataType) -> Self {
        Self { of, texts: HashSet::default(), bytes: 0 }
    }

    fn insert(&mut self, values: &dyn Array) -> Result<()> {
        let values = cast(values, &DataType::Utf8View)?;
        for value in values.as_string_view().iter().flatten() {
            if !self.texts.contains(value) {
                self.bytes += value.len() + ALLOCATION;
                self.texts.insert(value.into());
            }
        }
        Ok(())
    }
}

impl Accumulator for DistinctTexts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values.first().map_or(Ok(()), |values| self.insert(values))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(i64::try_from(self.texts.len()).ok()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.texts.allocation_size() + self.bytes
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.bytes = 0;
        let texts: StringViewArray = std::mem::take(&mut self.texts).into_iter().map(Some).collect();
        let texts = cast(&texts, &self.of)?;
        Ok(vec![SingleRowListArrayBuilder::new(texts).build_list_scalar()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(lists) = states.first() else { return Ok(()) };
        lists.as_list::<i32>().iter().flatten().try_for_each(|list| self.insert(&list))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn texts_of_every_type_are_counted_once_across_partial_states() {
        let texts = |from: usize| -> ArrayRef {
            let texts =
                (from..from + 100).map(|number| (number % 7 > 0).then(|| format!("user {}", number % 60)));
            Arc::new(texts.collect::<StringArray>())
        };
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        for of in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary] {
            let partial = |from| {
                let mut partial = DistinctTexts::new(text(&of).unwrap().clone());
                partial.update_batch(&[cast(&texts(from), &of).unwrap()]).unwrap();
                partial.state().unwrap()[0].to_array().unwrap()
            };
            let mut whole = DistinctTexts::new(text(&of).unwrap().clone());
            for from in [0, 1000] {
                whole.merge_batch(&[partial(from)]).unwrap();
            }
            let expected: std::collections::BTreeSet<_> = (0..100)
                .chain(1000..1100)
                .filter(|number| number % 7 > 0)
                .map(|number| number % 60)
                .collect();
            assert_eq!(whole.evaluate().unwrap(), ScalarValue::Int64(Some(expected.len() as i64)), "{of}");
        }
    }

    #[test]
    fn a_set_takes_what_it_holds() {
        let mut set = DistinctTexts::new(DataType::Utf8View);
        assert!(set.size() < 256, "an empty one takes {}", set.size());
        let texts: StringArray = (0..1000).map(|number| Some(format!("{number:0100}"))).collect();
        set.update_batch(&[Arc::new(texts)]).unwrap();
        assert!((116_000..200_000).contains(&set.size()), "{}", set.size());
    }
}
