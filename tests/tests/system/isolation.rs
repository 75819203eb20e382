//! Projects in one system see nothing of each other: each has the same answers, to every kind of question, as in a system of its own.
//!
//! The projects share what they can: names, users, installs, sessions, and even the ids of their events.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom as _};
use reqwest::Client;
use serde_json::{Value, json};
use weir_tests::system::System;

/// Projects of the shared system.
const PROJECTS: usize = 20;
/// Events of each, more or less.
const EVENTS: usize = 200;
/// What is different each time, or told of the system as a whole.
const VOLATILE: [&str; 7] =
    ["info", "receiveTime", "receive_time", "readTime", "statistics", "updateId", "consistencyToken"];

fn seed() -> u64 {
    std::env::var("WEIR_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A moment as JSON has it.
fn timestamp(micros: u64) -> Value {
    let time = jiff::Timestamp::from_microsecond(micros.cast_signed()).expect("a moment of these years");
    Value::String(time.to_string())
}

/// What is sent before them.
fn first(now: u64) -> Value {
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, b"first").to_string();
    json!({"eventId": id, "eventName": "first", "userId": "u", "eventTime": timestamp(now - 60_000_000)})
}

/// As much of a text as a message needs.
fn shortened(value: &Value) -> String {
    value.to_string().chars().take(2000).collect()
}

/// The events of a project, all in the minutes before `now`.
fn events(project: usize, now: u64) -> Vec<Value> {
    let mut random = SmallRng::seed_from_u64(seed() << 8 | project as u64);
    let count = random.random_range(EVENTS / 2..EVENTS * 2);
    let names = ["view", "search", "cart", "buy", "leave"];
    (0..count)
        .map(|number| {
            // The same ids in every project.
            let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &number.to_be_bytes());
            let (user, plan) = (random.random_range(0..25), ["free", "pro"].choose(&mut random));
            let name = names.choose(&mut random);
            let mut event = json!({
                "eventId": id.to_string(),
                "eventName": name,
                "userId": format!("user-{user}"),
                "sessionId": format!("session-{user}-{}", number / 50),
                "eventTime": timestamp(now - random.random_range(60..1800) * 1_000_000),
                "properties": {
                    "project": format!("secret-of-{project}"),
                    "amount": random.random_range(0..1000),
                    "plan": plan,
                },
            });
            if random.random_bool(0.3) {
                let cents = random.random_range(1..100_000);
                event["revenue"] =
                    json!({"currencyCode": "EUR", "units": cents / 100, "nanos": cents % 100 * 10_000_000});
            }
            event
        })
        .collect()
}

/// A project of a system.
struct Project<'a> {
    client: &'a Client,
    base: String,
    name: String,
}

