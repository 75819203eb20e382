//! Events that are gone from the log, the store or both: questions are answered, and say since when all events are there.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::system::System;

/// The log forgets what is older than a second whenever it is opened.
const FORGETFUL_LOG: [(&str, &str); 1] = [("WEIR__TOPICS__EVENTS_RETENTION", "1s")];

fn send(system: &System, users: std::ops::Range<u32>) -> Result<()> {
    for user in users {
        system.weir(&["send", "--event", "view", "--user", &format!("u{user}"), "--wait", "--quiet"])?;
    }
    Ok(())
}

/// The summary of the last hour, and a funnel that counts at least what the summary did.
fn ask(system: &System) -> Result<(Value, Value)> {
    let asking = async {
        let (client, base) = (reqwest::Client::new(), system.addresses.endpoint());
        let url = format!("{base}/v1/analytics/summary?timeRange.last=3600s");
        let summary: Value = client.get(url).send().await?.json().await?;
        let token = summary["info"]["consistencyToken"].as_str().with_context(|| format!("{summary}"))?;
        let funnel = serde_json::json!({
            "timeRange": {"last": "3600s"},
            "steps": [{"eventNames": ["view"]}, {"eventNames": ["buy"]}],
            "window": "3600s",
            "minConsistencyToken": token,
        });
        let url = format!("{base}/v1/analytics/funnel:query");
        let answer = client.post(url).json(&funnel).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
        Ok((summary, answer.json().await?))
    };
    tokio::runtime::Runtime::new()?.block_on(asking)
}

fn stop(system: &mut System) -> Result<()> {
    let up = system.processes.remove("up").context("it runs")?;
    ensure!(up.terminate()?.success(), "`weir up` drains and ends well on SIGTERM");
    Ok(())
}

fn users(funnel: &Value) -> u64 {
    let users = &funnel["total"]["steps"][0]["count"];
    users.as_u64().or_else(|| users.as_str()?.parse().ok()).unwrap_or_default()
}

#[test]
fn a_store_that_was_lost_while_the_log_forgot_the_events_is_told_with_the_answer() -> Result<()> {
    let mut system = System::one_binary_with(&FORGETFUL_LOG)?;
    send(&system, 0..5)?;
    let (_, funnel) = ask(&system)?;
    ensure!(funnel["info"]["coverageStartTime"].is_null(), "all events are there: {funnel}");

    stop(&mut system)?;
    std::fs::remove_dir_all(system.dir.path().join("data/store"))?;
    std::thread::sleep(std::time::Duration::from_millis(1100));
    system.restart("up")?;
    let (summary, funnel) = ask(&system)?;
    ensure!(summary["current"]["events"]["value"] == 5.0, "the results are still there: {summary}");
    ensure!(!funnel["info"]["coverageStartTime"].is_null(), "the events before are missing: {funnel}");
    let missing = funnel["info"]["missingParts"].as_array();
    ensure!(missing.is_none_or(Vec::is_empty), "nothing will come back: {funnel}");

    // What comes later is whole.
    send(&system, 5..7)?;
    let (_, funnel) = ask(&system)?;
    ensure!(users(&funnel) == 2, "{funnel}");
    Ok(())
}

#[test]
fn a_store_that_was_lost_while_the_log_lives_is_made_anew() -> Result<()> {
    let mut system = System::one_binary()?;
    send(&system, 0..5)?;
    stop(&mut system)?;
    std::fs::remove_dir_all(system.dir.path().join("data/store"))?;
    system.restart("up")?;
    let (_, funnel) = ask(&system)?;
    ensure!(users(&funnel) == 5 && funnel["info"]["coverageStartTime"].is_null(), "{funnel}");
    Ok(())
}
