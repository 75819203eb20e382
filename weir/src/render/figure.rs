//! Numbers for people and for files.

use jiff::{Timestamp, tz::TimeZone};
use prost_types::{Value, value::Kind};
use weir_proto::analytics::v1::{Figure, ResultInfo, result_info::Source};

use crate::{moment, money};

/// `31,106`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1,234.57`: whole numbers whole, others with at most two digits after the point, small ones with three that count.
pub(crate) fn number(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    let size = value.abs();
    if !size.is_finite() || size >= 1e15 {
        return format!("{value:e}");
    }
    if size.fract() == 0.0 {
        return format!("{sign}{}", grouped(size as u64));
    }
    if size < 1.0 {
        let digits = (2 - size.log10().floor() as i32).clamp(2, 12) as usize;
        return format!("{value:.digits$}");
    }
    let hundredths = (size * 100.0).round() as u64;
    format!("{sign}{}.{:02}", grouped(hundredths / 100), hundredths % 100)
}

/// A figure with how good it is: `600`, `≈ 12,345 ± 1.6 %`, `9.99 EUR`, `≈ 9.99 EUR`, `–` for none.
pub(crate) fn figure(figure: &Figure) -> String {
    if figure.empty {
        return "–".to_owned();
    }
    if let Some(amount) = &figure.money {
        let sign = if figure.exact { "" } else { "≈ " };
        return format!("{sign}{} {}", money::display(amount), amount.currency_code);
    }
    if figure.exact {
        return number(figure.value);
    }
    let error = (figure.upper_bound - figure.lower_bound) / 2.0 / figure.value.abs() * 100.0;
    // A sketch estimates a number of things: its decimals mean nothing.
    let value = if figure.value.abs() >= 1000.0 { figure.value.round() } else { figure.value };
    if error.is_finite() {
        format!("≈ {} ± {error:.1} %", number(value))
    } else {
        format!("≈ {}", number(value))
    }
}

/// A figure for programs: the exact amount of money, else the number; empty for none.
pub(crate) fn plain(figure: &Figure) -> String {
    if figure.empty {
        return String::new();
    }
    match &figure.money {
        Some(amount) => money::display(amount).replace(',', ""),
        None => figure.value.to_string(),
    }
}

/// A share of 0 to 1: `66.7 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A length of time by its two greatest units: `2 d 4 h`, `3 m 20 s`, `450 ms`.
pub(crate) fn duration(length: &prost_types::Duration) -> String {
    let seconds = length.seconds.unsigned_abs();
    let millis = length.nanos.unsigned_abs() / 1_000_000;
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(millis), "ms"),
    ];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    // Nobody wants milliseconds of what takes seconds.
    let last = if seconds >= 10 { parts.len() - 1 } else { parts.len() };
    let shown = parts[first..last].iter().take(2).enumerate();
    let shown = shown.filter(|(index, (count, _))| *index == 0 || *count > 0);
    shown.map(|(_, (count, unit))| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

/// The same in seconds, for programs; nothing for none.
pub(crate) fn seconds(length: Option<&prost_types::Duration>) -> String {
    length
        .map(|length| (length.seconds as f64 + f64::from(length.nanos) / 1e9).to_string())
        .unwrap_or_default()
}

/// A number of bytes: `1.2 MB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut size = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1000.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

/// A value of a field, with control characters made visible.
pub(crate) fn value(value: &Value) -> String {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => "(none)".to_owned(),
        _ => super::escaped(&plain_value(value)).into_owned(),
    }
}

/// A value of a field for programs: nothing for none.
pub(crate) fn plain_value(value: &Value) -> String {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => String::new(),
        _ => written(value),
    }
}

