//! Writing segments.

use std::{collections::BTreeMap, mem, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, RecordBatch, UInt32Array},
    compute::take,
    datatypes::{DataType, Int64Type, Schema, SchemaRef, TimestampMicrosecondType},
};
use bytes::Bytes;
use parquet::{
    arrow::{
        ARROW_SCHEMA_META_KEY, ArrowSchemaConverter,
        arrow_writer::{ArrowWriter, ArrowWriterOptions},
        async_writer::AsyncFileWriter as _,
        encode_arrow_schema,
    },
    basic::{Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::ColumnPath,
};
use uuid::Uuid;

use super::{
    checksums,
    tally::{File, Tally, numbers},
};
use crate::{
    error::{Error, Result},
    manifest::Segment,
    objects::{Objects, Upload},
    schema::{self, column},
    shape, texts, width,
};

/// Rows of a row group: what a reader decodes at a time, some 4 MB. Measured best for counts and timelines alike.
pub(crate) const ROW_GROUP: usize = 128 << 10;
/// Bytes of a row group, where its rows are wide: what a reader holds of a file at most, and what its batches can come to where wide
/// rows lie together.
pub(crate) const ROW_GROUP_BYTES: usize = 16 << 20;
/// Rows of a page: what a reader skips at a time.
const PAGE: usize = 8 << 10;
/// Bytes of a page, about: the default of the format's library.
const PAGE_BYTES: usize = 1 << 20;

/// Columns with as many different texts as there are people, of which the first rows of a segment have few.
const IDS: [&str; 4] = [column::USER_ID, column::ANONYMOUS_ID, column::SESSION_ID, column::INSTALL_ID];

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
            SegmentWriter::begin(objects, &project, partition, &batch, Compression::Light).await?;
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
    upload: Upload,
    /// What of the file is not uploaded yet.
    file: SerializedFileWriter<Vec<u8>>,
    /// The row group that is being written is a file of its own until it has all its rows.
    row_group: Option<ArrowWriter<Vec<u8>>>,
    /// By column: bytes that the rows of the row group take.
    row_group_bytes: Vec<usize>,
    /// By column: bytes that a row takes, in the row group where that is most.
    widths: Vec<u64>,
    schema: SchemaRef,
    options: ArrowWriterOptions,
    tally: Tally,
    id: Uuid,
    project: String,
    path: String,
    columns: Vec<String>,
}

impl SegmentWriter {
    /// Begins a segment with columns like those of the first rows, which are to be written then.
    pub(super) async fn begin(
        objects: &Objects,
        project: &str,
        partition: u32,
        first: &RecordBatch,
        compression: Compression,
    ) -> Result<Self> {
        let schema = first.schema();
        let id = Uuid::now_v7();
        let path = super::path(project, partition, id);
        let columns = schema.fields().iter().map(|field| field.name());
        let columns = columns.filter(|name| shape::chosen_column(name).is_some()).cloned().collect();
        let failed = |error| Error::unavailable(format!("write {path}"), error);
        let properties = properties(compression, first);
        let types = ArrowSchemaConverter::new().convert(&schema).map_err(failed)?;
        let file =
            SerializedFileWriter::new(Vec::new(), types.root_schema_ptr(), Arc::new(properties.clone()));
        let file = file.map_err(failed)?;
        let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true).with_properties(properties);
        let upload = objects.upload(&path).await?;
        let (row_group_bytes, widths) = (vec![0; schema.fields().len()], vec![0; schema.fields().len()]);
        Ok(Self {
            upload,
            file,
            row_group: None,
            row_group_bytes,
            widths,
            schema,
            options,
            tally: Tally::default(),
            id,
            project: project.to_owned(),
            path,
            columns,
        })
    }

    /// Adds rows; they come after those before in the order of segments.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.tally.add(batch)?;
        if !self.tally.is_ordered() {
            let problem = format!("is not ascending within user and time, or twice in {}", self.path);
            return Err(Error::Column { column: column::LOG_OFFSET.to_owned(), problem });
        }
        self.add(batch).await.map_err(|error| Error::unavailable(format!("write {}", self.path), error))
    }

    async fn add(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let mut start = 0;
        while start < batch.num_rows() {
            let row_group = match &mut self.row_group {
                Some(row_group) => row_group,
                none => none.insert(ArrowWriter::try_new_with_options(
                    Vec::new(),
                    Arc::clone(&self.schema),
                    self.options.clone(),
                )?),
            };
            let held: usize = self.row_group_bytes.iter().sum();
            let room = (ROW_GROUP - row_group.in_progress_rows(), ROW_GROUP_BYTES.saturating_sub(held));
            let rows = match width::prefix(batch, start, room.0, room.1) {
                // A single row is a row group, however wide.
                (0, _) if row_group.in_progress_rows() == 0 => 1,
                (rows, _) => rows,
            };
            let fitting = batch.slice(start, rows);
            row_group.write(&fitting)?;
            for (bytes, column) in self.row_group_bytes.iter_mut().zip(fitting.columns()) {
                *bytes += width::of_array(column);
            }
            start += rows;
            if start < batch.num_rows() || row_group.in_progress_rows() == ROW_GROUP {
                self.end_row_group().await?;
            }
        }
        Ok(())
    }

    async fn end_row_group(&mut self) -> Result<(), ParquetError> {
        if let Some(mut row_group) = self.row_group.take() {
            let rows = row_group.in_progress_rows().max(1);
            for (width, bytes) in self.widths.iter_mut().zip(&mut self.row_group_bytes) {
                *width = (*width).max((mem::take(bytes) / rows) as u64);
            }
            let metadata = row_group.finish()?;
            let bytes = Bytes::from(mem::take(row_group.inner_mut()));
            checksums::add_row_group(&mut self.file, &bytes, &metadata)?;
            self.upload_written().await?;
        }
        Ok(())
    }

    async fn upload_written(&mut self) -> Result<(), ParquetError> {
        self.file.flush()?;
        self.upload.write(Bytes::from(mem::take(self.file.inner_mut()))).await
    }

    /// Makes the segment durable; `None` if it has no rows.
    pub(super) async fn finish(mut self) -> Result<Option<Segment>> {
        if let Err(error) = self.complete().await {
            let error = Error::unavailable(format!("write {}", self.path), error);
            self.abort().await;
            return Err(error);
        }
        let Self { upload, file, tally, id, project, path, columns, schema, widths, .. } = self;
        let (bytes, checksum) = (file.bytes_written() as u64, upload.checksum());
        let names = schema.fields().iter().map(|field| field.name().clone());
        let wide = names.zip(widths).filter(|(_, width)| *width > Segment::NARROW).collect();
        Ok(tally.finish(File { id, project, path, bytes, checksum, columns, wide: Some(wide) }))
    }

    async fn complete(&mut self) -> Result<(), ParquetError> {
        self.end_row_group().await?;
        self.file.finish()?;
        self.upload_written().await?;
        self.upload.complete().await
    }

    /// Leaves nothing of the segment.
    pub(super) async fn abort(self) {
        self.upload.abort().await;
    }
}

