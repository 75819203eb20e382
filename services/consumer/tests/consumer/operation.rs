//! What operators and users see: late events, lost events, status, errors.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;
use weir_log::{Committed, Retention, TopicPolicy, TopicSpec};
use weir_proto::processing::v1::partition_status::State;
use weir_store::{CleanBatch, EventStore as _};

use crate::{
    fixture::{Consumer, EVENTS, Fixture, METRICS, Sent, now_micros},
    oracle::{Oracle, Totals},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_events_count_in_their_own_bucket() {
    let fixture = Fixture::new(1).await;
    let consumer = fixture.consumer().await;
    let hour = 3_600_000_000;
    let mut sent: Vec<Sent> = (0..10).map(Sent::new).collect();
    sent.iter_mut().for_each(|event| event.import = None);
    sent.iter_mut().skip(7).for_each(|event| event.time_micros = now_micros() - hour);
    // History that is imported says nothing about how late live traffic is.
    let history = (10..14).map(|id| Sent {
        time_micros: now_micros() - 100 * hour,
        import: Some(Uuid::nil()),
        ..Sent::new(id)
    });
    sent.extend(history);
    fixture.append(0, sent.iter().map(Sent::encode)).await;
    let mut oracle = Oracle::new(&fixture, 0).await;
    oracle.catch_up(&fixture, 0).await;
    assert_eq!(oracle.tally.late, 3);
    assert_eq!(oracle.totals, Totals { late: 3, ..Totals::of(&sent) });
    consumer.until(|s| s.partitions.iter().any(|p| p.late == 3)).await;
    let metrics = consumer.context.metrics.render();
    assert!(metrics.contains(r#"late_events_total{service="consumer"} 3"#), "{metrics}");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_deleted_unread_are_said_to_be_unavailable() {
    // Small segments, of which only the last few stay.
    let retention = Retention { age: None, bytes: Some(40_000) };
    let fixture = Fixture::with(1, retention, |config| {
        config.segment_bytes = 16 << 10;
        config.retention_check = Duration::from_millis(20);
    })
    .await;
    let sent: Vec<Sent> = (0..2000).map(Sent::new).collect();
    for some in sent.chunks(50) {
        fixture.append(0, some.iter().map(Sent::encode)).await;
    }
    while fixture.log.bounds(EVENTS, 0).await.unwrap().start == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let consumer = fixture.consumer().await;
    let mut oracle = Oracle::new(&fixture, 0).await;
    oracle.catch_up(&fixture, 0).await;
    assert!(oracle.tally.unavailable > 0);
    assert_eq!(oracle.tally.counted + oracle.tally.unavailable, 2000);
    assert_eq!(oracle.totals, Totals::of(&sent[oracle.tally.unavailable as usize..]));
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_shows_how_far_it_is() {
    let fixture = Fixture::new(2).await;
    let consumer = fixture.consumer().await;
    let sent: Vec<Sent> = (0..100).map(Sent::new).collect();
    fixture.append(1, sent.iter().chain(&sent[..5]).map(Sent::encode)).await;
    let status = consumer.until(|s| s.partitions.len() == 2 && s.partitions[1].counted == 100).await;
    let partition = &status.partitions[1];
    assert_eq!(partition.state(), State::Running);
    assert_eq!((partition.position, partition.end_offset, partition.lag_events), (105, 105, 0));
    assert_eq!(partition.duplicates, 5);
    let sinks: Vec<_> = partition.sinks.iter().map(|s| (s.sink.as_str(), s.next_offset)).collect();
    assert_eq!(sinks, [("rollups", 105), ("store", 105)]);
    assert_eq!(status.instance, consumer.context.instance);

    let metrics = consumer.context.metrics.render();
    let processed =
        r#"events_processed_total{outcome="processed",service="consumer",topic="analytics-events"} 100"#;
    assert!(metrics.contains(processed), "{metrics}");
    assert!(metrics.contains(r#"duplicates_suppressed_total{service="consumer"} 5"#), "{metrics}");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_when_a_consumer_comes_and_goes() {
    let fixture = Fixture::new(2).await;
    let first = fixture.consumer().await;
    first.until(|s| s.partitions.len() == 2).await;
    let second = fixture.consumer().await;
    let running = |count| {
        move |s: &weir_proto::processing::v1::Status| {
            s.partitions.iter().filter(|p| p.state() == State::Running).count() == count
                && s.partitions.len() == count
        }
    };
    second.until(running(1)).await;
    first.until(running(1)).await;
    first.stop().await;
    second.until(running(2)).await;
    let sent: Vec<Sent> = (0..200).map(Sent::new).collect();
    for partition in 0..2 {
        fixture.append(partition, sent.iter().map(Sent::encode)).await;
        let mut oracle = Oracle::new(&fixture, partition).await;
        oracle.catch_up(&fixture, partition).await;
        assert_eq!(oracle.totals, Totals::of(&sent));
        assert_eq!(oracle.void, 0);
    }
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_hint_is_not_believed() {
    let fixture = Fixture::new(1).await;
    let sent: Vec<Sent> = (0..100).map(Sent::new).collect();
    fixture.append(0, sent.iter().map(Sent::encode)).await;
    let consumer = fixture.consumer().await;
    let mut oracle = Oracle::new(&fixture, 0).await;
    oracle.catch_up(&fixture, 0).await;
    consumer.stop().await;
    // A position from another life of the topics.
    let owner = Uuid::from_u128(9);
    for metadata in [format!("weir/1 2 50 0 {owner} host:1"), "of no meaning".to_owned()] {
        let mut member = fixture.log.join(EVENTS, "weir-consumer").await.unwrap();
        member.next().await.unwrap();
        member.commit(0, Committed { position: 50, metadata });
        member.leave().await.unwrap();
        let consumer = fixture.consumer().await;
        let more: Vec<Sent> = (0..10).map(|n| Sent::new(oracle.next * 100 + n)).collect();
        let before = oracle.totals.count;
        fixture.append(0, more.iter().map(Sent::encode)).await;
        oracle.catch_up(&fixture, 0).await;
        assert_eq!(oracle.totals.count, before + 10);
        consumer.stop().await;
    }
}

/// Waits until the partition is given up, and gives the reason.
async fn blocked(consumer: &Consumer) -> String {
    let status = consumer.until(|s| s.partitions.iter().any(|p| p.state() == State::Blocked)).await;
    status.partitions[0].detail.clone()
}

/// As when the topics were recreated and the store was not: its events would be taken for those of the new topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_ahead_of_the_log_is_named_and_nothing_is_passed_over() {
    let fixture = Fixture::new(1).await;
    let ahead = CleanBatch { start: 0, end: 1000, watermark_micros: 0, events: vec![] };
    fixture.store().await.append(0, Uuid::now_v7(), ahead).await.unwrap();
    fixture.append(0, (0..10).map(|n| Sent::new(n).encode())).await;
    let consumer = fixture.consumer().await;
    let said = blocked(&consumer).await;
    assert!(said.contains("ends at offset 10, but the event store goes up to 1000"), "{said}");
    let store = fixture.config().store.location.unwrap();
    assert!(said.contains(&store), "it says what to move away: {said}");
    let mut oracle = Oracle::new(&fixture, 0).await;
    oracle.until(|oracle| oracle.claims > 0).await;
    assert_eq!(oracle.accepted, 0, "nothing is counted that is not stored");
    consumer.stop().await;
}

/// Offsets say nothing once another log has grown beyond those of the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_another_log_is_refused() {
    let (before, after) = (Fixture::new(1).await, Fixture::new(1).await);
    before.append(0, [Sent::new(1).encode()]).await;
    let consumer = before.consumer().await;
    Oracle::new(&before, 0).await.catch_up(&before, 0).await;
    consumer.stop().await;

    after.append(0, (0..10).map(|n| Sent::new(n).encode())).await;
    let consumer = Consumer::start(before.config(), Arc::clone(&after.log)).await;
    let said = blocked(&consumer).await;
    let identity = before.log.identity().await.unwrap();
    assert!(said.contains(&format!("holds the events of the log {identity}")), "{said}");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_do_not_fit_are_refused() {
    let fixture = Fixture::new(2).await;
    let odd = TopicSpec { name: "odd".to_owned(), partitions: 3, retention: Retention::default() };
    fixture.log.ensure_topics(&[odd], TopicPolicy::Create).await.unwrap();
    let mut config = fixture.config();
    config.topics.metrics = "odd".to_owned();
    let consumer = Consumer::start(config, Arc::clone(&fixture.log)).await;
    let error = consumer.error().await.to_string();
    assert!(error.contains("analytics-events has 2 partitions and odd has 3"), "{error}");
    assert_eq!(fixture.partitions, fixture.log.partitions(METRICS).await.unwrap());
}
