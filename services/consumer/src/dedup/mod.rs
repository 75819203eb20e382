//! Deduplication as a function of the log alone: whoever reads the same records decides the same, whenever they start.
//!
//! Time is the running maximum of the log's append times, cut into generations of one window each. Two sets of fingerprints
//! are kept, of the current generation and of the previous one. Every event's fingerprint goes into the current set,
//! a duplicate's too; it is a duplicate if either set had it. So an `event_id` seen again within one window is always
//! caught, and between one and two windows it may be.
//!
//! Append times come from a clock, and a clock may be wrong. Time that leaps over a generation may be idle time, or the clock has
//! jumped ahead: nobody can tell, so what was remembered is set aside, and still counts until two further generations have begun,
//! a whole window at least. An append time far below the maximum shows that the clock was set back: then what was set aside is
//! taken up again, as if the leap had not been.
//!
//! A full set ends its generation early (that is the bound on memory): the set becomes the previous one, as if the window were
//! over. Because a generation starts with an empty set at a moment that the log defines, the sets depend only on the records
//! since the start of the previous window, or, where time has leapt since, of the last two before that: there rebuilding begins
//! ([`Window::rebuild_from_ms`], [`Window::leaps`], [`Window::rebuild_before_set_back_ms`]).

#[cfg(test)]
mod tests;

use std::{mem, time::Duration};

use hashbrown::HashTable;
use weir_rollup::watermark::SET_BACK_MICROS;
use xxhash_rust::xxh3::xxh3_64;

/// Makes fingerprints: XXH3 (64 bit) of the project, a zero byte and the `event_id`. Two of n events collide with probability
/// n² / 2^65, about one in 37 million for a window of a million events.
#[derive(Debug, Default)]
pub struct Fingerprinter {
    /// The last project and a zero byte, then the identifier.
    text: Vec<u8>,
    project: usize,
}

impl Fingerprinter {
    /// The fingerprint of an event.
    #[inline]
    pub fn of(&mut self, project: &str, event_id: &str) -> u64 {
        if self.text.get(..self.project) != Some(project.as_bytes()) || self.text.is_empty() {
            self.text.clear();
            self.text.extend_from_slice(project.as_bytes());
            self.text.push(0);
            self.project = project.len();
        }
        self.text.truncate(self.project + 1);
        self.text.extend_from_slice(event_id.as_bytes());
        xxh3_64(&self.text)
    }
}

/// A record, as far as deduplication sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When the log took it, Unix milliseconds.
    pub append_time_ms: i64,
    /// The event's fingerprint; `None` for a record that is no valid event, which only moves the time.
    pub fingerprint: Option<u64>,
}

/// What the log has shown of late.
#[derive(Debug)]
pub struct Window {
    width_ms: i64,
    /// Below the latest time by more than this, an append time shows that the clock was set back.
    set_back_ms: i64,
    /// Fingerprints in one set at most.
    capacity: usize,
    /// The highest append time since the clock was last set back.
    latest_ms: i64,
    generation: i64,
    current: HashTable<u64>,
    previous: HashTable<u64>,
    aside: Option<Aside>,
    /// The lowest append time of all.
    least_ms: i64,
    was_set_back: bool,
}

/// What was remembered when time leapt.
#[derive(Debug)]
struct Aside {
    generation: i64,
    current: HashTable<u64>,
    previous: HashTable<u64>,
    /// The generation with which it is forgotten.
    until: i64,
}

impl Window {
    /// An empty window of at least a millisecond that remembers at most `max_events` fingerprints; after a leap of time, as many
    /// again from before it.
    pub fn new(width: Duration, max_events: usize) -> Self {
        let width_ms = width_ms(width);
        Self {
            width_ms,
            set_back_ms: set_back_ms(width_ms),
            capacity: (max_events / 2).max(1),
            latest_ms: i64::MIN,
            generation: i64::MIN,
            current: HashTable::new(),
            previous: HashTable::new(),
            aside: None,
            least_ms: i64::MAX,
            was_set_back: false,
        }
    }

    /// Where rebuilding has to begin so that the records after one appended at `append_time_ms` are decided rightly, where time
    /// [has not leapt](Self::leaps): at the first offset with this append time (Unix milliseconds) or a later one. Any earlier
    /// start does as well.
    pub fn rebuild_from_ms(width: Duration, append_time_ms: i64) -> i64 {
        let width = width_ms(width);
        append_time_ms.div_euclid(width).saturating_sub(1).saturating_mul(width)
    }

    /// Whether time may leap between `before_ms` and `first_ms`, the append times of two neighbours of which the second is where
    /// rebuilding for `append_time_ms` would begin: then it has to begin where it would for `before_ms`.
    pub fn leaps(width: Duration, before_ms: i64, first_ms: i64, append_time_ms: i64) -> bool {
        let width = width_ms(width);
        let generation = append_time_ms.div_euclid(width);
        // The latest time may be a little later, and of the next generation.
        let latest = append_time_ms.saturating_add(set_back_ms(width)).div_euclid(width);
        let begins = |time_ms: i64| generation.saturating_sub(time_ms.div_euclid(width));
        latest != generation || begins(first_ms) != 1 || begins(before_ms) != 2
    }

    /// Where rebuilding has to begin, as of [`Self::rebuild_from_ms`], when the clock was set back in what this window has seen;
    /// `None` when it was not.
    pub fn rebuild_before_set_back_ms(&self) -> Option<i64> {
        let earlier = self.least_ms.div_euclid(self.width_ms).saturating_sub(3).saturating_mul(self.width_ms);
        self.was_set_back.then_some(earlier)
    }

