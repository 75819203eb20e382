//! Deduplication as a function of the log alone: whoever reads the same records decides the same, whenever they start.
//!
//! Time is the running maximum of the log's append times, cut into generations of one window each. Two sets of fingerprints
//! are kept, of the current generation and of the previous one. Every event's fingerprint goes into the current set,
//! a duplicate's too; it is a duplicate if either set had it. So an `event_id` seen again within one window is always
//! caught, and between one and two windows it may be.
//!
//! A full set ends its generation early (that is the bound on memory): the set becomes the previous one, as if the window were
//! over. Because a generation starts with an empty set at a moment that the log defines, both sets depend only on the records
//! since the start of the previous window: that is where rebuilding begins.

#[cfg(test)]
mod tests;

use std::{mem, time::Duration};

use hashbrown::HashTable;
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
    /// Fingerprints in one set at most.
    capacity: usize,
    generation: i64,
    current: HashTable<u64>,
    previous: HashTable<u64>,
}

impl Window {
    /// An empty window of at least a millisecond that remembers at most `max_events` fingerprints.
    pub fn new(width: Duration, max_events: usize) -> Self {
        Self {
            width_ms: width_ms(width),
            capacity: (max_events / 2).max(1),
            generation: i64::MIN,
            current: HashTable::new(),
            previous: HashTable::new(),
        }
    }

    /// Where rebuilding has to begin so that the records after one appended at `append_time_ms` are decided rightly: at the
    /// first offset with this append time (Unix milliseconds) or a later one. Any earlier start does as well.
    pub fn rebuild_from_ms(width: Duration, append_time_ms: i64) -> i64 {
        let width = width_ms(width);
        append_time_ms.div_euclid(width).saturating_sub(1).saturating_mul(width)
    }

    /// Fingerprints remembered.
    pub fn len(&self) -> usize {
        self.current.len() + self.previous.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes arrivals in the order of the log and says of each whether it is a duplicate.
    pub fn admit(&mut self, arrivals: &[Arrival], duplicate: &mut Vec<bool>) {
        duplicate.clear();
        let Some(latest) = arrivals.iter().map(|a| a.append_time_ms).max() else { return };
        let stays = latest.div_euclid(self.width_ms) <= self.generation;
        if stays && self.current.len() + arrivals.len() < self.capacity {
            // The usual case. Lookups that do not depend on each other wait for memory together, so one set at a time.
            duplicate.extend(arrivals.iter().map(|a| a.fingerprint.is_some_and(|f| self.was_before(f))));
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
        let generation = arrival.append_time_ms.div_euclid(self.width_ms);
        if generation > self.generation {
            self.turn();
            if generation - 1 > self.generation {
                self.previous.clear();
            }
            self.generation = generation;
        }
        let Some(fingerprint) = arrival.fingerprint else { return false };
        let duplicate = self.was_before(fingerprint) | !insert(&mut self.current, fingerprint);
        if self.current.len() >= self.capacity {
            self.turn();
        }
        duplicate
    }

    fn was_before(&self, fingerprint: u64) -> bool {
        self.previous.find(fingerprint, |f| *f == fingerprint).is_some()
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