fn properties(compression: Compression, first: &RecordBatch) -> WriterProperties {
    let schema = first.schema_ref();
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
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(PAGE)
        // A page is seen to be full after so many values.
        .set_write_batch_size(
            (PAGE_BYTES / width::bytes(first).div_ceil(first.num_rows().max(1)).max(1)).clamp(1, 1024),
        )
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
    // Of packed times of events and of hashes, which look random, Zstandard would save one byte in ten at most. Few texts take some
    // bits a row, of which it would save a quarter. To read either would cost twice the time. (Other times are less read, and a batch
    // has them in common.)
    let random = [column::USER_HASH, column::TIME];
    let small = schema.fields().iter().zip(first.columns()).filter(|(_, column)| takes_bits(column));
    let small = small.map(|(field, _)| field.name().as_str()).filter(|name| !IDS.contains(name));
    for name in random.into_iter().chain(small) {
        properties = properties
            .set_column_compression(ColumnPath::from(name), parquet::basic::Compression::UNCOMPRESSED);
    }
    // Many, and repeated by the event before: cheaper than a dictionary to write, dearer to read.
    if let Compression::Light = compression {
        for name in IDS {
            let path = ColumnPath::from(name);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BYTE_ARRAY);
        }
    }
    // Random and never repeated.
    properties.set_column_dictionary_enabled(ColumnPath::from(column::EVENT_ID), false).build()
}

/// Rows of a column that are looked at.
const SAMPLE: usize = 8 << 10;
/// Values for each byte of different texts among them from which a column is one of few texts.
const FEW_TEXTS: usize = 4;

/// Whether a column takes only some bits a row: booleans, or texts of which few are different.
fn takes_bits(column: &ArrayRef) -> bool {
    let sample = column.slice(0, column.len().min(SAMPLE));
    let values = sample.len() - sample.null_count();
    let texts = || texts::counts(&sample).map(|texts| texts.keys().map(|text| text.len()).sum::<usize>());
    matches!(column.data_type(), DataType::Boolean)
        || values > 0 && texts().is_some_and(|bytes| bytes * FEW_TEXTS <= values)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, StringViewArray};

    use super::*;

    #[test]
    fn columns_of_few_texts_are_told_by_their_values() {
        let texts = |text: fn(usize) -> Option<String>, rows| {
            Arc::new((0..rows).map(text).collect::<StringViewArray>()) as ArrayRef
        };
        let platform = |row: usize| Some(["web", "android", "ios"][row % 3].to_owned());
        let page = |row: usize| Some(format!("/products/{row}"));
        // Those with the first user hashes need not be like the others.
        let page_of_some = |row: usize| (row > 8000).then(|| format!("/products/{row}"));
        assert!(takes_bits(&texts(platform, 8192)) && takes_bits(&texts(platform, 100)));
        assert!(!takes_bits(&texts(platform, 5)), "too few to tell");
        assert!(!takes_bits(&texts(page, 8192)) && !takes_bits(&texts(page, 1)));
        assert!(!takes_bits(&texts(page_of_some, 8000)) && !takes_bits(&texts(page_of_some, 8192)));
        assert!(takes_bits(&(Arc::new(BooleanArray::from(vec![true])) as ArrayRef)));
    }
}
