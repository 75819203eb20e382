//! Answers for people: tables, charts, numbers. Pure: they return text; colours are taken away at the edge when standard
//! output is not a terminal.

pub(crate) mod chart;
pub(crate) mod figure;
pub(crate) mod table;

pub(crate) use figure::grouped;

use anstyle::{AnsiColor, Style};

/// For what matters less: captions and notes.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// For headings.
pub(crate) const STRONG: Style = Style::new().bold();
/// For what is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// For what is not.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// For charts.
pub(crate) const ACCENT: Style = AnsiColor::Cyan.on_default();

/// The text in the style; nothing for nothing.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    if text.is_empty() { text } else { format!("{style}{text}{style:#}") }
}

/// Columns of the terminal; 100 where there is none.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0)).max(40)
}
