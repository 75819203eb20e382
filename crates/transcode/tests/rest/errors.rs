//! What callers get when a request or a service fails.

use serde_json::json;

use crate::fixture::{Fixture, answer, until};

#[tokio::test]
async fn a_services_error_keeps_its_details() {
    let f = Fixture::start().await;
    let (status, error) = answer(f.post("/v1/events", r#"{"eventName": ""}"#)).await;
    assert_eq!(status, 400);
    assert_eq!(error["error"]["code"], 400);
    assert_eq!(error["error"]["status"], "INVALID_ARGUMENT");
    assert_eq!(error["error"]["message"], "event.event_name: must not be empty");
    let details = error["error"]["details"].as_array().unwrap();
    let bad = details.iter().find(|d| d["@type"] == "type.googleapis.com/google.rpc.BadRequest").unwrap();
    assert_eq!(bad["fieldViolations"][0]["field"], "event.event_name");
}

#[tokio::test]
async fn overload_says_when_to_come_back() {
    let f = Fixture::start().await;
    let response = f.post("/v1/events", r#"{"eventName": "full"}"#).send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    let error: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let retry = error["error"]["details"].as_array().unwrap().iter().find(|d| d["retryDelay"] == "0.250s");
    assert!(retry.is_some(), "{error}");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let f = Fixture::start().await;
    let (status, error) = answer(f.get("/v1/evnets")).await;
    assert_eq!((status, &error["error"]["status"]), (404, &json!("NOT_FOUND")));
    let response = f.get("/v1/events").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, "POST"));
    let (status, error) = answer(f.request("DELETE", "/v1/analytics/summary")).await;
    assert_eq!((status, &error["error"]["code"]), (405, &json!(405)));
}

#[tokio::test]
async fn json_that_is_not_json_is_told_by_line_and_column() {
    let f = Fixture::start().await;
    for (body, expected) in [
        ("{\"eventName\": \"a\",\n oops}", "line 2 column 2"),
        ("{\"eventName\": \"a\"", "EOF while parsing"),
        (" ", "EOF while parsing"),
        ("{\"eventName\": \"a\"} x", "trailing characters"),
        ("{\"properties\": {\"a\": NaN}}", "line 1 column"),
        ("{\"properties\": {\"a\": 1e999}}", "number out of range"),
        ("\u{feff}{}", "line 1 column 1"),
    ] {
        let (status, error) = answer(f.post("/v1/events", body)).await;
        let message = error["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(expected), "{body:?}: {status} {message}");
    }
    let (status, error) = answer(f.post("/v1/events", &b"{\"eventName\": \"\xff\"}"[..])).await;
    assert_eq!((status, &error["error"]["details"][0]["reason"]), (400, &json!("BODY_MALFORMED")), "{error}");
}

#[tokio::test]
async fn what_nests_too_deep_to_be_read_is_the_services_to_refuse() {
    let f = Fixture::start().await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!("{{\"eventName\": \"e\", \"properties\": {{\"a\": {deep}}}}}");
    let (status, json) = answer(f.post("/v1/events", body)).await;
    assert_eq!(status, 200, "this one refuses nothing: {json}");
    let asked = f.last_asked();
    assert_eq!(
        (asked.matches("ListValue {").count(), asked.matches("NullValue(").count()),
        (18, 1),
        "{asked}"
    );
}

#[tokio::test]
async fn a_wrong_field_is_named_with_its_mend() {
    let f = Fixture::start().await;
    for (path, body, field, description) in [
        ("/v1/events", r#"{"eventNmae": "a"}"#, "event.eventNmae", "did you mean \"eventName\"?"),
        ("/v1/events", r#"{"context": {"app": {"verson": "1"}}}"#, "event.context.app.verson", "\"version\""),
        ("/v1/events:batch", r#"{"events": [{}, {"user_di": "a"}]}"#, "events[1].user_di", "\"user_id\""),
        (
            "/v1/events:batch",
            r#"{"events": [{"eventType": "TRACK"}]}"#,
            "events[0].eventType",
            "EVENT_TYPE_TRACK",
        ),
        ("/v1/events:batch", r#"{"events": [{"eventName": 5}]}"#, "events[0].eventName", "expected a string"),
        ("/v1/events:batch", r#"{"events": [{"eventTime": "now"}]}"#, "events[0].eventTime", "rfc3339"),
        ("/v1/events:batch", r#"{"events": 5}"#, "events", "expected a list"),
        ("/v1/events:batch", r#"{"zzz": 5}"#, "zzz", "has no such field"),
        ("/v1/events:batch", "[]", "(body)", "expected a map"),
        ("/v1/events", "null", "event", "expected a map"),
    ] {
        let (status, error) = answer(f.post(path, body)).await;
        let violation = &error["error"]["details"][1]["fieldViolations"][0];
        assert_eq!((status, &violation["field"]), (400, &json!(field)), "{body}: {error}");
        let text = violation["description"].as_str().unwrap();
        assert!(text.contains(description) && text.contains("(line 1, column "), "{body}: {text}");
    }
}

#[tokio::test]
async fn a_deadline_ends_the_call() {
    let f = Fixture::start().await;
    let hang = f.post("/v1/events", r#"{"eventName": "hang"}"#).header("grpc-timeout", "50m");
    let (status, error) = answer(hang).await;
    assert_eq!(status, 504, "{error}");
    until(&f.services.cancelled).await;
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_the_call() {
    let f = Fixture::start().await;
    let call = tokio::spawn(f.post("/v1/events", r#"{"eventName": "hang"}"#).send());
    until(&f.services.waiting).await;
    call.abort();
    until(&f.services.cancelled).await;
}
