//! What is no value of a field is refused with the field's name, by REST and gRPC alike; what is one is given back as it was sent.

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use tonic::{Code, transport::Channel};
use weir_proto::{
    analytics::v1::{ListUserEventsRequest, analytics_service_client::AnalyticsServiceClient},
    event::v1::Event,
    ingest::v1::{IngestEventRequest, ingest_service_client::IngestServiceClient},
};
use weir_tests::system::System;

struct Weir {
    system: System,
    client: Client,
}

impl Weir {
    fn start() -> Result<Self> {
        Ok(Self { system: System::one_binary()?, client: Client::new() })
    }

    /// Sends an event as it is written: the status and the answer.
    async fn send(&self, event: &str) -> Result<(u16, Value)> {
        let url = format!("{}/v1/events", self.system.addresses.endpoint());
        let request = self.client.post(url).header("content-type", "application/json").body(event.to_owned());
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// Sends an event that is accepted; its token.
    async fn accepted(&self, event: &Value) -> Result<String> {
        let (status, answer) = self.send(&event.to_string()).await?;
        ensure!(status == 200, "{event}: {status} {answer}");
        Ok(answer["consistencyToken"].as_str().context("a token")?.to_owned())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.client.get(format!("{}{path}", self.system.addresses.endpoint())).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// Which fields an event is refused for.
    async fn refused(&self, event: &str) -> Result<String> {
        let (status, answer) = self.send(event).await?;
        ensure!(status == 400, "{event}: {status} {answer}");
        Ok(answer.to_string())
    }

    async fn channel(&self, port: u16) -> Result<Channel> {
        Ok(Channel::from_shared(format!("http://127.0.0.1:{port}"))?.connect().await?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_ids_of_white_space_are_refused_with_their_field() -> Result<()> {
    let weir = tokio::task::block_in_place(Weir::start)?;
    let mut grpc = IngestServiceClient::new(weir.channel(weir.system.addresses.producer.grpc).await?);
    let blank = [
        " ",
        "\t",
        "\u{a0}",
        "\u{200b}",
        "\u{3000}",
        " ada",
        "ada ",
        "ada\u{200b}",
        "a\u{0}b",
        "\u{feff}ada",
    ];
    for text in blank {
        for (field, name) in [
            ("userId", "user_id"),
            ("anonymousId", "anonymous_id"),
            ("sessionId", "session_id"),
            ("eventName", "event_name"),
            ("installId", "install_id"),
        ] {
            let mut event = json!({"eventName": "seen", "userId": "ada"});
            event[field] = text.into();
            let told = weir.refused(&event.to_string()).await?;
            ensure!(told.contains(name) || told.contains(field), "{event}: {told}");
        }
        let key = json!({"eventName": "seen", "userId": "ada", "properties": {text: 1}});
        ensure!(weir.refused(&key.to_string()).await?.contains("properties"), "{key}");
        let event = Event { event_name: text.to_owned(), user_id: "ada".to_owned(), ..Event::default() };
        let status = grpc.ingest_event(IngestEventRequest { event: Some(event) }).await.unwrap_err();
        ensure!(
            status.code() == Code::InvalidArgument && status.message().contains("event_name"),
            "{status}"
        );
    }
    let token = weir.accepted(&json!({"eventName": "two words", "userId": "Ada Lovelace"})).await?;
    let summary = weir.get(&format!("/v1/analytics/summary?minConsistencyToken={token}")).await?;
    ensure!(summary["current"]["events"]["value"] == 1.0, "none of the others: {summary}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_given_back_or_refused() -> Result<()> {
    let weir = tokio::task::block_in_place(Weir::start)?;
    // A user is a text: two spellings of a number can't become two users.
    for number in ["101", "101.0", "1e2", "true", "[]"] {
        let told = weir.refused(&format!(r#"{{"eventName":"seen","userId":{number}}}"#)).await?;
        ensure!(told.contains("userId") || told.contains("user_id"), "{number}: {told}");
    }
    // One value, however it is spelled.
    for number in ["100", "100.0", "1e2", "1.0E+2"] {
        let event = format!(r#"{{"eventName":"seen","userId":"101","properties":{{"n":{number}}}}}"#);
        let (status, answer) = weir.send(&event).await?;
        ensure!(status == 200, "{number}: {answer}");
    }
    for sequence in ["9223372036854775808", "18446744073709551615", "36893488147419103232", "-1"] {
        let told =
            weir.refused(&format!(r#"{{"eventName":"seen","userId":"101","sequence":{sequence}}}"#)).await?;
        ensure!(told.contains("sequence"), "{sequence}: {told}");
    }
    let greatest = json!({"eventName": "last", "userId": "101", "installId": "i", "sequence": 9_223_372_036_854_775_807_u64});
    let token = weir.accepted(&greatest).await?;
    let url = format!("{}/v1/analytics/breakdown:query", weir.system.addresses.endpoint());
    let question = json!({
        "time_range": {"last": "86400s"}, "group_by": ["properties.n"], "event_names": ["seen"], "min_consistency_token": token,
        "measures": [{"kind": "KIND_EVENTS"}],
    });
    let answer: Value = weir.client.post(url).json(&question).send().await?.json().await?;
    let rows = answer["rows"].as_array().with_context(|| answer.to_string())?;
    ensure!(rows.len() == 1 && rows[0].to_string().contains("\"100\""), "one row of 100: {answer}");
    ensure!(rows[0]["figures"][0]["value"] == 4.0, "{answer}");
    let page = weir.get("/v1/users/101/events?newestFirst=true&pageSize=1").await?;
    ensure!(page["events"][0]["event"]["sequence"] == "9223372036854775807", "{page}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_that_stand_for_nobody_and_money_that_is_none_are_refused() -> Result<()> {
    let weir = tokio::task::block_in_place(Weir::start)?;
    for id in ["NA", "N/A", "n/a", "nan", "NaN", "null", "None", "undefined", "0", "-1", "TRUE", "false"] {
        for (field, name) in [("userId", "user_id"), ("anonymousId", "anonymous_id")] {
            let told = weir.refused(&json!({"eventName": "seen", field: id}).to_string()).await?;
            ensure!(told.contains(name) || told.contains(field), "{id}: {told}");
        }
    }
    for (units, nanos, currency, field) in [
        ("1000000000000001", 0, "USD", "units"),
        ("-1000000000000001", 0, "USD", "units"),
        ("9223372036854775807", 0, "USD", "units"),
        ("9223372036854775808", 0, "USD", "units"),
        ("1", 1_000_000_000, "USD", "nanos"),
        ("1", 0, "AAA", "currency"),
        ("1", 0, "usd", "currency"),
        ("1", 0, "", "currency"),
    ] {
        let revenue = json!({"units": units, "nanos": nanos, "currencyCode": currency});
        let told = weir
            .refused(&json!({"eventName": "buy", "userId": "ada", "revenue": revenue}).to_string())
            .await?;
        ensure!(told.contains("revenue") && told.contains(field), "{revenue}: {told}");
    }
    let buy = |units: &str| json!({"eventName": "buy", "userId": "ada", "sessionId": "-1", "revenue": {"units": units, "currencyCode": "USD"}});
    weir.accepted(&buy("1000000000000000")).await?;
    let token = weir.accepted(&buy("10")).await?;
    // After 200 made-up codes, which were refused.
    for number in 0..200_u8 {
        let code: String = [b'X', b'A' + number / 26, b'A' + number % 26].map(char::from).iter().collect();
        let event =
            json!({"eventName": "buy", "userId": "eve", "revenue": {"units": "1", "currencyCode": code}});
        let (status, answer) = weir.send(&event.to_string()).await?;
        ensure!(status == 200 || answer.to_string().contains("currency"), "{event}: {status} {answer}");
    }
    let url = format!("{}/v1/analytics/time-series:query", weir.system.addresses.endpoint());
    let question = json!({
        "time_range": {"last": "86400s"}, "min_consistency_token": token,
        "measures": [{"kind": "KIND_REVENUE", "currency": "USD"}, {"kind": "KIND_SESSIONS"}],
    });
    let answer: Value = weir.client.post(url).json(&question).send().await?.json().await?;
    let points = answer["series"][0]["points"].as_array().with_context(|| answer.to_string())?;
    let sum = |figure: usize| -> f64 {
        points.iter().filter_map(|point| point["figures"][figure]["value"].as_f64()).sum()
    };
    ensure!(sum(0) == 1_000_000_000_000_010.0 && answer["info"]["exact"] == true, "{answer}");
    ensure!(sum(1) == 0.0, "the session -1 is none: {answer}");
    Ok(())
}

/// Events of the widest kind, of which a page of a thousand would be 60 MB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_wide_events_are_cut_by_their_bytes() -> Result<()> {
    const EVENTS: usize = 160;
    /// Of a page, with what JSON adds.
    const MOST: usize = 4 << 20;
    let weir = tokio::task::block_in_place(Weir::start)?;
    let texts: Vec<String> = (0..8).map(|name| format!("text-{name}")).collect();
    let mut token = String::new();
    for number in 0..EVENTS {
        let mut properties = json!({"number": number});
        texts.iter().for_each(|name| properties[name] = "x".repeat(7900).into());
        let time = format!("2024-01-01T00:{:02}:{:02}Z", number / 60, number % 60);
        let event =
            json!({"eventName": "wide", "userId": "ada", "eventTime": time, "properties": properties});
        let url = format!("{}/v1/events", weir.system.addresses.endpoint());
        let answer = weir
            .client
            .post(url)
            .header("weir-import", "0193d2a4-7c11-7c11-8c11-0193d2a47c11")
            .json(&event)
            .send()
            .await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        token = answer["consistencyToken"].as_str().context("a token")?.to_owned();
    }
    let number = |event: &Value| event["event"]["properties"]["number"].as_f64();
    let (mut seen, mut pages, mut next) = (Vec::new(), 0, String::new());
    loop {
        let path = format!(
            "{}/v1/users/ada/events?pageSize=1000&pageToken={next}&minConsistencyToken={token}",
            weir.system.addresses.endpoint()
        );
        let text = weir.client.get(path).send().await?.error_for_status()?.text().await?;
        ensure!(text.len() < MOST, "a page of {} bytes", text.len());
        let page: Value = serde_json::from_str(&text)?;
        seen.extend(
            page["events"].as_array().into_iter().flatten().filter_map(number).map(|number| number as usize),
        );
        pages += 1;
        next = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            break;
        }
    }
    ensure!(seen == (0..EVENTS).collect::<Vec<_>>() && pages >= 4, "{pages} pages: {seen:?}");

    let channel = weir.channel(weir.system.addresses.analytics.grpc).await?;
    let mut grpc = AnalyticsServiceClient::new(channel).max_decoding_message_size(MOST);
    let (mut seen, mut pages, mut page_token) = (0, 0, String::new());
    loop {
        let request = ListUserEventsRequest {
            user_id: "ada".to_owned(),
            page_size: 1000,
            page_token,
            newest_first: true,
            ..ListUserEventsRequest::default()
        };
        let page = grpc.list_user_events(request).await?.into_inner();
        (seen, pages) = (seen + page.events.len(), pages + 1);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    ensure!(seen == EVENTS && pages >= 4, "{pages} pages with {seen} events");
    Ok(())
}
