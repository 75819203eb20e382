//! `--where`: one test of one field.
//!
//! ```text
//! platform = mobile        platform != mobile       platform in mobile, web      platform not in mobile, web
//! page ~ ^/shop            page !~ ^/shop           name *= part                 plan exists     plan missing
//! price < 10               price <= 10              price > 10                   price >= 10
//! ```

use prost_types::{Value, value::Kind};
use weir_proto::analytics::v1::{Condition, Filter, FilterList, condition::Operator, filter::Expression};

/// Fields whose values are text whatever they look like.
const TEXT_FIELDS: &[&str] =
    &["event_name", "event_type", "user_id", "anonymous_id", "session_id", "install_id"];

/// Longest spelling first, so that `<=` is not read as `<`. With whether the test is negated.
const SYMBOLS: &[(&str, Operator, bool)] = &[
    ("!=", Operator::In, true),
    ("!~", Operator::Matches, true),
    ("*=", Operator::Contains, false),
    ("<=", Operator::LessOrEqual, false),
    (">=", Operator::GreaterOrEqual, false),
    ("==", Operator::In, false),
    ("=", Operator::In, false),
    ("~", Operator::Matches, false),
    ("<", Operator::Less, false),
    (">", Operator::Greater, false),
];

/// Parses one test.
pub(crate) fn parse(text: &str) -> Result<Filter, String> {
    let wrong = || {
        format!("`{text}`: expected FIELD=VALUE, or one of != < <= > >= ~ !~ *= in, not in, exists, missing")
    };
    let text = text.trim();
    let end = text.find(|c: char| c.is_whitespace() || "=!<>~*".contains(c)).ok_or_else(wrong)?;
    let (field, rest) = (&text[..end], text[end..].trim_start());
    if field.is_empty() {
        return Err(wrong());
    }
    let (operator, negated, values) = match rest {
        "exists" => (Operator::Exists, false, Vec::new()),
        "missing" | "not exists" => (Operator::Exists, true, Vec::new()),
        _ => operation(field, rest).ok_or_else(wrong)??,
    };
    let condition = Filter {
        expression: Some(Expression::Condition(Condition {
            field: field.to_owned(),
            operator: operator.into(),
            values,
        })),
    };
    Ok(if negated { Filter { expression: Some(Expression::Not(Box::new(condition))) } } else { condition })
}

type Operation = (Operator, bool, Vec<Value>);

fn operation(field: &str, rest: &str) -> Option<Result<Operation, String>> {
    for (word, negated) in [("not in", true), ("in", false)] {
        if let Some(list) =
            rest.strip_prefix(word).filter(|list| list.starts_with(|c: char| c.is_whitespace() || c == '('))
        {
            let list = list.trim().trim_start_matches('(').trim_end_matches(')');
            let values: Vec<Value> = split(list).iter().map(|item| value(field, item)).collect();
            return Some(Ok((Operator::In, negated, values)));
        }
    }
    let (symbol, operator, negated) = SYMBOLS.iter().find(|(symbol, ..)| rest.starts_with(symbol))?;
    let operand = rest[symbol.len()..].trim();
    Some(match operator {
        // Patterns are text, and their quotes part of them.
        Operator::Matches | Operator::Contains => Ok((*operator, *negated, vec![text_value(operand)])),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            match operand.parse::<f64>() {
                Ok(number) if number.is_finite() => {
                    Ok((*operator, *negated, vec![Value { kind: Some(Kind::NumberValue(number)) }]))
                }
                _ => Err(format!("`{operand}` is no number: `{symbol}` compares numbers")),
            }
        }
        Operator::In | Operator::Exists | Operator::Unspecified => {
            Ok((*operator, *negated, vec![value(field, operand)]))
        }
    })
}

/// Splits at commas outside quotes.
fn split(list: &str) -> Vec<&str> {
    let mut quoted = false;
    let separator = |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    list.split(separator).map(str::trim).filter(|item| !item.is_empty()).collect()
}

