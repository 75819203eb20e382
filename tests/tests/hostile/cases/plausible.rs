//! Requests that are valid and ask for as much as they can: what a careless colleague sends.

use prost_reflect::MethodDescriptor;
use rand::{Rng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{Action, Case, Port, Request, frames::TIMEOUT, pick};

const FIELDS: &[&str] = &[
    "event_name",
    "platform",
    "price",
    "context.page.url",
    "user_id",
    "session_id",
    "acquisition_channel",
    "nothing",
    "text",
];

/// A query, a statement of SQL or an export; the method only chooses among them.
pub(super) fn case(rng: &mut StdRng, method: &MethodDescriptor, _port: Port) -> Case {
    let (path, body) = match method.name() {
        "QueryTimeSeries" | "GetSummary" => ("/v1/analytics/time-series:query", time_series(rng)),
        "QueryBreakdown" | "GetUser" => ("/v1/analytics/breakdown:query", breakdown(rng)),
        "QueryFunnel" | "WatchEvents" => ("/v1/analytics/funnel:query", funnel(rng)),
        "QueryRetention" | "ListUserEvents" => ("/v1/analytics/retention:query", retention(rng)),
        "QueryPaths" | "ListEventNames" => ("/v1/analytics/paths:query", paths(rng)),
        "WatchQuery" => ("/v1/analytics:watch", json!({"timeSeries": time_series(rng)})),
        "ExportEvents" | "ListProperties" => {
            let format = pick(rng, &["FORMAT_NDJSON", "FORMAT_CSV", "FORMAT_PARQUET", "FORMAT_ARROW"]);
            (
                "/v1/events:export",
                json!({"timeRange": range(rng), "format": format, "filter": filter(rng, 3)}),
            )
        }
        _ => {
            ("/v1/sql:query", json!({"statement": statement(rng), "maxRows": rng.random_range(0..1_000_000)}))
        }
    };
    let family = path.trim_start_matches("/v1/");
    let headers = vec![("grpc-timeout", TIMEOUT.to_owned()), ("content-type", "application/json".to_owned())];
    let request = Request {
        http2: rng.random(),
        method: "POST",
        path: path.into(),
        headers,
        body: body.to_string().into_bytes(),
    };
    Case { family, port: Port::Gateway, action: Action::Http(request) }
}

fn range(rng: &mut StdRng) -> Value {
    match rng.random_range(0..4) {
        0 => json!({"startTime": "2024-01-01T00:00:00Z", "endTime": "2024-07-01T00:00:00Z"}),
        1 => json!({"startTime": "1970-01-01T00:00:00Z", "endTime": "2100-01-01T00:00:00Z"}),
        2 => json!({"last": format!("{}s", rng.random_range(1..400_000_000))}),
        _ => json!({"startTime": "2024-01-01T00:00:00.123Z", "endTime": "2024-03-01T00:00:00.456Z"}),
    }
}

fn filter(rng: &mut StdRng, depth: usize) -> Value {
    match rng.random_range(0..6) {
        0 if depth > 0 => {
            let filters: Vec<_> = (0..rng.random_range(1..30)).map(|_| filter(rng, depth - 1)).collect();
            json!({pick(rng, &["allOf", "anyOf"]): {"filters": filters}})
        }
        1 if depth > 0 => json!({"not": filter(rng, depth - 1)}),
        2 => {
            let pattern = pick(
                rng,
                &[
                    "(a+)+$",
                    "(\\w{60}){10}",
                    ".*.*.*.*.*x",
                    "(?i)[\\p{L}]{1,100}",
                    "^(([a-z])+.)+[A-Z]([a-z])+$",
                ],
            );
            json!({"condition": {"field": pick(rng, FIELDS), "operator": "OPERATOR_MATCHES", "values": [pattern]}})
        }
        3 => {
            let values: Vec<_> =
                (0..rng.random_range(1..1000)).map(|n| json!(format!("value {n}"))).collect();
            json!({"condition": {"field": pick(rng, FIELDS), "operator": "OPERATOR_IN", "values": values}})
        }
        4 => {
            json!({"condition": {"field": pick(rng, FIELDS), "operator": "OPERATOR_CONTAINS", "values": ["a"]}})
        }
        _ => json!({"condition": {"field": pick(rng, FIELDS), "operator": "OPERATOR_EXISTS"}}),
    }
}

fn measures(rng: &mut StdRng) -> Vec<Value> {
    (0..rng.random_range(1..10))
        .map(|_| {
            let property = pick(rng, FIELDS);
            match rng.random_range(0..6) {
                0 => json!({"kind": "KIND_QUANTILE", "property": property, "quantile": rng.random::<f64>()}),
                1 => json!({"kind": "KIND_UNIQUE_VALUES", "property": property, "exact": true}),
                2 => json!({"kind": "KIND_SUM", "property": property, "filter": filter(rng, 2)}),
                3 => json!({"kind": "KIND_REVENUE", "currency": "USD"}),
                4 => json!({"kind": "KIND_VISITS"}),
                _ => json!({"kind": "KIND_UNIQUE_USERS", "exact": true}),
            }
        })
        .collect()
}

fn fields(rng: &mut StdRng, most: usize) -> Vec<&'static str> {
    (0..rng.random_range(0..=most)).map(|_| pick(rng, FIELDS)).collect()
}

