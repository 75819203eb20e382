//! Standard output for results, standard error for everything else.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::render::{FAINT, grouped, paint, visible};

/// Time between two lines of progress where there is no terminal to draw on.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Prints a line of the result. Colours are left out unless a terminal shows them.
///
/// # Errors
/// When nobody reads any more.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")
}

/// Prints a result that ends its last line itself.
///
/// # Errors
/// When nobody reads any more.
pub(crate) fn text(text: impl Display) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// Prints names and values in two columns.
///
/// # Errors
/// When nobody reads any more.
pub(crate) fn facts(facts: impl IntoIterator<Item = (String, String)>) -> io::Result<()> {
    let facts: Vec<(String, String)> = facts.into_iter().collect();
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    facts.iter().try_for_each(|(name, value)| {
        line(format_args!("{}  {}", paint(FAINT, format_args!("{name:width$}")), visible(value)))
    })
}

/// Says something by the way.
pub(crate) fn note(text: impl Display) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(anstream::stderr(), "{}", paint(FAINT, format_args!("weir: {text}")));
}

/// Clears the terminal for a newer state of the same; elsewhere states follow each other.
///
/// # Errors
/// When nobody reads any more.
pub(crate) fn redraw(wanted: bool) -> io::Result<()> {
    // Cursor home, then clear to the end: no flicker.
    if wanted && is_terminal() { text("\x1b[H\x1b[J") } else { Ok(()) }
}

/// Whether results go to a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Shows how something long goes on: a bar on a terminal, else a line from time to time.
pub(crate) struct Meter {
    bar: ProgressBar,
    total: Option<u64>,
    what: &'static str,
    began: Instant,
    last_line: Instant,
    /// What an earlier run did says nothing about this one's speed.
    already: u64,
}

impl Meter {
    /// `total` is what the second argument of [`Meter::at`] will reach, when that is known; `already` things were done
    /// before.
    pub(crate) fn new(total: Option<u64>, what: &'static str, already: u64) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let template = match total {
            Some(_) => "{bar:30.cyan/dim} {percent:>3} %  {msg}  {eta} left",
            None => "{spinner} {msg}",
        };
        bar.set_style(
            ProgressStyle::with_template(template).expect("the template is constant: held by a test"),
        );
        Self { bar, total, what, began: Instant::now(), last_line: Instant::now(), already }
    }

    /// `count` things are done, and `position` of the total.
    pub(crate) fn at(&mut self, count: u64, position: u64) {
        let rate = count.saturating_sub(self.already) as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let message = format!("{} {}  {}/s", grouped(count), self.what, grouped(rate as u64));
        if !self.bar.is_hidden() {
            self.bar.set_message(message);
            self.bar.set_position(position);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let share =
                self.total.map(|total| format!("{} %  ", position * 100 / total.max(1))).unwrap_or_default();
            note(format!("{share}{message}"));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_can_be_made() {
        for total in [None, Some(0), Some(10)] {
            let mut meter = Meter::new(total, "rows", 0);
            meter.at(5, 5);
            meter.finish();
        }
    }
}
