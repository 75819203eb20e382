//! ProtoJSON straight into the wire format, without a message in between.
//!
//! A tree of dynamic values takes hundreds of bytes for each number of a list. Here messages, lists of them and the JSON-like
//! types (`google.protobuf.Struct`) are written as they are read, so that no more is held than the result, which has a limit.
//! Scalars, lists of them and the other well-known types have their forms from `prost_reflect`, one field at a time.

use std::{borrow::Cow, collections::HashSet, fmt};

use prost::{
    Message as _,
    encoding::{encode_varint, encoded_len_varint},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
    value::MapAccessDeserializer,
};

use super::shortened;

/// Fields of `google.protobuf.Value`, `Struct` (an entry with a key and a value) and `ListValue`.
const NULL: u32 = 1;
const NUMBER: u32 = 2;
const TEXT: u32 = 3;
const BOOL: u32 = 4;
const STRUCT: u32 = 5;
const LIST: u32 = 6;
const ENTRY: u32 = 1;
const KEY: u32 = 1;
const VALUE: u32 = 2;
const ITEM: u32 = 1;

/// Wire types.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;

/// Encoded bytes, up to a limit.
#[derive(Debug)]
pub(crate) struct Wire {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Wire {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, full: false }
    }

    /// Whether the limit was what ended it.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn check<E: Error>(&mut self) -> Result<(), E> {
        self.full = self.bytes.len() > self.limit;
        if self.full { Err(E::custom("too large")) } else { Ok(()) }
    }

    fn tag(&mut self, number: u32, wire: u32) {
        encode_varint(u64::from(number << 3 | wire), &mut self.bytes);
    }

    fn text<E: Error>(&mut self, number: u32, text: &str) -> Result<(), E> {
        self.tag(number, LENGTH);
        encode_varint(text.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(text.as_bytes());
        self.check()
    }

    /// A field with the length of what `content` writes.
    pub(crate) fn nested<T, E: Error>(
        &mut self,
        number: u32,
        content: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.tag(number, LENGTH);
        let start = self.bytes.len();
        // Most contents are short. Those of 128 bytes and more are moved on once for their length.
        self.bytes.push(0);
        let value = content(self)?;
        let length = (self.bytes.len() - start - 1) as u64;
        if length < 0x80 {
            self.bytes[start] = length as u8;
        } else {
            let mut prefix = Vec::with_capacity(encoded_len_varint(length));
            encode_varint(length, &mut prefix);
            self.bytes.splice(start..=start, prefix);
        }
        self.check()?;
        Ok(value)
    }

    fn message<E: Error>(&mut self, message: &DynamicMessage) -> Result<(), E> {
        message.encode_raw(&mut self.bytes);
        self.check()
    }
}

/// A message of this type, without its length.
pub(crate) struct Message<'a> {
    pub(crate) descriptor: &'a MessageDescriptor,
    pub(crate) wire: &'a mut Wire,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.descriptor.full_name() {
            "google.protobuf.Struct" => deserializer.deserialize_map(JsonObject(self.wire)),
            "google.protobuf.ListValue" => deserializer.deserialize_seq(JsonList(self.wire)),
            "google.protobuf.Value" => deserializer.deserialize_any(JsonValue(self.wire)),
            name if name.starts_with("google.protobuf.") => {
                let message = self.descriptor.clone().deserialize(deserializer)?;
                self.wire.message(&message)
            }
            _ => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { descriptor, wire } = self;
        let (mut named, mut given): (Vec<FieldDescriptor>, Vec<FieldDescriptor>) = (Vec::new(), Vec::new());
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let field =
                descriptor.get_field_by_json_name(&key).or_else(|| descriptor.get_field_by_name(&key));
            let Some(field) = field else {
                return Err(A::Error::custom(format!("unrecognized field name '{}'", shortened(&key))));
            };
            if named.contains(&field) {
                return Err(A::Error::custom(format!("'{}' is given twice", shortened(&key))));
            }
            named.push(field.clone());
            let is_message = matches!(field.kind(), Kind::Message(_)) && !field.is_map();
            let present = if is_message {
                map.next_value_seed(MessageField { field: &field, wire })?
            } else {
                let one =
                    MapAccessDeserializer::new(OneField { name: Some(field.json_name()), map: &mut map });
                let message = descriptor.clone().deserialize(one)?;
                wire.message(&message)?;
                message.has_field(&field)
            };
            if !present {
                continue;
            }
            if let Some(oneof) = field.containing_oneof()
                && oneof.fields().any(|other| given.contains(&other))
            {
                return Err(A::Error::custom(format!(
                    "multiple fields provided for oneof '{}'",
                    oneof.name()
                )));
            }
            given.push(field);
        }
        Ok(())
    }
}

