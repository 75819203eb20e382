//! Events that are missing: their segment is torn, or they are no longer kept.

use datafusion::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path as Name,
};
use futures::stream::BoxStream;
use tokio::sync::RwLock;
use tonic::Status;
use tonic_types::StatusExt as _;
use weir_proto::analytics::v1::{
    Measure, QuerySqlRequest, ResultInfo, measure::Kind, query_sql_response::Part,
};
use weir_store::{EventStore as _, Objects};

use super::{
    questions::{apart, ask, breakdown, consumers, funnel},
    *,
};
use crate::testing::{DAY, HOUR};

/// Overwrites the columns of the segment with the earliest events; its size and footer are what they were.
async fn tear_earliest(store: &Store) {
    let segments = store.scan("default", 2).await.unwrap().segments;
    let path = &segments.iter().min_by_key(|segment| segment.times.min).unwrap().path;
    let mut bytes = store.objects().get(path).await.unwrap().unwrap().to_vec();
    // At the end: the footer, its length in 4 bytes, and `PAR1`.
    let (rest, end) = bytes.split_at(bytes.len() - 8);
    let footer = u32::from_le_bytes(end[..4].try_into().unwrap());
    let columns = 4..rest.len() - footer as usize;
    bytes[columns].fill(0xa5);
    store.objects().delete(path).await.unwrap();
    let _ = store.objects().create(path, bytes.into()).await.unwrap();
}

/// Questions about the last 24 hours: one that reads only these, and two that read what was before, too.
fn questions() -> (Query, [Query; 2]) {
    let users = Measure { kind: Kind::UniqueUsers.into(), exact: true, ..Measure::default() };
    let alone = QueryBreakdownRequest { time_range: None, measures: vec![users], ..breakdown("event_name") };
    let compared = QueryBreakdownRequest { compare_previous: true, ..alone.clone() };
    let rolling = QueryTimeSeriesRequest {
        interval: Interval::Day.into(),
        rolling_buckets: 7,
        ..QueryTimeSeriesRequest::default()
    };
    (Query::Breakdown(alone), [Query::Breakdown(compared), Query::TimeSeries(rolling)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_torn_before_the_range_is_missing_where_it_is_read() {
    let (alone, reaching_back) = questions();
    for question in reaching_back {
        let dir = tempfile::tempdir().unwrap();
        let system = System::start(dir.path()).await;
        let [mut consumer, _other] = consumers(&system).await;
        consumer.take(&system, &[Event::at(now_micros() - 30 * HOUR)]).await;
        consumer = consumer.flush(&system).await;
        let (partition, offset) = consumer.take(&system, &[recent(1)]).await;
        let _owner = consumer.flush(&system).await;
        tear_earliest(&system.store).await;

        // At first the tear is not known.
        for _ in 0..2 {
            let (_, info) = apart(ask(&system, question.clone(), token(partition, offset)).await);
            assert_eq!((info.missing_parts.len(), info.exact), (1, false), "{question:?}: {info:?}");
            assert_eq!(info.missing_parts[0].events, 1);
            let asked = info.end_time.unwrap().seconds - info.start_time.unwrap().seconds;
            assert_eq!(asked * SECOND, DAY, "the answer is about the range that was asked for");
        }
        let (_, info) = apart(ask(&system, alone.clone(), token(partition, offset)).await);
        assert_eq!((info.missing_parts.len(), info.exact), (0, true), "{info:?}");
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_for_the_range_but_not_for_all_that_is_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Some(Duration::from_secs(36 * 3600));
    let settings = Settings { retention: kept, ..Settings::folder(dir.path().join("store")) };
    let system = System::start_over(Store::open(settings).await.unwrap(), dir.path()).await;
    let _owned = consumers(&system).await;
    let (alone, reaching_back) = questions();
    let (_, info) = apart(ask(&system, alone, String::new()).await);
    assert_eq!(info.coverage_start_time, None);
    for question in reaching_back {
        let (_, info) = apart(ask(&system, question.clone(), String::new()).await);
        let since =
            info.coverage_start_time.unwrap_or_else(|| panic!("{question:?} reads more than is kept"));
        assert!(since.seconds < info.start_time.unwrap().seconds);
    }
    system.stop().await;
}

/// Objects in memory. Nobody learns how large segments are while their sizes are locked.
#[derive(Debug, Default)]
struct Slow {
    inner: InMemory,
    sizes: RwLock<()>,
}

impl std::fmt::Display for Slow {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("slow")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Slow {
    async fn put_opts(&self, at: &Name, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Name,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Name, options: GetOptions) -> Result<GetResult> {
        if options.head && at.as_ref().ends_with(".parquet") {
            let _unlocked = self.sizes.read().await;
        }
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Name>>) -> BoxStream<'static, Result<Name>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, below: Option<&Name>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(below)
    }

    async fn list_with_delimiter(&self, below: Option<&Name>) -> Result<ListResult> {
        self.inner.list_with_delimiter(below).await
    }

    async fn copy_opts(&self, from: &Name, to: &Name, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Counts users in SQL: what the answer says about itself.
async fn sql(system: &System) -> Result<ResultInfo, Status> {
    let statement = "select count(distinct user_id) from events".to_owned();
    let question = QuerySqlRequest { statement, ..QuerySqlRequest::default() };
    let mut parts = system.client.clone().query_sql(question).await?.into_inner();
    while let Some(part) = parts.message().await? {
        if let Some(Part::Statistics(statistics)) = part.part {
            return Ok(statistics.info.expect("it says something"));
        }
    }
    panic!("an answer ends with statistics");
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_that_fails_on_a_torn_segment_does_not_wait_until_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Arc::new(Slow::default());
    let store = Store::over(Objects::over(objects.clone()), Settings::folder("unused"));
    let system = System::start_over(store, dir.path()).await;
    let [mut consumer, _other] = consumers(&system).await;
    consumer.take(&system, &[recent(1)]).await;
    let _owner = consumer.flush(&system).await;
    tear_earliest(&system.store).await;

    let locked = objects.sizes.write().await;
    let failed = tokio::time::timeout(PATIENCE, sql(&system)).await.expect("it fails at once").unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable, "{failed}");
    drop(locked);
    let answered = async {
        loop {
            if let Ok(info) = sql(&system).await {
                break info;
            }
        }
    };
    let info = tokio::time::timeout(PATIENCE, answered).await.expect("the segment is left out");
    assert_eq!((info.missing_parts.len(), info.exact), (1, false), "{info:?}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_for_a_partition_that_is_being_assigned() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path()).await;
    let ask_within = async |within: Duration| {
        let mut request = Request::new(funnel(&["page_view"]));
        request.set_timeout(within);
        system.client.clone().query_funnel(request).await
    };
    let status = ask_within(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(
        status.message().ends_with("is being assigned to a consumer; retry in a few seconds"),
        "{status}"
    );
    assert!(status.get_details_retry_info().is_some_and(|retry| retry.retry_delay > Some(Duration::ZERO)));

    let (answered, [mut first, _second]) = tokio::join!(ask_within(PATIENCE), consumers(&system));
    assert_eq!(answered.unwrap().into_inner().info.unwrap().missing_parts, []);
    // The events of those who are there are whole.
    let (partition, offset) = first.take(&system, &[recent(1)]).await;
    let (_, info) =
        apart(ask(&system, Query::Funnel(funnel(&["page_view"])), token(partition, offset)).await);
    assert_eq!(info.missing_parts, []);
    system.stop().await;
}
