//! `event.v1.EventRecord`, read in place: one pass over the bytes, nothing copied.
//!
//! The whole record is checked, not only what somebody uses, and accepted exactly when prost accepts it. So what counts as
//! malformed depends on the bytes alone: deduplication, which must decide the same after any restart, rests on that. What is
//! read is what prost reads, too: parts of messages merge, and the last of several values counts.

#[cfg(test)]
mod tests;
mod wire;

use prost::Message;
use prost_types::Timestamp;

pub use wire::{Fault, Malformed};

use wire::{Cursor, Key};

type Result<T> = std::result::Result<T, Malformed>;

/// What an event has one of, borrowed from the record. Text that is absent is empty, as in Protobuf.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Event<'a> {
    /// The project it belongs to.
    pub project: &'a str,
    /// When the producer received it, microseconds since the Unix epoch.
    pub receive_time_micros: i64,
    /// When it happened by the server's clock, microseconds since the Unix epoch.
    pub corrected_time_micros: i64,
    /// The deduplication key.
    pub event_id: &'a str,
    /// What happened.
    pub event_name: &'a str,
    /// `event.v1.EventType` by number; numbers of newer schemas pass.
    pub event_type: i32,
    /// The signed-in user.
    pub user_id: &'a str,
    /// The visitor before signing in.
    pub anonymous_id: &'a str,
    /// The visit.
    pub session_id: &'a str,
    /// The installation.
    pub install_id: &'a str,
    /// Number within the installation; 0 when there is none.
    pub sequence: u64,
    /// When it happened by the client's clock.
    pub event_time: Option<Timestamp>,
    /// Money earned.
    pub revenue: Option<Money<'a>>,
    /// `EventRecord.import_id`; empty for a live event.
    pub import_id: &'a [u8],
    /// Where its context and properties lie in the [`Parts`] with which it was read.
    pub parts: Span,
}

impl<'a> Event<'a> {
    /// Whether it belongs to an import.
    #[inline]
    pub fn is_import(&self) -> bool {
        !self.import_id.is_empty()
    }

    /// The import that it belongs to, when that has an identifier.
    #[inline]
    pub fn import(&self) -> Option<&'a [u8; 16]> {
        if self.import_id.is_empty() {
            return None;
        }
        self.import_id.try_into().ok().filter(|id: &&[u8; 16]| **id != [0; 16])
    }
}

/// A `google.type.Money`, unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Money<'a> {
    /// ISO 4217 code.
    pub currency: &'a str,
    /// Whole units.
    pub units: i64,
    /// Billionths of a unit.
    pub nanos: i32,
}

impl Money<'_> {
    /// Whether it is an empty message, which some clients send for "no revenue".
    pub fn is_empty(&self) -> bool {
        *self == Money::default()
    }
}

/// The value of a property.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Null, or nothing at all.
    Null,
    /// A text.
    Text(&'a str),
    /// A number, finite or not.
    Number(f64),
    /// A boolean.
    Boolean(bool),
    /// A list or a struct.
    Nested(Nested<'a>),
}

/// A list or a struct, not read yet: the bytes of its entry in the map of properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nested<'a>(&'a [u8]);

impl<'a> Nested<'a> {
    /// The value at a path of keys joined by dots, such as `address.city`; `None` where there is none or a list is on the way.
    pub fn get(self, path: &str) -> Option<Value<'a>> {
        let (wanted, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
        let mut found = None;
        let mut entry = Cursor::new(self.0);
        while let Some(key) = entry.key().ok()? {
            if key.tag != 2 {
                entry.skip(key).ok()?;
                continue;
            }
            let mut value = entry.message(key).ok()?;
            while let Some(key) = value.key().ok()? {
                if key.tag != 5 {
                    // Of several kinds the last counts.
                    if (1..=6).contains(&key.tag) {
                        found = None;
                    }
                    value.skip(key).ok()?;
                    continue;
                }
                let mut fields = value.message(key).ok()?;
                while let Some(key) = fields.key().ok()? {
                    if key.tag != 1 {
                        fields.skip(key).ok()?;
                        continue;
                    }
                    let (name, value) = read_entry(fields.message(key).ok()?).ok()?;
                    if name == wanted {
                        found = Some(value);
                    }
                }
            }
        }
        match (found, rest) {
            (Some(Value::Nested(nested)), Some(rest)) => nested.get(rest),
            (found, None) => found,
            (_, Some(_)) => None,
        }
    }

    /// The value, copied.
    pub fn read(self) -> prost_types::Value {
        let entry = Entry::decode(self.0).expect("it was checked by the rules that prost follows");
        entry.value.unwrap_or_default()
    }
}

/// An entry of `google.protobuf.Struct.fields`, as far as it matters for [`Nested`].
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(message, optional, tag = "2")]
    value: Option<prost_types::Value>,
}

