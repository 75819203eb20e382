use std::fmt;

use uuid::Uuid;

use super::{
    super::{Chain, ChainState, Rules, Verdict},
    Scope, Start,
};

/// Owners by number, from 1; 0 is nobody.
type Owner = u8;

/// Records sent but not landed, of one worker.
const MAX_SENT: usize = 2;

/// A record of `metrics-data`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    Claim(Owner),
    Batch { owner: Owner, start: u8, end: u8 },
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Claim(owner) => write!(f, "claim by {owner}"),
            Record::Batch { owner, start, end } => write!(f, "batch [{start}, {end}) by {owner}"),
        }
    }
}

/// A fold of the log up to a position: a worker's, or a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Folded {
    read: u8,
    owner: Owner,
    next: u8,
}

impl Folded {
    fn chain(self) -> Chain {
        let owner = (self.owner != 0).then(|| id(self.owner));
        Chain::restore(ChainState { owner, next_source_offset: self.next.into(), ..ChainState::default() })
    }

    fn step(&mut self, record: Record, rules: Rules) -> Verdict {
        let mut chain = self.chain();
        let verdict = fold(&mut chain, record, rules);
        self.read += 1;
        self.owner = chain.state().owner.map_or(0, |owner| owner.as_u128() as Owner);
        self.next = chain.next_source_offset() as u8;
        verdict
    }
}

fn id(owner: Owner) -> Uuid {
    Uuid::from_u128(owner.into())
}

fn fold(chain: &mut Chain, record: Record, rules: Rules) -> Verdict {
    match record {
        Record::Claim(owner) => chain.fold_claim(id(owner), ""),
        Record::Batch { owner, start, end } => {
            chain.fold_batch_by(rules, id(owner), start.into(), end.into(), 0)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Reading up to the own claim, or, for workers that make none, up to a position.
    Starting {
        owner: Owner,
        up_to: Option<u8>,
    },
    /// Appending from `next` on.
    Running {
        owner: Owner,
        next: u8,
    },
}

#[derive(Debug, Clone)]
struct Worker {
    phase: Phase,
    folded: Folded,
    /// Lands in this order, or not at all. Outlives the worker: a zombie's appends.
    sent: Vec<Record>,
}

/// A moment in the life of one partition.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) log: Vec<Record>,
    workers: Vec<Worker>,
    hint: Folded,
    starts: u8,
    crashes: u8,
    losses: u8,
    repeats: u8,
    /// Owners of whom something was lost or landed twice, as bits: their own batches may become void.
    unlucky: u32,
}

/// Something that happens, to a worker given by number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// It gets the partition assigned and starts reading at the beginning or at the committed hint.
    Start { worker: usize, at_hint: bool },
    /// The next record it sent lands in the log; with `again`, it will land once more.
    Land { worker: usize, again: bool },
    /// The next record it sent is lost.
    Lose { worker: usize },
    /// It reads one record.
    Read { worker: usize },
    /// It sends a batch of this many source records.
    Send { worker: usize, records: u8 },
    /// It commits a hint.
    Commit { worker: usize },
    /// It dies.
    Crash { worker: usize },
}

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// A source offset counted twice, not at all, or out of order.
    NotOnceInOrder,
    /// Readers that started at different places came to different states.
    ReadersDisagree,
    /// A batch is void although its writer had read up to its claim, no later claim came before it, and nothing of its writer
    /// was lost or landed twice: the owner could not know.
    VoidWithoutCause,
    /// A fresh owner can't go on.
    Stuck,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::NotOnceInOrder => "a source offset counted twice, not at all, or out of order:",
            Violation::ReadersDisagree => "readers that started at different places disagree:",
            Violation::VoidWithoutCause => "a batch of the undisputed owner is void:",
            Violation::Stuck => "a fresh owner can't go on:",
        })
    }
}

