//! Sharing the partitions of a topic out among the members of a group. Pure: every change returns what to tell whom.
//!
//! Members keep what they have as far as an even share allows (their counts differ by one at most). A partition that
//! has to move is first asked back, and given to its new owner only when the old one has released it or left.

use crate::Membership;

/// Identifies a member within its group.
pub(super) type MemberId = u64;

/// One group on one topic.
#[derive(Debug)]
pub(super) struct Group {
    slots: Vec<Slot>,
    /// In the order in which they joined.
    members: Vec<MemberId>,
}

/// Who has a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Owned(MemberId),
    /// Asked back, not given up yet.
    Releasing(MemberId),
}

impl Group {
    pub(super) fn new(partitions: u32) -> Self {
        Self { slots: vec![Slot::Free; partitions as usize], members: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes a member in.
    pub(super) fn join(&mut self, id: MemberId) -> Vec<(MemberId, Membership)> {
        self.members.push(id);
        self.balance()
    }

    /// Lets a member go, with everything it has.
    pub(super) fn leave(&mut self, id: MemberId) -> Vec<(MemberId, Membership)> {
        self.members.retain(|member| *member != id);
        for slot in &mut self.slots {
            if matches!(slot, Slot::Owned(owner) | Slot::Releasing(owner) if *owner == id) {
                *slot = Slot::Free;
            }
        }
        self.balance()
    }

    /// Takes back what a member was asked for.
    pub(super) fn released(&mut self, id: MemberId) -> Vec<(MemberId, Membership)> {
        for slot in &mut self.slots {
            if *slot == Slot::Releasing(id) {
                *slot = Slot::Free;
            }
        }
        self.balance()
    }

    /// Whether the member may speak for the partition: it has not been given up yet.
    pub(super) fn holds(&self, id: MemberId, partition: u32) -> bool {
        let slot = self.slots.get(partition as usize);
        slot.is_some_and(|slot| [Slot::Owned(id), Slot::Releasing(id)].contains(slot))
    }

    fn owned(&self, id: MemberId) -> usize {
        self.slots.iter().filter(|slot| **slot == Slot::Owned(id)).count()
    }

    fn balance(&mut self) -> Vec<(MemberId, Membership)> {
        if self.members.is_empty() {
            return Vec::new();
        }
        let (share, more) = (self.slots.len() / self.members.len(), self.slots.len() % self.members.len());
        // Those who have most keep the odd ones: nothing moves without need. The sort is stable.
        let mut quotas: Vec<(MemberId, usize)> = self.members.iter().map(|id| (*id, share)).collect();
        quotas.sort_by_key(|(id, _)| std::cmp::Reverse(self.owned(*id)));
        quotas.iter_mut().take(more).for_each(|(_, quota)| *quota += 1);

        let mut told = Vec::new();
        for &(id, quota) in &quotas {
            let asked = self.take_back(id, quota);
            if !asked.is_empty() {
                told.push((id, Membership::Revoked(asked)));
            }
        }
        for &(id, quota) in &quotas {
            let given = self.give(id, quota);
            if !given.is_empty() {
                told.push((id, Membership::Assigned(given)));
            }
        }
        told
    }

    /// Asks for what is beyond the quota; but only one question at a time, so that an answer is never mistaken for
    /// the answer to another.
    fn take_back(&mut self, id: MemberId, quota: usize) -> Vec<u32> {
        if self.slots.contains(&Slot::Releasing(id)) {
            return Vec::new();
        }
        let excess = self.owned(id).saturating_sub(quota);
        self.change(Slot::Owned(id), Slot::Releasing(id), self.owned(id) - excess, excess)
    }

    fn give(&mut self, id: MemberId, quota: usize) -> Vec<u32> {
        let missing = quota.saturating_sub(self.owned(id));
        self.change(Slot::Free, Slot::Owned(id), 0, missing)
    }

    fn change(&mut self, from: Slot, to: Slot, skip: usize, take: usize) -> Vec<u32> {
        let slots = self.slots.iter_mut().enumerate().filter(|(_, slot)| **slot == from);
        slots
            .skip(skip)
            .take(take)
            .map(|(partition, slot)| {
                *slot = to;
                partition as u32
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Leave(usize),
        Release(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Join),
            (0..8usize).prop_map(Step::Leave),
            (0..8usize).prop_map(Step::Release),
        ];
        prop::collection::vec(step, 1..40)
    }

    /// What the members believe, from what they were told.
    #[derive(Default)]
    struct Members {
        owned: HashMap<MemberId, Vec<u32>>,
        asked: HashMap<MemberId, Vec<u32>>,
    }

    impl Members {
        fn hear(&mut self, told: Vec<(MemberId, Membership)>) {
            for (id, word) in told {
                match word {
                    Membership::Assigned(given) => self.owned.entry(id).or_default().extend(given),
                    Membership::Revoked(asked) => assert!(
                        self.asked.insert(id, asked).is_none(),
                        "a member is asked again only after it has answered"
                    ),
                    Membership::Lost(_) | Membership::Refused(_) => {
                        panic!("within one process nothing is lost and nobody refused")
                    }
                }
            }
        }

        fn release(&mut self, id: MemberId) {
            let asked = self.asked.remove(&id).unwrap_or_default();
            self.owned.entry(id).or_default().retain(|p| !asked.contains(p));
        }

        fn leave(&mut self, id: MemberId) {
            self.owned.remove(&id);
            self.asked.remove(&id);
        }

        fn assert_exclusive(&self) {
            let mut all: Vec<u32> = self.owned.values().flatten().copied().collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "two members believe that they own the same partition");
        }
    }

    proptest! {
        #[test]
        fn partitions_have_one_owner_and_end_up_evenly_shared(partitions in 1..13u32, steps in steps()) {
            let mut group = Group::new(partitions);
            let mut members = Members::default();
            let mut ids: Vec<MemberId> = Vec::new();
            for (next, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Join => {
                        ids.push(next as MemberId);
                        members.owned.insert(next as MemberId, Vec::new());
                        members.hear(group.join(next as MemberId));
                    }
                    Step::Leave(which) if !ids.is_empty() => {
                        let id = ids.remove(which % ids.len());
                        members.leave(id);
                        members.hear(group.leave(id));
                    }
                    Step::Release(which) if !ids.is_empty() => {
                        let id = ids[which % ids.len()];
                        members.release(id);
                        members.hear(group.released(id));
                    }
                    Step::Leave(_) | Step::Release(_) => {}
                }
                members.assert_exclusive();
            }
            // Once everyone has answered, all is shared out evenly.
            while let Some(id) = members.asked.keys().next().copied() {
                members.release(id);
                members.hear(group.released(id));
                members.assert_exclusive();
            }
            if !ids.is_empty() {
                let counts: Vec<usize> = members.owned.values().map(Vec::len).collect();
                prop_assert_eq!(counts.iter().sum::<usize>(), partitions as usize);
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
            }
        }
    }

    #[test]
    fn a_newcomer_takes_only_its_share() {
        let mut group = Group::new(3);
        assert_eq!(group.join(1), [(1, Membership::Assigned(vec![0, 1, 2]))]);
        assert_eq!(group.join(2), [(1, Membership::Revoked(vec![2]))]);
        assert!(group.holds(1, 2), "a partition is held until it is released");
        assert_eq!(group.released(1), [(2, Membership::Assigned(vec![2]))]);
        assert_eq!(group.leave(1), [(2, Membership::Assigned(vec![0, 1]))]);
    }
}
