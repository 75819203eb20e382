//! Filters as expressions over columns of events.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{AsArray, BooleanArray},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit, not,
    },
};
use weir_store::view::Column;

use super::{Filter, Node, Operand, Test, Truth};
use crate::events::column;

impl Filter {
    /// The columns that [`Filter::expr`] refers to.
    pub fn columns(&self) -> impl Iterator<Item = Column> {
        self.fields.iter().map(Column::text)
    }

    /// The filter over columns of a table of events. Never null.
    pub fn expr(&self) -> Expr {
        let columns: Vec<_> = self.columns().map(|found| column(&found)).collect();
        join(self.root.iter().map(|node| node.expr(&columns)).collect(), Expr::and, true)
    }
}

/// Joins balanced, since evaluation and planning recurse.
fn join(mut parts: Vec<Expr>, with: fn(Expr, Expr) -> Expr, nothing: bool) -> Expr {
    match parts.len() {
        0 => lit(nothing),
        1 => parts.remove(0),
        many => {
            let rest = parts.split_off(many / 2);
            with(join(parts, with, nothing), join(rest, with, nothing))
        }
    }
}

impl Node {
    fn expr(&self, columns: &[Expr]) -> Expr {
        let all = |nodes: &[Self]| nodes.iter().map(|node| node.expr(columns)).collect();
        match self {
            Self::All(nodes) => join(all(nodes), Expr::and, true),
            Self::Any(nodes) => join(all(nodes), Expr::or, false),
            Self::Not(node) => not(node.expr(columns)),
            Self::Test(field, test) => test.expr(columns[*field].clone()),
        }
    }
}

impl Test {
    fn expr(&self, text: Expr) -> Expr {
        match self {
            // In forms that DataFusion prunes files and pages by; a comparison with null is null, so null comes first.
            Self::In { texts, missing } => {
                let mut sorted: Vec<&str> = texts.iter().map(|text| &**text).collect();
                sorted.sort_unstable();
                let texts: Vec<_> = sorted.into_iter().map(lit).collect();
                let equal = match texts.len() {
                    0 => None,
                    1 => texts.into_iter().next().map(|only| text.clone().eq(only)),
                    _ => Some(text.clone().in_list(texts, false)),
                };
                match (equal, missing) {
                    (Some(equal), true) => text.is_null().or(equal),
                    (Some(equal), false) => text.is_not_null().and(equal),
                    (None, true) => text.is_null(),
                    (None, false) => lit(false),
                }
            }
            Self::Exists => text.is_not_null(),
            Self::Contains(_) | Self::Matches(_) | Self::Compare(..) => {
                ScalarUDF::from(TextTest::new(self.clone())).call(vec![text])
            }
        }
    }
}

/// A test as a function of a text.
#[derive(Debug)]
struct TextTest {
    test: Test,
    /// The test, written out: what tells two of them apart.
    name: String,
    signature: Signature,
}

impl TextTest {
    fn new(test: Test) -> Self {
        Self { name: format!("{test:?}"), test, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl PartialEq for TextTest {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TextTest {}

impl Hash for TextTest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for TextTest {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = cast(&arguments.args[0].to_array(arguments.number_rows)?, &DataType::Utf8View)?;
        let holds = |text: Option<&str>| {
            let operand = text.map_or(Operand::Missing, Operand::Text);
            Some(self.test.evaluate(operand) == Truth::Yes)
        };
        let found: BooleanArray = texts.as_string_view().iter().map(holds).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}