impl World {
    pub(super) fn new(scope: &Scope) -> World {
        let idle = Worker { phase: Phase::Idle, folded: Folded::default(), sent: Vec::new() };
        World {
            log: Vec::new(),
            workers: vec![idle; scope.workers],
            hint: Folded::default(),
            starts: 0,
            crashes: 0,
            losses: 0,
            repeats: 0,
            unlucky: 0,
        }
    }

    /// Everything that can happen next.
    pub(super) fn actions(&self, scope: &Scope) -> Vec<Action> {
        let mut actions = Vec::new();
        for (worker, Worker { phase, folded, sent }) in self.workers.iter().enumerate() {
            let room = sent.len() < MAX_SENT;
            match phase {
                Phase::Idle => {
                    // Of workers that do not differ, the first stands for all.
                    let same = |other: &Worker| other.phase == Phase::Idle && other.sent == *sent;
                    let first = !self.workers[..worker].iter().any(same);
                    if first && self.starts < scope.starts && room {
                        actions.push(Action::Start { worker, at_hint: false });
                        if self.hint != Folded::default() {
                            actions.push(Action::Start { worker, at_hint: true });
                        }
                    }
                }
                Phase::Starting { .. } => {}
                Phase::Running { next, .. } => {
                    if room {
                        let left = scope.records - next;
                        actions.extend((1..=left.min(2)).map(|records| Action::Send { worker, records }));
                    }
                    if self.hint != *folded {
                        actions.push(Action::Commit { worker });
                    }
                }
            }
            if *phase != Phase::Idle {
                if usize::from(folded.read) < self.log.len() {
                    actions.push(Action::Read { worker });
                }
                if self.crashes < scope.crashes {
                    actions.push(Action::Crash { worker });
                }
            }
            if !sent.is_empty() {
                actions.push(Action::Land { worker, again: false });
                if self.repeats < scope.repeats {
                    actions.push(Action::Land { worker, again: true });
                }
                if self.losses < scope.losses {
                    actions.push(Action::Lose { worker });
                }
            }
        }
        actions
    }

    /// Lets something happen.
    pub(super) fn apply(&mut self, action: Action, scope: &Scope) {
        match action {
            Action::Start { worker, at_hint } => {
                self.starts += 1;
                let owner = self.starts;
                let end = self.log.len() as u8;
                let hint = self.hint;
                let worker = &mut self.workers[worker];
                worker.folded = if at_hint { hint } else { Folded::default() };
                let next = worker.folded.next;
                worker.phase = match scope.start {
                    Start::ClaimAndRead => Phase::Starting { owner, up_to: None },
                    Start::ClaimOnly => Phase::Running { owner, next },
                    Start::ReadOnly if worker.folded.read >= end => Phase::Running { owner, next },
                    Start::ReadOnly => Phase::Starting { owner, up_to: Some(end) },
                };
                if scope.start != Start::ReadOnly {
                    worker.sent.push(Record::Claim(owner));
                }
            }
            Action::Land { worker, again } => {
                let sent = &mut self.workers[worker].sent;
                let record = sent[0];
                if again {
                    self.repeats += 1;
                    self.mark_unlucky(record);
                } else {
                    sent.remove(0);
                }
                self.log.push(record);
            }
            Action::Lose { worker } => {
                self.losses += 1;
                let record = self.workers[worker].sent.remove(0);
                self.mark_unlucky(record);
            }
            Action::Read { worker } => {
                let worker = &mut self.workers[worker];
                let record = self.log[usize::from(worker.folded.read)];
                let verdict = worker.folded.step(record, scope.rules);
                worker.notice(record, verdict);
            }
            Action::Send { worker, records } => {
                let worker = &mut self.workers[worker];
                if let Phase::Running { owner, next } = &mut worker.phase {
                    let (start, end) = (*next, *next + records);
                    *next = end;
                    worker.sent.push(Record::Batch { owner: *owner, start, end });
                }
            }
            Action::Commit { worker } => {
                let Worker { phase, folded, .. } = &self.workers[worker];
                self.hint = *folded;
                if let Phase::Running { next, .. } = phase
                    && !scope.hints_from_reading
                {
                    self.hint.next = *next;
                }
            }
            Action::Crash { worker } => {
                self.crashes += 1;
                self.workers[worker].phase = Phase::Idle;
            }
        }
        // What an idle worker knew is gone.
        for worker in &mut self.workers {
            if worker.phase == Phase::Idle {
                worker.folded = Folded::default();
            }
        }
    }

