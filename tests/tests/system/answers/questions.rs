//! Every entry of `ecom-answers.json`, asked by `weir query`, which speaks gRPC, and over REST. Both must answer alike, to the number.

use anyhow::{Context, Result, ensure};
use reqwest::{Client, RequestBuilder, header};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weir_tests::system::System;

/// Half a year that holds all of the data in every zone asked about.
const RANGE: [&str; 4] = ["--from", "2024-01-01", "--to", "2024-07-01"];
const START: &str = "2024-01-01T00:00:00Z";
const END: &str = "2024-07-01T00:00:00Z";

const ORACLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/ecom-answers.json"));

/// Compares every answer of a system with the oracle's.
pub(super) fn check_answers(system: &System) -> Result<()> {
    let oracle = serde_json::from_str(ORACLE)?;
    let asker = Asker { system, client: Client::new(), runtime: Runtime::new()? };
    check_summary(&asker, &oracle)?;
    check_series(&asker, &oracle)?;
    check_breakdowns(&asker, &oracle)?;
    check_funnels(&asker, &oracle)?;
    check_retention(&asker, &oracle)?;
    check_timeline(&asker, &oracle)?;
    check_sql(&asker, &oracle)?;
    check_rollups_by_events(&asker)
}

/// Asks one question both ways.
struct Asker<'a> {
    system: &'a System,
    client: Client,
    runtime: Runtime,
}

impl Asker<'_> {
    /// Of `POST /v1/analytics/{kind}:query`, `question` being its body without the range.
    fn ask(&self, kind: &str, args: &[&str], question: Value) -> Result<Value> {
        let mut question = question;
        question["timeRange"] = json!({"startTime": START, "endTime": END});
        let by_rest =
            self.json(self.client.post(self.url(&format!("analytics/{kind}:query"))).json(&question))?;
        alike(self.query(kind, args)?, &by_rest)
    }

    fn query(&self, kind: &str, args: &[&str]) -> Result<Value> {
        let args = [&["query", kind, "--json"], &RANGE[..], args].concat();
        Ok(serde_json::from_str(&self.system.weir(&args)?)?)
    }

    fn get(&self, path: &str) -> Result<Value> {
        self.json(self.client.get(self.url(path)))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.system.addresses.endpoint())
    }

    fn json(&self, request: RequestBuilder) -> Result<Value> {
        let text = self.text(request)?;
        serde_json::from_str(&text).with_context(|| format!("ProtoJSON, not {text}"))
    }

    fn text(&self, request: RequestBuilder) -> Result<String> {
        self.runtime.block_on(async {
            let answer = request.send().await?;
            let (status, text) = (answer.status(), answer.text().await?);
            ensure!(status.is_success(), "{status}: {text}");
            Ok(text)
        })
    }
}

/// The answer of both, which may differ in how they came about: one of them may be kept from the other.
fn alike(by_grpc: Value, by_rest: &Value) -> Result<Value> {
    let without_info = |answer: &Value| {
        let mut answer = answer.clone();
        answer.as_object_mut().map(|fields| fields.remove("info"));
        answer
    };
    ensure!(
        without_info(&by_grpc) == without_info(by_rest),
        "{by_grpc} by `weir query`, {by_rest} over REST"
    );
    for said in ["source", "exact", "rollup", "missingParts"] {
        let (by_grpc, by_rest) = (&by_grpc["info"][said], &by_rest["info"][said]);
        ensure!(by_grpc == by_rest, "{said}: {by_grpc} by `weir query`, {by_rest} over REST");
    }
    Ok(by_grpc)
}

/// Measures of every row of the oracle, and how `weir query` puts them.
const MEASURES: [&str; 4] = ["--measure", "count", "--measure", "unique_users"];

fn measures() -> Value {
    json!([{"kind": "KIND_EVENTS"}, {"kind": "KIND_UNIQUE_USERS"}])
}

fn check_summary(asker: &Asker<'_>, oracle: &Value) -> Result<()> {
    let path = format!("analytics/summary?timeRange.startTime={START}&timeRange.endTime={END}");
    let summary = alike(asker.query("summary", &[])?, &asker.get(&path)?)?;
    let expected = &oracle["summary"];
    same("summary events", &summary["current"]["events"], &expected["events"])?;
    close("summary unique users", &summary["current"]["uniqueUsers"], &expected["unique_users"])?;
    close("summary sessions", &summary["current"]["sessions"], &expected["sessions"])?;
    ensure!(summary["info"]["exact"] == true, "so few users and sessions are exact: {}", summary["info"]);
    Ok(())
}

