//! One view of all batches and segments, whichever properties are columns in them.
//!
//! A [`Column`] of the view has the same name and type everywhere. How it is read depends on the file: from a column of its own, out
//! of the map of properties, or not at all. [`Adapter`] tells DataFusion file by file.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, RecordBatch,
        StringViewArray, StringViewBuilder,
    },
    buffer::ScalarBuffer,
    compute::{and_kleene, cast, is_not_null, kernels::zip::zip, or_kleene},
    datatypes::{DataType, Field as ArrowField, FieldRef, Float64Type, Schema, SchemaRef},
};
use datafusion::{
    common::{
        DataFusionError, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::table_schema::TableSchema,
    logical_expr::{
        ColumnarValue, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
    },
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{BinaryExpr, Column as PhysicalColumn, Literal},
        utils::collect_columns,
    },
    physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory},
    physical_expr_common::physical_expr::is_volatile,
};
use weir_rollup::field::{Field, write_number};

use crate::{
    numbered::OfNumbered,
    schema::{self, Kind, column},
    shape::{Entries, chosen_column, chosen_columns, gather},
    texts, within,
};

/// The name of the column with the partition.
pub(crate) const PARTITION: &str = "partition";

/// A column of the view.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Column {
    /// One of [`schema::schema`], by name.
    Core(&'static str),
    /// A property as a text, by the rule that rollups follow for dimensions: numbers as they are written, booleans `true` and `false`;
    /// null for lists, structs, null and events without it. Where an event has no such property, dots descend into structs.
    Text(String),
    /// A property's number; null for any other value.
    Number(String),
    /// A column of texts as a dictionary: numbers, and what they stand for. What depends on a text alone is then found once for each
    /// entry. Where a file or batch has no dictionary, each row has an entry of its own; there may be entries that no row has.
    Numbered(Box<Self>),
    /// The partition of the log that the event is in: with `log_offset`, its identity. No file has it as a column; the table knows it
    /// of each file and batch.
    Partition,
    /// Whether the filters of a scan hold of a row. Rows of which they don't hold then come, too: leaving rows out is dearer than passing
    /// over them. Only for whoever reads the scan itself: DataFusion believes that its filters hold of all rows.
    Holds,
}

impl Column {
    /// The column with the text of a field.
    pub fn text(field: &Field) -> Self {
        match field {
            Field::EventName => Self::Core(column::EVENT_NAME),
            Field::EventType => Self::Core(column::EVENT_TYPE),
            Field::UserId => Self::Core(column::USER_ID),
            Field::AnonymousId => Self::Core(column::ANONYMOUS_ID),
            Field::SessionId => Self::Core(column::SESSION_ID),
            Field::InstallId => Self::Core(column::INSTALL_ID),
            Field::Context(field) => Self::Core(schema::context_column(*field)),
            Field::Property(key) => Self::Text(key.clone()),
        }
    }

    /// The column with the number of a field; `None` for a field that has no numbers.
    pub fn number(field: &Field) -> Option<Self> {
        match field {
            Field::Property(key) => Some(Self::Number(key.clone())),
            Field::EventName
            | Field::EventType
            | Field::UserId
            | Field::AnonymousId
            | Field::SessionId
            | Field::InstallId
            | Field::Context(_) => None,
        }
    }

    /// Its name in the view: that of the field for texts. Whatever the keys are, no two columns have one name.
    pub fn name(&self) -> String {
        match self {
            Self::Core(name) => (*name).to_owned(),
            Self::Text(key) => format!("properties.{key}"),
            Self::Number(key) => format!("numbers.{key}"),
            Self::Numbered(texts) => format!("numbered.{}", texts.name()),
            Self::Partition => PARTITION.to_owned(),
            Self::Holds => "holds".to_owned(),
        }
    }

