//! Filters: parsed once, then evaluated on dimension values of a rollup or, as an expression, on columns of events.
//!
//! A filter never answers "unknown" for an event: a missing field is a value like others, which only `IN` with null equals.
//! So `not (plan in ("pro"))` holds for events without a plan, in whichever way it is evaluated.

use std::{cmp::Ordering, collections::HashSet};

use regex::Regex;
use weir_proto::{
    analytics::v1 as pb,
    validate::{Path, Violations},
};
use weir_rollup::field::Field;

mod expr;
mod parse;
#[cfg(test)]
mod tests;

/// The value of a field, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand<'a> {
    /// The event has none.
    Missing,
    /// Its text: rollups and filters see every value as text.
    Text(&'a str),
    /// Its text begins so; whether it goes on is not known.
    Cut(&'a str),
    /// One of the values that were folded together; which, nobody knows.
    Unknown,
}

/// Whether a filter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It does not.
    No,
    /// It depends on a value that was cut, or folded together with others.
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
pub struct Filter {
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
    pub fn parse(filter: Option<&pb::Filter>, at: &Path<'_>, found: &mut Violations) -> Self {
        parse::filter(filter, at, found)
    }

    /// Requires an event name out of `names` too; none means any.
    pub fn with_event_names(mut self, names: &[String]) -> Self {
        if !names.is_empty() {
            let texts = names.iter().map(|name| name.as_str().into()).collect();
            let field = index_of(&mut self.fields, Field::EventName);
            self.root.push(Node::Test(field, Test::In { texts, missing: false }));
        }
        self
    }

    /// Whether every event passes.
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// The fields it looks at.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether it holds for something whose value of `fields()[i]` is `value(i)`.
    pub fn evaluate<'a>(&self, value: &dyn Fn(usize) -> Operand<'a>) -> Truth {
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
            Operand::Cut(text) => {
                return match self {
                    Self::Exists => Truth::Yes,
                    Self::In { texts, .. } if texts.iter().any(|whole| whole.starts_with(text)) => {
                        Truth::Maybe
                    }
                    Self::In { .. } => Truth::No,
                    Self::Contains(part) if text.contains(&**part) => Truth::Yes,
                    Self::Contains(_) | Self::Matches(_) | Self::Compare(..) => Truth::Maybe,
                };
            }
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