fn check_series(asker: &Asker<'_>, oracle: &Value) -> Result<()> {
    let mobile = json!({"condition": {"field": "platform", "operator": "OPERATOR_IN", "values": ["mobile"]}});
    for (name, interval, zone, args, events, filter) in [
        ("daily_utc", "day", "UTC", &[][..], json!([]), Value::Null),
        ("daily_kolkata", "day", "Asia/Kolkata", &[], json!([]), Value::Null),
        ("weekly_new_york", "week", "America/New_York", &[], json!([]), Value::Null),
        (
            "monthly_mobile_purchases_utc",
            "month",
            "UTC",
            &["--event", "purchase", "--where", "platform=mobile"],
            json!(["purchase"]),
            mobile,
        ),
    ] {
        let args = [&["--interval", interval, "--zone", zone], &MEASURES[..], args].concat();
        let question = json!({
            "interval": format!("INTERVAL_{}", interval.to_uppercase()), "timeZone": zone, "measures": measures(),
            "eventNames": events, "filter": filter,
        });
        let answer = asker.ask("time-series", &args, question).context(name)?;
        let rows = answer["series"][0]["points"].as_array().context("a series has points")?;
        let day = |point: &Value| vec![point["localTime"].as_str().unwrap_or_default()[..10].to_owned()];
        check_rows(name, rows, day, &oracle[name])?;
    }
    Ok(())
}

fn check_breakdowns(asker: &Asker<'_>, oracle: &Value) -> Result<()> {
    for (name, args, by, events) in [
        ("by_event", &["--by", "event_name"][..], json!(["event_name"]), json!([])),
        (
            "purchases_by_platform",
            &["--by", "platform", "--event", "purchase"],
            json!(["platform"]),
            json!(["purchase"]),
        ),
        (
            "events_by_channel_and_lifecycle",
            &["--by", "acquisition_channel", "--by", "user_lifecycle"],
            json!(["acquisition_channel", "user_lifecycle"]),
            json!([]),
        ),
    ] {
        let question = json!({"groupBy": by, "measures": measures(), "eventNames": events});
        let answer = asker.ask("breakdown", &[args, &MEASURES].concat(), question).context(name)?;
        let mut rows = answer["rows"].as_array().context("a breakdown has rows")?.clone();
        let group = |row: &Value| -> Vec<String> {
            row["group"]
                .as_array()
                .expect("a row has a group")
                .iter()
                .map(|v| v.as_str().unwrap_or("").to_owned())
                .collect()
        };
        if name == "events_by_channel_and_lifecycle" {
            rows.sort_by_key(group); // the oracle lists these by name
        }
        check_rows(name, &rows, group, &oracle[name])?;
    }
    Ok(())
}

fn check_funnels(asker: &Asker<'_>, oracle: &Value) -> Result<()> {
    let names = oracle["funnel_steps"].as_array().context("the oracle knows a funnel")?;
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    let joined = names.join(",");
    let steps: Vec<Value> = names.iter().map(|name| json!({"eventNames": [name]})).collect();
    for (name, window, seconds, args, by) in [
        ("funnel_1h", "1h", 3600, &[][..], json!([])),
        ("funnel_1d", "1d", 86_400, &[], json!([])),
        ("funnel_7d_by_platform", "7d", 604_800, &["--by", "platform"], json!(["platform"])),
    ] {
        let args = [&["--steps", joined.as_str(), "--window", window, "--order", "strict"], args].concat();
        let question = json!({
            "steps": steps, "window": format!("{seconds}s"), "order": "ORDER_STRICT", "groupBy": by,
        });
        let answer = asker.ask("funnel", &args, question).context(name)?;
        let groups = answer["groups"].as_array().cloned().unwrap_or_default();
        for (group, expected) in oracle[name].as_object().context("funnels by group")? {
            let found = match group.as_str() {
                "all" => Some(&answer["total"]),
                _ => groups.iter().find(|found| found["group"][0] == group.as_str()),
            };
            let found = found.with_context(|| format!("{name}: {group} is missing: {answer}"))?;
            let counts: Vec<_> = found["steps"]
                .as_array()
                .context("steps")?
                .iter()
                .map(|step| count(&step["count"]))
                .collect();
            let expected: Vec<_> = expected.as_array().context("counts")?.iter().map(Value::as_u64).collect();
            ensure!(counts == expected, "{name}, {group}: {counts:?}, not {expected:?}");
        }
    }
    Ok(())
}

fn check_retention(asker: &Asker<'_>, oracle: &Value) -> Result<()> {
    let question = json!({"period": "RETENTION_PERIOD_WEEK"});
    let answer = asker.ask("retention", &["--period", "week"], question).context("retention")?;
    let cohorts = answer["groups"][0]["cohorts"].as_array().context("cohorts")?;
    let expected = oracle["retention_weekly_utc"].as_array().context("the oracle knows retention")?;
    ensure!(cohorts.len() == expected.len(), "{} cohorts, not {}", cohorts.len(), expected.len());
    for (cohort, expected) in cohorts.iter().zip(expected) {
        let day = &cohort["localTime"].as_str().context("a day")?[..10];
        ensure!(
            expected[0] == day && count(&cohort["size"]) == expected[1].as_u64(),
            "{cohort}, not {expected}"
        );
        for (week, found) in cohort["counts"].as_array().context("weeks")?.iter().enumerate() {
            let expected = expected[2].get(week.to_string()).map_or(Some(0), Value::as_u64);
            ensure!(count(found) == expected, "cohort {day}, week {week}: {found}, not {expected:?}");
        }
    }
    Ok(())
}

