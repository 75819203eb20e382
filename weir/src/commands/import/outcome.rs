//! What became of the rows in the results, as the service counted it.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;
use weir_proto::analytics::v1::Import;

use super::checkpoint::Progress;
use crate::{client::Connection, commands::settled, render::grouped};

/// What is known of the accepted rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was not waited for, or there is nothing to wait for.
    NotAwaited,
    /// All are processed; how many of them were duplicates is not known, since the service does not know the import.
    Untold,
    /// The numbers.
    Told(Rows),
}

/// The accepted rows by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    /// In the results.
    pub(crate) counted: u64,
    /// Not in the results, because an event with the same id came before.
    pub(crate) duplicates: u64,
    /// In the dead-letter topic.
    pub(crate) dead_lettered: u64,
    /// Not processed, or forgotten by the service.
    pub(crate) missing: u64,
    /// Counted although they had been counted before.
    pub(crate) twice: u64,
}

impl Rows {
    /// Of so many accepted rows, what the service says of their records.
    ///
    /// A row may have several records: what was not acknowledged is sent again. All but the first of them are duplicates to the
    /// service, so its duplicates are rows only as far as the rows are not counted.
    fn of(accepted: u64, import: &Import) -> Self {
        let Import { counted, duplicates, dead_lettered, .. } = *import;
        let dead_lettered = dead_lettered.min(accepted.saturating_sub(counted));
        let left = accepted.saturating_sub(counted + dead_lettered);
        let duplicates = duplicates.min(left);
        Self {
            counted: counted.min(accepted),
            duplicates,
            dead_lettered,
            missing: left - duplicates,
            twice: counted.saturating_sub(accepted),
        }
    }
}

impl Outcome {
    /// Waits until every accepted row is processed, and asks what became of them.
    ///
    /// # Errors
    /// When they are not processed in time.
    pub(crate) async fn of(connection: &Connection, progress: &Progress, patience: Duration) -> Result<Self> {
        let (import, token) = (progress.import, &progress.consistency_token);
        if import.is_nil() {
            settled::counted(connection, token, patience).await?;
            return Ok(Self::Untold);
        }
        let told = settled::outcome(connection, import, token, patience).await?;
        Ok(told.map_or(Self::Untold, |told| Self::Told(Rows::of(progress.accepted, &told))))
    }

    /// In words.
    pub(crate) fn describe(&self, import: Uuid) -> String {
        match self {
            Self::NotAwaited => {
                format!("not waited for: `weir query import {import}` tells what became of them")
            }
            Self::Untold => "all processed; the service does not tell duplicates".to_owned(),
            Self::Told(Rows { counted, duplicates, dead_lettered, missing, .. }) => {
                let mut text = format!("{} counted, {} duplicate", grouped(*counted), grouped(*duplicates));
                text.push_str(&format!(", {} dead-lettered", grouped(*dead_lettered)));
                if *missing > 0 {
                    text.push_str(&format!(", {} unaccounted for", grouped(*missing)));
                }
                text
            }
        }
    }

    /// What a reader of these numbers should know.
    pub(crate) fn notes(&self) -> Vec<String> {
        let Self::Told(rows) = self else { return Vec::new() };
        let mut notes = Vec::new();
        if rows.duplicates > 0 {
            notes.push(format!(
                "{} rows changed nothing: events with their ids had come before, and stay as they were",
                grouped(rows.duplicates)
            ));
        }
        if rows.dead_lettered > 0 {
            notes.push("the dead-letter topic has the dead-lettered records, with the reasons".to_owned());
        }
        if rows.missing > 0 {
            notes.push(format!(
                "{} rows are durable, but the service does not know what became of them: retention may have deleted records \
                 before they were read (`weir status`), or the import is not among the last 1,000 any more",
                grouped(rows.missing)
            ));
        }
        if rows.twice > 0 {
            notes.push(format!(
                "{} rows count twice: the run that was interrupted had sent them longer ago than ids are remembered \
                 (consumer.dedup_window)",
                grouped(rows.twice)
            ));
        }
        notes
    }

    /// For programs: null where it is not known.
    pub(crate) fn to_json(self) -> Value {
        match self {
            Self::NotAwaited | Self::Untold => Value::Null,
            Self::Told(Rows { counted, duplicates, dead_lettered, missing, twice }) => json!({
                "counted": counted,
                "duplicates": duplicates,
                "deadLettered": dead_lettered,
                "unaccounted": missing,
                "countedTwice": twice,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(accepted: u64, counted: u64, duplicates: u64, dead_lettered: u64) -> Rows {
        Rows::of(accepted, &Import { counted, duplicates, dead_lettered, ..Import::default() })
    }

    #[test]
    fn every_accepted_row_has_one_outcome() {
        let plain = Rows { counted: 7, duplicates: 2, dead_lettered: 1, ..Rows::default() };
        assert_eq!(rows(10, 7, 2, 1), plain);
        assert_eq!(rows(10, 7, 5, 1), plain, "three of them were sent again");
        assert_eq!(rows(10, 7, 1, 1), Rows { duplicates: 1, missing: 1, ..plain });
        assert_eq!(rows(10, 0, 10, 0), Rows { duplicates: 10, ..Rows::default() });
        assert_eq!(rows(10, 12, 0, 0), Rows { counted: 10, twice: 2, ..Rows::default() });
    }

    #[test]
    fn what_needs_an_explanation_has_one() {
        let told =
            |accepted, counted, duplicates, dead| Outcome::Told(rows(accepted, counted, duplicates, dead));
        assert_eq!(
            told(1000, 990, 10, 0).describe(Uuid::nil()),
            "990 counted, 10 duplicate, 0 dead-lettered"
        );
        assert!(told(10, 10, 3, 0).notes().is_empty(), "records that were sent again are no news");
        for (outcome, word) in [
            (told(2, 0, 2, 0), "changed nothing"),
            (told(2, 1, 0, 1), "reasons"),
            (told(2, 1, 0, 0), "does not know"),
            (told(2, 3, 0, 0), "twice"),
        ] {
            let notes = outcome.notes();
            assert!(notes.len() == 1 && notes[0].contains(word), "{notes:?}");
        }
    }
}
