//! Snapshots: a partition's state on disk, so that a restart need not read `metrics-data` from its beginning.
//!
//! A file is a sequence of length-delimited messages, a [`pb::SnapshotHeader`] and then [`pb::ProjectDelta`]s, and the CRC32C
//! of all of it (4 bytes, little-endian). It is written beside the old one, synced and renamed over it: whatever happens,
//! there is one whole snapshot or none. A snapshot is only a shortcut: one that can't be used is left aside and the log is
//! read instead.
//!
//! It takes 30 bytes for a cell with one user and session, 8 more for each further one of either while they are few, 4 KB where
//! they are many, and some 20 bytes a numeric field with 8 for each of its first 200 values; besides, the texts of the cell's
//! values. Every level has cells of its own. The same cell takes about 200 bytes in memory.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message;
use weir_disk::{Disk, RealDisk, Staged, create_dirs, staging_beside};
use weir_proto::rollup::v1 as pb;
use weir_rollup::{
    cell::{self, Placed},
    level::Level,
};

use crate::materialise::{Image, Limits, ProjectImage, State, Value};

/// The format described above.
const VERSION: u32 = 2;
/// Cells in one message: it stays far below a megabyte of ordinary cells.
const CELLS_PER_MESSAGE: usize = 256;
/// A longer message is damage: 256 cells with every sketch full take 20 MB.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// Bytes of the checksum at the end.
const CRC_BYTES: u64 = 4;

/// Why a snapshot can't be used or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Reading or writing failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The content is not what was written.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It was written by another version.
    #[error("{path} has format version {found}, this build reads {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It is about another log.
    #[error("{path} is about another log, {found:?}; this one is {expected:?}")]
    OtherLog {
        /// The file.
        path: PathBuf,
        /// Its log.
        found: String,
        /// The log that is read now.
        expected: String,
    },
}

/// Where the snapshot of a partition lies.
pub(crate) fn path(dir: &Path, topic: &str, partition: u32) -> PathBuf {
    dir.join(format!("{topic}-{partition}.snapshot"))
}

/// Writes a snapshot of what was read from `log` and makes it durable. Returns its size in bytes. Blocks.
pub(crate) fn write(path: &Path, log: &str, mut image: Image) -> Result<u64, Error> {
    image.header.version = VERSION;
    image.header.log_identity = log.to_owned();
    let fail = |what| move |source| Error::Io { what, path: path.to_owned(), source };
    let dir = path.parent().expect("`path` puts it into a directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    create_dirs(&*disk, dir, dir).map_err(fail("creating the directory of"))?;
    let staging = staging_beside(&*disk, path).map_err(fail("writing"))?;
    let file = Staged::begin(disk, path, staging).map_err(fail("writing"))?;
    let mut out = Checked { inner: BufWriter::with_capacity(1 << 20, file), crc: 0, bytes: 0 };
    write_messages(&image, &mut out).map_err(fail("writing"))?;
    let Checked { mut inner, crc, bytes } = out;
    inner.write_all(&crc.to_le_bytes()).map_err(fail("writing"))?;
    let file = inner.into_inner().map_err(|error| fail("writing")(error.into_error()))?;
    file.replace().map_err(fail("replacing"))?;
    Ok(bytes + CRC_BYTES)
}

fn write_messages(image: &Image, out: &mut impl Write) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut put = |message: &dyn Encode| {
        buffer.clear();
        message.encode(&mut buffer);
        out.write_all(&buffer)
    };
    put(&image.header)?;
    for ProjectImage { name, texts, cubes } in &image.projects {
        for (definition, cube) in cubes {
            let delta = |cells| pb::ProjectDelta {
                project: name.to_string(),
                rollups: vec![pb::RollupDelta { definition: *definition, cells }],
            };
            let mut cells = Vec::with_capacity(CELLS_PER_MESSAGE);
            for level in Level::ALL {
                for (bucket, content) in cube.range(level, i64::MIN..i64::MAX) {
                    for (row, cell) in content.cells() {
                        let values = cube.rows()[*row as usize].iter();
                        let dimensions = values.map(|symbol| match texts.value(*symbol) {
                            Value::Missing => cell::Value::Missing,
                            Value::Text(text) => cell::Value::Text((&*text).into()),
                            Value::Other => cell::Value::Other,
                        });
                        let dimensions = dimensions.collect();
                        let cell = cell::Cell::clone(cell);
                        cells.push(Placed { dimensions, level, bucket, cell }.to_proto());
                        if cells.len() == CELLS_PER_MESSAGE {
                            put(&delta(std::mem::take(&mut cells)))?;
                        }
                    }
                }
            }
            if !cells.is_empty() {
                put(&delta(cells))?;
            }
        }
    }
    Ok(())
}

