//! From an event as it came to one that may enter the log.

use std::{ops::RangeInclusive, time::Duration};

use prost::Message as _;
use uuid::Uuid;
use weir_proto::{
    event::v1::{Event, EventRecord, EventType},
    time::{micros, timestamp},
    validate::{Path, Validate as _, Violations},
};

use crate::clock::{Arrival, Clocks};

/// Years 1 to 9999, what calendars and Protobuf timestamps can express: microseconds since the Unix epoch. The consumer counts
/// no event outside, and what is accepted here must be counted.
const TIMES: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// What the schema can't say: limits that are configured or need the clock.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Largest encoded event.
    pub(crate) max_event_bytes: usize,
    /// How old an event may be; imports may be older.
    pub(crate) max_past: Duration,
    /// How far ahead of our clock an event may be.
    pub(crate) max_future: Duration,
    /// Whether texts of [`PLACEHOLDERS`] are ids as any other.
    pub(crate) allow_placeholders: bool,
}

/// What exports, spreadsheets and broken clients write for "nobody", in any letter case, beside what the schema refuses in any
/// case. Taken as ids, they would merge everybody without one into one user.
const PLACEHOLDERS: [&str; 6] = ["na", "n/a", "0", "-1", "true", "false"];
/// Likewise for "no session" and "no installation", which an event need not have: they are left out.
const ABSENT: [&str; 11] = [
    "0",
    "-1",
    "na",
    "n/a",
    "nan",
    "nil",
    "none",
    "null",
    "(null)",
    "undefined",
    "00000000-0000-0000-0000-000000000000",
];

/// An event as it came, with its encoded size: measuring it costs as much as validating it, so it is done once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Incoming {
    pub(crate) event: Event,
    pub(crate) bytes: usize,
}

impl From<Event> for Incoming {
    fn from(event: Event) -> Self {
        Self { bytes: event.encoded_len(), event }
    }
}

/// An event that holds to every rule, with its identity and times settled. Only this can be encoded for the log.
#[derive(Debug)]
pub(crate) struct ValidEvent {
    id: Uuid,
    is_new: bool,
    record: EventRecord,
}

impl ValidEvent {
    /// Checks the event that stands at `at` in its request, and completes it: an `event_id` and `event_time` where there
    /// was none, the type, the corrected time.
    ///
    /// # Errors
    /// Every rule that it breaks.
    pub(crate) fn new(
        Incoming { mut event, bytes }: Incoming,
        at: &Path<'_>,
        rules: &Rules,
        clocks: &Clocks,
        arrival: &mut Arrival,
    ) -> Result<Self, Violations> {
        let mut found = Violations::default();
        if bytes > rules.max_event_bytes {
            // Alone: whatever else is wrong with it, it first has to be another event.
            found.add(
                at,
                format_args!("must have at most {} bytes encoded, has {bytes}", rules.max_event_bytes),
            );
            return Err(found);
        }
        event.check(at, &mut found);
        if !rules.allow_placeholders {
            check_placeholder(&event.user_id, &at.field("user_id"), &mut found);
            check_placeholder(&event.anonymous_id, &at.field("anonymous_id"), &mut found);
            for id in [&mut event.session_id, &mut event.install_id] {
                if ABSENT.iter().any(|absent| absent.eq_ignore_ascii_case(id)) {
                    id.clear();
                }
            }
        }
        if event.actor().is_empty() {
            found.add(&at.field("user_id"), "is required, or anonymous_id instead");
        }
        // Only now are its times within the range that arithmetic needs.
        found.into_result()?;

        let receive_time_micros = arrival.receive_micros;
        let corrected_time_micros = match &event.event_time {
            Some(time) => micros(time) + clocks.offset(&event, arrival),
            None => receive_time_micros,
        };
        check_age(corrected_time_micros, rules, arrival, &at.field("event_time"))?;

        let is_new = event.event_id.is_empty();
        let id = if is_new {
            let id = Uuid::now_v7();
            event.event_id = id.to_string();
            id
        } else {
            event.event_id.make_ascii_lowercase();
            let id = Uuid::try_parse(&event.event_id).expect("the schema's rule for event_id held");
            if id.is_nil() {
                let mut found = Violations::default();
                found.add(
                    &at.field("event_id"),
                    "must not be the nil UUID, by which all events would be one; leave it out to get a new id",
                );
                return Err(found);
            }
            id
        };
        if event.event_type() == EventType::Unspecified {
            event.set_event_type(EventType::Track);
        }
        event.event_time.get_or_insert_with(|| timestamp(receive_time_micros));
        let project = arrival.project.to_string();
        let import_id = arrival.import.map(|import| import.as_bytes().to_vec()).unwrap_or_default();
        let event = Some(event);
        let record = EventRecord { project, receive_time_micros, corrected_time_micros, event, import_id };
        Ok(Self { id, is_new, record })
    }

    /// The one key by which duplicates are known.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// Whether the id was made here just now, so that no other event can have it.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// What decides the partition: the user, else the visitor.
    pub(crate) fn key(&self) -> &str {
        self.record.event.as_ref().expect("set on creation").actor()
    }

