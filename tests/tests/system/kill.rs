//! Under load `weir up` is killed again and again while its store is compacted and asked, or a consumer is given up for dead and
//! comes back. Clients retry what was not acknowledged, with the same `event_id`. Every answer meanwhile counts what was
//! acknowledged before it was asked, and afterwards every acknowledged event is counted once and none twice.

use std::{
    collections::BTreeMap,
    ops::Range,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;
use weir_proto::{
    analytics::v1::{
        Measure, QueryBreakdownRequest, QuerySqlRequest, ResultInfo, TimeRange,
        analytics_service_client::AnalyticsServiceClient, measure, query_sql_response, result_info::Source,
    },
    event::v1::Event,
    google::r#type::Money,
    ingest::v1::{IngestEventsRequest, event_result::Outcome, ingest_service_client::IngestServiceClient},
};
use weir_tests::{
    kafka,
    process::{PATIENCE, Ports},
    system::{RESTLESS_STORE, SharedStore, System},
};

const KILLS: usize = 50;
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
    let mut system = System::one_binary_with(&RESTLESS_STORE)?;
    let load = Load::start(&system, seed);
    let (answers, mut answered) = watch::channel(0);
    let questions = tokio::spawn(ask(system.addresses.analytics.grpc(), load.ledgers.clone(), answers));
    for round in 0..KILLS {
        // Let some of the load through, then strike at a random moment.
        let some = random.random_range(1..40) * BATCH as u64;
        load.more(some)
            .await
            .with_context(|| format!("round {round}: the system takes events again after a kill"))?;
        // Some lives are too short for an answer.
        if random.random_bool(0.5) {
            let before = *answered.borrow_and_update();
            let more = tokio::time::timeout(PATIENCE, answered.wait_for(|answers| *answers > before));
            if more.await.context("questions are answered")?.is_err() {
                return questions.await?.with_context(|| format!("in round {round}"));
            }
        }
        // Besides those that the store makes by itself, a compaction by another process, which may not end well either.
        let mut compactor =
            system.store_command("compact").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        system.kill("up");
        if random.random_bool(0.5) {
            compactor.kill()?;
        }
        tokio::task::block_in_place(|| compactor.wait())?;
        tokio::task::block_in_place(|| system.restart("up"))?;
    }
    let answers = *answered.borrow();
    drop(answered);
    questions.await?.context("while the system was killed")?;
    println!("{answers} answers in between");
    let (expected, tokens) = load.stop().await?;
    println!(
        "{} events acknowledged over {KILLS} kills, {} batches sent more than once",
        expected.events.values().sum::<u64>(),
        expected.retries
    );
    ensure!(expected.retries > 0, "no batch was cut by a kill: the test shows nothing");
    check(&system, &expected, &tokens).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_was_given_up_for_dead_changes_nothing_when_it_comes_back() -> Result<()> {
    let bootstrap = tokio::task::block_in_place(|| kafka::shared().bootstrap());
    let system = tokio::task::block_in_place(|| System::on_kafka(&bootstrap, 2, SharedStore::Folder))?;
    let (zombie, heir) = (system.addresses.consumer, system.addresses.second_consumer);
    until_running(zombie, 1..3).await?;
    until_running(heir, 1..3).await?;
    let load = Load::start(&system, rand::random());
    load.more(1000).await?;

    // Longer than the group waits for a member, in the middle of its work.
    system.processes["consumer"].pause()?;
    until_running(heir, 3..4).await.context("the other consumer takes everything over")?;
    load.more(1000).await?;

    // It goes on where it was, with what it had read, and takes itself for the owner until it learns better.
    system.processes["consumer"].resume()?;
    load.more(1000).await?;
    until_running(heir, 1..3).await.context("the group gives it a share again")?;
    until_running(zombie, 1..3).await?;
    load.more(1000).await?;
    let (expected, tokens) = load.stop().await?;
    check(&system, &expected, &tokens).await
}

/// Waits until a consumer runs so many partitions.
async fn until_running(consumer: Ports, wanted: Range<usize>) -> Result<()> {
    let (client, url) = (reqwest::Client::new(), format!("{}/v1/processing/status", consumer.http()));
    let mut last = serde_json::Value::Null;
    let asking = async {
        loop {
            last = client.get(&url).send().await?.error_for_status()?.json().await?;
            let partitions = last["status"]["partitions"].as_array();
            let running = partitions.into_iter().flatten().filter(|p| p["state"] == "STATE_RUNNING").count();
            if wanted.contains(&running) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(asked) => asked,
        Err(_) => anyhow::bail!("{wanted:?} partitions do not run at {url}: {last}"),
    }
}

/// What a client has sent at all, what of it was acknowledged, and the consistency token of that.
#[derive(Clone, Debug, Default)]
struct Ledger {
    sent: u64,
    acknowledged: u64,
    token: String,
}

/// Asks the store for the events of one client after the other, and compares each answer with what the client knows. Counts the
/// answers, as long as anybody looks.
async fn ask(grpc: String, ledgers: Vec<watch::Receiver<Ledger>>, answers: watch::Sender<u64>) -> Result<()> {
    let channel = Endpoint::from_shared(grpc)?.timeout(Duration::from_secs(10)).connect_lazy();
    let mut analytics = AnalyticsServiceClient::new(channel);
    for client in (0..CLIENTS).cycle().take_while(|_| !answers.is_closed()) {
        let Ledger { acknowledged, token, .. } = ledgers[client].borrow().clone();
        let statement = format!(
            "select count(*), count(distinct event_id), count(distinct user_id) from events \
             where property('client') = 'client {client}'"
        );
        let request =
            QuerySqlRequest { statement, min_consistency_token: token, ..QuerySqlRequest::default() };
        let Ok(row) = only_row(&mut analytics, request).await else {
            // It was killed meanwhile, and says so.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let [events, different, users] = row[..] else { anyhow::bail!("three figures: {row:?}") };
        let sent = ledgers[client].borrow().sent;
        ensure!(events == different, "{events} events of client {client} with {different} ids");
        ensure!(
            (acknowledged as f64..=sent as f64).contains(&events),
            "{events} events of client {client}, of which {acknowledged} were acknowledged and {sent} sent"
        );
        ensure!(users <= events && (users > 0.0) == (events > 0.0), "{users} users of {events} events");
        answers.send_modify(|answers| *answers += 1);
    }
    Ok(())
}

/// The numbers in the only row of an answer.
async fn only_row(
    analytics: &mut AnalyticsServiceClient<Channel>,
    request: QuerySqlRequest,
) -> Result<Vec<f64>> {
    let mut parts = analytics.query_sql(request).await?.into_inner();
    let mut rows = Vec::new();
    while let Some(part) = parts.message().await? {
        if let Some(query_sql_response::Part::Rows(more)) = part.part {
            rows.extend(more.rows);
        }
    }
    let row = rows.pop().context("a count is a row")?;
    let number = |value: prost_types::Value| match value.kind {
        Some(prost_types::value::Kind::NumberValue(number)) => number,
        _ => f64::NAN,
    };
    Ok(row.values.into_iter().map(number).collect())
}

/// Clients that send until told to stop.
struct Load {
    clients: Vec<JoinHandle<Result<(Tally, String)>>>,
    ledgers: Vec<watch::Receiver<Ledger>>,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(system: &System, seed: u64) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut ledgers = Vec::new();
        let clients = (0..CLIENTS).map(|number| {
            let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
            let (ledger, shown) = watch::channel(Ledger::default());
            ledgers.push(shown);
            tokio::spawn(client(number, seed, system.addresses.producer.grpc(), acknowledged, ledger, stop))
        });
        Self { clients: clients.collect(), ledgers, acknowledged, stop }
    }

    /// Waits until so many more events are acknowledged.
    async fn more(&self, events: u64) -> Result<()> {
        let target = self.acknowledged.load(Relaxed) + events;
        let waiting = async {
            while self.acknowledged.load(Relaxed) < target {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("events are acknowledged")
    }

    /// What was acknowledged in all, and a consistency token of each client's end.
    async fn stop(self) -> Result<(Tally, Vec<String>)> {
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

/// Sends batches until told to stop. A batch is repeated, the same to the byte, until it is acknowledged.
async fn client(
    number: usize,
    seed: u64,
    grpc: String,
    acknowledged: Arc<AtomicU64>,
    ledger: watch::Sender<Ledger>,
    stop: Arc<AtomicBool>,
) -> Result<(Tally, String)> {
    let mut random = StdRng::seed_from_u64(seed ^ (number as u64 + 1));
    let channel = Endpoint::from_shared(grpc)?.timeout(Duration::from_secs(5)).connect_lazy();
    let mut service = IngestServiceClient::new(channel);
    let (mut tally, mut token) = (Tally::default(), String::new());
    while !stop.load(Relaxed) {
        let events: Vec<_> = (0..BATCH).map(|_| event(&mut random, number)).collect();
        ledger.send_modify(|ledger| ledger.sent += BATCH as u64);
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
        ledger.send_modify(|ledger| {
            ledger.acknowledged += BATCH as u64;
            ledger.token.clone_from(&token);
        });
        acknowledged.fetch_add(BATCH as u64, Relaxed);
    }
    Ok((tally, token))
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

/// Compares what rollups and events tell with what was acknowledged.
async fn check(system: &System, expected: &Tally, tokens: &[String]) -> Result<()> {
    check_by(system, expected, tokens, false).await.context("from rollups")?;
    check_by(system, expected, tokens, true).await.context("from the events")
}

async fn check_by(system: &System, expected: &Tally, tokens: &[String], exact: bool) -> Result<()> {
    let channel: Channel = Endpoint::from_shared(system.addresses.analytics.grpc())?.connect().await?;
    let mut analytics = AnalyticsServiceClient::new(channel);
    let measure = |kind: measure::Kind| Measure { kind: kind.into(), exact, ..Measure::default() };
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
    let source = answer.info.as_ref().map(ResultInfo::source);
    ensure!((source == Some(Source::Store)) == exact, "{source:?} where exact is {exact}");
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
