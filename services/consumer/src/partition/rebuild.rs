//! Filling the deduplication window with what the log shows before the offset at which processing goes on.

use std::{sync::Arc, time::Duration};

use weir_log::{EventLog, Offset};

use crate::{dedup::Window, error::Error, settings::Settings, shard::Decider};

/// Rebuilds the window as it was just before `resume`, which the log has reached. `progress` is told the offsets read.
pub(crate) async fn rebuild(
    log: &Arc<dyn EventLog>,
    settings: &Settings,
    partition: u32,
    resume: Offset,
    mut progress: impl FnMut(Offset),
) -> Result<Decider, Error> {
    let topic = settings.events.as_str();
    let window = Window::new(settings.dedup_window, settings.dedup_max_events);
    let mut decider = Decider::new(settings.plan.clone(), window);
    let bounds = log.bounds(topic, partition).await?;
    if resume <= bounds.start {
        return Ok(decider);
    }
    let Some(time_ms) = time_before(log, topic, partition, bounds.start, resume).await? else {
        return Ok(decider);
    };
    let from_ms = Window::rebuild_from_ms(settings.dedup_window, time_ms);
    let from = log.offset_at_time(topic, partition, from_ms).await?.clamp(bounds.start, resume);
    let mut reader = log.reader(topic, partition, from).await?;
    while reader.position() < resume {
        let batch = reader.next(Duration::from_secs(1)).await?;
        decider.recall(&batch, resume);
        progress(reader.position().min(resume));
    }
    Ok(decider)
}

/// The append time of some record before `resume`, usually the last one; `None` if there is none. Holes make it necessary to
/// look further back.
async fn time_before(
    log: &Arc<dyn EventLog>,
    topic: &str,
    partition: u32,
    start: Offset,
    resume: Offset,
) -> Result<Option<i64>, Error> {
    for back in [1, 64, 4096, u64::MAX] {
        let from = resume.saturating_sub(back).max(start);
        let mut reader = log.reader(topic, partition, from).await?;
        while reader.position() < resume {
            let batch = reader.next(Duration::from_secs(1)).await?;
            if let Some(record) = batch.iter().next() {
                if record.offset < resume {
                    return Ok(Some(record.append_time_ms));
                }
                break;
            }
        }
        if from == start {
            break;
        }
    }
    Ok(None)
}
