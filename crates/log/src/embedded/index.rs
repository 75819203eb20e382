//! The sparse index of a segment, and the summary that stands at its head. Pure.
//!
//! Beside each `<first offset>.log` lies `<first offset>.index`, written when the segment is sealed or the log closed. It
//! can always be rebuilt from the segment, so it is neither synced nor trusted: a checksum guards it, and it says up to
//! which length of the segment it holds.

use super::frame::Header;
use crate::Offset;

const MAGIC: u32 = u32::from_le_bytes(*b"WIX1");
const SUMMARY: usize = 44;
const ENTRY: usize = 24;

/// What is known of a segment without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Offset of the first record; the file is named for it.
    pub(super) base: Offset,
    /// Offset after the last one.
    pub(super) next: Offset,
    /// Bytes.
    pub(super) len: u64,
    /// Append time of the last record; `i64::MIN` while there is none.
    pub(super) last_time_ms: i64,
}

/// A place where a frame starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset of the frame's first record.
    pub(super) offset: Offset,
    /// Position in the file.
    pub(super) position: u64,
    /// Append time of the frame.
    pub(super) time_ms: i64,
}

/// A segment's summary and its places, every so many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) segment: Segment,
    places: Vec<Place>,
}

impl Index {
    /// The index of an empty segment that starts at `base`.
    pub(super) fn empty(base: Offset) -> Self {
        Self { segment: Segment { base, next: base, len: 0, last_time_ms: i64::MIN }, places: Vec::new() }
    }

    /// Takes note of the frame that follows.
    pub(super) fn push(&mut self, header: &Header, interval: u64) {
        let position = self.segment.len;
        if self.places.last().is_none_or(|last| position - last.position >= interval) {
            self.places.push(Place { offset: header.first, position, time_ms: header.append_time_ms });
        }
        self.segment.len += header.len() as u64;
        self.segment.next = header.next();
        self.segment.last_time_ms = header.append_time_ms;
    }

    /// Append time of the first record, if there is one.
    pub(super) fn first_time_ms(&self) -> Option<i64> {
        self.places.first().map(|p| p.time_ms)
    }

    /// The position of a frame at or before the one that holds `offset`.
    pub(super) fn before_offset(&self, offset: Offset) -> u64 {
        let after = self.places.partition_point(|p| p.offset <= offset);
        after.checked_sub(1).map_or(0, |i| self.places[i].position)
    }

    /// The position of a frame at or before the first one that was appended at or after `time_ms`.
    pub(super) fn before_time(&self, time_ms: i64) -> u64 {
        let after = self.places.partition_point(|p| p.time_ms < time_ms);
        after.checked_sub(1).map_or(0, |i| self.places[i].position)
    }

    /// The bytes of the index file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let s = &self.segment;
        let mut bytes = Vec::with_capacity(SUMMARY + self.places.len() * ENTRY + 4);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        for field in [s.base, s.next, s.len, s.last_time_ms as u64, self.places.len() as u64] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        for p in &self.places {
            for field in [p.offset, p.position, p.time_ms as u64] {
                bytes.extend_from_slice(&field.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads an index file; `None` when it is not a whole, undamaged one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        if content.len() < SUMMARY || crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (magic, fields) = content.split_first_chunk::<4>()?;
        let (fields, rest) = fields.as_chunks::<8>();
        if u32::from_le_bytes(*magic) != MAGIC || !rest.is_empty() {
            return None;
        }
        let mut fields = fields.iter().map(|f| u64::from_le_bytes(*f));
        let mut field = || fields.next();
        let segment =
            Segment { base: field()?, next: field()?, len: field()?, last_time_ms: field()? as i64 };
        let count = field()?;
        if content.len() != SUMMARY + usize::try_from(count).ok()?.checked_mul(ENTRY)? {
            return None;
        }
        let mut places = Vec::with_capacity(count as usize);
        for _ in 0..count {
            places.push(Place { offset: field()?, position: field()?, time_ms: field()? as i64 });
        }
        Some(Self { segment, places })
    }
}