impl Project<'_> {
    async fn call(&self, request: reqwest::RequestBuilder) -> Result<String> {
        let answer = request.header("weir-project", &self.name).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{}: {status}: {text}", self.name);
        Ok(text)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.call(self.client.get(format!("{}{path}", self.base))).await?)?)
    }

    async fn post(&self, path: &str, body: Value) -> Result<String> {
        self.call(self.client.post(format!("{}{path}", self.base)).json(&body)).await
    }

    /// Gives the token of all of them.
    async fn send(&self, events: &[Value]) -> Result<String> {
        let answer: Value =
            serde_json::from_str(&self.post("/v1/events:batch", json!({"events": events})).await?)?;
        ensure!(answer["accepted"] == events.len(), "{answer}");
        Ok(answer["consistencyToken"].as_str().context("a token")?.to_owned())
    }

    /// The first answers of a stream over SSE.
    async fn stream(
        &self,
        request: reqwest::RequestBuilder,
        mut enough: impl FnMut(&Value) -> bool,
    ) -> Result<Vec<Value>> {
        let request = request.header("weir-project", &self.name).header("accept", "text/event-stream");
        let mut answer = request.send().await?.error_for_status()?;
        let (mut text, mut taken) = (String::new(), Vec::new());
        let reading = async {
            while let Some(chunk) = answer.chunk().await? {
                text.push_str(&String::from_utf8_lossy(&chunk));
                while let Some((event, rest)) = text.split_once("\n\n") {
                    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                    let data = data.map(serde_json::from_str).transpose()?;
                    text = rest.to_owned();
                    if let Some(data) = data {
                        let done = enough(&data);
                        taken.push(data);
                        if done {
                            return Ok(());
                        }
                    }
                }
            }
            anyhow::bail!("the stream ended: {text}")
        };
        tokio::time::timeout(Duration::from_secs(60), reading)
            .await
            .context("the stream gives too little")??;
        Ok(taken)
    }

    /// Waits until the tail runs: what is sent from then on is seen.
    fn tail(&self) -> reqwest::RequestBuilder {
        self.client.get(format!("{}/v1/events:watch", self.base))
    }

    /// The answers to every kind of question, without what is volatile.
    async fn answers(&self, token: &str, now: u64) -> Result<Vec<(&'static str, Value)>> {
        let hour = now / 3_600_000_000 * 3_600_000_000;
        let range =
            json!({"startTime": timestamp(hour - 3_600_000_000), "endTime": timestamp(hour + 3_600_000_000)});
        let asked = |mut more: Value| {
            more["timeRange"] = range.clone();
            more["minConsistencyToken"] = token.into();
            more
        };
        let measures = json!([
            {"kind": "KIND_EVENTS"},
            {"kind": "KIND_UNIQUE_USERS"},
            {"kind": "KIND_REVENUE", "currency": "EUR"},
            {"kind": "KIND_QUANTILE", "property": "amount", "quantile": 0.9},
        ]);
        let steps = json!([{"eventNames": ["view"]}, {"eventNames": ["cart"]}, {"eventNames": ["buy"]}]);
        let questions = [
            (
                "time series",
                "/v1/analytics/time-series:query",
                asked(json!({"measures": measures, "interval": "INTERVAL_MINUTE"})),
            ),
            (
                "breakdown",
                "/v1/analytics/breakdown:query",
                asked(json!({"measures": measures, "groupBy": ["event_name"]})),
            ),
            (
                "breakdown of a property",
                "/v1/analytics/breakdown:query",
                asked(json!({"measures": [{"kind": "KIND_EVENTS"}], "groupBy": ["properties.project"]})),
            ),
            ("funnel", "/v1/analytics/funnel:query", asked(json!({"steps": steps, "window": "1800s"}))),
            ("retention", "/v1/analytics/retention:query", asked(json!({"period": "RETENTION_PERIOD_DAY"}))),
            (
                "paths",
                "/v1/analytics/paths:query",
                asked(json!({"event": {"eventNames": ["view"]}, "maxGap": "1800s"})),
            ),
        ];
        let mut answers = Vec::new();
        for (kind, path, question) in questions {
            // Asked twice, the second answer is one that was kept.
            for _ in 0..2 {
                let answer = serde_json::from_str(&self.post(path, question.clone()).await?)?;
                answers.push((kind, answer));
            }
        }
        let bounds =
            format!("timeRange.startTime={}&timeRange.endTime={}", range["startTime"], range["endTime"])
                .replace('"', "");
        answers.push((
            "summary",
            self.get(&format!("/v1/analytics/summary?{bounds}&minConsistencyToken={token}")).await?,
        ));
        answers.push(("user", self.get(&format!("/v1/users/user-3?minConsistencyToken={token}")).await?));
        answers.push((
            "user's events",
            self.get(&format!("/v1/users/user-3/events?pageSize=20&minConsistencyToken={token}")).await?,
        ));
        answers.push(("event names", self.get(&format!("/v1/event-names?{bounds}")).await?));
        answers.push(("properties", self.get(&format!("/v1/properties?{bounds}&topValues=10")).await?));
        let statement =
            "SELECT event_name, user_id, count(*), sum(revenue) FROM events GROUP BY 1, 2 ORDER BY 1, 2";
        let sql = json!({"statement": statement, "minConsistencyToken": token});
        answers.push(("sql", sse(&self.post("/v1/sql:query", sql).await?)?));
        let export = format!("/v1/events:export?format=FORMAT_NDJSON&{bounds}&minConsistencyToken={token}");
        let exported = self.call(self.client.get(format!("{}{export}", self.base))).await?;
        let mut exported: Vec<Value> =
            exported.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        exported.sort_by_key(|event| event["eventId"].to_string());
        answers.push(("export", exported.into()));
        let watch = self.client.post(format!("{}/v1/analytics:watch", self.base));
        let query = asked(json!({"measures": measures, "interval": "INTERVAL_HOUR"}));
        let watched = self.stream(watch.json(&json!({"timeSeries": query})), |_| true).await?;
        answers.push(("watch", watched.into()));
        for (_, answer) in &mut answers {
            strip(answer);
        }
        Ok(answers)
    }
}

