//! Files of columns: Parquet and Arrow. Their rows become lines of JSON, which are mapped as those of NDJSON: what is a number
//! or a structure stays one. Exports of Weir's own become events directly.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use arrow::{
    array::{Array, ArrayRef, AsArray as _, RecordBatch, StringBuilder},
    datatypes::{
        DataType, Date32Type, Date64Type, Field, Fields, Schema, SchemaRef, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    },
    error::ArrowError,
    ipc::reader::{FileReader, StreamReader},
    json::LineDelimitedWriter,
};
use bytes::Bytes;
use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, Time},
};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    basic::{Compression, Type as PhysicalType},
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
    schema::types::SchemaDescriptor,
};

use super::{
    source::{Content, Format},
    stored::{self, Batches},
    times::OUT_OF_RANGE,
};

/// Bytes of lines that are read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Rows that are decoded at once.
const BATCH_ROWS: usize = 1000;

/// How a file of columns is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Parquet,
    ArrowFile,
    ArrowStream,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parquet => "Parquet",
            Self::ArrowFile | Self::ArrowStream => "Arrow",
        })
    }
}

/// The kind of a file that begins like this, unless its format was named.
pub(super) fn kind(start: &[u8], named: Option<Format>) -> Option<Kind> {
    match named {
        _ if start.starts_with(b"PAR1") => Some(Kind::Parquet),
        _ if start.starts_with(b"ARROW1") => Some(Kind::ArrowFile),
        // A stream begins with the marker of a message and its length, which has a zero in a schema of less than 16 MiB.
        _ if start.starts_with(&[0xFF; 4]) && start.get(7) == Some(&0) => Some(Kind::ArrowStream),
        Some(Format::Parquet) => Some(Kind::Parquet),
        Some(Format::Arrow) => Some(Kind::ArrowStream),
        Some(Format::Csv | Format::Tsv | Format::Ndjson) | None => None,
    }
}

/// Opens a Parquet file.
pub(super) fn parquet(path: &Path, consumed: Arc<AtomicU64>) -> Result<(SchemaRef, Batches)> {
    let unreadable = || format!("cannot read {} as Parquet", path.display());
    let file = Counted { file: File::open(path).with_context(unreadable)?, consumed };
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).with_context(unreadable)?;
    let mut columns = metadata.metadata().row_groups().iter().flat_map(|group| group.columns());
    if let Some(column) = columns.find(|column| !is_readable(column.compression())) {
        bail!(
            "{}: the column {} is compressed with {:?}, which is not read here; write the file with zstd or snappy, such as by \
             duckdb -c \"copy 'FILE' to 'new.parquet' (compression zstd)\"",
            unreadable(),
            column.column_path(),
            column.compression()
        );
    }
    // The 96 bits of old files reach beyond what 64 bits of nanoseconds do.
    let schema = in_microseconds(metadata.schema(), metadata.parquet_schema());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).with_context(unreadable)?;
    let schema = builder.schema().clone();
    let batches = builder.with_batch_size(BATCH_ROWS).build().with_context(unreadable)?;
    Ok((schema, Box::new(batches)))
}

fn is_readable(compression: Compression) -> bool {
    matches!(compression, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_))
}

/// The schema with every INT96 in microseconds.
fn in_microseconds(schema: &Schema, parquet: &SchemaDescriptor) -> Schema {
    let mut leaves = parquet.columns().iter().map(|column| column.physical_type());
    Schema::new_with_metadata(replaced(schema.fields(), &mut leaves), schema.metadata().clone())
}

fn replaced(fields: &Fields, leaves: &mut impl Iterator<Item = PhysicalType>) -> Fields {
    let mut one = |field: &Arc<Field>| {
        let data_type = match field.data_type() {
            DataType::Struct(inner) => DataType::Struct(replaced(inner, leaves)),
            DataType::List(item) => DataType::List(replaced_one(item, leaves)),
            DataType::LargeList(item) => DataType::LargeList(replaced_one(item, leaves)),
            DataType::Map(entry, sorted) => DataType::Map(replaced_one(entry, leaves), *sorted),
            DataType::FixedSizeList(item, size) => DataType::FixedSizeList(replaced_one(item, leaves), *size),
            DataType::Timestamp(TimeUnit::Nanosecond, zone) if leaves.next() == Some(PhysicalType::INT96) => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => field.data_type().clone(),
            other => {
                leaves.next();
                other.clone()
            }
        };
        Arc::new(field.as_ref().clone().with_data_type(data_type))
    };
    fields.iter().map(&mut one).collect()
}

fn replaced_one(field: &Arc<Field>, leaves: &mut impl Iterator<Item = PhysicalType>) -> Arc<Field> {
    replaced(&Fields::from(vec![field.clone()]), leaves)[0].clone()
}