/// Messages, object-safe.
trait Encode {
    fn encode(&self, buffer: &mut Vec<u8>);
}

impl<M: Message> Encode for M {
    fn encode(&self, buffer: &mut Vec<u8>) {
        self.encode_length_delimited(buffer).expect("a vector has room");
    }
}

/// Sums up what is written.
struct Checked<W> {
    inner: W,
    crc: u32,
    bytes: u64,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.crc = crc32c::crc32c_append(self.crc, &buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads the snapshot of a partition of `log`; `None` if there is none. Blocks.
pub(crate) fn read(path: &Path, log: &str, partition: u32, limits: Limits) -> Result<Option<State>, Error> {
    let io = |source| Error::Io { what: "reading", path: path.to_owned(), source };
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io)?,
    };
    let length = file.metadata().map_err(io)?.len();
    let Some(content) = length.checked_sub(CRC_BYTES) else {
        return Err(damaged(format!("it has only {length} bytes")));
    };

    // The version comes first: another one may end otherwise.
    let mut messages = Messages { input: BufReader::new(&file).take(content), path };
    let header: pb::SnapshotHeader =
        messages.next()?.ok_or_else(|| damaged("it has no header".to_owned()))?;
    if header.version != VERSION {
        return Err(Error::Version { path: path.to_owned(), found: header.version });
    }
    if header.partition != partition {
        return Err(damaged(format!("it is about partition {}", header.partition)));
    }

    let mut whole = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
    let mut crc = 0;
    let mut left = content;
    let mut chunk = vec![0; 1 << 16];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        whole.read_exact(&mut chunk[..wanted]).map_err(io)?;
        crc = crc32c::crc32c_append(crc, &chunk[..wanted]);
        left -= wanted as u64;
    }
    let mut expected = [0; CRC_BYTES as usize];
    whole.read_exact(&mut expected).map_err(io)?;
    if crc.to_le_bytes() != expected {
        return Err(damaged("its checksum is wrong".to_owned()));
    }

    if header.log_identity != log {
        let (found, expected) = (header.log_identity, log.to_owned());
        return Err(Error::OtherLog { path: path.to_owned(), found, expected });
    }
    let mut state = State::restore(limits, &header).map_err(damaged)?;
    while let Some(delta) = messages.next()? {
        state.load(delta).map_err(|error| damaged(error.to_string()))?;
    }
    Ok(Some(state))
}

struct Messages<'a, R> {
    input: io::Take<R>,
    path: &'a Path,
}

