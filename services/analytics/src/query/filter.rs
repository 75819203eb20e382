//! Filters: parsed once, then evaluated on dimension values of a rollup or on the fields of an event.

use std::{cmp::Ordering, collections::HashSet};

use prost_types::value::Kind;
use regex::{Regex, RegexBuilder};
use weir_proto::{
    analytics::v1::{self as pb, condition::Operator, filter::Expression},
    validate::{Path, Violations},
};
use weir_rollup::field::{Field, number_text};

use super::fields;

/// Filters nested deeper than this are refused: evaluation recurses.
const MAX_DEPTH: usize = 32;
/// Conditions in a filter at most: bounds the time that one evaluation takes.
const MAX_CONDITIONS: usize = 1000;
/// Memory that one compiled regular expression may take, bytes. The `regex` crate matches in linear time, so this bounds
/// everything.
const REGEX_SIZE: usize = 1 << 20;

/// The value of a field, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand<'a> {
    /// The event has none.
    Missing,
    /// Its text: rollups and filters see every value as text.
    Text(&'a str),
    /// One of the values that were folded together; which, nobody knows.
    Unknown,
}

/// Whether a filter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    /// It does not.
    No,
    /// It depends on a value that was folded together with others.
    Maybe,
    /// It does.
    Yes,
}

impl Truth {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::Maybe, _) | (_, Self::Maybe) => Self::Maybe,
        }
    }

    fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }

    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// A condition on events: all of its parts hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    fields: Vec<Field>,
    root: Vec<Node>,
}

#[derive(Debug, Clone)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// A test of the field with this index.
    Test(usize, Test),
}

#[derive(Debug, Clone)]
enum Test {
    In {
        texts: HashSet<Box<str>>,
        missing: bool,
    },
    Contains(Box<str>),
    Matches(Regex),
    Exists,
    /// A number whose order to the second one is the first, or, if the flag is set, equal to it.
    Compare(Ordering, bool, f64),
}

impl Filter {
    /// Parses a filter that keeps to its schema, and adds everything else that is wrong with it to `found`. `at` is where
    /// it stands in the request.
    pub(crate) fn parse(filter: Option<&pb::Filter>, at: &Path<'_>, found: &mut Violations) -> Self {
        let mut parser = Parser { fields: Vec::new(), conditions: 0, found };
        let root = filter.and_then(|filter| parser.node(filter, at, 0)).into_iter().collect();
        Self { fields: parser.fields, root }
    }

    /// Requires an event name out of `names` too; none means any.
    pub(crate) fn with_event_names(mut self, names: &[String]) -> Self {
        if !names.is_empty() {
            let texts = names.iter().map(|name| name.as_str().into()).collect();
            let field = index_of(&mut self.fields, Field::EventName);
            self.root.push(Node::Test(field, Test::In { texts, missing: false }));
        }
        self
    }

    /// The fields it looks at.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether it holds for something whose value of `fields()[i]` is `value(i)`.
    pub(crate) fn evaluate<'a>(&self, value: &dyn Fn(usize) -> Operand<'a>) -> Truth {
        all(&self.root, value)
    }
}

fn all<'a>(nodes: &[Node], value: &dyn Fn(usize) -> Operand<'a>) -> Truth {
    let mut truth = Truth::Yes;
    for node in nodes {
        truth = truth.and(node.evaluate(value));
        if truth == Truth::No {
            break;
        }
    }
    truth
}

impl Node {
    fn evaluate<'a>(&self, value: &dyn Fn(usize) -> Operand<'a>) -> Truth {
        match self {
            Self::All(nodes) => all(nodes, value),
            Self::Any(nodes) => {
                let mut truth = Truth::No;
                for node in nodes {
                    truth = truth.or(node.evaluate(value));
                    if truth == Truth::Yes {
                        break;
                    }
                }
                truth
            }
            Self::Not(node) => node.evaluate(value).not(),
            Self::Test(field, test) => test.evaluate(value(*field)),
        }
    }
}

impl Test {
    fn evaluate(&self, operand: Operand<'_>) -> Truth {
        let text = match operand {
            Operand::Text(text) => text,
            Operand::Missing => return Truth::of(matches!(self, Self::In { missing: true, .. })),
            Operand::Unknown => {
                return match self {
                    Self::Exists => Truth::Yes,
                    Self::In { texts, .. } if texts.is_empty() => Truth::No,
                    Self::In { .. } | Self::Contains(_) | Self::Matches(_) | Self::Compare(..) => {
                        Truth::Maybe
                    }
                };
            }
        };
        Truth::of(match self {
            Self::In { texts, .. } => texts.contains(text),
            Self::Contains(part) => text.contains(&**part),
            Self::Matches(regex) => regex.is_match(text),
            Self::Exists => true,
            Self::Compare(order, or_equal, than) => {
                let number: Option<f64> = text.parse().ok().filter(|n: &f64| n.is_finite());
                number
                    .and_then(|number| number.partial_cmp(than))
                    .is_some_and(|found| found == *order || (*or_equal && found == Ordering::Equal))
            }
        })
    }
}

fn index_of(fields: &mut Vec<Field>, field: Field) -> usize {
    fields.iter().position(|known| *known == field).unwrap_or_else(|| {
        fields.push(field);
        fields.len() - 1
    })
}

struct Parser<'v> {
    fields: Vec<Field>,
    conditions: usize,
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
