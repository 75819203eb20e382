//! Compressed files: gzip and zstd, of one member or many.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

const GZIP: &[u8] = &[0x1F, 0x8B];
const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];
/// Behind the first byte of a frame of zstd that holds no data; that byte is 0x50 to 0x5F.
const ZSTD_SKIPPED: &[u8] = &[0x2A, 0x4D, 0x18];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Gzip,
    Zstd,
}

impl Method {
    fn of(start: &[u8]) -> Option<Self> {
        let is_skipped = start.first().is_some_and(|byte| byte >> 4 == 5)
            && start.get(1..).is_some_and(|rest| rest.starts_with(ZSTD_SKIPPED));
        if start.starts_with(GZIP) {
            Some(Self::Gzip)
        } else {
            (start.starts_with(ZSTD) || is_skipped).then_some(Self::Zstd)
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The data without compression; as it is when it is not compressed.
pub(super) fn decompress(reader: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = Ahead { start: Vec::new(), inner: reader };
    Ok(match Method::of(reader.start()?) {
        Some(method) => Box::new(Members { method, state: State::Between(reader) }),
        None => Box::new(reader),
    })
}

/// Bytes that tell a method.
const START_BYTES: usize = 4;

/// Looks at the next bytes, however few of them the reader has buffered.
struct Ahead<R> {
    start: Vec<u8>,
    inner: R,
}

impl<R: BufRead> Ahead<R> {
    /// The next bytes, fewer only at the end.
    fn start(&mut self) -> io::Result<&[u8]> {
        while self.start.len() < START_BYTES {
            let next = self.inner.fill_buf()?;
            if next.is_empty() {
                break;
            }
            let taken = next.len().min(START_BYTES - self.start.len());
            self.start.extend_from_slice(&next[..taken]);
            self.inner.consume(taken);
        }
        Ok(&self.start)
    }
}

impl<R: BufRead> BufRead for Ahead<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start.is_empty() { self.inner.fill_buf() } else { Ok(&self.start) }
    }

    fn consume(&mut self, bytes: usize) {
        match self.start.is_empty() {
            true => self.inner.consume(bytes),
            false => drop(self.start.drain(..bytes)),
        }
    }
}

impl<R: BufRead> Read for Ahead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start.is_empty() {
            return self.inner.read(buffer);
        }
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// One member after the other. Zeros behind the last are padding, as tapes and archives add it; anything else there is an error,
/// but only once the data before it is given out.
struct Members<R: BufRead> {
    method: Method,
    state: State<R>,
}

enum State<R: BufRead> {
    Between(Ahead<R>),
    Gzip(Box<GzDecoder<Ahead<R>>>),
    Zstd(ZstdDecoder<'static, Ahead<R>>),
    Ended,
}

impl<R: BufRead> Members<R> {
    /// Begins the next member, if there is one.
    fn begin(&self, mut reader: Ahead<R>, is_first: bool) -> io::Result<State<R>> {
        let start = reader.start()?;
        match Method::of(start) {
            Some(Method::Gzip) if self.method == Method::Gzip => {
                Ok(State::Gzip(Box::new(GzDecoder::new(reader))))
            }
            Some(Method::Zstd) if self.method == Method::Zstd => {
                Ok(State::Zstd(ZstdDecoder::with_buffer(reader)?.single_frame()))
            }
            _ if start.is_empty() && !is_first => Ok(State::Ended),
            _ => padding(reader, self.method).map(|()| State::Ended),
        }
    }
}

/// Reads to the end, where nothing but zeros may be left.
fn padding(mut reader: impl BufRead, method: Method) -> io::Result<()> {
    loop {
        let rest = reader.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        if rest.iter().any(|&byte| byte != 0) {
            return Err(io::Error::other(format!(
                "other data follows the end of the {name} data: the file is damaged, or two files were joined",
                name = method.name()
            )));
        }
        let read = rest.len();
        reader.consume(read);
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let damaged = |error: io::Error, method: Method| {
            let what = match error.kind() {
                io::ErrorKind::UnexpectedEof => "the file ends within its compressed data: it was cut off",
                _ => "the compressed data is damaged",
            };
            io::Error::new(error.kind(), format!("{what} ({}: {error})", method.name()))
        };
        let method = self.method;
        loop {
            let read = match &mut self.state {
                State::Ended => return Ok(0),
                State::Between(_) => 0,
                State::Gzip(member) => member.read(buffer).map_err(|error| damaged(error, method))?,
                State::Zstd(member) => member.read(buffer).map_err(|error| damaged(error, method))?,
            };
            if read > 0 {
                return Ok(read);
            }
            let (reader, is_first) = match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Ok(0),
                State::Between(reader) => (reader, true),
                State::Gzip(member) => (member.into_inner(), false),
                State::Zstd(member) => (member.finish(), false),
            };
            self.state = self.begin(reader, is_first)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Write as _};

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    fn zstd(text: &str) -> Vec<u8> {
        zstd::encode_all(text.as_bytes(), 3).unwrap()
    }

    /// What comes out before the end or an error, and that error.
    fn read(bytes: Vec<u8>) -> (String, Option<String>) {
        let mut reader = decompress(BufReader::with_capacity(7, Cursor::new(bytes))).unwrap();
        let (mut out, mut buffer) = (Vec::new(), [0; 5]);
        let error = loop {
            match reader.read(&mut buffer) {
                Ok(0) => break None,
                Ok(read) => out.extend_from_slice(&buffer[..read]),
                Err(error) => break Some(error.to_string()),
            }
        };
        (String::from_utf8(out).unwrap(), error)
    }

    #[test]
    fn members_follow_each_other_and_zeros_the_last() {
        for compress in [gzip, zstd] {
            let members = [compress("a,b\n"), compress(""), compress("1,2\n")].concat();
            assert_eq!(read(members.clone()), ("a,b\n1,2\n".to_owned(), None));
            assert_eq!(read([members, vec![0; 600]].concat()), ("a,b\n1,2\n".to_owned(), None));
        }
        let skipped = [&[0x5A, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd("a\n")].concat();
        assert_eq!(read(skipped), ("a\n".to_owned(), None));
    }

    #[test]
    fn what_stands_before_damage_is_given_out() {
        for compress in [gzip, zstd] {
            let whole = compress("a,b\n1,2\n");
            for behind in ["garbage", "\0\0\0x"] {
                let (text, error) = read([&whole, behind.as_bytes()].concat());
                assert_eq!(text, "a,b\n1,2\n");
                assert!(error.unwrap().contains("other data follows the end"));
            }
            let (text, error) = read([&whole[..], &whole[..whole.len() - 3]].concat());
            assert!(text.starts_with("a,b\n1,2\n"));
            assert!(error.unwrap().contains("cut off"));
        }
        // One method within the other's file is no member of it.
        assert!(read([gzip("a\n"), zstd("b\n")].concat()).1.is_some());
    }

    #[test]
    fn what_is_not_compressed_stays_as_it_is() {
        assert_eq!(read(b"a,b\n".to_vec()), ("a,b\n".to_owned(), None));
    }
}
