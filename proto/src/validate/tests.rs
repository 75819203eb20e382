use prost_types::{Duration, ListValue, Struct, Timestamp, Value, value::Kind};

use super::{Path, Validate, Violations};
use crate::{
    analytics::v1::{
        Condition, Filter, FilterList, FunnelStep, GetSummaryRequest, Measure, QueryBreakdownRequest,
        QueryFunnelRequest, QueryPathsRequest, TimeRange, WatchQueryRequest, condition::Operator,
        filter::Expression, watch_query_request::Query,
    },
    event::v1::{Context, Event, OperatingSystem},
    google::r#type::Money,
    ingest::v1::{IngestEventRequest, IngestEventsRequest, SyncClockRequest},
};

fn event() -> Event {
    Event { event_name: "purchase".into(), user_id: "u1".into(), ..Event::default() }
}

fn fields(message: &impl Validate) -> Vec<String> {
    match message.validate() {
        Ok(()) => Vec::new(),
        Err(found) => found.into_iter().map(|(field, _)| field).collect(),
    }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn properties(entries: impl IntoIterator<Item = (String, Value)>) -> Option<Struct> {
    Some(Struct { fields: entries.into_iter().collect() })
}

#[test]
fn each_bad_field_is_named_from_the_request() {
    let bad = Event {
        event_id: "no-uuid".into(),
        event_name: String::new(),
        event_type: 99,
        user_id: "undefined".into(),
        anonymous_id: "a".repeat(201),
        event_time: Some(Timestamp { seconds: i64::MAX, nanos: 0 }),
        properties: properties([("screen size".into(), value(Kind::NumberValue(f64::NAN)))]),
        revenue: Some(Money { currency_code: "usd".into(), units: 1, nanos: -1 }),
        context: Some(Context {
            ip: "1.2.3".into(),
            os: Some(OperatingSystem { name: "x".repeat(201), ..Default::default() }),
            ..Default::default()
        }),
        ..event()
    };
    let request = IngestEventRequest { event: Some(bad) };
    assert_eq!(
        fields(&request),
        [
            "event.event_id",
            "event.event_name",
            "event.event_type",
            "event.user_id",
            "event.anonymous_id",
            "event.event_time",
            r#"event.properties["screen size"]"#,
            "event.revenue.currency_code",
            "event.revenue.nanos",
            "event.context.os.name",
            "event.context.ip",
        ]
    );
    assert_eq!(fields(&IngestEventRequest { event: Some(event()) }), [""; 0]);
    assert_eq!(fields(&IngestEventRequest { event: None }), ["event"]);
    assert_eq!(fields(&SyncClockRequest { client_time: None }), ["client_time"]);
}

#[test]
fn a_batch_is_counted_but_its_events_are_not_looked_into() {
    let of = |count| IngestEventsRequest { events: vec![Event::default(); count] };
    assert_eq!(fields(&of(0)), ["events"]);
    assert_eq!(fields(&of(1)), [""; 0]);
    assert_eq!(fields(&of(1000)), [""; 0]);
    assert_eq!(fields(&of(1001)), ["events"]);
}

#[test]
fn boundaries_are_where_the_schema_says() {
    let named = |name: String| Event { event_name: name, ..event() };
    assert!(named("é".repeat(100)).validate().is_ok());
    assert!(named("é".repeat(101)).validate().is_err());
    let upper = Event { event_id: "019A3C5E-7D2B-7C41-9F0A-3B5D8E6F1A27".into(), ..event() };
    assert!(upper.validate().is_ok());
    let braced = Event { event_id: "{019a3c5e-7d2b-7c41-9f0a-3b5d8e6f1a27}".into(), ..event() };
    assert!(braced.validate().is_err());
    let from = |ip: &str| Event { context: Some(Context { ip: ip.into(), ..Context::default() }), ..event() };
    assert!(from("2001:db8::1").validate().is_ok());
    assert!(from("").validate().is_ok());

    let quantile = |quantile| QueryBreakdownRequest {
        group_by: vec!["platform".into()],
        measures: vec![Measure { quantile, ..Measure::default() }],
        ..Default::default()
    };
    assert_eq!(fields(&quantile(1.0)), [""; 0]);
    assert_eq!(fields(&quantile(1.01)), ["measures[0].quantile"]);
    assert_eq!(fields(&quantile(f64::NAN)), ["measures[0].quantile", "measures[0].quantile"]);

    let last = |seconds, nanos| GetSummaryRequest {
        time_range: Some(TimeRange { last: Some(Duration { seconds, nanos }), ..TimeRange::default() }),
        ..Default::default()
    };
    assert_eq!(fields(&last(0, 1)), [""; 0]);
    assert_eq!(fields(&last(0, 0)), ["time_range.last"]);
    assert_eq!(fields(&last(1, -1)), ["time_range.last.nanos"]);
}

#[test]
fn windows_and_steps_have_bounds() {
    let step = |name: &str| FunnelStep { event_names: vec![name.into()], ..FunnelStep::default() };
    let funnel = |steps: usize, window: i64| QueryFunnelRequest {
        steps: vec![step("purchase"); steps],
        window: Some(Duration { seconds: window, nanos: 0 }),
        ..QueryFunnelRequest::default()
    };
    assert_eq!(fields(&funnel(1, 1)), [""; 0]);
    assert_eq!(fields(&funnel(20, 366 * 86_400)), [""; 0]);
    assert_eq!(fields(&funnel(21, 0)), ["steps", "window"]);
    assert_eq!(fields(&funnel(0, 10 * 366 * 86_400)), ["steps", "window"]);
    assert_eq!(fields(&QueryPathsRequest::default()), ["event"]);
}

#[test]
fn nesting_and_oneofs_are_followed() {
    let condition = |field: &str| Filter {
        expression: Some(Expression::Condition(Condition {
            field: field.into(),
            operator: Operator::Exists.into(),
            values: vec![],
        })),
    };
    let any = Filter {
        expression: Some(Expression::AnyOf(FilterList { filters: vec![condition("plan"), condition("")] })),
    };
    let filter = Filter { expression: Some(Expression::Not(Box::new(any))) };
    let breakdown = QueryBreakdownRequest {
        group_by: vec!["platform".into()],
        filter: Some(filter),
        ..QueryBreakdownRequest::default()
    };
    let watch = WatchQueryRequest { query: Some(Query::Breakdown(breakdown)), min_interval: None };
    assert_eq!(fields(&watch), ["breakdown.filter.not.any_of.filters[1].condition.field"]);
    let nothing =
        WatchQueryRequest { query: None, min_interval: Some(Duration { seconds: 0, nanos: 9_999_999 }) };
    assert_eq!(fields(&nothing), ["min_interval", "query"]);
}

#[test]
fn properties_are_bounded_in_every_direction() {
    let with = |properties| Event { properties, ..event() };
    let text = |bytes| value(Kind::StringValue("x".repeat(bytes)));
    assert!(with(properties([("k".into(), text(8192))])).validate().is_ok());
    assert_eq!(fields(&with(properties([("k".into(), text(8193))]))), ["properties.k"]);
    assert_eq!(fields(&with(properties([("k".repeat(8193), text(1))]))).len(), 1);

    let many = |keys: usize| (0..keys).map(|n| (format!("k{n}"), value(Kind::BoolValue(true))));
    assert!(with(properties(many(255))).validate().is_ok());
    assert_eq!(fields(&with(properties(many(256)))), ["properties"]);
    let inner = value(Kind::StructValue(properties(many(128)).unwrap()));
    let halves = [("a".into(), inner.clone()), ("b".into(), inner)];
    assert_eq!(fields(&with(properties(halves))), ["properties"], "nested keys count too");

    let nested = |depth: usize| {
        let list = |inner| value(Kind::ListValue(ListValue { values: vec![inner] }));
        properties([("k".into(), (1..depth).fold(value(Kind::NumberValue(1.0)), |inner, _| list(inner)))])
    };
    assert!(with(nested(5)).validate().is_ok());
    assert_eq!(fields(&with(nested(6))), ["properties.k[0][0][0][0]"]);
}

#[test]
fn violations_are_bounded() {
    let many = (0..200).map(|n| (format!("k{n}"), value(Kind::NumberValue(f64::INFINITY))));
    let found = Event { properties: properties(many), ..event() }.validate().unwrap_err();
    assert_eq!(found.iter().len(), Violations::LIMIT);
}

#[test]
fn long_and_odd_keys_are_quoted_and_cut() {
    let root = Path::ROOT.field("properties");
    assert_eq!(root.key("platform").to_string(), "properties.platform");
    assert_eq!(root.key("a.b\"").index(2).to_string(), r#"properties["a.b\""][2]"#);
    let long = "é".repeat(100);
    assert_eq!(root.key(&long).to_string(), format!("properties[\"{}\"…]", "é".repeat(64)));
}

#[test]
fn names_and_ids_have_visible_ends() {
    let pattern = regex::Regex::new(super::VISIBLE_ENDS).unwrap();
    for (text, fine) in [
        ("", true),
        ("u", true),
        ("Ada Lovelace", true),
        ("\u{1f469}\u{200d}\u{1f4bb} family\u{fe0f}", true),
        ("Gr\u{fc}n", true),
        ("\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}", true),
        (" ", false),
        ("\t", false),
        ("\u{a0}", false),
        ("\u{200b}", false),
        ("\u{2060}\u{feff}", false),
        ("\u{3000}", false),
        ("\u{3164}", false),
        (" u", false),
        ("u\n", false),
        ("u\u{200b}", false),
        ("\u{feff}u", false),
        ("a\u{0}b", false),
        ("a\u{1b}[31mb", false),
        ("a\u{85}b", false),
    ] {
        assert_eq!(super::rules::has_visible_ends(text), fine, "{text:?}");
        assert_eq!(pattern.is_match(text), fine, "the schema's pattern: {text:?}");
        let bad = if fine { &[][..] } else { &["event_name", "user_id", "session_id", "install_id"][..] };
        let mut found = fields(&Event {
            event_name: if text.is_empty() { "e".into() } else { text.into() },
            user_id: text.into(),
            session_id: text.into(),
            install_id: text.into(),
            ..Event::default()
        });
        found.dedup();
        assert_eq!(found, bad, "{text:?}");
        if !text.is_empty() {
            let key = Event {
                properties: properties([(text.to_owned(), value(Kind::BoolValue(true)))]),
                ..event()
            };
            assert_eq!(fields(&key).is_empty(), fine, "key {text:?}");
        }
    }
    let empty = Event { properties: properties([(String::new(), value(Kind::BoolValue(true)))]), ..event() };
    assert_eq!(fields(&empty), [r#"properties[""]"#]);
}

#[test]
fn placeholders_are_refused_in_any_letter_case() {
    for text in [
        "undefined",
        "NULL",
        "None",
        "nAn",
        "(null)",
        "[object Object]",
        "00000000-0000-0000-0000-000000000000",
    ] {
        let user = Event { user_id: text.into(), ..event() };
        assert_eq!(fields(&user), ["user_id"], "{text}");
        let visitor = Event { anonymous_id: text.into(), ..event() };
        assert_eq!(fields(&visitor), ["anonymous_id"], "{text}");
    }
    for text in ["nullable", "nan1", "undefined user"] {
        assert_eq!(fields(&Event { user_id: text.into(), ..event() }), [""; 0], "{text}");
    }
}

#[test]
fn money_is_of_a_real_currency_and_magnitude() {
    let of = |currency_code: &str, units| {
        let revenue = Some(Money { currency_code: currency_code.into(), units, nanos: 0 });
        fields(&Event { revenue, ..event() })
    };
    assert_eq!(of("JPY", -1_000_000_000_000_000), [""; 0]);
    assert_eq!(of("AAA", 1), ["revenue.currency_code"]);
    assert_eq!(of("eur", 1), ["revenue.currency_code"]);
    assert_eq!(of("EUR", 1_000_000_000_000_001), ["revenue.units"]);
    assert_eq!(of("EUR", i64::MIN), ["revenue.units"]);
}

#[test]
fn a_sequence_fits_a_signed_column() {
    assert_eq!(fields(&Event { sequence: i64::MAX as u64, ..event() }), [""; 0]);
    assert_eq!(fields(&Event { sequence: 1 << 63, ..event() }), ["sequence"]);
}
