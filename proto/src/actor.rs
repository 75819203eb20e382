//! Whose an event is: `user_id`, else `anonymous_id`. By this one rule events are partitioned, counted by user, and found.

use crate::{event::v1, record};

/// Who did it, by the ids of an event; empty when it has neither.
fn actor<'e>(user_id: &'e str, anonymous_id: &'e str) -> &'e str {
    if user_id.is_empty() { anonymous_id } else { user_id }
}

impl v1::Event {
    /// Who did it: the user, else the visitor; empty when the event names neither.
    pub fn actor(&self) -> &str {
        actor(&self.user_id, &self.anonymous_id)
    }
}

impl<'a> record::Event<'a> {
    /// Who did it: the user, else the visitor; empty when the event names neither.
    pub fn actor(&self) -> &'a str {
        actor(self.user_id, self.anonymous_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_goes_before_a_visitor() {
        assert_eq!((actor("u", "a"), actor("", "a"), actor("u", ""), actor("", "")), ("u", "a", "u", ""));
    }
}
