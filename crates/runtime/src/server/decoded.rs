//! How much memory a message takes once it is decoded, counted from its bytes before anything is built.
//!
//! Two bytes on the wire are enough for one empty element of a list, which in memory is a whole struct: 8 MiB of a request may
//! become gigabytes. [`Schema::measure`] walks the tags along the descriptors, allocates nothing but a few counters, and stops
//! at its limit. The estimate is an upper bound of what prost allocates (a test compares them): structs as prost-build lays them
//! out, lists and maps with the capacity that they grow to.

use std::collections::HashMap;

use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// Nesting beyond which nothing is measured: prost refuses messages at 100 levels.
const MAX_DEPTH: usize = 128;
/// A message that comes twice is merged, and its lists go on growing: from what each part would take alone, to twice as much, and
/// half of that again while it moves. No client writes such messages.
const MERGED: usize = 3;
/// `size_of` text and bytes in a list.
const TEXT_BYTES: usize = 32;
/// The least that an allocator hands out.
const MIN_ALLOCATION: usize = 16;
/// Entries of a node of `BTreeMap`, and what a leaf and an inner node take besides them. Of a node that is split at least five
/// stay, and one goes up.
const BTREE_ENTRIES: usize = 11;
const BTREE_LEAST: usize = 6;
const BTREE_LEAF: usize = 16;
const BTREE_INNER: usize = BTREE_LEAF + 12 * 8;

/// The messages of a descriptor set, with the sizes of their structs.
#[derive(Debug, Default)]
pub struct Schema {
    messages: Vec<Message>,
    by_name: HashMap<String, MessageId>,
}

/// One message of a [`Schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(usize);

/// A message that would take more than its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// The field within which the limit was passed: `events.properties.fields`.
    pub field: String,
}

#[derive(Debug, Default)]
struct Message {
    /// `size_of` the struct, at most.
    size: usize,
    fields: Vec<Field>,
    /// Counters of its lists and maps.
    counters: usize,
}

#[derive(Debug, Clone)]
struct Field {
    number: u32,
    name: String,
    kind: Kind,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Varint {
        size: usize,
    },
    Fixed {
        size: usize,
    },
    Text,
    Message(MessageId),
    /// prost refuses the groups of proto2 in our schemas; none has any.
    Group,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    /// On the heap, since its type contains itself.
    Boxed,
    List {
        counter: usize,
    },
    Map {
        counter: usize,
        entry: usize,
        ordered: bool,
    },
}

impl Schema {
    /// Reads the descriptors.
    pub fn new(descriptors: &FileDescriptorSet) -> Self {
        let mut protos = Vec::new();
        for file in &descriptors.file {
            let package = file.package().to_owned();
            file.message_type.iter().for_each(|message| collect(&package, message, &mut protos));
        }
        let by_name: HashMap<_, _> =
            protos.iter().enumerate().map(|(at, (name, _))| (name.clone(), MessageId(at))).collect();
        let layout = Layout { protos: &protos, by_name: &by_name };
        let messages = (0..protos.len()).map(|at| layout.message(MessageId(at))).collect();
        Self { messages, by_name }
    }

    /// The message of this full name, without a leading dot.
    pub fn message(&self, name: &str) -> Option<MessageId> {
        self.by_name.get(name.trim_start_matches('.')).copied()
    }

    /// The bytes of memory that decoding takes at most. A message that does not decode is measured up to its fault.
    ///
    /// # Errors
    /// [`Exceeded`] as soon as it is more than `limit`.
    pub fn measure(&self, message: MessageId, bytes: &[u8], limit: usize) -> Result<usize, Exceeded> {
        let mut walk = Walk { schema: self, limit, total: 0, largest: 0, factor: 1, counters: Vec::new() };
        walk.add(self.messages[message.0].size).map_err(|()| Exceeded { field: String::new() })?;
        match walk.message(message, &mut &*bytes, 0, 0) {
            Ok(_) => Ok(walk.sum()),
            Err(mut names) => {
                names.reverse();
                Err(Exceeded { field: names.join(".") })
            }
        }
    }
}

fn collect<'a>(scope: &str, message: &'a DescriptorProto, into: &mut Vec<(String, &'a DescriptorProto)>) {
    let name =
        if scope.is_empty() { message.name().to_owned() } else { format!("{scope}.{}", message.name()) };
    message.nested_type.iter().for_each(|nested| collect(&name, nested, into));
    into.push((name, message));
}

/// The structs as prost-build generates them.
struct Layout<'a> {
    protos: &'a [(String, &'a DescriptorProto)],
    by_name: &'a HashMap<String, MessageId>,
}

