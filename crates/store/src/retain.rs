//! Retention: segments whose events are all too old are dropped. Mixed ones lose theirs when they are compacted, which those are, too,
//! of which half is too old, a day after they were written at the latest.

use uuid::Uuid;

use crate::{
    error::Result,
    manifest::{Chain, Change, Published, Reason, State},
};

/// The live segments with nothing from this moment on, microseconds since the Unix epoch.
pub(crate) fn expired(state: &State, from_micros: i64) -> Vec<Uuid> {
    state.live.values().filter(|segment| segment.times.max < from_micros).map(|segment| segment.id).collect()
}

/// Drops them; returns how many those were.
pub(crate) async fn run(chain: &mut Chain, writer: Uuid, from_micros: i64) -> Result<usize> {
    chain.follow().await?;
    loop {
        let removed = expired(chain.state(), from_micros);
        let count = removed.len();
        if count == 0 {
            return Ok(0);
        }
        let change = Change::Replace { removed, added: Vec::new(), reason: Reason::Retention };
        match chain.publish(writer, &change).await? {
            Published::Done => return Ok(count),
            // Another replaced some of them: what is still too old is found again.
            Published::Refused(_) => {}
        }
    }
}
