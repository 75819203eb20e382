//! Events that are missing: their segment is torn, or they are no longer kept.

use weir_proto::analytics::v1::{Measure, measure::Kind};
use weir_store::EventStore as _;

use super::{
    questions::{apart, ask, breakdown, consumers},
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
