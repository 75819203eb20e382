use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const WIDTH: Duration = Duration::from_millis(100);

/// The rule as written, for a clock that is right and traffic without pauses: which identifiers each generation has.
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

/// Arrivals at these times; few identifiers, so that many repeat.
fn arrivals(steps: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<Arrival>> {
    let fingerprint = prop_oneof![9 => (0..40u64).prop_map(Some), 1 => Just(None)];
    prop::collection::vec((steps, fingerprint), 0..300).prop_map(|steps| {
        let mut time = 1_000_000;
        let arrival = |(step, fingerprint): (i64, Option<u64>)| {
            time += step;
            // Spread like hashes.
            let fingerprint = fingerprint.map(|f| f.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            Arrival { append_time_ms: time, fingerprint }
        };
        steps.into_iter().map(arrival).collect()
    })
}

/// Times mostly rise and sometimes fall back a little.
fn steady() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0..20i64, 1 => -10..0i64, 1 => 20..90i64]
}

/// Times that also leap over generations, and back.
fn leaping() -> impl Strategy<Value = i64> {
    prop_oneof![16 => 0..20i64, 2 => -30..0i64, 1 => 50..350i64, 1 => -300..-60i64, 1 => Just(1_000_000i64), 1 => Just(-1_000_000i64)]
}

/// Times as the embedded log has them: they fall only where the clock was set back.
fn stamped() -> impl Strategy<Value = i64> {
    prop_oneof![16 => 0..20i64, 2 => 50..350i64, 1 => -300..-60i64, 1 => Just(1_000_000i64), 1 => Just(-1_000_000i64)]
}

/// Decides as one that was started at `resume` and rebuilt with what a log offers: append times, and an offset by time.
fn restarted(
    arrivals: &[Arrival],
    resume: usize,
    max_events: usize,
    chunk: usize,
    offset_at_time: impl Fn(i64) -> usize,
) -> Vec<bool> {
    let mut rebuilt = Window::new(WIDTH, max_events);
    if resume > 0 {
        let time_ms = arrivals[resume - 1].append_time_ms;
        let mut from = offset_at_time(Window::rebuild_from_ms(WIDTH, time_ms)).min(resume);
        if from > 0 && from < resume {
            let (before_ms, first_ms) = (arrivals[from - 1].append_time_ms, arrivals[from].append_time_ms);
            if Window::leaps(WIDTH, before_ms, first_ms, time_ms) {
                from = offset_at_time(Window::rebuild_from_ms(WIDTH, before_ms)).min(from);
            }
        }
        loop {
            rebuilt = Window::new(WIDTH, max_events);
            admit_all(&mut rebuilt, &arrivals[from..resume], chunk + 1);
            let Some(from_ms) = rebuilt.rebuild_before_set_back_ms() else { break };
            let earlier = offset_at_time(from_ms).min(from);
            if earlier == from {
                break;
            }
            from = earlier;
        }
    }
    admit_all(&mut rebuilt, &arrivals[resume..], chunk)
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
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_window_decides_as_the_rule_says(arrivals in arrivals(steady()), chunk in 1..64usize) {
        let mut oracle = Oracle::default();
        let expected: Vec<bool> = arrivals.iter().map(|a| oracle.admit(*a)).collect();
        let mut window = Window::new(WIDTH, 1_000_000);
        prop_assert_eq!(admit_all(&mut window, &arrivals, chunk), expected);
    }

    /// Where time falls back a little, the log gives the first offset of a time or a later one.
    #[test]
    fn a_restart_anywhere_decides_the_same(
        arrivals in prop_oneof![arrivals(steady()), arrivals(leaping())], at in any::<prop::sample::Index>(),
        max_events in 4..60usize, chunk in 1..64usize, earlier in 0..500i64,
    ) {
        prop_assume!(!arrivals.is_empty());
        let resume = at.index(arrivals.len());
        let expected = admit_all(&mut Window::new(WIDTH, max_events), &arrivals, chunk);
        let first_of = |ms: i64| arrivals.iter().position(|a| a.append_time_ms >= ms - earlier).unwrap_or(arrivals.len());
        prop_assert_eq!(restarted(&arrivals, resume, max_events, chunk, first_of), &expected[resume..]);
    }

    /// The embedded log gives the offset after the last record before a time.
    #[test]
    fn a_restart_after_a_wrong_clock_need_not_read_all_since(
        arrivals in arrivals(stamped()), at in any::<prop::sample::Index>(), max_events in 4..60usize, chunk in 1..64usize,
    ) {
        prop_assume!(!arrivals.is_empty());
        let resume = at.index(arrivals.len());
        let expected = admit_all(&mut Window::new(WIDTH, max_events), &arrivals, chunk);
        let after_all_before = |ms: i64| arrivals[..resume].iter().rposition(|a| a.append_time_ms < ms).map_or(0, |last| last + 1);
        prop_assert_eq!(restarted(&arrivals, resume, max_events, chunk, after_all_before), &expected[resume..]);
    }

    /// Whatever a clock shows that is wrong from time to time by more than two windows, ahead or behind: an identifier that comes again
    /// within the window's time is known, and one that is new is not.
    #[test]
    fn the_window_holds_while_the_clock_is_wrong_for_a_while(
        arrivals in arrivals(0..8i64), chunk in 1..64usize,
        wrong in prop::collection::vec((0..250usize, 1..60usize), 0..4),
        by in prop_oneof![Just(1_000_000i64), Just(-1_000_000), 200..2000i64, -2000..-200i64],
    ) {
        let is_wrong = |index: usize| wrong.iter().any(|(from, count)| (*from..from + count).contains(&index));
        let shown: Vec<Arrival> = arrivals.iter().enumerate().map(|(index, arrival)| Arrival {
            append_time_ms: arrival.append_time_ms + if is_wrong(index) { by } else { 0 },
            ..*arrival
        }).collect();
        let decided = admit_all(&mut Window::new(WIDTH, 1_000_000), &shown, chunk);
        let mut last: HashMap<u64, i64> = HashMap::new();
        for (index, (arrival, duplicate)) in arrivals.iter().zip(decided).enumerate() {
            let Some(fingerprint) = arrival.fingerprint else { continue };
            let now = arrival.append_time_ms;
            match last.insert(fingerprint, now) {
                None => prop_assert!(!duplicate, "{index} is new"),
                Some(before) if now - before <= WIDTH.as_millis() as i64 => {
                    prop_assert!(duplicate, "{index} comes {} ms after the same", now - before);
                }
                Some(_) => {}
            }
        }
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
