//! Segments that compaction goes on without for a while.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

/// One that is damaged, or does not fit to others, is tried again after this: somebody may have put it back.
pub(crate) const DAMAGED: Duration = Duration::from_secs(3600);
/// One that the store did not give, though it gave others.
pub(crate) const REFUSED: Duration = Duration::from_secs(600);

/// Which, why, and until when that is believed.
#[derive(Debug, Default)]
pub(crate) struct PassedOver(BTreeMap<Uuid, (String, Instant)>);

impl PassedOver {
    pub(crate) fn add(&mut self, id: Uuid, problem: String, until: Instant) {
        tracing::warn!(problem, "a segment is left out of compaction");
        self.0.insert(id, (problem, until));
    }

    /// Forgets those that are to be tried again, and those that are no longer live.
    pub(crate) fn forget(&mut self, now: Instant, is_live: impl Fn(&Uuid) -> bool) {
        self.0.retain(|id, (_, until)| now < *until && is_live(id));
    }

    pub(crate) fn holds(&self, id: Uuid) -> bool {
        self.0.contains_key(&id)
    }

    /// What is wrong with each.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|(problem, _)| problem.as_str())
    }

    /// All of it in one line; `None` when none is passed over.
    pub(crate) fn trouble(&self) -> Option<String> {
        let first = self.problems().next()?;
        Some(format!("segments that are not compacted: {}; {first}", self.0.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_tried_again_after_a_while() {
        let (damaged, gone, now) = (Uuid::now_v7(), Uuid::now_v7(), Instant::now());
        let mut passed_over = PassedOver::default();
        assert_eq!(passed_over.trouble(), None);
        passed_over.add(damaged, "it is torn".to_owned(), now + DAMAGED);
        passed_over.add(gone, "it is missing".to_owned(), now + DAMAGED);
        passed_over.forget(now + REFUSED, |id| *id != gone);
        assert!(passed_over.holds(damaged) && !passed_over.holds(gone));
        assert!(passed_over.trouble().is_some_and(|trouble| trouble.contains("it is torn")));
        passed_over.forget(now + DAMAGED, |_| true);
        assert!(!passed_over.holds(damaged), "somebody may have put it back");
    }
}
