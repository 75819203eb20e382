//! Errors of DataFusion in words of SQL: with the position, without the engine's types and advice.

use std::sync::LazyLock;

use arrow::error::ArrowError;
use datafusion::{
    common::{Diagnostic, SchemaError},
    error::DataFusionError,
    sql::sqlparser::{
        dialect::GenericDialect,
        parser::ParserError,
        tokenizer::{Location, Token, Tokenizer},
    },
};
use regex::Regex;

use super::{check::positioned, mismatch::Mismatch};
use crate::fields::nearest;

/// What an error of planning a statement says to whoever wrote it.
pub(super) fn words(error: &DataFusionError, text: &str) -> String {
    let at = given(error);
    // Where the engine knows no place, that of the name that the message is about, if it is there once.
    let or = |found: Location| if at == UNKNOWN { found } else { at };
    match error.find_root() {
        DataFusionError::SQL(error, _) => parse(error, text),
        DataFusionError::SchemaError(error, _) => match &**error {
            SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field } => {
                positioned(or(only(&places(text, &field.name))), &schema(error))
            }
            SchemaError::DuplicateQualifiedField { name, .. }
            | SchemaError::DuplicateUnqualifiedField { name } => {
                positioned(or(later(&places(text, name))), &schema(error))
            }
        },
        root => match message(root) {
            Some(told) => {
                if let Some(name) = same_name(told) {
                    return positioned(or(later(&places(text, name))), &named_twice(name));
                }
                if let Some(mismatch) = Mismatch::read(&in_sql(told)) {
                    return positioned(or(only(&places(text, &mismatch.name))), &mismatch.told());
                }
                let at = ungrouped(told).map_or(at, |name| or(only(&places(text, name))));
                positioned(at, &plain(error.diagnostic(), told))
            }
            None => words_of_values(error),
        },
    }
}

/// What an error of running a statement says: values were not as it needs them.
pub(super) fn words_of_values(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => arrow(error),
        root => match message(root) {
            Some(told) => positioned(given(error), &plain(error.diagnostic(), told)),
            None => positioned(given(error), UNSUPPORTED),
        },
    }
}

const UNSUPPORTED: &str = "the query engine can't run this statement: write it in another way";

/// The message of an error that is about the statement. Types that don't fit are an internal error of the engine in places.
fn message(root: &DataFusionError) -> Option<&str> {
    match root {
        DataFusionError::Internal(told) => Mismatch::read(told).map(|_| told.as_str()),
        DataFusionError::Plan(told)
        | DataFusionError::NotImplemented(told)
        | DataFusionError::Configuration(told)
        | DataFusionError::Execution(told) => Some(told),
        _ => None,
    }
}

const UNKNOWN: Location = Location { line: 0, column: 0 };

/// The place that the engine gives.
fn given(error: &DataFusionError) -> Location {
    let span = error.diagnostic().and_then(|found| found.span);
    span.map_or(UNKNOWN, |span| Location { line: span.start.line, column: span.start.column })
}

/// Where a name or an operator stands in a statement. The name of a property is a text.
fn places(text: &str, name: &str) -> Vec<Location> {
    let property = property(name);
    let tokens = Tokenizer::new(&GenericDialect, text).tokenize_with_location().unwrap_or_default();
    let is_name = |token: &Token| match (token, property) {
        (Token::SingleQuotedString(key), Some(property)) => key == property,
        (Token::Word(word), None) => word.value.eq_ignore_ascii_case(name),
        (Token::SingleQuotedString(_) | Token::Word(_), _) => false,
        (other, _) => other.to_string() == name,
    };
    tokens.iter().filter(|token| is_name(&token.token)).map(|token| token.span.start).collect()
}

fn only(places: &[Location]) -> Location {
    match places {
        [only] => *only,
        _ => UNKNOWN,
    }
}

/// Of what is there twice.
fn later(places: &[Location]) -> Location {
    places.last().copied().unwrap_or(UNKNOWN)
}

/// The key of a property, of which this is the column.
fn property(name: &str) -> Option<&str> {
    name.strip_prefix("properties.").or_else(|| name.strip_prefix("numbers."))
}

/// The name that two columns have, if that is what the engine complains of.
fn same_name(told: &str) -> Option<&str> {
    let (_, rest) = told.split_once("unique expression names but the expression \"")?;
    let (name, _) = rest.split_once("\" at position")?;
    Some(name.split_once('.').map_or(name, |(_, name)| name))
}

fn named_twice(name: &str) -> String {
    // Of an expression it is in the words of the engine.
    if name.contains('(') {
        return "two columns are the same expression: give one a name with `as`".to_owned();
    }
    format!("two columns are named `{name}`: give one another name with `as`")
}

/// The column that is neither grouped by nor aggregated, if that is what the engine complains of.
fn ungrouped(told: &str) -> Option<&str> {
    let (name, _) =
        told.split_once("' must appear in GROUP BY").or_else(|| told.split_once("\" must appear in"))?;
    let (_, name) = name.rsplit_once(['\'', '"'])?;
    Some(name.split_once('.').map_or(name, |(_, name)| name))
}

/// The diagnostic's message, which is the shorter one, or the error's.
fn plain(diagnostic: Option<&Diagnostic>, told: &str) -> String {
    sql_types(diagnostic.map_or(told, |diagnostic| diagnostic.message.as_str()))
}

