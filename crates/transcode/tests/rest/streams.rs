//! Server streams as server-sent events and as NDJSON.

use serde_json::{Value, json};

use crate::fixture::{Fixture, HANG, answer, until};

/// Reads until the text contains `end`.
async fn read_until(response: &mut reqwest::Response, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let chunk = tokio::time::timeout(HANG, response.chunk()).await.expect("more to come").unwrap();
        text.push_str(std::str::from_utf8(&chunk.expect("more to come")).unwrap());
    }
    text
}

#[tokio::test]
async fn messages_are_numbered_events_and_the_end_is_told() {
    let f = Fixture::start().await;
    let response = f.post("/v1/analytics:watch", "{}").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    let text = response.text().await.unwrap();
    assert_eq!(
        text,
        "id: 1\ndata: {\"upkeep\":\"UPKEEP_REPEATED\",\"update\":\"1\"}\n\n\
         id: 2\ndata: {\"upkeep\":\"UPKEEP_REPEATED\",\"update\":\"2\"}\n\n\
         event: end\ndata: {}\n\n"
    );
}

#[tokio::test]
async fn an_error_in_mid_stream_is_an_event() {
    let f = Fixture::start().await;
    let text =
        f.post("/v1/analytics:watch", r#"{"summary": {}}"#).send().await.unwrap().text().await.unwrap();
    let (messages, error) = text.split_once("event: error\ndata: ").unwrap();
    assert_eq!(messages.matches("data: ").count(), 2);
    let error: Value = serde_json::from_str(error.trim_end()).unwrap();
    assert_eq!(error["error"]["code"], 429);
    assert_eq!(error["error"]["details"][0]["reason"], "READER_TOO_SLOW");
}

#[tokio::test]
async fn ndjson_is_sent_to_those_who_accept_it() {
    let f = Fixture::start().await;
    let request =
        f.post("/v1/analytics:watch", r#"{"summary": {}}"#).header("accept", "application/x-ndjson");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    let update = |number: &str| json!({"upkeep": "UPKEEP_REPEATED", "update": number});
    assert_eq!(lines[..2], [update("1"), update("2")]);
    assert_eq!(lines[2]["error"]["status"], "RESOURCE_EXHAUSTED");
}

#[tokio::test]
async fn an_error_before_the_first_message_is_an_http_error() {
    let f = Fixture::start().await;
    let (status, error) = answer(f.get("/v1/events:watch?user_id=nobody")).await;
    assert_eq!((status, &error["error"]["details"][0]["reason"]), (404, &json!("RESOURCE_NOT_FOUND")));
    assert_eq!(answer(f.post("/v1/analytics:watch", "nonsense")).await.0, 400);
}

#[tokio::test]
async fn a_message_is_sent_at_once_and_leaving_cancels_the_stream() {
    let f = Fixture::start().await;
    let mut response = f.get("/v1/events:watch?event_names=a&event_names=b").send().await.unwrap();
    let first = read_until(&mut response, "\n\n").await;
    assert_eq!(first, "id: 1\ndata: {\"events\":[],\"missed\":\"1\"}\n\n");
    assert!(f.last_asked().contains(r#"event_names: ["a", "b"]"#), "{}", f.last_asked());
    assert!(
        !f.services.headers.lock().unwrap().contains_key("grpc-timeout"),
        "a stream has no default deadline"
    );
    drop(response);
    until(&f.services.cancelled).await;
}

#[tokio::test]
async fn a_callers_deadline_ends_the_stream() {
    let f = Fixture::start().await;
    let mut response = f.get("/v1/events:watch").header("grpc-timeout", "100m").send().await.unwrap();
    let text = read_until(&mut response, "event: error").await;
    assert!(text.contains("DEADLINE_EXCEEDED") || !text.ends_with("\n\n"), "{text}");
    until(&f.services.cancelled).await;
}
