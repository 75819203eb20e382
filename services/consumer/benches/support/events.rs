//! Events to measure with.

use prost_types::{Struct, Timestamp, Value, value::Kind};
use uuid::Uuid;
use weir_proto::{event::v1 as proto, google::r#type::Money};

const NAMES: [&str; 8] =
    ["page_view", "search", "product_view", "add_to_cart", "checkout", "purchase", "login", "share"];
const PLATFORMS: [&str; 3] = ["web", "android", "ios"];
/// Time of event 0, microseconds since the Unix epoch; the others follow every 50 µs.
pub(crate) const TIME_MICROS: i64 = 1_790_000_000_000_000;

/// The n-th event, about 290 bytes encoded, as a shop's app would send it.
pub(crate) fn event(n: u64) -> proto::EventRecord {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let properties = [
        ("platform", text(PLATFORMS[n as usize % 3])),
        ("channel", text("newsletter")),
        ("price", Value { kind: Some(Kind::NumberValue((n % 997) as f64 / 10.0)) }),
    ];
    let time_micros = TIME_MICROS + n as i64 * 50;
    let name = NAMES[n as usize % NAMES.len()];
    proto::EventRecord {
        project: "default".to_owned(),
        receive_time_micros: time_micros + 1000,
        corrected_time_micros: time_micros,
        import_id: Vec::new(),
        event: Some(proto::Event {
            event_id: Uuid::from_u64_pair(n, n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_string(),
            event_name: name.to_owned(),
            user_id: format!("user-{:06}", n.wrapping_mul(7919) % 50_000),
            session_id: format!("session-{:08}", n / 20),
            install_id: format!("install-{:06}", n.wrapping_mul(7919) % 50_000),
            sequence: n,
            event_time: Some(Timestamp { seconds: time_micros / 1_000_000, nanos: 5000 }),
            properties: Some(Struct { fields: properties.map(|(k, v)| (k.to_owned(), v)).into() }),
            revenue: (name == "purchase").then(|| Money {
                currency_code: "USD".to_owned(),
                units: 12,
                nanos: 990_000_000,
            }),
            context: Some(proto::Context {
                app: Some(proto::App {
                    name: "shop".to_owned(),
                    version: "4.2.0".to_owned(),
                    build: String::new(),
                }),
                os: Some(proto::OperatingSystem { name: "Android".to_owned(), version: "16".to_owned() }),
                locale: "en-IN".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
    }
}
