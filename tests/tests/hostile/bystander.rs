//! Another client of the same system, which must not notice anything.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// Name of its events.
const EVENT: &str = "bystander";

/// Sends an event and asks for key figures, again and again.
#[derive(Debug)]
pub(crate) struct Bystander {
    shared: Arc<Shared>,
    task: JoinHandle<Result<()>>,
    endpoint: String,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Events acknowledged.
    sent: Mutex<u64>,
    /// Of each request since the last report.
    latencies: Mutex<Vec<Duration>>,
}

impl Bystander {
    pub(crate) fn start(endpoint: &str) -> Self {
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(act(endpoint.to_owned(), shared.clone()));
        Self { shared, task, endpoint: endpoint.to_owned() }
    }

    /// Number of requests since the last call, their median and 99th percentile.
    pub(crate) fn latencies(&self) -> (usize, Duration, Duration) {
        let mut all = std::mem::take(&mut *self.shared.latencies.lock().expect("no panic holds it"));
        all.sort_unstable();
        let at = |share: f64| all.get((all.len() as f64 * share) as usize).copied().unwrap_or_default();
        (all.len(), at(0.5), at(0.99))
    }

    /// Stops, and compares what it sent with what is counted.
    pub(crate) async fn settle(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        let sent = *self.shared.sent.lock().expect("no panic holds it");
        let client = Client::new();
        let query = json!({
            "timeRange": {"last": "86400s"}, "groupBy": ["event_name"], "eventNames": [EVENT],
            "measures": [{"kind": "KIND_EVENTS"}],
        });
        let began = Instant::now();
        loop {
            let answer: Value = client
                .post(format!("{}/v1/analytics/breakdown:query", self.endpoint))
                .json(&query)
                .send()
                .await?
                .json()
                .await?;
            let counted = answer["rows"][0]["figures"][0]["value"].as_f64().unwrap_or(0.0);
            if counted == sent as f64 {
                return Ok(());
            }
            ensure!(
                counted < sent as f64 && began.elapsed() < Duration::from_secs(30),
                "{sent} events were acknowledged to the bystander, {counted} are counted: {answer}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn act(endpoint: String, shared: Arc<Shared>) -> Result<()> {
    let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
    while !shared.stop.load(Ordering::Relaxed) {
        let event = json!({"eventName": EVENT, "userId": "bystander"});
        let began = Instant::now();
        let response = client.post(format!("{endpoint}/v1/events")).json(&event).send().await;
        let response = response.context("the bystander's event")?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "the bystander's event is refused: {status} {text}");
        *shared.sent.lock().expect("no panic holds it") += 1;
        shared.latencies.lock().expect("no panic holds it").push(began.elapsed());

        let began = Instant::now();
        let url = format!("{endpoint}/v1/analytics/summary?timeRange.last=3600s");
        let response = client.get(url).send().await.context("the bystander's query")?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "the bystander's query is refused: {status} {text}");
        shared.latencies.lock().expect("no panic holds it").push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
