//! Answers that are files.

use serde_json::json;

use crate::fixture::{Fixture, answer};

#[tokio::test]
async fn a_file_is_the_body_as_it_is() {
    let f = Fixture::start().await;
    let response = f.get("/v1/events:export?format=FORMAT_CSV&event_names=a").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/csv");
    assert_eq!(response.text().await.unwrap(), "a,b\n1,2\n");
    assert!(f.last_asked().contains("format: Csv"), "{}", f.last_asked());

    let filter = json!({"filter": {"condition": {"field": "plan", "operator": "OPERATOR_EXISTS"}}});
    let response = f.post("/v1/events:export", filter.to_string()).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "a,b\n1,2\n");
    assert!(f.last_asked().contains("plan"), "{}", f.last_asked());
}

#[tokio::test]
async fn a_file_that_breaks_off_does_not_look_whole() {
    let f = Fixture::start().await;
    let request = f.get("/v1/events:export?max_events=1");
    // What breaks off soon may do so before its head is out.
    let read = async { request.send().await?.bytes().await };
    assert!(read.await.is_err(), "the connection is broken off");
}

#[tokio::test]
async fn a_file_that_cannot_be_asked_for_is_an_ordinary_error() {
    let f = Fixture::start().await;
    let (status, error) = answer(f.get("/v1/events:export?format=FORMAT_XLS")).await;
    assert_eq!((status, &error["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
}