fn text_value(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// What a value is, told by its look: `10`, `true` and `null` are not text unless quoted or in a field that holds text.
fn value(field: &str, text: &str) -> Value {
    if let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return text_value(quoted);
    }
    if text == "null" {
        return Value { kind: Some(Kind::NullValue(0)) };
    }
    if TEXT_FIELDS.contains(&field) || field.starts_with("context.") {
        return text_value(text);
    }
    let kind = match text {
        "true" => Kind::BoolValue(true),
        "false" => Kind::BoolValue(false),
        _ => match number(text) {
            Some(number) => Kind::NumberValue(number),
            None => Kind::StringValue(text.to_owned()),
        },
    };
    Value { kind: Some(kind) }
}

/// A number in the form in which numbers are printed: `10`, `-0.5`; not `007` or `1e3`, which are more likely names.
pub(crate) fn number(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    (number.to_string() == text).then_some(number)
}

/// Parses tests joined by `and`, all of which must hold. A quoted value may hold the word.
pub(crate) fn parse_all(text: &str) -> Result<Filter, String> {
    let mut tests = Vec::new();
    let (mut begin, mut quoted) = (0, false);
    for (index, c) in text.char_indices() {
        quoted ^= c == '"';
        if !quoted && index >= begin && text[index..].starts_with(AND) {
            tests.push(parse(&text[begin..index])?);
            begin = index + AND.len();
        }
    }
    tests.push(parse(&text[begin..])?);
    Ok(all_of(tests).expect("there is at least one test"))
}

/// Between tests that must all hold.
const AND: &str = " and ";

/// A filter as [`parse_all`] reads it.
pub(crate) fn text(filter: &Filter) -> String {
    match &filter.expression {
        None => String::new(),
        Some(Expression::Condition(condition)) => condition_text(condition, false),
        Some(Expression::Not(inner)) => match &inner.expression {
            Some(Expression::Condition(condition)) => condition_text(condition, true),
            _ => format!("not ({})", text(inner)),
        },
        Some(Expression::AllOf(list)) => list.filters.iter().map(text).collect::<Vec<_>>().join(AND),
        Some(Expression::AnyOf(list)) => {
            format!("({})", list.filters.iter().map(text).collect::<Vec<_>>().join(" or "))
        }
    }
}

fn condition_text(condition: &Condition, negated: bool) -> String {
    let field = &condition.field;
    let is_pattern = matches!(condition.operator(), Operator::Matches | Operator::Contains);
    let values = condition.values.iter().map(|value| match &value.kind {
        // Quotes would be part of a pattern.
        Some(Kind::StringValue(text)) if is_pattern => text.clone(),
        Some(Kind::StringValue(text)) if self::value(field, text) != *value || text.contains(AND) => {
            format!("\"{text}\"")
        }
        Some(Kind::NullValue(_)) | None => "null".to_owned(),
        _ => crate::render::figure::value(value),
    });
    let values: Vec<String> = values.collect();
    match (condition.operator(), negated, values.as_slice()) {
        (Operator::Exists, false, _) => format!("{field} exists"),
        (Operator::Exists, true, _) => format!("{field} missing"),
        (Operator::In | Operator::Unspecified, _, [one]) => {
            format!("{field}{}{one}", if negated { "!=" } else { "=" })
        }
        (Operator::In | Operator::Unspecified, _, all) => {
            format!("{field} {}in {}", if negated { "not " } else { "" }, all.join(", "))
        }
        (operator, _, all) => {
            let symbol = SYMBOLS.iter().find(|(_, known, not)| *known == operator && *not == negated);
            let (symbol, prefix) = match symbol {
                Some((symbol, ..)) => (*symbol, ""),
                None => (
                    SYMBOLS
                        .iter()
                        .find(|(_, known, _)| *known == operator)
                        .map_or("=", |(symbol, ..)| symbol),
                    "not ",
                ),
            };
            format!("{prefix}{field}{symbol}{}", all.join(", "))
        }
    }
}

