//! What a user's events tell: pure functions of the events of one *actor* (a user or a session), in order. They know no
//! columns, streams or threads; whoever calls them sorts the events and adds the results up.

pub mod active;
pub mod funnel;
pub mod paths;
pub mod retention;
pub mod session;

/// What a fold needs to know of an event. 40 bytes: queries hold millions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Action {
    /// Who did it: hash of a user or of a session.
    pub actor: i64,
    /// When, microseconds since the Unix epoch.
    pub time: i64,
    /// Offset in the log: orders events of one actor at one time.
    pub offset: i64,
    /// Which conditions of the question the event meets, a bit each: steps of a funnel, or [`paths::ANCHOR`] and others.
    pub marks: u32,
    /// Which gaps between steps of a funnel it breaks: bit `k` for the gap between step `k` and `k + 1`, counted from 0.
    pub breaks: u32,
    /// What the answer is broken down by, or what a path shows, as a number.
    pub group: u32,
}

/// Mark of an event without a session of its own: it belongs to one with its neighbours that are not further than
/// [`session::IDLE`] away.
pub const NO_SESSION: u32 = 1 << 31;

/// The events of each actor, of events that are sorted; of others, those that follow each other.
pub fn actors(actions: &[Action]) -> impl Iterator<Item = &[Action]> {
    actions.chunk_by(|one, next| one.actor == next.actor)
}