    fn field(&self) -> ArrowField {
        match self {
            Self::Core(name) => {
                schema::schema().field_with_name(name).expect("core columns are named by the schema").clone()
            }
            Self::Text(_) => ArrowField::new(self.name(), DataType::Utf8View, true),
            Self::Number(_) => ArrowField::new(self.name(), DataType::Float64, true),
            Self::Numbered(_) => ArrowField::new(self.name(), dictionary_type(), true),
            Self::Partition => ArrowField::new(self.name(), DataType::Int64, false),
            Self::Holds => ArrowField::new(self.name(), DataType::Boolean, true),
        }
    }

    /// How it is computed from the columns of a batch or file. A property with a dot in its name that an event lacks may be a value
    /// within a struct.
    fn expression(&self, file: &Schema) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let whole = self.of_whole_name(file)?;
        let (key, within, first) = match self {
            Self::Text(key) if key.contains('.') => (key, &TEXT_WITHIN, &FIRST_TEXT),
            Self::Number(key) if key.contains('.') => (key, &NUMBER_WITHIN, &FIRST_NUMBER),
            _ => return Ok(whole),
        };
        let place = |name: &str| {
            let index = file.index_of(name).ok()?;
            Some(Arc::new(PhysicalColumn::new(name, index)) as Arc<dyn PhysicalExpr>)
        };
        let (Some(map), Some(kinds)) = (place(column::PROPERTIES), place(column::PROPERTY_KINDS)) else {
            return Ok(whole);
        };
        let within = call(within, vec![map, kinds, text_literal(Some(key))], file)?;
        call(first, vec![whole, within], file)
    }

    /// The same for a property with exactly this name.
    fn of_whole_name(&self, file: &Schema) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let place = |name: &str| {
            let index = file.index_of(name).ok()?;
            let found = Arc::new(PhysicalColumn::new(name, index)) as Arc<dyn PhysicalExpr>;
            match file.field(index).data_type() {
                DataType::Dictionary(..) => {
                    Some(call(&AS_TEXT, vec![found], file).expect("as_text takes one argument of any type"))
                }
                _ => Some(found),
            }
        };
        let chosen = |kind: Kind, key: &str| place(&format!("{}{key}", kind.prefix()?));
        let map = || Some((place(column::PROPERTIES)?, place(column::PROPERTY_KINDS)?));
        let of_map = |function: &Arc<ScalarUDF>, key: &str| match map() {
            Some((map, kinds)) => call(function, vec![map, kinds, text_literal(Some(key))], file),
            None => Ok(null_literal(function.return_type(&[])?)?),
        };
        match self {
            Self::Core(name @ (column::PROPERTIES | column::PROPERTY_KINDS)) => {
                let chosen: Vec<(Kind, String)> =
                    chosen_columns(file).map(|(kind, key)| (kind, key.to_owned())).collect();
                let of_map = map();
                if let (true, Some((map, kinds))) = (chosen.is_empty(), &of_map) {
                    return Ok(Arc::clone(if *name == column::PROPERTIES { map } else { kinds }));
                }
                let (map, kinds) = match of_map {
                    Some(of_map) => of_map,
                    None => (null_literal(schema::map_type())?, text_literal(None)),
                };
                let columns =
                    chosen.iter().filter_map(|(kind, key)| place(&format!("{}{key}", kind.prefix()?)));
                let arguments: Vec<_> = [map, kinds].into_iter().chain(columns).collect();
                let does = if *name == column::PROPERTIES { Does::AllProperties } else { Does::AllKinds };
                let function = Function::udf(does(chosen.into()), arguments.len());
                call(&Arc::new(function), arguments, file)
            }
            Self::Core(name) => match place(name) {
                Some(found) => Ok(found),
                None => null_literal(self.field().data_type().clone()),
            },
            Self::Number(key) => match chosen(Kind::Number, key) {
                Some(found) => Ok(found),
                None if is_chosen(file, key) => null_literal(DataType::Float64),
                None => of_map(&PROPERTY_NUMBER, key),
            },
            Self::Text(key) if is_chosen(file, key) => {
                let text = chosen(Kind::Text, key);
                let number = chosen(Kind::Number, key).map(|found| call(&AS_TEXT, vec![found], file));
                let boolean = chosen(Kind::Boolean, key).map(|found| call(&AS_TEXT, vec![found], file));
                let mut forms: Vec<_> =
                    text.map(Ok).into_iter().chain(number).chain(boolean).collect::<Result<_, _>>()?;
                match forms.len() {
                    1 => Ok(forms.remove(0)),
                    _ => {
                        let function = Function::udf(Does::FirstText, forms.len());
                        call(&Arc::new(function), forms, file)
                    }
                }
            }
            Self::Text(key) => of_map(&PROPERTY_TEXT, key),
            Self::Numbered(texts) => {
                let texts = texts.expression(file)?;
                let numbers = numbers_of(&texts, file)?.unwrap_or(texts);
                call(&AS_DICTIONARY, vec![numbers], file)
            }
            // The table puts its number in the place of the column before files are asked.
            Self::Partition => null_literal(DataType::Int64),
            // Without filters they hold.
            Self::Holds => Ok(Arc::new(Literal::new(ScalarValue::Boolean(Some(true))))),
        }
    }
}

