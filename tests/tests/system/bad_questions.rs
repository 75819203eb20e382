//! Questions that have no answer get an error that says what to write instead; a store that has lost a file answers from the rest
//! and says what is missing.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use weir_tests::{
    process::{self, PATIENCE},
    system::System,
};

/// Segments come about soon, so that there are some to lose; questions may take 2 s.
const SETTINGS: [(&str, &str); 2] =
    [("WEIR__STORE__FLUSH_INTERVAL", "50ms"), ("WEIR__ANALYTICS__QUERY_TIMEOUT", "2s")];

struct Weir {
    system: System,
    client: Client,
    asked: AtomicU64,
}

impl Weir {
    fn start() -> Result<Self> {
        let system = tokio::task::block_in_place(|| System::one_binary_with(&SETTINGS))?;
        Ok(Self { system, client: Client::new(), asked: AtomicU64::new(0) })
    }

    /// Sends ten events of each of some users, one after the other; the token of the last.
    async fn send(&self, users: std::ops::Range<u32>) -> Result<String> {
        let names = ["view", "cart", "view", "buy", "view"];
        let event = |user: u32, number: usize| {
            json!({
                "event_name": names[number % names.len()], "user_id": format!("user-{user}"), "properties": {"plan": "pro"},
            })
        };
        let events: Vec<_> = users
            .flat_map(|user| (0..10).map(move |number| (user, number)))
            .map(|(u, n)| event(u, n))
            .collect();
        let url = format!("{}/v1/events:batch", self.system.addresses.endpoint());
        let answer = self.client.post(url).json(&json!({ "events": events })).send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        Ok(answer["consistencyToken"].as_str().context("a token")?.to_owned())
    }

    /// Asks a question by REST: the status and the answer.
    async fn ask(&self, what: &str, question: &Value) -> Result<(u16, Value)> {
        let url = format!("{}/v1/{what}:query", self.system.addresses.endpoint());
        let answer = self.client.post(url).json(question).send().await?;
        let (status, text) = (answer.status().as_u16(), answer.text().await?);
        // SQL is answered by server-sent events, of which the last tells how it ended.
        let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
        Ok((status, serde_json::from_str(last.unwrap_or(&text)).context(text)?))
    }

