//! What is exported from one Weir in any format and imported into another gives the same answers to every kind of query.
//!
//! Projects are random events in a month of their own with users of their own; every target has all of one format. Seeded:
//! `WEIR_ROUNDTRIP_SEED` repeats a run, `WEIR_ROUNDTRIP_PROJECTS` makes it longer (`make verify-roundtrip`).

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Map, Value, json};
use weir_tests::system::System;

use super::{Import, command};

/// Projects of the short run in CI.
const PROJECTS: usize = 6;
/// Each with its own target.
const FORMATS: [&str; 4] = ["ndjson", "csv", "parquet", "arrow"];
/// What differs between two Weirs with the same events: how and when an answer came about, and when events were received.
const OWN: [&str; 7] =
    ["info", "receiveTime", "late", "nextPageToken", "receive_time", "log_offset", "partition"];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_format_restores_the_answers() -> Result<()> {
    let seed = number("WEIR_ROUNDTRIP_SEED").unwrap_or_else(rand::random);
    let projects = number("WEIR_ROUNDTRIP_PROJECTS").map_or(PROJECTS, |projects| projects as usize);
    println!("seed {seed}, {projects} projects");
    // Segments come about and are compacted meanwhile.
    let source = System::one_binary_with(&weir_tests::system::RESTLESS_STORE)?;
    let targets = FORMATS.map(|format| System::one_binary().map(|system| (format, system)));
    let targets: Vec<(&str, System)> = targets.into_iter().collect::<Result<_>>()?;
    for project in 0..projects {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(project as u64));
        let project = Project::random(project, &mut random);
        let at = || format!("seed {seed}, project {}", project.number);
        load(&source, &project).with_context(at)?;
        let expected = project.answers(&source).with_context(at)?;
        for (format, target) in &targets {
            let file = target.dir.path().join(format!("export-{}.{format}", project.number));
            let path = file.display().to_string();
            let args = [&["query", "export", "--output", path.as_str()][..], &project.range()].concat();
            source.weir(&args)?;
            let restored = Import::of(&command(target, &file, &[]).output()?);
            restored.succeeds().with_context(at)?.says(&["0"])?;
            let found = project.answers(target).with_context(at)?;
            for ((question, right), (_, found)) in expected.iter().zip(&found) {
                ensure!(
                    right == found,
                    "{}, {format}: `weir query {question}` answers\n{found:#}\nwhere the source answers\n{right:#}",
                    at()
                );
            }
            std::fs::remove_file(&file)?;
        }
    }
    // The segments themselves, as another tool would take them.
    let folder = source.dir.path().join("segments");
    let copied = source.store_command("export").arg(&folder).output()?;
    ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let whole = System::one_binary()?;
    for segment in parquet_files(&folder)? {
        Import::of(&command(&whole, &segment, &[]).output()?).succeeds()?;
    }
    let count = |system: &System| {
        system.weir(&["query", "sql", "--csv", "select count(*), count(distinct event_id) from events"])
    };
    let counts = (count(&source)?, count(&whole)?);
    ensure!(counts.0 == counts.1, "segments: {counts:?}");
    Ok(())
}

fn parquet_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(parquet_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    Ok(found)
}

fn load(source: &System, project: &Project) -> Result<()> {
    let file = source.dir.path().join(format!("project-{}.ndjson", project.number));
    let mut lines = String::new();
    for event in &project.events {
        writeln!(lines, "{event}")?;
    }
    std::fs::write(&file, lines)?;
    Import::of(&command(source, &file, &[]).output()?).succeeds().map(drop)
}

/// Some events.
struct Project {
    number: usize,
    /// First day of its month, and of the next.
    month: (String, String),
    users: Vec<String>,
    events: Vec<Value>,
}

impl Project {
    fn random(number: usize, random: &mut StdRng) -> Self {
        let month = |number: usize| format!("{:04}-{:02}-01", 1990 + number / 12, number % 12 + 1);
        let users: Vec<String> =
            (0..random.random_range(2..8)).map(|user| format!("p{number} u{user}")).collect();
        let first = first_micros(&month(number));
        let count = random.random_range(1..120);
        // Events of one moment keep the order in which they were accepted, which an export does not have.
        let mut times: Vec<i64> =
            (0..count).map(|_| random.random_range(86_400_000_000..27 * 86_400_000_000_i64)).collect();
        times.sort_unstable();
        times.dedup();
        let events: Vec<Value> =
            times.into_iter().map(|since| event(first + since, &users, random)).collect();
        let has_events = |user: &String| {
            let is = |event: &Value| {
                event.get("userId").or(event.get("anonymousId")).and_then(Value::as_str) == Some(user)
            };
            events.iter().any(is)
        };
        let users = users.into_iter().filter(has_events).collect();
        Self { number, month: (month(number), month(number + 1)), users, events }
    }

