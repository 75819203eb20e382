//! What has to be true after a power cut, given what was acknowledged before it.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

use weir_disk::Disk;
use weir_log::{Bounds, EventLog};
use weir_store::EventStore;

use crate::{
    history::{Ack, History},
    system::{EVENTS, Failure, KEPT_BYTES, System, TOPICS, TRIMMED, record, user_of},
};

/// Opens what is there; everything that was acknowledged has to be there once.
pub(crate) async fn check(root: &Path, disk: Arc<dyn Disk>, history: &History) -> Result<System, Failure> {
    let system = System::open(root, disk).map_err(|error| format!("it does not open: {error}"))?;
    check_log(&system, history).await?;
    check_store(&system, history).await?;
    Ok(system)
}

async fn check_log(system: &System, history: &History) -> Result<(), Failure> {
    let has_topics = history.acks.iter().any(|ack| matches!(ack.what, Ack::Topics));
    for topic in TOPICS {
        let Ok(bounds) = system.log.bounds(topic, 0).await else {
            if has_topics {
                return Err(format!("topic {topic} is gone").into());
            }
            continue;
        };
        let (bounds, records) = read_all(system, topic, bounds).await?;
        let bytes: usize = records.iter().map(|(_, number)| record(*number).value.len()).sum();
        if bounds.start > 0 && (topic != TRIMMED || bytes < KEPT_BYTES as usize / 2) {
            return Err(format!("{topic} begins at {} and has {bytes} bytes", bounds.start).into());
        }
        let offsets = records.iter().map(|(offset, _)| *offset);
        if !offsets.eq(bounds.start..bounds.end) {
            return Err(format!("the offsets of {topic} are not all there from {bounds:?}").into());
        }
        let mut seen = HashSet::new();
        if let Some((offset, number)) = records.iter().find(|(_, number)| !seen.insert(*number)) {
            return Err(format!(
                "record {number} of {topic} is there twice, at {offset} for the second time"
            )
            .into());
        }
        let found: BTreeMap<u64, u64> = records.into_iter().collect();
        for ack in &history.acks {
            let Ack::Appended { topic: of, offset, number } = &ack.what else { continue };
            if *of == topic && *offset >= bounds.start && found.get(offset) != Some(number) {
                let instead = found.get(offset);
                return Err(format!(
                    "record {number} was acknowledged at {offset} of {topic}; there is {instead:?}, and the end is {}",
                    bounds.end
                )
                .into());
            }
        }
    }
    Ok(())
}

/// The records of a topic, and its bounds when they were read: retention may go on meanwhile.
async fn read_all(
    system: &System,
    topic: &'static str,
    mut bounds: Bounds,
) -> Result<(Bounds, Vec<(u64, u64)>), Failure> {
    loop {
        match system.read(topic, bounds.start).await {
            Ok(records) => return Ok((bounds, records)),
            Err(error) => {
                let now = system.log.bounds(topic, 0).await?;
                if now.start == bounds.start {
                    return Err(error);
                }
                bounds = now;
            }
        }
    }
}

async fn check_store(system: &System, history: &History) -> Result<(), Failure> {
    let chain = system.store.chain(0).await?;
    if let Some(damage) = chain.damage() {
        return Err(damage.into());
    }
    let next = system.store.next_offset(0).await?;
    let identity = system.log.identity().await?;
    for ack in &history.acks {
        match &ack.what {
            Ack::Stored { end } if *end > next => {
                return Err(format!("the store had events below {end}, and ends at {next}").into());
            }
            Ack::Bound { identity: known } if *known != identity => {
                return Err(format!("the log is {identity}, and was {known}").into());
            }
            Ack::Bound { .. } if system.store.bind("another log").await.is_ok() => {
                return Err("the store was bound to the log, and takes another".into());
            }
            Ack::Topics
            | Ack::Bound { .. }
            | Ack::Appended { .. }
            | Ack::Stored { .. }
            | Ack::Erased { .. }
            | Ack::Retained { .. } => {}
        }
    }
    let Ok(bounds) = system.log.bounds(EVENTS, 0).await else {
        return if next == 0 { Ok(()) } else { Err("the store has events of a log without a topic".into()) };
    };
    if next > bounds.end {
        return Err(format!("the store has events below {next}, and the log ends at {}", bounds.end).into());
    }
    if let Some(position) = system.committed().await?
        && position > next
    {
        return Err(format!("the consumer is at {position}, and the store at {next}").into());
    }
    check_events(system, history, next).await
}

async fn check_events(system: &System, history: &History, next: u64) -> Result<(), Failure> {
    let log: BTreeMap<u64, u64> = system.read(EVENTS, 0).await?.into_iter().collect();
    let events = system.events().await?;
    let erased: HashSet<u64> = history.erasures().collect();
    let retained = history.retention();
    if let Some(offset) = events.keys().find(|offset| **offset >= next) {
        return Err(format!("the store has an event at {offset}, and ends at {next}").into());
    }
    for offset in 0..next {
        match events.get(&offset) {
            Some(number) if log.get(&offset) == Some(number) => {}
            Some(number) => {
                return Err(format!(
                    "offset {offset} is {number} in the store and {:?} in the log",
                    log.get(&offset)
                )
                .into());
            }
            None if offset < retained || erased.contains(&user_of(log[&offset])) => {}
            None => {
                return Err(format!("offset {offset} is missing in the store, which ends at {next}").into());
            }
        }
    }
    for ack in &history.acks {
        let back = match &ack.what {
            Ack::Erased { user, end } => {
                events.iter().find(|(at, number)| **at < *end && user_of(**number) == *user)
            }
            Ack::Retained { before, left } => {
                events.iter().find(|(at, _)| **at < *before && left.binary_search(at).is_err())
            }
            Ack::Topics | Ack::Bound { .. } | Ack::Appended { .. } | Ack::Stored { .. } => None,
        };
        if let Some((offset, number)) = back {
            return Err(format!("event {number} at {offset} was deleted, and is back").into());
        }
    }
    Ok(())
}
