//! Deleting files that no reader needs: removed segments, what crashes left behind, old manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    clock,
    error::{Error, Result},
    manifest::{self, Chain, KEPT, State},
    objects::{Object, Objects},
    segment,
};

/// A file that no entry names is deleted at this age.
const ORPHAN: Duration = Duration::from_secs(3600);
/// Nobody publishes a file that he began to write longer ago than this, so that none is deleted before it is published. Far below
/// [`ORPHAN`], since clocks differ.
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

/// The files among these that nobody needs.
///
/// The state must be newer than the listing: a file that was listed and is not in the state was not published before.
pub(crate) fn needless<'o>(files: &'o [Object], state: &State, now_micros: i64) -> Vec<&'o str> {
    let live: BTreeSet<&str> = state.live.values().map(|segment| segment.path.as_str()).collect();
    let removed: BTreeMap<&str, i64> =
        state.removed.iter().map(|removed| (removed.path.as_str(), removed.time_micros)).collect();
    let needless = |file: &&Object| {
        let path = file.path.as_str();
        let older = |since: i64, age| now_micros.saturating_sub(since) > clock::micros(age);
        !live.contains(path)
            && match removed.get(path) {
                Some(since) => older(*since, KEPT),
                None => older(file.modified_micros, ORPHAN),
            }
    };
    files.iter().filter(needless).map(|file| file.path.as_str()).collect()
}

/// Deletes what nobody needs of a partition; returns how many files those were.
///
/// Without a chain, or with a damaged one, nothing is known to be needless, and nothing is deleted.
pub(crate) async fn run(objects: &Objects, chain: &mut Chain) -> Result<usize> {
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
    let mut deleted = 0;
    for path in needless(&files, chain.state(), now) {
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
            files in prop::collection::vec((0u8..3, 0i64..8000, 0i64..8000), 0..30),
            now in 0i64..8000,
        ) {
            let second = 1_000_000;
            let mut state = State::default();
            let mut objects = Vec::new();
            let mut expected = Vec::new();
            for (index, (kind, written, removed)) in files.into_iter().enumerate() {
                let path = format!("events/{index}.parquet");
                objects.push(Object { path: path.clone(), size: 1, modified_micros: written * second });
                let needless = match kind {
                    0 => {
                        let segment = Arc::new(Segment::example(&path));
                        state.live.insert(segment.id, segment);
                        false
                    }
                    1 => {
                        state.removed.push(Removed { path: path.clone(), time_micros: removed * second });
                        now - removed > 4200
                    }
                    _ => now - written > 3600,
                };
                expected.extend(needless.then_some(path));
            }
            prop_assert_eq!(needless(&objects, &state, now * second), expected);
        }
    }
}
