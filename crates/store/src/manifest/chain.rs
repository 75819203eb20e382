//! One partition's chain: a mirror of it, and the way to add to it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{
    Change, Entry, FORMAT, Refusal, State, checkpoint_folder, checkpoint_path, entry_path, folder, version_of,
};
use crate::{
    clock,
    error::{Error, Result},
    objects::{Created, Objects},
};

/// How long after a checkpoint the entries that it covers are kept, so that most mirrors follow entry by entry. One that comes later
/// finds its own last entry gone, and begins anew.
pub(super) const GRACE: Duration = Duration::from_secs(600);
/// A checkpoint is written after so many entries: at one entry a minute about every hour; a start reads as many at most.
const CHECKPOINT_EVERY: u64 = 64;
/// Checkpoints kept: should the last be unreadable, the one before it answers.
const CHECKPOINTS_KEPT: usize = 2;
/// Entries read at a time on loading.
const READ_AHEAD: usize = 16;

/// A mirror of a partition's chain.
#[derive(Clone, Debug)]
pub struct Chain {
    objects: Objects,
    partition: u32,
    state: Arc<State>,
    /// Version of the last checkpoint that is known.
    checkpoint: u64,
    damage: Option<Damage>,
}

/// A manifest that can't be read; the mirror ends before it.
#[derive(Clone, Debug)]
struct Damage {
    path: String,
    problem: String,
}