/// Opens an Arrow file.
pub(super) fn arrow_file(path: &Path) -> Result<(SchemaRef, Batches)> {
    let unreadable = || format!("cannot read {} as Arrow", path.display());
    let file = File::open(path).with_context(unreadable)?;
    let reader = FileReader::try_new(BufReader::new(file), None).with_context(unreadable)?;
    Ok((reader.schema(), Box::new(reader)))
}

/// Opens an Arrow stream.
pub(super) fn arrow_stream(reader: Box<dyn Read + Send>) -> Result<(SchemaRef, Batches)> {
    let reader = StreamReader::try_new(reader, None).context("cannot read the file as an Arrow stream")?;
    Ok((reader.schema(), Box::new(reader)))
}

/// The rows of a file.
pub(super) fn rows(schema: &Schema, batches: Batches) -> (Box<dyn BufRead + Send>, Content) {
    if stored::is_export(schema) {
        return (Box::new(io::empty()), Content::Stored(batches));
    }
    let mut columns = Vec::new();
    name(schema.fields(), "", &mut columns);
    let lines = Lines { batches, text: Vec::new(), read: 0 };
    (Box::new(BufReader::with_capacity(BUFFER_BYTES, lines)), Content::Lines(Some(columns)))
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

/// The rows of a file, one JSON object a line.
struct Lines {
    batches: Batches,
    text: Vec<u8>,
    read: usize,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.text.len() {
            let Some(batch) = self.batches.next() else { return Ok(0) };
            self.text.clear();
            self.read = 0;
            let mut writer = LineDelimitedWriter::new(&mut self.text);
            let written = batch.and_then(|batch| writer.write(&times_as_text(&batch)?));
            written.and_then(|()| writer.finish()).map_err(io::Error::other)?;
        }
        let taken = (&self.text[self.read..]).read(buffer)?;
        self.read += taken;
        Ok(taken)
    }
}

/// Times and dates as text. One that lies outside the years -9999 to 9999 is named as such, so that its row is rejected: it
/// neither wraps nor ends the reading.
fn times_as_text(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        match as_text(array) {
            Some(texts) => {
                fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
                columns.push(texts);
            }
            None => {
                fields.push(field.clone());
                columns.push(array.clone());
            }
        }
    }
    RecordBatch::try_new(Schema::new(fields).into(), columns)
}

/// Days of which the hours can be counted, and more than all years have.
const MOST_DAYS: i64 = 1 << 32;

