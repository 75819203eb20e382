//! Reading filters from requests.

use std::{cmp::Ordering, collections::HashSet};

use prost_types::value::Kind;
use regex::RegexBuilder;
use weir_proto::{
    analytics::v1::{self as pb, condition::Operator, filter::Expression},
    validate::{Path, Violations},
};
use weir_rollup::field::{Field, number_text};

use super::{Filter, Node, Test, index_of};
use crate::fields;

/// Filters nested deeper than this are refused: evaluation recurses.
const MAX_DEPTH: usize = 32;
/// Conditions in a filter at most: bounds the time that one evaluation takes.
const MAX_CONDITIONS: usize = 1000;
/// Regular expressions in a filter at most.
const MAX_REGEXES: usize = 10;
/// Memory that one compiled regular expression may take, bytes. The `regex` crate matches in linear time.
const REGEX_SIZE: usize = 1 << 20;

pub(super) fn filter(filter: Option<&pb::Filter>, at: &Path<'_>, found: &mut Violations) -> Filter {
    let mut parser = Parser { fields: Vec::new(), conditions: 0, regexes: 0, found };
    let root = filter.and_then(|filter| parser.node(filter, at, 0)).into_iter().collect();
    Filter { fields: parser.fields, root }
}

struct Parser<'v> {
    fields: Vec<Field>,
    conditions: usize,
    regexes: usize,
    found: &'v mut Violations,
}

/// `None` wherever something was added to the violations.
impl Parser<'_> {
    fn refuse<T>(&mut self, at: &Path<'_>, description: impl std::fmt::Display) -> Option<T> {
        self.found.add(at, description);
        None
    }

    fn node(&mut self, filter: &pb::Filter, at: &Path<'_>, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return self.refuse(at, format_args!("must nest at most {MAX_DEPTH} deep"));
        }
        match &filter.expression {
            None => self.refuse(at, "must have one of condition, all_of, any_of and not"),
            Some(Expression::Condition(condition)) => self.test(condition, &at.field("condition")),
            Some(Expression::AllOf(list)) => Some(Node::All(self.list(list, &at.field("all_of"), depth)?)),
            Some(Expression::AnyOf(list)) => Some(Node::Any(self.list(list, &at.field("any_of"), depth)?)),
            Some(Expression::Not(inner)) => {
                Some(Node::Not(Box::new(self.node(inner, &at.field("not"), depth + 1)?)))
            }
        }
    }

    fn list(&mut self, list: &pb::FilterList, at: &Path<'_>, depth: usize) -> Option<Vec<Node>> {
        let at = at.field("filters");
        let nodes: Vec<_> = list
            .filters
            .iter()
            .enumerate()
            .map(|(index, filter)| self.node(filter, &at.index(index), depth + 1))
            .collect();
        nodes.into_iter().collect()
    }

    fn test(&mut self, condition: &pb::Condition, at: &Path<'_>) -> Option<Node> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return self.refuse(at, format_args!("is one of more than {MAX_CONDITIONS} conditions"));
        }
        let field = match fields::parse(&condition.field) {
            Ok(field) => field,
            Err(problem) => return self.refuse(&at.field("field"), problem),
        };
        let Ok(operator) = Operator::try_from(condition.operator) else {
            return self.refuse(&at.field("operator"), "must be one of the operators");
        };
        let (values, at) = (condition.values.as_slice(), at.field("values"));
        let test = match operator {
            Operator::Unspecified | Operator::In => self.is_in(values, &at)?,
            Operator::Contains => Test::Contains(self.text(values, &at)?.into_boxed_str()),
            Operator::Matches => {
                self.regexes += 1;
                if self.regexes > MAX_REGEXES {
                    let problem = format_args!(
                        "is one of more than {MAX_REGEXES} regular expressions: join them with `|`"
                    );
                    return self.refuse(&at, problem);
                }
                let pattern = self.text(values, &at)?;
                match RegexBuilder::new(&pattern).size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).build() {
                    Ok(regex) => Test::Matches(regex),
                    Err(error) => {
                        return self.refuse(&at, format_args!("must be a regular expression: {error}"));
                    }
                }
            }
            Operator::Exists if values.is_empty() => Test::Exists,
            Operator::Exists => return self.refuse(&at, "must be empty: EXISTS compares with nothing"),
            Operator::Less => Test::Compare(Ordering::Less, false, self.number(values, &at)?),
            Operator::LessOrEqual => Test::Compare(Ordering::Less, true, self.number(values, &at)?),
            Operator::Greater => Test::Compare(Ordering::Greater, false, self.number(values, &at)?),
            Operator::GreaterOrEqual => Test::Compare(Ordering::Greater, true, self.number(values, &at)?),
        };
        Some(Node::Test(index_of(&mut self.fields, field), test))
    }

    fn is_in(&mut self, values: &[prost_types::Value], at: &Path<'_>) -> Option<Test> {
        let (mut texts, mut missing) = (HashSet::new(), false);
        for (index, value) in values.iter().enumerate() {
            match text_of(value) {
                Ok(Some(text)) => drop(texts.insert(text.into_boxed_str())),
                Ok(None) => missing = true,
                Err(problem) => return self.refuse(&at.index(index), problem),
            }
        }
        Some(Test::In { texts, missing })
    }

    fn text(&mut self, values: &[prost_types::Value], at: &Path<'_>) -> Option<String> {
        let [value] = values else { return self.refuse(at, "must be exactly one text") };
        match text_of(value) {
            Ok(Some(text)) => Some(text),
            Ok(None) | Err(_) => self.refuse(&at.index(0), "must be a text"),
        }
    }

    fn number(&mut self, values: &[prost_types::Value], at: &Path<'_>) -> Option<f64> {
        let [value] = values else { return self.refuse(at, "must be exactly one number") };
        let number = match &value.kind {
            Some(Kind::NumberValue(number)) => Some(*number),
            // Shells and query parameters have only texts.
            Some(Kind::StringValue(text)) => text.parse().ok(),
            Some(Kind::BoolValue(_) | Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_))
            | None => None,
        };
        match number {
            Some(number) if number.is_finite() => Some(number),
            _ => self.refuse(&at.index(0), "must be a finite number"),
        }
    }
}

/// The text by which rollups know a value; `None` for null.
fn text_of(value: &prost_types::Value) -> Result<Option<String>, &'static str> {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Ok(None),
        Some(Kind::StringValue(text)) => Ok(Some(text.clone())),
        Some(Kind::BoolValue(truth)) => Ok(Some(truth.to_string())),
        Some(Kind::NumberValue(number)) if number.is_finite() => Ok(Some(number_text(*number))),
        Some(Kind::NumberValue(_)) => Err("must be a finite number"),
        Some(Kind::StructValue(_) | Kind::ListValue(_)) => {
            Err("must be a text, a number, true, false or null")
        }
    }
}
