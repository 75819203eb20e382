use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch, StringViewArray},
    datatypes::{DataType, Field as ArrowField, Schema},
};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use prost_types::value::Kind;
use weir_proto::analytics::v1::{condition::Operator, filter::Expression};

use super::*;
use crate::fields;

const FIELDS: [&str; 3] = ["event_name", "properties.plan", "context.os.name"];
const TEXTS: [&str; 12] = ["", "a", "ab", "b%_", "10", "9.5", "1e3", "-0", "inf", "NaN", " 1", "true"];

fn condition(field: &str, operator: Operator, values: Vec<Option<&str>>) -> pb::Filter {
    let value = |text: Option<&str>| prost_types::Value {
        kind: Some(text.map_or(Kind::NullValue(0), |text| Kind::StringValue(text.to_owned()))),
    };
    let values = values.into_iter().map(value).collect();
    let condition = pb::Condition { field: field.to_owned(), operator: operator.into(), values };
    pb::Filter { expression: Some(Expression::Condition(condition)) }
}

fn any_condition() -> impl Strategy<Value = pb::Filter> {
    let field = prop::sample::select(FIELDS.to_vec());
    let texts =
        prop::collection::vec(prop::option::weighted(0.8, prop::sample::select(TEXTS.to_vec())), 0..4);
    let test = prop_oneof![
        texts.prop_map(|texts| (Operator::In, texts)),
        prop::sample::select(TEXTS.to_vec()).prop_map(|part| (Operator::Contains, vec![Some(part)])),
        prop::sample::select(vec!["^a", "b$", "[0-9]+", "(?i)TRUE"])
            .prop_map(|pattern| (Operator::Matches, vec![Some(pattern)])),
        Just((Operator::Exists, vec![])),
        (
            prop::sample::select(vec![
                Operator::Less,
                Operator::LessOrEqual,
                Operator::Greater,
                Operator::GreaterOrEqual
            ]),
            prop::sample::select(vec!["0", "9.5", "10", "1000"])
        )
            .prop_map(|(operator, number)| (operator, vec![Some(number)])),
    ];
    (field, test).prop_map(|(field, (operator, values))| condition(field, operator, values))
}

fn any_filter() -> impl Strategy<Value = pb::Filter> {
    any_condition().prop_recursive(4, 24, 4, |inner| {
        let list = |filters| pb::FilterList { filters };
        let wrap = |expression| pb::Filter { expression: Some(expression) };
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(move |filters| wrap(Expression::AllOf(list(filters)))),
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(move |filters| wrap(Expression::AnyOf(list(filters)))),
            inner.prop_map(move |filter| wrap(Expression::Not(Box::new(filter)))),
        ]
    })
}

fn parsed(filter: &pb::Filter) -> Filter {
    let mut found = Violations::default();
    let parsed = Filter::parse(Some(filter), &Path::ROOT, &mut found);
    found.into_result().unwrap();
    parsed
}

/// Which rows pass, as DataFusion evaluates the filter.
fn by_expression(filter: &Filter, rows: &[[Option<&str>; 3]]) -> Vec<bool> {
    let names = FIELDS.map(|name| weir_store::view::Column::text(&fields::parse(name).unwrap()).name());
    let fields: Vec<_> = names.iter().map(|name| ArrowField::new(name, DataType::Utf8View, true)).collect();
    let texts = |column: usize| {
        Arc::new(rows.iter().map(|row| row[column]).collect::<StringViewArray>()) as arrow::array::ArrayRef
    };
    let batch =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), (0..3).map(texts).collect::<Vec<_>>()).unwrap();
    let context = SessionContext::new();
    let schema = datafusion::common::DFSchema::try_from(batch.schema()).unwrap();
    let expression = context.create_physical_expr(filter.expr(), &schema).unwrap();
    let found = expression.evaluate(&batch).unwrap().into_array(rows.len()).unwrap();
    found.as_boolean().iter().map(|holds| holds.expect("never null")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn columns_and_fields_of_events_are_judged_alike(
        filter in any_filter(),
        rows in prop::collection::vec(
            prop::array::uniform3(prop::option::weighted(0.8, prop::sample::select(TEXTS.to_vec()))), 1..12),
    ) {
        let filter = parsed(&filter);
        let fields: Vec<_> = FIELDS.iter().map(|name| fields::parse(name).unwrap()).collect();
        let directly: Vec<_> = rows
            .iter()
            .map(|row| {
                let value = |index: usize| {
                    let field = fields.iter().position(|field| *field == filter.fields()[index]).unwrap();
                    row[field].map_or(Operand::Missing, Operand::Text)
                };
                filter.evaluate(&value) == Truth::Yes
            })
            .collect();
        prop_assert_eq!(by_expression(&filter, &rows), directly);
    }
}

