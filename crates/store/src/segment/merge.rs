//! Segments made of segments: fewer, larger, without what is not to stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::{SortOptions, and, filter_record_batch},
    datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimestampMicrosecondType},
};
use datafusion::{
    error::DataFusionError,
    execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool},
    physical_expr::{LexOrdering, PhysicalSortExpr, expressions::Column},
    physical_plan::{
        SendableRecordBatchStream,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet},
        sorts::streaming_merge::StreamingMergeBuilder,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt};

use super::{Compression, open, read::unreadable, tally::numbers, write::SegmentWriter};
use crate::{
    chosen::choose,
    encode,
    error::{Error, Result},
    manifest::{Kinds, Segment},
    objects::Objects,
    schema::{self, Kind, column},
    shape, width,
};

/// Which events stay.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keep {
    /// Only those from this moment on, microseconds since the Unix epoch.
    pub(crate) from_micros: Option<i64>,
    /// Those of this user don't: of his `user_id`, or of his `anonymous_id` where there is no `user_id`.
    pub(crate) not_of: Option<String>,
}

impl Keep {
    fn of(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut kept: Option<BooleanArray> = None;
        if let Some(from) = self.from_micros {
            let times = numbers::<TimestampMicrosecondType>(&batch, column::TIME)?;
            kept = Some(times.iter().map(|time| Some(*time >= from)).collect());
        }
        if let Some(user) = &self.not_of {
            let others = others(&batch, user)?;
            kept = Some(kept.map_or(Ok(others.clone()), |kept| and(&kept, &others))?);
        }
        match kept {
            Some(kept) if kept.true_count() < batch.num_rows() => Ok(filter_record_batch(&batch, &kept)?),
            _ => Ok(batch),
        }
    }
}

/// Which rows are another user's.
pub(crate) fn others(batch: &RecordBatch, user: &str) -> Result<BooleanArray> {
    let hash = encode::user_hash(user);
    let hashes = numbers::<Int64Type>(batch, column::USER_HASH)?;
    let is = |name: &str, row: usize| -> Option<bool> {
        let texts = batch.column_by_name(name)?.as_string_view_opt()?;
        texts.is_valid(row).then(|| texts.value(row) == user)
    };
    let other = |(row, found): (usize, &i64)| {
        // The texts decide: another user may have the same hash.
        let same = *found == hash
            && is(column::USER_ID, row).or_else(|| is(column::ANONYMOUS_ID, row)).unwrap_or(false);
        Some(!same)
    };
    Ok(hashes.iter().enumerate().map(other).collect())
}

/// What is to be made of what.
#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) project: String,
    pub(crate) partition: u32,
    /// The segments, all of this project and partition. They were just compared with their checksums: a torn page may well decode,
    /// and what is written of it would have a checksum that fits.
    pub(crate) inputs: Vec<Arc<Segment>>,
    pub(crate) keep: Keep,
    /// Moments at which a new segment begins, ascending, microseconds since the Unix epoch.
    pub(crate) splits: Vec<i64>,
    /// Properties that become columns wherever they occur.
    pub(crate) always: Vec<String>,
}