    fn range(&self) -> [&str; 4] {
        ["--from", &self.month.0, "--to", &self.month.1]
    }

    /// Answers to every kind of query, without what is of one Weir only.
    fn answers(&self, system: &System) -> Result<Vec<(String, Value)>> {
        let range = self.range().map(str::to_owned);
        let (from, to) = &self.month;
        let mut questions: Vec<Vec<String>> = Vec::new();
        let mut ask = |words: &str, more: &[&str]| {
            let words = words.split(' ').map(str::to_owned);
            questions.push(
                words
                    .chain(range.iter().cloned())
                    .chain(more.iter().map(|text| (*text).to_owned()))
                    .collect(),
            );
        };
        ask("summary", &[]);
        ask(
            "time-series --interval day -m count -m unique_users -m sum:price -m revenue:EUR -m revenue:JPY",
            &[],
        );
        ask("time-series --interval week -m median:price --by plan", &[]);
        ask("breakdown --by plan -m count -m avg:price -m distinct:plan --exact", &[]);
        ask("breakdown --by context.os.name --by flag -m visits -m sessions --exact", &[]);
        ask("breakdown --by event_type -m count", &["--where", "price > 10"]);
        ask("breakdown --by event_name -m count", &["--where", "plan missing"]);
        ask("funnel --steps view,cart,buy --window 7d --by plan", &[]);
        ask("funnel --steps view,buy --order any --window 2d", &[]);
        ask("retention --period week", &[]);
        ask("retention --period day --start view --return buy --recurring", &[]);
        ask("paths --after view --max-gap 3d", &[]);
        ask("paths --before buy --max-gap 7d --fold", &[]);
        ask("events", &[]);
        ask("properties --values 3", &[]);
        for user in &self.users {
            let mut words: Vec<String> = vec!["user".into(), user.clone(), "--limit".into(), "500".into()];
            words.extend(range.iter().cloned());
            questions.push(words);
        }
        // The order of a map's entries depends on which properties are columns: the export below compares properties.
        let columns = "event_id, time, client_time, event_name, event_type, user_id, anonymous_id, session_id, install_id, sequence, \
                       revenue, currency, context_os_name, property('plan'), property_number('price'), property('flag')";
        let sql = format!(
            "select {columns} from events where time >= timestamp '{from}' and time < timestamp '{to}' order by event_id"
        );
        questions.push(vec!["sql".into(), sql]);
        let mut answers = Vec::new();
        for question in questions {
            let words: Vec<&str> = question.iter().map(String::as_str).collect();
            let text = system.weir(&[&["query"], &words[..], &["--json"]].concat())?;
            let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
            let mut answer = Value::Array(values.collect::<Result<_, _>>().with_context(|| text.clone())?);
            remove(&mut answer);
            answers.push((question.join(" "), answer));
        }
        // Every event as it is, sorted.
        let lines = system.weir(&[&["query", "export"][..], &self.range()].concat())?;
        let mut lines: Vec<&str> = lines.lines().collect();
        ensure!(lines.len() == self.events.len(), "{} of {} events", lines.len(), self.events.len());
        lines.sort_unstable();
        answers.push(("export".into(), json!(lines)));
        Ok(answers)
    }
}

/// Microseconds of a day's first moment since 1970.
fn first_micros(day: &str) -> i64 {
    let parts: Vec<i64> = day.split('-').map(|part| part.parse().unwrap_or_default()).collect();
    // Days from the civil date, after Howard Hinnant's algorithm.
    let (year, month) = (parts[0] - i64::from(parts[1] <= 2), (parts[1] + 9) % 12);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5;
    (era * 146_097 + day_of_era - 719_468) * 86_400_000_000
}

fn remove(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !OWN.contains(&key.as_str()));
            fields.values_mut().for_each(remove);
        }
        Value::Array(items) => items.iter_mut().for_each(remove),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn one<'a>(texts: &[&'a str], random: &mut StdRng) -> &'a str {
    texts[random.random_range(0..texts.len())]
}

