//! Hostile JSON bodies for a message: floods of small elements, nesting, repeated keys, numbers and texts that don't fit.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use rand::{Rng as _, RngCore as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{MAX_BODY, mutate, protobuf, size};

/// A body in JSON, or nearly so.
pub(super) fn body(rng: &mut StdRng, descriptor: &MessageDescriptor) -> (&'static str, Vec<u8>) {
    match rng.random_range(0..10) {
        0..3 => ("JSON flood", flood(rng, descriptor)),
        3 => ("JSON nesting", nesting(rng)),
        4 => ("JSON oddities", odd(rng, descriptor)),
        5 => {
            let mut bytes = vec![0; size(rng, 1, 4096)];
            rng.fill_bytes(&mut bytes);
            ("JSON random bytes", bytes)
        }
        6 => ("JSON lines", lines(rng)),
        _ => {
            let mut bytes = plain(rng, descriptor, 4).to_string().into_bytes();
            if rng.random() {
                mutate(rng, &mut bytes);
                return ("JSON damaged", bytes);
            }
            ("JSON random message", bytes)
        }
    }
}

/// A message whose fields have random values, most of them of their types.
fn plain(rng: &mut StdRng, descriptor: &MessageDescriptor, depth: usize) -> Value {
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => return json!(protobuf::text(rng)),
        "google.protobuf.Duration" => return json!(format!("{}s", rng.random_range(-10..100_000))),
        "google.protobuf.Value" | "google.protobuf.Struct" | "google.protobuf.ListValue" => {
            return json!({"a": rng.random::<f64>(), "b": [null, {}, [true]]});
        }
        _ => {}
    }
    let mut object = serde_json::Map::new();
    for field in descriptor.fields() {
        if rng.random_range(0..3) > 0 {
            continue;
        }
        let value = if field.is_list() {
            (0..rng.random_range(0..5)).map(|_| value(rng, &field, depth)).collect()
        } else {
            value(rng, &field, depth)
        };
        let name = if rng.random() { field.json_name() } else { field.name() };
        object.insert(name.to_owned(), value);
    }
    object.into()
}

fn value(rng: &mut StdRng, field: &FieldDescriptor, depth: usize) -> Value {
    match field.kind() {
        _ if rng.random_range(0..20) == 0 => {
            [json!(null), json!([]), json!({}), json!(-1), json!("x"), json!(1e300), json!(true)]
                [rng.random_range(0..7)]
            .clone()
        }
        Kind::Message(inner) if depth > 0 => plain(rng, &inner, depth - 1),
        Kind::Message(_) => json!({}),
        Kind::String | Kind::Bytes => json!(protobuf::text(rng)),
        Kind::Bool => json!(rng.random::<bool>()),
        Kind::Enum(kind) => {
            let values: Vec<_> = kind.values().collect();
            json!(values[rng.random_range(0..values.len())].name())
        }
        Kind::Double | Kind::Float => json!(rng.random::<f64>()),
        _ => json!(rng.random_range(0..2000)),
    }
}

/// An array of as many small elements as fit, under one of the message's lists or within properties.
fn flood(rng: &mut StdRng, descriptor: &MessageDescriptor) -> Vec<u8> {
    let lists: Vec<_> = descriptor.fields().filter(|field| field.is_list()).collect();
    let element = ["{}", "0", "[]", "null", "\"\"", "{\"a\":{}}", "[[]]", "1e1", "{\"eventName\":\"a\"}"]
        [rng.random_range(0..9)];
    let bytes = size(rng, 1000, MAX_BODY);
    let all = vec![element; bytes / (element.len() + 1) + 1].join(",");
    let path = match rng.random_range(0..4) {
        0 if !lists.is_empty() => lists[rng.random_range(0..lists.len())].json_name().to_owned(),
        1 => "events".to_owned(),
        2 => return format!("{{\"properties\":{{\"a\":[{all}]}}}}").into_bytes(),
        _ => {
            // Keys instead of elements.
            let keys = bytes / 12 + 1;
            let all = (0..keys).map(|n| format!("\"k{n}\":0")).collect::<Vec<_>>().join(",");
            return format!("{{\"eventName\":\"a\",\"userId\":\"u\",\"properties\":{{{all}}}}}").into_bytes();
        }
    };
    format!("{{\"{path}\":[{all}]}}").into_bytes()
}

fn nesting(rng: &mut StdRng) -> Vec<u8> {
    let levels = size(rng, 10, 1 << 20);
    let (open, close) =
        [("[", "]"), ("{\"a\":", "}"), ("{\"not\":", "}"), ("[{\"a\":", "}]")][rng.random_range(0..4)];
    let tail = if rng.random() { close.repeat(levels) } else { String::new() };
    let all = format!("{}1{tail}", open.repeat(levels));
    let key = ["properties", "filter", "event"][rng.random_range(0..3)];
    if rng.random() { format!("{{\"{key}\":{all}}}").into_bytes() } else { all.into_bytes() }
}

/// Texts that parsers disagree about.
fn odd(rng: &mut StdRng, descriptor: &MessageDescriptor) -> Vec<u8> {
    let odd = [
        "{\"properties\":{\"a\":1,\"a\":2}}".to_owned(),
        "{\"userId\":\"a\",\"user_id\":\"b\"}".to_owned(),
        format!("{{\"sequence\":{}}}", "9".repeat(size(rng, 1, 1 << 20))),
        format!("{{\"properties\":{{\"a\":1e{}}}}}", "9".repeat(size(rng, 1, 1000))),
        format!("{{\"properties\":{{\"a\":0.{}1}}}}", "0".repeat(size(rng, 1, 1 << 20))),
        "{\"properties\":{\"a\":\"\\ud800\"}}".to_owned(),
        "{\"eventName\":\"\\u0000\"}".to_owned(),
        "\u{feff}{}".to_owned(),
        format!("{}{{}}", " ".repeat(size(rng, 1, MAX_BODY))),
        format!("{{\"{}\":1}}", "k".repeat(size(rng, 1, MAX_BODY))),
        "{} {}".to_owned(),
        "NaN".to_owned(),
        "{\"eventTime\":\"2026-02-30T25:61:61Z\"}".to_owned(),
        "{\"eventTime\":\"-999999999-01-01T00:00:00Z\"}".to_owned(),
        format!("{{\"properties\":{{\"a\":\"{}\"}}}}", "\\n".repeat(size(rng, 1, MAX_BODY / 2))),
    ];
    let text = odd[rng.random_range(0..odd.len())].clone();
    // In place of the message, or of its first message field.
    let inner = descriptor.fields().find(|field| matches!(field.kind(), Kind::Message(_)));
    match inner {
        Some(field) if rng.random() => format!("{{\"{}\":{text}}}", field.json_name()).into_bytes(),
        _ => text.into_bytes(),
    }
}

/// Lines as uploads have them, many or long.
fn lines(rng: &mut StdRng) -> Vec<u8> {
    let line = [
        "{}\n".to_owned(),
        "\n".to_owned(),
        "{\"eventName\":\"a\",\"userId\":\"u\"}\n".to_owned(),
        format!("{{\"eventName\":\"{}\"}}\n", "a".repeat(size(rng, 1, 1 << 20))),
        "[1,\r\n".to_owned(),
        "\0\n".to_owned(),
    ];
    let line = &line[rng.random_range(0..line.len())];
    line.repeat(size(rng, 1, MAX_BODY) / line.len() + 1).into_bytes()
}
