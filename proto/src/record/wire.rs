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

/// Reads one message. Nested messages get a cursor of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    /// What is left of the message.
    rest: &'a [u8],
    /// Where the message ends, in bytes from the start of the record's value.
    end: usize,
    /// How many more levels may be entered.
    depth: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self { rest: value, end: value.len(), depth: MAX_DEPTH }
    }

    /// What is left of the message.
    #[inline(always)]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[cold]
    fn malformed(&self, fault: Fault) -> Malformed {
        Malformed { position: self.end - self.rest.len(), fault }
    }

    /// The next field's key; `None` at the end of the message.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<Option<Key>> {
        let key = match self.rest {
            [] => return Ok(None),
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                u32::from(*first)
            }
            _ => {
                let before = *self;
                u32::try_from(self.long_varint()?).map_err(|_| before.malformed(Fault::Key))?
            }
        };
        let (tag, wire) = (key >> 3, key & 7);
        if tag == 0 || wire > FIXED32 {
            return Err(self.malformed(Fault::Key));
        }
        Ok(Some(Key { tag, wire }))
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                if i == 9 && byte > 1 {
                    return Err(self.malformed(Fault::Varint));
                }
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(self.malformed(if self.rest.len() < 10 { Fault::Truncated } else { Fault::Varint }))
    }

    #[inline(always)]
    fn expect(&self, key: Key, wire: u32) -> Result<()> {
        if key.wire == wire { Ok(()) } else { Err(self.malformed(Fault::WireType)) }
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
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.malformed(Fault::Truncated))?;
        self.rest = rest;
        Ok(f64::from_le_bytes(*bytes))
    }

    #[inline(always)]
    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        if len > self.rest.len() as u64 {
            return Err(self.malformed(Fault::Truncated));
        }
        let (taken, rest) = self.rest.split_at(len as usize);
        self.rest = rest;
        Ok(taken)
    }

    #[inline(always)]
    pub(super) fn string(&mut self, key: Key) -> Result<&'a str> {
        self.expect(key, BYTES)?;
        let len = self.varint()?;
        let before = *self;
        let bytes = self.take(len)?;
        if is_ascii(bytes) {
            // SAFETY: ASCII is UTF-8.
            return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
        }
        std::str::from_utf8(bytes).map_err(|e| {
            let start = before.malformed(Fault::Utf8);
            Malformed { position: start.position + e.valid_up_to(), ..start }
        })
    }

    #[inline(always)]
    pub(super) fn bytes(&mut self, key: Key) -> Result<&'a [u8]> {
        self.expect(key, BYTES)?;
        let len = self.varint()?;
        self.take(len)
    }

    /// Enters a message field and leaves this cursor behind it.
    #[inline(always)]
    pub(super) fn message(&mut self, key: Key) -> Result<Cursor<'a>> {
        self.expect(key, BYTES)?;
        if self.depth == 0 {
            return Err(self.malformed(Fault::Depth));
        }
        let len = self.varint()?;
        let rest = self.take(len)?;
        Ok(Cursor { rest, end: self.end - self.rest.len(), depth: self.depth - 1 })
    }

    /// Passes over a field that the schema does not have.
    #[cold]
    pub(super) fn skip(&mut self, key: Key) -> Result<()> {
        self.skip_at(key, self.depth)
    }

    fn skip_at(&mut self, key: Key, depth: u32) -> Result<()> {
        if depth == 0 {
            return Err(self.malformed(Fault::Depth));
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
                    None => return Err(self.malformed(Fault::Truncated)),
                    Some(inner) if inner.wire != GROUP_END => self.skip_at(inner, depth - 1)?,
                    Some(inner) if inner.tag == key.tag => return Ok(()),
                    Some(_) => return Err(self.malformed(Fault::Group)),
                }
            },
            _ => Err(self.malformed(Fault::Group)),
        }
    }
}

/// Whether all bytes are ASCII: eight at a time, the last eight overlapping. Most strings are short and ASCII, where the
/// general check costs three times as much.
#[inline(always)]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().fold(0, |all, byte| all | byte) < 0x80;
    };
    let words = bytes.as_chunks::<8>().0.iter().chain([last]);
    words.fold(0, |all, word| all | u64::from_ne_bytes(*word)) & HIGH == 0
}
