//! What is live: watches over SSE and gRPC count up while events come in, the tail shows them, and uploads in NDJSON give a
//! receipt. The state after an update equals the query asked at the same point. `grpcurl` can do all of it from the schemas alone.

mod grpcurl;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use weir_proto::analytics::v1::{
    GetSummaryRequest, WatchQueryRequest, analytics_service_client::AnalyticsServiceClient,
    watch_query_request, watch_query_response,
};
use weir_tests::system::System;

/// Reads server-sent events as JSON.
struct Updates {
    response: Response,
    buffer: Vec<u8>,
}

impl Updates {
    fn of(response: Response) -> Result<Self> {
        let response = response.error_for_status()?;
        ensure!(
            response.headers()["content-type"].to_str()?.starts_with("text/event-stream"),
            "{response:?}"
        );
        Ok(Self { response, buffer: Vec::new() })
    }

    async fn next(&mut self) -> Result<Value> {
        tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                if let Some(end) = self.buffer.windows(2).position(|w| w == b"\n\n") {
                    let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                    let text = String::from_utf8(event)?;
                    let data: String =
                        text.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim_start).collect();
                    ensure!(!text.contains("event: error"), "{text}");
                    if !data.is_empty() {
                        return Ok(serde_json::from_str(&data)?);
                    }
                    continue;
                }
                self.buffer.extend(self.response.chunk().await?.context("the stream goes on")?);
            }
        })
        .await
        .context("an update comes in time")?
    }
}

fn events_in(update: &Value) -> f64 {
    update["summary"]["current"]["events"]["value"].as_f64().unwrap_or(-1.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_counts_up_and_equals_the_query_at_the_same_point() -> Result<()> {
    let system = System::one_binary()?;
    let client = Client::new();
    let endpoint = system.addresses.endpoint();
    let question = json!({"summary": {}, "min_interval": "0.01s"});
    let mut watch =
        Updates::of(client.post(format!("{endpoint}/v1/analytics:watch")).json(&question).send().await?)?;
    let mut tail =
        Updates::of(client.get(format!("{endpoint}/v1/events:watch?event_names=step")).send().await?)?;
    ensure!(events_in(&watch.next().await?) == 0.0, "the first update is the answer now");

    let mut channel = AnalyticsServiceClient::connect(system.addresses.analytics.grpc()).await?;
    let request = WatchQueryRequest {
        query: Some(watch_query_request::Query::Summary(GetSummaryRequest::default())),
        ..WatchQueryRequest::default()
    };
    let mut by_grpc = channel.watch_query(request).await?.into_inner();

    let mut last = 0.0;
    for step in 1..=20 {
        let event = json!({"event_name": "step", "user_id": format!("user-{}", step % 7), "properties": {"step": step}});
        let sent: Value =
            client.post(format!("{endpoint}/v1/events")).json(&event).send().await?.json().await?;
        let token = sent["consistencyToken"].as_str().context("an accepted event has a token")?.to_owned();
        // The watch gets there without being asked again; updates never go back.
        while last < f64::from(step) {
            let update = watch.next().await?;
            ensure!(events_in(&update) >= last, "updates never go back: {update}");
            last = events_in(&update);
            if last == f64::from(step) {
                let query = client
                    .get(format!("{endpoint}/v1/analytics/summary"))
                    .query(&[("min_consistency_token", &token)]);
                let query: Value = query.send().await?.json().await?;
                ensure!(query["current"] == update["summary"]["current"], "{query} is not {update}");
                ensure!(query["topEvents"] == update["summary"]["topEvents"], "{query} is not {update}");
            }
        }
    }

    let mut seen = 0;
    while seen < 20 {
        let update = tail.next().await?;
        for event in update["events"].as_array().context("the tail shows events")? {
            seen += 1;
            ensure!(event["event"]["eventName"] == "step", "{event}");
        }
    }
    loop {
        let update =
            tokio::time::timeout(Duration::from_secs(30), by_grpc.next()).await?.context("it goes on")??;
        let Some(watch_query_response::Result::Summary(summary)) = update.result else {
            anyhow::bail!("a summary was asked for")
        };
        if summary.current.and_then(|c| c.events).is_some_and(|f| f.value == 20.0) {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_lines_gets_one_receipt_and_a_bad_line_fails_alone() -> Result<()> {
    let system = System::one_binary()?;
    let client = Client::new();
    let mut lines: Vec<String> = (1..=2500)
        .map(|n| {
            json!({"event_name": "reading", "user_id": "d1", "install_id": "i1", "sequence": n}).to_string()
        })
        .collect();
    lines.insert(1000, "{\"event_name\": ".into());
    lines.insert(2000, json!({"event_name": "reading"}).to_string());
    let response = client
        .post(format!("{}/v1/events:upload", system.addresses.endpoint()))
        .header("content-type", "application/x-ndjson")
        .body(lines.join("\n"))
        .send()
        .await?;
    let text = response.text().await?;
    let receipt: Value = serde_json::from_str(&text)?;
    ensure!(receipt["accepted"] == "2500" && receipt["rejected"] == "2", "{text}");
    ensure!(receipt["lastSequences"] == json!([{"installId": "i1", "sequence": "2500"}]), "{text}");
    ensure!(receipt["errors"].as_array().is_some_and(|e| e.len() == 2), "{text}");

    let summary = client
        .get(format!("{}/v1/analytics/summary", system.addresses.endpoint()))
        .query(&[("min_consistency_token", receipt["consistencyToken"].as_str().unwrap_or_default())])
        .send()
        .await?;
    let summary: Value = summary.json().await?;
    ensure!(summary["current"]["events"]["value"].as_f64() == Some(2500.0), "{summary}");
    Ok(())
}
