//! Writing segments.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType},
};
use parquet::{
    arrow::AsyncArrowWriter,
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
    shape,
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

/// Writes events of several projects, in any order, to one segment a project. What a failure leaves behind are orphans.
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
    for (project, batches) in events {
        let batch = sort(&shape::join(&batches)?)?;
        drop(batches);
        if batch.num_rows() == 0 {
            continue;
        }
        let keys = shape::choose(&batch, always)?;
        let batch = shape::trim(&shape::promote(&batch, &keys)?);
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
    Ok(segments)
}

/// The rows in the order of segments.
pub(super) fn sort(batch: &RecordBatch) -> Result<RecordBatch> {
    let users = numbers::<Int64Type>(batch, column::USER_HASH)?;
    let times = numbers::<TimestampMicrosecondType>(batch, column::TIME)?;
    let offsets = numbers::<Int64Type>(batch, column::LOG_OFFSET)?;
    let mut rows: Vec<(i64, i64, i64, u32)> = (0..)
        .zip(users.iter().zip(times).zip(offsets))
        .map(|(row, ((user, time), offset))| (*user, *time, *offset, row))
        .collect();
    rows.sort_unstable();
    let rows = UInt32Array::from_iter_values(rows.into_iter().map(|(.., row)| row));
    Ok(take_record_batch(batch, &rows)?)
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
        let writer = AsyncArrowWriter::try_new(upload, schema, Some(properties(compression)));
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

fn properties(compression: Compression) -> WriterProperties {
    let level = match compression {
        Compression::Light => 1,
        Compression::Strong => 3,
    };
    let level = ZstdLevel::try_new(level).expect("Zstandard has these levels");
    let ascending = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
    let version = KeyValue::new("weir.schema".to_owned(), schema::VERSION.to_string());
    let mut properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_data_page_row_count_limit(PAGE)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by("weir".to_owned())
        .set_key_value_metadata(Some(vec![version]))
        .set_sorting_columns(Some((0..3).map(ascending).collect()));
    // A quarter of the bytes that plain values take.
    for name in
        [column::TIME, column::LOG_OFFSET, column::SEQUENCE, column::CLIENT_TIME, column::RECEIVE_TIME]
    {
        let path = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    // Random and never repeated: neither helps.
    let id = ColumnPath::from(column::EVENT_ID);
    properties
        .set_column_dictionary_enabled(id.clone(), false)
        .set_column_statistics_enabled(id, EnabledStatistics::None)
        .build()
}
