//! Requests as they should be, and bodies in every dress.

use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use serde_json::json;

use crate::fixture::{Fixture, answer};

const EVENT: &str = r#"{"eventId": "e-1", "event_name": "purchase", "userId": "u", "sequence": "7",
    "eventTime": "2026-01-31T12:00:00Z", "clockOffset": "-1.5s",
    "properties": {"platform": "web", "n": 1.5, "nested": {"list": [1, "a", null, true]}},
    "revenue": {"currencyCode": "USD", "units": "12", "nanos": 500000000}, "context": null}"#;

#[tokio::test]
async fn an_event_arrives_whole() {
    let f = Fixture::start().await;
    let response = f.post("/v1/events", EVENT).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["weir-partition"], "2");
    assert!(response.headers().get("internal-note").is_none());
    let json: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(json, json!({"eventId": "e-1", "consistencyToken": "purchase"}));
    let asked = f.last_asked();
    for part in [
        "sequence: 7",
        "seconds: 1769860800",
        "seconds: -1, nanos: -500000000",
        "StringValue(\"web\")",
        "NullValue",
        "units: 12, nanos: 500000000",
        "context: None",
    ] {
        assert!(asked.contains(part), "{part} is missing in {asked}");
    }
}

#[tokio::test]
async fn counts_of_zero_are_shown() {
    let f = Fixture::start().await;
    let (_, json) = answer(f.post("/v1/events:batch", r#"{"events": [{}, {}]}"#)).await;
    assert_eq!(
        json,
        json!({"results": [], "accepted": 2, "duplicates": 0, "rejected": 0, "consistencyToken": ""})
    );
}

#[tokio::test]
async fn the_query_asks_what_a_get_asks() {
    let f = Fixture::start().await;
    let path = "/v1/analytics/summary?time_range.start_time=2024-03-01T00:00:00Z&topEvents=5";
    assert_eq!(answer(f.get(path)).await.0, 200);
    let asked = f.last_asked();
    assert!(asked.contains("seconds: 1709251200") && asked.contains("top_events: 5"), "{asked}");
}

#[tokio::test]
async fn metadata_of_interest_goes_along() {
    let f = Fixture::start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = f
        .post("/v1/events", EVENT)
        .header("authorization", "Bearer x")
        .header("weir-import", "true")
        .header("cookie", "private")
        .header("traceparent", trace);
    assert_eq!(answer(request).await.0, 200);
    let headers = f.services.headers.lock().unwrap().clone();
    assert_eq!(headers["authorization"], "Bearer x");
    assert_eq!(headers["weir-import"], "true");
    assert!(headers.get("cookie").is_none());
    let forwarded = headers["traceparent"].to_str().unwrap();
    assert!(
        forwarded[..35] == trace[..35] && forwarded != trace,
        "{forwarded} is not a span of the same trace"
    );
    assert!(headers.contains_key("grpc-timeout"), "the default deadline is passed on");
}

fn compressed(coding: &str, data: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(data, 3).unwrap(),
        "identity" => data.to_vec(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn compressed_bodies_are_read() {
    let f = Fixture::start().await;
    for coding in ["gzip", "deflate", "zstd", "identity"] {
        let request = f.post("/v1/events", compressed(coding, EVENT.as_bytes()));
        let (status, json) = answer(request.header("content-encoding", coding)).await;
        assert_eq!((status, &json["eventId"]), (200, &json!("e-1")), "{coding}: {json}");
    }
}

#[tokio::test]
async fn broken_compression_is_told() {
    let f = Fixture::start().await;
    let mut raw_deflate = DeflateEncoder::new(Vec::new(), Compression::best());
    raw_deflate.write_all(EVENT.as_bytes()).unwrap();
    let gzip = compressed("gzip", EVENT.as_bytes());
    for (coding, body) in [
        ("gzip", EVENT.as_bytes().to_vec()),
        ("gzip", gzip[..gzip.len() - 9].to_vec()),
        ("zstd", gzip.clone()),
        ("deflate", raw_deflate.finish().unwrap()),
    ] {
        let (status, error) = answer(f.post("/v1/events", body).header("content-encoding", coding)).await;
        assert_eq!(
            (status, &error["error"]["details"][0]["reason"]),
            (400, &json!("BODY_MALFORMED")),
            "{error}"
        );
    }
    let (status, error) = answer(f.post("/v1/events", EVENT).header("content-encoding", "br")).await;
    assert_eq!(status, 415);
    assert!(error["error"]["message"].as_str().unwrap().contains("gzip, zstd, deflate"), "{error}");
}

#[tokio::test]
async fn bodies_are_limited_by_their_decompressed_size() {
    let limit = 100_000;
    let f = Fixture::start_with(|limits| limits.max_message_bytes = limit).await;
    let bomb = vec![b' '; 200 << 20];
    for coding in ["gzip", "deflate", "zstd"] {
        let small = compressed(coding, &bomb);
        let request = f.post("/v1/events", small).header("content-encoding", coding);
        let (status, error) = answer(request).await;
        assert_eq!(
            (status, &error["error"]["details"][0]["reason"]),
            (413, &json!("BODY_TOO_LARGE")),
            "{coding}"
        );
    }
    let padded = |length: usize| format!("{EVENT}{}", " ".repeat(length - EVENT.len()));
    assert_eq!(answer(f.post("/v1/events", padded(limit))).await.0, 200, "the limit itself is allowed");
    assert_eq!(answer(f.post("/v1/events", padded(limit + 1))).await.0, 413);
    let unannounced =
        reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(padded(limit + 1))]));
    assert_eq!(answer(f.post("/v1/events", unannounced)).await.0, 413);
}

#[tokio::test]
async fn bodies_that_are_received_at_once_share_a_budget() {
    let f = Fixture::start_with(|limits| limits.request_memory_bytes = 10_000).await;
    let large = format!("{EVENT}{}", " ".repeat(20_000));
    let (status, error) = answer(f.post("/v1/events", large.clone())).await;
    assert_eq!(status, 429, "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("server.request_memory_bytes"), "{error}");
    // Lines are not held until the last of them came.
    let lines = format!("{EVENT}{}", "\n".repeat(20_000));
    assert_eq!(answer(f.upload(lines)).await.0, 200);
    for _ in 0..100 {
        assert_eq!(answer(f.post("/v1/events", format!("{EVENT}{}", " ".repeat(1000)))).await.0, 200);
    }
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let f = Fixture::start().await;
    for wrong in
        ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=latin1", "image/png"]
    {
        let request = f.request("POST", "/v1/events").header("content-type", wrong).body(EVENT);
        let (status, error) = answer(request).await;
        assert_eq!(status, 415, "{wrong}");
        assert!(
            error["error"]["message"].as_str().unwrap().contains("content-type: application/json"),
            "{error}"
        );
    }
    assert_eq!(answer(f.request("POST", "/v1/events").body(EVENT)).await.0, 415, "no type at all");
    let utf8 =
        f.request("POST", "/v1/events").header("content-type", "Application/JSON; charset=UTF-8").body(EVENT);
    assert_eq!(answer(utf8).await.0, 200);
}
