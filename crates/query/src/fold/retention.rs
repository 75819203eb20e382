//! Retention: who came back, how many periods after they began.
//!
//! An actor joins the cohort of a period with a starting event in it: of the first one only, or of every one. It returned in
//! period k if it has a returning event k periods later, and in period 0 if it has one at or after that starting event (which
//! may be both itself). Where an event of the cohort's period has several starts, the first counts.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Time, microseconds since the Unix epoch, and offset in the log: the order of an actor's events.
pub type Moment = (i64, i64);

/// All that counts of an actor's events in one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// Who it was: hash of a user.
    pub actor: i64,
    /// The period, by number.
    pub period: u32,
    /// Of the first starting event: what the answer is broken down by, as a number.
    pub group: u32,
    /// The first starting event; [`Stay::NEVER`] without any.
    start: Moment,
    /// The last returning event; the least there is without any.
    returned: Moment,
}

impl Stay {
    /// Later than all events.
    const NEVER: Moment = (i64::MAX, i64::MAX);

    /// Of an actor without events.
    pub fn new(actor: i64, period: u32) -> Self {
        Self { actor, period, group: 0, start: Self::NEVER, returned: (i64::MIN, i64::MIN) }
    }

    /// Whether an event is of this actor and period.
    pub fn is_of(&self, actor: i64, period: u32) -> bool {
        self.actor == actor && self.period == period
    }

    /// Adds a starting event, whose group is only asked for if it is the first.
    #[inline]
    pub fn start(&mut self, at: Moment, group: impl FnOnce() -> u32) {
        if at < self.start {
            (self.start, self.group) = (at, group());
        }
    }

    /// Adds a returning event.
    #[inline]
    pub fn come_back(&mut self, at: Moment) {
        self.returned = self.returned.max(at);
    }

    /// Adds what the same actor did in the same period elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.start(other.start, || other.group);
        self.come_back(other.returned);
    }

    fn has_start(&self) -> bool {
        self.start < Self::NEVER
    }

    fn has_returned(&self) -> bool {
        self.returned > (i64::MIN, i64::MIN)
    }
}

/// Which cohorts an actor joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cohorts {
    /// That of its very first starting event.
    First,
    /// Every one in whose period it has a starting event.
    Recurring,
}

/// A cohort of actors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cohort {
    /// Actors in it.
    pub size: u64,
    /// By number of periods after its own: the actors that returned.
    pub returned: Vec<u64>,
}

/// All cohorts; adds up over actors.
#[derive(Debug, Clone)]
pub struct Table {
    cohorts: Cohorts,
    /// How many there are, each of which can be a cohort.
    periods: usize,
    /// Periods after its own for which a cohort is watched, its own included.
    watched: usize,
    found: HashMap<(u32, u32), Cohort, FixedState>,
    figures: usize,
}

impl Table {
    /// Of nobody. Each of the periods is watched for `watched` periods, at least one, from its own on.
    pub fn new(cohorts: Cohorts, periods: usize, watched: usize) -> Self {
        Self { cohorts, periods, watched, found: HashMap::default(), figures: 0 }
    }

    /// How many cohorts there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many figures they have together.
    pub fn figures(&self) -> usize {
        self.figures
    }

    /// Adds an actor with all its stays, by period, one each.
    pub fn add(&mut self, stays: &[Stay]) {
        for (at, joined) in stays.iter().enumerate().filter(|(_, stay)| stay.has_start()) {
            let watched = self.watched.min(self.periods - joined.period as usize);
            let figures = &mut self.figures;
            let cohort = self.found.entry((joined.group, joined.period)).or_insert_with(|| {
                *figures += watched;
                Cohort { size: 0, returned: vec![0; watched] }
            });
            cohort.size += 1;
            cohort.returned[0] += u64::from(joined.start <= joined.returned);
            for later in stays[at + 1..].iter().filter(|stay| stay.has_returned()) {
                match cohort.returned.get_mut((later.period - joined.period) as usize) {
                    Some(count) => *count += 1,
                    None => break,
                }
            }
            if self.cohorts == Cohorts::First {
                break;
            }
        }
    }