proptest! {
    /// Whatever text a value was cut from, the filter does not say otherwise of it.
    #[test]
    fn a_value_that_was_cut_is_judged_no_more_surely_than_it_is_known(
        filter in any_filter(),
        row in prop::array::uniform3(prop::option::weighted(0.8, prop::sample::select(TEXTS.to_vec()))),
        kept in 0..4usize,
    ) {
        let filter = parsed(&filter);
        let judge = |operand: &dyn Fn(&'static str) -> Operand<'static>| {
            filter.evaluate(&|index: usize| {
                let field = FIELDS.iter().position(|name| fields::parse(name).as_ref() == Ok(&filter.fields()[index]));
                row[field.unwrap()].map_or(Operand::Missing, operand)
            })
        };
        let cut = judge(&|text| Operand::Cut(&text[..text.floor_char_boundary(kept)]));
        let whole = judge(&Operand::Text);
        prop_assert!(cut == Truth::Maybe || cut == whole, "{cut:?} of what is {whole:?}");
    }
}

#[test]
fn a_cut_value_equals_no_shorter_one_and_may_equal_a_longer_one() {
    let judged = |operator, values: Vec<Option<&str>>| {
        parsed(&condition("plan", operator, values)).evaluate(&|_| Operand::Cut("abc"))
    };
    assert_eq!(judged(Operator::In, vec![Some("ab"), Some("xabc"), None]), Truth::No);
    assert_eq!(judged(Operator::In, vec![Some("abcd")]), Truth::Maybe);
    assert_eq!(judged(Operator::In, vec![Some("abc")]), Truth::Maybe);
    assert_eq!(judged(Operator::Contains, vec![Some("bc")]), Truth::Yes);
    assert_eq!(judged(Operator::Contains, vec![Some("cd")]), Truth::Maybe);
    assert_eq!(judged(Operator::Exists, vec![]), Truth::Yes);
}

#[test]
fn what_an_event_lacks_it_does_not_equal() {
    let is_pro = condition("plan", Operator::In, vec![Some("pro")]);
    let not_pro = pb::Filter { expression: Some(Expression::Not(Box::new(is_pro))) };
    let rows = [[Some("x"), None, None], [Some("x"), Some("pro"), None], [Some("x"), Some("free"), None]];
    assert_eq!(by_expression(&parsed(&not_pro), &rows), [true, false, true]);
}

#[test]
fn regular_expressions_that_explode_are_refused() {
    let mut found = Violations::default();
    let explosive = condition("plan", Operator::Matches, vec![Some("((a{1,100}){1,100}){1,100}")]);
    Filter::parse(Some(&explosive), &Path::ROOT, &mut found);
    let message = format!("{:?}", found.into_result().unwrap_err());
    assert!(message.contains("must be a regular expression") && message.contains("size limit"), "{message}");
}

#[test]
fn a_thousand_conditions_don_t_overflow_the_stack() {
    let conditions = (0..999).map(|_| condition("plan", Operator::Contains, vec![Some("a")])).collect();
    let filter = pb::Filter { expression: Some(Expression::AnyOf(pb::FilterList { filters: conditions })) };
    assert_eq!(by_expression(&parsed(&filter), &[[None, Some("bab"), None]]), [true]);
}
