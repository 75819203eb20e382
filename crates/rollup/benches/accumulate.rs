//! What an event costs the accumulator, draining and encoding included: realistic batches of 4096 events of 2,000 users,
//! 20 event names and 3 platforms within 20 ms, three definitions (total, by event, by event and platform).

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weir_rollup::{
    accumulate::{Accumulator, Observation, Revenue},
    definition::{Catalog, CatalogSpec},
    level::{Level, Retention},
};
use xxhash_rust::xxh3::xxh3_64;

const EVENTS: u64 = 4096;

struct Event {
    time_micros: i64,
    user: u64,
    session: u64,
    name: String,
    platform: &'static str,
    revenue: Option<i64>,
    price: Option<f64>,
}

/// The same events every time: fields come from a multiplicative sequence, with more of some users than of others.
fn events() -> Vec<Event> {
    let draw = |n: u64, salt: u64| xxh3_64(&(n * 31 + salt).to_le_bytes());
    let event = |n: u64| {
        let user = draw(n, 1) % 2_000 * (draw(n, 2) % 100) / 100;
        Event {
            time_micros: 1_700_000_000_000_000 + n as i64 * 5,
            user: xxh3_64(&user.to_le_bytes()),
            session: xxh3_64(&(user + 1_000_000).to_le_bytes()),
            name: format!("event_name_{}", draw(n, 3) % 20 * (draw(n, 4) % 10) / 10),
            platform: ["ios", "android", "web"][(user % 3) as usize],
            revenue: n.is_multiple_of(10).then_some(20),
            price: n.is_multiple_of(4).then(|| (draw(n, 5) % 10_000) as f64 / 100.0),
        }
    };
    (0..EVENTS).map(event).collect()
}

fn accumulate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("accumulate");
    group.throughput(Throughput::Elements(EVENTS));
    let events = events();
    for (name, numerics, session) in [("counts and users", 0, false), ("all", 1, true)] {
        let spec = CatalogSpec {
            dimensions: vec!["platform".to_owned()],
            numerics: ["price".to_owned()][..numerics].to_vec(),
            definitions: vec![],
            retention: Retention::FOREVER,
        };
        let mut accumulator = Accumulator::new(Arc::new(Catalog::new(spec).expect("a valid catalog")));
        let fill = |accumulator: &mut Accumulator| {
            for event in &events {
                accumulator.add(&Observation {
                    project: "default",
                    time_micros: event.time_micros,
                    level: Level::Second,
                    late: false,
                    user: event.user,
                    session: session.then_some(event.session),
                    revenue: event.revenue.map(|units| Revenue {
                        currency: "USD",
                        units,
                        nanos: 990_000_000,
                    }),
                    dimensions: &[Some(&event.name), Some(event.platform)],
                    numerics: &[event.price][..numerics],
                });
            }
        };
        group.bench_function(format!("{name}: add, drain and encode"), |bencher| {
            bencher.iter(|| {
                fill(&mut accumulator);
                black_box(accumulator.drain().iter().map(prost::Message::encode_to_vec).collect::<Vec<_>>())
            });
        });
        fill(&mut accumulator);
        group.bench_function(format!("{name}: add to known cells"), |bencher| {
            bencher.iter_batched(|| (), |()| fill(&mut accumulator), BatchSize::PerIteration);
        });
        accumulator.drain();
    }
    group.finish();
}

criterion_group!(benches, accumulate);
criterion_main!(benches);
