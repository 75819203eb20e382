//! The table of a project's events, for DataFusion: segments and the hot part as one [`View`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt64Array,
    },
    compute::{max, min},
    datatypes::{SchemaRef, TimestampMicrosecondType},
};
use datafusion::{
    catalog::{Session, TableProvider},
    common::{
        Column as ColumnName, DFSchema, DataFusionError, ScalarValue, pruning::PruningStatistics,
        tree_node::TreeNodeRecursion,
    },
    datasource::{
        listing::PartitionedFile,
        memory::MemorySourceConfig,
        physical_plan::{
            FileGroup, FileGroupPartitioner, FileScanConfigBuilder, FileSource as _, ParquetSource,
            parquet::{CachedParquetFileReaderFactory, metadata::DFParquetMetadata},
        },
        source::DataSourceExec,
    },
    execution::{TaskContext, object_store::ObjectStoreUrl},
    logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_expr::{
        PhysicalExpr,
        expressions::Column as PhysicalColumn,
        projection::{ProjectionExpr, ProjectionExprs},
        utils::collect_columns,
    },
    physical_expr_adapter::{PhysicalExprAdapter as _, replace_columns_with_literals},
    physical_optimizer::pruning::PruningPredicateBuilder,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
        empty::EmptyExec, filter::FilterExecBuilder, metrics::MetricsSet, projection::ProjectionExec,
        union::UnionExec,
    },
};
use futures::{StreamExt as _, stream};
use object_store::{ObjectStore, path::Path};
use parquet::file::metadata::PageIndexPolicy;

use crate::{
    manifest::{Segment, row_group_bytes},
    numbered,
    reader::Snapshot,
    schema::column,
    segment::{FOOTER_HINT, ROW_GROUP},
    store::Store,
    view::{Adapter, Adapters, PARTITION, View},
    width,
};

/// Files below this size are read as a whole by one thread: splitting them costs more than it brings. Bytes.
const SPLIT_FROM: usize = 4 << 20;
/// Rows of the hot part that go to a thread at least.
const HOT_ROWS: usize = 65_536;
/// Footers that are read at once: enough to wait for an object store a few times and not for each file.
const FOOTERS: usize = 32;
/// Files up to which it is worth to look at their footers before they are read: more of them are small, and not all footers are
/// remembered until then.
const LOOKED_AT: usize = 256;
/// Batches that a thread has at a time: one that is decoded, one that is filtered, one on its way.
const BATCHES: u64 = 3;
/// Says of a row whether the filters hold, where no column of the view does.
const HOLDS: &str = "holds";

/// Bytes of the batches that a thread has at a time.
fn of_batches(width: u64) -> u64 {
    width.saturating_mul(BATCHES * width::rows(width) as u64)
}

/// A segment, as far as reading it needs to know.
#[derive(Clone, Debug)]
pub struct File {
    /// The partition of its events.
    pub partition: u32,
    /// Where it lies.
    pub path: Path,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// Least and greatest time, microseconds since the Unix epoch.
    pub time: (i64, i64),
    /// Least and greatest `user_hash`.
    pub users: (i64, i64),
    /// All event names in it, if they are few.
    pub names: Option<Vec<String>>,
    /// Names of the columns of chosen properties.
    pub columns: Vec<String>,
    /// Columns that are wide, and how many bytes a row of them takes; `None` where that is not known.
    pub wide: Option<BTreeMap<String, u64>>,
}

/// Bytes of a row of a file of which nothing is known.
const UNKNOWN: u64 = 2 << 10;
/// Bytes of narrow columns that take one in a file.
const PACKED: u64 = 4;

impl File {
    /// Bytes of a row of some columns of a view.
    fn width(&self, view: &View, columns: &[usize]) -> u64 {
        let Some(wide) = &self.wide else { return UNKNOWN };
        columns.iter().map(|index| view.width(*index, &self.columns, wide)).sum()
    }

