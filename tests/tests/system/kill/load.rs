//! Clients that send all the time, and repeat what was not acknowledged with the same `event_id`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;
use weir_proto::{
    event::v1::Event,
    google::r#type::Money,
    ingest::v1::{IngestEventsRequest, event_result::Outcome, ingest_service_client::IngestServiceClient},
};
use weir_tests::{
    process::{PATIENCE, Ports},
    system::System,
};

const CLIENTS: usize = 4;
/// Events that a client sends at a time.
pub(super) const BATCH: usize = 25;
const NAMES: [&str; 3] = ["view", "cart", "purchase"];

/// What one client got acknowledged: events, users and cents by event name. Kept beside the product, by plain counting.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) events: BTreeMap<&'static str, u64>,
    pub(super) users: BTreeMap<&'static str, BTreeSet<String>>,
    pub(super) cents: i64,
    pub(super) retries: u64,
}

/// What a client has sent at all, what of it was acknowledged, and the consistency token of that.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) token: String,
}

/// Clients that send until told to stop.
pub(super) struct Load {
    clients: Vec<JoinHandle<Result<(Tally, String)>>>,
    pub(super) ledgers: Vec<watch::Receiver<Ledger>>,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Clients that pause for so long after each batch.
    pub(super) fn start(system: &System, seed: u64, pause: Duration) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut ledgers = Vec::new();
        let clients = (0..CLIENTS).map(|number| {
            let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
            let (ledger, shown) = watch::channel(Ledger::default());
            ledgers.push(shown);
            let client = Client::new(number, seed, system.addresses.producer);
            tokio::spawn(client.run(pause, acknowledged, ledger, stop))
        });
        Self { clients: clients.collect(), ledgers, acknowledged, stop }
    }

    /// Waits until so many more events are acknowledged.
    pub(super) async fn more(&self, events: u64) -> Result<()> {
        let target = self.acknowledged.load(Relaxed) + events;
        let waiting = async {
            while self.acknowledged.load(Relaxed) < target {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("events are acknowledged")
    }

    /// What was acknowledged in all, and a consistency token of each client's end.
    pub(super) async fn stop(self) -> Result<(Tally, Vec<String>)> {
        self.stop.store(true, Relaxed);
        let mut expected = Tally::default();
        let mut tokens = Vec::new();
        for client in self.clients {
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
        Ok((expected, tokens))
    }
}

struct Client {
    number: usize,
    random: StdRng,
    service: IngestServiceClient<Channel>,
}

impl Client {
    fn new(number: usize, seed: u64, producer: Ports) -> Self {
        let random = StdRng::seed_from_u64(seed ^ (number as u64 + 1));
        let endpoint = Endpoint::from_shared(producer.grpc()).expect("ports make a URL");
        let channel = endpoint.timeout(Duration::from_secs(5)).connect_lazy();
        Self { number, random, service: IngestServiceClient::new(channel) }
    }

    /// Sends batches until told to stop; now and then an old one once more, as who has lost the acknowledgement does.
    async fn run(
        mut self,
        pause: Duration,
        acknowledged: Arc<AtomicU64>,
        ledger: watch::Sender<Ledger>,
        stop: Arc<AtomicBool>,
    ) -> Result<(Tally, String)> {
        let (mut tally, mut token, mut old) = (Tally::default(), String::new(), Vec::new());
        while !stop.load(Relaxed) {
            let events: Vec<_> = (0..BATCH).map(|_| event(&mut self.random, self.number)).collect();
            ledger.send_modify(|ledger| ledger.sent += BATCH as u64);
            let attempts;
            (token, attempts) = self.send(&events).await?;
            tally.add(&events, attempts)?;
            ledger.send_modify(|ledger| {
                ledger.acknowledged += BATCH as u64;
                ledger.token.clone_from(&token);
            });
            acknowledged.fetch_add(BATCH as u64, Relaxed);
            if old.is_empty() || self.random.random_bool(0.02) {
                old = events;
            } else if self.random.random_bool(0.1) {
                self.send(&old).await?;
            }
            tokio::time::sleep(pause).await;
        }
        Ok((tally, token))
    }

    /// Repeats a batch, the same to the byte, until it is acknowledged. Its token, and the number of attempts.
    async fn send(&mut self, events: &[Event]) -> Result<(String, u64)> {
        for attempt in 1..12_000 {
            let request = IngestEventsRequest { events: events.to_vec() };
            let Ok(response) = self.service.ingest_events(request).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let response = response.into_inner();
            for result in &response.results {
                ensure!(result.outcome() == Outcome::Accepted, "a valid event is accepted: {result:?}");
            }
            return Ok((response.consistency_token, attempt));
        }
        bail!("client {} gets no answer any more", self.number)
    }
}

impl Tally {
    fn add(&mut self, events: &[Event], attempts: u64) -> Result<()> {
        self.retries += u64::from(attempts > 1);
        for event in events {
            let name = NAMES.into_iter().find(|n| *n == event.event_name).context("one of ours")?;
            *self.events.entry(name).or_default() += 1;
            self.users.entry(name).or_default().insert(event.user_id.clone());
            self.cents +=
                event.revenue.as_ref().map_or(0, |m| m.units * 100 + i64::from(m.nanos) / 10_000_000);
        }
        Ok(())
    }
}

fn event(random: &mut StdRng, client: usize) -> Event {
    let client = prost_types::value::Kind::StringValue(format!("client {client}"));
    let client = prost_types::Value { kind: Some(client) };
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
        properties: Some(prost_types::Struct { fields: [("client".to_owned(), client)].into() }),
        ..Event::default()
    }
}
