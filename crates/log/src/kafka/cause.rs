//! Why Kafka is out of reach.
//!
//! librdkafka answers calls with "transport failure" or "timed out" whatever the reason; the reason (a wrong password,
//! an untrusted certificate, a refused connection) arrives on the side, in [`ClientContext::error`]. It is kept here
//! and told with the next failure.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tracing::{debug, error, warn};

use crate::{Error, sync::locked};

/// A cause is told for so long: several reconnections, each of which would tell it again.
const FRESH: Duration = Duration::from_secs(60);

/// The last cause that one client or several reported.
#[derive(Debug, Default)]
pub(super) struct Causes {
    last: Mutex<Option<Cause>>,
}

#[derive(Clone, Debug)]
struct Cause {
    kind: Kind,
    text: String,
    at: Instant,
}

/// Rising in what they explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// "All brokers are down": a consequence.
    Consequence,
    Transport,
    /// Somebody has to change the configuration.
    Configuration,
}

impl Causes {
    /// Takes note of what a client reports.
    pub(super) fn note(&self, error: &KafkaError, text: &str) {
        let kind = match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::SSL,
            ) => Kind::Configuration,
            Some(RDKafkaErrorCode::AllBrokersDown) => Kind::Consequence,
            Some(_) | None => Kind::Transport,
        };
        let mut last = locked(&self.last);
        let fresh = last.take_if(|cause| cause.at.elapsed() < FRESH);
        if fresh.as_ref().is_none_or(|cause| cause.text != text) {
            warn!(cause = text, "kafka");
        }
        *last = match fresh {
            Some(known) if known.kind > kind => Some(known),
            Some(_) | None => Some(Cause { kind, text: text.to_owned(), at: Instant::now() }),
        };
    }

    /// Forgets: the cluster has answered.
    pub(super) fn clear(&self) {
        *locked(&self.last) = None;
    }

    /// The error of a call about a topic, with the cause when the cluster is out of reach.
    pub(super) fn explain(&self, topic: &str, partition: Option<u32>, error: &KafkaError) -> Error {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        match (code, partition) {
            (Some(Code::UnknownPartition), Some(partition)) => {
                return Error::UnknownPartition { topic: topic.to_owned(), partition };
            }
            (Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition), _) => {
                return Error::UnknownTopic(topic.to_owned());
            }
            (Some(Code::MessageSizeTooLarge), _) => {
                return Error::Config(format!(
                    "topic {topic} refuses a record for its size; raise the topic's max.message.bytes (8388608 is enough)"
                ));
            }
            (Some(_) | None, _) => {}
        }
        let cause = locked(&self.last).clone().filter(|cause| cause.at.elapsed() < FRESH);
        let what = code.map_or_else(|| error.to_string(), |code| code.to_string());
        match (code, cause) {
            (_, Some(Cause { kind: Kind::Configuration, text, .. })) => {
                Error::Config(format!("Kafka refuses us: {text}; check log.kafka (sasl, tls)"))
            }
            (
                Some(
                    Code::TopicAuthorizationFailed
                    | Code::GroupAuthorizationFailed
                    | Code::ClusterAuthorizationFailed,
                ),
                _,
            ) => Error::Config(format!("Kafka refuses us: {what} ({topic}); grant the user the rights")),
            (_, Some(cause)) => Error::Unavailable(format!("{what}: {}", cause.text)),
            (_, None) => Error::Unavailable(what),
        }
    }
}

/// The context of clients that need nothing more.
#[derive(Debug)]
pub(super) struct Plain(pub(super) Arc<Causes>);

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.note(&error, reason);
    }
}

impl ConsumerContext for Plain {}

/// Passes a line of librdkafka's log on. Its errors come again through [`Causes::note`].
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            error!(target: "librdkafka", facility, "{text}");
        }
        RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning
        | RDKafkaLogLevel::Notice
        | RDKafkaLogLevel::Info
        | RDKafkaLogLevel::Debug => debug!(target: "librdkafka", facility, "{text}"),
    }
}