    /// What a reader of rows of this width holds of it at most: a row group as it is in the file, and some batches. Bytes.
    fn held(&self, width: u64) -> usize {
        let narrow = (ROW_GROUP as u64).saturating_mul(width) / PACKED;
        (row_group_bytes(self.bytes, self.rows).min(narrow) + of_batches(width)) as usize
    }

    /// The same for DataFusion. `PartitionedFile::new` would encode the path once more.
    fn of_table(&self, view: &View) -> PartitionedFile {
        let mut file = PartitionedFile::new("", self.bytes);
        file.object_meta.location = self.path.clone();
        if view.has_partition() {
            file.partition_values = vec![number(self.partition)];
        }
        file
    }

    /// What is to be known of a segment of a partition.
    pub fn of(segment: &Segment, partition: u32) -> Self {
        Self {
            partition,
            // As it is: its parts are encoded already.
            path: Path::parse(&segment.path).unwrap_or_else(|_| segment.path.as_str().into()),
            bytes: segment.bytes,
            rows: segment.rows,
            time: (segment.times.min, segment.times.max),
            users: (segment.users.min, segment.users.max),
            names: segment.names.as_ref().map(|names| names.keys().cloned().collect()),
            columns: segment.columns.clone(),
            wide: segment.wide.clone(),
        }
    }
}

/// A partition as a value of its column.
fn number(partition: u32) -> ScalarValue {
    ScalarValue::Int64(Some(partition.into()))
}

/// A table of events. What it shows never changes: it is made for a question and dropped with it.
#[derive(Debug)]
pub struct Table {
    view: View,
    files: Vec<File>,
    /// Batches with their partitions.
    hot: Vec<(u32, RecordBatch)>,
    /// Least and greatest time of all rows; `None` without any.
    time: Option<(i64, i64)>,
    url: ObjectStoreUrl,
    objects: Arc<dyn ObjectStore>,
}

impl Table {
    /// A table with the columns of `view`, over the events of a snapshot of a store.
    pub fn of(view: View, snapshot: &Snapshot, store: &Store) -> Self {
        let of_each = (snapshot.segment_partitions.len(), snapshot.hot_partitions.len());
        assert_eq!((snapshot.segments.len(), snapshot.hot.len()), of_each, "the partition of each is known");
        let segments = snapshot.segments.iter().zip(&snapshot.segment_partitions);
        let files = segments.map(|(segment, partition)| File::of(segment, *partition)).collect();
        let hot = snapshot.hot_partitions.iter().copied().zip(snapshot.hot.iter().cloned()).collect();
        Self::new(view, files, hot, store.object_store_url(), store.object_store())
    }

    /// A table with the columns of `view`, over segments that lie in `objects`, which DataFusion knows as `url`, and batches with
    /// their partitions.
    pub fn new(
        view: View,
        files: Vec<File>,
        hot: Vec<(u32, RecordBatch)>,
        url: ObjectStoreUrl,
        objects: Arc<dyn ObjectStore>,
    ) -> Self {
        let of_hot = hot.iter().filter_map(|(_, batch)| {
            let times = batch.column_by_name(column::TIME)?.as_primitive_opt::<TimestampMicrosecondType>()?;
            Some((min(times)?, max(times)?))
        });
        let times = files.iter().map(|file| file.time).chain(of_hot);
        let time = times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        Self { view, files, hot, time, url, objects }
    }

    /// The files that can hold rows that pass.
    fn candidates(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Result<Vec<&File>, DataFusionError> {
        let Some(predicate) = predicate else { return Ok(self.files.iter().collect()) };
        let pruning = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(self.view.schema()))
            .try_build(Arc::clone(predicate))?;
        let kept = pruning.prune(&Statistics(&self.files))?;
        Ok(self.files.iter().zip(kept).filter(|(_, kept)| *kept).map(|(file, _)| file).collect())
    }