impl Merge {
    /// Writes the new segments. What a failure leaves behind are orphans.
    ///
    /// Streams: needs memory for one row group of each input and output, and some batches, which have few rows where these are wide. Computes for long and may block: to be run on a thread
    /// that may.
    ///
    /// # Errors
    /// [`Error::Segment`] naming the input that can't be read; [`Error::Unavailable`].
    pub(crate) async fn run(&self, objects: &Objects) -> Result<Vec<Segment>> {
        let mut opened = Vec::with_capacity(self.inputs.len());
        for segment in &self.inputs {
            opened.push(open(objects, segment).await?);
        }
        let keys = chosen(&self.inputs, &self.always);
        let schema = {
            let schemas: Vec<&SchemaRef> = opened.iter().map(|builder| builder.schema()).collect();
            merged_schema(&schemas, &self.inputs, &keys)
        };
        let mut streams = Vec::with_capacity(opened.len());
        for (builder, segment) in opened.into_iter().zip(&self.inputs) {
            let batches = builder
                .with_batch_size(rows_of(segment))
                .build()
                .map_err(|error| unreadable(segment, error))?;
            let (segment, keys, wanted) = (Arc::clone(segment), keys.clone(), Arc::clone(&schema));
            let shaped = batches.map(move |batch| {
                let batch = batch.map_err(|error| unreadable(&segment, error));
                batch.and_then(|batch| reshape(&batch, &keys, &wanted)).map_err(external)
            });
            streams.push(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), shaped))
                as SendableRecordBatchStream);
        }
        let at_once = self.inputs.iter().map(|segment| rows_of(segment)).min().unwrap_or(width::BATCH);
        let mut rows = merged(streams, &schema, at_once)?;
        let mut outputs: Vec<Option<SegmentWriter>> = (0..=self.splits.len()).map(|_| None).collect();
        let written = self.distribute(objects, &mut rows, &mut outputs).await;
        let mut segments = Vec::with_capacity(outputs.len());
        for writer in outputs.into_iter().flatten() {
            match &written {
                Ok(()) => segments.extend(writer.finish().await?),
                Err(_) => writer.abort().await,
            }
        }
        written.map(|()| segments)
    }

    async fn distribute(
        &self,
        objects: &Objects,
        rows: &mut SendableRecordBatchStream,
        outputs: &mut [Option<SegmentWriter>],
    ) -> Result<()> {
        let expected: u64 = self.inputs.iter().map(|segment| segment.rows).sum();
        let mut read = 0;
        while let Some(batch) = rows.try_next().await.map_err(internal)? {
            read += batch.num_rows() as u64;
            // Whoever wanted this may have gone.
            tokio::task::yield_now().await;
            let batch = self.keep.of(batch)?;
            for (place, batch) in split(batch, &self.splits)? {
                let writer = match &mut outputs[place] {
                    Some(writer) => writer,
                    empty => {
                        let strong = Compression::Strong;
                        let begun =
                            SegmentWriter::begin(objects, &self.project, self.partition, &batch, strong)
                                .await?;
                        empty.insert(begun)
                    }
                };
                writer.write(&batch).await?;
            }
        }
        if read != expected {
            let problem = format!("were {read}, and {expected} by the manifest");
            return Err(Error::Column { column: "rows to be merged".to_owned(), problem });
        }
        Ok(())
    }
}

/// Rows of a segment that pass at a time.
fn rows_of(segment: &Segment) -> usize {
    let wide = segment.wide.as_ref().map_or(UNKNOWN, |wide| wide.values().sum());
    // All of its columns are read.
    width::rows(NARROW + wide)
}

/// Bytes of a row that takes no more than others.
const NARROW: u64 = 200;
/// Bytes of a row of which nothing is known.
const UNKNOWN: u64 = 2 << 10;

/// The rows before the first split, between the first and the second, and so on: those of these that are any.
fn split(batch: RecordBatch, splits: &[i64]) -> Result<Vec<(usize, RecordBatch)>> {
    if batch.num_rows() == 0 {
        return Ok(Vec::new());
    }
    if splits.is_empty() {
        return Ok(vec![(0, batch)]);
    }
    let times = numbers::<TimestampMicrosecondType>(&batch, column::TIME)?;
    let places: Vec<usize> = times.iter().map(|time| splits.partition_point(|split| split <= time)).collect();
    let used: BTreeSet<usize> = places.iter().copied().collect();
    let part = |place| {
        let rows: BooleanArray = places.iter().map(|of| Some(*of == place)).collect();
        Ok((place, filter_record_batch(&batch, &rows)?))
    };
    used.into_iter().map(part).collect()
}

/// The keys that are worth columns in all inputs together.
fn chosen(inputs: &[Arc<Segment>], always: &[String]) -> BTreeSet<String> {
    let columns = columns(inputs);
    let rows: u64 = inputs.iter().map(|segment| segment.rows).sum();
    let values = |kinds: Kinds| (kinds.text + kinds.number + kinds.boolean) as usize;
    // Where a manifest does not say how many values a column has, others have more.
    let uncounted = columns.iter().map(|key| (*key, 0));
    let counted = counts(inputs).into_iter().map(|(key, kinds)| (key, values(kinds)));
    choose(uncounted.chain(counted).collect(), &columns, rows as usize, always)
}

/// The keys that are columns in any input.
fn columns(inputs: &[Arc<Segment>]) -> BTreeSet<&str> {
    let columns = inputs.iter().flat_map(|segment| &segment.columns);
    columns.filter_map(|name| shape::chosen_column(name)).map(|(_, key)| key).collect()
}

