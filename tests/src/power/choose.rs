//! Which of the possible states a power cut leaves.

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Chooses among so many possibilities, of which the last is the newest.
pub trait Choose {
    /// A number below `count`.
    fn choose(&mut self, count: usize) -> usize;

    /// What follows is about another file or directory.
    fn begin(&mut self) {}
}

/// Chooses at random, the same for the same seed. Of a file or directory often all is old or all is new.
#[derive(Debug)]
pub struct Random {
    rng: StdRng,
    mood: Mood,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    Oldest,
    Newest,
    Mixed,
}

impl Random {
    /// The choices of a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), mood: Mood::Mixed }
    }
}

impl Choose for Random {
    fn choose(&mut self, count: usize) -> usize {
        match self.mood {
            Mood::Oldest => 0,
            Mood::Newest => count - 1,
            Mood::Mixed => self.rng.random_range(0..count),
        }
    }

    fn begin(&mut self) {
        self.mood = [Mood::Oldest, Mood::Newest, Mood::Mixed, Mood::Mixed][self.rng.random_range(0..4)];
    }
}

/// Chooses each combination once: call [`Each::advance`] after each run until there is none.
#[derive(Debug, Default)]
pub struct Each {
    /// Choices of this run, and among how many.
    choices: Vec<(usize, usize)>,
    at: usize,
}

impl Each {
    /// Goes on to the next combination; `false` when all were there.
    pub fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, count)) = self.choices.pop() {
            if choice + 1 < count {
                self.choices.push((choice + 1, count));
                return true;
            }
        }
        false
    }
}

impl Choose for Each {
    fn choose(&mut self, count: usize) -> usize {
        if self.at == self.choices.len() {
            self.choices.push((0, count));
        }
        let (choice, among) = self.choices[self.at];
        assert_eq!(among, count, "the same choices lead to the same questions");
        self.at += 1;
        choice
    }
}
