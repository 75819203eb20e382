//! Funnels: how far along a list of steps an actor came within a window of time.
//!
//! A *chain* is a series of different events, in order, the first of which begins the window; an event counts for one step
//! only, whichever it could count for. Of all chains of an actor the deepest counts, and of the deepest the one that begins
//! first.
//!
//! - [`Order::Strict`]: the events match steps 1 to k in this order. An event that matches an exclusion between two steps ends
//!   every chain that stands between them, even if it matches the next step as well. Three passes over the events, whatever
//!   they are: forward for the depth (at each depth only the chain that began last can matter), backward for the first
//!   beginning (for each step only the chain that ends first can), forward from there for the times.
//! - [`Order::Any`]: they match steps 1 to k, each event another one, in whatever order. There are no exclusions: what would be
//!   between?

use super::Action;

/// Steps of a funnel at most.
pub const MAX_STEPS: usize = 20;

/// Whether steps must come in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In the order given, with anything between them.
    Strict,
    /// In any.
    Any,
}

/// What is asked of every actor.
#[derive(Debug, Clone)]
pub struct Funnel {
    order: Order,
    /// Number of steps, at most [`MAX_STEPS`].
    steps: usize,
    /// Microseconds from the first event of a chain to its last, inclusive.
    window: i64,
    /// Kinds of events in the window at hand. Kept to allocate once.
    kinds: Vec<Kind>,
}

/// The deepest chain of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// Steps reached, at least 1.
    pub depth: usize,
    /// Position of its first event among the actor's.
    pub first: usize,
    /// By step, as far as reached: the earliest time at which a chain from that first event reaches it (in any order: at which
    /// it and all steps before it are done), in microseconds after the first.
    times: [i64; MAX_STEPS],
}

impl Passage {
    /// By step reached: microseconds after the first event.
    pub fn times(&self) -> &[i64] {
        &self.times[..self.depth]
    }
}

