//! What a chain adds up to. Pure: the same entries give the same state everywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_rollup::watermark;

use super::{
    Change, Entry, FORMAT, KEPT, Segment,
    entry::{always, is_always},
};
use crate::clock;

/// How long a removed segment or a discarded file is remembered, by the time in the entries: longer than its file is kept. A file that
/// outlives even this is an orphan like any other.
const REMEMBERED: Duration = KEPT.saturating_mul(2);

/// A partition's chain up to one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT`] when it was written.
    pub format: u32,
    /// The last entry; 0 before the first.
    pub version: u64,
    /// Offset after the last event of the log that is in the segments.
    pub next_offset: u64,
    /// No event before this moment is expected anymore, microseconds since the Unix epoch.
    pub watermark_micros: i64,
    /// Events that the log took before this moment are missing, because the log had deleted some of them before they were read;
    /// microseconds since the Unix epoch, `i64::MIN` when all are there.
    #[serde(default = "always", skip_serializing_if = "is_always")]
    pub complete_since_micros: i64,
    /// The segments that count.
    #[serde(with = "as_list")]
    pub live: BTreeMap<Uuid, Arc<Segment>>,
    /// The segments that don't count anymore, for whoever deletes their files.
    pub removed: Vec<Removed>,
    /// Files that may not become segments any more, since they are deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<Removed>,
}

/// A file that no longer counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its file.
    pub path: String,
    /// Since when, microseconds since the Unix epoch.
    pub time_micros: i64,
}

/// Why a change is not valid in a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The appended offsets don't begin where the chain ends.
    #[error("it appends offsets from {start}, but the chain ends at {next_offset}")]
    NotNext {
        /// Where the chain ends.
        next_offset: u64,
        /// Where the change begins.
        start: u64,
    },
    /// A segment holds offsets outside those of the change, or they run backwards.
    #[error("its offsets {start}..{end} are not those of its segments")]
    Offsets {
        /// Where the change begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// A segment that is to be removed is not live.
    #[error("it removes segment {0}, which is not live")]
    Gone(Uuid),
    /// A segment that is to be added is live already.
    #[error("it adds segment {0}, which is live already")]
    Twice(Uuid),
    /// A segment that is to be added was taken for what a crash left, and its file is deleted.
    #[error("it adds the file {0}, which was deleted because no entry named it for long")]
    Discarded(String),
    /// A file that is to be discarded is a live segment.
    #[error("it discards the file {0}, which is live")]
    Live(String),
    /// The entry has another number.
    #[error("it is number {found} in the place of number {expected}")]
    Version {
        /// The chain's next number.
        expected: u64,
        /// The entry's.
        found: u64,
    },
    /// The entry was written by a newer version of this program.
    #[error("it has format {0}, this build reads up to {FORMAT}: use a newer weir")]
    Newer(u32),
}

impl Default for State {
    fn default() -> Self {
        Self {
            format: FORMAT,
            version: 0,
            next_offset: 0,
            watermark_micros: i64::MIN,
            complete_since_micros: i64::MIN,
            live: BTreeMap::new(),
            removed: Vec::new(),
            discarded: Vec::new(),
        }
    }
}

impl State {
    /// Whether a change may follow this state.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, change: &Change) -> Result<(), Refusal> {
        let added = match change {
            Change::Append { start, end, segments, .. } => {
                if *start != self.next_offset {
                    return Err(Refusal::NotNext { next_offset: self.next_offset, start: *start });
                }
                let inside = |segment: &Segment| *start <= segment.offsets.min && segment.offsets.max < *end;
                if end <= start || !segments.iter().all(inside) {
                    return Err(Refusal::Offsets { start: *start, end: *end });
                }
                segments
            }
            Change::Replace { removed, added, .. } => {
                let mut seen = BTreeSet::new();
                match removed.iter().find(|id| !self.live.contains_key(id) || !seen.insert(**id)) {
                    Some(id) => return Err(Refusal::Gone(*id)),
                    None => added,
                }
            }
            Change::Discard { paths } => {
                let live = self.live.values().find(|segment| paths.contains(&segment.path));
                return live.map_or(Ok(()), |segment| Err(Refusal::Live(segment.path.clone())));
            }
        };
        let discarded: BTreeSet<&str> = self.discarded.iter().map(|file| file.path.as_str()).collect();
        if let Some(segment) = added.iter().find(|segment| discarded.contains(segment.path.as_str())) {
            return Err(Refusal::Discarded(segment.path.clone()));
        }
        let mut seen = BTreeSet::new();
        match added.iter().find(|segment| self.live.contains_key(&segment.id) || !seen.insert(segment.id)) {
            Some(segment) => Err(Refusal::Twice(segment.id)),
            None => Ok(()),
        }
    }

    /// The state after the next entry.
    ///
    /// # Errors
    /// Why the entry can't be the next one; the state is then unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if entry.format > FORMAT {
            return Err(Refusal::Newer(entry.format));
        }
        if entry.version != self.version + 1 {
            return Err(Refusal::Version { expected: self.version + 1, found: entry.version });
        }
        self.check(&entry.change)?;
        (self.format, self.version) = (FORMAT, entry.version);
        let is_remembered = |removed: &Removed| {
            entry.time_micros.saturating_sub(removed.time_micros) < clock::micros(REMEMBERED)
        };
        self.removed.retain(is_remembered);
        self.discarded.retain(is_remembered);
        match &entry.change {
            Change::Append { end, watermark_micros, complete_since_micros, segments, .. } => {
                self.next_offset = *end;
                self.watermark_micros = watermark::advance(self.watermark_micros, *watermark_micros);
                self.complete_since_micros = self.complete_since_micros.max(*complete_since_micros);
                self.add(segments);
            }
            Change::Replace { removed, added, .. } => {
                for id in removed {
                    let segment = self.live.remove(id).expect("checked above");
                    self.removed.push(Removed { path: segment.path.clone(), time_micros: entry.time_micros });
                }
                self.add(added);
            }
            Change::Discard { paths } => self.discarded.extend(
                paths.iter().map(|path| Removed { path: path.clone(), time_micros: entry.time_micros }),
            ),
        }
        Ok(())
    }

    fn add(&mut self, segments: &[Segment]) {
        self.live.extend(segments.iter().map(|segment| (segment.id, Arc::new(segment.clone()))));
    }

    /// The live segments of a project, in the order of their writing.
    pub fn of_project<'s>(&'s self, project: &'s str) -> impl Iterator<Item = &'s Arc<Segment>> {
        self.live.values().filter(move |segment| segment.project == project)
    }
}

/// Live segments as a list: their ids are in them.
mod as_list {
    use super::{Arc, BTreeMap, Deserialize, Segment, Uuid};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        live: &BTreeMap<Uuid, Arc<Segment>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(live.values().map(AsRef::as_ref))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<Uuid, Arc<Segment>>, D::Error> {
        let list = Vec::<Segment>::deserialize(from)?;
        Ok(list.into_iter().map(|segment| (segment.id, Arc::new(segment))).collect())
    }
}
