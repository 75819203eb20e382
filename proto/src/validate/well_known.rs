//! The checks of `google.*` types, which hold wherever the types occur.

use prost_types::{Duration, Struct, Timestamp, Value, value::Kind};

use super::{Path, Validate, Violations, rules::has_visible_ends};
use crate::{currency, google::r#type::Money};

/// Keys in a `Struct` with everything nested in it.
pub const MAX_KEYS: usize = 255;
/// Levels of nesting: the values of a `Struct` are at level 1.
pub const MAX_DEPTH: usize = 5;
/// Bytes of a string or key within a `Struct`.
pub const MAX_STRING_BYTES: usize = 8 << 10;

/// Units of money in one event, either way: more than any payment, and little enough that sums don't overflow.
pub const MAX_MONEY_UNITS: i64 = 1_000_000_000_000_000;

const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// From year 1 to year 9999, as the type's own definition says.
impl Validate for Timestamp {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        const YEAR_1: i64 = -62_135_596_800;
        const YEAR_10000: i64 = 253_402_300_800;
        if !(YEAR_1..YEAR_10000).contains(&self.seconds) {
            found.add(at, "must lie between the years 1 and 9999");
        } else if !(0..NANOS_PER_SECOND).contains(&self.nanos) {
            found.add(&at.field("nanos"), "must be from 0 to 999999999");
        }
    }
}

/// Up to 10,000 years either way, both parts with the same sign, as the type's own definition says.
impl Validate for Duration {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        const TEN_THOUSAND_YEARS: i64 = 315_576_000_000;
        if self.seconds.unsigned_abs() > TEN_THOUSAND_YEARS.unsigned_abs() {
            found.add(at, "must be within 10000 years");
        } else {
            sign_and_range(self.seconds, self.nanos, "seconds", at, found);
        }
    }
}

/// A currency of ISO 4217; an amount that sums of billions of events can hold; both parts with the same sign.
impl Validate for Money {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        if !currency::is_known(&self.currency_code) {
            let code = &self.currency_code;
            let shown: String = code.chars().take(8).collect();
            found.add(
                &at.field("currency_code"),
                format_args!("must be a currency of ISO 4217 in capital letters, such as USD, is {shown:?}"),
            );
        }
        if self.units.unsigned_abs() > MAX_MONEY_UNITS.unsigned_abs() {
            found.add(&at.field("units"), format_args!("must be at most {MAX_MONEY_UNITS} either way"));
        }
        sign_and_range(self.units, self.nanos, "units", at, found);
    }
}

fn sign_and_range(whole: i64, nanos: i32, name: &str, at: &Path<'_>, found: &mut Violations) {
    if nanos.unsigned_abs() >= NANOS_PER_SECOND.unsigned_abs() {
        found.add(&at.field("nanos"), "must be from -999999999 to 999999999");
    } else if whole.signum() * i64::from(nanos.signum()) < 0 {
        found.add(&at.field("nanos"), format_args!("must have the same sign as {name}"));
    }
}

impl Validate for Struct {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        let mut keys = 0;
        check_struct(self, 1, &mut keys, at, found);
        if keys > MAX_KEYS {
            found
                .add(at, format_args!("must have at most {MAX_KEYS} keys, nested ones included, has {keys}"));
        }
    }
}

impl Validate for Value {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        check_value(self, 1, &mut 0, at, found);
    }
}

fn check_struct(fields: &Struct, depth: usize, keys: &mut usize, at: &Path<'_>, found: &mut Violations) {
    *keys += fields.fields.len();
    for (key, value) in &fields.fields {
        let at = at.key(key);
        if key.is_empty() {
            found.add(&at, "the key must not be empty");
        } else if !has_visible_ends(key) {
            found.add(
                &at,
                "the key must not begin or end with white space or invisible characters, nor contain control characters",
            );
        }
        if key.len() > MAX_STRING_BYTES {
            found.add(
                &at,
                format_args!("the key must have at most {MAX_STRING_BYTES} bytes, has {}", key.len()),
            );
        }
        check_value(value, depth, keys, &at, found);
    }
}

fn check_value(value: &Value, depth: usize, keys: &mut usize, at: &Path<'_>, found: &mut Violations) {
    let Some(kind) = &value.kind else { return };
    match kind {
        Kind::NullValue(_) | Kind::BoolValue(_) => {}
        Kind::NumberValue(number) if !number.is_finite() => {
            found.add(at, format_args!("must be a finite number, is {number}"));
        }
        Kind::NumberValue(_) => {}
        Kind::StringValue(text) if text.len() > MAX_STRING_BYTES => {
            found.add(at, format_args!("must have at most {MAX_STRING_BYTES} bytes, has {}", text.len()));
        }
        Kind::StringValue(_) => {}
        Kind::StructValue(_) | Kind::ListValue(_) if depth == MAX_DEPTH => {
            found.add(at, format_args!("must not nest more than {MAX_DEPTH} deep"));
        }
        Kind::StructValue(inner) => check_struct(inner, depth + 1, keys, at, found),
        Kind::ListValue(list) => {
            for (index, value) in list.values.iter().enumerate() {
                check_value(value, depth + 1, keys, &at.index(index), found);
            }
        }
    }
}
