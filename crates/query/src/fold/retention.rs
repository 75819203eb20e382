//! Retention: who came back, how many periods after they began.
//!
//! An actor joins the cohort of a period with a starting event in it: of the first one only, or of every one. It returned in
//! period k if it has a returning event k periods later, and in period 0 if it has one at or after that starting event (which
//! may be both itself). Where an event of the cohort's period has several starts, the first counts.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Action;
use crate::buckets::Buckets;

/// Mark of an event that makes its actor join a cohort.
pub const START: u32 = 1;
/// Mark of an event with which an actor returns.
pub const RETURN: u32 = 2;

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
    /// Of the cohorts; returns are looked for in them and those that follow.
    periods: Buckets,
    /// Periods that can be cohorts: the first ones.
    joined: usize,
    /// Periods after its own for which a cohort is watched, its own included.
    watched: usize,
    found: HashMap<(u32, u32), Cohort, FixedState>,
    /// Periods in which the actor at hand returned, ascending.
    returns: Vec<u32>,
    /// Those it joined: period, group, and whether it returned in the same period.
    joins: Vec<(u32, u32, bool)>,
}

impl Table {
    /// Of nobody. The first `joined` periods can be cohorts, and each is watched for `watched` periods from its own on.
    pub fn new(cohorts: Cohorts, periods: Buckets, joined: usize, watched: usize) -> Self {
        let (returns, joins) = (Vec::new(), Vec::new());
        Self { cohorts, joined, watched, found: HashMap::default(), periods, returns, joins }
    }

    /// Adds an actor with all its events, in order.
    pub fn add(&mut self, actions: &[Action]) {
        self.returns.clear();
        self.joins.clear();
        let mut near = 0;
        let mut begun = false;
        for action in actions {
            let period = self.periods.find(action.time, &mut near).map(|period| period as u32);
            if action.marks & START != 0 && !(begun && self.cohorts == Cohorts::First) {
                begun = true;
                if let Some(period) = period.filter(|period| (*period as usize) < self.joined)
                    && self.joins.last().is_none_or(|(last, ..)| *last != period)
                {
                    self.joins.push((period, action.group, false));
                }
            }
            if action.marks & RETURN != 0
                && let Some(period) = period
            {
                if self.returns.last() != Some(&period) {
                    self.returns.push(period);
                }
                if let Some(join) = self.joins.last_mut().filter(|(last, ..)| *last == period) {
                    join.2 = true;
                }
            }
        }
        for (period, group, at_once) in &self.joins {
            let watched = self.watched.min(self.periods.len() - *period as usize);
            let new = || Cohort { size: 0, returned: vec![0; watched] };
            let cohort = self.found.entry((*group, *period)).or_insert_with(new);
            cohort.size += 1;
            if *at_once && watched > 0 {
                cohort.returned[0] += 1;
            }
            let later = &self.returns[self.returns.partition_point(|returned| returned <= period)..];
            for returned in later {
                match cohort.returned.get_mut((returned - period) as usize) {
                    Some(count) => *count += 1,
                    None => break,
                }
            }
        }
    }

    /// Adds the cohorts of other actors.
    pub fn merge(&mut self, other: Self) {
        for (key, cohort) in other.found {
            let new = || Cohort { size: 0, returned: vec![0; cohort.returned.len()] };
            let mine = self.found.entry(key).or_insert_with(new);
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
    use weir_rollup::calendar::{Interval, Zone};

    use super::*;

    const DAY: i64 = 86_400_000_000;
    /// 1 March 2024: the clock in New York goes forward on the 10th.
    const BEGIN: i64 = 1_709_251_200_000_000;

    fn oracle(
        actions: &[Action],
        cohorts: Cohorts,
        periods: &[std::ops::Range<i64>],
        joined: usize,
        watched: usize,
    ) -> BTreeMap<(u32, u32), Cohort> {
        let period = |time: i64| periods.iter().position(|period| period.contains(&time));
        let mut found = BTreeMap::<_, Cohort>::new();
        for actor in super::super::actors(actions) {
            let starts: Vec<_> = (0..actor.len()).filter(|at| actor[*at].marks & START != 0).collect();
            for cohort in 0..joined {
                let of_cohort = |at: &&usize| period(actor[**at].time) == Some(cohort);
                let start = match cohorts {
                    Cohorts::First => starts.first().filter(|at| of_cohort(at)),
                    Cohorts::Recurring => starts.iter().find(of_cohort),
                };
                let Some(start) = start else { continue };
                let watched = watched.min(periods.len() - cohort);
                let key = (actor[*start].group, cohort as u32);
                let entry = found.entry(key).or_insert(Cohort { size: 0, returned: vec![0; watched] });
                entry.size += 1;
                for later in 0..watched {
                    let returned = |action: &Action| {
                        action.marks & RETURN != 0 && period(action.time) == Some(cohort + later)
                    };
                    entry.returned[later] += u64::from(actor[*start..].iter().any(returned));
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn cohorts_are_those_of_the_definition(
            raw in prop::collection::vec((0i64..5, -10i64..70, 0u32..4, 0u32..2), 0..60),
            zone in prop::sample::select(vec!["UTC", "Asia/Kolkata", "America/New_York"]),
            interval in prop::sample::select(vec![Interval::Day, Interval::Week, Interval::Month]),
            recurring in any::<bool>(), joined in 1usize..8, watched in 1usize..8,
        ) {
            let cohorts = if recurring { Cohorts::Recurring } else { Cohorts::First };
            let mut actions: Vec<_> = (0..)
                .zip(&raw)
                .map(|(offset, &(actor, hours, marks, group))| Action {
                    actor, time: BEGIN + hours * DAY / 6, offset, marks, breaks: 0, group,
                })
                .collect();
            actions.sort();
            let zone = Zone::parse(zone).unwrap();
            let periods = zone.buckets(interval, BEGIN..BEGIN + 10 * DAY, 100).unwrap();
            let joined = joined.min(periods.len());
            let mut table = Table::new(cohorts, Buckets::new(&periods), joined, watched);
            for actor in super::super::actors(&actions) {
                let mut part = Table::new(cohorts, Buckets::new(&periods), joined, watched);
                part.add(actor);
                table.merge(part);
            }
            let found: BTreeMap<_, _> = table.into_cohorts().into_iter().collect();
            prop_assert_eq!(found, oracle(&actions, cohorts, &periods, joined, watched));
        }
    }
}
