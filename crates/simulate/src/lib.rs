//! A shop and its sensors, made up but believable: what `weir simulate` sends and the benchmarks measure with.
//!
//! Pure and seeded: the same [`Spec`] asked at the same moments gives the same events. Users live in time zones and sleep at
//! night; they visit, browse from state to state of a shop ([`visit`]), leave, come back; phones go offline and send late;
//! clocks are wrong; some events are sent twice. The rate is the caller's: it asks for one event a tick, and visits begin
//! whenever no visitor is due, so that the number of simultaneous visits settles by itself.

mod person;
mod visit;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use jiff::{Timestamp, tz::TimeZone};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use weir_proto::event::v1::Event;

use person::Person;
use visit::Visit;

/// What the world is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Everything random follows from it.
    pub seed: u64,
    /// People and sensors, at least 1.
    pub users: u32,
    /// Share of events that are sent twice, 0 to 1.
    pub duplicates: f64,
    /// Share of events that arrive 1 to 30 minutes late, 0 to 1.
    pub late: f64,
    /// Whether some devices' clocks are wrong.
    pub skewed_clocks: bool,
}

impl Spec {
    /// Ordinary traffic of that many users.
    pub fn new(seed: u64, users: u32) -> Self {
        Self { seed, users: users.max(1), duplicates: 0.005, late: 0.01, skewed_clocks: true }
    }
}

/// One sending.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// What is sent.
    pub event: Event,
    /// The same event was sent before.
    pub duplicate: bool,
}

/// How far back a repeated event may lie, in events.
const REPEAT_WITHIN: usize = 4096;
/// Attempts to find somebody who is awake and not visiting already.
const ATTEMPTS: usize = 12;

