//! Forgetting a user: the segments that hold events of his are replaced by ones without them. The old files go when no
//! snapshot may need them any more, as always.

use std::{collections::BTreeSet, sync::Arc};

use futures::TryStreamExt;
use uuid::Uuid;

use crate::{
    clock, encode,
    error::{Error, Result},
    gc,
    manifest::{Change, Published, Reason, Segment},
    objects::{Objects, apart},
    segment::{self, Keep, Merge},
    store::Store,
};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Events of the user that were removed.
    pub events: u64,
    /// Segments that were rewritten.
    pub segments: usize,
    /// Nothing below this offset of the partition holds the user; what is accepted later may, and so may the hot part.
    pub next_offset: u64,
}

/// Rewrites the live segments that hold the user: his `user_id`, or his `anonymous_id` in events without a `user_id`. One that is
/// damaged keeps him; all others lose him nevertheless.
pub(crate) async fn run(store: &Store, partition: u32, project: &str, user: &str) -> Result<Erased> {
    let mut chain = store.chain(partition).await?;
    if let Some(damage) = chain.damage() {
        return Err(damage);
    }
    let hash = encode::user_hash(user);
    let writer = Uuid::now_v7();
    let mut erased = Erased { next_offset: chain.state().next_offset, ..Erased::default() };
    // Without the user, or damaged.
    let mut done: BTreeSet<Uuid> = BTreeSet::new();
    let mut damaged: Vec<Error> = Vec::new();
    loop {
        let suspect = |segment: &&Arc<Segment>| segment.users.holds(hash) && !done.contains(&segment.id);
        let Some(segment) = chain.state().of_project(project).find(suspect).cloned() else {
            let left = damaged.len();
            return match damaged.into_iter().next() {
                Some(first) => Err(Error::NotErased { left, first: Box::new(first) }),
                None => Ok(erased),
            };
        };
        let begun = clock::now_micros();
        let (events, added) = match rewrite(store, partition, &segment, user).await {
            Ok(Some(rewritten)) => rewritten,
            Ok(None) => {
                done.insert(segment.id);
                continue;
            }
            Err(damage @ Error::Segment { .. }) => {
                done.insert(segment.id);
                damaged.push(damage);
                continue;
            }
            Err(error) => return Err(error),
        };
        gc::may_publish("an erasure", begun)?;
        let rewritten: Vec<Uuid> = added.iter().map(|segment| segment.id).collect();
        let change = Change::Replace { removed: vec![segment.id], added, reason: Reason::Erasure };
        match chain.publish(writer, &change).await? {
            Published::Done => {
                erased.events += events;
                erased.segments += 1;
                done.extend(rewritten);
            }
            // It was compacted meanwhile: the segment in its place is a suspect now.
            Published::Refused(_) => {}
        }
    }
}

/// The user's events in a segment, and what the segment is without them; `None` when it has none.
async fn rewrite(
    store: &Store,
    partition: u32,
    segment: &Arc<Segment>,
    user: &str,
) -> Result<Option<(u64, Vec<Segment>)>> {
    let (segment, user, store) = (Arc::clone(segment), user.to_owned(), store.clone());
    apart(async move {
        // Damage may hide him, until the segment is put back.
        segment::check(store.objects(), &segment).await?;
        if !holds(store.objects(), &segment, &user).await? {
            return Ok(None);
        }
        let merge = Merge {
            project: segment.project.clone(),
            partition,
            inputs: vec![Arc::clone(&segment)],
            keep: Keep { from_micros: None, not_of: Some(user) },
            splits: Vec::new(),
            always: store.settings().columns.clone(),
        };
        // It has counted: it read what the manifest says, and kept no more.
        let added = merge.run(store.objects()).await?;
        let kept: u64 = added.iter().map(|segment| segment.rows).sum();
        Ok(Some((segment.rows - kept, added)))
    })
    .await
}

/// Whether a segment has events of the user; reads only the row groups and columns that can tell.
async fn holds(objects: &Objects, segment: &Segment, user: &str) -> Result<bool> {
    let mut batches = segment::open_users(objects, segment, encode::user_hash(user)).await?;
    while let Some(batch) = batches.try_next().await.map_err(|error| segment::unreadable(segment, error))? {
        if segment::others(&batch, user)?.false_count() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