fn counts(inputs: &[Arc<Segment>]) -> BTreeMap<&str, Kinds> {
    let mut counts: BTreeMap<&str, Kinds> = BTreeMap::new();
    for (key, kinds) in inputs.iter().flat_map(|segment| &segment.properties) {
        counts.entry(key).or_default().add(*kinds);
    }
    counts
}

/// The columns that any input has, and those of the chosen keys for all kinds that may occur.
fn merged_schema(schemas: &[&SchemaRef], inputs: &[Arc<Segment>], keys: &BTreeSet<String>) -> SchemaRef {
    let anywhere = |name: &str| schemas.iter().any(|schema| schema.column_with_name(name).is_some());
    let back_to_map = columns(inputs).into_iter().any(|key| !keys.contains(key));
    let is_map = |name: &str| matches!(name, column::PROPERTIES | column::PROPERTY_KINDS);
    let needed = |field: &&FieldRef| anywhere(field.name()) || back_to_map && is_map(field.name());
    let mut fields: Vec<FieldRef> = schema::schema().fields().iter().filter(needed).cloned().collect();
    let counts = counts(inputs);
    let uncounted = inputs.iter().any(|segment| segment.more_properties);
    let mut chosen: BTreeMap<String, DataType> = BTreeMap::new();
    for key in keys {
        for (kind, kind_type) in [
            (Kind::Text, DataType::Utf8View),
            (Kind::Number, DataType::Float64),
            (Kind::Boolean, DataType::Boolean),
        ] {
            let name = format!("{}{key}", kind.prefix().expect("these kinds have columns"));
            let counted = counts.get(key.as_str()).is_some_and(|kinds| *kinds.clone().of(kind) > 0);
            if uncounted || counted || anywhere(&name) {
                chosen.insert(name, kind_type);
            }
        }
    }
    fields.extend(
        chosen.into_iter().map(|(name, kind_type)| Arc::new(Field::new(name, kind_type, true)) as FieldRef),
    );
    Arc::new(Schema::new(fields))
}

/// The rows with these keys as columns, in the columns of `wanted`.
fn reshape(batch: &RecordBatch, keys: &BTreeSet<String>, wanted: &SchemaRef) -> Result<RecordBatch> {
    let batch = shape::plain(&shape::promote(batch, keys)?)?;
    let lost = batch.schema_ref().fields().iter().zip(batch.columns()).find(|(field, array)| {
        let holds = array.null_count() < array.len() && field.is_nullable();
        holds && wanted.column_with_name(field.name()).is_none()
    });
    if let Some((field, _)) = lost {
        let problem = "has values that the manifest's counts don't have".to_owned();
        return Err(Error::Column { column: field.name().clone(), problem });
    }
    let columns = wanted.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(array) => Ok(Arc::clone(array)),
        None => shape::absent(field, batch.num_rows()),
    });
    Ok(RecordBatch::try_new(Arc::clone(wanted), columns.collect::<Result<_>>()?)?)
}

/// Sorted streams as one.
fn merged(
    mut streams: Vec<SendableRecordBatchStream>,
    schema: &SchemaRef,
    rows: usize,
) -> Result<SendableRecordBatchStream> {
    if streams.len() == 1 {
        return Ok(streams.remove(0));
    }
    let ascending = SortOptions { descending: false, nulls_first: false };
    let by = |name| {
        let column = Column::new_with_schema(name, schema).map_err(internal)?;
        Ok::<_, Error>(PhysicalSortExpr::new(Arc::new(column), ascending))
    };
    let order = [by(column::USER_HASH)?, by(column::TIME)?, by(column::LOG_OFFSET)?];
    let order = LexOrdering::new(order).expect("three columns are some");
    // What it holds is bounded by the number of inputs.
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(Arc::clone(schema))
        .with_expressions(&order)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
        .with_batch_size(rows)
        .with_reservation(MemoryConsumer::new("merge").register(&pool))
        .with_round_robin_tie_breaker(false)
        .build()
        .map_err(internal)
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Our own error out of DataFusion's, or its own.
fn internal(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(source) => match source.downcast::<Error>() {
            Ok(own) => *own,
            Err(source) => Error::Unavailable { what: "merge segments".to_owned(), source },
        },
        DataFusionError::ArrowError(error, _) => Error::Arrow(*error),
        error => Error::unavailable("merge segments", error),
    }
}
