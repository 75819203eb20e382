//! Calls and operators whose arguments have types that they don't take. The engine tells of them in a dozen forms, with the signatures
//! of its functions and the errors within its errors; of all these the name and the types are kept.

use std::sync::LazyLock;

use regex::Regex;

/// A function or an operator that does not take what it gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// As it stands in a statement.
    pub(super) name: String,
    is_operator: bool,
    /// The types that it gets, where the engine says so.
    types: Option<String>,
}

/// Functions that stand for syntax.
const SYNTAX: &[(&str, &str)] = &[
    ("add", "+"),
    ("subtract", "-"),
    ("multiply", "*"),
    ("divide", "/"),
    ("modulo", "%"),
    ("negative", "-"),
    ("||", "||"),
    ("at_time_zone", "at time zone"),
];

impl Mismatch {
    /// Reads a message of the engine, with the types of SQL.
    pub(super) fn read(told: &str) -> Option<Self> {
        static OPERATOR: LazyLock<Regex> = LazyLock::new(|| {
            pattern(
                r"(?i)(?:common argument type for \w+ operation|coerce arithmetic expression|result type for \w+ operation) (.+?) ([-+*/%<>=!~|&^]+|(?:IS |NOT |I?LIKE|DISTINCT |FROM|AND|OR)+) (.+?)(?: to valid types|: .*)?$",
            )
        });
        static TYPES: LazyLock<Regex> = LazyLock::new(|| pattern(r"argument types '([^'(]+)\((.*?)\)'"));
        static NAME: LazyLock<Regex> = LazyLock::new(|| {
            pattern(
                r"(?i)(?:function|call to) '([^']+)' (?:function|requires|expects|failed|user-defined|.* is not comparable)",
            )
        });
        static BETWEEN: LazyLock<Regex> =
            LazyLock::new(|| pattern(r"(?i)coerce (?:types )?(.+?) and (.+?) in (\w+) expression"));
        static CAST: LazyLock<Regex> =
            LazyLock::new(|| pattern("native type (.+?) from physical type (.+?)$"));
        static CASE: LazyLock<Regex> =
            LazyLock::new(|| pattern(r"coerce \w+ \((.+)\) and \w+ \((.+)\) to common types in CASE"));
        let first = told.lines().next().unwrap_or_default();
        if let Some(found) = CASE.captures(first) {
            // Without `else` there is no second type.
            let types = Some(format!("{} and {}", &found[1], &found[2]).replace(" and None", ""));
            return Some(Self { name: "case".to_owned(), is_operator: true, types });
        }
        if let Some(found) = BETWEEN.captures(first) {
            let types = Some(format!("{} and {}", &found[1], &found[2]));
            return Some(Self { name: found[3].to_lowercase(), is_operator: true, types });
        }
        if let Some(found) = CAST.captures(first) {
            let types = Some(format!("{} as {}", &found[2], found[1].to_lowercase()));
            return Some(Self { name: "cast".to_owned(), is_operator: true, types });
        }
        if let Some(found) = OPERATOR.captures(first) {
            let types = Some(format!("{} and {}", &found[1], &found[3]));
            return Some(Self { name: found[2].trim().to_lowercase(), is_operator: true, types });
        }
        let (name, types) = match TYPES.captures(told) {
            Some(found) => (found[1].to_owned(), Some(found[2].to_owned())),
            None => (NAME.captures(told)?[1].to_owned(), None),
        };
        let syntax = SYNTAX.iter().find(|(function, _)| *function == name).map(|(_, syntax)| *syntax);
        let is_operator = syntax.is_some();
        Some(Self { name: syntax.map_or(name, str::to_owned), is_operator, types })
    }

    /// What to do about it.
    pub(super) fn told(&self) -> String {
        let Self { name, is_operator, types } = self;
        let what =
            if *is_operator { format!("the operator `{name}`") } else { format!("the function {name}") };
        let types = types.as_deref().map_or_else(|| "these types".to_owned(), |types| format!("({types})"));
        format!("{what} does not take {types}: cast to types that it takes")
    }
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of ours")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_engine_become_name_and_types() {
        for (told, right) in [
            (
                "function 'lower' requires String, but received boolean (DataType: boolean).. No function matches the given name and argument types 'lower(boolean)'",
                "the function lower does not take (boolean): cast to types that it takes",
            ),
            (
                "execution error: Function 'negative' user-defined coercion failed with: Error during planning: `-` takes a number. No function matches the given name and argument types 'negative(text)'",
                "the operator `-` does not take (text): cast to types that it takes",
            ),
            (
                "internal error: Function 'sum' failed to match any signature, errors: Error during planning: Function 'sum' requires Decimal, but received boolean",
                "the function sum does not take these types: cast to types that it takes",
            ),
            (
                "failed to coerce arguments to satisfy a call to 'sqrt' function: coercion from list of text to the signature Uniform(1, [double, real]) failed",
                "the function sqrt does not take these types: cast to types that it takes",
            ),
            (
                "cannot infer common argument type for comparison operation list of text > bigint",
                "the operator `>` does not take (list of text and bigint): cast to types that it takes",
            ),
            (
                "Failed to coerce types list of text and bigint in BETWEEN expression",
                "the operator `between` does not take (list of text and bigint): cast to types that it takes",
            ),
            (
                "there isn't a common type to coerce list of text and text in LIKE expression",
                "the operator `like` does not take (list of text and text): cast to types that it takes",
            ),
            (
                "failed to coerce then (binary, decimal(28, 9)) and else (text) to common types in CASE WHEN expression",
                "the operator `case` does not take (binary, decimal(28, 9) and text): cast to types that it takes",
            ),
            (
                "Unavailable default cast for native type String from physical type map",
                "the operator `cast` does not take (map as string): cast to types that it takes",
            ),
            (
                "cannot coerce arithmetic expression text + interval to valid types",
                "the operator `+` does not take (text and interval): cast to types that it takes",
            ),
            (
                "cannot get result type for arithmetic operation text / text: Invalid argument error: Invalid arithmetic operation: text / text",
                "the operator `/` does not take (text and text): cast to types that it takes",
            ),
        ] {
            assert_eq!(Mismatch::read(told).map(|found| found.told()).as_deref(), Some(right), "{told}");
        }
        assert_eq!(Mismatch::read("order by column out of bounds, specified: 2, max: 1"), None);
    }
}
