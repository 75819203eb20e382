use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const WIDTH: Duration = Duration::from_millis(100);

/// The rule as written, without any cleverness: which identifiers each generation has.
#[derive(Default)]
struct Oracle {
    now_ms: Option<i64>,
    generations: HashMap<i64, HashSet<u64>>,
}

impl Oracle {
    fn admit(&mut self, arrival: Arrival) -> bool {
        let now = self.now_ms.map_or(arrival.append_time_ms, |now| now.max(arrival.append_time_ms));
        self.now_ms = Some(now);
        let generation = now.div_euclid(WIDTH.as_millis() as i64);
        let Some(fingerprint) = arrival.fingerprint else { return false };
        let has = |g: i64| self.generations.get(&g).is_some_and(|set| set.contains(&fingerprint));
        let duplicate = has(generation) || has(generation - 1);
        self.generations.entry(generation).or_default().insert(fingerprint);
        duplicate
    }
}

/// Append times that mostly rise, sometimes fall back a little, sometimes leap; few identifiers, so that many repeat.
fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let step = prop_oneof![8 => 0..20i64, 1 => -30..0i64, 1 => 50..350i64];
    let fingerprint = prop_oneof![9 => (0..40u64).prop_map(Some), 1 => Just(None)];
    prop::collection::vec((step, fingerprint), 0..300).prop_map(|steps| {
        let mut time = 1_000_000;
        steps
            .into_iter()
            .map(|(step, fingerprint)| {
                time += step;
                // Spread like hashes.
                Arrival {
                    append_time_ms: time,
                    fingerprint: fingerprint.map(|f| f.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                }
            })
            .collect()
    })
}

fn admit_all(window: &mut Window, arrivals: &[Arrival], chunk: usize) -> Vec<bool> {
    let (mut all, mut duplicate) = (Vec::new(), Vec::new());
    for chunk in arrivals.chunks(chunk) {
        window.admit(chunk, &mut duplicate);
        all.extend_from_slice(&duplicate);
    }
    all
}

proptest! {
    #[test]
    fn the_window_decides_as_the_rule_says(arrivals in arrivals(), chunk in 1..64usize) {
        let mut oracle = Oracle::default();
        let expected: Vec<bool> = arrivals.iter().map(|a| oracle.admit(*a)).collect();
        let mut window = Window::new(WIDTH, 1_000_000);
        prop_assert_eq!(admit_all(&mut window, &arrivals, chunk), expected);
    }

    #[test]
    fn a_restart_anywhere_decides_the_same(
        arrivals in arrivals(), at in any::<prop::sample::Index>(), max_events in 4..60usize, chunk in 1..64usize,
        earlier in 0..500i64,
    ) {
        prop_assume!(!arrivals.is_empty());
        let resume = at.index(arrivals.len());
        let mut through = Window::new(WIDTH, max_events);
        let expected = admit_all(&mut through, &arrivals, chunk);

        let mut rebuilt = Window::new(WIDTH, max_events);
        if resume > 0 {
            // What a log offers: the append time of some record before, and the first offset of a time.
            let from_ms = Window::rebuild_from_ms(WIDTH, arrivals[resume - 1].append_time_ms) - earlier;
            let from = arrivals.iter().position(|a| a.append_time_ms >= from_ms).unwrap().min(resume);
            admit_all(&mut rebuilt, &arrivals[from..resume], chunk + 1);
        }
        prop_assert_eq!(admit_all(&mut rebuilt, &arrivals[resume..], chunk), &expected[resume..]);
    }

    #[test]
    fn memory_is_bounded(fingerprints in prop::collection::vec(any::<u64>(), 0..500), max_events in 2..50usize) {
        let mut window = Window::new(WIDTH, max_events);
        for f in fingerprints {
            window.admit(&[Arrival { append_time_ms: 0, fingerprint: Some(f) }], &mut Vec::new());
            prop_assert!(window.len() <= max_events);
        }
    }
}

#[test]
fn the_same_id_in_two_projects_is_two_events() {
    let mut fingerprinter = Fingerprinter::default();
    let one = fingerprinter.of("shop", "e1");
    assert_ne!(one, fingerprinter.of("shop2", "e1"));
    assert_ne!(one, fingerprinter.of("shop", "e2"));
    assert_ne!(fingerprinter.of("", "e1"), fingerprinter.of("e", "1"));
    assert_eq!(one, fingerprinter.of("shop", "e1"));
    assert_eq!(one, xxh3_64(b"shop\0e1"));
}
