//! Reading whole segments: for compaction, erasure and verification. Queries read them through DataFusion.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::ArrowReaderOptions,
        async_reader::{AsyncFileReader, ParquetRecordBatchStream},
    },
    errors::ParquetError,
    file::{
        metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData},
        statistics::Statistics,
    },
};

use super::tally::{File, Tally};
use crate::{
    error::{Error, Result},
    manifest::Segment,
    objects::Objects,
    schema::column,
};

/// What is read of a file's end at first, in the hope that it has the whole footer: bytes.
pub(crate) const FOOTER_HINT: usize = 64 << 10;

/// A segment's file.
pub(crate) struct FileReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { Ok(self.store.get_range(&self.path, range).await?) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { Ok(self.store.get_ranges(&self.path, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new()
                .with_metadata_options(options.map(|options| options.metadata_options().clone()))
                .with_prefetch_hint(Some(FOOTER_HINT));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// Opens a segment's file.
///
/// # Errors
/// [`Error::Segment`] when it is missing, torn or has another size than the manifest says; [`Error::Unavailable`].
pub(crate) async fn open(
    objects: &Objects,
    segment: &Segment,
) -> Result<ParquetRecordBatchStreamBuilder<FileReader>> {
    match objects.size(&segment.path).await? {
        None => return Err(bad(segment, "is missing")),
        Some(bytes) if bytes != segment.bytes => {
            return Err(bad(segment, format!("has {bytes} bytes instead of {}", segment.bytes)));
        }
        Some(_) => {}
    }
    let path = Path::parse(&segment.path).map_err(|error| bad(segment, error.to_string()))?;
    let builder = ParquetRecordBatchStreamBuilder::new(FileReader {
        store: objects.object_store(),
        path,
        size: segment.bytes,
    })
    .await;
    builder.map_err(|error| unreadable(segment, error))
}

/// The columns that say whose events they are, of the row groups that may hold a user hash.
///
/// # Errors
/// As [`open`].
pub(crate) async fn open_users(
    objects: &Objects,
    segment: &Segment,
    hash: i64,
) -> Result<ParquetRecordBatchStream<FileReader>> {
    let builder = open(objects, segment).await?;
    let (place, _) = builder
        .schema()
        .column_with_name(column::USER_HASH)
        .ok_or_else(|| bad(segment, "has no user_hash"))?;
    let may_hold = |group: &RowGroupMetaData| match group.column(place).statistics() {
        Some(Statistics::Int64(users)) => {
            users.min_opt().is_none_or(|min| *min <= hash) && users.max_opt().is_none_or(|max| hash <= *max)
        }
        _ => true,
    };
    let groups = builder.metadata().row_groups().iter().enumerate();
    let groups = groups.filter(|(_, group)| may_hold(group)).map(|(index, _)| index).collect();
    let names = [column::USER_HASH, column::USER_ID, column::ANONYMOUS_ID];
    let columns = ProjectionMask::columns(builder.parquet_schema(), names);
    let stream = builder.with_row_groups(groups).with_projection(columns).build();
    stream.map_err(|error| unreadable(segment, error))
}

/// Compares a segment's file with its checksum.
///
/// # Errors
/// [`Error::Segment`] when it is missing or has another; [`Error::Unavailable`].
pub(crate) async fn check(objects: &Objects, segment: &Segment) -> Result<()> {
    match objects.checksum(&segment.path).await? {
        None => Err(bad(segment, "is missing")),
        Some(found) if found != segment.checksum => {
            Err(bad(segment, format!("has the checksum {found} instead of {}", segment.checksum)))
        }
        Some(_) => Ok(()),
    }
}

/// Reads a segment to its end and compares it with what the manifest says about it.
///
/// # Errors
/// [`Error::Segment`] with the first difference; [`Error::Unavailable`].
pub(crate) async fn verify(objects: &Objects, segment: &Segment) -> Result<()> {
    let builder = open(objects, segment).await?;
    let mut batches = builder.build().map_err(|error| unreadable(segment, error))?;
    let mut tally = Tally::default();
    while let Some(batch) = batches.try_next().await.map_err(|error| unreadable(segment, error))? {
        tally.add(&batch).map_err(|error| bad(segment, error.to_string()))?;
    }
    if !tally.is_ordered() {
        return Err(bad(segment, "is not in the order of user, time and offset"));
    }
    check(objects, segment).await?;
    let Segment { id, project, path, bytes, checksum, columns, wide, .. } = segment.clone();
    let Some(found) = tally.finish(File { id, project, path, bytes, checksum, columns, wide }) else {
        return Err(bad(segment, "has no rows"));
    };
    let differs = |what, found: &dyn std::fmt::Debug, said: &dyn std::fmt::Debug| {
        Err(bad(segment, format!("has {what} {found:?}, its manifest says {said:?}")))
    };
    match &found {
        found if found.rows != segment.rows => differs("rows", &found.rows, &segment.rows),
        found if found.offsets != segment.offsets => differs("offsets", &found.offsets, &segment.offsets),
        found if found.times != segment.times => differs("times", &found.times, &segment.times),
        found if found.users != segment.users => differs("users", &found.users, &segment.users),
        found if found.late != segment.late => differs("late events", &found.late, &segment.late),
        found if found.names != segment.names => differs("names", &found.names, &segment.names),
        // Of more keys than can be counted, which ones are depends on how many rows are counted at a time.
        found if !segment.more_properties && found.properties != segment.properties => {
            differs("properties", &found.properties, &segment.properties)
        }
        _ => Ok(()),
    }
}

fn bad(segment: &Segment, problem: impl Into<String>) -> Error {
    Error::Segment { path: segment.path.clone(), problem: problem.into(), rows: segment.rows }
}

/// An error of reading: the store's, or the file's own.
pub(crate) fn unreadable(segment: &Segment, error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<object_store::Error>() {
            Ok(gone) if matches!(*gone, object_store::Error::NotFound { .. }) => bad(segment, "is missing"),
            Ok(error) => Error::unavailable(format!("read {}", segment.path), error),
            Err(error) => bad(segment, format!("is torn ({error})")),
        },
        error => bad(segment, format!("is torn ({error})")),
    }
}
