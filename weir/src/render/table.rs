//! Tables.

use unicode_width::UnicodeWidthStr as _;

use super::{STRONG, paint, visible};

/// Between two columns.
const GAP: &str = "  ";

/// One column of a table.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Numbers stand at the right.
    pub(crate) numeric: bool,
}

/// A column of text.
pub(crate) fn text(name: impl Into<String>) -> Column {
    Column { name: name.into(), numeric: false }
}

/// A column of numbers.
pub(crate) fn numeric(name: impl Into<String>) -> Column {
    Column { name: name.into(), numeric: true }
}

/// A table without a frame, each column as wide as its widest cell, ended by a line break. Cells may be painted;
/// other control characters in them are made visible.
pub(crate) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let header = columns.iter().map(|column| paint(STRONG, &column.name)).collect();
    let lines: Vec<Vec<String>> = std::iter::once(header)
        .chain(rows)
        .map(|cells| cells.iter().map(|cell| visible(cell).into_owned()).collect())
        .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| shown_width(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for ((cell, column), &width) in line.iter().zip(columns).zip(&widths) {
            let padding = " ".repeat(width - shown_width(cell));
            let (before, after) =
                if column.numeric { (padding.as_str(), "") } else { ("", padding.as_str()) };
            let gap = if text.is_empty() { "" } else { GAP };
            text.push_str(&format!("{gap}{before}{cell}{after}"));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// Columns of the terminal that a cell takes.
fn shown_width(cell: &str) -> usize {
    anstream::adapter::strip_str(cell).to_string().width()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::GOOD;

    #[test]
    fn a_cell_stays_in_its_line() {
        let rows = [vec!["a\u{1b}[2J\nb".to_owned()]];
        let shown = table(&[text("name")], rows);
        assert_eq!(anstream::adapter::strip_str(&shown).to_string(), "name\na\\u{1b}[2J\\nb\n");
    }

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let columns = [text("city"), numeric("n"), text("state")];
        let row = |cells: [&str; 2], state: String| vec![cells[0].to_owned(), cells[1].to_owned(), state];
        let rows = [
            row(["東京", "7"], paint(GOOD, "well")),
            row(["Kolkata", "1,234"], "ill".into()),
            vec!["total".into()],
        ];
        let plain = anstream::adapter::strip_str(&table(&columns, rows)).to_string();
        insta::assert_snapshot!(plain, @r"
        city         n  state
        東京         7  well
        Kolkata  1,234  ill
        total
        ");
    }
}
