//! Which records of a `metrics-data` partition count: the claim/accept machine.
//!
//! The machine is a fold over the partition's records in log order. A claim sets the owner. A batch counts if its owner is
//! the last claim's and it starts at the source offset where the last counted batch ended. Anything else is void. Every
//! reader folds the same records and so decides the same; there is no other coordination.
//!
//! What each rule is for (`model` shows it by removing one at a time):
//! - the start must be the next offset: what is appended twice counts once, and what follows a lost append does not count;
//! - the owner must be the last claim's (fencing): after a claim nothing of the owner before it counts any more, so that the
//!   new owner knows that what it appends next will count, and may act on that before reading it back;
//! - the claim comes first, and the new owner reads up to it: only then is it certain where the last valid batch ended.
//!
//! A new owner appends a claim with a fresh id, folds from a [`Hint`] (or the start) up to that very claim, and goes on at
//! [`ChainState::next_source_offset`].

use std::fmt;

use uuid::Uuid;

use crate::watermark;

mod hint;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use hint::Hint;

/// What the records so far come to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ChainState {
    /// The owner: who wrote the last claim. Nobody before the first.
    pub owner: Option<Uuid>,
    /// gRPC address of the owner, `host:port`; empty before the first claim.
    pub address: String,
    /// Source offset at which the next batch must start: the end of the last counted one.
    pub next_source_offset: u64,
    /// Every source record that the log took before this moment is counted. Microseconds since the Unix epoch; falls only when the
    /// log's clock was [set back](crate::watermark).
    pub watermark: i64,
}

/// What a record comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A claim: its writer owns the partition from here on.
    Claimed,
    /// A batch that counts.
    Accepted,
    /// A batch that does not count, for anybody, ever.
    Void(VoidReason),
}

/// Why a batch does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoidReason {
    /// Nobody had claimed the partition.
    Unclaimed,
    /// Its writer is not the owner (any more).
    Fenced {
        /// The owner.
        owner: Uuid,
    },
    /// It does not start where the last counted batch ended.
    OutOfSequence {
        /// Where it should start.
        expected: u64,
    },
    /// It ends before it starts.
    Backwards,
}

impl fmt::Display for VoidReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VoidReason::Unclaimed => f.write_str("nobody had claimed the partition"),
            VoidReason::Fenced { owner } => write!(f, "the partition belongs to {owner}"),
            VoidReason::OutOfSequence { expected } => {
                write!(f, "it does not start at source offset {expected}")
            }
            VoidReason::Backwards => f.write_str("it ends before it starts"),
        }
    }
}

/// Which checks the machine makes: all of them. The model check switches them off one by one, to see that it would notice.
#[derive(Debug, Clone, Copy)]
struct Rules {
    fencing: bool,
    sequence: bool,
}

impl Rules {
    const ALL: Rules = Rules { fencing: true, sequence: true };
}

/// The claim/accept machine of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Chain {
    state: ChainState,
}

impl Chain {
    /// Before the first record: nobody owns the partition, and the first batch starts at source offset 0.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// Goes on from a state that an earlier fold of the same partition reached.
    pub fn restore(state: ChainState) -> Chain {
        Chain { state }
    }

    /// Takes in a claim. `owner` must be fresh: random, never used before.
    pub fn fold_claim(&mut self, owner: Uuid, address: &str) -> Verdict {
        self.state.owner = Some(owner);
        address.clone_into(&mut self.state.address);
        Verdict::Claimed
    }

    /// Takes in a batch about the source offsets `[start, end)`. With `start == end` it is a heartbeat, which only moves the
    /// watermark. `watermark` is in microseconds since the Unix epoch; one that is a little lower than before leaves it as it is.
    pub fn fold_batch(&mut self, owner: Uuid, start: u64, end: u64, watermark: i64) -> Verdict {
        self.fold_batch_by(Rules::ALL, owner, start, end, watermark)
    }

    fn fold_batch_by(&mut self, rules: Rules, owner: Uuid, start: u64, end: u64, watermark: i64) -> Verdict {
        if rules.fencing {
            match self.state.owner {
                None => return Verdict::Void(VoidReason::Unclaimed),
                Some(last) if last != owner => return Verdict::Void(VoidReason::Fenced { owner: last }),
                Some(_) => {}
            }
        }
        let expected = self.state.next_source_offset;
        if rules.sequence && start != expected {
            return Verdict::Void(VoidReason::OutOfSequence { expected });
        }
        if end < start {
            return Verdict::Void(VoidReason::Backwards);
        }
        self.state.next_source_offset = end;
        self.state.watermark = watermark::advance(self.state.watermark, watermark);
        Verdict::Accepted
    }

    /// What the records so far come to.
    pub fn state(&self) -> &ChainState {
        &self.state
    }

    /// Source offset at which the next batch must start.
    pub fn next_source_offset(&self) -> u64 {
        self.state.next_source_offset
    }
}
