//! Canonical ProtoJSON of our messages, through their descriptors, so that it is the same JSON as the REST API's.

use std::sync::LazyLock;

use anyhow::{Context as _, Result};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use weir_proto::{analytics, event, processing};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(weir_proto::DESCRIPTORS).expect("our own descriptors: held by a test")
});

/// A message with a place in the schema.
pub(crate) trait Named: Message + Default {
    /// Full name of its type.
    const NAME: &'static str;
}

macro_rules! named {
    ($($message:ty = $name:literal),* $(,)?) => {
        $(impl Named for $message { const NAME: &'static str = $name; })*
        #[cfg(test)]
        const NAMES: &[&str] = &[$($name),*];
    };
}

named! {
    prost_types::Struct = "google.protobuf.Struct",
    event::v1::Event = "weir.event.v1.Event",
    analytics::v1::GetSummaryResponse = "weir.analytics.v1.GetSummaryResponse",
    analytics::v1::QueryTimeSeriesResponse = "weir.analytics.v1.QueryTimeSeriesResponse",
    analytics::v1::QueryBreakdownResponse = "weir.analytics.v1.QueryBreakdownResponse",
    analytics::v1::QueryFunnelResponse = "weir.analytics.v1.QueryFunnelResponse",
    analytics::v1::QueryRetentionResponse = "weir.analytics.v1.QueryRetentionResponse",
    analytics::v1::QueryPathsResponse = "weir.analytics.v1.QueryPathsResponse",
    analytics::v1::Import = "weir.analytics.v1.Import",
    analytics::v1::GetUserResponse = "weir.analytics.v1.GetUserResponse",
    analytics::v1::ListUserEventsResponse = "weir.analytics.v1.ListUserEventsResponse",
    analytics::v1::ListEventNamesResponse = "weir.analytics.v1.ListEventNamesResponse",
    analytics::v1::ListPropertiesResponse = "weir.analytics.v1.ListPropertiesResponse",
    analytics::v1::WatchQueryResponse = "weir.analytics.v1.WatchQueryResponse",
    analytics::v1::LiveEvent = "weir.analytics.v1.LiveEvent",
    processing::v1::Status = "weir.processing.v1.Status",
}

/// Levels of objects and lists that are taken over from JSON. Events may nest values 5 deep; Protobuf decoders give up at
/// some 33, and then on everything that is sent along.
const MAX_LEVELS: usize = 16;

/// Refuses JSON that nests deeper than any event may, and too deep to be sent.
///
/// # Errors
/// That it does, in words.
pub(crate) fn check_depth(value: &serde_json::Value) -> Result<()> {
    fn within(value: &serde_json::Value, levels: usize) -> bool {
        use serde_json::Value::{Array, Bool, Null, Number, Object, String};
        match value {
            Null | Bool(_) | Number(_) | String(_) => true,
            Array(items) => levels > 0 && items.iter().all(|item| within(item, levels - 1)),
            Object(fields) => levels > 0 && fields.values().all(|value| within(value, levels - 1)),
        }
    }
    anyhow::ensure!(
        within(value, MAX_LEVELS),
        "it nests more than {MAX_LEVELS} levels deep; properties may nest 5"
    );
    Ok(())
}

fn descriptor<M: Named>() -> MessageDescriptor {
    POOL.get_message_by_name(M::NAME).expect("named messages are in the schema: held by a test")
}

/// One line of JSON. Fields with default values are left out of events, where they mean "not given", and written
/// elsewhere, so that a script finds `exact: false` and `value: 0`.
pub(crate) fn to_line<M: Named>(message: &M) -> String {
    let mut out = Vec::new();
    write(message, &mut serde_json::Serializer::new(&mut out));
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// Indented JSON.
pub(crate) fn to_pretty<M: Named>(message: &M) -> String {
    let mut out = Vec::new();
    write(message, &mut serde_json::Serializer::pretty(&mut out));
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn write<M: Named, F: serde_json::ser::Formatter>(
    message: &M,
    serializer: &mut serde_json::Serializer<&mut Vec<u8>, F>,
) {
    let omit_defaults = M::NAME == event::v1::Event::NAME || M::NAME == analytics::v1::LiveEvent::NAME;
    let options = SerializeOptions::new().skip_default_fields(omit_defaults);
    let dynamic = DynamicMessage::decode(descriptor::<M>(), message.encode_to_vec().as_slice())
        .expect("what was just encoded decodes");
    dynamic.serialize_with_options(serializer, &options).expect("writing to memory does not fail");
}

/// Reads a message from ProtoJSON; a field that does not exist is an error.
pub(crate) fn from_value<M: Named>(value: serde_json::Value) -> Result<M> {
    check_depth(&value)?;
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor::<M>(), value, &options)?;
    dynamic.transcode_to().context("the generated code differs from the schema")
}

/// Fields of a message by name: of an event, `event_id`, `event_name`, ….
#[cfg(test)]
pub(crate) fn field_names<M: Named>() -> Vec<String> {
    descriptor::<M>().fields().map(|field| field.name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_message_is_in_the_schema() {
        for name in NAMES {
            assert!(POOL.get_message_by_name(name).is_some(), "{name}");
        }
    }

    #[test]
    fn an_event_reads_back_as_it_was_written() {
        let event = event::v1::Event {
            event_name: "purchase".into(),
            sequence: 7,
            event_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            ..Default::default()
        };
        let line = to_line(&event);
        assert_eq!(line, r#"{"eventName":"purchase","sequence":"7","eventTime":"2023-11-14T22:13:20.005Z"}"#);
        let back: event::v1::Event = from_value(serde_json::from_str(&line).unwrap()).unwrap();
        assert_eq!(back, event);
    }

    #[test]
    fn both_spellings_are_read_and_unknown_fields_are_named() {
        let event: event::v1::Event =
            from_value(serde_json::json!({"event_name": "a", "userId": "u"})).unwrap();
        assert_eq!((event.event_name.as_str(), event.user_id.as_str()), ("a", "u"));
        let error = from_value::<event::v1::Event>(serde_json::json!({"usrId": "u"})).unwrap_err();
        assert!(error.to_string().contains("usrId"), "{error}");
    }

    #[test]
    fn answers_spell_out_zero_and_false() {
        let line = to_line(&analytics::v1::QueryBreakdownResponse {
            totals: vec![analytics::v1::Figure::default()],
            ..Default::default()
        });
        assert!(line.contains(r#""exact":false"#) && line.contains(r#""omittedRows":"0""#), "{line}");
    }
}
