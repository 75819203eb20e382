//! Answers for people: tables, charts, numbers. Pure: they return text; colours are taken away at the edge when standard
//! output is not a terminal.

pub(crate) mod chart;
pub(crate) mod figure;
pub(crate) mod table;

pub(crate) use figure::grouped;

use std::borrow::Cow;

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

/// The text in the style; nothing for nothing. Control characters in it are made visible, but for line breaks.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    let text = printable(&text.to_string());
    if text.is_empty() { text } else { format!("{style}{text}{style:#}") }
}

/// Whether a character moves the cursor, begins a command to the terminal, or turns the direction of writing and so hides what
/// stands beside it.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// The text with its control characters visible: `\u{1b}` for escape.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if is_control(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect::<String>().into()
}

/// The same, but styles stay: they are how painted text is told from what was painted.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(is_control) {
        let (before, control) = rest.split_at(at);
        out.push_str(before);
        let style = style_len(control);
        let len = style.unwrap_or_else(|| control.chars().next().map_or(0, char::len_utf8));
        let (control, after) = control.split_at(len);
        out.push_str(&if style.is_some() { Cow::Borrowed(control) } else { escaped(control) });
        rest = after;
    }
    out.push_str(rest);
    out.into()
}

/// Lines with their control characters visible.
pub(crate) fn printable(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// Bytes of the style that a text begins with: `ESC [ … m`.
fn style_len(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

/// Columns of the terminal; 100 where there is none.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0)).max(40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_visible() {
        assert_eq!(escaped("a\u{1b}]0;x\u{7}\r\nb\u{202e}"), r"a\u{1b}]0;x\u{7}\r\nb\u{202e}");
        assert_eq!(escaped("東京 é"), "東京 é");
    }

    #[test]
    fn styles_stay_where_painted_text_is_shown() {
        let painted = paint(GOOD, "well");
        assert_eq!(visible(&painted), painted);
        assert_eq!(visible("a\u{1b}[2Jb\u{1b}[1;31mc\u{1b}"), "a\\u{1b}[2Jb\u{1b}[1;31mc\\u{1b}");
        assert_eq!(anstream::adapter::strip_str(&paint(BAD, "a\u{1b}[2J\nb")).to_string(), "a\\u{1b}[2J\nb");
    }
}
