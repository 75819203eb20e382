//! The Protobuf wire format, borrowed: keys, varints, lengths and the skipping of what is not known.
//!
//! The rules are prost's to the letter, so that a record is accepted here exactly when every other reader accepts it; a
//! differential test holds the two together.

use std::fmt;

/// How deep messages and groups may nest: prost's `RECURSION_LIMIT`.
const MAX_DEPTH: u32 = 100;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where reading failed: bytes from the start of the record's value.
    pub position: usize,
    /// What was found there.
    pub fault: Fault,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The value or its message ends before the field does.
    Truncated,
    /// A varint has more than 64 bits.
    Varint,
    /// A key has field number 0, more than 32 bits or an unknown wire type.
    Key,
    /// A known field has another wire type than its schema says.
    WireType,
    /// A group ends that was not begun.
    Group,
    /// A string is not UTF-8.
    Utf8,
    /// Messages nest too deep.
    Depth,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            Fault::Truncated => "the field is cut short",
            Fault::Varint => "a varint is longer than 64 bits",
            Fault::Key => "not a field key",
            Fault::WireType => "a known field has the wrong wire type",
            Fault::Group => "a group ends that was not begun",
            Fault::Utf8 => "a string is not UTF-8",
            Fault::Depth => "messages nest too deep",
        };
        write!(f, "{fault}, at byte {}", self.position)
    }
}

impl std::error::Error for Malformed {}

type Result<T> = std::result::Result<T, Malformed>;

/// The wire types of a field key.
pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const BYTES: u32 = 2;
pub(super) const GROUP: u32 = 3;
pub(super) const GROUP_END: u32 = 4;
pub(super) const FIXED32: u32 = 5;

/// A field's key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) tag: u32,
    pub(super) wire: u32,
}

/// Reads one message. Nested messages get a cursor of their own over the same buffer, so positions stay absolute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    /// The record's value up to the end of this message.
    buffer: &'a [u8],
    position: usize,
    /// How many more levels may be entered.
    depth: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self { buffer: value, position: 0, depth: MAX_DEPTH }
    }

    #[inline(always)]
    fn malformed<T>(&self, fault: Fault) -> Result<T> {
        Err(Malformed { position: self.position, fault })
    }

    /// The next field's key; `None` at the end of the message.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<Option<Key>> {
        let Some(&first) = self.buffer.get(self.position) else { return Ok(None) };
        let key = if first < 0x80 {
            self.position += 1;
            u32::from(first)
        } else {
            let start = self.position;
            match u32::try_from(self.varint()?) {
                Ok(key) => key,
                Err(_) => return Err(Malformed { position: start, fault: Fault::Key }),
            }
        };
        let (tag, wire) = (key >> 3, key & 7);
        if tag == 0 || wire > FIXED32 {
            return self.malformed(Fault::Key);
        }
        Ok(Some(Key { tag, wire }))
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64> {
        match self.buffer.get(self.position) {
            Some(&byte) if byte < 0x80 => {
                self.position += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64> {
        let rest = &self.buffer[self.position..];
        let mut value = 0;
        for (i, &byte) in rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                if i == 9 && byte > 1 {
                    return self.malformed(Fault::Varint);
                }
                self.position += i + 1;
                return Ok(value);
            }
        }
        self.malformed(if rest.len() < 10 { Fault::Truncated } else { Fault::Varint })
    }

    #[inline(always)]
    pub(super) fn expect(&self, key: Key, wire: u32) -> Result<()> {
        if key.wire == wire { Ok(()) } else { self.malformed(Fault::WireType) }
    }

    /// A varint field. The caller narrows it as its type says, dropping high bits.
    #[inline(always)]
    pub(super) fn integer(&mut self, key: Key) -> Result<u64> {
        self.expect(key, VARINT)?;
        self.varint()
    }

    #[inline(always)]
    pub(super) fn double(&mut self, key: Key) -> Result<f64> {
        self.expect(key, FIXED64)?;
        Ok(f64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken")))
    }

    #[inline(always)]
    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let rest = &self.buffer[self.position..];
        if len > rest.len() as u64 {
            return self.malformed(Fault::Truncated);
        }
        self.position += len as usize;
        Ok(&rest[..len as usize])
    }

    #[inline(always)]
    pub(super) fn string(&mut self, key: Key) -> Result<&'a str> {
        self.expect(key, BYTES)?;
        let len = self.varint()?;
        let start = self.position;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes)
            .map_err(|e| Malformed { position: start + e.valid_up_to(), fault: Fault::Utf8 })
    }

    /// Enters a message field and leaves this cursor behind it.
    #[inline(always)]
    pub(super) fn message(&mut self, key: Key) -> Result<Cursor<'a>> {
        self.expect(key, BYTES)?;
        self.message_whatever_the_key()
    }

    /// The same for an entry of a map, whose wire type prost does not look at.
    #[inline(always)]
    pub(super) fn message_whatever_the_key(&mut self) -> Result<Cursor<'a>> {
        if self.depth == 0 {
            return self.malformed(Fault::Depth);
        }
        let len = self.varint()?;
        let start = self.position;
        self.take(len)?;
        Ok(Cursor { buffer: &self.buffer[..self.position], position: start, depth: self.depth - 1 })
    }

    /// Passes over a field that the schema does not have.
    #[cold]
    pub(super) fn skip(&mut self, key: Key) -> Result<()> {
        self.skip_at(key, self.depth)
    }

    fn skip_at(&mut self, key: Key, depth: u32) -> Result<()> {
        if depth == 0 {
            return self.malformed(Fault::Depth);
        }
        match key.wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            FIXED32 => self.take(4).map(drop),
            BYTES => {
                let len = self.varint()?;
                self.take(len).map(drop)
            }
            GROUP => loop {
                match self.key()? {
                    None => return self.malformed(Fault::Truncated),
                    Some(inner) if inner.wire != GROUP_END => self.skip_at(inner, depth - 1)?,
                    Some(inner) if inner.tag == key.tag => return Ok(()),
                    Some(_) => return self.malformed(Fault::Group),
                }
            },
            _ => self.malformed(Fault::Group),
        }
    }
}
