//! Path templates, bodies, queries and response bodies, on a service that answers what it was asked.

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tonic::{body::Body, service::Routes};
use weir_runtime::Config;

use crate::fixture::{Fixture, Services, answer};

pub(crate) fn descriptors(name: &str, text: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), text).unwrap();
    let third_party = concat!(env!("CARGO_MANIFEST_DIR"), "/../../third_party");
    let mut compiler = protox::Compiler::new([dir.path().to_path_buf(), third_party.into()]).unwrap();
    compiler.include_imports(true).open_file(name).unwrap();
    compiler.encode_file_descriptor_set()
}

/// Speaks gRPC by hand: the answer is the request's bytes.
async fn echo(request: http::Request<Body>) -> Result<http::Response<Body>, std::convert::Infallible> {
    let frames = request.into_body().collect().await.unwrap().to_bytes();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let body = StreamBody::new(tokio_stream::iter([
        Ok::<_, tonic::Status>(http_body::Frame::data(frames)),
        Ok(http_body::Frame::trailers(trailers)),
    ]));
    let response = http::Response::builder().header("content-type", "application/grpc");
    Ok(response.body(Body::new(body)).unwrap())
}

async fn start() -> Fixture {
    let descriptors = descriptors("forms.proto", include_str!("forms.proto"));
    let limits = Config::default().server;
    let http =
        weir_transcode::rest(&descriptors, &["test.v1.FormsService"], tower::service_fn(echo), &limits)
            .unwrap();
    Fixture::serve(Services::default(), Routes::default(), &descriptors, |_| http, limits).await
}

/// Only what is not at its default.
fn set(json: &Value) -> Value {
    let Value::Object(fields) = json else { return json.clone() };
    let unset = [
        json!(""),
        json!("0"),
        json!(0),
        json!(0.0),
        json!([]),
        json!({}),
        json!(false),
        json!("COLOR_UNSPECIFIED"),
    ];
    fields.iter().map(|(k, v)| (k.clone(), set(v))).filter(|(_, v)| !unset.contains(v)).collect()
}

async fn echoed(request: reqwest::RequestBuilder) -> Value {
    let (status, json) = answer(request).await;
    assert_eq!(status, 200, "{json}");
    set(&json)
}

#[tokio::test]
async fn variables_come_from_the_path() {
    let f = start().await;
    assert_eq!(echoed(f.get("/v1/forms/a%2Fb")).await, json!({"name": "a/b"}));
    assert_eq!(
        echoed(f.get("/v1/shelves/7/forms/x")).await,
        json!({"name": "x", "inner": {"label": "shelves/7"}})
    );
    assert_eq!(
        echoed(f.get("/v1/forms/by-number/-9223372036854775808")).await,
        json!({"number": "-9223372036854775808"})
    );
    assert_eq!(echoed(f.request("DELETE", "/v1/files/a/b%2Fc/d")).await, json!({"path": "a/b%2Fc/d"}));
    assert_eq!(echoed(f.request("PROBE", "/v1/forms/x")).await, json!({"name": "x"}));

    let (status, error) = answer(f.get("/v1/forms/by-number/many")).await;
    assert_eq!(status, 400);
    assert_eq!(error["error"]["message"], "number: \"many\" is not a 64-bit integer");
}