/// The type of a column of texts as a dictionary.
pub(crate) fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8View))
}

/// The numbers of which these are the texts, if a file or batch has them numbered.
fn numbers_of(
    texts: &Arc<dyn PhysicalExpr>,
    file: &Schema,
) -> Result<Option<Arc<dyn PhysicalExpr>>, DataFusionError> {
    let Some(call) = texts.downcast_ref::<ScalarFunctionExpr>() else { return Ok(None) };
    Ok(match call.args() {
        [numbers] if matches!(numbers.data_type(file)?, DataType::Dictionary(..)) => {
            Some(Arc::clone(numbers))
        }
        _ => None,
    })
}

/// Whether a property has columns of its own, so that the map holds no text, number or boolean of it.
fn is_chosen(file: &Schema, key: &str) -> bool {
    let named =
        |kind: Kind| kind.prefix().is_some_and(|prefix| file.index_of(&format!("{prefix}{key}")).is_ok());
    Kind::ALL.into_iter().any(named)
}

/// The same of a file of which only the names of the columns of chosen properties are known.
fn is_among(columns: &[String], key: &str) -> bool {
    let named = |name: &String| chosen_column(name).is_some_and(|(_, chosen)| chosen == key);
    columns.iter().any(named)
}

/// Some columns of the view, in order.
#[derive(Clone, Debug)]
pub struct View {
    columns: Arc<[Column]>,
    schema: SchemaRef,
}