/// One entry of a map, as if it were all of it.
struct OneField<'a, A> {
    name: Option<&'a str>,
    map: &'a mut A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OneField<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.name.take().map(|name| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A message or a list of them; whether there is one.
struct MessageField<'a> {
    field: &'a FieldDescriptor,
    wire: &'a mut Wire,
}

impl MessageField<'_> {
    fn descriptor(&self) -> MessageDescriptor {
        let Kind::Message(descriptor) = self.field.kind() else { unreachable!("the field holds messages") };
        descriptor
    }
}

impl<'de> DeserializeSeed<'de> for MessageField<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for MessageField<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.field.is_list() { "a list" } else { "a map" })
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        self.visit_none()
    }

    fn visit_none<E: Error>(self) -> Result<bool, E> {
        let is_value = !self.field.is_list() && self.descriptor().full_name() == "google.protobuf.Value";
        if is_value {
            self.wire.nested(self.field.number(), |wire| JsonValue(wire).visit_unit::<E>())?;
        }
        Ok(is_value)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        if self.field.is_list() {
            return deserializer.deserialize_any(MessageList(self)).map(|()| true);
        }
        let descriptor = self.descriptor();
        self.wire.nested(self.field.number(), |wire| {
            Message { descriptor: &descriptor, wire }.deserialize(deserializer)
        })?;
        Ok(true)
    }
}

struct MessageList<'a>(MessageField<'a>);

impl<'de> Visitor<'de> for MessageList<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let descriptor = self.0.descriptor();
        let MessageField { field, wire } = self.0;
        loop {
            // Written before it is known whether there is another item, and taken back at the end.
            let before = wire.bytes.len();
            let item = Item { descriptor: &descriptor, number: field.number(), wire };
            if items.next_element_seed(item)?.is_none() {
                wire.bytes.truncate(before);
                return Ok(());
            }
        }
    }
}

struct Item<'a> {
    descriptor: &'a MessageDescriptor,
    number: u32,
    wire: &'a mut Wire,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { descriptor, number, wire } = self;
        wire.nested(number, |wire| Message { descriptor, wire }.deserialize(deserializer))
    }
}

/// The content of a `google.protobuf.Struct`.
struct JsonObject<'a>(&'a mut Wire);

impl<'de> Visitor<'de> for JsonObject<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(wire) = self;
        let mut given = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            wire.nested(ENTRY, |wire| {
                wire.text(KEY, &key)?;
                map.next_value_seed(NestedValue { number: VALUE, wire })
            })?;
            // The last one would win without a word.
            if let Some(key) = given.replace(key) {
                return Err(A::Error::custom(format!("{:?} is given twice", shortened(&key))));
            }
        }
        Ok(())
    }
}

/// The content of a `google.protobuf.ListValue`.
struct JsonList<'a>(&'a mut Wire);

impl<'de> Visitor<'de> for JsonList<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(NestedValue { number: ITEM, wire: self.0 })?.is_some() {}
        Ok(())
    }
}

/// A field that holds a `google.protobuf.Value`.
struct NestedValue<'a> {
    number: u32,
    wire: &'a mut Wire,
}

impl<'de> DeserializeSeed<'de> for NestedValue<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.wire.nested(self.number, |wire| deserializer.deserialize_any(JsonValue(wire)))
    }
}

/// The content of a `google.protobuf.Value`.
struct JsonValue<'a>(&'a mut Wire);

impl<'de> Visitor<'de> for JsonValue<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0.tag(NULL, VARINT);
        self.0.bytes.push(0);
        self.0.check()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.0.tag(BOOL, VARINT);
        self.0.bytes.push(u8::from(value));
        self.0.check()
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match value as f64 {
            number if number as i128 == i128::from(value) => self.visit_f64(number),
            // Numbers here are doubles. What is not exact in one is an identifier, and must not become another one.
            _ => self.visit_str(&value.to_string()),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match value as f64 {
            number if number as u128 == u128::from(value) => self.visit_f64(number),
            _ => self.visit_str(&value.to_string()),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.tag(NUMBER, FIXED64);
        self.0.bytes.extend_from_slice(&value.to_le_bytes());
        self.0.check()
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.0.text(TEXT, value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        self.0.nested(LIST, |wire| JsonList(wire).visit_seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.nested(STRUCT, |wire| JsonObject(wire).visit_map(map))
    }
}