#[tokio::test]
async fn the_path_wins_over_the_body() {
    let f = start().await;
    let sealed = f.post("/v1/forms/n:seal", r#"{"name": "other", "tags": ["a"]}"#);
    assert_eq!(echoed(sealed).await, json!({"name": "n", "tags": ["a"]}));
}

#[tokio::test]
async fn a_field_can_be_the_body() {
    let f = start().await;
    let created = f.post("/v1/forms?name=n&tags=a&tags=b", r#"{"label": "l", "pageSize": 3}"#);
    assert_eq!(
        echoed(created).await,
        json!({"name": "n", "tags": ["a", "b"], "inner": {"label": "l", "pageSize": 3}})
    );
    let tags = f.request("PUT", "/v1/forms/n/tags").header("content-type", "application/json");
    assert_eq!(echoed(tags.body(r#"["x", "y"]"#)).await, json!({"name": "n", "tags": ["x", "y"]}));
    let smuggled = f.request("PUT", "/v1/forms/n/tags").header("content-type", "application/json");
    let (status, error) = answer(smuggled.body(r#"["x"], "number": 7"#)).await;
    assert_eq!((status, &error["error"]["details"][0]["reason"]), (400, &json!("BODY_MALFORMED")), "{error}");
    assert_eq!(
        echoed(f.request("POST", "/v1/forms?number=4")).await,
        json!({"number": "4"}),
        "no body: unset"
    );
}

#[tokio::test]
async fn every_kind_of_field_can_be_a_query_parameter() {
    let f = start().await;
    let path = "/v1/forms/n?number=-5&inner.label=l&inner.pageSize=3&inner.deeper.page_size=4&tags=a&tags=b%20c\
                &color=COLOR_RED&colors=1&colors=COLOR_BLUE&time=2026-01-31T12:00:00.5%2B01:00&wait=1.5s&maybe=7\
                &perhaps=true&mask=a.b,cD&data=aGk%3D&ratio=-1e3&sure=true&left=l";
    assert_eq!(
        echoed(f.get(path)).await,
        json!({
            "name": "n", "number": "-5", "tags": ["a", "b c"],
            "inner": {"label": "l", "pageSize": 3, "deeper": {"pageSize": 4}},
            "color": "COLOR_RED", "colors": ["COLOR_RED", "COLOR_BLUE"],
            "time": "2026-01-31T11:00:00.500Z", "wait": "1.500s", "maybe": "7", "perhaps": true,
            "mask": "a.b,cD", "data": "aGk=", "ratio": -1000.0, "sure": true, "left": "l",
        })
    );
}

#[tokio::test]
async fn a_wrong_query_parameter_is_named_with_its_mend() {
    let f = start().await;
    for (query, expected) in [
        ("nmuber=1", "nmuber: unknown parameter \"nmuber\"; did you mean \"number\"?"),
        ("inner.pageSzie=1", "inner.pageSzie: unknown parameter \"pageSzie\"; did you mean \"pageSize\"?"),
        ("name.x=1", "name.x: unknown parameter \"x\""),
        ("name=other", "name: is given by the path already"),
        ("number=1&number=2", "number: is given twice"),
        ("color=RED", "color: \"RED\" is not one of COLOR_UNSPECIFIED, COLOR_RED, COLOR_BLUE"),
        ("time=today", "time: \"today\" is not an RFC 3339 time"),
        ("wait=5", "wait: \"5\" is not a duration"),
        ("perhaps=1", "perhaps: \"1\" is not true or false"),
        ("labels=a", "labels: a map has no form as a query parameter"),
        ("inner=a", "inner: this field has no form as a query parameter"),
        ("ratio=inf", "ratio: \"inf\" is not a number"),
        ("left=a&right=b", "right: excludes \"left\""),
        ("nmuber=1&color=RED", "(and 1 more, see the details)"),
    ] {
        let (status, error) = answer(f.get(&format!("/v1/forms/n?{query}"))).await;
        let message = error["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(expected), "{query}: {status} {message}");
    }
    let deep = format!("/v1/forms/n?{}label=x", "inner.".to_owned() + &"deeper.".repeat(500));
    assert_eq!(answer(f.get(&deep)).await.0, 400);
    let (_, error) = answer(f.post("/v1/forms?inner.label=x", "{}")).await;
    assert!(error["error"]["message"].as_str().unwrap().contains("belongs into the body"), "{error}");
}

#[tokio::test]
async fn a_field_can_be_the_answer() {
    let f = start().await;
    assert_eq!(echoed(f.get("/v1/forms/n/inner?inner.label=l")).await, json!({"label": "l"}));
    assert_eq!(answer(f.get("/v1/forms/n/inner")).await.1, Value::Null);
    assert_eq!(answer(f.get("/v1/forms/n/tags?tags=a&tags=b")).await.1, json!(["a", "b"]));
}

#[tokio::test]
async fn answers_show_defaults_and_text_for_large_numbers() {
    let f = start().await;
    let (_, json) = answer(f.get("/v1/forms/n?number=9007199254740993")).await;
    assert_eq!(json["number"], "9007199254740993");
    for (field, default) in [
        ("tags", json!([])),
        ("color", json!("COLOR_UNSPECIFIED")),
        ("ratio", json!(0.0)),
        ("labels", json!({})),
    ] {
        assert_eq!(json[field], default, "{field}");
    }
    for absent in ["inner", "maybe", "left", "time"] {
        assert!(json.get(absent).is_none(), "{absent} was never set");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let f = start().await;
    let response = f.request("HEAD", "/v1/forms/n").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.bytes().await.unwrap(), Bytes::new());
}

#[tokio::test]
async fn rules_that_cannot_be_served_are_refused_at_the_start() {
    let service = |rpc: &str| {
        let text = format!(
            "syntax = \"proto3\"; package t; import \"google/api/annotations.proto\";
             message M {{ string a = 1; M m = 2; repeated string l = 3; }}
             service S {{ {rpc} }}"
        );
        let descriptors = descriptors("t.proto", &text);
        let limits = Config::default().server;
        weir_transcode::rest(&descriptors, &["t.S"], tower::service_fn(echo), &limits)
            .err()
            .map(|e| e.to_string())
    };
    let rule =
        |rule: &str| service(&format!("rpc R(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }}"));
    assert_eq!(rule("get: '/v1/m/{a}'"), None);
    for (wrong, expected) in [
        ("get: '/v1/m/{b}'", "no field \"b\""),
        ("get: '/v1/m/{m}'", "not a single scalar"),
        ("get: '/v1/m/{l}'", "not a single scalar"),
        ("get: '/{a}'", "does not begin with a literal"),
        ("get: 'v1'", "does not begin with /"),
        ("post: '/v1/m' body: 'b'", "body names \"b\""),
        ("get: '/v1/m' response_body: 'b'", "response_body names \"b\""),
        ("body: '*'", "no pattern"),
        ("get: '/v1/{a}' additional_bindings { get: '/v1/{m.a}' }", "both claim GET /v1/{m.a}"),
    ] {
        let error = rule(wrong).unwrap_or_else(|| panic!("{wrong} was accepted"));
        assert!(error.contains(expected) && error.contains("t.S.R"), "{wrong}: {error}");
    }
    let both =
        "rpc R(stream M) returns (stream M) { option (google.api.http) = { post: '/v1/m' body: '*' }; }";
    assert!(service(both).unwrap().contains("both directions"));
    let limits = Config::default().server;
    let missing =
        weir_transcode::rest(weir_proto::DESCRIPTORS, &["no.Service"], tower::service_fn(echo), &limits);
    assert!(missing.unwrap_err().to_string().contains("no.Service"));
}
