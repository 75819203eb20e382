//! Paths: what comes after an event, or before it.
//!
//! An actor's path begins at its first event that is marked as an anchor (or, going back, at its last one) and follows its events,
//! up to a depth and as long as no two neighbours are further apart than a gap. Paths that begin alike share nodes of a tree.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Action;

/// Mark of an event at which a path begins.
pub const ANCHOR: u32 = 1;
/// Mark of an event that paths show; the others are passed over.
pub const SHOWN: u32 = 2;

/// Which way a path goes from its anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To later events.
    After,
    /// To earlier ones.
    Before,
}

/// Paths that begin alike share nodes. The first node is the anchor.
#[derive(Debug, Clone)]
pub struct Tree {
    direction: Direction,
    depth: usize,
    gap: i64,
    /// Whether the same name right after itself is one event.
    fold_repeats: bool,
    /// By node: paths that reach it.
    counts: Vec<u64>,
    /// From a node, by an event's name (as a number): the next node.
    edges: HashMap<(u32, u32), u32, FixedState>,
}

/// A node of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The event's name as a number; of the anchor, 0.
    pub name: u32,
    /// Paths that reach it.
    pub count: u64,
    /// What comes next, most frequent first.
    pub next: Vec<Branch>,
    /// Paths that go on to something that is left out.
    pub omitted: u64,
}

impl Tree {
    /// Without paths. `depth` is the number of events after the anchor, `gap` in microseconds; with `fold_repeats` the same name
    /// right after itself is one event, which is as long as they all are.
    pub fn new(direction: Direction, depth: usize, gap: i64, fold_repeats: bool) -> Self {
        Self { direction, depth, gap, fold_repeats, counts: vec![0], edges: HashMap::default() }
    }

    /// Adds the path of an actor with these events, in order.
    pub fn add(&mut self, actions: &[Action]) {
        let anchor = |action: &Action| action.marks & ANCHOR != 0;
        match self.direction {
            Direction::After => {
                if let Some(first) = actions.iter().position(anchor) {
                    self.walk(&actions[first], actions[first + 1..].iter());
                }
            }
            Direction::Before => {
                if let Some(last) = actions.iter().rposition(anchor) {
                    self.walk(&actions[last], actions[..last].iter().rev());
                }
            }
        }
    }

    fn walk<'a>(&mut self, anchor: &Action, others: impl Iterator<Item = &'a Action>) {
        self.counts[0] += 1;
        let (mut node, mut last, mut depth) = (0, *anchor, 0);
        for action in others.filter(|action| action.marks & SHOWN != 0) {
            if action.time.abs_diff(last.time) > self.gap.unsigned_abs() {
                break;
            }
            let repeats = self.fold_repeats && action.group == last.group;
            last = *action;
            if repeats {
                continue;
            }
            if depth == self.depth {
                break;
            }
            depth += 1;
            node = self.child(node, action.group);
            self.counts[node as usize] += 1;
        }
    }

    fn child(&mut self, node: u32, name: u32) -> u32 {
        *self.edges.entry((node, name)).or_insert_with(|| {
            self.counts.push(0);
            (self.counts.len() - 1) as u32
        })
    }

    /// Nodes in it.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether no path was added.
    pub fn is_empty(&self) -> bool {
        self.counts[0] == 0
    }

    /// Adds the paths of other actors.
    pub fn merge(&mut self, other: &Self) {
        let children = other.children();
        let mut open = vec![(0u32, 0u32)];
        while let Some((theirs, mine)) = open.pop() {
            self.counts[mine as usize] += other.counts[theirs as usize];
            for (name, child) in children.get(&theirs).into_iter().flatten() {
                open.push((*child, self.child(mine, *name)));
            }
        }
    }

    fn children(&self) -> HashMap<u32, Vec<(u32, u32)>, FixedState> {
        let mut children = HashMap::<u32, Vec<_>, _>::default();
        for ((node, name), child) in &self.edges {
            children.entry(*node).or_default().push((*name, *child));
        }
        children
    }

    /// The tree with at most `width` branches at every node. `order` orders names that are equally frequent.
    pub fn top(&self, width: usize, order: &dyn Fn(u32) -> usize) -> Branch {
        let children = self.children();
        self.branch(0, 0, width, &children, order)
    }

    fn branch(
        &self,
        name: u32,
        node: u32,
        width: usize,
        children: &HashMap<u32, Vec<(u32, u32)>, FixedState>,
        order: &dyn Fn(u32) -> usize,
    ) -> Branch {
        let count = |node: u32| self.counts[node as usize];
        let mut next: Vec<_> = children.get(&node).cloned().unwrap_or_default();
        next.sort_by_key(|(name, child)| (std::cmp::Reverse(count(*child)), order(*name)));
        let omitted = next.iter().skip(width).map(|(_, child)| count(*child)).sum();
        next.truncate(width);
        let next = next.into_iter().map(|(name, child)| self.branch(name, child, width, children, order));
        Branch { name, count: count(node), next: next.collect(), omitted }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn flat(branch: &Branch, path: &mut Vec<u32>, into: &mut BTreeMap<Vec<u32>, u64>) {
        into.insert(path.clone(), branch.count);
        for next in &branch.next {
            path.push(next.name);
            flat(next, path, into);
            path.pop();
        }
    }

    proptest! {
        #[test]
        fn trees_count_every_beginning_of_every_path(
            raw in prop::collection::vec((0i64..3, 0i64..6, 0u32..4, 0u32..3), 0..50),
            depth in 0usize..4, gap in 0i64..6, back in any::<bool>(), fold in any::<bool>(),
        ) {
            let mut time = 0;
            let mut actions: Vec<_> = (0..)
                .zip(&raw)
                .map(|(offset, &(actor, wait, marks, group))| {
                    time += wait;
                    Action { actor, time, offset, marks, breaks: 0, group }
                })
                .collect();
            actions.sort();
            let direction = if back { Direction::Before } else { Direction::After };
            let mut tree = Tree::new(direction, depth, gap, fold);
            let mut expected = BTreeMap::from([(vec![], 0)]);
            for actor in super::super::actors(&actions) {
                let mut part = Tree::new(direction, depth, gap, fold);
                part.add(actor);
                tree.merge(&part);
                let mut actor = actor.to_vec();
                if back {
                    actor.reverse();
                }
                let Some(at) = actor.iter().position(|one| one.marks & ANCHOR != 0) else { continue };
                let rest = actor[at + 1..].iter().filter(|one| one.marks & SHOWN != 0);
                let mut path = vec![actor[at]];
                path.extend(rest);
                let far = path.windows(2).position(|pair| (pair[1].time - pair[0].time).abs() > gap);
                path.truncate(far.map_or(path.len(), |far| far + 1));
                let mut names: Vec<_> = path.iter().map(|one| one.group).collect();
                if fold {
                    names.dedup();
                }
                for length in 0..=depth.min(names.len() - 1) {
                    *expected.entry(names[1..=length].to_vec()).or_insert(0) += 1;
                }
            }
            let mut found = BTreeMap::new();
            flat(&tree.top(usize::MAX, &|name| name as usize), &mut vec![], &mut found);
            prop_assert_eq!(&found, &expected);
            let first = tree.top(1, &|name| name as usize);
            let rest: u64 = expected.iter().filter(|(path, _)| path.len() == 1).map(|(_, count)| count).sum();
            prop_assert_eq!(first.next.first().map_or(0, |next| next.count) + first.omitted, rest);
        }
    }
}