impl Layout<'_> {
    fn message(&self, id: MessageId) -> Message {
        let mut counters = 0;
        let mut next = || {
            counters += 1;
            counters - 1
        };
        let proto = self.protos[id.0].1;
        let fields = proto.field.iter().map(|field| {
            let kind = self.kind(field);
            let shape = match (self.map_entry(field), field.label()) {
                (Some(entry), _) => Shape::Map {
                    counter: next(),
                    entry: self.entry_size(entry),
                    ordered: self.is_ordered(id),
                },
                (None, Label::Repeated) => Shape::List { counter: next() },
                (None, Label::Optional | Label::Required) if self.is_boxed(id, field) => Shape::Boxed,
                (None, Label::Optional | Label::Required) => Shape::Single,
            };
            Field { number: field.number().unsigned_abs(), name: field.name().to_owned(), kind, shape }
        });
        let mut fields: Vec<Field> = fields.collect();
        fields.sort_by_key(|field| field.number);
        Message { size: self.inline_size(id), fields, counters }
    }

    fn kind(&self, field: &FieldDescriptorProto) -> Kind {
        match field.r#type() {
            Type::Double | Type::Fixed64 | Type::Sfixed64 => Kind::Fixed { size: 8 },
            Type::Float | Type::Fixed32 | Type::Sfixed32 => Kind::Fixed { size: 4 },
            Type::Int64 | Type::Uint64 | Type::Sint64 => Kind::Varint { size: 8 },
            Type::Int32 | Type::Uint32 | Type::Sint32 | Type::Enum => Kind::Varint { size: 4 },
            Type::Bool => Kind::Varint { size: 1 },
            Type::String | Type::Bytes => Kind::Text,
            Type::Message => self.target(field).map_or(Kind::Group, Kind::Message),
            Type::Group => Kind::Group,
        }
    }

    fn target(&self, field: &FieldDescriptorProto) -> Option<MessageId> {
        self.by_name.get(field.type_name().trim_start_matches('.')).copied()
    }

    fn map_entry(&self, field: &FieldDescriptorProto) -> Option<MessageId> {
        let target = self.target(field)?;
        let is_entry = self.protos[target.0].1.options.as_ref().is_some_and(|options| options.map_entry());
        is_entry.then_some(target)
    }

    /// As prost-build decides: the field's type leads back to the message through fields that are no lists.
    fn is_boxed(&self, container: MessageId, field: &FieldDescriptorProto) -> bool {
        let Some(start) = self.target(field) else { return false };
        let (mut seen, mut open) = (vec![false; self.protos.len()], vec![start]);
        while let Some(at) = open.pop() {
            if at == container {
                return true;
            }
            if !std::mem::replace(&mut seen[at.0], true) {
                let single =
                    self.protos[at.0].1.field.iter().filter(|field| field.label() != Label::Repeated);
                open.extend(single.filter_map(|field| self.target(field)));
            }
        }
        false
    }

    /// `size_of` the struct, at most. Fields are ordered by the compiler, so that only the end is padded.
    fn inline_size(&self, id: MessageId) -> usize {
        let proto = self.protos[id.0].1;
        let mut oneofs = vec![0; proto.oneof_decl.len()];
        let mut size = 0;
        for field in &proto.field {
            let own = self.field_size(id, field);
            let is_message = matches!(self.kind(field), Kind::Message(_)) && field.label() != Label::Repeated;
            match field.oneof_index {
                Some(oneof) if !field.proto3_optional() => {
                    let largest = &mut oneofs[oneof as usize];
                    *largest = own.max(*largest);
                }
                // Whether there is a value takes a word, where the value has no spare bits for it.
                _ if is_message && self.is_plain(field) => size += own + 8,
                _ if field.proto3_optional() => size += (own * 2).min(own + 8),
                _ => size += own,
            }
        }
        size += oneofs.iter().filter(|own| **own > 0).map(|own| own.next_multiple_of(8) + 8).sum::<usize>();
        size.next_multiple_of(8)
    }

    /// `size_of` the value of a field within its struct.
    fn field_size(&self, container: MessageId, field: &FieldDescriptorProto) -> usize {
        match self.kind(field) {
            _ if self.map_entry(field).is_some() && !self.is_ordered(container) => 48,
            _ if field.label() == Label::Repeated => 24,
            _ if self.is_boxed(container, field) => 8,
            Kind::Varint { size } | Kind::Fixed { size } => size,
            // `bytes::Bytes` is the larger of the two forms that bytes have; text has only one.
            Kind::Text if field.r#type() == Type::Bytes => 32,
            Kind::Text => 24,
            Kind::Message(inner) => self.inline_size(inner),
            Kind::Group => 0,
        }
    }

    /// A key and its value in a map.
    fn entry_size(&self, entry: MessageId) -> usize {
        let fields = self.protos[entry.0].1.field.iter();
        fields.map(|field| self.field_size(entry, field).next_multiple_of(8)).sum()
    }

    /// Whether every pattern of a message's bits is a value: numbers, and the root of a `BTreeMap`.
    fn is_plain(&self, field: &FieldDescriptorProto) -> bool {
        let Some(message) = self.target(field) else { return true };
        self.protos[message.0].1.field.iter().all(|field| match self.kind(field) {
            _ if self.map_entry(field).is_some() => self.is_ordered(message),
            _ if field.label() == Label::Repeated => false,
            _ if field.proto3_optional() || field.oneof_index.is_some() => false,
            Kind::Varint { size } => size > 1,
            Kind::Fixed { .. } => true,
            Kind::Text | Kind::Message(_) | Kind::Group => false,
        })
    }

    /// Whether the maps of a message are `BTreeMap`s, as those of `prost_types` are.
    fn is_ordered(&self, message: MessageId) -> bool {
        self.protos[message.0].0.starts_with("google.protobuf.")
    }
}

