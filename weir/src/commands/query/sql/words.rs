//! What can be completed in a statement. Pure.

/// Words of the language.
const KEYWORDS: &[&str] = &[
    "select",
    "from",
    "where",
    "group by",
    "order by",
    "having",
    "limit",
    "distinct",
    "as",
    "and",
    "or",
    "not",
    "in",
    "like",
    "ilike",
    "between",
    "is null",
    "is not null",
    "case",
    "when",
    "then",
    "else",
    "end",
    "join",
    "left join",
    "on",
    "using",
    "with",
    "union all",
    "over",
    "partition by",
    "asc",
    "desc",
    "nulls last",
    "interval",
    "filter",
    "explain",
    "describe",
    "show tables",
    "events",
];

/// Functions, completed with their parenthesis. Weir's own first.
const FUNCTIONS: &[&str] = &[
    "funnel_depth",
    "retention",
    "approx_distinct",
    "approx_percentile_cont",
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "median",
    "stddev",
    "first_value",
    "last_value",
    "row_number",
    "rank",
    "lag",
    "lead",
    "array_agg",
    "string_agg",
    "date_trunc",
    "date_bin",
    "date_part",
    "to_timestamp",
    "now",
    "coalesce",
    "nullif",
    "cast",
    "lower",
    "upper",
    "trim",
    "length",
    "substr",
    "replace",
    "split_part",
    "concat",
    "starts_with",
    "strpos",
    "regexp_match",
    "regexp_like",
    "regexp_replace",
    "round",
    "floor",
    "ceil",
    "abs",
    "map_extract",
    "map_keys",
];

/// Names that are known of the data.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    /// Columns of `events`.
    pub(super) columns: Vec<String>,
    /// Names of events: completed within quotes.
    pub(super) event_names: Vec<String>,
}

impl Words {
    /// Where the word before `position` begins, and what it may become.
    pub(super) fn complete(&self, statement: &str, position: usize) -> (usize, Vec<String>) {
        let before = &statement[..position];
        // Quotes come in pairs, doubled ones too: an odd number means that the last is open.
        let quote = before.matches('\'').count() % 2 == 1;
        if let Some(open) = before.rfind('\'').filter(|_| quote) {
            let typed = &before[open + 1..];
            let names = self.event_names.iter().map(|name| name.replace('\'', "''"));
            return (open + 1, names.filter(|name| name.starts_with(typed)).map(|name| name + "'").collect());
        }
        let start = before
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let typed = before[start..].to_lowercase();
        if typed.is_empty() {
            return (start, Vec::new());
        }
        // Whoever shouts is answered likewise.
        let shouts = before[start..].chars().all(|c| !c.is_lowercase());
        let cased = |word: &str| if shouts { word.to_uppercase() } else { word.to_owned() };
        let columns = self.columns.iter().filter(|name| name.to_lowercase().starts_with(&typed)).cloned();
        let keywords = KEYWORDS.iter().filter(|word| word.starts_with(&typed)).map(|word| cased(word));
        let functions =
            FUNCTIONS.iter().filter(|word| word.starts_with(&typed)).map(|word| cased(word) + "(");
        (start, columns.chain(keywords).chain(functions).collect())
    }
}

/// Whether a statement has its end: a semicolon outside quotes, or a word that is a command of the prompt.
pub(super) fn is_whole(text: &str) -> bool {
    let text = text.trim();
    let in_quotes = text.matches('\'').count() % 2 == 1;
    (text.ends_with(';') && !in_quotes) || text.is_empty() || command(text).is_some()
}

/// What the prompt itself understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Quit,
}

/// The command that a line is, if it is none of SQL.
pub(super) fn command(line: &str) -> Option<Command> {
    match line.trim().trim_end_matches(';').to_lowercase().as_str() {
        "help" | "\\?" | "\\h" | "?" => Some(Command::Help),
        "quit" | "exit" | "\\q" => Some(Command::Quit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str) -> (usize, Vec<String>) {
        let words = Words {
            columns: vec!["event_name".into(), "event_type".into(), "platform".into()],
            event_names: vec!["purchase".into(), "page view".into(), "it's".into()],
        };
        words.complete(text, text.len())
    }

    #[test]
    fn columns_keywords_and_functions_are_completed() {
        assert_eq!(
            complete("select even"),
            (7, vec!["event_name".into(), "event_type".into(), "events".into()])
        );
        assert_eq!(complete("select count(plat"), (13, vec!["platform".into()]));
        assert_eq!(complete("select fun"), (7, vec!["funnel_depth(".into()]));
        assert_eq!(complete("SEL"), (0, vec!["SELECT".into()]));
        assert_eq!(complete("select "), (7, Vec::new()));
        assert_eq!(complete("é plat").1, ["platform"]);
    }

    #[test]
    fn event_names_are_completed_within_quotes() {
        assert_eq!(complete("where event_name = 'p"), (20, vec!["purchase'".into(), "page view'".into()]));
        assert_eq!(complete("where event_name = 'it"), (20, vec!["it''s'".into()]));
        assert_eq!(complete("where a = 'x' and plat").1, ["platform"]);
    }

    #[test]
    fn a_statement_ends_with_a_semicolon() {
        assert!(is_whole("select 1;") && is_whole("quit") && is_whole("  "));
        assert!(!is_whole("select 1") && !is_whole("select ';"));
        assert_eq!(
            (command("\\q"), command("Help;"), command("select 1;")),
            (Some(Command::Quit), Some(Command::Help), None)
        );
    }
}
