//! Reading a partition: chunks of a segment through the page cache, their records listed in place.
//!
//! A reader never sees a byte that is not durable: it stops at the length that the partition's view gives.

use std::{fs::File, io, mem, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::{sync::watch, task, time};

use super::{
    frame::{self, Header, Parsed},
    partition::{Partition, Tail},
    segment::{self, CHUNK, log_path},
};
use crate::{Error, Offset, PartitionReader, RecordBatch, RecordBatchBuilder, Result};

/// A batch ends after the frame that reaches this many records.
const MAX_RECORDS: usize = 65_536;

/// Up to this much is read on the spot: it was written a moment ago and lies in the page cache, and a hop to another
/// thread would cost more than the copy. More may come from the disk and must not hold up the runtime.
const INLINE: u64 = 64 << 10;

/// Reads one partition in order.
#[derive(Debug)]
pub(super) struct Reader {
    partition: Arc<Partition>,
    tail: watch::Receiver<Tail>,
    position: Offset,
    cursor: Cursor,
    /// The last batch's buffer: used again if nobody keeps a part of it, for fresh pages cost as much as the copy.
    buffer: Bytes,
}

/// A place in a segment file.
#[derive(Clone, Debug)]
struct Cursor {
    file: Arc<File>,
    base: Offset,
    position: u64,
    /// Durable bytes when last looked at.
    limit: u64,
}

impl Reader {
    /// A reader that starts at `from`. Blocks.
    pub(super) fn open(partition: Arc<Partition>, from: Offset) -> Result<Self> {
        let tail = partition.watch();
        let located = partition.locate(from)?;
        // An index only saves time: without it the segment is read from its start.
        let position = partition.index(located.base).map_or(0, |index| index.before_offset(from));
        let cursor = Cursor::open(&partition, located.base, position, located.len, from)?;
        Ok(Self { partition, tail, position: from, cursor, buffer: Bytes::new() })
    }

    /// The next records of the cursor's segment; empty when its durable bytes are used up and the cursor moved on.
    async fn read(&mut self) -> Result<RecordBatch> {
        if self.cursor.position >= self.cursor.limit {
            let located = self.partition.locate(self.position)?;
            if located.base == self.cursor.base {
                self.cursor.limit = located.len;
            } else {
                self.cursor = Cursor::open(&self.partition, located.base, 0, located.len, self.position)?;
            }
        }
        let (cursor, from, partition) = (self.cursor.clone(), self.position, Arc::clone(&self.partition));
        let buffer = mem::take(&mut self.buffer).try_into_mut().map_or_else(|_| Vec::new(), emptied);
        let (batch, position) = if cursor.limit - cursor.position <= INLINE {
            cursor.read(from, &partition, buffer)?
        } else {
            let reading = task::spawn_blocking(move || cursor.read(from, &partition, buffer));
            reading.await.map_err(|_| Error::Closed)??
        };
        self.buffer = batch.buffer();
        self.cursor.position = position;
        self.position = batch.next_offset();
        Ok(batch)
    }
}

#[async_trait]
impl PartitionReader for Reader {
    async fn next(&mut self, max_wait: Duration) -> Result<RecordBatch> {
        let deadline = time::Instant::now() + max_wait;
        loop {
            let tail = *self.tail.borrow_and_update();
            if tail.closed {
                return Err(Error::Closed);
            }
            if self.position < tail.end {
                let batch = self.read().await?;
                if !batch.is_empty() {
                    return Ok(batch);
                }
                continue;
            }
            match time::timeout_at(deadline, self.tail.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::Closed),
                Err(_) => return Ok(RecordBatch::empty(self.position)),
            }
        }
    }

    fn position(&self) -> Offset {
        self.position
    }
}

impl Cursor {
    fn open(partition: &Partition, base: Offset, position: u64, limit: u64, from: Offset) -> Result<Self> {
        let path = log_path(&partition.dir, base);
        match File::open(&path) {
            Ok(file) => Ok(Self { file: Arc::new(file), base, position, limit }),
            // Retention was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(partition.out_of_range(from)),
            Err(e) => Err(Error::io(format!("opening {}", path.display()), e)),
        }
    }