/// What an event has any number of. Holds the parts of many events, one after the other, so that its room is used again.
#[derive(Debug, Default)]
pub struct Parts<'a> {
    context: Vec<(Place, &'a str)>,
    properties: Vec<(&'a str, Value<'a>)>,
}

/// Where a text lies in `event.v1.Context`: its field number there and, for one of a message within, that of the text in the
/// message, else 0.
pub type Place = (u8, u8);

/// Where an event's parts lie in [`Parts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    context: (u32, u32),
    properties: (u32, u32),
}

impl<'a> Parts<'a> {
    /// The texts of an event's context by their places, ascending and each once. Empty ones count as absent.
    pub fn context(&self, event: &Event<'_>) -> &[(Place, &'a str)] {
        let (start, end) = event.parts.context;
        &self.context[start as usize..end as usize]
    }

    /// An event's properties by their keys, ascending and each once.
    pub fn properties(&self, event: &Event<'_>) -> &[(&'a str, Value<'a>)] {
        let (start, end) = event.parts.properties;
        &self.properties[start as usize..end as usize]
    }

    /// Forgets the parts of all events.
    pub fn clear(&mut self) {
        self.context.clear();
        self.properties.clear();
    }
}

/// Reads one record's value and adds its event's parts to `parts`.
///
/// # Errors
/// [`Malformed`] when it is not an `EventRecord`, with the position.
pub fn read<'a>(value: &'a [u8], parts: &mut Parts<'a>) -> Result<Event<'a>> {
    let starts = (parts.context.len(), parts.properties.len());
    let mut event = Event::default();
    let mut record = Cursor::new(value);
    while let Some(key) = record.key()? {
        match key.tag {
            1 => event.project = record.string(key)?,
            2 => event.receive_time_micros = record.integer(key)?.cast_signed(),
            3 => event.corrected_time_micros = record.integer(key)?.cast_signed(),
            4 => read_event(record.message(key)?, &mut event, parts)?,
            5 => event.import_id = record.bytes(key)?,
            _ => record.skip(key)?,
        }
    }
    event.parts = Span {
        context: settle(&mut parts.context, starts.0),
        properties: settle(&mut parts.properties, starts.1),
    };
    Ok(event)
}

/// Brings the parts from `start` on into ascending order, which nearly all records have, and keeps the last of those with the same
/// key; returns where they begin and end.
#[inline]
fn settle<K: Ord + Copy, V: Copy>(parts: &mut Vec<(K, V)>, start: usize) -> (u32, u32) {
    if !parts[start..].is_sorted_by(|a, b| a.0 < b.0) {
        parts[start..].sort_by_key(|part| part.0);
        let mut end = start;
        for index in start..parts.len() {
            let is_last = parts.get(index + 1).is_none_or(|next| next.0 != parts[index].0);
            if is_last {
                parts[end] = parts[index];
                end += 1;
            }
        }
        parts.truncate(end);
    }
    let place =
        |index| u32::try_from(index).expect("records that are read together are far smaller than 4 GB");
    (place(start), place(parts.len()))
}