    /// Whether a filter is a bound on time that all rows keep. Most questions are about a range of time that all of a segment
    /// lies in: nothing is gained by looking at each row.
    fn all_pass(&self, filter: &Expr) -> bool {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return false };
        let (Expr::Column(name), Expr::Literal(ScalarValue::TimestampMicrosecond(Some(bound), _), _)) =
            (&**left, &**right)
        else {
            return false;
        };
        let Some((least, greatest)) = self.time.filter(|_| name.name() == column::TIME) else {
            return false;
        };
        match op {
            Operator::GtEq => least >= *bound,
            Operator::Gt => least > *bound,
            Operator::LtEq => greatest <= *bound,
            Operator::Lt => greatest < *bound,
            _ => false,
        }
    }

    /// Whether to find the rows that pass before anything else of them is read. It pays where they lie together, as those of a
    /// user do, and where the rest is expensive, as a map is; else looking up which rows to read takes longer than reading all.
    fn filters_first(
        &self,
        files: &[&File],
        projection: &[usize],
        predicate: &Arc<dyn PhysicalExpr>,
    ) -> bool {
        let users = |column: &PhysicalColumn| column.name() == column::USER_HASH;
        collect_columns(predicate).iter().any(users)
            || projection
                .iter()
                .any(|index| files.iter().any(|file| self.view.reads_map(*index, &file.columns)))
    }

    /// What to open of files, with dictionaries kept of those columns that a predicate looks at, and of those that are to have some.
    async fn open(
        &self,
        state: &dyn Session,
        files: &[&File],
        projection: &[usize],
        predicate: Option<&Arc<dyn PhysicalExpr>>,
    ) -> Vec<PartitionedFile> {
        let files: Vec<_> = files.iter().map(|file| file.of_table(&self.view)).collect();
        let numbered = projection.iter().copied().filter(|index| self.view.is_numbered(*index));
        let tested = predicate.into_iter().flat_map(collect_columns).map(|column| column.index());
        let places: BTreeSet<_> =
            numbered.chain(tested).filter_map(|index| self.view.text_place(index)).collect();
        let places: Vec<_> = places.into_iter().collect();
        if places.is_empty() || files.len() > LOOKED_AT {
            return files;
        }
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let metadata = |file: PartitionedFile| {
            let cache = Arc::clone(&cache);
            async move {
                let footer = DFParquetMetadata::new(&*self.objects, &file.object_meta)
                    .with_file_metadata_cache(Some(cache))
                    .with_metadata_size_hint(Some(FOOTER_HINT))
                    .with_page_index_policy(Some(PageIndexPolicy::Skip));
                // What is wrong with a file shows when it is read.
                let found = footer.fetch_metadata().await.ok();
                (file, found)
            }
        };
        let mut schemas = numbered::Schemas::new(&places);
        let opened =
            stream::iter(files).map(metadata).buffered(FOOTERS).map(|(file, metadata)| {
                match metadata.and_then(|metadata| schemas.of(&metadata)) {
                    Some(schema) => file.with_arrow_schema(schema),
                    None => file,
                }
            });
        opened.collect().await
    }

    /// Columns of all segments that can matter, computed from those of a projection: files whose batches have as many rows in one
    /// part.
    async fn segments(
        &self,
        state: &dyn Session,
        columns: &[ProjectionExpr],
        projection: &[usize],
        predicate: Option<&Arc<dyn PhysicalExpr>>,
    ) -> Result<Vec<Part>, DataFusionError> {
        let read: Vec<usize> = match predicate {
            Some(predicate) => {
                let tested = collect_columns(predicate).into_iter().map(|column| column.index());
                projection.iter().copied().chain(tested).collect::<BTreeSet<_>>().into_iter().collect()
            }
            None => projection.to_vec(),
        };
        let mut by_rows: BTreeMap<usize, (Vec<&File>, Vec<usize>)> = BTreeMap::new();
        for file in self.candidates(predicate)? {
            let width = file.width(&self.view, &read);
            let (files, held) = by_rows.entry(width::rows(width)).or_default();
            files.push(file);
            held.push(file.held(width));
        }
        let mut parts = Vec::with_capacity(by_rows.len());
        for (rows, (files, mut held)) in by_rows {
            let plan = self.files(state, columns, projection, predicate, &files, rows).await?;
            // Each thread has one file open.
            held.sort_unstable_by(|a, b| b.cmp(a));
            let held = held.iter().take(state.config().target_partitions()).sum();
            parts.push(Part { plan, rows, held });
        }
        Ok(parts)
    }

    async fn files(
        &self,
        state: &dyn Session,
        columns: &[ProjectionExpr],
        projection: &[usize],
        predicate: Option<&Arc<dyn PhysicalExpr>>,
        files: &[&File],
        rows: usize,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let threads = state.config().target_partitions();
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let factory = CachedParquetFileReaderFactory::new(Arc::clone(&self.objects), cache);
        let mut source = ParquetSource::new(self.view.table_schema())
            .with_parquet_file_reader_factory(Arc::new(factory))
            .with_metadata_size_hint(FOOTER_HINT);
        if let Some(predicate) = predicate {
            source = source
                .with_pushdown_filters(self.filters_first(files, projection, predicate))
                .with_reorder_filters(true)
                .with_predicate(Arc::clone(predicate));
        }
        let group = FileGroup::new(self.open(state, files, projection, predicate).await);
        let groups = FileGroupPartitioner::new()
            .with_target_partitions(threads)
            .with_repartition_file_min_size(SPLIT_FROM)
            .repartition_file_groups(std::slice::from_ref(&group));
        let groups = groups.unwrap_or_else(|| group.split_files(threads));
        let Some(source) = source.try_pushdown_projection(&columns.iter().cloned().collect())? else {
            return Err(DataFusionError::Internal("Parquet is read with projections".to_owned()));
        };
        let config = FileScanConfigBuilder::new(self.url.clone(), source)
            .with_file_groups(groups)
            .with_expr_adapter(Some(Arc::new(Adapters(self.view.clone()))))
            .with_batch_size(Some(rows.min(state.config().batch_size())))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// The same of the hot part.
    fn hot(&self, state: &dyn Session, columns: &[ProjectionExpr]) -> Result<Vec<Part>, DataFusionError> {
        let mut plans = Vec::new();
        let mut by_schema: Vec<((SchemaRef, usize, u32), Vec<RecordBatch>)> = Vec::new();
        let mut widest = 0;
        for (partition, batch) in &self.hot {
            // Batches of all partitions are one part where nobody asks of which they are.
            let partition = if self.view.has_partition() { *partition } else { 0 };
            let width = (width::bytes(batch) / batch.num_rows().max(1)) as u64;
            widest = widest.max(width);
            let rows = width::rows(width);
            let pieces = width::pieces(batch, width::BATCH_BYTES);
            let is_of = |(schema, of, from): &(SchemaRef, usize, u32)| {
                schema == batch.schema_ref() && *of == rows && *from == partition
            };
            match by_schema.iter_mut().find(|(of, _)| is_of(of)) {
                Some((_, batches)) => batches.extend(pieces),
                None => by_schema.push(((batch.schema(), rows, partition), pieces.collect())),
            }
        }
        for ((schema, rows_at_once, partition), batches) in by_schema {
            let known = HashMap::from([(PARTITION, number(partition))]);
            let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
            let threads = (rows / HOT_ROWS).clamp(1, state.config().target_partitions());
            let mut shares = vec![Vec::new(); threads];
            for (index, batch) in batches.into_iter().enumerate() {
                shares[index % threads].push(batch);
            }
            let source = MemorySourceConfig::try_new_exec(&shares, Arc::clone(&schema), None)?;
            let adapter = Adapter { view: self.view.clone(), file: schema };
            let expressions = columns.iter().map(|column| {
                let expr = replace_columns_with_literals(Arc::clone(&column.expr), &known)?;
                let expr = adapter.rewrite(expr)?;
                Ok(ProjectionExpr { expr, alias: column.alias.clone() })
            });
            let expressions: Vec<_> = expressions.collect::<Result<_, DataFusionError>>()?;
            let plan: Arc<dyn ExecutionPlan> = Arc::new(ProjectionExec::try_new(expressions, source)?);
            plans.push(Part { plan, rows: rows_at_once, held: threads * of_batches(widest) as usize });
        }
        Ok(plans)
    }
}

