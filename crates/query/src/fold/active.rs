//! How many different actors there are: by bucket, in windows that roll over buckets, since the beginning, and at all.

use std::ops::AddAssign;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// An actor was there. Sorted by these fields, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Hash of a user, a session or a text.
    pub actor: i64,
    /// The series.
    pub group: u32,
    /// The bucket of time.
    pub bucket: u32,
}

/// For how many buckets an actor counts from the one in which it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// This many, that bucket included; 1 is the plain count.
    Buckets(u32),
    /// All that follow.
    Forever,
}

/// Exact numbers of actors; adds up over actors.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Different actors at all.
    pub all: u64,
    /// By group.
    pub groups: HashMap<u32, u64, FixedState>,
    /// By group and bucket: how many more actors than in the bucket before count (for [`Span::Buckets`]`(1)`: how many).
    steps: HashMap<(u32, u32), i64, FixedState>,
    span: Option<Span>,
}

impl Counts {
    /// Of nobody.
    pub fn new(span: Span) -> Self {
        Self { span: Some(span), ..Self::default() }
    }

    /// Adds all sightings of some actors; sorted, an actor's all in one call.
    pub fn add(&mut self, sightings: &[Sighting]) {
        for actor in sightings.chunk_by(|one, next| one.actor == next.actor) {
            self.all += 1;
            for group in actor.chunk_by(|one, next| one.group == next.group) {
                self.groups.entry(group[0].group).or_default().add_assign(1);
                self.add_group(group);
            }
        }
    }

    /// The sightings of an actor in a group: each covers the buckets from its own on, and none is covered twice.
    fn add_group(&mut self, sightings: &[Sighting]) {
        let group = sightings[0].group;
        let width = match self.span {
            None | Some(Span::Buckets(0 | 1)) => {
                for one in sightings.chunk_by(|one, next| one.bucket == next.bucket) {
                    *self.steps.entry((group, one[0].bucket)).or_default() += 1;
                }
                return;
            }
            Some(Span::Buckets(width)) => width,
            Some(Span::Forever) => u32::MAX,
        };
        for covered in sightings.chunk_by(|one, next| next.bucket <= one.bucket.saturating_add(width)) {
            let (first, last) = (covered[0].bucket, covered[covered.len() - 1].bucket);
            *self.steps.entry((group, first)).or_default() += 1;
            if let Some(end) = last.checked_add(width) {
                *self.steps.entry((group, end)).or_default() -= 1;
            }
        }
    }

    /// Numbers that it holds.
    pub fn size(&self) -> usize {
        self.groups.len() + self.steps.len()
    }

    /// Adds the counts of other actors.
    pub fn merge(&mut self, other: Self) {
        self.all += other.all;
        for (group, count) in other.groups {
            *self.groups.entry(group).or_default() += count;
        }
        for (cell, step) in other.steps {
            *self.steps.entry(cell).or_default() += step;
        }
    }

    /// The same counts with groups numbered otherwise; different groups must stay different.
    pub fn renumbered(self, number: impl Fn(u32) -> u32) -> Self {
        let groups = self.groups.into_iter().map(|(group, count)| (number(group), count)).collect();
        let steps = self.steps.into_iter();
        let steps = steps.map(|((group, bucket), step)| ((number(group), bucket), step)).collect();
        Self { groups, steps, ..self }
    }

    /// The number of actors that count in each bucket of a group.
    pub fn series(&self, group: u32, buckets: u32) -> Vec<u64> {
        let plain = matches!(self.span, None | Some(Span::Buckets(0 | 1)));
        let mut running = 0;
        (0..buckets)
            .map(|bucket| {
                let step = self.steps.get(&(group, bucket)).copied().unwrap_or(0);
                running = if plain { step } else { running + step };
                running.unsigned_abs()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_those_of_sets(
            raw in prop::collection::vec((0i64..6, 0u32..3, 0u32..12), 0..60),
            width in prop::option::of(1u32..5),
        ) {
            let span = width.map_or(Span::Forever, Span::Buckets);
            let mut sightings: Vec<_> =
                raw.iter().map(|&(actor, group, bucket)| Sighting { actor, group, bucket }).collect();
            sightings.sort();
            let mut counts = Counts::new(span);
            for actor in sightings.chunk_by(|one, next| one.actor == next.actor) {
                let mut part = Counts::new(span);
                part.add(actor);
                counts.merge(part);
            }
            let different = |of: &dyn Fn(&&Sighting) -> bool| {
                sightings.iter().filter(of).map(|one| one.actor).collect::<BTreeSet<_>>().len() as u64
            };
            prop_assert_eq!(counts.all, different(&|_| true));
            for group in 0..3 {
                let total = different(&|one| one.group == group);
                prop_assert_eq!(counts.groups.get(&group).copied().unwrap_or(0), total);
                let expected: Vec<_> = (0..12u32)
                    .map(|bucket| {
                        let first = width.map_or(0, |width| (bucket + 1).saturating_sub(width));
                        different(&|one| one.group == group && (first..=bucket).contains(&one.bucket))
                    })
                    .collect();
                prop_assert_eq!(counts.series(group, 12), expected);
            }
        }
    }
}