/// What a stream over SSE said.
fn sse(text: &str) -> Result<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    Ok(data.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?.into())
}

/// Removes what is volatile.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            VOLATILE.iter().for_each(|name| drop(fields.remove(*name)));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn ids(answers: &[Value]) -> Vec<String> {
    let events = answers.iter().flat_map(|answer| answer["events"].as_array().into_iter().flatten());
    let mut ids: Vec<_> = events.map(|event| event["event"]["eventId"].to_string()).collect();
    ids.sort();
    ids
}

#[test]
fn each_project_has_the_answers_of_a_system_of_its_own() -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() * 1_000_000;
    let client = Client::new();
    let runtime = tokio::runtime::Runtime::new()?;
    let project = |system: &System, number: usize| Project {
        client: &client,
        base: system.addresses.endpoint(),
        name: format!("project-{number}"),
    };

    // The tails are to miss nothing.
    let shared = System::one_binary_with(&[("WEIR__ANALYTICS__WATCH_BUFFER", "2000")])?;
    let shared_answers = runtime.block_on(async {
        // The tails of all projects at once, each of which sees its own events alone.
        let projects: Vec<_> = (0..PROJECTS).map(|number| project(&shared, number)).collect();
        let tails = projects.iter().enumerate().map(|(number, project)| async move {
            let (mut missing, first) = (events(number, now).len() + 1, first(now));
            let reading = project.stream(project.tail(), |answer| {
                missing -= answer["events"].as_array().map_or(0, Vec::len).min(missing);
                missing == 0
            });
            let sending = async {
                // The tail takes a moment to begin.
                tokio::time::sleep(Duration::from_secs(2)).await;
                project.send(&[first]).await?;
                project.send(&events(number, now)).await
            };
            let (seen, token) = tokio::try_join!(reading, sending)?;
            let mut expected: Vec<_> =
                events(number, now).iter().map(|event| event["eventId"].to_string()).collect();
            expected.sort();
            let seen: Vec<_> =
                ids(&seen).into_iter().filter(|id| expected.binary_search(id).is_ok()).collect();
            ensure!(seen == expected, "{}: the tail shows its events and no others", project.name);
            let text = serde_json::to_string(&project.answers(&token, now).await?)?;
            for other in (0..PROJECTS).filter(|other| *other != number) {
                ensure!(!text.contains(&format!("secret-of-{other}\"")), "{} sees {other}", project.name);
            }
            project.answers(&token, now).await
        });
        try_join_all(tails).await
    })?;

    for (number, shared_answers) in shared_answers.iter().enumerate() {
        let alone = System::one_binary()?;
        let answers = runtime.block_on(async {
            let project = project(&alone, number);
            project.send(&[first(now)]).await?;
            let token = project.send(&events(number, now)).await?;
            project.answers(&token, now).await
        })?;
        for ((kind, alone), (_, shared)) in answers.iter().zip(shared_answers) {
            ensure!(
                alone == shared,
                "seed {}, project {number}, {kind}:\n alone: {}\nshared: {}",
                seed(),
                shortened(alone),
                shortened(shared)
            );
        }
        ensure!(answers.len() == shared_answers.len() && answers.len() > 15);
    }
    Ok(())
}
