//! Checks messages against the constraints that their schema states with `buf.validate`.
//!
//! [`Validate`] is implemented, by code generated from the schemas, for every message that a request can hold. The
//! generator (in `tests/generated`) knows exactly the rules that the schemas use and fails at any other, so a constraint
//! can't be written down and silently not hold. `google.protobuf.Timestamp`, `Duration`, `Struct`, `Value` and
//! `google.type.Money` are checked wherever they occur ([`well_known`]).
//!
//! What a schema can't say (an event's age depends on the clock, its identity on two fields) is checked by the service
//! concerned, which adds to the same [`Violations`].
//!
//! A valid message costs no allocation: paths are linked on the stack and turned into text only for a violation.

mod rules;
pub mod well_known;

mod generated {
    #![allow(clippy::all, reason = "generated code")]
    include!("../gen/validate.rs");
}

use std::fmt;

/// The pattern of names and ids in the schemas: neither end is white space or invisible, and no character is a control.
/// Beside Unicode's Z and Cc these are format characters that nothing shows, and what is drawn as a blank: Hangul fillers and the
/// empty Braille pattern. Joiners and the tags of flags may end a text.
pub const VISIBLE_ENDS: &str = concat!(
    r"^$|^[^\p{Z}\p{Cc}\x{ad}\x{180e}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2069}\x{feff}",
    r"\x{115f}\x{1160}\x{2800}\x{3164}\x{ffa0}]",
    r"([^\p{Cc}]*[^\p{Z}\p{Cc}\x{ad}\x{180e}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2069}\x{feff}",
    r"\x{115f}\x{1160}\x{2800}\x{3164}\x{ffa0}])?$"
);

/// A message whose schema constrains it.
pub trait Validate {
    /// Adds every constraint that the message breaks to `found`; `at` is where the message stands in the request.
    fn check(&self, at: &Path<'_>, found: &mut Violations);

    /// Checks a whole request.
    ///
    /// # Errors
    /// What is wrong with it: at least one violation.
    fn validate(&self) -> Result<(), Violations> {
        let mut found = Violations::default();
        self.check(&Path::ROOT, &mut found);
        found.into_result()
    }
}

impl<T: Validate + ?Sized> Validate for Box<T> {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        (**self).check(at, found);
    }
}

/// Where something stands in a request: `events[3].properties["screen size"]`. Lives on the stack of the check.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl Path<'_> {
    /// The request itself.
    pub const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// A field of what stands here, by its name in the schema.
    pub fn field<'a>(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// An element of the list that stands here.
    pub fn index(&self, index: usize) -> Path<'_> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// An entry of the map that stands here.
    pub fn key<'a>(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let plain = |key: &str| {
            (1..=64).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let first = self.parent.is_none_or(|parent| matches!(parent.step, Step::Root));
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) if !plain(key) => {
                // Keys come from outside: quoted, and not for longer than it takes to recognise them.
                let shown: String = key.chars().take(64).collect();
                write!(f, "[{shown:?}{}]", if shown.len() < key.len() { "…" } else { "" })
            }
            Step::Field(name) | Step::Key(name) => write!(f, "{}{name}", if first { "" } else { "." }),
        }
    }
}

/// One broken constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field from the request: `event.revenue.currency_code`.
    pub field: String,
    /// What it must be, in words that fit after the path.
    pub description: String,
}

/// The broken constraints found so far, at most [`Violations::LIMIT`]: enough to mend a message, and no more than an
/// answer can carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Violations kept; more are dropped. The details of an error travel in a header of a few KiB.
    pub const LIMIT: usize = 16;

    /// Adds one.
    pub fn add(&mut self, at: &Path<'_>, description: impl fmt::Display) {
        if self.0.len() < Self::LIMIT {
            self.0.push(Violation { field: at.to_string(), description: description.to_string() });
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of the schema.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Violation> {
        self.0.iter()
    }

    /// Fails with the violations when there are any.
    ///
    /// # Errors
    /// Itself, if not empty.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

/// As pairs of field and description.
impl IntoIterator for Violations {
    type Item = (String, String);
    type IntoIter = std::iter::Map<std::vec::IntoIter<Violation>, fn(Violation) -> (String, String)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|violation| (violation.field, violation.description))
    }
}

#[cfg(test)]
mod tests;