    fn mark_unlucky(&mut self, record: Record) {
        let (Record::Claim(owner) | Record::Batch { owner, .. }) = record;
        self.unlucky |= 1 << owner;
    }

    /// What must hold in every world, for all readers.
    pub(super) fn check(&self, scope: &Scope) -> Result<(), Violation> {
        // A reader from the beginning; its state after each record is what a snapshot there holds.
        let mut reader = Folded::default();
        let mut snapshots = vec![reader];
        let mut counted_to = 0;
        let mut last_claim = 0;
        for record in &self.log {
            let verdict = reader.step(*record, scope.rules);
            snapshots.push(reader);
            match (record, verdict) {
                (Record::Claim(owner), _) => last_claim = *owner,
                (Record::Batch { start, end, .. }, Verdict::Accepted) => {
                    if *start != counted_to {
                        return Err(Violation::NotOnceInOrder);
                    }
                    counted_to = *end;
                }
                (Record::Batch { owner, .. }, _) => {
                    let superseded = last_claim != *owner && scope.start != Start::ReadOnly;
                    if !superseded && self.unlucky & (1 << owner) == 0 {
                        return Err(Violation::VoidWithoutCause);
                    }
                }
            }
        }
        for start in snapshots.into_iter().chain([self.hint]) {
            let mut other = start;
            self.log[usize::from(start.read)..].iter().for_each(|record| {
                other.step(*record, scope.rules);
            });
            if other != reader {
                return Err(Violation::ReadersDisagree);
            }
        }
        let mut chain = reader.chain();
        let fresh = id(Owner::MAX);
        chain.fold_claim(fresh, "");
        let rest = chain.fold_batch(fresh, counted_to.into(), scope.records.into(), 0);
        if rest != Verdict::Accepted { Err(Violation::Stuck) } else { Ok(()) }
    }

    /// The world as bytes, different for different worlds.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.starts, self.crashes, self.losses, self.repeats];
        bytes.extend(self.unlucky.to_le_bytes());
        let folded = |f: &Folded| [f.read, f.owner, f.next];
        let records = |bytes: &mut Vec<u8>, records: &[Record]| {
            bytes.push(records.len() as u8);
            for record in records {
                bytes.extend(match *record {
                    Record::Claim(owner) => [0, owner, 0, 0],
                    Record::Batch { owner, start, end } => [1, owner, start, end],
                });
            }
        };
        bytes.extend(folded(&self.hint));
        records(&mut bytes, &self.log);
        for worker in &self.workers {
            bytes.extend(folded(&worker.folded));
            bytes.extend(match worker.phase {
                Phase::Idle => [0, 0, 0],
                Phase::Starting { owner, up_to } => [1, owner, up_to.unwrap_or(u8::MAX)],
                Phase::Running { owner, next } => [2, owner, next],
            });
            records(&mut bytes, &worker.sent);
        }
        bytes
    }
}

impl Worker {
    /// Acts on what it just read.
    fn notice(&mut self, record: Record, verdict: Verdict) {
        match self.phase {
            Phase::Idle => {}
            Phase::Starting { owner, up_to } => {
                let arrived = match up_to {
                    None => record == Record::Claim(owner),
                    Some(end) => self.folded.read >= end,
                };
                if arrived {
                    self.phase = Phase::Running { owner, next: self.folded.next };
                }
            }
            Phase::Running { owner, .. } => {
                let superseded =
                    matches!(record, Record::Claim(other) if other != owner && self.folded.owner == other);
                let own = matches!(record, Record::Batch { owner: writer, .. } if writer == owner);
                if superseded || (own && matches!(verdict, Verdict::Void(_))) {
                    self.phase = Phase::Idle;
                }
            }
        }
    }
}
