//! Deleting files that no reader needs: removed segments, what crashes left behind, old manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use uuid::Uuid;

use crate::{
    clock,
    error::{Error, Result},
    manifest::{self, Chain, Change, KEPT, Published, State},
    objects::{Object, Objects},
    segment,
};

/// A file that no entry names is discarded, and then deleted, at this age.
const ORPHAN: Duration = Duration::from_secs(3600);
/// Nobody tries to publish a file that he began to write longer ago than this: it may be discarded soon. Far below [`ORPHAN`], since
/// clocks differ. What decides is the entry that discards it.
pub(crate) const PUBLISH_WITHIN: Duration = Duration::from_secs(1800);

/// Whether files that were begun at a moment, microseconds since the Unix epoch, may be published.
///
/// # Errors
/// [`Error::Unavailable`] when they may be taken for orphans: they are to be written anew.
pub(crate) fn may_publish(what: &str, begun_micros: i64) -> Result<()> {
    if clock::now_micros() - begun_micros > clock::micros(PUBLISH_WITHIN) {
        let problem = "it took so long that its files may be taken for orphans";
        return Err(Error::unavailable(format!("publish {what}"), problem));
    }
    Ok(())
}

/// Files that nobody needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needless<'o> {
    /// No entry can name them any more.
    settled: Vec<&'o str>,
    /// No entry names them yet: they may be deleted once one discards them.
    orphans: Vec<&'o str>,
}

/// The files among these that nobody needs.
pub(crate) fn needless<'o>(files: &'o [Object], state: &State, now_micros: i64) -> Needless<'o> {
    let live: BTreeSet<&str> = state.live.values().map(|segment| segment.path.as_str()).collect();
    let removed: BTreeMap<&str, i64> =
        state.removed.iter().map(|removed| (removed.path.as_str(), removed.time_micros)).collect();
    let discarded: BTreeSet<&str> = state.discarded.iter().map(|file| file.path.as_str()).collect();
    let older = |since: i64, age| now_micros.saturating_sub(since) > clock::micros(age);
    let mut needless = Needless::default();
    for file in files.iter().filter(|file| !live.contains(file.path.as_str())) {
        let path = file.path.as_str();
        if discarded.contains(path) || removed.get(path).is_some_and(|since| older(*since, KEPT)) {
            needless.settled.push(path);
        } else if !removed.contains_key(path) && older(file.modified_micros, ORPHAN) {
            needless.orphans.push(path);
        }
    }
    needless
}

/// Deletes what nobody needs of a partition; returns how many files those were.
///
/// Without a chain, or with a damaged one, nothing is known to be needless, and nothing is deleted.
pub(crate) async fn run(objects: &Objects, chain: &mut Chain, writer: Uuid) -> Result<usize> {
    let mut files = Vec::new();
    let partition = chain.partition();
    for project in objects.folders(segment::FOLDER).await? {
        let folder = format!("{project}/partition={partition}");
        objects.clean_staging(&folder, ORPHAN).await?;
        files.extend(objects.list(&folder).await?);
    }
    chain.follow().await?;
    if chain.damage().is_some() || chain.state().version == 0 {
        return Ok(0);
    }
    let now = clock::now_micros();
    let Needless { settled, orphans } = needless(&files, chain.state(), now);
    let mut paths = settled;
    if !orphans.is_empty() {
        let change = Change::Discard { paths: orphans.iter().map(|path| (*path).to_owned()).collect() };
        match chain.publish(writer, &change).await? {
            Published::Done => paths.extend(orphans),
            // One of them was published after all: the next round sees which.
            Published::Refused(refusal) => tracing::debug!(%refusal, "orphans were not discarded"),
        }
    }
    let mut deleted = 0;
    for path in paths {
        objects.delete(path).await?;
        deleted += 1;
    }
    objects.clean_staging(&manifest::folder(partition), ORPHAN).await?;
    Ok(deleted + chain.clean(now).await?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::manifest::{Removed, Segment};

    proptest! {
        #[test]
        fn only_files_that_nobody_can_need_are_deleted(
            files in prop::collection::vec((0u8..4, 0i64..8000, 0i64..8000), 0..30),
            now in 0i64..8000,
        ) {
            let second = 1_000_000;
            let mut state = State::default();
            let mut objects = Vec::new();
            let (mut settled, mut orphans) = (Vec::new(), Vec::new());
            for (index, (kind, written, removed)) in files.into_iter().enumerate() {
                let path = format!("events/{index}.parquet");
                objects.push(Object { path: path.clone(), size: 1, modified_micros: written * second });
                match kind {
                    0 => {
                        let segment = Arc::new(Segment::example(&path));
                        state.live.insert(segment.id, segment);
                    }
                    1 => {
                        state.removed.push(Removed { path: path.clone(), time_micros: removed * second });
                        settled.extend((now - removed > 4200).then_some(path));
                    }
                    2 => {
                        state.discarded.push(Removed { path: path.clone(), time_micros: removed * second });
                        settled.push(path);
                    }
                    _ => orphans.extend((now - written > 3600).then_some(path)),
                }
            }
            let needless = needless(&objects, &state, now * second);
            prop_assert_eq!(needless.settled, settled);
            prop_assert_eq!(needless.orphans, orphans);
        }
    }
}