fn as_text(array: &ArrayRef) -> Option<ArrayRef> {
    let epoch = Date::constant(1970, 1, 1);
    let written = |has_zone: bool, value: i64, per_second: i64, unit: &str| {
        let nanos = (value.rem_euclid(per_second) * (1_000_000_000 / per_second)) as i32;
        let since = SignedDuration::new(value.div_euclid(per_second), nanos);
        let time = match has_zone {
            true => Timestamp::from_duration(since).map(|time| time.to_string()),
            false => epoch.to_datetime(Time::midnight()).checked_add(since).map(|time| time.to_string()),
        };
        time.unwrap_or_else(|_| format!("{value} {unit} {OUT_OF_RANGE} -9999 to 9999"))
    };
    let date = |days: i64| {
        let since = SignedDuration::from_hours(days.clamp(-MOST_DAYS, MOST_DAYS) * 24);
        let date = epoch.checked_add(since).map(|date| date.to_string());
        date.unwrap_or_else(|_| format!("{days} days {OUT_OF_RANGE} -9999 to 9999"))
    };
    let mut texts = StringBuilder::with_capacity(array.len(), 20 * array.len());
    macro_rules! each {
        ($values:ty, |$value:ident| $text:expr) => {
            for $value in array.as_primitive::<$values>().iter() {
                texts.append_option($value.map(|$value| $text));
            }
        };
    }
    match array.data_type() {
        DataType::Timestamp(unit, zone) => {
            let zoned = zone.is_some();
            match unit {
                TimeUnit::Second => each!(TimestampSecondType, |v| written(zoned, v, 1, "s")),
                TimeUnit::Millisecond => each!(TimestampMillisecondType, |v| written(zoned, v, 1_000, "ms")),
                TimeUnit::Microsecond => {
                    each!(TimestampMicrosecondType, |v| written(zoned, v, 1_000_000, "µs"))
                }
                TimeUnit::Nanosecond => {
                    each!(TimestampNanosecondType, |v| written(zoned, v, 1_000_000_000, "ns"))
                }
            }
        }
        DataType::Date32 => each!(Date32Type, |days| date(days.into())),
        DataType::Date64 => each!(Date64Type, |millis| date(millis.div_euclid(86_400_000))),
        _ => return None,
    }
    Some(Arc::new(texts.finish()))
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
            Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray, StructArray,
            TimestampMicrosecondArray, TimestampSecondArray,
        },
        ipc::writer::{FileWriter, StreamWriter},
    };
    use parquet::{
        arrow::ArrowWriter,
        data_type::{Int96, Int96Type},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };

    use super::*;
    use crate::commands::import::source;

    fn text_of(path: &Path) -> String {
        let mut text = String::new();
        source::open(path, None).unwrap().reader.read_to_string(&mut text).unwrap();
        text
    }

    fn written(batch: &RecordBatch) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = ArrowWriter::try_new(file.reopen().unwrap(), batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        file
    }

    fn batch() -> RecordBatch {
        let actor: ArrayRef = Arc::new(Int64Array::from(vec![7, i64::MAX]));
        let actor = StructArray::from(vec![(Arc::new(Field::new("id", DataType::Int64, false)), actor)]);
        let times = TimestampMicrosecondArray::from(vec![1_710_325_274_250_000, 0]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("event", Arc::new(StringArray::from(vec![Some("buy"), None]))),
            ("price", Arc::new(Float64Array::from(vec![9.5, 1.0]))),
            ("ts", Arc::new(times.clone().with_timezone("UTC"))),
            ("local", Arc::new(times)),
            ("day", Arc::new(Date32Array::from(vec![19_737, i32::MAX]))),
            ("far", Arc::new(TimestampSecondArray::from(vec![0, i64::MAX]))),
            (
                "cents",
                Arc::new(Decimal128Array::from(vec![1050, -5]).with_precision_and_scale(10, 2).unwrap()),
            ),
            ("actor", Arc::new(actor)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn rows_are_lines_and_keep_their_types() {
        let batch = batch();
        let parquet = written(&batch);
        let source = source::open(parquet.path(), None).unwrap();
        let Content::Lines(Some(columns)) = &source.content else { panic!("the columns are told") };
        assert_eq!(*columns, ["event", "price", "ts", "local", "day", "far", "cents", "actor.id", "actor"]);
        let text = text_of(parquet.path());
        insta::assert_snapshot!(text, @r#"
        {"event":"buy","price":9.5,"ts":"2024-03-13T10:21:14.25Z","local":"2024-03-13T10:21:14.25","day":"2024-01-15","far":"1970-01-01T00:00:00","cents":10.50,"actor":{"id":7}}
        {"price":1.0,"ts":"1970-01-01T00:00:00Z","local":"1970-01-01T00:00:00","day":"2147483647 days since 1970, outside the years -9999 to 9999","far":"9223372036854775807 s since 1970, outside the years -9999 to 9999","cents":-0.05,"actor":{"id":9223372036854775807}}
        "#);

        let arrow = tempfile::NamedTempFile::new().unwrap();
        let mut writer = StreamWriter::try_new(arrow.reopen().unwrap(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        assert_eq!(text_of(arrow.path()), text, "as an Arrow stream");
        let mut writer = FileWriter::try_new(arrow.reopen().unwrap(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        assert_eq!(text_of(arrow.path()), text, "as an Arrow file");
    }

    /// Two times of 96 bits: nanoseconds of the day and the Julian day.
    #[test]
    fn times_of_96_bits_reach_beyond_nanoseconds_of_64() {
        let schema = "message m { REQUIRED BINARY user_id (UTF8); REQUIRED GROUP g { OPTIONAL INT96 at; } OPTIONAL INT96 ts; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(file.reopen().unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let at = |days_since_1970: i32| {
            let mut at = Int96::new();
            at.set_data(0, 0, (days_since_1970 + 2_440_588).cast_unsigned());
            at
        };
        let (year_1000, year_9999) = (at(-354_285), at(2_932_896));
        let mut column = group.next_column().unwrap().unwrap();
        let users = ["a", "b"].map(|user| user.into());
        column.typed::<parquet::data_type::ByteArrayType>().write_batch(&users, None, None).unwrap();
        column.close().unwrap();
        for _ in 0..2 {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int96Type>().write_batch(&[year_1000, year_9999], Some(&[1, 1]), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        let text = text_of(file.path());
        assert!(
            text.contains(r#""ts":"1000-01-01T00:00:00""#) && text.contains(r#""ts":"9999-12-31T00:00:00""#),
            "{text}"
        );
        assert!(text.contains(r#""at":"1000-01-01"#) && text.contains(r#""at":"9999-12-31"#), "{text}");
    }

    #[test]
    fn what_is_torn_is_no_parquet() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"PAR1 and then nothing").unwrap();
        let error = source::open(file.path(), None).err().unwrap();
        assert!(error.to_string().contains("Parquet"), "{error}");
    }

    #[test]
    fn what_is_torn_is_no_arrow() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"ARROW1\0\0 and then nothing").unwrap();
        let error = format!("{:#}", source::open(file.path(), None).err().unwrap());
        assert!(error.contains("Arrow"), "{error}");
    }
}
