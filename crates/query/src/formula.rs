//! Arithmetic between measures: `A / B`, `100 * (A - B) / C`. `A` is the first measure, `B` the second, and so on.

use crate::Error;

/// Bytes of a formula at most; bounds the depth of its nesting too.
const MAX_BYTES: usize = 200;

/// A formula, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    Measure(usize),
    Negated(Box<Node>),
    Operation(Operator, Box<[Node; 2]>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Formula {
    /// Reads a formula over this many measures.
    ///
    /// # Errors
    /// [`Error::Formula`] where it is no formula or names a measure that there is not.
    pub fn parse(text: &str, measures: usize) -> Result<Self, Error> {
        let refuse = |problem: String| Error::Formula { formula: text.chars().take(80).collect(), problem };
        if text.len() > MAX_BYTES {
            return Err(refuse(format!("formulas have at most {MAX_BYTES} bytes")));
        }
        let mut parser = Parser { rest: text, measures };
        let node = parser.sum().map_err(refuse)?;
        match parser.peek() {
            None => Ok(Self(node)),
            Some(other) => Err(refuse(format!("`{other}` is not expected there"))),
        }
    }

    /// Its value; `None` where a measure has none, or a division by zero leaves none.
    pub fn evaluate(&self, measure: &dyn Fn(usize) -> Option<f64>) -> Option<f64> {
        self.0.evaluate(measure).filter(|value| value.is_finite())
    }
}

impl Node {
    fn evaluate(&self, measure: &dyn Fn(usize) -> Option<f64>) -> Option<f64> {
        Some(match self {
            Self::Number(number) => *number,
            Self::Measure(index) => measure(*index)?,
            Self::Negated(node) => -node.evaluate(measure)?,
            Self::Operation(operator, sides) => {
                let (left, right) = (sides[0].evaluate(measure)?, sides[1].evaluate(measure)?);
                match operator {
                    Operator::Add => left + right,
                    Operator::Subtract => left - right,
                    Operator::Multiply => left * right,
                    Operator::Divide => left / right,
                }
            }
        })
    }
}

/// Recursive descent; errors are what is wrong, in words.
struct Parser<'t> {
    rest: &'t str,
    measures: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn sum(&mut self) -> Result<Node, String> {
        let mut left = self.product()?;
        while let Some(sign @ ('+' | '-' | '−')) = self.peek() {
            self.take();
            let operator = if sign == '+' { Operator::Add } else { Operator::Subtract };
            left = Node::Operation(operator, Box::new([left, self.product()?]));
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Node, String> {
        let mut left = self.factor()?;
        while let Some(sign @ ('*' | '×' | '/' | '÷')) = self.peek() {
            self.take();
            let operator = if matches!(sign, '*' | '×') { Operator::Multiply } else { Operator::Divide };
            left = Node::Operation(operator, Box::new([left, self.factor()?]));
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Node, String> {
        match self.peek() {
            Some('-' | '−') => {
                self.take();
                Ok(Node::Negated(Box::new(self.factor()?)))
            }
            Some('(') => {
                self.take();
                let inner = self.sum()?;
                match self.take() {
                    Some(')') => Ok(inner),
                    _ => Err("a `)` is missing".to_owned()),
                }
            }
            Some('0'..='9' | '.') => {
                let digits = self.rest.find(|c: char| !c.is_ascii_digit() && c != '.');
                let (number, rest) = self.rest.split_at(digits.unwrap_or(self.rest.len()));
                self.rest = rest;
                number.parse().map(Node::Number).map_err(|_| format!("`{number}` is not a number"))
            }
            Some(letter @ ('A'..='Z' | 'a'..='z')) => {
                self.take();
                let index = usize::from(letter.to_ascii_uppercase() as u8 - b'A');
                if index < self.measures.min(26) {
                    return Ok(Node::Measure(index));
                }
                let last = char::from(b'A' + u8::try_from(self.measures.clamp(1, 26) - 1).unwrap_or(25));
                Err(format!(
                    "there is no measure `{letter}`: the measures are `A` to `{last}`, in their order"
                ))
            }
            Some(other) => Err(format!("`{other}` is not expected there")),
            None => Err("it ends too early".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<f64> {
        let measures = [Some(6.0), Some(4.0), None];
        Formula::parse(text, 3).unwrap().evaluate(&|index| measures[index])
    }

    #[test]
    fn formulas_follow_the_rules_of_arithmetic() {
        assert_eq!(value("A / B"), Some(1.5));
        assert_eq!(value("100*(A-b)/A - -1"), Some(100.0 * 2.0 / 6.0 + 1.0));
        assert_eq!(value("1 - 2 - 3"), Some(-4.0));
        assert_eq!(value("2 + 3 * 4"), Some(14.0));
    }

    #[test]
    fn what_has_no_value_stays_without() {
        assert_eq!(value("A / (B - 4)"), None);
        assert_eq!(value("A + C"), None);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, hint) in [
            ("", "too early"),
            ("A /", "too early"),
            ("(A", "`)`"),
            ("A B", "`B`"),
            ("D", "`A` to `C`"),
            ("1.2.3", "not a number"),
            (&"-".repeat(300), "at most"),
        ] {
            let error = Formula::parse(text, 3).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