/// The world at one moment.
#[derive(Debug)]
pub struct World {
    spec: Spec,
    rng: SmallRng,
    /// Events that each user's device has numbered so far.
    sequences: Vec<u32>,
    visiting: Vec<bool>,
    visits: Vec<Option<Visit>>,
    free: Vec<usize>,
    /// When each visit's next event is due, microseconds, soonest first.
    due: BinaryHeap<Reverse<(i64, usize)>>,
    sent: VecDeque<Event>,
    zones: Vec<TimeZone>,
}

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(spec: Spec) -> Self {
        let users = spec.users as usize;
        let zones = person::REGIONS.iter().map(|region| {
            TimeZone::get(region.zone)
                .expect("the regions' zones are in the bundled database: held by a test")
        });
        Self {
            spec,
            rng: SmallRng::seed_from_u64(spec.seed),
            sequences: vec![0; users],
            visiting: vec![false; users],
            visits: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            sent: VecDeque::new(),
            zones: zones.collect(),
        }
    }

    /// What is sent at `now`. Moments must not go back.
    pub fn next(&mut self, now: Timestamp) -> Emission {
        if !self.sent.is_empty() && self.rng.random_bool(self.spec.duplicates) {
            let index = self.rng.random_range(0..self.sent.len());
            return Emission { event: self.sent[index].clone(), duplicate: true };
        }
        let slot = self.visitor(now);
        let visit = self.visits[slot].as_mut().expect("a slot in the queue has a visit");
        let sequence = &mut self.sequences[visit.person.index as usize];
        *sequence += 1;
        let lateness = if self.rng.random_bool(self.spec.late) { self.rng.random_range(60..1800) } else { 0 };
        let happened = now - jiff::SignedDuration::from_secs(lateness);
        let event = visit.step(&mut self.rng, now, happened, u64::from(*sequence));
        match visit.pause(&mut self.rng) {
            Some(pause) => self.due.push(Reverse((now.as_microsecond() + pause, slot))),
            None => {
                self.visiting[visit.person.index as usize] = false;
                self.visits[slot] = None;
                self.free.push(slot);
            }
        }
        if self.spec.duplicates > 0.0 {
            if self.sent.len() == REPEAT_WITHIN {
                self.sent.pop_front();
            }
            self.sent.push_back(event.clone());
        }
        Emission { event, duplicate: false }
    }

    /// Whose turn it is: a visitor who is due, else a new one, else whoever comes next.
    fn visitor(&mut self, now: Timestamp) -> usize {
        if self.due.peek().is_none_or(|Reverse((due, _))| *due > now.as_microsecond())
            && let Some(person) = self.somebody(now)
        {
            self.visiting[person.index as usize] = true;
            let visit = Visit::begin(&mut self.rng, person, now);
            return match self.free.pop() {
                Some(slot) => {
                    self.visits[slot] = Some(visit);
                    slot
                }
                None => {
                    self.visits.push(Some(visit));
                    self.visits.len() - 1
                }
            };
        }
        let Reverse((_, slot)) = self.due.pop().expect("nobody is free only when everybody visits");
        slot
    }

    /// Somebody awake who is not visiting; anybody who is not visiting if all that were tried sleep.
    fn somebody(&mut self, now: Timestamp) -> Option<Person> {
        let mut asleep = None;
        for _ in 0..ATTEMPTS {
            let index = self.rng.random_range(0..self.spec.users);
            if self.visiting[index as usize] {
                continue;
            }
            let person = Person::new(self.spec.seed, index, self.spec.skewed_clocks);
            let hour = now.to_zoned(self.zones[person.region].clone()).hour();
            if self.rng.random_bool(person.alertness(hour)) {
                return Some(person);
            }
            asleep = Some(person);
        }
        if asleep.is_some() || !self.due.is_empty() {
            return asleep;
        }
        let index = (0..self.spec.users).find(|&index| !self.visiting[index as usize])?;
        Some(Person::new(self.spec.seed, index, self.spec.skewed_clocks))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use prost::Message as _;

    use super::*;

    /// `count` emissions at `rate` a second from a fixed moment.
    fn emissions(spec: Spec, count: i64, rate: i64) -> Vec<Emission> {
        let start: Timestamp = "2026-03-02T18:00:00Z".parse().unwrap();
        let mut world = World::new(spec);
        let tick = |i| start + jiff::SignedDuration::from_micros(i * 1_000_000 / rate);
        (0..count).map(|i| world.next(tick(i))).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        let spec = Spec::new(7, 500);
        assert_eq!(emissions(spec, 2000, 100), emissions(spec, 2000, 100));
        assert_ne!(emissions(spec, 50, 100), emissions(Spec::new(8, 500), 50, 100));
    }

    #[test]
    fn every_region_has_a_zone() {
        World::new(Spec::new(0, 1));
    }

    #[test]
    fn the_funnel_narrows() {
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for emission in emissions(Spec::new(1, 5000), 60_000, 200) {
            *names.entry(emission.event.event_name).or_default() += 1;
        }
        let of = |name: &str| names.get(name).copied().unwrap_or_default();
        let funnel = ["product_view", "add_to_cart", "checkout", "purchase"].map(of);
        assert!(funnel.is_sorted_by(|a, b| a > b) && funnel[3] > 100, "{names:?}");
        assert!(of("reading") > 1000 && of("home") > 1000, "{names:?}");
    }

    #[test]
    fn events_pass_the_producers_rules() {
        for Emission { event, .. } in emissions(Spec::new(2, 300), 20_000, 500) {
            assert!(uuid::Uuid::parse_str(&event.event_id).is_ok());
            assert!(!event.event_name.is_empty());
            assert!(!(event.user_id.is_empty() && event.anonymous_id.is_empty()));
            assert!(event.encoded_len() < 2048, "{event:?}");
        }
    }

    #[test]
    fn events_are_of_a_realistic_size() {
        let emissions = emissions(Spec::new(3, 10_000), 20_000, 2000);
        let bytes: usize = emissions.iter().map(|e| e.event.encoded_len()).sum();
        let mean = bytes / emissions.len();
        assert!((250..=350).contains(&mean), "an event takes {mean} bytes on average");
    }

    #[test]
    fn the_shares_are_kept_and_duplicates_repeat_an_event() {
        let spec = Spec { duplicates: 0.02, late: 0.05, skewed_clocks: false, ..Spec::new(4, 1000) };
        let emissions = emissions(spec, 50_000, 1000);
        let duplicates = emissions.iter().filter(|e| e.duplicate).count();
        assert!((800..=1200).contains(&duplicates), "{duplicates} of 50,000");
        let mut seen = BTreeSet::new();
        for Emission { event, duplicate } in &emissions {
            assert_eq!(!seen.insert(&event.event_id), *duplicate);
        }
    }

    #[test]
    fn sequences_of_an_install_have_no_gap() {
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for Emission { event, duplicate } in emissions(Spec::new(5, 50), 5_000, 100) {
            if duplicate || event.install_id.is_empty() {
                continue;
            }
            let before = last.insert(event.install_id.clone(), event.sequence).unwrap_or_default();
            assert_eq!(event.sequence, before + 1, "{}", event.install_id);
        }
        assert!(!last.is_empty());
    }

    #[test]
    fn one_user_alone_keeps_any_rate() {
        assert_eq!(emissions(Spec::new(6, 1), 1000, 10_000).len(), 1000);
    }
}
