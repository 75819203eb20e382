//! The embedded log: group commit with one and with many callers, and reading.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use weir_log::{EmbeddedConfig, EmbeddedLog, EventLog, Record, Retention, TopicPolicy, TopicSpec};

const TOPIC: &str = "bench";
/// The size of a realistic event.
const VALUE: usize = 300;

fn open(dir: &std::path::Path, runtime: &Runtime) -> Arc<EmbeddedLog> {
    let log = EmbeddedLog::open(EmbeddedConfig::at(dir)).expect("a fresh directory opens");
    let topic = TopicSpec { name: TOPIC.to_owned(), partitions: 1, retention: Retention::default() };
    runtime.block_on(log.ensure_topics(&[topic], TopicPolicy::Create)).expect("a topic is made");
    log
}

fn record() -> Record {
    Record::new("user-1", vec![7; VALUE])
}

fn append(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), &runtime);
    let mut group = c.benchmark_group("append");
    for (writers, batch) in [(1, 1), (64, 1), (1, 1000), (64, 100)] {
        group.throughput(Throughput::Elements(writers * batch));
        let id = BenchmarkId::from_parameter(format!("{writers} writers of {batch}"));
        group.bench_function(id, |b| {
            b.to_async(&runtime).iter(|| {
                let appends = (0..writers).map(|_| {
                    let records = vec![record(); batch as usize];
                    let log = Arc::clone(&log);
                    async move { log.append(TOPIC, 0, records).await.expect("an append succeeds") }
                });
                futures::future::join_all(appends)
            });
        });
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    const RECORDS: u64 = 500_000;
    let runtime = Runtime::new().expect("a runtime starts");
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), &runtime);
    runtime.block_on(async {
        for _ in 0..RECORDS / 1000 {
            log.append(TOPIC, 0, vec![record(); 1000]).await.expect("an append succeeds");
        }
    });
    let mut group = c.benchmark_group("read");
    group.sample_size(20).throughput(Throughput::Elements(RECORDS));
    group.bench_function("300 bytes from the page cache", |b| {
        b.to_async(&runtime).iter(|| async {
            let mut reader = log.reader(TOPIC, 0, 0).await.expect("the start is readable");
            let mut bytes = 0;
            while reader.position() < RECORDS {
                let batch = reader.next(Duration::from_secs(1)).await.expect("records come");
                bytes += batch.iter().map(|r| r.value.len()).sum::<usize>();
            }
            black_box(bytes)
        });
    });
    group.finish();
}

criterion_group!(benches, append, read);
criterion_main!(benches);
