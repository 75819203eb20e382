//! Errors of DataFusion in words of SQL: with the position, without the engine's types and advice.

use std::sync::LazyLock;

use arrow::error::ArrowError;
use datafusion::{
    common::{Diagnostic, SchemaError},
    error::DataFusionError,
    sql::sqlparser::{parser::ParserError, tokenizer::Location},
};
use regex::Regex;

use super::check::positioned;
use crate::fields::nearest;

/// What an error of planning or running a statement says to whoever wrote it.
pub(super) fn words(error: &DataFusionError) -> String {
    let diagnostic = error.diagnostic();
    let at = diagnostic.and_then(|found| found.span).map_or(Location { line: 0, column: 0 }, |span| {
        Location { line: span.start.line, column: span.start.column }
    });
    match error.find_root() {
        DataFusionError::SQL(error, _) => parse(error),
        DataFusionError::SchemaError(error, _) => positioned(at, &schema(error)),
        DataFusionError::ArrowError(error, _) => arrow(error),
        DataFusionError::Plan(told)
        | DataFusionError::NotImplemented(told)
        | DataFusionError::Configuration(told)
        | DataFusionError::Execution(told) => positioned(at, &plain(diagnostic, told)),
        _ => positioned(at, "the query engine can't run this statement: write it in another way"),
    }
}

/// The diagnostic's message, which is the shorter one, or the error's.
fn plain(diagnostic: Option<&Diagnostic>, told: &str) -> String {
    sql_types(diagnostic.map_or(told, |diagnostic| diagnostic.message.as_str()))
}

fn parse(error: &ParserError) -> String {
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
        None => uncapitalized(told),
    }
}

fn schema(error: &SchemaError) -> String {
    match error {
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
        // Of an expression it is in the words of the engine.
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name }
            if name.contains('(') =>
        {
            "two columns are the same expression: give one a name with `as`".to_owned()
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            format!("two columns are named `{name}`: give one another name with `as`")
        }
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

/// The first line of a message, with the types of SQL.
fn sql_types(told: &str) -> String {
    static TYPES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let types = [
            (r#"Timestamp\((?:[^()]|\([^()]*\))*UTC(?:[^()]|\([^()]*\))*\)"#, "timestamptz"),
            (r"Timestamp\((?:[^()]|\([^()]*\))*\)", "timestamp"),
            (r"Decimal(?:32|64|128|256)", "decimal"),
            (r"(?:Large)?(?:Utf8View|Utf8)", "text"),
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
            (r"(?i)datafusion('s)?", "the query engine$1"),
        ];
        types.map(|(pattern, name)| (Regex::new(pattern).expect("a pattern of ours"), name)).into()
    });
    let first = told.lines().next().unwrap_or_default();
    let first = first.split(" You might need").next().unwrap_or_default();
    let first = first.split(" Candidate functions").next().unwrap_or_default().trim_end_matches(['.', ' ']);
    let shown =
        TYPES.iter().fold(first.to_owned(), |text, (pattern, name)| pattern.replace_all(&text, *name).into());
    uncapitalized(&shown)
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