    /// Adds the cohorts of other actors.
    pub fn merge(&mut self, other: Self) {
        for (key, cohort) in other.found {
            let mine = self.found.entry(key).or_insert_with(|| {
                self.figures += cohort.returned.len();
                Cohort { size: 0, returned: vec![0; cohort.returned.len()] }
            });
            mine.size += cohort.size;
            mine.returned.iter_mut().zip(&cohort.returned).for_each(|(mine, theirs)| *mine += theirs);
        }
    }

    /// The cohorts that anybody joined, with their groups and periods, in that order.
    pub fn into_cohorts(self) -> Vec<((u32, u32), Cohort)> {
        let mut cohorts: Vec<_> = self.found.into_iter().collect();
        cohorts.sort_by_key(|(key, _)| *key);
        cohorts
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// An event: its actor, period, moment, whether it starts and returns, and its group.
    type Event = (i64, u32, Moment, bool, bool, u32);

    fn oracle(
        events: &[Event],
        cohorts: Cohorts,
        periods: u32,
        watched: usize,
    ) -> BTreeMap<(u32, u32), Cohort> {
        let mut found = BTreeMap::<_, Cohort>::new();
        for actor in events.chunk_by(|one, next| one.0 == next.0) {
            let starts: Vec<_> = (0..actor.len()).filter(|at| actor[*at].3).collect();
            for cohort in 0..periods {
                let of_cohort = |at: &&usize| actor[**at].1 == cohort;
                let start = match cohorts {
                    Cohorts::First => starts.first().filter(|at| of_cohort(at)),
                    Cohorts::Recurring => starts.iter().find(of_cohort),
                };
                let Some(start) = start else { continue };
                let watched = watched.min((periods - cohort) as usize);
                let entry = found.entry((actor[*start].5, cohort));
                let entry = entry.or_insert(Cohort { size: 0, returned: vec![0; watched] });
                entry.size += 1;
                for (later, count) in (cohort..).zip(&mut entry.returned) {
                    let returned = |event: &Event| event.4 && event.1 == later;
                    *count += u64::from(actor[*start..].iter().any(returned));
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn cohorts_are_those_of_the_definition(
            raw in prop::collection::vec((0i64..5, 0i64..40, any::<bool>(), any::<bool>(), 0u32..2, 0usize..3), 0..60),
            recurring in any::<bool>(), watched in 1usize..8,
        ) {
            let cohorts = if recurring { Cohorts::Recurring } else { Cohorts::First };
            // Times of which some are the same, in periods of six.
            let event = |(offset, &(actor, time, starts, returns, group, _))| {
                (actor, time as u32 / 6, (time, offset), starts, returns, group)
            };
            let mut events: Vec<Event> = (0..).zip(&raw).map(event).collect();
            // What is seen in different places, in whatever order, comes together again.
            let mut stays = BTreeMap::<_, Stay>::new();
            for place in 0..3 {
                let mut there = BTreeMap::<_, Stay>::new();
                let seen = events.iter().zip(&raw).filter(|(_, raw)| raw.5 == place);
                for ((actor, period, at, starts, returns, group), _) in seen {
                    let stay = there.entry((*actor, *period)).or_insert(Stay::new(*actor, *period));
                    if *starts {
                        stay.start(*at, || *group);
                    }
                    if *returns {
                        stay.come_back(*at);
                    }
                }
                for (key, stay) in there {
                    stays.entry(key).and_modify(|known| known.merge(&stay)).or_insert(stay);
                }
            }
            let stays: Vec<_> = stays.into_values().collect();
            let mut table = Table::new(cohorts, 7, watched);
            for actor in stays.chunk_by(|one, next| one.actor == next.actor) {
                let mut part = Table::new(cohorts, 7, watched);
                part.add(actor);
                table.merge(part);
            }
            let found: BTreeMap<_, _> = table.into_cohorts().into_iter().collect();
            events.sort_by_key(|event| (event.0, event.2));
            prop_assert_eq!(found, oracle(&events, cohorts, 7, watched));
        }
    }
}