fn written(value: &Value) -> String {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => "(none)".to_owned(),
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::BoolValue(is)) => is.to_string(),
        Some(Kind::ListValue(list)) => {
            format!("[{}]", list.values.iter().map(written).collect::<Vec<_>>().join(", "))
        }
        Some(Kind::StructValue(fields)) => {
            let fields: Vec<String> =
                fields.fields.iter().map(|(k, v)| format!("{k}: {}", written(v))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// A moment by the zone's clock, as short as it can be read.
pub(crate) fn time(moment: Timestamp, zone: &TimeZone) -> String {
    let zoned = moment.to_zoned(zone.clone());
    let pattern = match (zoned.hour(), zoned.minute(), zoned.second(), zoned.subsec_nanosecond()) {
        (0, 0, 0, 0) => "%Y-%m-%d",
        (_, _, 0, 0) => "%Y-%m-%d %H:%M",
        _ => "%Y-%m-%d %H:%M:%S",
    };
    zoned.strftime(pattern).to_string()
}

/// What the answer holds for, in one line.
pub(crate) fn provenance(info: &ResultInfo, zone: &TimeZone) -> String {
    let mut parts = Vec::new();
    if let (Some(start), Some(end)) = (&info.start_time, &info.end_time) {
        let show = |moment| time(moment::from_proto(moment), zone);
        parts.push(format!("{} to {} {}", show(start), show(end), zone.iana_name().unwrap_or("UTC")));
    }
    if let Some(watermark) = &info.watermark {
        parts.push(format!("counted up to {}", time(moment::from_proto(watermark), zone)));
    }
    match info.source() {
        Source::Rollup => parts.push(format!("from rollup {}", info.rollup)),
        Source::Store => parts.push("from the event store".to_owned()),
        Source::Unspecified => {}
    }
    if info.late_events > 0 {
        parts.push(format!("{} late", grouped(info.late_events)));
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::google::r#type::Money;

    #[test]
    fn numbers_are_readable() {
        let shown: Vec<String> =
            [0.0, 7.0, 31_106.0, -1_234_567.0, 0.5, 0.001_234, 12.345, 999.999, 1e18].map(number).to_vec();
        insta::assert_snapshot!(shown.join(" | "), @"0 | 7 | 31,106 | -1,234,567 | 0.500 | 0.00123 | 12.35 | 1,000.00 | 1e18");
    }

    #[test]
    fn lengths_are_short() {
        let shown =
            [0, 450, 1_500, 10_450, 200_000, 7_200_000, 187_200_000, 86_401_000].map(|millis: i64| {
                duration(&prost_types::Duration {
                    seconds: millis / 1000,
                    nanos: (millis % 1000) as i32 * 1_000_000,
                })
            });
        insta::assert_snapshot!(shown.join(" | "), @"0 ms | 450 ms | 1 s 500 ms | 10 s | 3 m 20 s | 2 h | 2 d 4 h | 1 d");
        assert_eq!([999, 1_234_567].map(bytes), ["999 B", "1.2 MB"]);
        assert_eq!(percent(2.0 / 3.0), "66.7 %");
    }

    #[test]
    fn figures_say_how_good_they_are() {
        let exact = Figure { value: 600.0, exact: true, ..Figure::default() };
        let estimate =
            Figure { value: 12_345.4, lower_bound: 12_145.0, upper_bound: 12_545.0, ..Figure::default() };
        let money = Money { currency_code: "EUR".into(), units: 1234, nanos: 500_000_000 };
        let paid = Figure { value: 1234.5, exact: true, money: Some(money), ..Figure::default() };
        let unsure = Figure { exact: false, ..paid.clone() };
        let none = Figure { empty: true, ..Figure::default() };
        let shown = [&exact, &estimate, &paid, &unsure, &none].map(figure).join(" | ");
        insta::assert_snapshot!(shown, @"600 | ≈ 12,345 ± 1.6 % | 1,234.50 EUR | ≈ 1,234.50 EUR | –");
        let plain = [&exact, &estimate, &paid, &none].map(plain).join(" | ");
        insta::assert_snapshot!(plain, @"600 | 12345.4 | 1234.50 | ");
    }
}
