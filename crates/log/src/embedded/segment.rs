//! Segment files: their names, reading them frame by frame, and what to make of one after a crash.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    frame::{self, HEADER, Header, Parsed},
    index::Index,
};
use crate::{Error, Offset, Result};

/// Bytes read at a time: large enough that the system call costs nothing, small enough for the second-level cache's
/// prefetchers and for memory that is held by slow readers.
pub(super) const CHUNK: usize = 1 << 20;

/// The file with the records from `base` on.
pub(super) fn log_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// The index beside it.
pub(super) fn index_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.index"))
}

/// First offsets of the files in `dir` with a suffix, `.log` or `.index`, rising.
pub(super) fn list(dir: &Path, suffix: &str) -> Result<Vec<Offset>> {
    let read = |e| Error::io(format!("listing {}", dir.display()), e);
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let base = name.to_str().and_then(|n| n.strip_suffix(suffix)).and_then(|n| n.parse::<Offset>().ok());
        bases.extend(base);
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Reads `len` bytes at `position`.
pub(super) fn read_at(file: &File, position: u64, len: usize) -> io::Result<Vec<u8>> {
    read_into(Vec::new(), file, position, len)
}

/// Reads `len` bytes at `position` into a vector whose memory is used again.
pub(super) fn read_into(mut bytes: Vec<u8>, file: &File, position: u64, len: usize) -> io::Result<Vec<u8>> {
    bytes.clear();
    bytes.reserve_exact(len);
    while bytes.len() < len {
        let at = position + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    // There may be more room than was asked for.
    bytes.truncate(len);
    Ok(bytes)
}

/// Where frames stopped making sense.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) position: u64,
    pub(super) why: &'static str,
}

/// Walks over the frames between `from` and `to`. `visit` gets each header with its position and says whether to go on.
///
/// Returns the first fault, if any; bytes that end in the middle of a frame are one.
pub(super) fn walk(
    file: &File,
    from: u64,
    to: u64,
    mut visit: impl FnMut(&Header, u64) -> bool,
) -> io::Result<Option<Fault>> {
    let mut position = from;
    let mut want = CHUNK;
    while position < to {
        let chunk = read_at(file, position, want.min((to - position) as usize))?;
        let mut at = 0;
        loop {
            match frame::parse(&chunk[at..]) {
                Parsed::Frame(header) => {
                    if !visit(&header, position + at as u64) {
                        return Ok(None);
                    }
                    at += header.len();
                }
                Parsed::Short(needed) => {
                    position += at as u64;
                    if position + needed as u64 > to {
                        let ended = position == to;
                        return Ok((!ended).then_some(Fault { position, why: "the last frame is not whole" }));
                    }
                    want = CHUNK.max(needed);
                    break;
                }
                Parsed::Bad(why) => return Ok(Some(Fault { position: position + at as u64, why })),
            }
        }
    }
    Ok(None)
}

/// A segment that was opened, and what recovery had to drop.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) index: Index,
    /// Length that was durable when the last frame was written. What follows may be in the page cache only.
    pub(super) synced: u64,
    /// Bytes after the last whole frame, to be cut off.
    pub(super) torn: u64,
}

/// Makes sense of the segment at `base`. A `sealed` one has to be whole; the last one may end in the remains of a write
/// that was never acknowledged.
///
/// # Errors
/// [`Error::Corrupt`] naming file and position when acknowledged bytes are damaged.
pub(super) fn open(dir: &Path, base: Offset, sealed: bool, interval: u64) -> Result<Opened> {
    let path = log_path(dir, base);
    let reading = |e| Error::io(format!("reading {}", path.display()), e);
    let file = File::open(&path).map_err(reading)?;
    let len = file.metadata().map_err(reading)?.len();

    let known = fs::read(index_path(dir, base)).ok().and_then(|bytes| Index::decode(&bytes));
    let mut index = known.filter(|i| i.segment.base == base).unwrap_or_else(|| Index::empty(base));
    if index.segment.len > len {
        let short = format!("it has {len} bytes where {} were sealed", index.segment.len);
        return Err(corrupt(&path, len, &short));
    }
    let mut expected = index.segment.next;
    // An index speaks of durable bytes only.
    let mut synced = index.segment.len;
    let mut out_of_order = None;
    let fault = walk(&file, index.segment.len, len, |header, position| {
        if header.first != expected {
            out_of_order = Some(Fault { position, why: "offsets do not follow each other" });
            return false;
        }
        expected = header.next();
        synced = synced.max(u64::from(header.synced));
        index.push(header, interval);
        true
    })
    .map_err(reading)?;
    let Some(fault) = out_of_order.or(fault) else { return Ok(Opened { index, synced, torn: 0 }) };
    if sealed || acknowledged_after(&file, fault.position, len, expected).map_err(reading)? {
        return Err(corrupt(&path, fault.position, fault.why));
    }
    Ok(Opened { index, synced, torn: len - fault.position })
}

/// Whether a frame somewhere behind the fault was written when the faulty bytes were durable already.
fn acknowledged_after(file: &File, fault: u64, len: u64, expected: Offset) -> io::Result<bool> {
    let rest = read_at(file, fault, (len - fault) as usize)?;
    Ok((1..rest.len().saturating_sub(HEADER)).any(|at| {
        let Some(header) = Header::parse(&rest[at..]) else { return false };
        let plausible = header.first > expected
            && u64::from(header.synced) > fault
            && u64::from(header.synced) <= fault + at as u64
            && header.len() <= rest.len() - at;
        plausible && matches!(frame::parse(&rest[at..]), Parsed::Frame(_))
    }))
}

/// The error for bytes that were acknowledged and do not make sense any more.
pub(super) fn corrupt(path: &Path, position: u64, why: &str) -> Error {
    Error::Corrupt(format!(
        "{} at byte {position}: {why}; restore the file from a backup, or move it and the older segments beside it away \
         to go on without their records",
        path.display()
    ))
}