impl<R: Read> Messages<'_, R> {
    /// The next message; `None` at the end.
    fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Error> {
        let damaged = |reason: String| Error::Damaged { path: self.path.to_owned(), reason };
        let io = |source| Error::Io { what: "reading", path: self.path.to_owned(), source };
        if self.input.limit() == 0 {
            return Ok(None);
        }
        let mut length: u64 = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.input.read_exact(&mut byte).map_err(io)?;
            length |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        if length > MAX_MESSAGE_BYTES || length > self.input.limit() {
            return Err(damaged(format!("a message of {length} bytes")));
        }
        let mut message = vec![0; usize::try_from(length).expect("64 MiB at most")];
        self.input.read_exact(&mut message).map_err(io)?;
        M::decode(message.as_slice()).map(Some).map_err(|error| damaged(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        materialise::{PartRequest, Span, ViewRequest},
        testing,
    };

    const LOG: &str = "a log";

    /// Every cell of the only definition, by level and bucket, as bytes.
    fn cells(state: &State) -> Vec<(u32, Vec<u8>)> {
        let first = testing::FIRST_EVENT;
        let spans =
            |level: Level| Span { level, buckets: level.bucket_of(first)..i64::MAX, slot: level as u32 };
        let catalog = testing::catalog();
        let parts = catalog
            .ids()
            .iter()
            .map(|id| PartRequest { definition: *id, spans: Level::ALL.map(spans).to_vec() });
        let request =
            ViewRequest { project: weir_runtime::auth::ProjectId::default_project(), parts: parts.collect() };
        let view = state.view(&request).expect("nothing has expired");
        let mut all: Vec<_> = view
            .parts
            .iter()
            .flat_map(|part| {
                part.buckets.iter().flat_map(|(slot, bucket)| {
                    bucket.cells().iter().map(|(row, cell)| {
                        let values = part.rows[*row as usize].iter();
                        let values: Vec<_> = values.map(|symbol| view.texts.value(*symbol)).collect();
                        let placed = Placed {
                            dimensions: Vec::new(),
                            level: Level::Day,
                            bucket: 0,
                            cell: cell::Cell::clone(cell),
                        };
                        let bytes = [format!("{values:?}").into_bytes(), placed.to_proto().encode_to_vec()];
                        (*slot, bytes.concat())
                    })
                })
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_snapshot_brings_everything_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), "metrics-data", 1);
        assert!(read(&path, LOG, 1, testing::limits()).unwrap().is_none());
        let state = testing::filled_state();
        write(&path, LOG, state.image(1)).unwrap();
        let back = read(&path, LOG, 1, testing::limits()).unwrap().unwrap();
        assert_eq!(back.chain(), state.chain());
        assert_eq!(back.next_metrics_offset(), state.next_metrics_offset());
        assert_eq!(back.tally(), state.tally());
        assert!(!cells(&state).is_empty());
        assert_eq!(cells(&back), cells(&state));
        // A second one replaces it.
        write(&path, LOG, back.image(1)).unwrap();
        assert_eq!(cells(&read(&path, LOG, 1, testing::limits()).unwrap().unwrap()), cells(&state));
    }

    #[test]
    fn a_snapshot_is_of_one_moment_while_the_state_goes_on() {
        let mut state = testing::filled_state();
        let before = cells(&state);
        let image = state.image(1);
        testing::apply_more(&mut state);
        assert_ne!(cells(&state), before);
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), "metrics-data", 1);
        write(&path, LOG, image).unwrap();
        assert_eq!(cells(&read(&path, LOG, 1, testing::limits()).unwrap().unwrap()), before);
    }

    #[test]
    fn any_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), "metrics-data", 1);
        write(&path, LOG, testing::state_of(&[testing::Event::at(testing::FIRST_EVENT)], 1).image(1))
            .unwrap();
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path, LOG, 1, testing::limits()).is_err()
        };
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert!(refused(&flipped), "a flipped bit at byte {at} of {} passes", whole.len());
            assert!(refused(&whole[..at]), "the first {at} of {} bytes pass", whole.len());
        }
        assert!(!refused(&whole));
    }

    #[test]
    fn another_version_partition_or_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path(), "metrics-data", 1);
        let image = testing::filled_state().image(1);
        write(&path, LOG, Image { header: image.header.clone(), projects: Vec::new() }).unwrap();
        assert!(matches!(read(&path, LOG, 2, testing::limits()), Err(Error::Damaged { .. })));
        assert!(matches!(read(&path, "another", 1, testing::limits()), Err(Error::OtherLog { .. })));
        for version in [VERSION - 1, VERSION + 1] {
            let other = pb::SnapshotHeader { version, ..image.header.clone() };
            fs::write(&path, [other.encode_length_delimited_to_vec(), vec![0; 4]].concat()).unwrap();
            let refused = read(&path, LOG, 1, testing::limits());
            assert!(matches!(refused, Err(Error::Version { found, .. }) if found == version));
        }
    }
}