struct Walk<'a> {
    schema: &'a Schema,
    limit: usize,
    total: usize,
    /// The largest list or map, of which there are two while it grows.
    largest: usize,
    /// 1, or [`MERGED`] once a message was merged into another.
    factor: usize,
    counters: Vec<usize>,
}

/// The names of the fields around the one that went beyond the limit, innermost first.
type Names<'a> = Vec<&'a str>;

impl<'a> Walk<'a> {
    fn add(&mut self, bytes: usize) -> Result<(), ()> {
        self.total = self.total.saturating_add(bytes);
        if self.sum() > self.limit { Err(()) } else { Ok(()) }
    }

    fn sum(&self) -> usize {
        self.total.saturating_mul(self.factor).saturating_add(self.largest)
    }

    /// What a list or map takes when it grows from its first half.
    fn grow(&mut self, bytes: usize) -> Result<(), ()> {
        self.largest = self.largest.max(bytes);
        self.add(bytes.max(MIN_ALLOCATION))
    }

    /// The fields of a message until `rest` bytes remain. `false` when the bytes are no such message: prost stops there, too. Like
    /// prost, this finds out only behind it that a field is longer than the message around it.
    fn message(
        &mut self,
        id: MessageId,
        bytes: &mut &[u8],
        rest: usize,
        depth: usize,
    ) -> Result<bool, Names<'a>> {
        if depth > MAX_DEPTH {
            return Ok(false);
        }
        let schema = self.schema;
        let message = &schema.messages[id.0];
        let base = self.counters.len();
        self.counters.resize(base + message.counters, 0);
        let mut seen = 0_u64;
        while bytes.len() > rest {
            let Some((number, wire)) = next(bytes) else { return Ok(false) };
            let Ok(at) = message.fields.binary_search_by_key(&number, |field| field.number) else {
                if let Wire::Length(length) = wire {
                    *bytes = &bytes[length..];
                }
                continue;
            };
            let field = &message.fields[at];
            if let (Kind::Message(_), Shape::Single | Shape::Boxed) = (field.kind, field.shape) {
                let bit = 1 << (at % 64);
                if seen & bit != 0 {
                    self.factor = MERGED;
                }
                seen |= bit;
            }
            match self.field(field, wire, bytes, base, depth) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(mut names) => {
                    names.push(&field.name);
                    return Err(names);
                }
            }
        }
        self.counters.truncate(base);
        Ok(bytes.len() == rest)
    }

    fn field(
        &mut self,
        field: &'a Field,
        wire: Wire,
        bytes: &mut &[u8],
        base: usize,
        depth: usize,
    ) -> Result<bool, Names<'a>> {
        let is_list = matches!(field.shape, Shape::List { .. });
        match (field.kind, wire) {
            (Kind::Varint { size }, Wire::Varint) => self.one(field, base, size)?,
            (Kind::Fixed { size }, Wire::Fixed(width)) if width == size => self.one(field, base, size)?,
            (Kind::Text, Wire::Length(length)) => {
                self.one(field, base, TEXT_BYTES)?;
                self.add(length.next_multiple_of(MIN_ALLOCATION)).map_err(|()| Vec::new())?;
                *bytes = &bytes[length..];
            }
            (Kind::Message(inner), Wire::Length(length)) => {
                self.one(field, base, self.schema.messages[inner.0].size)?;
                let rest = bytes.len() - length;
                return self.message(inner, bytes, rest, depth + 1);
            }
            (Kind::Varint { size }, Wire::Length(length)) if is_list => {
                // The last byte of a varint has no continuation bit; one may be cut off.
                let (packed, rest) = bytes.split_at(length);
                let cut = packed.last().is_some_and(|byte| *byte >= 0x80);
                let count = packed.iter().filter(|byte| **byte < 0x80).count() + usize::from(cut);
                self.items(field, base, size, count)?;
                *bytes = rest;
                return Ok(!cut);
            }
            (Kind::Fixed { size }, Wire::Length(length)) if is_list => {
                self.items(field, base, size, length.div_ceil(size))?;
                *bytes = &bytes[length..];
                return Ok(length % size == 0);
            }
            (Kind::Varint { .. } | Kind::Fixed { .. } | Kind::Text | Kind::Message(_) | Kind::Group, _) => {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One value of a field, of this size in a list.
    fn one(&mut self, field: &Field, base: usize, size: usize) -> Result<(), Names<'a>> {
        match field.shape {
            Shape::Single => Ok(()),
            Shape::Boxed => self.add(size).map_err(|()| Vec::new()),
            Shape::List { .. } => self.items(field, base, size, 1),
            Shape::Map { counter, entry, ordered } => {
                let count = &mut self.counters[base + counter];
                *count += 1;
                let bytes = if ordered { btree_growth(*count, entry) } else { hash_growth(*count, entry) };
                if bytes == 0 { Ok(()) } else { self.grow(bytes).map_err(|()| Vec::new()) }
            }
        }
    }

    /// More items of a list: what its capacity grows by.
    fn items(&mut self, field: &Field, base: usize, size: usize, more: usize) -> Result<(), Names<'a>> {
        let Shape::List { counter } = field.shape else { return Ok(()) };
        let before = self.counters[base + counter];
        let after = before + more;
        self.counters[base + counter] = after;
        let added = list_capacity(after, size) - list_capacity(before, size);
        if added == 0 { Ok(()) } else { self.grow(added * size).map_err(|()| Vec::new()) }
    }
}