    /// What a question on the command line says on standard error.
    fn noted(&self, question: &[&str]) -> Result<String> {
        let output = Command::new(process::binary())
            .arg("query")
            .args(question)
            .env("WEIR_ENDPOINT", self.system.addresses.endpoint())
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "{question:?}: {output:?}");
        Ok(String::from_utf8(output.stderr)?)
    }

    /// How many users there are by an exact count, and what the answer says about itself. No two questions are the same, so that
    /// none is answered from what is kept.
    async fn users(&self, token: &str) -> Result<(u64, Value)> {
        let seconds = 86_400 + self.asked.fetch_add(1, Relaxed);
        let question = json!({
            "time_range": {"last": format!("{seconds}s")}, "group_by": ["event_name"], "event_names": ["view"],
            "measures": [{"kind": "KIND_UNIQUE_USERS", "exact": true}], "min_consistency_token": token,
        });
        let (status, answer) = self.ask("analytics/breakdown", &question).await?;
        ensure!(status == 200, "{answer}");
        let users = answer["rows"][0]["figures"][0]["value"].as_f64().unwrap_or_default();
        Ok((users as u64, answer["info"].clone()))
    }

    /// Waits until there are so many segments, and lists them.
    async fn segments(&self, wanted: usize) -> Result<Vec<PathBuf>> {
        let folder = self.system.dir.path().join("data/store/events");
        let waiting = async {
            loop {
                let mut files = Vec::new();
                let mut folders = vec![folder.clone()];
                while let Some(folder) = folders.pop() {
                    for entry in std::fs::read_dir(folder).into_iter().flatten() {
                        let path = entry?.path();
                        if path.is_dir() {
                            folders.push(path);
                        } else if path.extension().is_some_and(|extension| extension == "parquet") {
                            files.push(path);
                        }
                    }
                }
                // Durable is not yet published, which an answer without events in memory shows.
                let (_, info) = self.users("").await?;
                if files.len() >= wanted && info["segmentsRead"] == files.len().to_string().as_str() {
                    return anyhow::Ok(files);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("events are flushed")?
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_without_an_answer_say_what_to_ask_instead() -> Result<()> {
    let weir = Weir::start()?;
    let token = weir.send(0..5).await?;
    let range = json!({"last": "86400s"});
    let step = json!({"event_names": ["view"]});
    let funnel = |steps: usize, window: &str| json!({"time_range": range, "steps": vec![step.clone(); steps], "window": window});
    let matching = |pattern: &str| {
        let condition = json!({"field": "plan", "operator": "OPERATOR_MATCHES", "values": [pattern]});
        json!({"time_range": range, "steps": [{"filter": {"condition": condition}}]})
    };
    for (what, kind, question, status, words) in [
        ("21 steps", "analytics/funnel", funnel(21, "3600s"), 400, &["steps", "20"][..]),
        ("no time", "analytics/funnel", funnel(2, "0s"), 400, &["window"]),
        ("ten years", "analytics/funnel", funnel(2, "315360000s"), 400, &["window", "31622400"]),
        ("no regular expression", "analytics/funnel", matching("(a"), 400, &["(a", "unclosed"]),
        (
            "a regular expression that explodes",
            "analytics/funnel",
            matching("((a{1,500}){1,500}){1,500}"),
            400,
            &["size"],
        ),
        ("SQL that drops", "sql", json!({"statement": "drop table events"}), 400, &["one query can be run"]),
        (
            "SQL that writes",
            "sql",
            json!({"statement": "insert into events select * from events"}),
            400,
            &["one query can be run"],
        ),
        (
            "SQL that copies",
            "sql",
            json!({"statement": "copy (select 1) to '/tmp/x.csv'"}),
            400,
            &["one query can be run"],
        ),
        (
            "SQL that reads a file",
            "sql",
            json!({"statement": "select * from '/etc/passwd'"}),
            400,
            &["/etc/passwd"],
        ),
        (
            "another project's events",
            "sql",
            json!({"statement": "select * from other.events"}),
            400,
            &["other"],
        ),
        (
            "what there is no column of",
            "sql",
            json!({"statement": "select nonsense from events"}),
            400,
            &["nonsense"],
        ),
    ] {
        let (got, answer) = weir.ask(kind, &question).await.context(what)?;
        ensure!(got == status, "{what}: {got} {answer}");
        for word in words {
            ensure!(answer.to_string().contains(word), "{what}: `{word}` is not in {answer}");
        }
    }

    // 50 rows by themselves, six times: 15 billion pairs, of which only one side of 125,000 rows is held.
    let three = "from events a, events b, events c";
    let statement = format!(
        "select count(*) from (select a.user_id x {three}) p, (select c.user_id y {three}) q where x < y"
    );
    let (got, answer) =
        weir.ask("sql", &json!({"statement": statement, "min_consistency_token": token})).await?;
    ensure!(answer["error"]["status"] == "DEADLINE_EXCEEDED", "{got} {answer}");

    let (users, info) = weir.users(&token).await?;
    ensure!(users == 5 && info["exact"] == true, "the service goes on: {users} users, {info}");

    // No event of that name: an answer, with what was perhaps meant.
    let (got, answer) = weir
        .ask("analytics/funnel", &json!({"time_range": range, "steps": [{"event_names": ["veiw"]}]}))
        .await?;
    ensure!(
        got == 200 && answer["total"]["steps"][0]["count"].as_str().unwrap_or("0") == "0",
        "{got} {answer}"
    );
    ensure!(answer["info"]["notes"][0]["nearestNames"][0] == "view", "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_lost_or_torn_is_named_and_the_rest_answers() -> Result<()> {
    let weir = Weir::start()?;
    let mut segments = Vec::new();
    for user in 0..6 {
        // A user's events are in one partition.
        weir.send(user..user + 1).await?;
        segments = weir.segments(segments.len() + 1).await?;
    }
    let (users, info) = weir.users("").await?;
    ensure!(
        users == 6 && info["exact"] == true && info["missingParts"] == json!([]),
        "{users} users, {info}"
    );

    std::fs::remove_file(&segments[0])?;
    let mut torn = std::fs::read(&segments[1])?;
    torn[200..400].fill(0xa5);
    std::fs::write(&segments[1], torn)?;
    let (users, info) = weir.users("").await?;
    ensure!(users == 4 && info["exact"] != true, "{users} users, {info}");
    let missing = info["missingParts"].as_array().context("what is missing")?;
    for segment in &segments[..2] {
        let name = segment.file_name().and_then(|name| name.to_str()).context("a name")?;
        let part =
            missing.iter().find(|part| part["segment"].as_str().is_some_and(|path| path.ends_with(name)));
        let part = part.with_context(|| format!("{name} is not among {missing:?}"))?;
        ensure!(part["events"] == "10", "{part}");
    }
    let told = weir.system.weir(&["query", "funnel", "--steps", "view,buy", "--last", "1d"])?;
    ensure!(told.contains("incomplete: segment"), "{told}");

    // What comes after is not touched by it.
    let token = weir.send(100..103).await?;
    let (users, _) = weir.users(&token).await?;
    ensure!(users == 7, "{users} users");

    // Programs read standard output.
    for question in [
        &["funnel", "--steps", "view,buy", "--last", "1d", "--csv"][..],
        &["funnel", "--steps", "view,buy", "--last", "1d", "--json"],
        &["user", "user-100", "--csv"],
        &["events", "--csv"],
        &["properties", "--json"],
        &["sql", "select count(*) from events", "--csv"],
    ] {
        let told = weir.noted(question)?;
        ensure!(told.contains("incomplete: segment"), "{question:?}: {told}");
    }
    Ok(())
}
