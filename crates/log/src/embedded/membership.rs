//! Groups of this process: the shell around the pure [`Group`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use tokio::{sync::mpsc, task};
use tracing::warn;

use super::{
    group::{Group, MemberId},
    positions::Positions,
};
use crate::{Committed, Error, GroupMember, Membership, Result, sync::locked};

/// Longest metadata of a commit, as on Kafka (`offset.metadata.max.bytes`).
const MAX_METADATA: usize = 4096;

/// All groups of the log.
#[derive(Debug)]
pub(super) struct Groups {
    positions: Arc<Positions>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<Key, Group>,
    /// Where to tell members. Unbounded, but a member is told of at most each partition twice before it answers.
    members: HashMap<MemberId, mpsc::UnboundedSender<Membership>>,
    next_id: MemberId,
    closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    group: String,
    topic: String,
}

impl Groups {
    pub(super) fn new(positions: Arc<Positions>) -> Arc<Self> {
        Arc::new(Self { positions, state: Mutex::default() })
    }

    pub(super) fn join(self: &Arc<Self>, group: &str, topic: &str, partitions: u32) -> Result<Member> {
        let key = Key { group: group.to_owned(), topic: topic.to_owned() };
        let (sender, changes) = mpsc::unbounded_channel();
        let mut state = locked(&self.state);
        if state.closed {
            return Err(Error::Closed);
        }
        let id = state.next_id;
        state.next_id += 1;
        state.members.insert(id, sender);
        let told = state.groups.entry(key.clone()).or_insert_with(|| Group::new(partitions)).join(id);
        state.tell(told);
        Ok(Member { groups: Arc::clone(self), key, id, changes })
    }

    /// Ends every membership.
    pub(super) fn close(&self) {
        let mut state = locked(&self.state);
        state.closed = true;
        state.members.clear();
        state.groups.clear();
    }
}

impl State {
    fn tell(&mut self, told: Vec<(MemberId, Membership)>) {
        for (id, change) in told {
            if let Some(member) = self.members.get(&id) {
                // A member that is just being dropped leaves in a moment.
                let _ = member.send(change);
            }
        }
    }
}

/// A member of a group.
#[derive(Debug)]
pub(super) struct Member {
    groups: Arc<Groups>,
    key: Key,
    id: MemberId,
    changes: mpsc::UnboundedReceiver<Membership>,
}

#[async_trait]
impl GroupMember for Member {
    async fn next(&mut self) -> Result<Membership> {
        self.changes.recv().await.ok_or(Error::Closed)
    }

    fn released(&self) {
        let mut state = locked(&self.groups.state);
        let told = state.groups.get_mut(&self.key).map(|group| group.released(self.id));
        state.tell(told.unwrap_or_default());
    }

    fn commit(&self, partition: u32, committed: Committed) {
        let Key { group, topic } = &self.key;
        if committed.metadata.len() > MAX_METADATA {
            warn!(
                group,
                topic, partition, "a commit with more than {MAX_METADATA} bytes of metadata is refused"
            );
            return;
        }
        // Under the lock: a later owner's commit must not be overtaken by this one.
        let state = locked(&self.groups.state);
        if state.groups.get(&self.key).is_some_and(|g| g.holds(self.id, partition)) {
            self.groups.positions.set(group, topic, partition, committed);
        } else {
            warn!(group, topic, partition, "a commit for a partition that is not the member's is ignored");
        }
    }

    async fn leave(self: Box<Self>) -> Result<()> {
        let positions = Arc::clone(&self.groups.positions);
        drop(self);
        task::spawn_blocking(move || positions.flush()).await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = locked(&self.groups.state);
        state.members.remove(&self.id);
        let Some(group) = state.groups.get_mut(&self.key) else { return };
        let told = group.leave(self.id);
        if group.is_empty() {
            state.groups.remove(&self.key);
        }
        state.tell(told);
    }
}
