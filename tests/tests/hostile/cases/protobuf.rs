//! Hostile Protobuf messages of a given type: floods of small elements, nesting without end, lying lengths, damaged bytes.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use rand::{Rng as _, RngCore as _, rngs::StdRng};

use super::{MAX_BODY, mutate, size};

/// Levels of messages that a path to a repeated field may have.
const MAX_PATH: usize = 6;

/// An encoded message, or something that looks like one.
pub(super) fn message(rng: &mut StdRng, descriptor: &MessageDescriptor) -> (&'static str, Vec<u8>) {
    match rng.random_range(0..8) {
        0..3 => ("flood", flood(rng, descriptor)),
        3 => ("nesting", nesting(rng, descriptor)),
        4 => ("lies", lies(rng)),
        5 => {
            let mut bytes = vec![0; size(rng, 1, 4096)];
            rng.fill_bytes(&mut bytes);
            ("random bytes", bytes)
        }
        _ => {
            let mut bytes = plain(rng, descriptor, 4);
            if rng.random() {
                mutate(rng, &mut bytes);
                return ("damaged message", bytes);
            }
            ("random message", bytes)
        }
    }
}

/// A message whose fields have random values of their types.
pub(super) fn plain(rng: &mut StdRng, descriptor: &MessageDescriptor, depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in descriptor.fields() {
        let times = match rng.random_range(0..4) {
            0 if field.is_list() || field.is_map() => rng.random_range(0..20),
            0 | 1 => 1,
            _ => 0,
        };
        for _ in 0..times {
            element(rng, &field, depth, &mut bytes);
        }
    }
    bytes
}

/// One value of a field with its tag.
fn element(rng: &mut StdRng, field: &FieldDescriptor, depth: usize, bytes: &mut Vec<u8>) {
    let number = field.number();
    match field.kind() {
        Kind::Message(inner) => {
            let inner = if depth == 0 { Vec::new() } else { plain(rng, &inner, depth - 1) };
            nested(number, &inner, bytes);
        }
        Kind::String | Kind::Bytes => {
            let text = text(rng);
            nested(number, text.as_bytes(), bytes);
        }
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
            tag(number, 1, bytes);
            let value: f64 =
                [0.0, -0.0, 1.5, f64::NAN, f64::INFINITY, f64::MAX, 1e300][rng.random_range(0..7)];
            bytes.extend(value.to_le_bytes());
        }
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
            tag(number, 5, bytes);
            bytes.extend(rng.random::<u32>().to_le_bytes());
        }
        _ => {
            tag(number, 0, bytes);
            let value = match rng.random_range(0..4) {
                0 => rng.random::<u64>(),
                1 => u64::MAX,
                2 => i64::MIN as u64,
                _ => rng.random_range(0..100),
            };
            varint(value, bytes);
        }
    }
}

/// A short text, some of them hard to handle.
pub(super) fn text(rng: &mut StdRng) -> String {
    match rng.random_range(0..12) {
        0 => String::new(),
        1 => "\u{200b}\u{a0} \t".to_owned(),
        2 => "\0\u{1b}[31m\u{7f}".to_owned(),
        3 => "\u{202e}txet".to_owned(),
        4 => "x".repeat(size(rng, 100, 100_000)),
        5 => "(a+)+$".repeat(rng.random_range(1..50)),
        6 => "\u{1f4a9}".repeat(rng.random_range(1..300)),
        7 => "' or 1=1 --".to_owned(),
        8 => "../../../etc/passwd".to_owned(),
        9 => rng.random::<u64>().to_string(),
        _ => ["catalog", "purchase", "view", "properties.platform", "UTC", "platform"]
            [rng.random_range(0..6)]
        .to_owned(),
    }
}