fn parse(error: &ParserError, text: &str) -> String {
    static POSITION: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(.*?),? at Line: (\d+), Column:? (\d+)").expect("a pattern of ours"));
    let told = match error {
        ParserError::TokenizerError(told) | ParserError::ParserError(told) => told,
        ParserError::RecursionLimitExceeded => return "the statement is nested too deeply".to_owned(),
    };
    match POSITION.captures(told) {
        Some(found) => {
            let number = |at: usize| found[at].parse().unwrap_or_default();
            positioned(Location { line: number(2), column: number(3) }, &uncapitalized(&found[1]))
        }
        None if told.ends_with("found: EOF") => {
            positioned(end(text), &uncapitalized(told).replace("EOF", "its end"))
        }
        None => positioned(UNKNOWN, &uncapitalized(told)),
    }
}

/// The place behind the last letter.
fn end(text: &str) -> Location {
    let last = text.rsplit('\n').next().unwrap_or_default();
    Location { line: text.matches('\n').count() as u64 + 1, column: last.chars().count() as u64 + 1 }
}

fn schema(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, .. } if property(&field.name).is_some() => {
            let key = property(&field.name).unwrap_or_default();
            format!(
                "property('{key}') is not in what is read here: properties are there where `events` is read, so select it in the subquery"
            )
        }
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known = valid_fields.iter().map(|field| field.name.as_str());
            let near = nearest(&field.name, known.filter(|name| !name.contains('.')));
            match near.first() {
                Some(near) => format!("there is no column `{}`: did you mean `{near}`?", field.flat_name()),
                None => format!(
                    "there is no column `{}`: `describe events` lists those of the events, and property('{}') is the property",
                    field.flat_name(),
                    field.name,
                ),
            }
        }
        SchemaError::AmbiguousReference { field } => {
            format!("`{}` is a column of several tables: write the table in front of it", field.flat_name())
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => named_twice(name),
    }
}

fn arrow(error: &ArrowError) -> String {
    match error {
        ArrowError::DivideByZero => "a division by zero: use nullif(…, 0) for the divisor".to_owned(),
        ArrowError::ArithmeticOverflow(told) => {
            let told = told.trim_start_matches("Overflow happened on: ");
            format!("a number overflows: {}: cast a side to decimal or double", sql_types(told))
        }
        ArrowError::CastError(told)
        | ArrowError::ParseError(told)
        | ArrowError::ComputeError(told)
        | ArrowError::InvalidArgumentError(told) => sql_types(told),
        _ => "the query engine can't compute this: write it in another way".to_owned(),
    }
}

/// The first line of a message, without advice about the engine, with the types of SQL.
fn sql_types(told: &str) -> String {
    static PREFIX: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?:(?:Execution|Internal|Arrow|Compute|Optimizer) error: |Error during planning: )+")
            .expect("a pattern of ours")
    });
    let first = told.lines().next().unwrap_or_default();
    let first = first.split(" You might need").next().unwrap_or_default();
    let first = first.split(" Candidate functions").next().unwrap_or_default().trim_end_matches(['.', ' ']);
    if first.contains("WindowFunction(") {
        return "functions with `over` stand among the selected columns: compute this one in a subquery"
            .to_owned();
    }
    // An expression as the engine holds it.
    if first.contains(" { ") {
        return UNSUPPORTED.to_owned();
    }
    uncapitalized(&in_sql(&PREFIX.replace(first, "")))
}

/// A text with the types of SQL.
fn in_sql(told: &str) -> String {
    static TYPES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let types = [
            (r#"Timestamp\((?:[^()]|\([^()]*\))*UTC(?:[^()]|\([^()]*\))*\)"#, "timestamptz"),
            (r"Timestamp\((?:[^()]|\([^()]*\))*\)", "timestamp"),
            (r"Decimal(?:32|64|128|256)", "decimal"),
            (r"Map\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)", "map"),
            (r"Struct\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)", "struct"),
            (r"Dictionary\([^(),]*, ([^()]*)\)", "$1"),
            (r"(?:Large)?(?:Utf8View|Utf8)", "text"),
            (r"FixedSizeBinary\(\d+\)|(?:Large)?Binary(?:View)?\b", "binary"),
            (r"\bUInt\d+", "unsigned integer"),
            (r"\bInt64", "bigint"),
            (r"\bInt32", "integer"),
            (r"\bInt16", "smallint"),
            (r"\bInt8", "tinyint"),
            (r"\bFloat64", "double"),
            (r"\bFloat32", "real"),
            (r"\bDate(?:32|64)", "date"),
            (r"\bTime(?:32|64)\([^()]*\)", "time"),
            (r"\bInterval\([^()]*\)", "interval"),
            (r"\bDuration\([^()]*\)", "duration"),
            (r"\bBoolean\b", "boolean"),
            (r"\b(?:Large|FixedSize)?List\((?:\d+ x )?(?:non-null )?([^(),]*)[^()]*\)", "list of $1"),
            (r"(?i)datafusion('s)?", "the query engine$1"),
        ];
        types.map(|(pattern, name)| (Regex::new(pattern).expect("a pattern of ours"), name)).into()
    });
    TYPES.iter().fold(told.to_owned(), |text, (pattern, name)| pattern.replace_all(&text, *name).into())
}

/// With a small first letter, unless the first word is no plain word.
fn uncapitalized(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if first.is_uppercase() && letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}
