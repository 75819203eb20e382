//! Writing segments.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take,
    datatypes::{Int64Type, Schema, SchemaRef, TimestampMicrosecondType},
};
use parquet::{
    arrow::{ARROW_SCHEMA_META_KEY, AsyncArrowWriter, arrow_writer::ArrowWriterOptions, encode_arrow_schema},
    basic::{Encoding, ZstdLevel},
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use uuid::Uuid;

use super::tally::{File, Tally, numbers};
use crate::{
    error::{Error, Result},
    manifest::Segment,
    objects::{Objects, Upload},
    schema::{self, column},
    shape, texts,
};

/// Rows of a row group: what a reader decodes at a time, some 4 MB. Measured best for counts and timelines alike.
const ROW_GROUP: usize = 128 << 10;
/// Rows of a page: what a reader skips at a time.
const PAGE: usize = 8 << 10;

/// How hard a segment is compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compression {
    /// Soon to be compacted: Zstandard 1.
    Light,
    /// To stay: Zstandard 3.
    Strong,
}

/// Writes events of several projects, in any order, to one segment a project. After a failure there is none.
///
/// Computes for long and may block: to be run on a thread that may.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Column`].
pub(crate) async fn write_all(
    objects: &Objects,
    partition: u32,
    events: BTreeMap<Arc<str>, Vec<RecordBatch>>,
    always: &[String],
) -> Result<Vec<Segment>> {
    let mut segments = Vec::with_capacity(events.len());
    let written = write_each(objects, partition, events, always, &mut segments).await;
    if let Err(error) = written {
        for segment in segments {
            // What stays is an orphan.
            let _ = objects.delete(&segment.path).await;
        }
        return Err(error);
    }
    Ok(segments)
}

