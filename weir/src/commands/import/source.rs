//! A file's bytes: opened, decompressed, told apart.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::{
    columnar::{self, Kind},
    compressed::decompress,
    dialect,
    stored::Batches,
};

/// Bytes read at once, and seen when the format is told.
const BUFFER_BYTES: usize = 256 << 10;

/// What the rows look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Values separated by commas (or semicolons), with a header
    Csv,
    /// Values separated by tabs, with a header
    Tsv,
    /// One JSON object a line
    Ndjson,
    /// Apache Parquet
    Parquet,
    /// Apache Arrow: an IPC stream or file (Feather)
    Arrow,
}

/// How rows are told apart.
pub(crate) enum Content {
    /// Values between separators, the first row being the header.
    Separated,
    /// Lines of JSON, with their columns if the file tells them.
    Lines(Option<Vec<String>>),
    /// Batches with the columns of Weir's store.
    Stored(Batches),
}

/// An open file.
pub(crate) struct Source {
    /// The bytes without compression and byte order mark; nothing of [`Content::Stored`].
    pub(crate) reader: Box<dyn BufRead + Send>,
    pub(crate) content: Content,
    /// Between the values of a row; CSV and TSV.
    pub(crate) delimiter: u8,
    /// Whether blanks behind separators are no part of the values.
    pub(crate) has_blanks: bool,
    /// Bytes of the file read so far, compressed if it is.
    pub(crate) consumed: Arc<AtomicU64>,
    /// Size of the file; unknown for standard input.
    pub(crate) bytes: Option<u64>,
    /// The file, if it can be read from its beginning again, and the format that was named.
    path: Option<PathBuf>,
    named: Option<Format>,
}

impl Source {
    /// Opens the file a second time; `None` for what can be read once only.
    pub(crate) fn again(&self) -> Option<impl FnOnce() -> Result<Self> + use<>> {
        let (path, named) = (self.path.clone()?, self.named);
        Some(move || open(&path, named))
    }

    /// As what can be read once only.
    #[cfg(test)]
    pub(crate) fn once(&mut self) {
        self.path = None;
    }
}

struct Counting<R> {
    inner: R,
    consumed: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.consumed.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Opens a file, or standard input as `-`.
pub(crate) fn open(path: &Path, format: Option<Format>) -> Result<Source> {
    let consumed = Arc::new(AtomicU64::new(0));
    let (raw, bytes, file): (Box<dyn Read + Send>, _, _) = if path.as_os_str() == "-" {
        (Box::new(io::stdin()), None, None)
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            bail!("{} is a folder: name one file", path.display());
        }
        let is_file = metadata.is_file().then(|| path.to_owned());
        (Box::new(file), Some(metadata.len()).filter(|&len| len > 0), is_file)
    };
    let counting = Counting { inner: raw, consumed: consumed.clone() };
    let unreadable = || format!("cannot read {}", path.display());
    let reader = decompress(BufReader::with_capacity(BUFFER_BYTES, counting)).with_context(unreadable)?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    let (start, damage) = beginning(&mut reader, file.is_some());
    if let (true, Some(damage)) = (start.is_empty(), &damage) {
        bail!("{}: {damage}", unreadable());
    }
    let reader = io::Cursor::new(start.clone()).chain(BufReader::new(Fails(damage))).chain(reader);
    let start = start.as_slice();
    let mut source = Source {
        reader: Box::new(io::empty()),
        content: Content::Separated,
        delimiter: b',',
        has_blanks: false,
        consumed: consumed.clone(),
        bytes,
        path: file,
        named: format,
    };
    if let Some(kind) = columnar::kind(start, format) {
        let (schema, batches) = match (kind, &source.path) {
            (Kind::Parquet | Kind::ArrowFile, None) => {
                bail!("{kind} is read from its end: name the file, which standard input can't stand for")
            }
            (Kind::Parquet, Some(path)) => {
                consumed.store(0, Ordering::Relaxed);
                columnar::parquet(path, consumed)?
            }
            (Kind::ArrowFile, Some(path)) => columnar::arrow_file(path)?,
            (Kind::ArrowStream, _) => columnar::arrow_stream(Box::new(reader))?,
        };
        (source.reader, source.content) = columnar::rows(&schema, batches);
        return Ok(source);
    }
    let (format, delimiter) = recognise(start, format).with_context(|| path.display().to_string())?;
    source.delimiter = delimiter;
    match format {
        Format::Csv | Format::Tsv => source.has_blanks = dialect::has_blanks(start, delimiter),
        Format::Ndjson | Format::Parquet | Format::Arrow => source.content = Content::Lines(None),
    }
    source.reader = Box::new(reader);
    Ok(source)
}