#[async_trait::async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.view.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    /// Filters choose the segments and what is read of them, and are applied here to what was read: where it is read it is known
    /// which texts are numbers.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let schema = DFSchema::try_from(Arc::clone(self.view.schema()))?;
        let filters = filters.iter().filter(|filter| !self.all_pass(filter));
        let predicate = conjunction(filters.cloned()).map(|all| state.create_physical_expr(all, &schema));
        let predicate = predicate.transpose()?;
        let all: Vec<usize> = (0..self.view.schema().fields().len()).collect();
        let projection = projection.unwrap_or(&all);
        let mut columns: Vec<ProjectionExpr> =
            ProjectionExprs::from_indices(projection, self.view.schema()).iter().cloned().collect();
        let mut filter_by = None;
        if let Some(predicate) = &predicate {
            match projection.iter().position(|index| self.view.is_holds(*index)) {
                Some(at) => columns[at].expr = Arc::clone(predicate),
                None => {
                    filter_by = Some(columns.len());
                    columns.push(ProjectionExpr::new(Arc::clone(predicate), HOLDS));
                }
            }
        }
        let segments = self.segments(state, &columns, projection, predicate.as_ref()).await?;
        let parts: Vec<_> = segments.into_iter().chain(self.hot(state, &columns)?).collect();
        if parts.is_empty() {
            let schema = Arc::new(self.view.schema().project(projection)?);
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        Ok(Arc::new(Scan::of(parts, filter_by)?))
    }
}

