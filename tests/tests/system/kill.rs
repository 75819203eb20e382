//! `weir up` is killed again and again under load. Clients retry what was not acknowledged, with the same `event_id`.
//! Afterwards every acknowledged event is counted once and none twice.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;
use weir_proto::{
    analytics::v1::{
        Measure, QueryBreakdownRequest, TimeRange, analytics_service_client::AnalyticsServiceClient, measure,
    },
    event::v1::Event,
    google::r#type::Money,
    ingest::v1::{IngestEventsRequest, event_result::Outcome, ingest_service_client::IngestServiceClient},
};
use weir_tests::system::System;

const KILLS: usize = 20;
const CLIENTS: usize = 4;
const BATCH: usize = 25;
const NAMES: [&str; 3] = ["view", "cart", "purchase"];

/// What one client got acknowledged: events, users and cents by event name. Kept beside the product, by plain counting.
#[derive(Default)]
struct Tally {
    events: BTreeMap<&'static str, u64>,
    users: BTreeMap<&'static str, std::collections::BTreeSet<String>>,
    cents: i64,
    retries: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_event_counts_once_whatever_is_killed() -> Result<()> {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut system = System::one_binary()?;
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (grpc, acknowledged, stop) =
                (system.addresses.producer.grpc(), acknowledged.clone(), stop.clone());
            tokio::spawn(client(number, seed, grpc, acknowledged, stop))
        })
        .collect();

    for round in 0..KILLS {
        // Let some of the load through, then strike at a random moment.
        let target = acknowledged.load(Relaxed) + random.random_range(1..40) * BATCH as u64;
        tokio::time::timeout(Duration::from_secs(60), async {
            while acknowledged.load(Relaxed) < target {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .with_context(|| format!("round {round}: the system takes events again after a kill"))?;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        system.kill("up");
        system.restart("up")?;
    }
    stop.store(true, Relaxed);

    let mut expected = Tally::default();
    let mut tokens = Vec::new();
    for client in clients {
        let (tally, token) = client.await??;
        for (name, events) in tally.events {
            *expected.events.entry(name).or_default() += events;
        }
        for (name, users) in tally.users {
            expected.users.entry(name).or_default().extend(users);
        }
        expected.cents += tally.cents;
        expected.retries += tally.retries;
        tokens.push(token);
    }
    println!(
        "{} events acknowledged over {KILLS} kills, {} batches sent more than once",
        expected.events.values().sum::<u64>(),
        expected.retries
    );
    ensure!(expected.retries > 0, "no batch was cut by a kill: the test shows nothing");
    check(&system, &expected, &tokens).await
}

/// Sends batches until told to stop. A batch is repeated, the same to the byte, until it is acknowledged.
async fn client(
    number: usize,
    seed: u64,
    grpc: String,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<(Tally, String)> {
    let mut random = StdRng::seed_from_u64(seed ^ (number as u64 + 1));
    let channel = Endpoint::from_shared(grpc)?.timeout(Duration::from_secs(5)).connect_lazy();
    let mut service = IngestServiceClient::new(channel);
    let (mut tally, mut token) = (Tally::default(), String::new());
    while !stop.load(Relaxed) {
        let events: Vec<_> = (0..BATCH).map(|_| event(&mut random)).collect();
        let mut attempts = 0;
        let response = loop {
            match service.ingest_events(IngestEventsRequest { events: events.clone() }).await {
                Ok(response) => break response.into_inner(),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            attempts += 1;
            ensure!(attempts < 12_000, "client {number} gets no answer any more");
        };
        tally.retries += u64::from(attempts > 0);
        for (event, result) in events.iter().zip(&response.results) {
            ensure!(result.outcome() == Outcome::Accepted, "a valid event is accepted: {result:?}");
            let name = NAMES.into_iter().find(|n| *n == event.event_name).context("one of ours")?;
            *tally.events.entry(name).or_default() += 1;
            tally.users.entry(name).or_default().insert(event.user_id.clone());
            tally.cents +=
                event.revenue.as_ref().map_or(0, |m| m.units * 100 + i64::from(m.nanos) / 10_000_000);
        }
        token = response.consistency_token;
        acknowledged.fetch_add(BATCH as u64, Relaxed);
    }
    Ok((tally, token))
}

fn event(random: &mut StdRng) -> Event {
    let name = NAMES[random.random_range(0..NAMES.len())];
    Event {
        event_id: Uuid::new_v4().to_string(),
        event_name: name.into(),
        user_id: format!("user-{}", random.random_range(0..400)),
        revenue: (name == "purchase").then(|| Money {
            currency_code: "EUR".into(),
            units: random.random_range(0..50),
            nanos: random.random_range(0..100) * 10_000_000,
        }),
        ..Event::default()
    }
}

async fn check(system: &System, expected: &Tally, tokens: &[String]) -> Result<()> {
    let channel: Channel = Endpoint::from_shared(system.addresses.analytics.grpc())?.connect().await?;
    let mut analytics = AnalyticsServiceClient::new(channel);
    let measure = |kind: measure::Kind| Measure { kind: kind.into(), ..Measure::default() };
    let mut answer = None;
    for token in tokens {
        let request = QueryBreakdownRequest {
            time_range: Some(TimeRange {
                last: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
                ..TimeRange::default()
            }),
            group_by: vec!["event_name".into()],
            measures: vec![
                measure(measure::Kind::Events),
                measure(measure::Kind::UniqueUsers),
                Measure { currency: "EUR".into(), ..measure(measure::Kind::Revenue) },
            ],
            min_consistency_token: token.clone(),
            ..QueryBreakdownRequest::default()
        };
        answer = Some(
            tokio::time::timeout(Duration::from_secs(60), analytics.query_breakdown(request))
                .await??
                .into_inner(),
        );
    }
    let answer = answer.context("there is a client")?;
    let mut cents = 0;
    ensure!(answer.rows.len() == expected.events.len(), "{:?}", answer.rows);
    for row in &answer.rows {
        let name = match &row.group[0].kind {
            Some(prost_types::value::Kind::StringValue(name)) => name.as_str(),
            other => anyhow::bail!("an event name: {other:?}"),
        };
        let (events, users) = (row.figures[0].value, row.figures[1].value);
        ensure!(
            events == expected.events[name] as f64,
            "{name}: {events} counted, {} acknowledged",
            expected.events[name]
        );
        ensure!(row.figures[1].exact && users == expected.users[name].len() as f64, "{name}: {users} users");
        if let Some(money) = &row.figures[2].money {
            cents += money.units * 100 + i64::from(money.nanos) / 10_000_000;
        }
    }
    ensure!(cents == expected.cents, "revenue of {cents} cents counted, {} acknowledged", expected.cents);
    Ok(())
}