/// The first bytes, without a byte order mark: of a file as many as the format is told from, of what may come slowly at least
/// its first line. With the error that ended them, which is due behind them.
fn beginning(reader: &mut impl Read, is_file: bool) -> (Vec<u8>, Option<io::Error>) {
    let (mut start, mut piece) = (Vec::new(), vec![0; BUFFER_BYTES]);
    let mut error = None;
    while start.len() < BUFFER_BYTES && (is_file || !start.contains(&b'\n')) {
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => start.extend_from_slice(&piece[..read]),
            Err(damage) => {
                error = Some(damage);
                break;
            }
        }
    }
    if start.starts_with(b"\xEF\xBB\xBF") {
        start.drain(..3);
    }
    (start, error)
}

/// Nothing but an error, once.
struct Fails(Option<io::Error>);

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// The format and delimiter, told from the first bytes unless it was named.
fn recognise(start: &[u8], named: Option<Format>) -> Result<(Format, u8)> {
    let other = match start {
        [] => Some(("is empty", "")),
        [b'P', b'K', 3, 4, ..] => Some(("is a ZIP archive", "unpack it first")),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
            Some(("is UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8"))
        }
        _ => None,
    };
    if let Some((what, mend)) = other {
        bail!("the file {what}{}{mend}", if mend.is_empty() { "" } else { ": " });
    }
    let first = start.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    let header = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: u8| header.iter().filter(|&&byte| byte == delimiter).count();
    let format = match (named, first) {
        (Some(format), _) => format,
        (None, Some(b'{')) => Format::Ndjson,
        (None, Some(b'[')) => {
            bail!("the file is one JSON array: make it lines first: jq -c '.[]' FILE | weir import -")
        }
        (None, _) if count(b'\t') > count(b',').max(count(b';')) => Format::Tsv,
        (None, _) => Format::Csv,
    };
    let delimiter = match format {
        Format::Tsv => b'\t',
        Format::Csv if count(b';') > count(b',') => b';',
        Format::Csv | Format::Ndjson | Format::Parquet | Format::Arrow => b',',
    };
    Ok((format, delimiter))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn compression_is_told_by_content_not_by_name() {
        let text = b"\xEF\xBB\xBFuser_id,event\nu,a\n";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text).unwrap();
        let zstd = zstd::encode_all(text.as_slice(), 3).unwrap();
        for bytes in [text.to_vec(), gzip.finish().unwrap(), zstd] {
            let (_dir, path) = written("rows.dat", &bytes);
            let mut source = open(&path, None).unwrap();
            let mut read = String::new();
            source.reader.read_to_string(&mut read).unwrap();
            assert_eq!(read, "user_id,event\nu,a\n");
            assert_eq!(source.consumed.load(Ordering::Relaxed), bytes.len() as u64);
            assert!(matches!(source.content, Content::Separated));
        }
    }

    #[test]
    fn formats_are_told_by_their_first_line() {
        let told = |start: &[u8]| recognise(start, None).unwrap();
        assert_eq!(told(b"a,b\n1,2"), (Format::Csv, b','));
        assert_eq!(told(b"a;b;c\n1,5;2"), (Format::Csv, b';'));
        assert_eq!(told(b"a\tb\n"), (Format::Tsv, b'\t'));
        assert_eq!(told(b"  {\"a\": 1}\n").0, Format::Ndjson);
        assert_eq!(recognise(b"{,}\n", Some(Format::Csv)).unwrap().0, Format::Csv);
    }

    #[test]
    fn what_cannot_be_read_says_what_to_do() {
        for (start, mend) in [
            (b"PK\x03\x04....".as_slice(), "unpack"),
            (b"\xFF\xFEa\0", "iconv"),
            (b"[{}]", "jq -c"),
            (b"", "empty"),
        ] {
            assert!(recognise(start, None).unwrap_err().to_string().contains(mend));
        }
        assert!(open(Path::new("/nowhere/at/all"), None).is_err());
    }
}
