//! How wrong the clients' clocks are, and the times of a request.
//!
//! A device's wrong clock must not reorder its events, so its offset is taken once per install and then kept: taken per
//! event, the network's jitter would shuffle what the device knew to be in order.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
};

use bytes::Bytes;
use quick_cache::sync::Cache;
use uuid::Uuid;
use weir_proto::{
    event::v1::Event,
    time::{duration_micros, micros},
};
use weir_runtime::auth::ProjectId;

/// Installs whose offsets are remembered, 16 bytes each and as much again for the index.
const INSTALLS: usize = 100_000;

/// `receive_time - sent_time` below this is the network's delay, not the clock's fault: microseconds.
const NETWORK_DELAY_MICROS: i64 = 2_000_000;

/// When and how a request came in. A stream has one, whose receive time advances.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The project of the events.
    pub(crate) project: ProjectId,
    /// By our clock, microseconds since the Unix epoch.
    pub(crate) receive_micros: i64,
    /// The import that the events belong to, and may be older than usual for; the nil UUID for one without an identifier.
    pub(crate) import: Option<Uuid>,
    /// The caller's `traceparent`.
    pub(crate) trace: Option<Bytes>,
    /// The offset for events that have a `sent_time` and no install, from the first of them.
    pub(crate) estimate: Option<i64>,
}

impl Arrival {
    /// For a project at this time, in microseconds since the Unix epoch.
    pub(crate) fn at(project: ProjectId, receive_micros: i64) -> Self {
        Self { project, receive_micros, import: None, trace: None, estimate: None }
    }
}

/// The offsets of the installs seen lately.
#[derive(Debug)]
pub(crate) struct Clocks {
    offsets: Cache<u64, i64>,
    /// Keyed at random, so that nobody can choose installs that collide.
    hasher: RandomState,
}

impl Clocks {
    pub(crate) fn new() -> Self {
        Self { offsets: Cache::new(INSTALLS), hasher: RandomState::new() }
    }

    /// What to add to the event's own time to get ours, in microseconds: the offset that the client states, else that of
    /// its install, else that of its request, else 0. The event's times are within the range of their type.
    pub(crate) fn offset(&self, event: &Event, arrival: &mut Arrival) -> i64 {
        if let Some(stated) = &event.clock_offset {
            return duration_micros(stated);
        }
        let Some(sent) = &event.sent_time else { return 0 };
        let offset = match arrival.receive_micros - micros(sent) {
            delay if delay.abs() < NETWORK_DELAY_MICROS => 0,
            offset => offset,
        };
        if event.install_id.is_empty() {
            return *arrival.estimate.get_or_insert(offset);
        }
        let install = self.hasher.hash_one((&arrival.project, &event.install_id));
        let Ok(offset) = self.offsets.get_or_insert_with(&install, || Ok::<_, Infallible>(offset));
        offset
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Duration;
    use weir_proto::time::timestamp;

    use super::*;

    const NOON: i64 = 1_700_000_000_000_000;
    const SECOND: i64 = 1_000_000;

    fn sent(install: &str, micros: i64) -> Event {
        Event { install_id: install.into(), sent_time: Some(timestamp(micros)), ..Event::default() }
    }

    fn offset(clocks: &Clocks, event: &Event) -> i64 {
        clocks.offset(event, &mut Arrival::at(ProjectId::default_project(), NOON))
    }

    #[test]
    fn an_install_keeps_its_first_offset() {
        let clocks = Clocks::new();
        assert_eq!(offset(&clocks, &sent("slow", NOON - 3600 * SECOND)), 3600 * SECOND);
        assert_eq!(offset(&clocks, &sent("slow", NOON - 3605 * SECOND)), 3600 * SECOND);
        assert_eq!(offset(&clocks, &sent("fast", NOON + 60 * SECOND)), -60 * SECOND);
        assert_eq!(
            clocks.offset(&sent("slow", NOON), &mut Arrival::at("other".parse().unwrap(), NOON)),
            0,
            "of another project"
        );
    }

    #[test]
    fn network_delay_is_no_offset() {
        let clocks = Clocks::new();
        assert_eq!(offset(&clocks, &sent("good", NOON - 1_999_999)), 0);
        assert_eq!(offset(&clocks, &sent("good", NOON - 9 * SECOND)), 0, "kept");
        assert_eq!(offset(&clocks, &Event { install_id: "silent".into(), ..Event::default() }), 0);
    }

    #[test]
    fn a_stated_offset_is_preferred_and_exact() {
        let stated = Duration { seconds: -1, nanos: -500_000_000 };
        let event = Event { clock_offset: Some(stated), ..sent("i", NOON - 60 * SECOND) };
        assert_eq!(offset(&Clocks::new(), &event), -1_500_000);
    }

    #[test]
    fn a_request_without_installs_has_one_estimate() {
        let (clocks, mut arrival) = (Clocks::new(), Arrival::at(ProjectId::default_project(), NOON));
        assert_eq!(clocks.offset(&sent("", NOON - 60 * SECOND), &mut arrival), 60 * SECOND);
        arrival.receive_micros += 5 * SECOND;
        assert_eq!(clocks.offset(&sent("", NOON - 60 * SECOND), &mut arrival), 60 * SECOND);
        assert_eq!(offset(&clocks, &sent("", NOON - 10 * SECOND)), 10 * SECOND, "another request");
    }
}
