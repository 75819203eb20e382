//! Why rows were rejected, and how many rows share each reason.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::render::{self, grouped};

/// Reasons that are told apart; further ones count together. Reasons differ by kind, not by value, so that there are few.
const MAX_REASONS: usize = 100;
/// Lines that are named of each reason.
const NAMED_LINES: usize = 3;
/// Reasons that are printed.
const PRINTED: usize = 10;
/// Characters of a reason that are printed.
const PRINTED_CHARS: usize = 300;

/// The reasons of one run.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    by_kind: BTreeMap<String, Shared>,
    /// Rows with reasons beyond the most.
    others: u64,
}

#[derive(Debug)]
struct Shared {
    rows: u64,
    lines: Vec<u64>,
    /// The first reason of the kind, with its value.
    first: String,
}

impl Reasons {
    pub(super) fn add(&mut self, line: u64, reason: &str) {
        let kind = kind(reason);
        if self.by_kind.len() >= MAX_REASONS && !self.by_kind.contains_key(&kind) {
            self.others += 1;
            return;
        }
        let new = || Shared { rows: 0, lines: Vec::new(), first: reason.to_owned() };
        let shared = self.by_kind.entry(kind).or_insert_with(new);
        shared.rows += 1;
        if shared.lines.len() < NAMED_LINES {
            shared.lines.push(line);
        }
    }

    fn by_rows(&self) -> Vec<&Shared> {
        let mut all: Vec<_> = self.by_kind.values().collect();
        all.sort_by_key(|shared| (std::cmp::Reverse(shared.rows), shared.lines.first().copied()));
        all
    }

    /// For people: the most frequent first, with the lines where they begin.
    pub(super) fn lines(&self) -> Vec<String> {
        let all = self.by_rows();
        let mut out = Vec::new();
        for shared in all.iter().take(PRINTED) {
            let lines = shared.lines.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let more = if shared.rows > shared.lines.len() as u64 { ", …" } else { "" };
            let (rows, which) = match shared.rows {
                1 => ("row", "line"),
                _ => ("rows", if shared.lines.len() == 1 { "line" } else { "lines" }),
            };
            let reason: String = shared.first.chars().take(PRINTED_CHARS).collect();
            out.push(format!(
                "{} {rows} ({which} {lines}{more}): {}",
                grouped(shared.rows),
                render::escaped(&reason)
            ));
        }
        let rest = all.iter().skip(PRINTED).map(|shared| shared.rows).sum::<u64>() + self.others;
        if rest > 0 {
            out.push(format!("{} rows for other reasons", grouped(rest)));
        }
        out
    }

    /// For programs.
    pub(super) fn json(&self) -> Vec<Value> {
        let one = |shared: &&Shared| json!({"rows": shared.rows, "firstLines": shared.lines, "reason": shared.first});
        self.by_rows().iter().map(one).collect()
    }
}

/// A reason without the values in it: what is quoted, and numbers.
fn kind(reason: &str) -> String {
    let mut kind = String::with_capacity(reason.len());
    let mut quote = None;
    for c in reason.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if matches!(c, '`' | '"') => {
                quote = Some(c);
                kind.push(c);
            }
            None if c.is_ascii_digit() => {
                if !kind.ends_with('0') {
                    kind.push('0');
                }
            }
            // What a message proposes for a value depends on the value.
            None if kind.ends_with("--time-format ") => break,
            None => kind.push(c),
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_share_a_reason_whatever_their_values() {
        let mut reasons = Reasons::default();
        reasons.add(2, "event_time: `soon` is no time: read it with --time-format '%d'");
        reasons.add(3, "user_id: must not be \"NA\"");
        for line in 4..9 {
            reasons
                .add(line, &format!("event_time: `{line}` is no time: read it with --time-format '%{line}'"));
        }
        reasons.add(9, "event_time: is 51934 days ahead");
        reasons.add(10, "event_time: is 7 days ahead");
        assert_eq!(
            reasons.lines(),
            [
                "6 rows (lines 2, 4, 5, …): event_time: `soon` is no time: read it with --time-format '%d'",
                "2 rows (lines 9, 10): event_time: is 51934 days ahead",
                "1 row (line 3): user_id: must not be \"NA\"",
            ]
        );
        assert_eq!(reasons.json()[0]["rows"], 6);
    }

    #[test]
    fn reasons_are_bounded() {
        let mut reasons = Reasons::default();
        for c in ('a'..='z').flat_map(|a| ('a'..='z').map(move |b| (a, b))) {
            reasons.add(1, &format!("{}{}", c.0, c.1));
        }
        let lines = reasons.lines();
        assert_eq!(lines.len(), PRINTED + 1);
        assert_eq!(lines[PRINTED], format!("{} rows for other reasons", 26 * 26 - PRINTED));
    }
}