/// What the manifest knows of each file.
struct Statistics<'f>(&'f [File]);

impl Statistics<'_> {
    fn bounds(&self, name: &str, of: impl Fn((i64, i64)) -> i64) -> Option<ArrayRef> {
        match name {
            column::TIME => {
                let times = self.0.iter().map(|file| of(file.time));
                Some(Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")))
            }
            column::USER_HASH => {
                Some(Arc::new(Int64Array::from_iter_values(self.0.iter().map(|file| of(file.users)))))
            }
            PARTITION => Some(Arc::new(Int64Array::from_iter_values(
                self.0.iter().map(|file| i64::from(file.partition)),
            ))),
            _ => None,
        }
    }
}

impl PruningStatistics for Statistics<'_> {
    fn min_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        self.bounds(column.name(), |(least, _)| least)
    }

    fn max_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        self.bounds(column.name(), |(_, greatest)| greatest)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _column: &ColumnName) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.0.iter().map(|file| file.rows))))
    }

    /// Whether the names of a file are all (true) or none of them (false) among these.
    fn contained(&self, column: &ColumnName, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        if column.name() != column::EVENT_NAME {
            return None;
        }
        let values: HashSet<&str> = values.iter().filter_map(|value| value.try_as_str().flatten()).collect();
        let verdict = |file: &File| {
            let names = file.names.as_ref()?;
            let found = names.iter().filter(|name| values.contains(name.as_str())).count();
            match found {
                0 => Some(false),
                _ if found == names.len() => Some(true),
                _ => None,
            }
        };
        Some(self.0.iter().map(verdict).collect())
    }
}

/// The scan of a table, as one leaf: no optimizer may take filters that are above it away and hand them to files that
/// can't apply them.
#[derive(Debug)]
struct Scan {
    inner: Arc<dyn ExecutionPlan>,
    /// What reads segments and the hot part.
    parts: Vec<Part>,
    /// The last column of the parts, if it says of a row whether it is one of the table's.
    holds: Option<usize>,
}

