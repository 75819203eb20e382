//! `--measure`: what to measure, and its name as a column.

use weir_proto::analytics::v1::{Measure, measure::Kind};

/// Parses `count`, `unique_users`, `sessions`, `revenue[:EUR]`, `sum|min|max|avg|median|pNN:FIELD`.
pub(crate) fn parse(text: &str) -> Result<Measure, String> {
    let (name, argument) = match text.trim().split_once(':') {
        Some((name, argument)) => (name, Some(argument.trim()).filter(|argument| !argument.is_empty())),
        None => (text.trim(), None),
    };
    let plain = |kind: Kind| match argument {
        None => Ok(Measure { kind: kind.into(), ..Measure::default() }),
        Some(_) => Err(format!("`{text}`: `{name}` takes nothing after a colon")),
    };
    let of_property = |kind: Kind, quantile: f64| match argument {
        Some(property) => {
            Ok(Measure { kind: kind.into(), property: property.to_owned(), quantile, ..Measure::default() })
        }
        None => Err(format!("`{text}`: name a numeric property, as in {name}:price")),
    };
    match name {
        "count" | "events" => plain(Kind::Events),
        "unique_users" | "users" => plain(Kind::UniqueUsers),
        "sessions" => plain(Kind::Sessions),
        "revenue" => {
            let currency = argument.map(crate::money::currency).transpose()?.unwrap_or_default();
            Ok(Measure { kind: Kind::Revenue.into(), currency, ..Measure::default() })
        }
        "sum" => of_property(Kind::Sum, 0.0),
        "min" => of_property(Kind::Min, 0.0),
        "max" => of_property(Kind::Max, 0.0),
        "avg" | "average" | "mean" => of_property(Kind::Average, 0.0),
        "median" => of_property(Kind::Quantile, 0.5),
        _ => match name.strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok()) {
            Some(percent) if (0.0..=100.0).contains(&percent) => of_property(Kind::Quantile, percent / 100.0),
            _ => Err(format!(
                "`{text}`: expected count, unique_users, sessions, revenue[:CURRENCY], or sum, min, max, avg, median or \
                 p0 to p100 with a property, as in p95:duration"
            )),
        },
    }
}

/// The measure as [`parse`] reads it: a column's name.
pub(crate) fn name(measure: &Measure) -> String {
    let property = &measure.property;
    match measure.kind() {
        Kind::Unspecified | Kind::Events => "events".to_owned(),
        Kind::UniqueUsers => "unique_users".to_owned(),
        Kind::Sessions => "sessions".to_owned(),
        Kind::Revenue if measure.currency.is_empty() => "revenue".to_owned(),
        Kind::Revenue => format!("revenue:{}", measure.currency),
        Kind::Sum => format!("sum:{property}"),
        Kind::Min => format!("min:{property}"),
        Kind::Max => format!("max:{property}"),
        Kind::Average => format!("avg:{property}"),
        // 0.07 * 100 is 7.000000000000001.
        Kind::Quantile => format!("p{}:{property}", (measure.quantile * 1e8).round() / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for text in [
            "events",
            "unique_users",
            "sessions",
            "revenue",
            "revenue:USD",
            "sum:price",
            "min:a",
            "max:a",
            "avg:a",
            "p7:a",
            "p99.9:a",
        ] {
            assert_eq!(name(&parse(text).unwrap()), text);
        }
        assert_eq!(name(&parse("count").unwrap()), "events");
        assert_eq!(name(&parse("median:price").unwrap()), "p50:price");
    }

    #[test]
    fn what_is_no_measure_says_what_is() {
        for text in ["", "sum", "sum:", "p101:a", "count:a", "revenue:EURO", "speed"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
