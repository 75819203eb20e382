//! Which of some conditions events meet, as bits. Where all conditions are about one text, as steps of a funnel are about names, the
//! store computes the bits once for each different text.

use std::sync::Arc;

use arrow::{
    array::{AsArray, UInt32Array},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility,
    },
};

use crate::gather::holds;

/// The bits of all conditions that hold.
pub(crate) fn marks(conditions: impl IntoIterator<Item = (Expr, u32)>) -> Expr {
    let (conditions, bits): (Vec<_>, Vec<_>) = conditions.into_iter().unzip();
    let signature = Signature::any(conditions.len(), Volatility::Immutable);
    ScalarUDF::from(Marks { bits, signature }).call(conditions)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marks {
    /// By condition.
    bits: Vec<u32>,
    signature: Signature,
}

impl ScalarUDFImpl for Marks {
    fn name(&self) -> &str {
        "marks"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt32)
    }

    fn return_field_from_args(&self, _arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), DataType::UInt32, false)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut marks = vec![0; arguments.number_rows];
        for (condition, bits) in arguments.args.iter().zip(&self.bits) {
            let condition = condition.to_array(arguments.number_rows)?;
            holds(condition.as_boolean()).set_indices().for_each(|row| marks[row] |= bits);
        }
        Ok(ColumnarValue::Array(Arc::new(UInt32Array::from(marks))))
    }

    /// Conditions on events can't fail, and are there to be found before events are chosen by them.
    fn placement(&self, _arguments: &[ExpressionPlacement]) -> ExpressionPlacement {
        ExpressionPlacement::MoveTowardsLeafNodes
    }
}
