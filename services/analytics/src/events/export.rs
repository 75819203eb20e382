//! `ExportEvents`: batches of events become the bytes of a file.

use std::{
    borrow::Cow,
    ops::Range,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::SchemaRef,
    ipc::writer::StreamWriter,
};
use bytes::Bytes;
use datafusion::parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use prost_types::value::Kind;
use weir_proto::{
    analytics::v1::{self as pb, ResultInfo, export_events_request::Format},
    event::v1::{Event, EventRecord},
    google::api::HttpBody,
    time::{duration, micros, timestamp},
    validate::{Path, Violations},
};
use weir_query::{export::Export, fields};
use weir_rollup::field::{ContextField, Field};
use weir_store::{Decoder, schema::column};

use crate::{
    error::Error,
    live,
    question::{TimeRange, reader::Reader},
};

/// Bytes of a piece of the file, about: as much waits for a slow reader, twice.
pub(super) const PIECE: usize = 64 << 10;
/// Bytes of a batch of Arrow and of a row group of Parquet, about: so much of the file is held until it is written.
const ROW_GROUP: usize = 1 << 20;

/// What to export, but for its range, which may depend on the moment.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// `None`: all that is kept.
    pub(crate) range: Option<TimeRange>,
    export: Export,
    format: Format,
    fields: Vec<Field>,
    /// Whether CSV has the columns of [`COMPLETE`].
    is_complete: bool,
}

/// The last columns of CSV with all fields: with them `weir import` restores the events. Columns of single properties have no
/// types; `properties` has all of them as JSON. `client_time` is empty where the client's clock was right.
const COMPLETE: [&str; 3] = ["sequence", "client_time", "properties"];

impl Wish {
    /// Reads a request.
    pub(crate) fn parse(request: &pb::ExportEventsRequest) -> Result<Self, Violations> {
        let mut reader = Reader::new(request)?;
        let range = reader.range_or_all(request.time_range.as_ref());
        let export = Export {
            range: 0..0,
            filter: reader.events(&Path::ROOT, &request.event_names, request.filter.as_ref()),
            after: None,
            offsets: None,
            max_rows: match usize::try_from(request.max_events) {
                Ok(0) | Err(_) => usize::MAX,
                Ok(limit) => limit,
            },
        };
        let fields =
            reader.read(|found| fields::parse_all(&request.fields, &Path::ROOT.field("fields"), found));
        let format = match request.format() {
            Format::Unspecified => Format::Ndjson,
            other => other,
        };
        reader.finish(Self { range, export, format, fields, is_complete: false })
    }

    /// The question about a range.
    pub(crate) fn of(&self, range: Range<i64>) -> Export {
        Export { range, ..self.export.clone() }
    }

    /// Whether the columns depend on which properties there are.
    pub(crate) fn needs_properties(&self) -> bool {
        self.format == Format::Csv && self.fields.is_empty()
    }

    /// The same with these properties as columns, and behind them what makes the file one that can be imported again.
    #[must_use]
    pub(crate) fn with_properties(mut self, properties: Vec<Field>) -> Self {
        self.is_complete = true;
        self.fields = vec![
            Field::EventName,
            Field::EventType,
            Field::UserId,
            Field::AnonymousId,
            Field::SessionId,
            Field::InstallId,
        ];
        self.fields.extend(ContextField::ALL.iter().map(|field| Field::Context(*field)));
        let mut properties: Vec<Field> =
            properties.into_iter().filter(|field| matches!(field, Field::Property(_))).collect();
        properties.sort();
        self.fields.extend(properties);
        self
    }

