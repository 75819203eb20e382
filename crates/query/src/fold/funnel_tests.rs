use proptest::prelude::*;

use super::*;

fn actions(raw: &[(i64, u32, u32)]) -> Vec<Action> {
    let mut time = 0;
    let action = |(offset, &(gap, marks, breaks)): (i64, &(i64, u32, u32))| {
        time += gap;
        Action { actor: 1, time, offset, marks, breaks, group: 0 }
    };
    (0..).zip(raw).map(action).collect()
}

/// Times at which chains from an event reach each depth first, by trying every chain there is.
fn by_trying(order: Order, steps: usize, window: i64, actions: &[Action], first: usize) -> Vec<i64> {
    struct Try<'a> {
        order: Order,
        steps: usize,
        window: i64,
        actions: &'a [Action],
        first: usize,
        times: Vec<i64>,
        /// Of the chains that are the first steps, all of them, with the first event among theirs.
        depth: usize,
    }
    impl Try<'_> {
        fn reach(&mut self, depth: usize, time: i64) {
            if self.times.len() < depth {
                self.times.resize(depth, i64::MAX);
            }
            // Who has done the first three steps has done the first two.
            self.times[..depth].iter_mut().for_each(|known| *known = (*known).min(time));
        }
        fn go(&mut self, last: usize, done: u32) {
            let depth = done.count_ones() as usize;
            let time = self.actions[last].time - self.actions[self.first].time;
            let in_a_row = done.trailing_ones() as usize;
            if in_a_row > 0 {
                self.reach(in_a_row, time);
            }
            if in_a_row == depth {
                self.depth = self.depth.max(depth);
            }
            for next in last + 1..self.actions.len() {
                let action = &self.actions[next];
                if action.time - self.actions[self.first].time > self.window {
                    break;
                }
                match self.order {
                    Order::Strict => {
                        if action.breaks >> (depth - 1) & 1 != 0 {
                            break;
                        }
                        if depth < self.steps && action.marks >> depth & 1 != 0 {
                            self.go(next, done | 1 << depth);
                        }
                    }
                    Order::Any => {
                        let open = |step: &usize| action.marks >> step & 1 != 0 && done >> step & 1 == 0;
                        for step in (0..self.steps).filter(open).collect::<Vec<_>>() {
                            self.go(next, done | 1 << step);
                        }
                    }
                }
            }
        }
    }
    let mut all = Try { order, steps, window, actions, first, times: Vec::new(), depth: 0 };
    for step in 0..if order == Order::Any { steps } else { 1 } {
        if actions[first].marks >> step & 1 != 0 {
            all.go(first, 1 << step);
        }
    }
    all.times.truncate(all.depth);
    all.times
}

/// The definition, by exhaustion: depth, first event, times.
fn oracle(order: Order, steps: usize, window: i64, actions: &[Action]) -> Option<(usize, usize, Vec<i64>)> {
    let mut best: Option<(usize, usize, Vec<i64>)> = None;
    for first in 0..actions.len() {
        let times = by_trying(order, steps, window, actions, first);
        if times.len() > best.as_ref().map_or(0, |best| best.0) {
            best = Some((times.len(), first, times));
        }
    }
    best
}

fn found(funnel: &mut Funnel, actions: &[Action]) -> Option<(usize, usize, Vec<i64>)> {
    let passage = funnel.pass(actions)?;
    Some((passage.depth, passage.first, passage.times().to_vec()))
}

const ONE_STEP_EACH: u32 = 0;