/// The capacity that `Vec` has grown to.
fn list_capacity(items: usize, size: usize) -> usize {
    let least = match size {
        0..=1 => 8,
        2..=1024 => 4,
        _ => 1,
    };
    if items == 0 { 0 } else { items.next_power_of_two().max(least) }
}

/// What a `BTreeMap` allocates at most for its `count`th entry.
fn btree_growth(count: usize, entry: usize) -> usize {
    let leaf = BTREE_ENTRIES * entry + BTREE_LEAF;
    let inner = BTREE_ENTRIES * entry + BTREE_INNER;
    match count {
        1 => leaf,
        // The leaf is split under a root.
        12 => leaf + inner,
        // An inner node has at least as many leaves as a leaf has entries.
        13.. if count.is_multiple_of(BTREE_LEAST) => leaf + inner / BTREE_LEAST,
        _ => 0,
    }
}

/// What a `HashMap` allocates for its `count`th entry: tables of a power of two, full at seven eighths, of which the last one
/// lives on while the next is filled.
fn hash_growth(count: usize, entry: usize) -> usize {
    let table = |buckets: usize| buckets * (entry + 1) + 32;
    match count {
        1 => table(4),
        4 => table(8),
        _ if count > 7 && (count - 1).is_multiple_of(7) && ((count - 1) / 7).is_power_of_two() => {
            table((count - 1) / 7 * 16)
        }
        _ => 0,
    }
}

#[derive(Debug, Clone, Copy)]
enum Wire {
    Varint,
    Fixed(usize),
    /// So many bytes follow; they are there.
    Length(usize),
    Group,
}

/// Takes the number and form of the next field, and its value unless it has a length; `None` when there is none.
fn next(bytes: &mut &[u8]) -> Option<(u32, Wire)> {
    let key = varint(bytes)?;
    let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
    let wire = match key & 7 {
        0 => {
            varint(bytes)?;
            Wire::Varint
        }
        1 => fixed(bytes, 8)?,
        2 => Wire::Length(usize::try_from(varint(bytes)?).ok().filter(|length| *length <= bytes.len())?),
        3 => {
            skip_group(bytes, number)?;
            Wire::Group
        }
        5 => fixed(bytes, 4)?,
        _ => return None,
    };
    Some((number, wire))
}

fn fixed(bytes: &mut &[u8], width: usize) -> Option<Wire> {
    *bytes = bytes.get(width..)?;
    Some(Wire::Fixed(width))
}

/// Groups are nobody's field here: over their end, without recursion.
fn skip_group(bytes: &mut &[u8], number: u32) -> Option<()> {
    let mut open = vec![number];
    while let Some(innermost) = open.last().copied() {
        if open.len() > MAX_DEPTH {
            return None;
        }
        let key = varint(bytes)?;
        let number = u32::try_from(key >> 3).ok()?;
        match key & 7 {
            0 => {
                varint(bytes)?;
            }
            1 => *bytes = bytes.get(8..)?,
            2 => {
                let length = usize::try_from(varint(bytes)?).ok()?;
                *bytes = bytes.get(length..)?;
            }
            3 => open.push(number),
            4 if number == innermost => {
                open.pop();
            }
            5 => *bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}