/// All of the tests; none for none.
pub(crate) fn all_of(mut filters: Vec<Filter>) -> Option<Filter> {
    match filters.len() {
        0 | 1 => filters.pop(),
        _ => Some(Filter { expression: Some(Expression::AllOf(FilterList { filters })) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        fn condition(filter: &Filter) -> String {
            match filter.expression.as_ref().unwrap() {
                Expression::Condition(c) => {
                    let values: Vec<String> = c
                        .values
                        .iter()
                        .map(|value| match value.kind.as_ref().unwrap() {
                            Kind::StringValue(text) => format!("{text:?}"),
                            Kind::NumberValue(number) => number.to_string(),
                            Kind::BoolValue(is) => is.to_string(),
                            _ => "null".to_owned(),
                        })
                        .collect();
                    format!("{} {} [{}]", c.field, c.operator().as_str_name(), values.join(", "))
                }
                Expression::Not(inner) => format!("not {}", condition(inner)),
                Expression::AllOf(list) => {
                    list.filters.iter().map(condition).collect::<Vec<_>>().join(" and ")
                }
                Expression::AnyOf(_) => unreachable!("never written"),
            }
        }
        condition(&parse(text).unwrap())
    }

    #[test]
    fn tests_are_read_as_they_are_written() {
        let shown: Vec<String> = [
            "platform=mobile",
            "platform != mobile",
            "properties.plan in free, pro,\"a, b\"",
            "plan not in (free,pro)",
            "price >= 10.5",
            "price<3",
            "seats=10",
            "zip=01234",
            "zip=\"10\"",
            "user_id=10",
            "context.os.version=16",
            "trial=true",
            "page ~ ^/shop/\\d+$",
            "page !~ admin",
            "name *= sub=string",
            "coupon exists",
            "coupon missing",
            "coupon=null",
            "title=a = b",
        ]
        .into_iter()
        .map(|text| format!("{text:42} {}", show(text)))
        .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        platform=mobile                            platform OPERATOR_IN ["mobile"]
        platform != mobile                         not platform OPERATOR_IN ["mobile"]
        properties.plan in free, pro,"a, b"        properties.plan OPERATOR_IN ["free", "pro", "a, b"]
        plan not in (free,pro)                     not plan OPERATOR_IN ["free", "pro"]
        price >= 10.5                              price OPERATOR_GREATER_OR_EQUAL [10.5]
        price<3                                    price OPERATOR_LESS [3]
        seats=10                                   seats OPERATOR_IN [10]
        zip=01234                                  zip OPERATOR_IN ["01234"]
        zip="10"                                   zip OPERATOR_IN ["10"]
        user_id=10                                 user_id OPERATOR_IN ["10"]
        context.os.version=16                      context.os.version OPERATOR_IN ["16"]
        trial=true                                 trial OPERATOR_IN [true]
        page ~ ^/shop/\d+$                         page OPERATOR_MATCHES ["^/shop/\\d+$"]
        page !~ admin                              not page OPERATOR_MATCHES ["admin"]
        name *= sub=string                         name OPERATOR_CONTAINS ["sub=string"]
        coupon exists                              coupon OPERATOR_EXISTS []
        coupon missing                             not coupon OPERATOR_EXISTS []
        coupon=null                                coupon OPERATOR_IN [null]
        title=a = b                                title OPERATOR_IN ["a = b"]
        "#);
    }

    #[test]
    fn tests_are_joined_and_read_back() {
        for text in [
            "platform=ios",
            "price>10 and plan in free, pro",
            "plan not in a, b",
            "name=\"this and that\"",
            "zip=\"10\"",
            "page!~admin",
            "coupon missing and page~^/shop and title*=x",
        ] {
            assert_eq!(super::text(&parse_all(text).unwrap()), text);
        }
        assert!(parse_all("a=b and").is_ok_and(|filter| super::text(&filter) == "a=b and"));
        assert!(parse_all("a=b and price").is_err());
    }

    #[test]
    fn what_is_no_test_says_what_is() {
        for text in ["", "platform", "=mobile", "platform mobile", "price<cheap", "price<NaN"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn several_tests_all_hold() {
        assert_eq!(all_of(Vec::new()), None);
        let one = parse("a=b").unwrap();
        assert_eq!(all_of(vec![one.clone()]), Some(one.clone()));
        let both = all_of(vec![one.clone(), one]).unwrap();
        assert!(matches!(both.expression, Some(Expression::AllOf(list)) if list.filters.len() == 2));
    }
}
