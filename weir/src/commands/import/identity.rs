//! Event ids that follow from what a row becomes, so that importing it again makes the same ones.

use std::collections::HashMap;

use prost::Message as _;
use uuid::Uuid;
use weir_proto::event::v1::Event;

/// Namespace of ids made from rows: any random UUID, for ever the same.
const ROWS: Uuid = Uuid::from_u128(0x5f0d_6a5e_93b1_4c53_8a3e_e2c4_0b9d_7716);

/// Makes the id of each event without one from the event itself and, where rows become identical events, how many were before
/// it: they are different events, wherever they stand. The file's name and format play no part. A row that is read in another
/// way, by a corrected mapping or time format, becomes another event, and counts; one that becomes the same event is known by
/// its id.
///
/// Remembers 17 bytes a distinct event, 20 to 40 with what the table keeps free, and once more as much for a moment when it
/// grows: up to 40 MB for a million rows. Two different events that agree in the 8 bytes kept of them still get different ids.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    seen: HashMap<u64, u32>,
    encoded: Vec<u8>,
}

impl Ids {
    /// The id of the next event. Every event without an id has to be passed, in order.
    pub(crate) fn next(&mut self, event: &Event) -> Uuid {
        self.encoded.clear();
        event.encode(&mut self.encoded).expect("a vector grows");
        let content = Uuid::new_v5(&ROWS, &self.encoded);
        let occurrence = self.seen.entry(content.as_u64_pair().0).or_default();
        let id = match *occurrence {
            0 => content,
            nth => Uuid::new_v5(&content, &nth.to_le_bytes()),
        };
        *occurrence += 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ids(users: &[&str]) -> Vec<Uuid> {
        let mut ids = Ids::default();
        let event = |user: &&str| Event { user_id: (*user).to_owned(), ..Event::default() };
        users.iter().map(|user| ids.next(&event(user))).collect()
    }

    #[test]
    fn the_same_events_get_the_same_ids() {
        assert_eq!(ids(&["a", "b", "a"]), ids(&["a", "b", "a"]));
    }

    #[test]
    fn identical_rows_are_different_events_wherever_they_stand() {
        let made = ids(&["a", "a", "b", "a"]);
        assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), 4);
        let moved: BTreeSet<Uuid> = ids(&["b", "a", "a", "a"]).into_iter().collect();
        assert_eq!(moved, made.into_iter().collect());
    }

    #[test]
    fn ids_never_change_between_versions() {
        assert_eq!(ids(&["a"])[0].to_string(), "d5537345-888a-5246-bb84-43b7bdb42fc7");
    }
}