impl From<Damage> for Error {
    fn from(Damage { path, problem }: Damage) -> Self {
        Error::Manifest { path, problem }
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Published {
    /// It counts; the mirror has it.
    Done,
    /// It does not count: another was first. The mirror has what that one published.
    Refused(Refusal),
}

impl Chain {
    /// Reads a partition's chain: the last readable checkpoint and the entries after it.
    ///
    /// A chain with an unreadable or missing entry is mirrored up to there, and [`Chain::damage`] names it.
    ///
    /// # Errors
    /// [`Error::Unavailable`], and [`Error::Manifest`] where not even a checkpoint can be read.
    pub async fn load(objects: &Objects, partition: u32) -> Result<Self> {
        // What a process published just before it died is made durable before anybody builds on it.
        objects.settle(&folder(partition)).await?;
        let mut chain =
            Self { objects: objects.clone(), partition, state: Arc::default(), checkpoint: 0, damage: None };
        chain.reload().await?;
        Ok(chain)
    }

    /// The state after the last entry of the mirror.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The manifest because of which the mirror ends early, if there is one.
    pub fn damage(&self) -> Option<Error> {
        self.damage.clone().map(Error::from)
    }

    /// Reads what was published since.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; an unreadable entry is [`Chain::damage`].
    pub async fn follow(&mut self) -> Result<()> {
        if self.damage.is_some() {
            return self.reload().await;
        }
        while let Some(bytes) = self.objects.get(&entry_path(self.partition, self.state.version + 1)).await? {
            if !self.take(&bytes) {
                return Ok(());
            }
        }
        if self.is_end().await? { Ok(()) } else { self.reload().await }
    }

    /// Whether no entry follows the mirror's last one, when none was found: it may also have been deleted since. Entries are deleted
    /// in their order, and never the last one, so the mirror's own is then gone, too.
    async fn is_end(&self) -> Result<bool> {
        if self.state.version == 0 {
            return Ok(self.checkpoints().await?.is_empty());
        }
        Ok(self.objects.size(&entry_path(self.partition, self.state.version)).await?.is_some())
    }

    /// Adds a change to the chain, after whatever others add at the same time.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: whether the change counts is then not known, and asking again finds out: an append that did is
    /// refused as [`Refusal::NotNext`], a replacement that did is [`Published::Done`], or refused as [`Refusal::Gone`] when it only
    /// removes. [`Error::Manifest`] when the chain is damaged.
    pub async fn publish(&mut self, writer: Uuid, change: &Change) -> Result<Published> {
        if self.damage.is_some() {
            self.follow().await?;
        }
        let mut is_first = true;
        loop {
            if let Some(damage) = self.damage() {
                return Err(damage);
            }
            if let Err(refusal) = self.state.check(change) {
                // Whoever published what this builds on may have died before making it durable.
                self.objects.settle(&folder(self.partition)).await?;
                let done = self.has_replaced(change);
                return Ok(if done { Published::Done } else { Published::Refused(refusal) });
            }
            // Others went on meanwhile. However long that took, files that they discarded are gone, though the mirror may have begun
            // anew after the entry that did.
            if !is_first && let Some(path) = self.gone(change).await? {
                return Ok(Published::Refused(Refusal::Discarded(path)));
            }
            is_first = false;
            let version = self.state.version + 1;
            let entry = Entry {
                format: FORMAT,
                version,
                writer,
                time_micros: clock::now_micros(),
                change: change.clone(),
            };
            match self.objects.create(&entry_path(self.partition, version), json(&entry)).await? {
                Created::New if self.is_overtaken(version).await? => self.reload().await?,
                Created::New => {
                    let applied = Arc::make_mut(&mut self.state).apply(&entry);
                    applied.expect("it was checked against this state");
                    return Ok(Published::Done);
                }
                Created::Exists => {
                    self.follow().await?;
                    if self.state.version >= version && self.holds(&entry).await? {
                        return Ok(Published::Done);
                    }
                }
            }
        }
    }

    /// Whether the entry of this number is this one: an earlier attempt that seemed to fail had succeeded.
    async fn holds(&self, entry: &Entry) -> Result<bool> {
        let found = self.objects.get(&entry_path(self.partition, entry.version)).await?;
        let found = found.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
        Ok(found.is_some_and(|found| found.writer == entry.writer && found.change == entry.change))
    }

    /// A segment that a change adds and whose file is not there.
    async fn gone(&self, change: &Change) -> Result<Option<String>> {
        let added = match change {
            Change::Append { segments: added, .. } | Change::Replace { added, .. } => added.as_slice(),
            Change::Discard { .. } => &[],
        };
        for segment in added {
            if self.objects.size(&segment.path).await?.is_none() {
                return Ok(Some(segment.path.clone()));
            }
        }
        Ok(None)
    }

    /// Whether all that a replacement adds, and nothing that it removes, is live. Of one that adds nothing that can't be told: others
    /// may have put what it removes into a segment of theirs.
    fn has_replaced(&self, change: &Change) -> bool {
        match change {
            Change::Append { .. } | Change::Discard { .. } => false,
            Change::Replace { removed, added, .. } => {
                !added.is_empty()
                    && added.iter().all(|segment| self.state.live.contains_key(&segment.id))
                    && !removed.iter().any(|id| self.state.live.contains_key(id))
            }
        }
    }

    /// Whether a just created entry lies in the chain's past: it took the place of an entry that was deleted because a checkpoint
    /// covers it, while this process slept. Nobody reads it there.
    async fn is_overtaken(&self, version: u64) -> Result<bool> {
        Ok(self.checkpoints().await?.last().is_some_and(|last| *last >= version))
    }

    /// Versions of all checkpoints, ascending.
    async fn checkpoints(&self) -> Result<Vec<u64>> {
        let folder = checkpoint_folder(self.partition);
        let found = self.objects.list(&folder).await?;
        Ok(found.iter().filter_map(|object| version_of(&folder, &object.path)).collect())
    }

    /// Takes the next entry; `false` when it can't be.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let applied = read::<Entry>(bytes).and_then(|entry| {
            Arc::make_mut(&mut self.state).apply(&entry).map_err(|refusal| refusal.to_string())
        });
        if let Err(problem) = applied {
            self.damaged(entry_path(self.partition, self.state.version + 1), problem);
            return false;
        }
        true
    }

    fn damaged(&mut self, path: String, problem: String) {
        self.damage = Some(Damage { path, problem });
    }

    async fn reload(&mut self) -> Result<()> {
        self.damage = None;
        // Entries first: one that is deleted meanwhile is covered by a checkpoint that this listing of checkpoints has.
        let below = folder(self.partition);
        let objects = self.objects.list(&below).await?;
        let last =
            objects.iter().filter_map(|object| version_of(&below, &object.path)).max().unwrap_or_default();
        let state = self.last_checkpoint().await?;
        self.checkpoint = state.version;
        self.state = Arc::new(state);

        let objects = self.objects.clone();
        let partition = self.partition;
        let entries = stream::iter(self.state.version + 1..=last).map(|version| {
            let objects = objects.clone();
            async move { objects.get(&entry_path(partition, version)).await }
        });
        let mut entries = entries.buffered(READ_AHEAD);
        while let Some(bytes) = entries.try_next().await? {
            let Some(bytes) = bytes else {
                let problem = format!("is missing, though number {last} is there");
                self.damaged(entry_path(partition, self.state.version + 1), problem);
                return Ok(());
            };
            if !self.take(&bytes) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The state of the last checkpoint that can be read, or the state before the first entry.
    async fn last_checkpoint(&self) -> Result<State> {
        let mut unreadable = None;
        for version in self.checkpoints().await?.into_iter().rev() {
            let path = checkpoint_path(self.partition, version);
            // One that is gone now was deleted because of a later one, which was tried before it.
            let Some(bytes) = self.objects.get(&path).await? else { continue };
            match read::<State>(&bytes) {
                Ok(state) if state.format <= FORMAT && state.version == version => return Ok(state),
                Ok(state) if state.format > FORMAT => {
                    return Err(Error::Manifest { path, problem: Refusal::Newer(state.format).to_string() });
                }
                Ok(_) => {
                    unreadable =
                        Some(Damage { path, problem: "holds another version than its name".to_owned() })
                }
                Err(problem) => unreadable = Some(Damage { path, problem }),
            }
            tracing::warn!(damage = ?unreadable, "a manifest checkpoint can't be read; the one before it is used");
        }
        match unreadable {
            // The first entries may still be there.
            Some(damage) if self.objects.size(&entry_path(self.partition, 1)).await?.is_none() => {
                Err(damage.into())
            }
            _ => Ok(State::default()),
        }
    }

    /// Writes a checkpoint when enough entries came after the last one.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.state.version >= self.checkpoint + CHECKPOINT_EVERY {
            self.write_checkpoint().await
        } else {
            Ok(())
        }
    }

    /// Writes a checkpoint of the mirror's state.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn write_checkpoint(&mut self) -> Result<()> {
        let version = self.state.version;
        // Whoever else wrote it wrote the same.
        let _same =
            self.objects.create(&checkpoint_path(self.partition, version), json(&*self.state)).await?;
        self.checkpoint = version;
        Ok(())
    }

    /// Deletes entries that an old enough checkpoint covers, and checkpoints before it. Returns how many objects those were.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn clean(&self, now_micros: i64) -> Result<usize> {
        let checkpoints = checkpoint_folder(self.partition);
        let found = self.objects.list(&checkpoints).await?;
        let known: Vec<(u64, i64)> = found
            .iter()
            .filter_map(|object| Some((version_of(&checkpoints, &object.path)?, object.modified_micros)))
            .collect();
        let Some(base) = oldest_needed(&known, now_micros) else { return Ok(0) };
        let below = folder(self.partition);
        let mut deleted = 0;
        for object in self.objects.list(&below).await? {
            let entry = version_of(&below, &object.path).is_some_and(|version| version <= base);
            let checkpoint = version_of(&checkpoints, &object.path).is_some_and(|version| version < base);
            if entry || checkpoint {
                self.objects.delete(&object.path).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

/// The checkpoint (version, time of writing) from which on everything is kept: the last but one, once the last is so old that
/// everybody has followed beyond it. Ascending by version.
fn oldest_needed(checkpoints: &[(u64, i64)], now_micros: i64) -> Option<u64> {
    let old = |(_, written): &&(u64, i64)| now_micros.saturating_sub(*written) > clock::micros(GRACE);
    let old: Vec<_> = checkpoints.iter().take_while(old).collect();
    Some(old.len().checked_sub(CHECKPOINTS_KEPT).map(|place| old[place])?.0)
}

fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).expect("manifests have no keys but texts").into()
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("is not a manifest ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_until_two_checkpoints_are_old() {
        let grace = clock::micros(GRACE);
        assert_eq!(oldest_needed(&[], grace * 9), None);
        assert_eq!(oldest_needed(&[(64, 0)], grace * 9), None);
        assert_eq!(oldest_needed(&[(64, 0), (128, 5)], grace), None);
        assert_eq!(oldest_needed(&[(64, 0), (128, 5)], grace + 6), Some(64));
        assert_eq!(oldest_needed(&[(64, 0), (128, 5), (192, grace * 2)], grace * 2), Some(64));
    }
}