fn any_actions(most: usize) -> impl Strategy<Value = Vec<(i64, u32, u32)>> {
    let clean = prop::sample::select(vec![ONE_STEP_EACH, 1]);
    let marks = (clean, 0u32..16, 0u32..5).prop_map(|(kind, many, one)| match kind {
        ONE_STEP_EACH => (1 << one) >> 1,
        _ => many,
    });
    let breaks = prop_oneof![6 => Just(0u32), 1 => 0u32..8];
    prop::collection::vec((0i64..4, marks, breaks), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn strict_funnels_are_what_trying_every_chain_finds(
        raw in any_actions(11), steps in 1usize..5, window in 0i64..16,
    ) {
        let actions = actions(&raw);
        let mut funnel = Funnel::new(Order::Strict, steps, window);
        prop_assert_eq!(found(&mut funnel, &actions), oracle(Order::Strict, steps, window, &actions));
    }

    #[test]
    fn unordered_funnels_are_what_trying_every_chain_finds(
        raw in any_actions(9), steps in 1usize..5, window in 0i64..16,
    ) {
        let raw: Vec<_> = raw.into_iter().map(|(gap, marks, _)| (gap, marks, 0)).collect();
        let actions = actions(&raw);
        let mut funnel = Funnel::new(Order::Any, steps, window);
        // Twice: what one actor leaves behind must not reach the next.
        for _ in 0..2 {
            prop_assert_eq!(found(&mut funnel, &actions), oracle(Order::Any, steps, window, &actions));
        }
    }

    /// The loop of `shared/data/answers.py`: for each first event the next ones are taken as they come.
    #[test]
    fn without_exclusions_the_next_matching_event_is_as_good_as_any(
        raw in prop::collection::vec((0i64..4, 0u32..16), 0..60), steps in 1usize..5, window in 0i64..30,
    ) {
        let raw: Vec<_> = raw.into_iter().map(|(gap, marks)| (gap, marks, 0)).collect();
        let actions = actions(&raw);
        let mut best = (0, 0);
        for (first, start) in actions.iter().enumerate().filter(|(_, start)| start.marks & 1 != 0) {
            let mut depth = 1;
            for next in &actions[first + 1..] {
                if depth < steps && next.time - start.time <= window && next.marks >> depth & 1 != 0 {
                    depth += 1;
                }
            }
            if depth > best.0 {
                best = (depth, first);
            }
        }
        let found = Funnel::new(Order::Strict, steps, window).pass(&actions);
        prop_assert_eq!(found.map_or((0, 0), |passage| (passage.depth, passage.first)), best);
    }
}

#[test]
fn an_excluded_event_ends_only_the_chains_that_stand_in_its_gap() {
    // A, B, excluded between B and C, B, C: the second B still leads to C.
    let through = actions(&[(0, 1, 0), (1, 2, 0), (1, 0, 2), (1, 2, 0), (1, 4, 0)]);
    let passage = Funnel::new(Order::Strict, 3, 100).pass(&through).unwrap();
    assert_eq!((passage.depth, passage.times()), (3, [0, 1, 4].as_slice()));
    let stopped = actions(&[(0, 1, 0), (1, 2, 0), (1, 0, 2), (1, 4, 0)]);
    assert_eq!(Funnel::new(Order::Strict, 3, 100).pass(&stopped).unwrap().depth, 2);
}

#[test]
fn twenty_steps_fit() {
    let raw: Vec<_> = (0..20).map(|step| (1, 1 << step, 0)).collect();
    for order in [Order::Strict, Order::Any] {
        let passage = Funnel::new(order, 20, 19).pass(&actions(&raw)).unwrap();
        assert_eq!((passage.depth, passage.first, passage.times()[19]), (20, 0, 19));
        assert_eq!(Funnel::new(order, 20, 18).pass(&actions(&raw)).unwrap().depth, 19);
    }
}

/// A hundred thousand first steps that all wait for a last one: trying each on its own would take 10^10 looks.
#[test]
fn a_user_with_very_many_events_costs_time_in_proportion() {
    let mut raw = vec![(1, 1, 0); 100_000];
    raw.extend(vec![(1, 2, 0); 100_000]);
    raw.push((1, 4, 0));
    let actions = actions(&raw);
    for order in [Order::Strict, Order::Any] {
        let passage = Funnel::new(order, 3, i64::MAX).pass(&actions).unwrap();
        assert_eq!((passage.depth, passage.first), (3, 0));
        let narrow = Funnel::new(order, 4, 150_000).pass(&actions).unwrap();
        assert_eq!((narrow.depth, narrow.first), (3, 50_000));
    }
}