/// Something that is read in batches of a size.
#[derive(Clone, Debug)]
struct Part {
    plan: Arc<dyn ExecutionPlan>,
    /// Rows of a batch, so that it comes to about [`width::BATCH_BYTES`].
    rows: usize,
    /// What is held of files and in batches while it is read, bytes.
    held: usize,
}

impl Part {
    /// Without the rows for which the last column says that they are not the table's.
    fn filtered(&self, holds: Option<usize>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let Some(holds) = holds else { return Ok(Arc::clone(&self.plan)) };
        let filter =
            FilterExecBuilder::new(Arc::new(PhysicalColumn::new(HOLDS, holds)), Arc::clone(&self.plan));
        // It makes large batches of small ones.
        let filter = filter.with_batch_size(self.rows).apply_projection(Some((0..holds).collect()))?;
        Ok(Arc::new(filter.build()?))
    }
}

impl Scan {
    /// Of parts, at least one, with the same columns.
    fn of(parts: Vec<Part>, holds: Option<usize>) -> Result<Self, DataFusionError> {
        let filtered = parts.iter().map(|part| part.filtered(holds));
        let mut filtered = filtered.collect::<Result<Vec<_>, _>>()?;
        let inner = match filtered.len() {
            1 => filtered.remove(0),
            _ => UnionExec::try_new(filtered)?,
        };
        Ok(Self { inner, parts, holds })
    }
}

/// What the scans of a plan hold of files and in batches while they run, at most and about: bytes.
pub fn footprint(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.downcast_ref::<Scan>().map_or(0, |scan| scan.parts.iter().map(|part| part.held).sum());
    plan.children().into_iter().map(footprint).fold(own, usize::saturating_add)
}

/// Rows of a batch that an operator of a plan may make: as many as its scans put into one.
pub fn rows_at_once(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.downcast_ref::<Scan>().and_then(|scan| scan.parts.iter().map(|part| part.rows).min());
    plan.children().into_iter().map(rows_at_once).fold(own.unwrap_or(width::BATCH), usize::min)
}

impl DisplayAs for Scan {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventsScan:")?;
        let parts = self.parts.iter().map(|part| datafusion::physical_plan::displayable(part.plan.as_ref()));
        parts.into_iter().try_for_each(|part| write!(f, " {}", part.one_line()))
    }
}

impl ExecutionPlan for Scan {
    fn name(&self) -> &str {
        "EventsScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _apply: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        self.inner.execute(partition, context)
    }

    /// Computes where rows are read what wants to be: there it is known which texts are numbers.
    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
        if !projection.expr().iter().all(|wanted| wanted.expr.placement().should_push_to_leaves()) {
            return Ok(None);
        }
        let holds =
            self.holds.map(|at| ProjectionExpr::new(Arc::new(PhysicalColumn::new(HOLDS, at)) as _, HOLDS));
        let wanted: Vec<_> = projection.expr().iter().cloned().chain(holds).collect();
        let parts = self.parts.iter().map(|part| {
            let projected = ProjectionExec::try_new(wanted.clone(), Arc::clone(&part.plan))?;
            let swapped = part.plan.try_swapping_with_projection(&projected)?;
            Ok(Part { plan: swapped.unwrap_or_else(|| Arc::new(projected)), ..part.clone() })
        });
        let parts = parts.collect::<Result<_, DataFusionError>>()?;
        Ok(Some(Arc::new(Self::of(parts, self.holds.map(|_| wanted.len() - 1))?)))
    }

    /// Of what was read.
    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = MetricsSet::new();
        for metrics in self.parts.iter().filter_map(|part| part.plan.metrics()) {
            metrics.iter().for_each(|metric| all.push(Arc::clone(metric)));
        }
        Some(all)
    }
}
