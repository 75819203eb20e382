//! The log's clock is wrong for a while.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};

use weir_log::{Clock, Retention};

use crate::{
    fixture::{Fixture, Sent, now_micros},
    oracle::Oracle,
};

const DAY: i64 = 86_400_000_000;

/// A log whose clock is ahead by so many microseconds.
async fn fixture() -> (Fixture, Arc<AtomicI64>) {
    let ahead = Arc::new(AtomicI64::new(0));
    let shown = Arc::clone(&ahead);
    let clock = Clock::of(move || (now_micros() + shown.load(SeqCst)) / 1000);
    (Fixture::with(1, Retention::default(), |config| config.clock = clock).await, ahead)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_of_the_clock_leaves_no_trace_but_in_what_came_meanwhile() {
    let (fixture, ahead) = fixture().await;
    let mut consumer = fixture.consumer().await;
    let mut oracle = Oracle::new(&fixture, 0).await;
    let before: Vec<Sent> = (0..10).map(Sent::new).collect();
    fixture.append(0, before.iter().map(Sent::encode)).await;
    oracle.catch_up(&fixture, 0).await;

    ahead.store(400 * DAY, SeqCst);
    let meanwhile = Sent { import: None, ..Sent::new(10) };
    fixture.append(0, [meanwhile.encode()]).await;
    oracle.catch_up(&fixture, 0).await;
    ahead.store(0, SeqCst);
    assert_eq!(oracle.tally.late, 1, "by the clock as it was");

    let after: Vec<Sent> = (11..911).map(Sent::new).collect();
    fixture.append(0, after.iter().map(Sent::encode)).await;
    oracle.catch_up(&fixture, 0).await;
    assert_eq!((oracle.tally.counted, oracle.tally.late), (911, 1), "what comes later is in time");
    let status = consumer.until(|status| watermark(status) <= now_micros()).await;
    assert!(watermark(&status) > now_micros() - DAY, "{status:?}");

    // The deduplication window holds across the jump, for who was there and for who comes after.
    for rounds in 1..3 {
        let again = before.iter().chain([&meanwhile]).chain(&after[..20]);
        fixture.append(0, again.map(Sent::encode)).await;
        oracle.catch_up(&fixture, 0).await;
        assert_eq!((oracle.tally.counted, oracle.tally.duplicates), (911, 31 * rounds));
        consumer.crash().await;
        consumer = fixture.consumer().await;
    }
    consumer.until_ready(true, "").await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_in_the_future_is_told_and_falls_by_itself() {
    let (fixture, ahead) = fixture().await;
    ahead.store(400 * DAY, SeqCst);
    fixture.append(0, [Sent::new(0).encode()]).await;
    let consumer = fixture.consumer().await;
    let mut oracle = Oracle::new(&fixture, 0).await;
    oracle.catch_up(&fixture, 0).await;
    let told = consumer.until_ready(false, "ahead of this machine's clock").await;
    assert!(told.contains("set the clock right"), "{told}");
    let status = consumer.until(|status| watermark(status) > now_micros() + DAY).await;
    assert!(status.partitions[0].detail.contains("ahead of this machine's clock"), "{status:?}");

    // Nothing is sent any more; the heartbeat brings the right time.
    ahead.store(0, SeqCst);
    consumer.until(|status| watermark(status) <= now_micros()).await;
    consumer.until_ready(true, "").await;
    consumer.stop().await;
}

fn watermark(status: &weir_proto::processing::v1::Status) -> i64 {
    let watermark = status.partitions.first().and_then(|partition| partition.watermark);
    watermark.map_or(i64::MAX, |at| at.seconds * 1_000_000)
}
