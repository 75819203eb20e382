//! The data that passes through the log.

use bytes::{Bytes, BytesMut};

use crate::Offset;

/// A record to append. Keys and values are opaque.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Key, may be empty.
    pub key: Bytes,
    /// Value.
    pub value: Bytes,
    /// Headers: few and small (trace context).
    pub headers: Vec<(String, Bytes)>,
}

impl Record {
    /// A record without headers.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into(), headers: Vec::new() }
    }
}

/// Records read from one partition, packed into one buffer so that a batch costs a handful of allocations whatever its
/// length.
#[derive(Clone, Debug, Default)]
pub struct RecordBatch {
    data: Bytes,
    entries: Vec<Entry>,
    headers: Vec<(u32, String, Bytes)>,
    next: Offset,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: Offset,
    append_time_ms: i64,
    key: (u32, u32),
    value: (u32, u32),
}

/// One record of a [`RecordBatch`], borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Offset in the partition.
    pub offset: Offset,
    /// When the log took it, Unix milliseconds (Kafka: `message.timestamp.type=LogAppendTime`).
    pub append_time_ms: i64,
    /// Key.
    pub key: &'a [u8],
    /// Value.
    pub value: &'a [u8],
}

impl RecordBatch {
    /// A batch without records that leaves the reader at `next`.
    pub fn empty(next: Offset) -> Self {
        Self { next, ..Self::default() }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The offset after this batch, holes included: where the reader goes on.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// Offset of the first record.
    pub fn first_offset(&self) -> Option<Offset> {
        self.entries.first().map(|e| e.offset)
    }

    /// The record at `index`.
    ///
    /// # Panics
    /// When `index >= len()`.
    pub fn get(&self, index: usize) -> RecordRef<'_> {
        self.view(&self.entries[index])
    }

    /// The records in order of their offsets.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        self.entries.iter().map(|e| self.view(e))
    }

    /// The value of the record at `index`, sharing the batch's buffer.
    pub fn value_bytes(&self, index: usize) -> Bytes {
        let (from, to) = self.entries[index].value;
        self.data.slice(from as usize..to as usize)
    }

    /// The buffer that keys and values lie in.
    pub(crate) fn buffer(&self) -> Bytes {
        self.data.clone()
    }

    /// Headers of the record at `index`; most records have none.
    pub fn headers(&self, index: usize) -> impl Iterator<Item = (&str, &[u8])> {
        let from = self.headers.partition_point(|h| (h.0 as usize) < index);
        let of_this = self.headers[from..].iter().take_while(move |h| h.0 as usize == index);
        of_this.map(|h| (h.1.as_str(), h.2.as_ref()))
    }

    fn view(&self, e: &Entry) -> RecordRef<'_> {
        RecordRef {
            offset: e.offset,
            append_time_ms: e.append_time_ms,
            key: &self.data[e.key.0 as usize..e.key.1 as usize],
            value: &self.data[e.value.0 as usize..e.value.1 as usize],
        }
    }
}

/// Builds a [`RecordBatch`]. Implementations of the log and tests use it.
#[derive(Debug, Default)]
pub struct RecordBatchBuilder {
    data: BytesMut,
    entries: Vec<Entry>,
    headers: Vec<(u32, String, Bytes)>,
}

impl RecordBatchBuilder {
    /// A builder with room for `bytes` of keys and values.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { data: BytesMut::with_capacity(bytes), ..Self::default() }
    }

    /// Copies a record in. Offsets must rise; a batch holds less than 4 GiB.
    pub fn push(&mut self, offset: Offset, append_time_ms: i64, key: &[u8], value: &[u8]) {
        debug_assert!(self.entries.last().is_none_or(|e| e.offset < offset), "offsets rise");
        let start = self.data.len() as u32;
        self.data.extend_from_slice(key);
        let middle = self.data.len() as u32;
        self.data.extend_from_slice(value);
        let end = self.data.len() as u32;
        self.entries.push(Entry { offset, append_time_ms, key: (start, middle), value: (middle, end) });
    }

    /// Makes room for so many more records.
    pub(crate) fn reserve(&mut self, records: usize) {
        self.entries.reserve(records);
    }

    /// Adds a record that lies in the buffer which [`build_over`](Self::build_over) is given: the key in
    /// `key..value`, the value in `value..end`.
    pub(crate) fn push_range(&mut self, offset: Offset, append_time_ms: i64, key: u32, value: u32, end: u32) {
        self.entries.push(Entry { offset, append_time_ms, key: (key, value), value: (value, end) });
    }

    /// Adds a header to the record pushed last.
    pub fn push_header(&mut self, name: &str, value: &[u8]) {
        let index = self.entries.len().checked_sub(1).expect("a record comes before its headers") as u32;
        self.headers.push((index, name.to_owned(), Bytes::copy_from_slice(value)));
    }

    /// Bytes of keys and values so far.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The batch; `next` is the offset after it, holes included.
    pub fn build(self, next: Offset) -> RecordBatch {
        RecordBatch { data: self.data.freeze(), entries: self.entries, headers: self.headers, next }
    }

    /// The batch of records that lie in `data`, all of them added with [`push_range`](Self::push_range).
    pub(crate) fn build_over(self, data: Bytes, next: Offset) -> RecordBatch {
        RecordBatch { data, entries: self.entries, headers: self.headers, next }
    }
}