fn time_series(rng: &mut StdRng) -> Value {
    let interval =
        ["SECOND", "MINUTE", "QUARTER_HOUR", "HOUR", "DAY", "WEEK", "MONTH"][rng.random_range(0..7)];
    let mut query = json!({
        "timeRange": range(rng),
        "interval": format!("INTERVAL_{interval}"),
        "timeZone": pick(rng, &["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]),
        "measures": measures(rng),
        "groupBy": fields(rng, 5),
        "maxSeries": rng.random_range(0..1000),
        "fillEmpty": rng.random::<bool>(),
    });
    match rng.random_range(0..4) {
        0 => query["cumulative"] = json!(true),
        1 => query["rollingBuckets"] = json!(rng.random_range(1..1000)),
        2 => query["comparePrevious"] = json!(true),
        _ => query["filter"] = filter(rng, 3),
    }
    query
}

fn breakdown(rng: &mut StdRng) -> Value {
    let mut by = fields(rng, 4);
    by.push("event_id");
    json!({
        "timeRange": range(rng), "groupBy": by, "measures": measures(rng), "filter": filter(rng, 3),
        "maxRows": rng.random_range(0..10_000), "comparePrevious": rng.random::<bool>(),
    })
}

fn funnel(rng: &mut StdRng) -> Value {
    let steps: Vec<_> = (0..rng.random_range(1..20))
        .map(|n| match n % 3 {
            0 => json!({"eventNames": ["catalog"]}),
            1 => json!({"filter": filter(rng, 2)}),
            _ => json!({}),
        })
        .collect();
    json!({
        "timeRange": range(rng), "steps": steps, "window": format!("{}s", rng.random_range(1..31_622_400)),
        "order": pick(rng, &["ORDER_STRICT", "ORDER_ANY", "ORDER_UNSPECIFIED"]), "groupBy": fields(rng, 5), "maxGroups": 1000,
    })
}

fn retention(rng: &mut StdRng) -> Value {
    json!({
        "timeRange": range(rng), "period": "RETENTION_PERIOD_DAY", "periods": rng.random_range(0..400),
        "groupBy": fields(rng, 5), "maxGroups": 1000, "startEvent": {"filter": filter(rng, 2)},
    })
}

fn paths(rng: &mut StdRng) -> Value {
    json!({
        "timeRange": range(rng), "event": {"filter": filter(rng, 1)}, "depth": 10, "maxBranches": 50,
        "field": pick(rng, FIELDS), "maxGap": "31622400s",
    })
}

/// Statements that multiply, each of a kind of its own. (The query engine's own tests generate them from a grammar.)
fn statement(rng: &mut StdRng) -> String {
    let n = rng.random_range(2..40);
    let list = |one: &str| vec![one; n].join(", ");
    match rng.random_range(0..16) {
        0 => format!("select count(*) from {}", (0..n).map(|n| format!("events a{n}")).collect::<Vec<_>>().join(", ")),
        1 => {
            let columns: Vec<_> = (0..n).map(|n| format!("property('k{n}')")).collect();
            format!("select count(*) from events group by cube({})", columns.join(", "))
        }
        2 => (0..n).fold("event_name".to_owned(), |inner, _| format!("replace({inner}, 'a', event_name || 'aa')")),
        3 => (0..n).fold("'aaaaaaaaaa'".to_owned(), |inner, _| format!("replace({inner}, 'a', 'aaaaaaaaaa')")),
        4 => "select levenshtein(a.t, b.t) from (select string_agg(event_name, ',') t from events) a, (select string_agg(event_id, ',') t from events) b".to_owned(),
        5 => "select regexp_like(event_name, concat('(\\w{60}){1}|', cast(log_offset as varchar))) from events".to_owned(),
        6 => format!("select array_length(array_concat({})) from (select array_agg(event_id) x from events)", list("x")),
        7 => "select event_name, row_number() over (order by event_id), sum(price) over (partition by user_id order by time) from events".to_owned(),
        8 => "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r".to_owned(),
        9 => format!("select {} from events", list("string_agg(event_id, event_name)")),
        10 => format!("select * from events where event_name in ({})", list("'a'")),
        11 => format!("select {}", vec!["1"; n * 40].join(" + ")),
        12 => "select a.event_id from events a join events b on a.event_name <> b.event_name order by 1 limit 10".to_owned(),
        13 => "select event_id, count(distinct user_id), median(log_offset), approx_percentile_cont(0.5) within group (order by log_offset) from events group by 1".to_owned(),
        14 => "select 9223372036854775807 + log_offset, -(-9223372036854775807 - 1), 1 / 0 from events".to_owned(),
        _ => "select to_char(time, '%A %B %Y'), date_trunc('second', time), count(*) from events group by 1, 2 order by 3".to_owned(),
    }
}