    /// Reads a chunk: its records from offset `from` on, and the position after it.
    fn read(&self, from: Offset, partition: &Partition, mut buffer: Vec<u8>) -> Result<(RecordBatch, u64)> {
        let path = || log_path(&partition.dir, self.base);
        let mut want = CHUNK;
        loop {
            let len = want.min((self.limit - self.position) as usize);
            let chunk = segment::read_into(mem::take(&mut buffer), &self.file, self.position, len)
                .map_err(|e| Error::io(format!("reading {}", path().display()), e))?;
            match parse(chunk, self.position, from, &path)? {
                Chunk::Records { batch, len } => return Ok((batch, self.position + len as u64)),
                Chunk::Short(needed) if self.position + needed as u64 <= self.limit => want = needed,
                Chunk::Short(_) => {
                    return Err(segment::corrupt(
                        &path(),
                        self.position,
                        "the frame is longer than what was written",
                    ));
                }
            }
        }
    }
}

/// The memory of a buffer, without copying what is in it.
fn emptied(mut buffer: BytesMut) -> Vec<u8> {
    buffer.clear();
    buffer.into()
}

enum Chunk {
    /// The records of the whole frames in the chunk, and the bytes of these.
    Records { batch: RecordBatch, len: usize },
    /// Not even one frame is whole; it has so many bytes.
    Short(usize),
}

/// Lists the records from `from` on. What lies before it in the chunk is skipped.
fn parse<P: AsRef<Path>>(chunk: Vec<u8>, position: u64, from: Offset, path: &dyn Fn() -> P) -> Result<Chunk> {
    let mut records = RecordBatchBuilder::default();
    let mut at = 0;
    let mut next = None::<Offset>;
    let corrupt = |at: usize, why| segment::corrupt(path().as_ref(), position + at as u64, why);
    while at < chunk.len() && records.len() < MAX_RECORDS {
        match frame::parse(&chunk[at..]) {
            Parsed::Frame(header) => {
                if !follows(next, from, &header) {
                    return Err(corrupt(at, "offsets do not follow each other"));
                }
                frame::list(&chunk, at, &header, from, &mut records).map_err(|why| corrupt(at, why))?;
                next = Some(header.next());
                at += header.len();
            }
            Parsed::Short(needed) if at == 0 => return Ok(Chunk::Short(needed)),
            Parsed::Short(_) => break,
            Parsed::Bad(why) => return Err(corrupt(at, why)),
        }
    }
    let batch = records.build_over(Bytes::from(chunk), next.map_or(from, |next| next.max(from)));
    Ok(Chunk::Records { batch, len: at })
}

/// Whether the frame comes right after the previous one; the first may start earlier than what is asked for.
fn follows(next: Option<Offset>, from: Offset, header: &Header) -> bool {
    next.map_or(header.first <= from, |next| header.first == next)
}

/// The first offset appended at or after `time_ms`. Blocks.
pub(super) fn offset_at_time(partition: &Partition, time_ms: i64) -> Result<Offset> {
    let (base, len, end) = {
        let view = partition.view();
        // After the last segment that ends before: where the clock was ahead once, there may be later times earlier on.
        let segments = view.sealed.iter().chain([&view.active.segment]).rev();
        let end = view.bounds().end;
        match segments.filter(|s| s.len > 0).take_while(|s| s.last_time_ms >= time_ms).last() {
            Some(s) => (s.base, s.len, end),
            None => return Ok(end),
        }
    };
    let from = partition.index(base).map_or(0, |index| index.before_time(time_ms));
    let cursor = Cursor::open(partition, base, from, len, base)?;
    let mut found = None;
    let path = log_path(&partition.dir, base);
    let fault = segment::walk(&cursor.file, from, len, |header, _| {
        found = (header.append_time_ms >= time_ms).then_some(header.first);
        found.is_none()
    })
    .map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
    match (found, fault) {
        (Some(offset), _) => Ok(offset),
        (None, Some(fault)) => Err(segment::corrupt(&path, fault.position, fault.why)),
        (None, None) => Ok(end),
    }
}