    fn content_type(&self) -> &'static str {
        match self.format {
            Format::Unspecified | Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv",
            Format::Parquet => "application/vnd.apache.parquet",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// Whether rows are written many at a time.
    fn is_columnar(&self) -> bool {
        match self.format {
            Format::Parquet | Format::Arrow => true,
            Format::Unspecified | Format::Ndjson | Format::Csv => false,
        }
    }

    /// Bytes of rows that are written at a time.
    pub(crate) fn at_once(&self) -> usize {
        if self.is_columnar() { ROW_GROUP } else { PIECE }
    }

    /// Bytes that are held for a reader: rows as they are written, and pieces.
    pub(crate) fn held(&self) -> usize {
        self.at_once() + if self.is_columnar() { 2 * ROW_GROUP } else { PIECE }
    }

    /// A piece of the file, with the events in it; the last has what there is to say about all of them.
    pub(crate) fn response(
        &self,
        data: Bytes,
        events: u64,
        first: bool,
        info: Option<ResultInfo>,
    ) -> pb::ExportEventsResponse {
        let content_type = if first { self.content_type().to_owned() } else { String::new() };
        let body = HttpBody { content_type, data, extensions: Vec::new() };
        pb::ExportEventsResponse { body: Some(body), events, info }
    }
}

/// Events that were late.
pub(super) fn late_of(batch: &RecordBatch) -> u64 {
    let late = batch.column_by_name(column::LATE).and_then(|late| late.as_boolean_opt());
    late.map_or(0, |late| late.true_count() as u64)
}

/// A file in the making.
pub(super) enum File {
    Ndjson(Vec<u8>),
    Csv { writer: csv::Writer<Vec<u8>>, fields: Vec<Field>, is_complete: bool },
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    Arrow(StreamWriter<Vec<u8>>),
}

impl File {
    pub(super) fn begin(wish: &Wish, columns: &SchemaRef) -> Result<Self, Error> {
        Ok(match wish.format {
            Format::Unspecified | Format::Ndjson => Self::Ndjson(Vec::new()),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(Vec::new());
                let header = ["event_id", "time", "revenue", "currency"].map(str::to_owned);
                let names = wish.fields.iter().map(Field::to_string);
                let more = COMPLETE.map(str::to_owned).into_iter().filter(|_| wish.is_complete);
                writer.write_record(header.into_iter().chain(names).chain(more)).map_err(unwritten)?;
                Self::Csv { writer, fields: wish.fields.clone(), is_complete: wish.is_complete }
            }
            Format::Parquet => {
                let zstd = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(zstd).build();
                let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(columns), Some(properties));
                Self::Parquet(Box::new(writer.map_err(unwritten)?))
            }
            Format::Arrow => Self::Arrow(StreamWriter::try_new(Vec::new(), columns).map_err(unwritten)?),
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        match self {
            Self::Ndjson(bytes) => {
                let decoder = Decoder::new(batch)?;
                for row in 0..batch.num_rows() {
                    let record = decoder.record(row);
                    let clock_offset = clock_offset(&record);
                    let event = record.event.unwrap_or_default();
                    write_json(&Event { clock_offset, ..event }, bytes)?;
                    bytes.push(b'\n');
                }
            }
            Self::Csv { writer, fields, is_complete } => {
                let decoder = Decoder::new(batch)?;
                for row in 0..batch.num_rows() {
                    let record = decoder.record(row);
                    write_csv(&record, fields, writer)?;
                    if *is_complete {
                        write_complete(&record, writer)?;
                    }
                    writer.write_record(None::<&[u8]>).map_err(unwritten)?;
                }
                writer.flush().map_err(unwritten)?;
            }
            Self::Parquet(writer) => {
                writer.write(batch).map_err(unwritten)?;
                if writer.memory_size() >= ROW_GROUP {
                    writer.flush().map_err(unwritten)?;
                }
            }
            Self::Arrow(writer) => writer.write(batch).map_err(unwritten)?,
        }
        Ok(())
    }

    /// Bytes that can be taken.
    pub(super) fn ready(&mut self) -> usize {
        match self {
            Self::Ndjson(bytes) => bytes.len(),
            Self::Csv { writer, .. } => writer.get_ref().len(),
            Self::Parquet(writer) => writer.inner().len(),
            Self::Arrow(writer) => writer.get_ref().len(),
        }
    }

    pub(super) fn take(&mut self) -> Bytes {
        let bytes = match self {
            Self::Ndjson(bytes) => std::mem::take(bytes),
            // The writer of CSV lends its bytes only to read them.
            Self::Csv { writer, .. } => {
                let empty = csv::WriterBuilder::new().from_writer(Vec::new());
                std::mem::replace(writer, empty).into_inner().unwrap_or_default()
            }
            Self::Parquet(writer) => std::mem::take(writer.inner_mut()),
            Self::Arrow(writer) => std::mem::take(writer.get_mut()),
        };
        bytes.into()
    }

