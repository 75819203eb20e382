//! What an event costs on the consumer's hot path, stage by stage: `cargo bench -p weir-consumer`.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

#[path = "support/events.rs"]
mod events;

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use events::{TIME_MICROS, event};
use prost::Message;
use uuid::Uuid;
use weir_consumer::{
    dedup::{Arrival, Fingerprinter, Window},
    plan::{Plan, Slot},
    shard::{Decider, Shard},
    sink::{Events, Rollups},
};
use weir_log::{RecordBatch, RecordBatchBuilder};
use weir_proto::{
    event::v1 as proto,
    record::{self, Parts},
};
use weir_rollup::{
    definition::{Catalog, CatalogSpec},
    level::Retention,
};

fn batch(from: u64, count: u64) -> RecordBatch {
    let mut builder = RecordBatchBuilder::with_capacity(300 * count as usize);
    for n in from..from + count {
        let time_ms = TIME_MICROS / 1000 + n as i64 / 20;
        builder.push(n, time_ms, b"user", &event(n).encode_to_vec());
    }
    builder.build(from + count)
}

fn catalog() -> Arc<Catalog> {
    let spec = CatalogSpec {
        dimensions: vec!["platform".to_owned()],
        numerics: vec!["price".to_owned()],
        definitions: vec![],
        retention: Retention::FOREVER,
    };
    Arc::new(Catalog::new(spec).expect("the catalog is right"))
}

fn plan(catalog: &Catalog) -> Plan {
    Plan::new(catalog.dimension_fields(), catalog.numeric_fields())
}

const BATCH: u64 = 4096;

fn decoding(c: &mut Criterion) {
    let catalog = catalog();
    let batch = batch(0, BATCH);
    let bytes: usize = batch.iter().map(|record| record.value.len()).sum();
    println!("{} bytes an event", bytes as u64 / BATCH);
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(BATCH));
    let plan = plan(&catalog);
    group.bench_function("in place", |b| {
        let mut slots = vec![Slot::Missing; plan.dimensions()];
        let mut numbers = vec![None; plan.numerics()];
        b.iter(|| {
            let mut parts = Parts::default();
            for record in batch.iter() {
                let event = record::read(record.value, &mut parts).expect("well formed");
                plan.fill(&event, &parts, &mut slots, &mut numbers);
                black_box((event, &slots, &numbers));
                parts.clear();
            }
        });
    });
    group.bench_function("prost", |b| {
        b.iter(|| {
            for record in batch.iter() {
                black_box(proto::EventRecord::decode(record.value)).expect("well formed");
            }
        });
    });
    group.finish();
}

fn deduplication(c: &mut Criterion) {
    let mut group = c.benchmark_group("dedup");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("fingerprint", |b| {
        let mut fingerprinter = Fingerprinter::default();
        let ids: Vec<String> = (0..BATCH).map(|n| Uuid::from_u128(n.into()).to_string()).collect();
        b.iter(|| {
            for id in &ids {
                black_box(fingerprinter.of("default", id));
            }
        });
    });
    for remembered in [100_000u64, 10_000_000] {
        let mut window = Window::new(Duration::from_secs(3600), 1 << 40);
        let mut next = 0u64;
        let mut arrivals = |hours: i64, count: u64| -> Vec<Arrival> {
            (0..count)
                .map(|_| {
                    next += 1;
                    let fingerprint = Some(next.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    Arrival { append_time_ms: hours * 3_600_000, fingerprint }
                })
                .collect()
        };
        let mut duplicate = Vec::new();
        window.admit(&arrivals(1, remembered), &mut duplicate);
        window.admit(&arrivals(2, remembered), &mut duplicate);
        group.bench_function(format!("admit with {remembered} remembered twice"), |b| {
            b.iter_batched_ref(
                || arrivals(2, BATCH),
                |arrivals| arrivals.chunks(128).for_each(|chunk| window.admit(chunk, &mut duplicate)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn shard(c: &mut Criterion) {
    let catalog = catalog();
    let batches: Vec<RecordBatch> = (0..64).map(|i| batch(i * BATCH, BATCH)).collect();
    let mut group = c.benchmark_group("shard");
    group.sample_size(20);
    group.throughput(Throughput::Elements(64 * BATCH));
    group.bench_function("step and cut", |b| {
        b.iter_batched(
            || {
                let window = Window::new(Duration::from_secs(3600), 1 << 40);
                let rollups = Rollups::new(Arc::clone(&catalog), Duration::from_secs(60), 0, 0);
                Shard::new(
                    Decider::new(plan(&catalog), window),
                    rollups,
                    Events::new(Duration::from_secs(60), 0),
                )
            },
            |mut shard| {
                for (i, batch) in batches.iter().enumerate() {
                    let mut at = 0;
                    while at < batch.len() {
                        at = shard.step(batch, at);
                    }
                    if i % 16 == 15 {
                        black_box(shard.rollups_mut().cut(Uuid::nil()).batch.encode_to_vec());
                    }
                }
                shard
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, decoding, deduplication, shard);
criterion_main!(benches);