fn event(corrected: i64, users: &[String], random: &mut StdRng) -> Value {
    // Some clocks are wrong.
    let offset =
        if random.random_bool(0.2) { random.random_range(-5_000_000_000..5_000_000_000_i64) } else { 0 };
    let client = prost_types::Timestamp {
        seconds: (corrected - offset).div_euclid(1_000_000),
        nanos: ((corrected - offset).rem_euclid(1_000_000) * 1_000) as i32,
    };
    let user = &users[random.random_range(0..users.len())];
    let mut event = json!({
        "eventId": uuid::Builder::from_random_bytes(random.random()).into_uuid().to_string(),
        "eventName": one(&["view", "view", "cart", "buy", "search \"x\", y"], random),
        "eventTime": client.to_string(),
    });
    if offset != 0 {
        let sign = if offset < 0 { "-" } else { "" };
        let size = offset.unsigned_abs();
        event["clockOffset"] = json!(format!("{sign}{}.{:06}s", size / 1_000_000, size % 1_000_000));
    }
    if random.random_bool(0.9) {
        event["userId"] = json!(user);
        if random.random_bool(0.3) {
            event["anonymousId"] = json!(format!("anonymous {user}"));
        }
    } else {
        event["anonymousId"] = json!(user);
    }
    let kinds = ["EVENT_TYPE_TRACK", "EVENT_TYPE_PAGE", "EVENT_TYPE_SCREEN", "EVENT_TYPE_IDENTIFY"];
    if random.random_bool(0.5) {
        event["eventType"] = json!(one(&kinds, random));
    }
    if random.random_bool(0.5) {
        event["sessionId"] = json!(format!("{user} s{}", random.random_range(0..3)));
    }
    if random.random_bool(0.3) {
        event["installId"] = json!(format!("{user} phone"));
        event["sequence"] = json!(random.random_range(1..1_000_000_u64).to_string());
    }
    if random.random_bool(0.3) {
        let nanos = random.random_range(0..1_000_000_000_i32);
        let sign = if random.random_bool(0.2) { -1 } else { 1 };
        event["revenue"] = json!({
            "currencyCode": one(&["EUR", "JPY", "USD"], random),
            "units": (sign * random.random_range(0..100_000_i64)).to_string(),
            "nanos": if random.random_bool(0.5) { i32::try_from(sign).unwrap_or(1) * nanos } else { 0 },
        });
    }
    if random.random_bool(0.4) {
        event["context"] = json!({
            "os": {"name": one(&["iOS", "Android", "Ünix, \"x\""], random)},
            "page": {"url": "https://shop.example/?a=1&b=\u{1F600}"},
            "campaign": {"source": "newsletter"},
        });
    }
    let mut properties = Map::new();
    for key in ["plan", "price", "flag", "mixed", "a.b", "with, comma", "ключ"] {
        if random.random_bool(0.5) {
            properties.insert(key.to_owned(), value(key, 3, random));
        }
    }
    if !properties.is_empty() {
        event["properties"] = Value::Object(properties);
    }
    event
}

fn value(key: &str, levels: usize, random: &mut StdRng) -> Value {
    let number = |random: &mut StdRng| match random.random_range(0..6) {
        0 => json!(random.random_range(-100..100_i64)),
        1 => json!(random.random_range(0.0..100.0)),
        2 => json!(-0.1),
        3 => json!(1e20),
        4 => json!(5e-7),
        _ => json!((1_i64 << 53) - 1),
    };
    match key {
        "plan" => json!(one(&["free", "pro", "007", "5.00", "true", "null", "", " padded "], random)),
        "price" => json!(f64::from(random.random_range(0..400)) / 4.0),
        "flag" => json!(random.random_bool(0.5)),
        _ => match random.random_range(0..if levels == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(random.random_bool(0.5)),
            2 => number(random),
            3 => {
                let texts =
                    ["", "x", "line\nbreak", "say \"hi\"", "12", "1e5", "[1]", "{}", "a\u{301}", "\u{1F600}"];
                json!(one(&texts, random))
            }
            4 => json!("987654321012345678"),
            5 => (0..random.random_range(0..4)).map(|_| value("", levels - 1, random)).collect(),
            _ => {
                let fields = ["k", "two words", "n"].iter().take(random.random_range(0..4));
                Value::Object(fields.map(|key| ((*key).to_owned(), value("", levels - 1, random))).collect())
            }
        },
    }
}