    pub(super) fn end(mut self) -> Result<Bytes, Error> {
        match self {
            Self::Ndjson(_) | Self::Csv { .. } => Ok(self.take()),
            Self::Parquet(writer) => Ok(writer.into_inner().map_err(unwritten)?.into()),
            Self::Arrow(writer) => Ok(writer.into_inner().map_err(unwritten)?.into()),
        }
    }
}

fn unwritten(error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("events can't be written in this format: {error}"))
}

/// An event as ProtoJSON, as the REST API has it.
fn write_json(event: &Event, bytes: &mut Vec<u8>) -> Result<(), Error> {
    static EVENT: LazyLock<MessageDescriptor> = LazyLock::new(|| {
        let pool =
            DescriptorPool::decode(weir_proto::DESCRIPTORS).expect("our own descriptors: held by a test");
        pool.get_message_by_name("weir.event.v1.Event").expect("the schema has events")
    });
    let message =
        DynamicMessage::decode(EVENT.clone(), event.encode_to_vec().as_slice()).map_err(unwritten)?;
    serde_json::to_writer(bytes, &message).map_err(unwritten)
}

fn write_csv(record: &EventRecord, fields: &[Field], writer: &mut csv::Writer<Vec<u8>>) -> Result<(), Error> {
    let nothing = Event::default();
    let event = record.event.as_ref().unwrap_or(&nothing);
    let (revenue, currency) = match &event.revenue {
        Some(money) => (decimal(money.units, money.nanos), money.currency_code.as_str()),
        None => (String::new(), ""),
    };
    let time = timestamp(record.corrected_time_micros).to_string();
    writer.write_field(&event.event_id).map_err(unwritten)?;
    writer.write_field(time).map_err(unwritten)?;
    writer.write_field(revenue).map_err(unwritten)?;
    writer.write_field(currency).map_err(unwritten)?;
    for field in fields {
        let text = live::value(event, field).or_else(|| nested(event, field).map(Cow::Owned));
        writer.write_field(text.unwrap_or_default().as_ref()).map_err(unwritten)?;
    }
    Ok(())
}

/// The columns of [`COMPLETE`].
fn write_complete(record: &EventRecord, writer: &mut csv::Writer<Vec<u8>>) -> Result<(), Error> {
    let nothing = Event::default();
    let event = record.event.as_ref().unwrap_or(&nothing);
    let sequence = if event.sequence == 0 { String::new() } else { event.sequence.to_string() };
    let client = event.event_time.as_ref().filter(|_| clock_offset(record).is_some());
    let properties = event.properties.as_ref().map(|properties| {
        let fields = properties.fields.iter().map(|(key, value)| (key.clone(), weir_store::json(value)));
        serde_json::Value::Object(fields.collect()).to_string()
    });
    for text in
        [sequence, client.map(|time| time.to_string()).unwrap_or_default(), properties.unwrap_or_default()]
    {
        writer.write_field(text).map_err(unwritten)?;
    }
    Ok(())
}

/// What was added to the client's clock. It is not stored, but follows from both times; with it an event that is sent again gets
/// the same time.
fn clock_offset(record: &EventRecord) -> Option<prost_types::Duration> {
    let client = micros(record.event.as_ref()?.event_time.as_ref()?);
    (client != record.corrected_time_micros).then(|| duration(record.corrected_time_micros - client))
}

/// A list or structure among the properties as JSON.
fn nested(event: &Event, field: &Field) -> Option<String> {
    let Field::Property(key) = field else { return None };
    let value = event.properties.as_ref()?.fields.get(key)?;
    matches!(value.kind, Some(Kind::ListValue(_) | Kind::StructValue(_)))
        .then(|| weir_store::json(value).to_string())
}

/// Units and billionths as a decimal number without needless zeros.
fn decimal(units: i64, nanos: i32) -> String {
    let sign = if units < 0 || nanos < 0 { "-" } else { "" };
    let text = format!("{sign}{}.{:09}", units.unsigned_abs(), nanos.unsigned_abs());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
