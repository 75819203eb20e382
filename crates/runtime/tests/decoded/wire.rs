//! Random messages on the wire, made from descriptors: valid, but of any shape that the wire format allows.

use std::collections::HashMap;

use prost::encoding::encode_varint;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use rand::{Rng as _, rngs::StdRng};

/// The text of a decoding error and its places, which is no part of the message.
pub(crate) const ERROR_BYTES: usize = 1_000;

/// Levels that are still filled.
const MAX_LEVELS: usize = 8;

pub(crate) struct Generator<'a> {
    messages: HashMap<String, &'a DescriptorProto>,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(set: &'a FileDescriptorSet) -> Self {
        let mut messages = HashMap::new();
        for file in &set.file {
            for message in &file.message_type {
                collect(file.package(), message, &mut messages);
            }
        }
        Self { messages }
    }

    pub(crate) fn message(&self, name: &str, dice: &mut StdRng) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Mostly small; now and then one with long lists.
        let budget = [50, 500, 5_000, 40_000][dice.random_range(0..4)];
        self.fill(name, dice, budget, 0, &mut bytes);
        bytes
    }

    fn fill(&self, name: &str, dice: &mut StdRng, budget: usize, level: usize, bytes: &mut Vec<u8>) {
        let message = self.messages[name.trim_start_matches('.')];
        let end = bytes.len() + budget;
        for _ in 0..dice.random_range(0..8) {
            if message.field.is_empty() || bytes.len() >= end {
                return;
            }
            let field = &message.field[dice.random_range(0..message.field.len())];
            let repeated = field.label() == Label::Repeated;
            let count = match dice.random_range(0..6) {
                _ if !repeated => 1,
                0 => budget / 2,
                1 => 40,
                _ => dice.random_range(1..13),
            };
            let each = budget / count.max(1);
            for _ in 0..count {
                if bytes.len() >= end {
                    return;
                }
                self.value(field, dice, each, level, bytes);
            }
        }
        if dice.random_range(0..8) == 0 {
            // A field that nobody knows.
            encode_varint(1_000 << 3, bytes);
            encode_varint(dice.random(), bytes);
        }
    }

    fn value(
        &self,
        field: &FieldDescriptorProto,
        dice: &mut StdRng,
        budget: usize,
        level: usize,
        bytes: &mut Vec<u8>,
    ) {
        let tag = |wire: u64| (field.number() as u64) << 3 | wire;
        match field.r#type() {
            Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                encode_varint(tag(1), bytes);
                bytes.extend_from_slice(&dice.random::<u64>().to_le_bytes());
            }
            Type::Float | Type::Fixed32 | Type::Sfixed32 => {
                encode_varint(tag(5), bytes);
                bytes.extend_from_slice(&dice.random::<u32>().to_le_bytes());
            }
            Type::String | Type::Bytes => {
                let length = [0, 1, 15, 17, budget.min(3_000)][dice.random_range(0..5)];
                encode_varint(tag(2), bytes);
                encode_varint(length as u64, bytes);
                bytes.extend((0..length).map(|_| dice.random_range(b'a'..=b'z')));
            }
            Type::Message | Type::Group => {
                let mut inner = Vec::new();
                if level < MAX_LEVELS && budget > 0 {
                    self.fill(field.type_name(), dice, budget, level + 1, &mut inner);
                }
                encode_varint(tag(2), bytes);
                encode_varint(inner.len() as u64, bytes);
                bytes.extend_from_slice(&inner);
            }
            Type::Int64
            | Type::Uint64
            | Type::Sint64
            | Type::Int32
            | Type::Uint32
            | Type::Sint32
            | Type::Enum
            | Type::Bool => {
                if field.label() == Label::Repeated && dice.random() {
                    let count = dice.random_range(0..=budget.max(1));
                    encode_varint(tag(2), bytes);
                    encode_varint(count as u64, bytes);
                    bytes.extend((0..count).map(|_| dice.random_range(0..0x80_u8)));
                    return;
                }
                encode_varint(tag(0), bytes);
                encode_varint(u64::from(dice.random::<u8>()) >> dice.random_range(0..8), bytes);
            }
        }
    }
}

fn collect<'a>(scope: &str, message: &'a DescriptorProto, into: &mut HashMap<String, &'a DescriptorProto>) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, into);
    }
    into.insert(name, message);
}