    /// The value of its record.
    pub(crate) fn record(&self) -> &EventRecord {
        &self.record
    }
}

fn check_placeholder(id: &str, at: &Path<'_>, found: &mut Violations) {
    if PLACEHOLDERS.iter().any(|placeholder| placeholder.eq_ignore_ascii_case(id)) {
        found.add(
            at,
            format_args!(
                "must not be the placeholder {id:?}; leave it out, or set producer.placeholder_ids = \"allow\" if it is a real id"
            ),
        );
    }
}

/// Whether an event of this corrected time may still, or already, come in.
fn check_age(time_micros: i64, rules: &Rules, arrival: &Arrival, at: &Path<'_>) -> Result<(), Violations> {
    let mut found = Violations::default();
    if !TIMES.contains(&time_micros) {
        found.add(at, "lies outside the years 1 to 9999 once it is corrected by the clock's offset");
    }
    let age = time_micros.abs_diff(arrival.receive_micros);
    let over = |limit: Duration| u128::from(age) > limit.as_micros();
    if time_micros < arrival.receive_micros {
        if over(rules.max_past) && arrival.import.is_none() {
            let (age, limit) = (humane(age), humane(micros_of(rules.max_past)));
            found.add(
                at,
                format_args!(
                    "is {age} ago, at most {limit} are accepted; send older history with `weir import`"
                ),
            );
        }
    } else if over(rules.max_future) {
        let (age, limit) = (humane(age), humane(micros_of(rules.max_future)));
        found.add(at, format_args!("is {age} ahead of the server's clock, at most {limit} are accepted"));
    }
    found.into_result()
}

fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Rounded down to the largest unit that it has at least two of.
fn humane(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7_200.. => format!("{} hours", seconds / 3_600),
        120.. => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use weir_runtime::auth::ProjectId;

    use super::*;

    const NOW: i64 = 1_700_000_000_000_000;
    const DAY: i64 = 86_400_000_000;

    fn rules() -> Rules {
        Rules {
            max_event_bytes: 65_536,
            max_past: Duration::from_secs(30 * 86_400),
            max_future: Duration::from_secs(3_600),
            allow_placeholders: false,
        }
    }

    fn event() -> Event {
        Event { event_name: "purchase".into(), user_id: "u1".into(), ..Event::default() }
    }

    fn at(micros: i64) -> Event {
        Event { event_time: Some(timestamp(micros)), ..event() }
    }

    fn parse_from(event: Event, arrival: Arrival) -> Result<ValidEvent, String> {
        parse_by(&rules(), event, arrival)
    }

    fn parse_by(rules: &Rules, event: Event, mut arrival: Arrival) -> Result<ValidEvent, String> {
        ValidEvent::new(event.into(), &Path::ROOT.field("event"), rules, &Clocks::new(), &mut arrival)
            .map_err(|found| {
                found.into_iter().map(|(f, d)| format!("{f}: {d}")).collect::<Vec<_>>().join("; ")
            })
    }

    fn parse(event: Event) -> Result<ValidEvent, String> {
        parse_from(event, Arrival::at(ProjectId::default_project(), NOW))
    }

    #[test]
    fn what_is_missing_is_completed() {
        let valid = parse(event()).unwrap();
        let record = valid.record();
        let event = record.event.as_ref().unwrap();
        assert_eq!(event.event_id, valid.id().to_string());
        assert_eq!(valid.id().get_version_num(), 7);
        assert_eq!(event.event_time, Some(timestamp(NOW)));
        assert_eq!(event.event_type(), EventType::Track);
        assert_eq!((record.receive_time_micros, record.corrected_time_micros), (NOW, NOW));
        assert_eq!(record.project, "default");
    }

    #[test]
    fn ids_are_lower_case() {
        let upper = Event { event_id: "019A3C5E-7D2B-7C41-9F0A-3B5D8E6F1A27".into(), ..event() };
        let valid = parse(upper).unwrap();
        let id = &valid.record().event.as_ref().unwrap().event_id;
        assert_eq!(id, "019a3c5e-7d2b-7c41-9f0a-3b5d8e6f1a27");
        assert_eq!(id, &valid.id().to_string());
    }

    #[test]
    fn events_can_not_share_the_nil_uuid() {
        let error = parse(Event { event_id: Uuid::nil().to_string(), ..event() }).unwrap_err();
        assert!(error.starts_with("event.event_id: must not be the nil UUID"), "{error}");
    }

    #[test]
    fn the_key_is_the_user_else_the_visitor() {
        assert_eq!(parse(event()).unwrap().key(), "u1");
        let visitor = Event { user_id: String::new(), anonymous_id: "v1".into(), ..event() };
        assert_eq!(parse(visitor).unwrap().key(), "v1");
        let nobody = Event { user_id: String::new(), ..event() };
        assert_eq!(parse(nobody).unwrap_err(), "event.user_id: is required, or anonymous_id instead");
    }

    #[test]
    fn the_window_is_for_corrected_time() {
        for fine in [NOW - 30 * DAY, NOW + DAY / 24, NOW] {
            assert_eq!(parse(at(fine)).unwrap().record().corrected_time_micros, fine);
        }
        assert!(parse(at(NOW - 30 * DAY - 1)).unwrap_err().starts_with("event.event_time: is 30 days ago"));
        assert!(parse(at(NOW + DAY / 24 + 1)).unwrap_err().contains("ahead of the server's clock"));
        // A device whose clock stands in 1970 is put right.
        let reset =
            Event { sent_time: Some(timestamp(60_000_000)), install_id: "i".into(), ..at(30_000_000) };
        assert_eq!(parse(reset).unwrap().record().corrected_time_micros, NOW - 30_000_000);
        // And a stated offset does not get an event past the window.
        let stated = Some(prost_types::Duration { seconds: 86_400, nanos: 0 });
        assert!(parse(Event { clock_offset: stated, ..at(NOW) }).is_err());
    }

    #[test]
    fn placeholders_are_no_ids_unless_allowed() {
        let with = |user: &str, session: &str, allow_placeholders: bool| {
            let event = Event { user_id: user.into(), session_id: session.into(), ..event() };
            let rules = Rules { allow_placeholders, ..rules() };
            parse_by(&rules, event, Arrival::at(ProjectId::default_project(), NOW))
        };
        for user in ["NA", "n/a", "0", "-1", "TRUE"] {
            let error = with(user, "", false).unwrap_err();
            assert!(error.contains("user_id: must not be the placeholder"), "{error}");
            assert_eq!(with(user, "", true).unwrap().key(), user);
        }
        let session = |session: &str, allow| {
            let event = with("u1", session, allow).unwrap();
            event.record().event.as_ref().unwrap().session_id.clone()
        };
        for absent in ["-1", "NULL", "undefined", "N/A", "00000000-0000-0000-0000-000000000000"] {
            assert_eq!(session(absent, false), "", "{absent}");
        }
        let shared = Event { install_id: "undefined".into(), ..event() };
        assert_eq!(parse(shared).unwrap().record().event.as_ref().unwrap().install_id, "");
        assert_eq!(session("0", false), "");
        assert_eq!(session("10", false), "10");
        assert_eq!(session("-1", true), "-1");
    }

    #[test]
    fn imports_may_be_as_old_as_they_like() {
        let import = Arrival { import: Some(Uuid::nil()), ..Arrival::at(ProjectId::default_project(), NOW) };
        assert_eq!(parse_from(at(0), import.clone()).unwrap().record().import_id, [0; 16]);
        assert!(parse_from(at(NOW + DAY), import).is_err());
        let id = Uuid::from_u128(7);
        let named = Arrival { import: Some(id), ..Arrival::at(ProjectId::default_project(), NOW) };
        assert_eq!(parse_from(at(0), named).unwrap().record().import_id, id.as_bytes());
        assert!(parse(at(NOW)).unwrap().record().import_id.is_empty(), "live events belong to none");
    }

    #[test]
    fn a_corrected_time_is_one_that_can_be_counted() {
        let import = Arrival { import: Some(Uuid::nil()), ..Arrival::at(ProjectId::default_project(), NOW) };
        let back = |seconds: i64| Some(prost_types::Duration { seconds: -seconds, nanos: 0 });
        let first = at(-62_135_596_800_000_000 + DAY);
        assert!(parse_from(Event { clock_offset: back(86_400), ..first.clone() }, import.clone()).is_ok());
        let error = parse_from(Event { clock_offset: back(86_401), ..first }, import).unwrap_err();
        assert_eq!(
            error,
            "event.event_time: lies outside the years 1 to 9999 once it is corrected by the clock's offset"
        );
    }

    #[test]
    fn extreme_times_are_refused_not_overflowed() {
        let time = Some(Timestamp { seconds: i64::MIN, nanos: i32::MIN });
        let offset = Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::MAX });
        let extreme = Event { event_time: time, sent_time: time, clock_offset: offset, ..event() };
        let error = parse(extreme).unwrap_err();
        for field in ["event.event_time", "event.sent_time", "event.clock_offset"] {
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn size_is_limited_to_the_byte() {
        let sized = |fill: usize| {
            let fields = (0..9).map(|n| (format!("k{n}"), text("x".repeat(7_000))));
            let fields = fields.chain([("fill".into(), text("y".repeat(fill)))]).collect();
            Event { properties: Some(prost_types::Struct { fields }), ..event() }
        };
        let exact = (0..8_192).map(sized).find(|event| event.encoded_len() == 65_536).unwrap();
        assert!(parse(exact.clone()).is_ok());
        let larger = Event { sequence: 1, ..exact };
        assert_eq!(parse(larger).unwrap_err(), "event: must have at most 65536 bytes encoded, has 65538");
    }

    fn text(text: String) -> prost_types::Value {
        prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text)) }
    }
}
