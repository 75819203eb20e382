//! The bytes of a segment: frames of records. Pure.
//!
//! A frame is what recovery keeps or drops as a whole. All integers are little-endian.
//!
//! ```text
//! crc32c u32 │ body length u32 │ first offset u64 │ append time i64 (ms) │ records u32 │ synced u32 │ body
//! body = records × (key length u32 │ value length u32 │ headers length u32 │ key │ value │ headers)
//! headers = (name length u32 │ value length u32 │ name │ value)*
//! ```
//! The checksum covers everything after itself. `synced` is the length of the segment that was known to be durable
//! when the frame was written: a damaged byte below the `synced` of any later frame had been acknowledged, so it is
//! damage and not the torn end of an interrupted write.

use std::ops::Range;

use crate::{Offset, Record, RecordBatchBuilder};

/// Bytes before the body.
pub(super) const HEADER: usize = 32;
const RECORD_HEADER: usize = 12;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) crc: u32,
    pub(super) body: u32,
    pub(super) first: Offset,
    pub(super) append_time_ms: i64,
    pub(super) records: u32,
    pub(super) synced: u32,
}

impl Header {
    /// Reads a header; `None` when there are fewer than [`HEADER`] bytes.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let h: &[u8; HEADER] = bytes.first_chunk()?;
        Some(Self {
            crc: u32_at(h, 0),
            body: u32_at(h, 4),
            first: u64_at(h, 8),
            append_time_ms: u64_at(h, 16) as i64,
            records: u32_at(h, 24),
            synced: u32_at(h, 28),
        })
    }

    /// Bytes of the whole frame.
    pub(super) fn len(&self) -> usize {
        HEADER + self.body as usize
    }

    /// The offset after the frame's last record.
    pub(super) fn next(&self) -> Offset {
        self.first.saturating_add(u64::from(self.records))
    }
}

/// What the bytes at some position are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A frame with a good checksum.
    Frame(Header),
    /// The beginning of what may be a frame of this many bytes.
    Short(usize),
    /// No frame, and why.
    Bad(&'static str),
}

/// Looks at the frame that starts at `bytes[0]`.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some(header) = Header::parse(bytes) else { return Parsed::Short(HEADER) };
    // Zeroes are what a file system leaves of a write that never came to be.
    if header.records == 0 {
        return Parsed::Bad("there is no frame");
    }
    if bytes.len() < header.len() {
        return Parsed::Short(header.len());
    }
    if crc32c::crc32c(&bytes[4..header.len()]) != header.crc {
        return Parsed::Bad("the checksum does not match");
    }
    Parsed::Frame(header)
}

/// Bytes that a record takes in a frame.
pub(super) fn record_len(record: &Record) -> u64 {
    (RECORD_HEADER + record.key.len() + record.value.len() + headers_len(record)) as u64
}

fn headers_len(record: &Record) -> usize {
    record.headers.iter().map(|(name, value)| 8 + name.len() + value.len()).sum()
}

/// Writes frames one after another into a buffer.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    buffer: Vec<u8>,
    frames: Vec<(usize, Header)>,
    next: Offset,
    append_time_ms: i64,
    synced: u32,
}

impl Encoder {
    /// A frame is closed once its body has this many bytes: large enough that its header costs nothing, small enough
    /// that a reader who begins in its middle skips little.
    const FRAME_BODY: usize = 128 << 10;
    /// A buffer that grew beyond this is given back after use.
    const KEPT_BUFFER: usize = 1 << 20;

    /// Begins anew: the first record gets `next`, all get `append_time_ms`.
    pub(super) fn start(&mut self, next: Offset, append_time_ms: i64, synced: u64) {
        self.buffer.clear();
        self.buffer.shrink_to(Self::KEPT_BUFFER);
        self.frames.clear();
        self.next = next;
        self.append_time_ms = append_time_ms;
        self.synced = u32::try_from(synced).expect("a segment is shorter than 4 GiB");
    }

