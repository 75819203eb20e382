//! What a person does with `grpcurl` and nothing else: by reflection it lists and describes every service, uploads events from
//! standard input, and watches a query counting up.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Deserializer, Value, json};
use weir_tests::{
    process::{self, PATIENCE},
    system::System,
};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(args: &[&str]) -> Result<Running> {
    let grpcurl = Command::new("grpcurl")
        .args(["-plaintext", "-max-time", &PATIENCE.as_secs().to_string()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Ok(Running(grpcurl.context("grpcurl is not on the PATH: `make test` installs it")?))
}

/// Runs grpcurl to its end.
fn grpcurl(args: &[&str], input: &str) -> Result<String> {
    let Running(child) = &mut spawn(args)?;
    child.stdin.take().context("it is piped")?.write_all(input.as_bytes())?;
    let (mut out, mut errors) = (String::new(), String::new());
    std::io::Read::read_to_string(&mut child.stdout.take().context("it is piped")?, &mut out)?;
    std::io::Read::read_to_string(&mut child.stderr.take().context("it is piped")?, &mut errors)?;
    ensure!(child.wait()?.success(), "grpcurl {args:?}: {errors}");
    Ok(out)
}

#[test]
fn every_service_is_listed_and_described() -> Result<()> {
    let system = System::one_binary()?;
    let addresses = system.addresses;
    let everything = ["IngestService", "ProcessingService", "AnalyticsService", "MetricsService"];
    for (port, expected) in [
        (addresses.gateway, &everything[..]),
        (addresses.producer.grpc, &["IngestService", "MetricsService"]),
        (addresses.consumer.grpc, &["ProcessingService", "MetricsService"]),
        (addresses.analytics.grpc, &["AnalyticsService", "MetricsService"]),
    ] {
        let address = format!("127.0.0.1:{port}");
        let listed = grpcurl(&[&address, "list"], "")?;
        for service in expected {
            ensure!(listed.lines().any(|line| line.ends_with(service)), "{service} is not in:\n{listed}");
        }
        for service in listed.lines() {
            let described = grpcurl(&[&address, "describe", service], "")?;
            ensure!(
                described.contains(&format!("{service} is a service:")) && described.contains("rpc "),
                "{described}"
            );
        }
    }
    Ok(())
}

#[test]
fn events_are_uploaded_from_standard_input_and_a_watch_counts_up_while_traffic_comes() -> Result<()> {
    let system = System::one_binary()?;
    let producer = format!("127.0.0.1:{}", system.addresses.producer.grpc);
    let lines: String = (0..10)
        .map(|n| json!({"event": {"event_name": "reading", "user_id": format!("d{n}")}}).to_string() + "\n")
        .collect();
    let receipt = grpcurl(&["-d", "@", &producer, "weir.ingest.v1.IngestService/UploadEvents"], &lines)?;
    let receipt: Value = serde_json::from_str(&receipt)?;
    ensure!(receipt["received"] == "10" && receipt["accepted"] == "10", "{receipt}");

    let traffic = Command::new(process::binary())
        .args(["simulate", "--rate", "300"])
        .env("WEIR_ENDPOINT", system.addresses.endpoint())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let _traffic = Running(traffic);
    let analytics = format!("127.0.0.1:{}", system.addresses.analytics.grpc);
    let question = json!({"summary": {}, "min_interval": "0.02s"}).to_string();
    let mut watch = spawn(&["-d", &question, &analytics, "weir.analytics.v1.AnalyticsService/WatchQuery"])?;
    let updates = Deserializer::from_reader(watch.0.stdout.take().context("it is piped")?);
    let (mut last, mut rises) = (0.0, 0);
    for update in updates.into_iter::<Value>() {
        let update = update?;
        // grpcurl leaves out what is zero.
        let events = update["summary"]["current"]["events"]["value"].as_f64().unwrap_or_default();
        ensure!(events >= last, "updates never go back: {last}, then {update}");
        rises += u32::from(events > last);
        last = events;
        if rises == 10 {
            ensure!(last > 10.0, "more than what was uploaded: {last}");
            return Ok(());
        }
    }
    anyhow::bail!("the watch ended after {rises} rises, at {last} events")
}
