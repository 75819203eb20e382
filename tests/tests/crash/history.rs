//! What a program was told, and when: positions in the trace of its disk.

/// Something that happened when so many operations were recorded.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) position: usize,
    pub(crate) what: T,
}

/// What was acknowledged: it has to survive.
#[derive(Clone, Debug)]
pub(crate) enum Ack {
    /// The topics exist.
    Topics,
    /// The log has this identity, and the store is bound to it.
    Bound { identity: String },
    /// A record is in the log.
    Appended { topic: &'static str, offset: u64, number: u64 },
    /// The store has the events below an offset.
    Stored { end: u64 },
    /// The events of a user below an offset are gone.
    Erased { user: u64, end: u64 },
    /// Of the events below an offset only these are left, in order: those in segments with newer ones.
    Retained { before: u64, left: Vec<u64> },
}

/// What was begun: it may have happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begun {
    /// A user's events may be gone.
    Erasure { user: u64 },
    /// Events below an offset may be gone.
    Retention { before: u64 },
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) acks: Vec<At<Ack>>,
    pub(crate) begun: Vec<At<Begun>>,
    /// The number of the next record that is sent: none has a higher one.
    pub(crate) next_number: u64,
}

impl History {
    /// What had happened when so many operations were recorded. What came later counts as acknowledged nowhere.
    pub(crate) fn until(&self, position: usize) -> Self {
        Self {
            acks: self.acks.iter().filter(|ack| ack.position <= position).cloned().collect(),
            begun: self.begun.iter().filter(|begun| begun.position <= position).cloned().collect(),
            next_number: self.next_number,
        }
    }

    /// The same as something that happened before a trace began.
    pub(crate) fn before(mut self) -> Self {
        self.acks.iter_mut().for_each(|ack| ack.position = 0);
        self.begun.iter_mut().for_each(|begun| begun.position = 0);
        self
    }

    pub(crate) fn erasures(&self) -> impl Iterator<Item = u64> {
        self.begun.iter().filter_map(|begun| match begun.what {
            Begun::Erasure { user } => Some(user),
            Begun::Retention { .. } => None,
        })
    }

    pub(crate) fn retention(&self) -> u64 {
        let before = self.begun.iter().map(|begun| match begun.what {
            Begun::Retention { before } => before,
            Begun::Erasure { .. } => 0,
        });
        before.max().unwrap_or_default()
    }
}
