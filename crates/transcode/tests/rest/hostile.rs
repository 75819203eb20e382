//! Small requests that would become large: refused before they are built, with little memory and time.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::fixture::{Fixture, answer};

/// Far less than building what is refused here takes, and far more than refusing it does.
const SOON: Duration = Duration::from_secs(3);

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

async fn post_gzip(f: &Fixture, path: &str, body: &[u8]) -> (u16, Value) {
    let started = Instant::now();
    let answered = answer(f.post(path, gzip(body)).header("content-encoding", "gzip")).await;
    assert!(started.elapsed() < SOON, "{path} took {:?}", started.elapsed());
    answered
}

/// `{"events":[{},{},…]}` and its like, 8 MiB long.
fn list(start: &str, item: &str, end: &str) -> Vec<u8> {
    let count = ((8 << 20) - start.len() - end.len()) / (item.len() + 1) - 1;
    [start.as_bytes(), format!("{item},").repeat(count).as_bytes(), item.as_bytes(), end.as_bytes()].concat()
}

#[tokio::test]
async fn lists_of_millions_are_refused_as_json() {
    let f = Fixture::start().await;
    let event = r#"{"events":[{"eventName":"e","userId":"u","properties":{"a":["#;
    for (path, body) in [
        ("/v1/events:batch", list(r#"{"events":["#, "{}", "]}")),
        ("/v1/events:batch", list(event, "0", "]}}]}")),
        ("/v1/events:batch", list(event, "[]", "]}}]}")),
        ("/v1/events:batch", list(event, r#"{"a":{}}"#, "]}}]}")),
        ("/v1/events", list(r#"{"properties":{"#, r#""":0"#, "}}")),
        ("/v1/analytics/time-series:query", list(r#"{"measures":["#, "{}", "]}")),
        ("/v1/analytics/time-series:query", list(r#"{"groupBy":["#, r#""""#, "]}")),
        ("/v1/sql:query", list(r#"{"parameters":["#, "0", "]}")),
    ] {
        let shown = String::from_utf8_lossy(&body[..40]);
        let (status, error) = post_gzip(&f, path, &body).await;
        assert!(matches!(status, 400 | 413), "{path} {shown}: {status} {error}");
        assert_eq!(f.services.asked.lock().unwrap().len(), 0, "{path} {shown} reached the service");
    }
}

#[tokio::test]
async fn lists_of_millions_are_refused_as_protobuf() {
    let f = Fixture::start().await;
    for (path, field) in [
        ("/weir.ingest.v1.IngestService/IngestEvents", "events"),
        ("/weir.analytics.v1.AnalyticsService/QueryTimeSeries", "measures"),
        ("/weir.analytics.v1.AnalyticsService/QueryFunnel", "steps"),
    ] {
        let tag = match field {
            "events" => 0x0a,
            "measures" => 0x22,
            _ => 0x12,
        };
        let message = [tag, 0].repeat(4_194_000);
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let body = [&[0], length.as_slice(), &message].concat();
        let request = f.request("POST", path).header("content-type", "application/grpc-web+proto").body(body);
        let started = Instant::now();
        let response = request.send().await.unwrap();
        assert!(started.elapsed() < SOON, "{path} took {:?}", started.elapsed());
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        assert!(status.message().contains(&format!("(within {field})")), "{status}");
        assert!(status.message().contains("server.message_memory_bytes"), "{status}");
    }
    assert_eq!(f.services.asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_line_of_an_upload_that_is_too_large_once_decoded_fails_alone() {
    let f = Fixture::start().await;
    let good = r#"{"eventName":"good","userId":"u"}"#;
    let bad = String::from_utf8(list(r#"{"properties":{"a":["#, "[]", "]}}")).unwrap();
    let (status, receipt) = answer(f.upload(format!("{good}\n{bad}\n{good}\n"))).await;
    assert_eq!((status, &receipt["accepted"]), (200, &json!("2")), "{receipt}");
    assert!(receipt["errors"][0]["error"]["message"].as_str().unwrap().starts_with("line 2: "), "{receipt}");
}

#[tokio::test]
async fn an_upload_that_finds_no_memory_is_refused_as_a_whole() {
    let f = Fixture::start_with(|limits| limits.request_memory_bytes = 20_000).await;
    let line = format!(r#"{{"eventName":"e","userId":"{}"}}"#, "u".repeat(30_000));
    let (status, error) = answer(f.upload(format!("{line}\n"))).await;
    assert_eq!(status, 429, "a line that fits later is not a rejected one: {error}");
}

#[tokio::test]
async fn a_line_that_never_ends_is_not_waited_for() {
    let f = Fixture::start_with(|limits| limits.request_timeout = Duration::from_millis(50)).await;
    let begun = futures::StreamExt::chain(
        futures::stream::iter([Ok::<_, std::io::Error>("{\"eventName\"")]),
        futures::stream::pending(),
    );
    let (status, error) = answer(f.upload(reqwest::Body::wrap_stream(begun))).await;
    assert_eq!(status, 504, "{error}");
    assert!(error["error"]["message"].as_str().unwrap().starts_with("line 1 was not complete"), "{error}");
}

#[tokio::test]
async fn a_name_that_is_given_twice_is_refused() {
    let f = Fixture::start().await;
    for (event, name) in [
        (r#"{"eventName":"e","userId":"u","properties":{"plan":"free","plan":"pro"}}"#, "plan"),
        (r#"{"eventName":"e","userId":"u","userId":"v"}"#, "userId"),
        (r#"{"eventName":"e","userId":"u","userId":""}"#, "userId"),
        (r#"{"eventName":"e","userId":"u","user_id":"v"}"#, "user_id"),
        (r#"{"eventName":"e","userId":"u","properties":{},"properties":{}}"#, "properties"),
        (r#"{"eventName":"e","userId":"u","properties":{"a":[{"b":1,"b":1}]}}"#, "b"),
    ] {
        let (status, error) = answer(f.post("/v1/events", event)).await;
        assert_eq!(status, 400, "{event}: {error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(name) && message.contains("is given twice"), "{event}: {message}");
    }
}

#[tokio::test]
async fn whole_numbers_that_no_double_holds_stay_what_they_are() {
    let f = Fixture::start().await;
    let properties = r#"{"exact":9007199254740992,"id":9007199254740993,"large":18446744073709551615,"negative":-9007199254740993}"#;
    let event = format!(r#"{{"eventName":"e","userId":"u","properties":{properties}}}"#);
    assert_eq!(answer(f.post("/v1/events", event)).await.0, 200);
    let asked = f.last_asked();
    assert!(asked.contains("NumberValue(9007199254740992.0)"), "{asked}");
    for text in ["9007199254740993", "18446744073709551615", "-9007199254740993"] {
        assert!(asked.contains(&format!("StringValue(\"{text}\")")), "{text}: {asked}");
    }
}