/// As many elements of a repeated field as fit, at the end of a random path.
fn flood(rng: &mut StdRng, descriptor: &MessageDescriptor) -> Vec<u8> {
    let Some(path) = repeated(rng, descriptor) else { return plain(rng, descriptor, 3) };
    let bytes_left = size(rng, 1000, MAX_BODY);
    let (last, parents) = path.split_last().expect("a path has a field");
    let mut one = Vec::new();
    if rng.random() && matches!(last.kind(), Kind::Message(_)) {
        nested(last.number(), &[], &mut one);
    } else {
        element(rng, last, 1, &mut one);
    }
    let mut bytes = one.repeat((bytes_left / one.len()).max(1));
    if !matches!(last.kind(), Kind::Message(_) | Kind::String | Kind::Bytes) && rng.random() {
        bytes = Vec::new();
        nested(last.number(), &vec![1; bytes_left], &mut bytes);
    }
    for field in parents.iter().rev() {
        let mut outer = Vec::with_capacity(bytes.len() + 8);
        nested(field.number(), &bytes, &mut outer);
        bytes = outer;
    }
    bytes
}

/// Fields that lead from a message to a repeated one, which is the last.
fn repeated(rng: &mut StdRng, descriptor: &MessageDescriptor) -> Option<Vec<FieldDescriptor>> {
    for _ in 0..20 {
        let (mut path, mut at) = (Vec::new(), descriptor.clone());
        for _ in 0..MAX_PATH {
            let fields: Vec<_> = at.fields().collect();
            if fields.is_empty() {
                break;
            }
            let field = fields[rng.random_range(0..fields.len())].clone();
            let is_end = (field.is_list() || field.is_map()) && rng.random_range(0..3) > 0;
            path.push(field.clone());
            if is_end {
                return Some(path);
            }
            let Kind::Message(inner) = field.kind() else { break };
            at = inner;
        }
    }
    None
}

/// The same field within itself, or a length-delimited field 1 within itself, again and again.
fn nesting(rng: &mut StdRng, descriptor: &MessageDescriptor) -> Vec<u8> {
    // Structs nest as 1 (fields) → 2 (value) → 5 (struct) or 6 (list) → 1 (values).
    let numbers: Vec<u32> = match rng.random_range(0..3) {
        0 => vec![1],
        1 => vec![1, 2, 5],
        _ => vec![1, 6],
    };
    let mut bytes = Vec::new();
    for level in 0..size(rng, 10, 3000) {
        let mut outer = Vec::with_capacity(bytes.len() + 8);
        nested(numbers[level % numbers.len()], &bytes, &mut outer);
        bytes = outer;
    }
    let properties = descriptor.fields().find(|field| matches!(field.kind(), Kind::Message(_)));
    let mut outer = Vec::new();
    nested(properties.map_or(1, |field| field.number()), &bytes, &mut outer);
    outer
}

/// Tags and lengths that can't be.
fn lies(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    match rng.random_range(0..6) {
        // A length beyond the end, up to what overflows.
        0 => {
            tag(1, 2, &mut bytes);
            varint([u64::MAX, 1 << 31, 1 << 32, (1 << 63) - 1, 1000][rng.random_range(0..5)], &mut bytes);
        }
        // Varints without end.
        1 => bytes = vec![0xff; size(rng, 1, MAX_BODY)],
        // Groups, opened and never closed.
        2 => bytes = vec![0x0b; size(rng, 1, MAX_BODY)],
        // Field number zero.
        3 => bytes = vec![0, 1],
        // Unknown fields, as many as fit.
        4 => {
            let mut one = Vec::new();
            tag(rng.random_range(1000..100_000), 0, &mut one);
            varint(1, &mut one);
            bytes = one.repeat(size(rng, 10, MAX_BODY / 8));
        }
        // The same singular message again and again: decoders merge them.
        _ => {
            let mut one = Vec::new();
            nested(1, &[0x12, 1, b'e', 0x22, 1, b'u'], &mut one);
            bytes = one.repeat(size(rng, 10, MAX_BODY / 16));
        }
    }
    bytes
}

fn tag(number: u32, wire: u8, bytes: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | u64::from(wire), bytes);
}

/// A length-delimited field.
pub(super) fn nested(number: u32, inner: &[u8], bytes: &mut Vec<u8>) {
    tag(number, 2, bytes);
    varint(inner.len() as u64, bytes);
    bytes.extend(inner);
}

fn varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