async fn write_each(
    objects: &Objects,
    partition: u32,
    events: BTreeMap<Arc<str>, Vec<RecordBatch>>,
    always: &[String],
    segments: &mut Vec<Segment>,
) -> Result<()> {
    for (project, batches) in events {
        let keys = shape::choose(&batches, always)?;
        let promoted = batches.iter().map(|batch| shape::promote(batch, &keys));
        let batches: Vec<RecordBatch> = promoted.collect::<Result<_>>()?;
        let batch = shape::trim(&sorted(&batches)?);
        drop(batches);
        if batch.num_rows() == 0 {
            continue;
        }
        let mut writer =
            SegmentWriter::begin(objects, &project, partition, batch.schema(), Compression::Light).await?;
        match writer.write(&batch).await {
            Ok(()) => segments.extend(writer.finish().await?),
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The rows of all batches in the order of segments. One column after the other, so that memory is used again.
fn sorted(batches: &[RecordBatch]) -> Result<RecordBatch> {
    let order = order(batches)?;
    let columns = shape::fields(batches).into_iter().map(|field| {
        let column = shape::join_column(&field, batches)?;
        Ok(shape::of_type(&field, take(&column, &order, None)?))
    });
    let (fields, columns): (Vec<_>, Vec<_>) = columns.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The places of rows by user, time and offset.
fn order(batches: &[RecordBatch]) -> Result<UInt32Array> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut users: Vec<(i64, u32)> = Vec::with_capacity(rows);
    let mut times: Vec<(i64, i64)> = Vec::with_capacity(rows);
    for batch in batches {
        users.extend(
            numbers::<Int64Type>(batch, column::USER_HASH)?.iter().copied().zip(users.len() as u32..),
        );
        let of_batch = numbers::<TimestampMicrosecondType>(batch, column::TIME)?.iter().copied();
        times.extend(of_batch.zip(numbers::<Int64Type>(batch, column::LOG_OFFSET)?.iter().copied()));
    }
    users.sort_unstable();
    // A user has few events: sorting them apart from the others moves less.
    for events in users.chunk_by_mut(|a, b| a.0 == b.0) {
        events.sort_unstable_by_key(|(_, row)| times[*row as usize]);
    }
    Ok(UInt32Array::from_iter_values(users.into_iter().map(|(_, row)| row)))
}

/// A segment that is being written.
pub(super) struct SegmentWriter {
    writer: AsyncArrowWriter<Upload>,
    tally: Tally,
    id: Uuid,
    project: String,
    path: String,
    columns: Vec<String>,
}

impl SegmentWriter {
    pub(super) async fn begin(
        objects: &Objects,
        project: &str,
        partition: u32,
        schema: SchemaRef,
        compression: Compression,
    ) -> Result<Self> {
        let id = Uuid::now_v7();
        let path = super::path(project, partition, id);
        let columns = schema.fields().iter().map(|field| field.name());
        let columns = columns.filter(|name| shape::chosen_column(name).is_some()).cloned().collect();
        let upload = objects.upload(&path).await?;
        let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true);
        let options = options.with_properties(properties(compression, &schema));
        let writer = AsyncArrowWriter::try_new_with_options(upload, schema, options);
        let writer = writer.map_err(|error| Error::unavailable(format!("write {path}"), error))?;
        Ok(Self { writer, tally: Tally::default(), id, project: project.to_owned(), path, columns })
    }

    /// Adds rows; they come after those before in the order of segments.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.tally.add(batch)?;
        if !self.tally.is_ordered() {
            let problem = format!("is not ascending within user and time, or twice in {}", self.path);
            return Err(Error::Column { column: column::LOG_OFFSET.to_owned(), problem });
        }
        self.writer
            .write(batch)
            .await
            .map_err(|error| Error::unavailable(format!("write {}", self.path), error))
    }

    /// Makes the segment durable; `None` if it has no rows.
    pub(super) async fn finish(mut self) -> Result<Option<Segment>> {
        if let Err(error) = self.writer.finish().await {
            let error = Error::unavailable(format!("write {}", self.path), error);
            self.abort().await;
            return Err(error);
        }
        let Self { writer, tally, id, project, path, columns } = self;
        let bytes = writer.bytes_written() as u64;
        let checksum = writer.into_inner().checksum();
        Ok(tally.finish(File { id, project, path, bytes, checksum, columns }))
    }

    /// Leaves nothing of the segment.
    pub(super) async fn abort(self) {
        self.writer.into_inner().abort().await;
    }
}

fn properties(compression: Compression, schema: &Schema) -> WriterProperties {
    let level = match compression {
        Compression::Light => 1,
        Compression::Strong => 3,
    };
    let level = ZstdLevel::try_new(level).expect("Zstandard has these levels");
    let ascending = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
    let version = KeyValue::new("weir.schema".to_owned(), schema::VERSION.to_string());
    // Which types Arrow reads them as, however they are in memory.
    let types =
        KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), encode_arrow_schema(&texts::plain_schema(schema)));
    let mut properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_data_page_row_count_limit(PAGE)
        // Of texts they would cost much and exclude nothing: by users, every page has all of them.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_created_by("weir".to_owned())
        .set_key_value_metadata(Some(vec![version, types]))
        .set_sorting_columns(Some((0..3).map(ascending).collect()));
    for field in schema.fields().iter().filter(|field| field.data_type().is_primitive()) {
        let statistics = match field.name().as_str() {
            column::USER_HASH | column::TIME => EnabledStatistics::Page,
            _ => EnabledStatistics::Chunk,
        };
        properties =
            properties.set_column_statistics_enabled(ColumnPath::from(field.name().as_str()), statistics);
    }
    // A quarter of the bytes that plain values take.
    for name in
        [column::TIME, column::LOG_OFFSET, column::SEQUENCE, column::CLIENT_TIME, column::RECEIVE_TIME]
    {
        let path = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    // Many, and repeated by the event before: cheaper than a dictionary to write, dearer to read.
    if let Compression::Light = compression {
        for name in [column::USER_ID, column::ANONYMOUS_ID, column::SESSION_ID, column::INSTALL_ID] {
            let path = ColumnPath::from(name);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BYTE_ARRAY);
        }
    }
    // Random and never repeated.
    properties.set_column_dictionary_enabled(ColumnPath::from(column::EVENT_ID), false).build()
}
