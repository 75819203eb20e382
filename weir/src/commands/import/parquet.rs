//! Apache Parquet files as lines of JSON: what is a number or a structure stays one, and rows are mapped as those of NDJSON.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use arrow::{
    datatypes::{DataType, Fields},
    json::LineDelimitedWriter,
};
use bytes::Bytes;
use parquet::{
    arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

/// How a file of this format begins and ends.
pub(super) const MAGIC: &[u8] = b"PAR1";
/// Rows that are decoded at once.
const BATCH_ROWS: usize = 1000;

/// The rows of a file, one JSON object a line.
pub(super) struct Lines {
    batches: ParquetRecordBatchReader,
    text: Vec<u8>,
    read: usize,
}

/// Opens a file; with the names of its columns, those within structures as paths.
pub(super) fn open(path: &Path, consumed: Arc<AtomicU64>) -> Result<(Lines, Vec<String>)> {
    let unreadable = || format!("cannot read {} as Parquet", path.display());
    let file = Counted { file: File::open(path).with_context(unreadable)?, consumed };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(unreadable)?;
    let mut columns = Vec::new();
    name(builder.schema().fields(), "", &mut columns);
    let batches = builder.with_batch_size(BATCH_ROWS).build().with_context(unreadable)?;
    Ok((Lines { batches, text: Vec::new(), read: 0 }, columns))
}

fn name(fields: &Fields, prefix: &str, columns: &mut Vec<String>) {
    for field in fields {
        let path = format!("{prefix}{}", field.name());
        if let DataType::Struct(inner) = field.data_type() {
            name(inner, &format!("{path}."), columns);
        }
        columns.push(path);
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.text.len() {
            let Some(batch) = self.batches.next() else { return Ok(0) };
            self.text.clear();
            self.read = 0;
            let mut writer = LineDelimitedWriter::new(&mut self.text);
            let written = batch.and_then(|batch| writer.write(&batch));
            written.and_then(|()| writer.finish()).map_err(io::Error::other)?;
        }
        let taken = (&self.text[self.read..]).read(buffer)?;
        self.read += taken;
        Ok(taken)
    }
}

/// Tells how much of a file was read.
struct Counted {
    file: File,
    consumed: Arc<AtomicU64>,
}

impl Length for Counted {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Counted {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.consumed.fetch_add(length as u64, Ordering::Relaxed);
        self.file.get_bytes(start, length)
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{
            ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, StructArray,
            TimestampMicrosecondArray,
        },
        datatypes::Field,
    };
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn rows_are_lines_and_keep_their_types() {
        let actor: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        let actor = StructArray::from(vec![(Arc::new(Field::new("id", DataType::Int64, false)), actor)]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("event", Arc::new(StringArray::from(vec![Some("buy"), None]))),
            ("price", Arc::new(Float64Array::from(vec![9.5, 1.0]))),
            (
                "ts",
                Arc::new(
                    TimestampMicrosecondArray::from(vec![1_710_325_274_250_000, 0]).with_timezone("UTC"),
                ),
            ),
            ("actor", Arc::new(actor)),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = ArrowWriter::try_new(file.reopen().unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();

        let consumed = Arc::new(AtomicU64::new(0));
        let (mut lines, columns) = open(file.path(), consumed.clone()).unwrap();
        assert_eq!(columns, ["event", "price", "ts", "actor.id", "actor"]);
        let mut text = String::new();
        lines.read_to_string(&mut text).unwrap();
        insta::assert_snapshot!(text, @r#"
        {"event":"buy","price":9.5,"ts":"2024-03-13T10:21:14.250Z","actor":{"id":7}}
        {"price":1.0,"ts":"1970-01-01T00:00:00Z","actor":{"id":8}}
        "#);
        assert!(consumed.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn what_is_torn_is_no_parquet() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"PAR1 and then nothing").unwrap();
        let error = open(file.path(), Arc::default()).err().unwrap();
        assert!(error.to_string().contains("Parquet"), "{error}");
    }
}