fn check_timeline(asker: &Asker<'_>, oracle: &Value) -> Result<()> {
    let by_grpc = asker.query("user", &["user_0007", "--oldest-first", "--limit", "10"])?["timeline"].take();
    let timeline = alike(by_grpc, &asker.get("users/user_0007/events?pageSize=10")?).context("timeline")?;
    let found = timeline["events"].as_array().context("events")?.iter().map(|event| {
        let time = event["correctedTime"].as_str().unwrap_or_default();
        json!([time.replace('T', " ").trim_end_matches('Z'), event["event"]["eventName"]])
    });
    let (found, expected) = (Value::Array(found.collect()), &oracle["timeline_user_0007_first_10"]);
    ensure!(found == *expected, "{found}, not {expected}");
    Ok(())
}

fn check_sql(asker: &Asker<'_>, oracle: &Value) -> Result<()> {
    let statement = "select event_name, count(*) as events, count(distinct user_id) as users from events group by 1 order by 2 desc, 1";
    let expected = oracle["by_event"].as_array().context("the oracle knows events")?;
    let lines: Vec<String> = expected
        .iter()
        .map(|row| format!("{},{},{}", row[0].as_str().unwrap_or_default(), row[1], row[2]))
        .collect();
    let answer = asker.system.weir(&["query", "sql", "--csv", statement])?;
    let found: Vec<&str> = answer.lines().skip(1).collect();
    ensure!(found == lines, "SQL: {answer}");

    let request = asker.client.post(asker.url("sql:query")).json(&json!({"statement": statement}));
    let answer = asker.text(request.header(header::ACCEPT, "application/x-ndjson"))?;
    let parts = answer.lines().map(serde_json::from_str).collect::<serde_json::Result<Vec<Value>>>()?;
    let rows = parts.iter().filter_map(|part| part["rows"]["rows"].as_array()).flatten();
    let found: Vec<String> = rows
        .map(|row| {
            let [events, users] = [&row[1], &row[2]].map(|number| number.as_f64().unwrap_or(f64::NAN));
            format!("{},{events},{users}", row[0].as_str().unwrap_or_default())
        })
        .collect();
    ensure!(found == lines, "SQL over REST: {answer}");
    Ok(())
}

/// Rollups and events agree where both can answer.
fn check_rollups_by_events(asker: &Asker<'_>) -> Result<()> {
    for (kind, args) in [
        ("time-series", &["--interval", "day", "--zone", "Asia/Kolkata", "--measure", "unique_users"][..]),
        ("breakdown", &["--by", "platform", "--measure", "count", "--measure", "unique_users"]),
    ] {
        let rollup = asker.query(kind, args)?;
        let events = asker.query(kind, &[args, &["--exact"]].concat())?;
        ensure!(events["info"]["source"] == "SOURCE_STORE", "exact figures come from the events: {events}");
        let rows = |answer: &Value| match kind {
            "breakdown" => answer["rows"].clone(),
            _ => answer["series"].clone(),
        };
        ensure!(rows(&rollup) == rows(&events), "{kind}: {rollup} from a rollup, {events} from the events");
    }
    Ok(())
}

/// A 64-bit number in ProtoJSON, which is a text.
fn count(number: &Value) -> Option<u64> {
    number.as_str().map_or(Some(0), |text| text.parse().ok())
}

/// Rows of the oracle are `[key…, events, unique users]`.
fn check_rows(name: &str, rows: &[Value], key: impl Fn(&Value) -> Vec<String>, oracle: &Value) -> Result<()> {
    let oracle = oracle.as_array().with_context(|| format!("the oracle knows {name}"))?;
    ensure!(rows.len() == oracle.len(), "{name}: {} rows, not {}: {rows:?}", rows.len(), oracle.len());
    for (row, expected) in rows.iter().zip(oracle) {
        let expected = expected.as_array().context("a row")?;
        let (keys, figures) = expected.split_at(expected.len() - 2);
        ensure!(key(row) == keys, "{name}: {row} where the oracle has {expected:?}");
        same(name, &row["figures"][0], &figures[0])?;
        close(name, &row["figures"][1], &figures[1])?;
    }
    Ok(())
}

fn number(figure: &Value) -> f64 {
    figure["value"].as_f64().unwrap_or_default()
}

/// Exactly equal, and said to be exact.
fn same(what: &str, figure: &Value, expected: &Value) -> Result<()> {
    ensure!(
        figure["exact"] == true && Some(number(figure)) == expected.as_f64(),
        "{what}: {figure}, not {expected}"
    );
    Ok(())
}

/// Equal where it is said to be exact, else within the bounds that are stated.
fn close(what: &str, figure: &Value, expected: &Value) -> Result<()> {
    if figure["exact"] == true {
        return same(what, figure, expected);
    }
    let (low, high) = (figure["lowerBound"].as_f64(), figure["upperBound"].as_f64());
    ensure!(
        low <= expected.as_f64() && expected.as_f64() <= high,
        "{what}: {figure} does not hold {expected}"
    );
    Ok(())
}