fn read_event<'a>(mut c: Cursor<'a>, event: &mut Event<'a>, parts: &mut Parts<'a>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => event.event_id = c.string(key)?,
            2 => event.event_name = c.string(key)?,
            3 => event.event_type = c.integer(key)? as i32,
            4 => event.user_id = c.string(key)?,
            5 => event.anonymous_id = c.string(key)?,
            6 => event.session_id = c.string(key)?,
            7 => event.install_id = c.string(key)?,
            8 => event.sequence = c.integer(key)?,
            9 => read_seconds_and_nanos(c.message(key)?, event.event_time.get_or_insert_default())?,
            10 | 11 => read_seconds_and_nanos(c.message(key)?, &mut Timestamp::default())?,
            12 => read_properties(c.message(key)?, &mut parts.properties)?,
            13 => read_money(c.message(key)?, event.revenue.get_or_insert_default())?,
            14 => read_context(c.message(key)?, &mut parts.context)?,
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

/// `google.protobuf.Timestamp` and `Duration`.
fn read_seconds_and_nanos(mut c: Cursor<'_>, time: &mut Timestamp) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => time.seconds = c.integer(key)?.cast_signed(),
            2 => time.nanos = c.integer(key)? as i32,
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

fn read_money<'a>(mut c: Cursor<'a>, money: &mut Money<'a>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => money.currency = c.string(key)?,
            2 => money.units = c.integer(key)?.cast_signed(),
            3 => money.nanos = c.integer(key)? as i32,
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

fn read_context<'a>(mut c: Cursor<'a>, texts: &mut Vec<(Place, &'a str)>) -> Result<()> {
    while let Some(key) = c.key()? {
        // The number of string fields of each message in `event.v1.Context`; 0 where the field is a string itself.
        let strings = match key.tag {
            1 | 2 | 5 => 3,
            3 => 2,
            7 => 5,
            4 | 6 | 8 | 9 => 0,
            _ => {
                c.skip(key)?;
                continue;
            }
        };
        if strings == 0 {
            texts.push(((key.tag as u8, 0), c.string(key)?));
        } else {
            let mut inner = c.message(key)?;
            while let Some(field) = inner.key()? {
                if field.tag <= strings {
                    texts.push(((key.tag as u8, field.tag as u8), inner.string(field)?));
                } else {
                    inner.skip(field)?;
                }
            }
        }
    }
    Ok(())
}

/// The `google.protobuf.Struct` of properties.
fn read_properties<'a>(mut c: Cursor<'a>, properties: &mut Vec<(&'a str, Value<'a>)>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => properties.push(read_entry(c.message(key)?)?),
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

/// An entry of `Struct.fields`.
fn read_entry<'a>(mut c: Cursor<'a>) -> Result<(&'a str, Value<'a>)> {
    let nested = Nested(c.rest());
    let (mut name, mut value) = ("", Value::Null);
    while let Some(key) = c.key()? {
        match key.tag {
            1 => name = c.string(key)?,
            2 => read_value(c.message(key)?, nested, &mut value)?,
            _ => c.skip(key)?,
        }
    }
    Ok((name, value))
}

/// `google.protobuf.Value`: of several kinds the last counts. `nested` is what stands for a list or a struct.
fn read_value<'a>(mut c: Cursor<'a>, nested: Nested<'a>, value: &mut Value<'a>) -> Result<()> {
    while let Some(key) = c.key()? {
        match read_kind(&mut c, key, nested)? {
            Some(kind) => *value = kind,
            None => c.skip(key)?,
        }
    }
    Ok(())
}

#[inline(always)]
fn read_kind<'a>(c: &mut Cursor<'a>, key: Key, nested: Nested<'a>) -> Result<Option<Value<'a>>> {
    Ok(Some(match key.tag {
        1 => {
            c.integer(key)?;
            Value::Null
        }
        2 => Value::Number(c.double(key)?),
        3 => Value::Text(c.string(key)?),
        4 => Value::Boolean(c.integer(key)? != 0),
        5 => {
            check_struct(c.message(key)?)?;
            Value::Nested(nested)
        }
        6 => {
            check_list(c.message(key)?)?;
            Value::Nested(nested)
        }
        _ => return Ok(None),
    }))
}

fn check_struct(mut c: Cursor<'_>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => drop(read_entry(c.message(key)?)?),
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

fn check_list(mut c: Cursor<'_>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => read_value(c.message(key)?, Nested(&[]), &mut Value::Null)?,
            _ => c.skip(key)?,
        }
    }
    Ok(())
}