    /// Fingerprints remembered.
    pub fn len(&self) -> usize {
        let aside = self.aside.as_ref().map_or(0, |aside| aside.current.len() + aside.previous.len());
        self.current.len() + self.previous.len() + aside
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes arrivals in the order of the log and says of each whether it is a duplicate.
    pub fn admit(&mut self, arrivals: &[Arrival], duplicate: &mut Vec<bool>) {
        duplicate.clear();
        let times = arrivals.iter().map(|a| a.append_time_ms);
        let (Some(latest), Some(least)) = (times.clone().max(), times.min()) else { return };
        self.least_ms = self.least_ms.min(least);
        let latest = latest.max(self.latest_ms);
        let stays = latest.div_euclid(self.width_ms) == self.generation
            && least >= latest.saturating_sub(self.set_back_ms);
        if stays && self.aside.is_none() && self.current.len() + arrivals.len() < self.capacity {
            self.latest_ms = latest;
            // The usual case. Lookups that do not depend on each other wait for memory together, so one set at a time.
            duplicate.extend(arrivals.iter().map(|a| a.fingerprint.is_some_and(|f| has(&self.previous, f))));
            for (arrival, duplicate) in arrivals.iter().zip(duplicate.iter_mut()) {
                if let Some(fingerprint) = arrival.fingerprint {
                    *duplicate |= !insert(&mut self.current, fingerprint);
                }
            }
        } else {
            duplicate.extend(arrivals.iter().map(|arrival| self.admit_one(*arrival)));
        }
    }

    fn admit_one(&mut self, arrival: Arrival) -> bool {
        self.go_to(arrival.append_time_ms);
        let Some(fingerprint) = arrival.fingerprint else { return false };
        let aside = self.aside.as_ref();
        let duplicate = has(&self.previous, fingerprint)
            | aside
                .is_some_and(|aside| has(&aside.current, fingerprint) || has(&aside.previous, fingerprint))
            | !insert(&mut self.current, fingerprint);
        if self.current.len() >= self.capacity {
            self.turn();
        }
        duplicate
    }

    /// Follows the log's time.
    fn go_to(&mut self, append_time_ms: i64) {
        let is_set_back = append_time_ms < self.latest_ms.saturating_sub(self.set_back_ms);
        self.latest_ms = if is_set_back { append_time_ms } else { self.latest_ms.max(append_time_ms) };
        self.was_set_back |= is_set_back;
        let generation = self.latest_ms.div_euclid(self.width_ms);
        if generation < self.generation {
            self.go_back(generation);
        } else if generation > self.generation {
            self.aside.take_if(|aside| aside.until <= generation);
            if generation == self.generation.saturating_add(1) { self.turn() } else { self.leap(generation) }
        }
        self.generation = generation;
    }

    /// Nobody knows what was wrong, the time before or the time now: nothing is forgotten.
    fn leap(&mut self, to: i64) {
        let (current, previous) = (mem::take(&mut self.current), mem::take(&mut self.previous));
        let until = to.saturating_add(2);
        match &mut self.aside {
            Some(aside) => {
                absorb(&mut aside.current, &current);
                absorb(&mut aside.current, &previous);
                aside.until = until;
            }
            None if current.is_empty() && previous.is_empty() => {}
            None => self.aside = Some(Aside { generation: self.generation, current, previous, until }),
        }
    }

    /// The clock was set back: as if time had not leapt, but with what came since. Without a leap, all that is remembered stays for
    /// the generation that begins.
    fn go_back(&mut self, to: i64) {
        let before = mem::take(&mut self.previous);
        absorb(&mut self.current, &before);
        let Some(mut aside) = self.aside.take() else { return };
        if to <= aside.generation {
            absorb(&mut self.current, &aside.current);
            self.previous = aside.previous;
        } else if to == aside.generation.saturating_add(1) {
            self.previous = aside.current;
        } else {
            aside.until = to.saturating_add(2);
            self.aside = Some(aside);
        }
    }

    /// Begins a set. The memory of the oldest one is used again unless it is far too large; what is missing is
    /// reserved at once, since the last set's size foretells this one's and growing step by step would stall.
    fn turn(&mut self) {
        mem::swap(&mut self.current, &mut self.previous);
        let expected = self.previous.len();
        if self.current.capacity() / 4 > expected {
            self.current = HashTable::new();
        }
        self.current.clear();
        self.current.reserve(expected, |f| *f);
    }
}

fn width_ms(width: Duration) -> i64 {
    i64::try_from(width.as_millis()).unwrap_or(i64::MAX).max(1)
}

fn set_back_ms(width_ms: i64) -> i64 {
    (SET_BACK_MICROS / 1000).min(width_ms / 2)
}

fn has(set: &HashTable<u64>, fingerprint: u64) -> bool {
    set.find(fingerprint, |f| *f == fingerprint).is_some()
}

fn absorb(set: &mut HashTable<u64>, more: &HashTable<u64>) {
    more.iter().for_each(|fingerprint| {
        insert(set, *fingerprint);
    });
}

/// Whether it was not there yet. Fingerprints are hashes already.
#[inline]
fn insert(set: &mut HashTable<u64>, fingerprint: u64) -> bool {
    match set.entry(fingerprint, |f| *f == fingerprint, |f| *f) {
        hashbrown::hash_table::Entry::Occupied(_) => false,
        hashbrown::hash_table::Entry::Vacant(vacant) => {
            vacant.insert(fingerprint);
            true
        }
    }
}
