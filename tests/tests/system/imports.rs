//! Files of other programs, imported by the real command line, have their right values in the answers; and exports of Weir's own
//! are restored.

mod round_trip;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::{process, system::System};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/imports");
const ALWAYS: [&str; 2] = ["--from", "0001-01-01"];

/// What a run of `weir import` did.
struct Import {
    succeeded: bool,
    out: String,
    err: String,
}

impl Import {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { succeeded: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Everything that it printed.
    fn said(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    fn says(&self, parts: &[&str]) -> Result<&Self> {
        for part in parts {
            ensure!(self.said().contains(part), "`{part}` is not said:\n{}", self.said());
        }
        Ok(self)
    }

    fn succeeds(&self) -> Result<&Self> {
        ensure!(self.succeeded, "the import failed:\n{}", self.said());
        Ok(self)
    }

    fn fails(&self) -> Result<&Self> {
        ensure!(!self.succeeded, "the import did not fail:\n{}", self.said());
        Ok(self)
    }
}

fn command(system: &System, file: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(process::binary());
    command
        .current_dir(system.dir.path())
        .arg("import")
        .arg(file)
        .args(args)
        .env("WEIR_ENDPOINT", system.addresses.endpoint())
        .env("XDG_STATE_HOME", system.dir.path().join("state"))
        .stdin(Stdio::null());
    command
}

/// Imports a file of `data/imports`, or one that the test wrote into the system's folder.
fn import(system: &System, name: &str, args: &[&str]) -> Result<Import> {
    let file = copied(system, name)?;
    Ok(Import::of(&command(system, &file, args).output()?))
}

/// A copy of a file in the system's folder, beside which the rejected rows are written.
fn copied(system: &System, name: &str) -> Result<PathBuf> {
    let file = system.dir.path().join(name);
    if !file.exists() {
        std::fs::copy(Path::new(DATA).join(name), &file)?;
    }
    Ok(file)
}

/// The rows of an answer as CSV, without the header.
fn rows(system: &System, args: &[&str]) -> Result<Vec<String>> {
    let answer = system.weir(&[&["query"], args, &["--csv"]].concat())?;
    Ok(answer.lines().skip(1).map(str::to_owned).collect())
}

/// Measures of one event name, by the values of a field.
fn breakdown(system: &System, event: &str, by: &str, measures: &[&str]) -> Result<Vec<String>> {
    let measures: Vec<&str> = measures.iter().flat_map(|measure| ["--measure", measure]).collect();
    let mut rows = rows(
        system,
        &[&["breakdown", "--by", by, "--event", event, "--exact"][..], &ALWAYS, &measures].concat(),
    )?;
    rows.sort();
    Ok(rows)
}

/// Events of a name in the order of their times, as JSON.
fn exported(system: &System, event: &str) -> Result<Vec<Value>> {
    let lines = system.weir(&["query", "export", "--event", event])?;
    let mut events = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let key = |event: &Value| format!("{} {}", event["eventTime"], event["userId"]);
    events.sort_by_key(key);
    Ok(events)
}

/// A field of each event, by its path.
fn each(events: &[Value], pointer: &str) -> Vec<String> {
    let text = |event: &Value| match event.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    };
    events.iter().map(text).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T, what: &str) -> Result<()> {
    ensure!(found == expected, "{what}: found {found:?}, expected {expected:?}");
    Ok(())
}

#[test]
fn values_are_right_however_a_file_writes_them() -> Result<()> {
    let system = System::one_binary()?;

    let shown = import(&system, "spellings.csv", &["--dry-run"])?;
    shown.succeeds()?.says(&[
        "properties.price",
        "4 numbers",
        "numbers such as 0010",
        "4 of true and false",
    ])?;
    same(rows(&system, &["events"])?.len(), 0, "events after a dry run")?;
    import(&system, "spellings.csv", &[])?.succeeds()?;
    let price = breakdown(&system, "c01_buy", "event_name", &["sum:price", "avg:price"])?;
    let price: Vec<f64> = price[0].split(',').skip(1).map(str::parse).collect::<Result<_, _>>()?;
    ensure!((price[0] - 27.74).abs() < 1e-9 && (price[1] - 6.935).abs() < 1e-9, "prices: {price:?}");
    let trial = breakdown(&system, "c01_buy", "trial", &["count"])?;
    same(trial, vec!["false,1".to_owned(), "true,3".to_owned()], "trials")?;
    let zip = each(&exported(&system, "c01_buy")?, "/properties/zip");
    same(zip, ["0010", "02138", "0600000", "10"].map(str::to_owned).to_vec(), "post codes")?;

    import(&system, "blanks.csv", &[])?.succeeds()?.says(&["blanks behind the separators"])?;
    let notes = each(&exported(&system, "c05_view")?, "/properties/note");
    same(notes, ["a, b", "plain", "quoted"].map(str::to_owned).to_vec(), "notes")?;

    import(&system, "same-names.csv", &[])?.succeeds()?.says(&["`plan`", "`plan_2`"])?;
    let twice = exported(&system, "c06_dup")?;
    same(
        (each(&twice, "/properties/plan"), each(&twice, "/properties/plan_2")),
        (vec!["free".to_owned()], vec!["pro".to_owned()]),
        "plans",
    )?;

    for (file, event) in [("large-numbers.csv", "c09_csv"), ("large-numbers.ndjson", "c09_big")] {
        import(&system, file, &[])?.succeeds()?;
        let users = breakdown(&system, event, "user_id", &["count"])?;
        same(users, vec!["9223372036854775806,1".to_owned(), "9223372036854775807,1".to_owned()], file)?;
        let orders = breakdown(&system, event, "order", &["unique_users"])?;
        same(orders, vec!["987654321012345678,1".to_owned(), "987654321012345679,1".to_owned()], file)?;
    }

    import(&system, "float-amounts.ndjson", &["--map", "revenue=total", "--map", "currency=currency"])?
        .succeeds()?;
    let revenue = breakdown(&system, "c10_sale", "event_name", &["revenue:EUR", "revenue:JPY"])?;
    same(revenue, vec!["c10_sale,450.00,1980".to_owned()], "revenue")?;
    let table = system.weir(&[
        "query",
        "breakdown",
        "--by",
        "event_name",
        "--event",
        "c10_sale",
        "--from",
        "2024-01-01",
        "-m",
        "revenue:JPY",
    ])?;
    ensure!(table.contains("1,980 JPY"), "{table}");

    let measured = |event: &str| {
        system.weir(&[
            "query",
            "breakdown",
            "--by",
            "event_name",
            "--event",
            event,
            "--from",
            "2024-01-01",
            "-m",
            "sum:price",
            "--json",
        ])
    };
    let mixed = "user_id,event_name,event_time,price\nu,mixed,20240115,5.00\nu,mixed,20240115,free\nu,mixed,20240115,7\n";
    std::fs::write(system.dir.path().join("mixed.csv"), mixed)?;
    import(&system, "mixed.csv", &[])?
        .succeeds()?
        .says(&["price: 2 of 3 look like numbers, kept as text"])?;
    ensure!(measured("mixed")?.contains("`price`"), "{}", measured("mixed")?);
    let line = |price: &str| {
        format!(
            "{{\"user_id\":\"u\",\"event_name\":\"both\",\"event_time\":\"20240115\",\"price\":{price}}}\n"
        )
    };
    std::fs::write(system.dir.path().join("both.ndjson"), line("5.5") + &line("\"free\""))?;
    import(&system, "both.ndjson", &[])?.succeeds()?;
    let both = measured("both")?;
    ensure!(both.contains("5.5") && both.contains("has values that are text, too"), "{both}");

    import(&system, "message-ids.csv", &["--map", "event_id=messageId"])?.succeeds()?;
    let users = breakdown(&system, "c12_seg", "user_id", &["count"])?;
    same(users, vec!["u1,1".to_owned(), "u2,1".to_owned()], "events of messages that were sent twice")?;

    for (file, event, zone, days) in [
        ("azores.ndjson", "c13_azores", "Atlantic/Azores", vec!["2024-10-27T00:00:00+00:00"]),
        ("quarter-days.ndjson", "c23_q", "UTC", vec!["2024-07-01T00:00:00+00:00"]),
    ] {
        import(&system, file, &[])?.succeeds()?;
        let series = rows(
            &system,
            &[
                "time-series",
                "--interval",
                "day",
                "--zone",
                zone,
                "--event",
                event,
                "--from",
                "2024-01-01",
                "--to",
                "2025-01-01",
            ],
        )?;
        let counted: Vec<&String> = series.iter().filter(|row| !row.ends_with(",0")).collect();
        ensure!(counted.len() == days.len() && counted[0].ends_with(",4"), "{file}: {series:?}");
    }
    import(&system, "same-microsecond.ndjson", &[])?.succeeds()?;
    same(
        exported(&system, "c18_buy")?.len() + exported(&system, "c18_see")?.len(),
        2,
        "events of one microsecond",
    )
}

#[test]
fn times_are_right_or_refused_with_a_pattern() -> Result<()> {
    let system = System::one_binary()?;
    let times = |event: &str| Ok::<_, anyhow::Error>(each(&exported(&system, event)?, "/eventTime"));

    import(&system, "compact-dates.csv", &[])?.succeeds()?;
    let days = ["2024-01-15T00:00:00Z", "2024-01-16T00:00:00Z"].map(str::to_owned).to_vec();
    same(times("c02_ga4")?, days.clone(), "compact dates")?;

    // A wrong import, and the same file with another zone: the rows become other events and count.
    let corrected = import(&system, "compact-dates.csv", &["--time-zone", "Asia/Kolkata"])?;
    corrected.succeeds()?;
    let both =
        ["2024-01-14T18:30:00Z", "2024-01-15T00:00:00Z", "2024-01-15T18:30:00Z", "2024-01-16T00:00:00Z"];
    same(times("c02_ga4")?, both.map(str::to_owned).to_vec(), "dates of two zones")?;
    import(&system, "compact-dates.csv", &["--restart", "--time-format", "%Y%m%d"])?.succeeds()?;
    same(times("c02_ga4")?.len(), 4, "the same events once more")?;

    import(&system, "named-utc.csv", &[])?.succeeds()?;
    let utc = ["2015-05-20T21:34:02Z", "2015-05-20T21:34:02.100Z", "2015-05-20T21:34:02.123456Z"];
    let mut found = times("c03_bq")?;
    found.sort_by_key(|time| time.trim_end_matches('Z').to_owned());
    same(found, utc.map(str::to_owned).to_vec(), "times with UTC behind them")?;

    let wide = import(&system, "int96.parquet", &[])?;
    wide.fails()?.says(&[
        "2 of 4 rows",
        "ahead of the server's clock",
        "outside the years",
        "--allow-rejects",
    ])?;
    let accepted = exported(&system, "c07_int96")?;
    same(each(&accepted, "/userId"), vec!["u4".to_owned(), "u1".to_owned()], "users")?;
    same(
        each(&accepted, "/eventTime"),
        vec!["1000-01-01T00:00:00Z".to_owned(), "2000-01-01T00:00:00Z".to_owned()],
        "times",
    )?;
    let allowed = import(&system, "int96.parquet", &["--restart", "--allow-rejects"])?;
    allowed.succeeds()?;

    let refused = ["0", "2024", "45306", "03/04/2024 05:06", "Jan 5, 2024 10:00 AM", "soon"];
    let rows = refused.map(|time| format!("u,bad_time,\"{time}\"\n")).concat();
    std::fs::write(
        system.dir.path().join("bad-times.csv"),
        format!("user_id,event_name,event_time\n{rows}"),
    )?;
    let bad = import(&system, "bad-times.csv", &[])?;
    bad.fails()?.says(&["6", "--time-format", "no row was accepted"])?;
    let rejects = std::fs::read_to_string(system.dir.path().join("bad-times.csv.rejects.csv"))?;
    for part in ["'%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'", "'%Y'", "spreadsheet"] {
        ensure!(rejects.contains(part), "{part}: {rejects}");
    }
    Ok(())
}

#[test]
fn damaged_files_give_what_stands_before_the_damage() -> Result<()> {
    let system = System::one_binary()?;
    import(&system, "padded.csv.gz", &[])?.succeeds()?;
    same(exported(&system, "c08_b")?.len(), 3, "rows before padding")?;
    import(&system, "members.csv.gz", &[])?.succeeds()?;
    same(exported(&system, "c08_a")?.len(), 3, "rows of two members")?;

    let whole = std::fs::read(Path::new(DATA).join("nyc-weather.csv.gz"))?;
    let maps = [
        "--map",
        "user_id=origin",
        "--value",
        "event_name=hour",
        "--map",
        "event_time=time_hour",
        "--null",
        "NA",
    ];
    let file = system.dir.path().join("damaged.csv.gz");
    let half = &whole[..whole.len() / 2];
    std::fs::write(&file, half)?;
    let cut = import(&system, "damaged.csv.gz", &maps)?;
    cut.fails()?.says(&["cut off", "rows before it are imported", "repair the file"])?;
    let before = exported(&system, "hour")?.len();
    ensure!(before > 10_000, "{before} rows before the cut are counted");
    // As the message says: the repaired file again, of which the rows that are there count once.
    std::fs::write(&file, &whole)?;
    import(&system, "damaged.csv.gz", &maps)?.succeeds()?;
    same(exported(&system, "hour")?.len(), 26_115, "rows of the repaired file")?;

    let csv = "user_id,event_name\nu1,tail\nu2,tail\n";
    for (name, compressed) in [("tail.csv.zst", zstd(csv)?), ("tail.csv.gz", gzip(csv)?)] {
        std::fs::write(system.dir.path().join(name), [&compressed[..], b"garbage"].concat())?;
        let tail = import(&system, name, &["--value", &format!("properties.file={name}")])?;
        tail.fails()?.says(&["other data follows the end", "the 2 rows before it are imported"])?;
        same(
            breakdown(&system, "tail", "file", &["count"])?.iter().filter(|row| row.contains(name)).count(),
            1,
            name,
        )?;
    }
    Ok(())
}

fn gzip(text: &str) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes())?;
    Ok(gzip.finish()?)
}

