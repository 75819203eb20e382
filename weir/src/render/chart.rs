//! Charts from block characters.

use super::{ACCENT, FAINT, figure::number, paint};

/// Eighths of a block, from nothing to full.
const VERTICAL: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const HORIZONTAL: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

/// A line of height one: `▁▃█▂`. Empty for no values.
pub(crate) fn sparkline(values: &[f64], width: usize) -> String {
    let values = squeeze(values, width);
    let greatest = greatest(&values);
    values.iter().map(|&value| VERTICAL[eighths(value, greatest, 1)]).collect()
}

/// A bar of at most `width` columns.
pub(crate) fn bar(value: f64, greatest: f64, width: usize) -> String {
    let eighths = eighths(value, greatest, width);
    let mut bar: String = std::iter::repeat_n(HORIZONTAL[8], eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        bar.push(HORIZONTAL[eighths % 8]);
    }
    bar
}

/// Columns over time, `height` lines high, with its scale at the left and the first and last label below.
pub(crate) fn columns(values: &[f64], labels: (&str, &str), width: usize, height: usize) -> String {
    let top = greatest(values);
    let scale = number(top);
    let gutter = scale.chars().count() + 2;
    let room = width.saturating_sub(gutter).max(8);
    // Few buckets get wider columns, with a gap between them once there is room for one.
    let squeezed = squeeze(values, room);
    let step = (room / squeezed.len().max(1)).clamp(1, 8);
    let body = if step >= 3 { step - 1 } else { step };
    let mut out = String::new();
    for line in (0..height).rev() {
        let label = match line {
            _ if line + 1 == height => scale.as_str(),
            0 => "0",
            _ => "",
        };
        let mut cells = String::new();
        for &value in &squeezed {
            let filled = eighths(value, top, height).saturating_sub(line * 8).min(8);
            cells.extend(std::iter::repeat_n(VERTICAL[filled], body));
            cells.extend(std::iter::repeat_n(' ', step - body));
        }
        let label = paint(FAINT, format_args!("{label:>w$} ", w = gutter - 2));
        out.push_str(&format!("{label}│{}\n", paint(ACCENT, cells.trim_end())));
    }
    let drawn = squeezed.len() * step;
    let gap = drawn.saturating_sub(labels.0.chars().count() + labels.1.chars().count()).max(1);
    let caption =
        if values.len() > 1 { format!("{}{:gap$}{}", labels.0, "", labels.1) } else { labels.0.to_owned() };
    out.push_str(&format!("{:gutter$}{}\n", "", paint(FAINT, caption)));
    out
}

/// How many eighths of a block `value` fills of `blocks` at `greatest`. What is there is seen: at least one.
fn eighths(value: f64, greatest: f64, blocks: usize) -> usize {
    // NaN fails this comparison and draws nothing.
    if !(value > 0.0 && greatest > 0.0) {
        return 0;
    }
    ((value / greatest * (blocks * 8) as f64).round() as usize).clamp(1, blocks * 8)
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max)
}

/// At most `width` values: each the greatest of those it stands for, so that no peak is lost.
fn squeeze(values: &[f64], width: usize) -> Vec<f64> {
    let per_column = values.len().div_ceil(width.max(1)).max(1);
    values.chunks(per_column).map(|chunk| chunk.iter().copied().fold(0.0, f64::max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_the_shape() {
        assert_eq!(sparkline(&[0.0, 1.0, 4.0, 8.0, 0.01], 10), " ▁▄█▁");
        assert_eq!(sparkline(&[1.0, 8.0, 2.0, 3.0], 2), "█▃");
        assert_eq!(sparkline(&[f64::NAN, 1.0], 2), " █");
        assert_eq!(sparkline(&[], 5), "");
    }

    #[test]
    fn bars_are_in_proportion() {
        assert_eq!(bar(10.0, 10.0, 4), "████");
        assert_eq!(bar(5.0, 10.0, 3), "█▌");
        assert_eq!(bar(0.0, 10.0, 4), "");
        assert_eq!(bar(1.0, 0.0, 4), "");
    }

    #[test]
    fn a_chart_has_a_scale_and_dates() {
        let chart = columns(&[1.0, 2.0, 1234.0, 600.0], ("2024-01-01", "2024-01-04"), 40, 4);
        let plain = anstream::adapter::strip_str(&chart).to_string();
        insta::assert_snapshot!(plain, @r"
        1,234 │                ███████
              │                ███████
              │                ███████ ███████
            0 │▁▁▁▁▁▁▁ ▁▁▁▁▁▁▁ ███████ ███████
               2024-01-01            2024-01-04
        ");
    }
}