impl View {
    /// A view with these columns, each once. The partition is the last one, where DataFusion has what is known of whole files.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        let mut distinct: Vec<Column> = Vec::new();
        for column in columns {
            if !distinct.contains(&column) {
                distinct.push(column);
            }
        }
        distinct.sort_by_key(|column| *column == Column::Partition);
        let fields: Vec<ArrowField> = distinct.iter().map(Column::field).collect();
        Self { columns: distinct.into(), schema: Arc::new(Schema::new(fields)) }
    }

    /// Its columns as Arrow has them.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The same for DataFusion, which is told what is known of whole files apart from what is in them.
    pub(crate) fn table_schema(&self) -> TableSchema {
        let fields = self.schema.fields();
        let in_files = self.columns.iter().take_while(|column| **column != Column::Partition).count();
        let of_files = fields.iter().skip(in_files).cloned().collect::<Vec<_>>();
        let in_files = Schema::new(fields.iter().take(in_files).cloned().collect::<Vec<_>>());
        TableSchema::builder(Arc::new(in_files)).with_table_partition_cols(of_files).build()
    }

    /// Whether the partition is among the columns.
    pub(crate) fn has_partition(&self) -> bool {
        self.columns.last() == Some(&Column::Partition)
    }

    /// How a column is computed from those of a batch or file, with its name.
    pub(crate) fn expression(
        &self,
        index: usize,
        file: &Schema,
    ) -> Result<(Arc<dyn PhysicalExpr>, String), DataFusionError> {
        let column = &self.columns[index];
        Ok((column.expression(file)?, column.name()))
    }

    /// The file's column with the texts of a column, where it has one of its own.
    pub(crate) fn text_place(&self, index: usize) -> Option<String> {
        fn place(column: &Column) -> Option<String> {
            match column {
                Column::Core(name) => Some((*name).to_owned()),
                // Values within structs are elsewhere.
                Column::Text(key) if key.contains('.') => None,
                Column::Text(key) => Some(format!("{}{key}", Kind::Text.prefix()?)),
                Column::Numbered(texts) => place(texts),
                Column::Number(_) | Column::Partition | Column::Holds => None,
            }
        }
        place(&self.columns[index])
    }

    /// Bytes that a row of a column takes in a file with these columns of chosen properties, of which those in `wide` take more than
    /// others.
    pub(crate) fn width(&self, index: usize, chosen: &[String], wide: &BTreeMap<String, u64>) -> u64 {
        let of = |name: &str| wide.get(name).copied().unwrap_or_default();
        let text = self.text_place(index).map_or(0, |name| of(&name));
        let map = if self.reads_map(index, chosen) {
            of(column::PROPERTIES) + of(column::PROPERTY_KINDS)
        } else {
            0
        };
        // The map with all properties has those that are columns in the file, too.
        let gathered = match &self.columns[index] {
            Column::Core(column::PROPERTIES) => chosen.iter().map(|name| of(name)).sum(),
            _ => 0,
        };
        VALUE + text.max(map) + gathered
    }

    /// Whether a column is a dictionary.
    pub(crate) fn is_numbered(&self, index: usize) -> bool {
        matches!(self.columns[index], Column::Numbered(_))
    }

    /// Whether a column says if filters hold.
    pub(crate) fn is_holds(&self, index: usize) -> bool {
        self.columns[index] == Column::Holds
    }

    /// Whether the map of properties is read for a column, in a file with these columns of chosen properties.
    pub(crate) fn reads_map(&self, index: usize, chosen: &[String]) -> bool {
        fn reads_map(column: &Column, chosen: &[String]) -> bool {
            match column {
                Column::Core(name) => matches!(*name, column::PROPERTIES | column::PROPERTY_KINDS),
                Column::Text(key) | Column::Number(key) => key.contains('.') || !is_among(chosen, key),
                Column::Numbered(texts) => reads_map(texts, chosen),
                Column::Partition | Column::Holds => false,
            }
        }
        reads_map(&self.columns[index], chosen)
    }

    /// The view of a batch.
    ///
    /// # Errors
    /// When a column has not the type that it should have.
    pub fn of(&self, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let file = batch.schema();
        let columns = (0..self.columns.len()).map(|index| {
            let (expression, _) = self.expression(index, &file)?;
            expression.evaluate(batch)?.into_array(batch.num_rows())
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_, _>>()?)?)
    }
}

/// Bytes of a value in a column that is not wide, about: a view of a text.
const VALUE: u64 = 16;

/// Rewrites expressions on a view into expressions on a file.
#[derive(Debug)]
pub(crate) struct Adapters(pub(crate) View);

impl PhysicalExprAdapterFactory for Adapters {
    fn create(
        &self,
        _view: SchemaRef,
        file: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>, DataFusionError> {
        Ok(Arc::new(Adapter { view: self.0.clone(), file }))
    }
}

#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) view: View,
    /// Of a file or a batch.
    pub(crate) file: SchemaRef,
}

