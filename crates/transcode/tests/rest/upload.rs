//! Client streams from NDJSON.

use std::{io::Write as _, time::Duration};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::fixture::{Fixture, answer, until};

fn line(name: &str) -> String {
    format!("{{\"eventName\": \"{name}\"}}\n")
}

#[tokio::test]
async fn every_line_is_an_event() {
    let f = Fixture::start().await;
    let body = format!("\u{feff}{}\r\n  \n{}{}", line("a").trim_end(), line("b"), line("c").trim_end());
    let (status, receipt) = answer(f.upload(body)).await;
    assert_eq!(status, 200, "{receipt}");
    assert_eq!(
        (&receipt["received"], &receipt["accepted"], &receipt["rejected"]),
        (&json!("3"), &json!("3"), &json!("0"))
    );
    assert_eq!(*f.services.asked.lock().unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_bad_line_fails_alone_and_is_named() {
    let f = Fixture::start_with(|limits| limits.max_message_bytes = 1000).await;
    let long = line(&"x".repeat(5000));
    let body = format!("{}\nnot json\n{}{{\"evntName\": \"c\"}}\n{long}{}", line("a"), line("b"), line("d"));
    let (status, receipt) = answer(f.upload(body)).await;
    assert_eq!(status, 200, "{receipt}");
    assert_eq!(
        (&receipt["received"], &receipt["accepted"], &receipt["rejected"]),
        (&json!("6"), &json!("3"), &json!("3"))
    );
    assert_eq!(*f.services.asked.lock().unwrap(), ["a", "b", "d"]);
    let errors = receipt["errors"].as_array().unwrap();
    let told: Vec<_> = errors
        .iter()
        .map(|e| (e["index"].as_u64().unwrap(), e["error"]["message"].as_str().unwrap()))
        .collect();
    assert_eq!(told[0].0, 1);
    assert!(told[0].1.starts_with("line 3: the body is not valid JSON: expected ident"), "{}", told[0].1);
    assert_eq!(told[1].0, 3);
    assert!(
        told[1].1.starts_with("line 5: event.evntName: unknown field; did you mean \"eventName\"?"),
        "{}",
        told[1].1
    );
    assert_eq!(told[2], (4, "line 6: the line exceeds 1000 bytes"));
    assert!(
        errors.iter().all(|e| e["error"]["code"] == 3 && e["outcome"] == "OUTCOME_REJECTED"),
        "{receipt}"
    );
    assert_eq!(errors[1]["error"]["details"][1]["fieldViolations"][0]["field"], "event.evntName");
}

#[tokio::test]
async fn an_empty_upload_has_an_empty_receipt() {
    let f = Fixture::start().await;
    assert_eq!(answer(f.upload("")).await.1["received"], "0");
    assert_eq!(answer(f.request("POST", "/v1/events:upload")).await.1["received"], "0");
}

#[tokio::test]
async fn an_upload_of_more_than_the_message_limit_passes_in_pieces() {
    let f = Fixture::start_with(|limits| limits.max_message_bytes = 1000).await;
    let body: String = (0..5000).map(|i| line(&i.to_string())).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body.as_bytes()).unwrap();
    let (status, receipt) = answer(f.upload(gzip.finish().unwrap()).header("content-encoding", "gzip")).await;
    assert_eq!((status, &receipt["accepted"]), (200, &json!("5000")));
}

#[tokio::test]
async fn events_reach_the_service_while_the_body_is_still_being_sent() {
    let f = Fixture::start().await;
    let (sender, receiver) = mpsc::channel::<Result<String, std::io::Error>>(1);
    let request = f.upload(reqwest::Body::wrap_stream(ReceiverStream::new(receiver)));
    let call = tokio::spawn(answer(request));
    sender.send(Ok(line("a"))).await.unwrap();
    until(&f.services.waiting).await;
    drop(sender);
    assert_eq!(call.await.unwrap().1["accepted"], "1");
}

#[tokio::test]
async fn an_upload_may_last_whatever_its_type() {
    let f = Fixture::start_with(|limits| limits.request_timeout = Duration::from_millis(50)).await;
    for kind in ["application/x-ndjson", "application/jsonl", "application/json"] {
        let (sender, receiver) = mpsc::channel::<Result<String, std::io::Error>>(1);
        let body = reqwest::Body::wrap_stream(ReceiverStream::new(receiver));
        let request = f.request("POST", "/v1/events:upload").header("content-type", kind).body(body);
        let call = tokio::spawn(answer(request));
        sender.send(Ok(line("a"))).await.unwrap();
        until(&f.services.waiting).await;
        // Longer than the deadline of calls that bring none, as one of them shows.
        assert_eq!(answer(f.post("/v1/events", "{\"eventName\": \"hang\"}")).await.0, 504);
        until(&f.services.waiting).await;
        drop(sender);
        assert_eq!(call.await.unwrap().1["accepted"], "1", "{kind}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_taken_for_its_end() {
    let f = Fixture::start().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(line("a").repeat(100).as_bytes()).unwrap();
    let whole = gzip.finish().unwrap();
    let cut = f.upload(whole[..whole.len() - 12].to_vec()).header("content-encoding", "gzip");
    let (status, error) = answer(cut).await;
    assert_eq!(status, 400, "{error}");
    until(&f.services.cancelled).await;
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_the_upload() {
    let f = Fixture::start().await;
    let (sender, receiver) = mpsc::channel::<Result<String, std::io::Error>>(1);
    let call = tokio::spawn(f.upload(reqwest::Body::wrap_stream(ReceiverStream::new(receiver))).send());
    sender.send(Ok(line("a"))).await.unwrap();
    until(&f.services.waiting).await;
    call.abort();
    until(&f.services.cancelled).await;
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let f = Fixture::start().await;
    let request = f.request("POST", "/v1/events:upload").header("content-type", "text/csv").body("a,b");
    let (status, error) = answer(request).await;
    assert_eq!(status, 415);
    assert!(error["error"]["message"].as_str().unwrap().contains("application/x-ndjson"), "{error}");
}