impl Funnel {
    /// A funnel of `steps` steps (at most [`MAX_STEPS`], more are cut off) and a window in microseconds.
    pub fn new(order: Order, steps: usize, window: i64) -> Self {
        Self { order, steps: steps.min(MAX_STEPS), window, kinds: Vec::new() }
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// How far an actor with these events, in order, came; `None`: no step matched.
    pub fn pass(&mut self, actions: &[Action]) -> Option<Passage> {
        match self.order {
            Order::Strict => self.strict(actions),
            Order::Any => self.any(actions),
        }
    }

    /// The steps that an event of a chain can count for; the first of a chain has no gap before it.
    fn usable(&self, action: &Action) -> u32 {
        action.marks & !(action.breaks << 1) & self.all()
    }

    fn all(&self) -> u32 {
        (1u32 << self.steps) - 1
    }

    fn strict(&self, actions: &[Action]) -> Option<Passage> {
        let depth = self.strict_depth(actions)?;
        let first = match depth {
            1 => actions.iter().position(|action| action.marks & 1 != 0),
            _ => self.first_start(actions, depth),
        };
        let first = first.expect("a chain of this depth was found");
        Some(Passage { depth, first, times: self.strict_times(&actions[first..], depth) })
    }

    fn strict_depth(&self, actions: &[Action]) -> Option<usize> {
        // Bit k: some chain stands at step k. Of those that do, `starts[k]` is the latest beginning: it has most time left.
        let mut live = 0u32;
        let mut starts = [0i64; MAX_STEPS];
        let mut depth = 0;
        for action in actions {
            live &= !action.breaks;
            let usable = self.usable(action);
            let mut hits = usable & (live << 1);
            while hits != 0 {
                // Downward, so that an event does not count for two steps of a chain.
                let step = 31 - hits.leading_zeros() as usize;
                hits ^= 1 << step;
                let start = starts[step - 1];
                if action.time.saturating_sub(start) <= self.window {
                    starts[step] = start;
                    live |= 1 << step;
                    depth = depth.max(step + 1);
                }
            }
            if usable & 1 != 0 {
                starts[0] = action.time;
                live |= 1;
                depth = depth.max(1);
            }
            if depth == self.steps {
                break;
            }
        }
        (depth > 0).then_some(depth)
    }

    /// The first event from which a chain reaches this depth, which is at least 2.
    fn first_start(&self, actions: &[Action], depth: usize) -> Option<usize> {
        const NEVER: i64 = i64::MAX;
        // By step: the earliest end of a chain over this step and all further ones up to the depth, in what was seen so far.
        let mut ends = [NEVER; MAX_STEPS + 1];
        let mut first = None;
        for (position, action) in actions.iter().enumerate().rev() {
            let usable = self.usable(action) & (((1u64 << depth) - 1) as u32);
            if usable & 1 != 0 && ends[1] != NEVER && ends[1].saturating_sub(action.time) <= self.window {
                first = Some(position);
            }
            let broken = action.breaks << 1;
            let mut touched = (usable | broken) & (((1u64 << depth) - 2) as u32);
            while touched != 0 {
                // Upward, so that the ends of the next step are those of later events.
                let step = touched.trailing_zeros() as usize;
                touched &= touched - 1;
                if broken >> step & 1 != 0 {
                    ends[step] = NEVER;
                } else {
                    let end = if step == depth - 1 { action.time } else { ends[step + 1] };
                    ends[step] = ends[step].min(end);
                }
            }
        }
        first
    }

    fn strict_times(&self, actions: &[Action], depth: usize) -> [i64; MAX_STEPS] {
        let mut times = [0; MAX_STEPS];
        let (start, mut live, mut reached) = (actions[0].time, 1u32, 1);
        for action in &actions[1..] {
            if reached == depth {
                break;
            }
            live &= !action.breaks;
            let stepped = self.usable(action) & (live << 1);
            live |= stepped;
            if stepped >> reached & 1 != 0 {
                times[reached] = action.time.saturating_sub(start);
                reached += 1;
            }
        }
        times
    }

    fn any(&mut self, actions: &[Action]) -> Option<Passage> {
        let (mut depth, mut first) = (0, 0);
        let all = self.all();
        self.kinds.clear();
        let (mut end, mut changed) = (0, false);
        for (position, action) in actions.iter().enumerate() {
            while let Some(next) = actions.get(end) {
                if next.time.saturating_sub(action.time) > self.window {
                    break;
                }
                changed |= enter(&mut self.kinds, next.marks & all);
                end += 1;
            }
            let within =
                self.kinds.iter().filter(|kind| kind.count > 0).fold(0, |all, kind| all | kind.marks);
            // A window that nothing of use has come into, or whose events lack an early step, cannot be deeper.
            if changed && within.trailing_ones() as usize > depth {
                let mut matching = Matching::default();
                while matching.extend(&self.kinds, self.steps) {}
                // A chain that begins here has this event for one of its steps.
                let begins = action.marks & ((1u32 << matching.size) - 1) != 0;
                changed = !begins && matching.size > depth;
                if begins && matching.size > depth {
                    (depth, first) = (matching.size, position);
                    if depth == self.steps {
                        break;
                    }
                }
            }
            leave(&mut self.kinds, action.marks & all);
        }
        (depth > 0).then(|| Passage { depth, first, times: self.any_times(&actions[first..], depth) })
    }

    fn any_times(&mut self, actions: &[Action], depth: usize) -> [i64; MAX_STEPS] {
        let mut times = [0; MAX_STEPS];
        let mut matching = Matching::default();
        let all = self.all();
        self.kinds.clear();
        for action in actions {
            if !enter(&mut self.kinds, action.marks & all) {
                continue;
            }
            while matching.extend(&self.kinds, depth) {
                times[matching.size - 1] = action.time - actions[0].time;
            }
            if matching.size == depth {
                break;
            }
        }
        times
    }
}

/// Events that match the same steps.
#[derive(Debug, Clone, Copy)]
struct Kind {
    marks: u32,
    count: u32,
}

/// Notes an event that comes into the window; whether that can let a chain reach further.
fn enter(kinds: &mut Vec<Kind>, marks: u32) -> bool {
    if marks == 0 {
        return false;
    }
    match kinds.iter_mut().find(|kind| kind.marks == marks) {
        Some(kind) => {
            kind.count += 1;
            // More events of a kind than the steps it matches have no place.
            kind.count <= marks.count_ones()
        }
        None => {
            kinds.push(Kind { marks, count: 1 });
            true
        }
    }
}

/// Notes an event that leaves the window, which lets no chain reach further.
fn leave(kinds: &mut [Kind], marks: u32) {
    if let Some(kind) = kinds.iter_mut().find(|kind| kind.marks == marks) {
        kind.count -= 1;
    }
}

/// The first steps, each with an event of its own; grows by augmenting paths (Kuhn's algorithm).
#[derive(Default)]
struct Matching {
    /// Steps that have one.
    size: usize,
    /// By step: the kind of its event, by position.
    kinds: [usize; MAX_STEPS],
}

impl Matching {
    /// Finds an event for the next step, if there is such a step; steps that have one keep one.
    fn extend(&mut self, kinds: &[Kind], steps: usize) -> bool {
        let found = self.size < steps && self.place(self.size, None, kinds, &mut 0);
        self.size += usize::from(found);
        found
    }

    /// Finds an event for a step, not of the kind that it is to leave to another.
    fn place(&mut self, step: usize, leaving: Option<usize>, kinds: &[Kind], visited: &mut u32) -> bool {
        for (position, kind) in kinds.iter().enumerate() {
            if kind.marks >> step & 1 == 0 || Some(position) == leaving {
                continue;
            }
            let holders = (0..self.size).filter(|one| *one != step && self.kinds[*one] == position);
            if (holders.clone().count() as u32) < kind.count {
                self.kinds[step] = position;
                return true;
            }
            for holder in holders.collect::<Vec<_>>() {
                if *visited >> holder & 1 == 0 {
                    *visited |= 1 << holder;
                    if self.place(holder, Some(position), kinds, visited) {
                        self.kinds[step] = position;
                        return true;
                    }
                }
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "funnel_tests.rs"]
mod tests;