fn zstd(text: &str) -> Result<Vec<u8>> {
    Ok(zstd::encode_all(text.as_bytes(), 3)?)
}

#[test]
fn rejected_rows_are_told_by_reason_and_can_be_imported_once_fixed() -> Result<()> {
    let system = System::one_binary()?;
    let mut text = "user_id,event_name,event_time,n\n".to_owned();
    for number in 0..5 {
        text.push_str(&format!("u{number},kept,2024-01-15,{number}\n"));
        text.push_str(&format!("u{number},{},2024-01-15,{number}\n", "x".repeat(201)));
        text.push_str(&format!("u{number},kept,tomorrow,{number}\n"));
    }
    text.push_str("u,short\n");
    std::fs::write(system.dir.path().join("mixed.csv"), &text)?;
    let mixed = import(&system, "mixed.csv", &[])?;
    mixed.fails()?.says(&[
        "5 rows (lines 3, 6, 9, …): ",
        "5 rows (lines 4, 7, 10, …): event_time: `tomorrow`",
        "1 row (line 17): the row has 2 values, the header 4",
        "11 of 16 rows were rejected",
    ])?;
    ensure!(!mixed.said().contains("events["), "reasons are told by lines of the file:\n{}", mixed.said());
    let dry = import(&system, "mixed.csv", &["--dry-run", "--json"])?;
    let dry: Value = serde_json::from_str(&dry.succeeds()?.out)?;
    same(dry["rejected"].as_u64(), Some(11), "rejected rows that a dry run expects")?;

    let rejects = system.dir.path().join("mixed.csv.rejects.csv");
    let fixed = std::fs::read_to_string(&rejects)?
        .replace("tomorrow", "2024-01-16")
        .replace(&"x".repeat(201), "named");
    let fixed: Vec<&str> = fixed.lines().filter(|line| !line.contains("short")).collect();
    std::fs::write(system.dir.path().join("fixed.csv"), fixed.join("\n"))?;
    import(&system, "fixed.csv", &[])?.succeeds()?;
    same(
        (exported(&system, "kept")?.len(), exported(&system, "named")?.len()),
        (10, 5),
        "events of fixed rows",
    )
}

