//! `--measure` and `--formula`: what to measure and compute, and its name as a column.

use weir_proto::analytics::v1::{Formula, Measure, measure::Kind};

use super::filter;

/// Before the tests of a measure that is about some of the events only.
const WHERE: &str = " where ";

/// Parses `count`, `unique_users`, `sessions`, `visits`, `revenue[:EUR]`, `sum|min|max|avg|median|pNN|distinct:FIELD`, and any
/// of them with ` where ` and tests.
pub(crate) fn parse(text: &str) -> Result<Measure, String> {
    let Some((measure, tests)) = text.split_once(WHERE) else { return parse_plain(text) };
    Ok(Measure { filter: Some(filter::parse_all(tests)?), ..parse_plain(measure)? })
}

/// Parses `A / B` or `name = A / B`.
pub(crate) fn formula(text: &str) -> Result<Formula, String> {
    let (name, expression) = text.split_once('=').unwrap_or((text, text));
    let (name, expression) = (name.trim(), expression.trim());
    let is_expression = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || " .+-*/()".contains(c);
    if name.is_empty()
        || !expression.contains(|c: char| c.is_ascii_uppercase())
        || !expression.chars().all(is_expression)
    {
        return Err(format!(
            "`{text}`: expected a formula of the measures, A being the first, such as 'A / B' or 'conversion = 100 * A / B'"
        ));
    }
    Ok(Formula { name: name.to_owned(), expression: expression.to_owned() })
}

fn parse_plain(text: &str) -> Result<Measure, String> {
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
        "visits" => plain(Kind::Visits),
        "distinct" | "unique_values" => match argument {
            Some(property) => {
                let kind = Kind::UniqueValues.into();
                Ok(Measure { kind, property: property.to_owned(), ..Measure::default() })
            }
            None => Err(format!("`{text}`: name a property, as in {name}:platform")),
        },
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
                "`{text}`: expected count, unique_users, sessions, visits, revenue[:CURRENCY], or sum, min, max, avg, median, \
                 p0 to p100 or distinct with a property, as in p95:duration"
            )),
        },
    }
}

/// The measure as [`parse`] reads it: a column's name.
pub(crate) fn name(measure: &Measure) -> String {
    match &measure.filter {
        Some(filter) => format!("{}{WHERE}{}", plain_name(measure), filter::text(filter)),
        None => plain_name(measure),
    }
}

fn plain_name(measure: &Measure) -> String {
    let property = &measure.property;
    match measure.kind() {
        Kind::Unspecified | Kind::Events => "events".to_owned(),
        Kind::UniqueUsers => "unique_users".to_owned(),
        Kind::Sessions => "sessions".to_owned(),
        Kind::Visits => "visits".to_owned(),
        Kind::UniqueValues => format!("distinct:{property}"),
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
            "visits",
            "distinct:platform",
            "events where event_name=purchase and price>10",
        ] {
            assert_eq!(name(&parse(text).unwrap()), text);
        }
        assert_eq!(name(&parse("count").unwrap()), "events");
        assert_eq!(name(&parse("median:price").unwrap()), "p50:price");
    }

    #[test]
    fn what_is_no_measure_says_what_is() {
        for text in
            ["", "sum", "sum:", "p101:a", "count:a", "revenue:EURO", "speed", "distinct", "count where x"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn formulas_may_have_names() {
        let read = |text: &str| formula(text).map(|formula| (formula.name, formula.expression));
        assert_eq!(read("A / B"), Ok(("A / B".into(), "A / B".into())));
        assert_eq!(read("conversion = 100*A/B"), Ok(("conversion".into(), "100*A/B".into())));
        for text in ["", "= A", "1 + 1", "a / b", "x = A; B"] {
            assert!(read(text).is_err_and(|error| error.contains("A / B")), "{text}");
        }
    }
}
