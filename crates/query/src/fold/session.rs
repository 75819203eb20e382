//! Sessions: what the client says is one, else what no long silence interrupts.

use super::{Action, NO_SESSION};

/// The longest silence within a session that the client did not name, microseconds: 30 minutes, as most analytics have it.
pub const IDLE: i64 = 30 * 60 * 1_000_000;

/// The sessions among an actor's sorted events. A client's session is an actor of its own, and whole; events without one
/// ([`NO_SESSION`]) share an actor and are split at every silence longer than [`IDLE`].
pub fn sessions(actions: &[Action]) -> impl Iterator<Item = &[Action]> {
    actions.chunk_by(|one, next| next.marks & NO_SESSION == 0 || next.time.saturating_sub(one.time) <= IDLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: &[i64], marks: u32) -> Vec<Action> {
        let action = |(offset, minute): (i64, &i64)| Action {
            actor: 7,
            time: minute * 60_000_000,
            offset,
            marks,
            breaks: 0,
            group: 0,
        };
        (0..).zip(minutes).map(action).collect()
    }

    #[test]
    fn half_an_hour_of_silence_ends_a_session_unless_the_client_names_it() {
        let lengths = |actions: &[Action]| sessions(actions).map(<[Action]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&at(&[0, 30, 60, 91], NO_SESSION)), [3, 1]);
        assert_eq!(lengths(&at(&[0, 30, 60, 91], 0)), [4]);
        assert!(lengths(&[]).is_empty());
    }
}