#[test]
fn public_files_have_the_values_that_python_computes() -> Result<()> {
    let system = System::one_binary()?;
    let answers: Value = serde_json::from_slice(&std::fs::read(Path::new(DATA).join("answers.json"))?)?;
    // `[rows, sum]` of each value of a field.
    let sums = |event: &str, by: &str, column: &str, expected: &Value| -> Result<()> {
        let found = breakdown(&system, event, by, &["count", &format!("sum:{column}")])?;
        let expected = expected.as_object().context("an answer for each value")?;
        same(found.len(), expected.len(), event)?;
        for row in found {
            let [value, count, sum]: [&str; 3] =
                row.split(',').collect::<Vec<_>>().try_into().map_err(|_| anyhow::anyhow!("{row}"))?;
            let right = &expected[value];
            same(count.parse().ok(), right[0].as_u64(), &row)?;
            let (sum, right): (f64, f64) = (sum.parse()?, right[1].as_f64().context("a sum")?);
            ensure!((sum - right).abs() <= right.abs() * 1e-12, "{row}: expected {right}");
        }
        Ok(())
    };
    let months = |event: &str, expected: &Value| -> Result<()> {
        let args = [
            "time-series",
            "--interval",
            "month",
            "--event",
            event,
            "--from",
            "1992-01-01",
            "--to",
            "2016-01-01",
        ];
        let found = rows(&system, &args)?;
        let found = found.iter().filter_map(|row| row.split_once(',')).filter(|(_, count)| *count != "0");
        let found: Vec<(String, u64)> =
            found.map(|(month, count)| Ok((month[..7].to_owned(), count.parse()?))).collect::<Result<_>>()?;
        let expected = expected.as_object().context("an answer for each month")?;
        let expected =
            expected.iter().map(|(month, count)| (month.clone(), count.as_u64().unwrap_or_default()));
        same(found, expected.collect(), event)
    };

    let stocks = ["--map", "user_id=symbol", "--map", "event_time=date", "--value", "event_name=close"];
    import(&system, "stocks.csv", &stocks)?.fails()?.says(&["560", "--time-format '%b %d %Y'"])?;
    import(&system, "stocks.csv", &[&stocks[..], &["--time-format", "%b %d %Y"]].concat())?.succeeds()?;
    sums("close", "user_id", "price", &answers["stocks"])?;

    let github = ["--map", "event_time=time", "--value", "user_id=github", "--value", "event_name=push"];
    import(&system, "github.csv", &github)?.succeeds()?;
    let total = breakdown(&system, "push", "event_name", &["count", "sum:count"])?;
    same(total, vec![format!("push,{},{}", answers["github"][0], answers["github"][1])], "pushes")?;
    months("push", &answers["github"][2])?;

    let weather = ["--map", "user_id=origin", "--map", "event_time=time_hour", "--value", "event_name=hour"];
    let mixed = import(&system, "nyc-weather.csv.gz", &[&weather[..], &["--dry-run"]].concat())?;
    mixed.succeeds()?.says(&["wind_gust: ", "look like numbers, kept as text", "--null 'NA'"])?;
    import(&system, "nyc-weather.csv.gz", &[&weather[..], &["--null", "NA"]].concat())?.succeeds()?;
    sums("hour", "user_id", "temp", &answers["weather_temp"])?;
    sums("hour", "user_id", "wind_gust", &answers["weather_gust"])?;

    let unemployment =
        ["--map", "user_id=id", "--value", "event_name=county", "--value", "properties.all=all"];
    import(&system, "unemployment.tsv", &unemployment)?
        .succeeds()?
        .says(&["no column is mapped to event_time"])?;
    sums("county", "all", "rate", &answers["unemployment"])?;

    let riots =
        ["--map", "user_id=last_name", "--map", "event_time=death_date", "--value", "event_name=death"];
    import(&system, "la-riots.csv", &riots)?.succeeds()?;
    sums("death", "gender", "age", &answers["riots"])?;
    months("death", &answers["riots_per_month"])
}
