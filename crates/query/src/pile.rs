//! Many things, collected without ever being moved: a vector that grows copies all it has, time and again.

/// Things of a chunk: some 20 kB of events.
const CHUNK: usize = 512;

/// Things in the order in which they came.
#[derive(Debug)]
pub(crate) struct Pile<T> {
    /// Full ones.
    chunks: Vec<Vec<T>>,
    /// Where the next thing goes; not empty unless the pile is.
    last: Vec<T>,
}

impl<T> Default for Pile<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), last: Vec::new() }
    }
}

impl<T> Pile<T> {
    /// Adds one.
    #[inline]
    pub(crate) fn push(&mut self, thing: T) {
        if self.last.len() == CHUNK {
            self.chunks.push(std::mem::replace(&mut self.last, Vec::with_capacity(CHUNK)));
        }
        self.last.push(thing);
    }

    /// The one that was added last.
    #[inline]
    pub(crate) fn last(&self) -> Option<&T> {
        self.last.last()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len() * CHUNK + self.last.len()
    }

    /// All of them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten().chain(&mut self.last)
    }

    /// Appends all of them to a vector.
    pub(crate) fn move_to(mut self, all: &mut Vec<T>) {
        self.chunks.iter_mut().for_each(|chunk| all.append(chunk));
        all.append(&mut self.last);
    }

    /// Memory it uses, bytes.
    pub(crate) fn bytes(&self) -> usize {
        (self.chunks.len() * CHUNK + self.last.capacity()) * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pile_keeps_everything_in_order() {
        let mut pile = Pile::default();
        assert_eq!((pile.last(), pile.len(), pile.bytes()), (None, 0, 0));
        for number in 0..5000u32 {
            pile.push(number);
            assert_eq!((pile.last(), pile.len()), (Some(&number), number as usize + 1));
        }
        assert!((20_000..20_000 + 4 * CHUNK).contains(&pile.bytes()));
        pile.iter_mut().for_each(|number| *number += 1);
        let mut all = vec![0];
        pile.move_to(&mut all);
        assert!(all.into_iter().eq(0..=5000));
    }
}