impl Adapter {
    fn column(&self, name: &str) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let index = self.view.schema.index_of(name)?;
        Ok(self.view.expression(index, &self.file)?.0)
    }

    /// An expression of texts that are numbered in this file: each part of it with a single column is computed for numbers.
    fn of_numbered(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
    ) -> Result<Option<Arc<dyn PhysicalExpr>>, DataFusionError> {
        let mut columns = collect_columns(expr).into_iter();
        let (Some(only), None) = (columns.next(), columns.next()) else {
            let Some(binary) = expr.downcast_ref::<BinaryExpr>() else { return Ok(None) };
            let function = match binary.op() {
                Operator::And => &BOTH,
                Operator::Or => &EITHER,
                _ => return Ok(None),
            };
            let (left, right) = (self.of_numbered(binary.left())?, self.of_numbered(binary.right())?);
            let both = left.zip(right).map(|(left, right)| call(function, vec![left, right], &self.file));
            return both.transpose();
        };
        let text = self.column(only.name())?;
        let numbers = numbers_of(&text, &self.file)?.filter(|_| !is_volatile(expr));
        let of_numbered = numbers.map(|numbers| OfNumbered::new(Arc::clone(expr), numbers));
        Ok(of_numbered.transpose()?.map(|of_numbered| Arc::new(of_numbered) as _))
    }
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let rewritten = expr.transform_down(|expr| {
            let expression = match expr.downcast_ref::<PhysicalColumn>() {
                Some(column) => self.column(column.name())?,
                None => match self.of_numbered(&expr)? {
                    Some(expression) => expression,
                    None => return Ok(Transformed::no(expr)),
                },
            };
            // What comes instead has columns of the file, not of the view.
            Ok(Transformed::new(expression, true, TreeNodeRecursion::Jump))
        })?;
        Ok(rewritten.data)
    }
}

fn text_literal(text: Option<&str>) -> Arc<dyn PhysicalExpr> {
    Arc::new(Literal::new(ScalarValue::Utf8View(text.map(str::to_owned))))
}

fn null_literal(data_type: DataType) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    Ok(Arc::new(Literal::new(ScalarValue::try_new_null(&data_type)?)))
}

fn call(
    function: &Arc<ScalarUDF>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    file: &Schema,
) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let options = Arc::new(ConfigOptions::default());
    Ok(Arc::new(ScalarFunctionExpr::try_new(Arc::clone(function), arguments, file, options)?))
}

static PROPERTY_TEXT: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(Function::udf(Does::PropertyText, 3)));
static PROPERTY_NUMBER: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(Function::udf(Does::PropertyNumber, 3)));
static TEXT_WITHIN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(Function::udf(Does::TextWithin, 3)));
static NUMBER_WITHIN: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(Function::udf(Does::NumberWithin, 3)));
static FIRST_TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(Function::udf(Does::FirstText, 2)));
static FIRST_NUMBER: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(Function::udf(Does::FirstNumber, 2)));
static AS_TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(Function::udf(Does::AsText, 1)));
static AS_DICTIONARY: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(Function::udf(Does::AsDictionary, 1)));
static BOTH: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(Function::udf(Does::Both, 2)));
static EITHER: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(Function::udf(Does::Either, 2)));

/// What a function of the view does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Does {
    /// `(properties, property_kinds, key)`: the text of a property.
    PropertyText,
    /// `(properties, property_kinds, key)`: its number.
    PropertyNumber,
    /// `(properties, property_kinds, path)`: the text of a value within a struct.
    TextWithin,
    /// `(properties, property_kinds, path)`: its number.
    NumberWithin,
    /// A number, a boolean or a numbered text as a text.
    AsText,
    /// Texts, numbered or not, as a dictionary.
    AsDictionary,
    /// The first of some texts that is not null.
    FirstText,
    /// The first of some numbers that is not null.
    FirstNumber,
    /// Whether both hold. DataFusion's own `and` copies the rows of which the first one holds before it looks at the second, which
    /// takes longer than to look up numbers.
    Both,
    /// Whether one of two holds. Likewise.
    Either,
    /// `(properties, property_kinds, chosen columns…)`: the map with all properties.
    AllProperties(Arc<[(Kind, String)]>),
    /// Likewise the kinds of its entries.
    AllKinds(Arc<[(Kind, String)]>),
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    does: Does,
    signature: Signature,
}

