//! The rules that generated code calls, one function each, named as in `buf.validate`. A rule holds or adds a violation.

use std::{fmt, net::IpAddr, sync::LazyLock};

use prost_types::Duration;
use regex::Regex;

use super::{Path, VISIBLE_ENDS, Violations};

pub(super) fn required(present: bool, at: &Path<'_>, found: &mut Violations) {
    if !present {
        found.add(at, "is required");
    }
}

/// `minimum` in characters.
pub(super) fn min_len(value: &str, minimum: usize, at: &Path<'_>, found: &mut Violations) {
    if value.is_empty() {
        found.add(at, "must not be empty");
    } else if value.len() < minimum * 4 && value.chars().count() < minimum {
        found.add(at, format_args!("must have at least {minimum} characters"));
    }
}

pub(super) fn max_bytes(value: &str, maximum: usize, at: &Path<'_>, found: &mut Violations) {
    if value.len() > maximum {
        found.add(at, format_args!("must have at most {maximum} bytes, has {}", value.len()));
    }
}

/// In any letter case, which is stricter than the rule of `buf.validate`.
pub(super) fn not_in(value: &str, refused: &[&str], at: &Path<'_>, found: &mut Violations) {
    if refused.iter().any(|refused| refused.eq_ignore_ascii_case(value)) {
        found.add(
            at,
            format_args!(
                "must not be the placeholder {value:?}; leave the field out when there is nothing to say"
            ),
        );
    }
}

/// The pattern [`VISIBLE_ENDS`].
pub(super) fn visible_ends(value: &str, at: &Path<'_>, found: &mut Violations) {
    if !has_visible_ends(value) {
        found.add(
            at,
            "must not begin or end with white space or invisible characters, nor contain control characters",
        );
    }
}

pub(super) fn has_visible_ends(value: &str) -> bool {
    static PATTERN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(VISIBLE_ENDS).expect("the pattern is a constant that a test compiles"));
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return true };
    // Nearly every value is of printable ASCII, for which no automaton is needed.
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return *first != b' ' && *last != b' ';
    }
    PATTERN.is_match(value)
}

/// 32 hex digits in groups of 8-4-4-4-12, of any version.
pub(super) fn uuid(value: &str, at: &Path<'_>, found: &mut Violations) {
    let well_formed = value.len() == 36
        && value.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if !well_formed {
        found.add(at, "must be a UUID such as 019a3c5e-7d2b-7c41-9f0a-3b5d8e6f1a27");
    }
}

pub(super) fn ip(value: &str, at: &Path<'_>, found: &mut Violations) {
    if value.parse::<IpAddr>().is_err() {
        found.add(at, "must be an IPv4 or IPv6 address");
    }
}

/// `defined` tells whether the enum has a value of this number.
pub(super) fn defined_only(value: i32, defined: bool, at: &Path<'_>, found: &mut Violations) {
    if !defined {
        found.add(at, format_args!("{value} is not a value of this enum"));
    }
}

pub(super) fn min_items(count: usize, minimum: usize, at: &Path<'_>, found: &mut Violations) {
    if count < minimum {
        found.add(at, format_args!("must have at least {minimum} items, has {count}"));
    }
}

pub(super) fn max_items(count: usize, maximum: usize, at: &Path<'_>, found: &mut Violations) {
    if count > maximum {
        found.add(at, format_args!("must have at most {maximum} items, has {count}"));
    }
}

/// Not a number is not at least anything.
pub(super) fn gte<T: PartialOrd + fmt::Display>(value: T, bound: T, at: &Path<'_>, found: &mut Violations) {
    if value.partial_cmp(&bound).is_none_or(|order| order.is_lt()) {
        found.add(at, format_args!("must be at least {bound}, is {value}"));
    }
}

/// Not a number is not at most anything.
pub(super) fn lte<T: PartialOrd + fmt::Display>(value: T, bound: T, at: &Path<'_>, found: &mut Violations) {
    if value.partial_cmp(&bound).is_none_or(|order| order.is_gt()) {
        found.add(at, format_args!("must be at most {bound}, is {value}"));
    }
}

pub(super) fn gt<T: PartialOrd + fmt::Display>(value: T, bound: T, at: &Path<'_>, found: &mut Violations) {
    if value.partial_cmp(&bound).is_none_or(|order| order.is_le()) {
        found.add(at, format_args!("must be more than {bound}, is {value}"));
    }
}

/// A duration that compares and prints; for `gte`, `lte` and `gt`.
#[derive(PartialEq, PartialOrd)]
pub(super) struct Span {
    nanos: i128,
}

pub(super) fn span(duration: &Duration) -> Span {
    Span { nanos: i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos) }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.nanos as f64 / 1e9)
    }
}
