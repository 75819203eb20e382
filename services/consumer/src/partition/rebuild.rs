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
    let empty = || {
        let window = Window::new(settings.dedup_window, settings.dedup_max_events);
        Decider::new(settings.plan.clone(), window)
    };
    let bounds = log.bounds(topic, partition).await?;
    if resume <= bounds.start {
        return Ok(empty());
    }
    let Some(time_ms) = time_before(log, topic, partition, bounds.start, resume).await? else {
        return Ok(empty());
    };
    let width = settings.dedup_window;
    let from_ms = Window::rebuild_from_ms(width, time_ms);
    let mut from = log.offset_at_time(topic, partition, from_ms).await?.clamp(bounds.start, resume);
    let before_ms = time_before(log, topic, partition, bounds.start, from).await?;
    if let (Some(before_ms), Some(first_ms)) =
        (before_ms, time_from(log, topic, partition, from, resume).await?)
        && Window::leaps(width, before_ms, first_ms, time_ms)
    {
        let from_ms = Window::rebuild_from_ms(width, before_ms);
        from = log.offset_at_time(topic, partition, from_ms).await?.clamp(bounds.start, from);
    }
    loop {
        let mut decider = empty();
        let mut reader = log.reader(topic, partition, from).await?;
        while reader.position() < resume {
            let batch = reader.next(Duration::from_secs(1)).await?;
            decider.recall(&batch, resume);
            progress(reader.position().min(resume));
        }
        // Where the log's clock was wrong, it takes what was before that, too.
        let Some(from_ms) = decider.rebuild_before_set_back_ms() else { return Ok(decider) };
        let earlier = log.offset_at_time(topic, partition, from_ms).await?.clamp(bounds.start, from);
        if earlier == from {
            return Ok(decider);
        }
        from = earlier;
    }
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
        if let Some(time_ms) = time_from(log, topic, partition, from, resume).await? {
            return Ok(Some(time_ms));
        }
        if from == start {
            break;
        }
    }
    Ok(None)
}

/// The append time of the first record in a range of offsets; `None` if there is none.
async fn time_from(
    log: &Arc<dyn EventLog>,
    topic: &str,
    partition: u32,
    from: Offset,
    end: Offset,
) -> Result<Option<i64>, Error> {
    let mut reader = log.reader(topic, partition, from).await?;
    while reader.position() < end {
        let batch = reader.next(Duration::from_secs(1)).await?;
        if let Some(record) = batch.iter().next() {
            return Ok((record.offset < end).then_some(record.append_time_ms));
        }
    }
    Ok(None)
}