impl Function {
    fn udf(does: Does, arguments: usize) -> ScalarUDF {
        ScalarUDF::from(Self { does, signature: Signature::any(arguments, Volatility::Immutable) })
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.does {
            Does::PropertyText => "property_text",
            Does::PropertyNumber => "property_number",
            Does::TextWithin => "text_within",
            Does::NumberWithin => "number_within",
            Does::AsText => "as_text",
            Does::AsDictionary => "as_dictionary",
            Does::FirstText => "first_text",
            Does::FirstNumber => "first_number",
            Does::Both => "both",
            Does::Either => "either",
            Does::AllProperties(_) => "all_properties",
            Does::AllKinds(_) => "all_property_kinds",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(match self.does {
            Does::PropertyText | Does::TextWithin | Does::AsText | Does::FirstText | Does::AllKinds(_) => {
                DataType::Utf8View
            }
            Does::AsDictionary => dictionary_type(),
            Does::Both | Does::Either => DataType::Boolean,
            Does::AllProperties(_) => schema::map_type(),
            Does::PropertyNumber | Does::NumberWithin | Does::FirstNumber => DataType::Float64,
        })
    }

    /// As nullable as the column of the view that it stands for: DataFusion compares.
    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        let nullable = match self.does {
            Does::AsText | Does::Both | Does::Either => {
                arguments.arg_fields.iter().any(|field| field.is_nullable())
            }
            Does::AllProperties(_) | Does::AllKinds(_) => false,
            Does::PropertyText
            | Does::PropertyNumber
            | Does::TextWithin
            | Does::NumberWithin
            | Does::FirstText
            | Does::FirstNumber
            | Does::AsDictionary => true,
        };
        Ok(Arc::new(ArrowField::new(self.name(), self.return_type(&[])?, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let rows = arguments.number_rows;
        let array: ArrayRef = match (&self.does, arguments.args.as_slice()) {
            (Does::AsText, [values]) => as_text(&values.to_array(rows)?)?,
            (Does::AsDictionary, [texts]) => as_dictionary(&texts.to_array(rows)?)?,
            (Does::FirstText | Does::FirstNumber, [first, others @ ..]) => {
                let mut values = first.to_array(rows)?;
                for other in others {
                    values = zip(&is_not_null(&values)?, &values, &other.to_array(rows)?)?;
                }
                values
            }
            (Does::Both, [one, other]) => {
                Arc::new(and_kleene(one.to_array(rows)?.as_boolean(), other.to_array(rows)?.as_boolean())?)
            }
            (Does::Either, [one, other]) => {
                Arc::new(or_kleene(one.to_array(rows)?.as_boolean(), other.to_array(rows)?.as_boolean())?)
            }
            (Does::PropertyText, [map, kinds, ColumnarValue::Scalar(key)]) => {
                let (map, kinds) = (map.to_array(rows)?, kinds.to_array(rows)?);
                let entries = Entries::new(&map, &kinds).map_err(external)?;
                Arc::new(property_text(&entries, literal(key)?))
            }
            (Does::PropertyNumber, [map, kinds, ColumnarValue::Scalar(key)]) => {
                let (map, kinds) = (map.to_array(rows)?, kinds.to_array(rows)?);
                let entries = Entries::new(&map, &kinds).map_err(external)?;
                Arc::new(property_number(&entries, literal(key)?))
            }
            (Does::TextWithin, [map, kinds, ColumnarValue::Scalar(path)]) => {
                let (map, kinds) = (map.to_array(rows)?, kinds.to_array(rows)?);
                let entries = Entries::new(&map, &kinds).map_err(external)?;
                Arc::new(within::texts(&entries, literal(path)?))
            }
            (Does::NumberWithin, [map, kinds, ColumnarValue::Scalar(path)]) => {
                let (map, kinds) = (map.to_array(rows)?, kinds.to_array(rows)?);
                let entries = Entries::new(&map, &kinds).map_err(external)?;
                Arc::new(within::numbers(&entries, literal(path)?))
            }
            (Does::AllProperties(chosen) | Does::AllKinds(chosen), [map, kinds, columns @ ..]) => {
                let columns = chosen.iter().zip(columns);
                let columns =
                    columns.map(|((kind, key), column)| Ok((*kind, key.as_str(), column.to_array(rows)?)));
                let columns: Vec<_> = columns.collect::<Result<_, DataFusionError>>()?;
                let (map, kinds) = (map.to_array(rows)?, kinds.to_array(rows)?);
                let (map, kinds) = gather(&map, &kinds, &columns).map_err(external)?;
                if matches!(self.does, Does::AllProperties(_)) { map } else { kinds }
            }
            (
                Does::AsText
                | Does::AsDictionary
                | Does::FirstText
                | Does::FirstNumber
                | Does::TextWithin
                | Does::NumberWithin
                | Does::Both
                | Does::Either
                | Does::PropertyText
                | Does::PropertyNumber
                | Does::AllProperties(_)
                | Does::AllKinds(_),
                other,
            ) => {
                let message = format!("{} does not take {} such arguments", self.name(), other.len());
                return Err(DataFusionError::Internal(message));
            }
        };
        Ok(ColumnarValue::Array(array))
    }
}

pub(crate) fn external(error: crate::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn literal(key: &ScalarValue) -> Result<&str, DataFusionError> {
    let text = key.try_as_str().flatten();
    text.ok_or_else(|| DataFusionError::Internal("the key of a property is a text".to_owned()))
}

fn property_text(entries: &Entries<'_>, key: &str) -> StringViewArray {
    let values = (0..entries.rows()).map(|row| match entries.get(row, key)? {
        (Kind::Text | Kind::Number | Kind::Boolean, text) => Some(text),
        (Kind::Json | Kind::Null, _) => None,
    });
    values.collect()
}

fn property_number(entries: &Entries<'_>, key: &str) -> Float64Array {
    let values = (0..entries.rows()).map(|row| match entries.get(row, key)? {
        (Kind::Number, text) => text.parse().ok(),
        (Kind::Text | Kind::Boolean | Kind::Json | Kind::Null, _) => None,
    });
    values.collect()
}

fn as_dictionary(texts: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    if texts.as_any_dictionary_opt().is_some() {
        return Ok(cast(texts, &dictionary_type())?);
    }
    let entries: ScalarBuffer<i32> = (0..texts.len() as i32).collect();
    let entries = Int32Array::new(entries, texts.nulls().cloned());
    Ok(Arc::new(DictionaryArray::try_new(entries, Arc::clone(texts))?))
}

fn as_text(values: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    if matches!(values.data_type(), DataType::Utf8View | DataType::Dictionary(..)) {
        return texts::plain(values).map_err(external);
    }
    if let Some(booleans) = values.as_boolean_opt() {
        let text = |value: bool| if value { "true" } else { "false" };
        let texts: StringViewArray = BooleanArray::iter(booleans).map(|value| value.map(text)).collect();
        return Ok(Arc::new(texts));
    }
    let Some(numbers) = values.as_primitive_opt::<Float64Type>() else {
        return Err(DataFusionError::Internal(format!("{} has no text form", values.data_type())));
    };
    let mut texts = StringViewBuilder::with_capacity(numbers.len());
    let mut text = String::new();
    for number in numbers {
        text.clear();
        texts.append_option(number.map(|number| {
            write_number(number, &mut text);
            text.as_str()
        }));
    }
    Ok(Arc::new(texts.finish()))
}