    /// The offset that the next record gets.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// Adds a record.
    pub(super) fn push(&mut self, record: &Record) {
        let start = match self.frames.last() {
            Some((start, _)) if self.buffer.len() - start < HEADER + Self::FRAME_BODY => *start,
            Some(_) | None => self.begin_frame(),
        };
        let buffer = &mut self.buffer;
        for length in [record.key.len(), record.value.len(), headers_len(record)] {
            buffer.extend_from_slice(&(length as u32).to_le_bytes());
        }
        buffer.extend_from_slice(&record.key);
        buffer.extend_from_slice(&record.value);
        for (name, value) in &record.headers {
            buffer.extend_from_slice(&(name.len() as u32).to_le_bytes());
            buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
            buffer.extend_from_slice(name.as_bytes());
            buffer.extend_from_slice(value);
        }
        let (_, header) = self.frames.last_mut().expect("a frame was begun");
        header.records += 1;
        header.body = (buffer.len() - start - HEADER) as u32;
        self.next += 1;
    }

    fn begin_frame(&mut self) -> usize {
        let start = self.buffer.len();
        self.buffer.resize(start + HEADER, 0);
        let header = Header {
            crc: 0,
            body: 0,
            first: self.next,
            append_time_ms: self.append_time_ms,
            records: 0,
            synced: self.synced,
        };
        self.frames.push((start, header));
        start
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Closes the frames: the bytes to write, and where in them each frame starts.
    pub(super) fn finish(&mut self) -> (&[u8], &[(usize, Header)]) {
        for (start, header) in &mut self.frames {
            let frame = &mut self.buffer[*start..*start + header.len()];
            frame[4..8].copy_from_slice(&header.body.to_le_bytes());
            frame[8..16].copy_from_slice(&header.first.to_le_bytes());
            frame[16..24].copy_from_slice(&header.append_time_ms.to_le_bytes());
            frame[24..28].copy_from_slice(&header.records.to_le_bytes());
            frame[28..32].copy_from_slice(&header.synced.to_le_bytes());
            header.crc = crc32c::crc32c(&frame[4..]);
            frame[..4].copy_from_slice(&header.crc.to_le_bytes());
        }
        (&self.buffer, &self.frames)
    }
}

/// Lists the records from offset `from` on of the checked frame at `bytes[at..]`, without copying them.
///
/// # Errors
/// When the lengths inside contradict each other.
pub(super) fn list(
    bytes: &[u8],
    at: usize,
    header: &Header,
    from: Offset,
    into: &mut RecordBatchBuilder,
) -> Result<(), &'static str> {
    const BAD: &str = "the lengths inside the frame contradict each other";
    let end = at + header.len();
    let mut at = at + HEADER;
    // The checksum was right, yet no number from a file decides alone about memory.
    into.reserve((header.records as usize).min(header.len() / RECORD_HEADER));
    for index in 0..header.records {
        let lengths: &[u8; RECORD_HEADER] = bytes[at..end].first_chunk().ok_or(BAD)?;
        let key = at + RECORD_HEADER;
        let value = key.checked_add(u32_at(lengths, 0) as usize).ok_or(BAD)?;
        let headers = value.checked_add(u32_at(lengths, 4) as usize).ok_or(BAD)?;
        let next = headers.checked_add(u32_at(lengths, 8) as usize).ok_or(BAD)?;
        if next > end {
            return Err(BAD);
        }
        let offset = header.first + u64::from(index);
        if offset >= from {
            into.push_range(offset, header.append_time_ms, key as u32, value as u32, headers as u32);
            if headers < next {
                list_headers(bytes, headers..next, into).ok_or(BAD)?;
            }
        }
        at = next;
    }
    if at == end { Ok(()) } else { Err(BAD) }
}

fn list_headers(bytes: &[u8], range: Range<usize>, into: &mut RecordBatchBuilder) -> Option<()> {
    let mut rest = &bytes[range];
    while !rest.is_empty() {
        let (lengths, tail) = rest.split_first_chunk::<8>()?;
        let (name, tail) = tail.split_at_checked(u32_at(lengths, 0) as usize)?;
        let (value, tail) = tail.split_at_checked(u32_at(lengths, 4) as usize)?;
        into.push_header(std::str::from_utf8(name).ok()?, value);
        rest = tail;
    }
    Some(())
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
