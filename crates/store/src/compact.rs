//! Compaction: few large segments instead of many small ones, with the same events.
//!
//! Segments of similar size are merged, so that an event is written again only a logarithmic number of times. Anybody may compact
//! at any time: whose inputs are no longer live when he publishes has worked in vain, and his files are orphans.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    clock,
    damage::look,
    error::{Error, Result},
    gc,
    manifest::{Chain, Change, Published, Reason, Segment, Span},
    objects::{Objects, apart},
    passed_over::{DAMAGED, PassedOver, REFUSED},
    segment::{self, Keep, Merge},
    store::Store,
};

/// A segment of this size stays as it is: queries gain little from larger ones. Bytes.
const FULL: u64 = 64 << 20;
/// Bytes that are merged at a time: about the largest segment there will be.
const MERGED: u64 = 256 << 20;
/// Segments that are merged at a time: as many files are open.
const INPUTS: usize = 64;
/// Segments are of similar size when they are between two consecutive powers of this.
const SIMILAR: u64 = 4;
/// Days, or spans of as many days each, that are told apart when looking where to part events.
const DAYS: i64 = 1000;
const DAY_MICROS: i64 = 86_400 * 1_000_000;

/// What was compacted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments fewer.
    pub fewer: usize,
    /// Why some could not be read or merged; all others are compacted.
    pub passed_over: Vec<String>,
}

/// What to merge next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) project: String,
    pub(crate) inputs: Vec<Arc<Segment>>,
    /// Midnights (UTC) at which a new segment begins.
    pub(crate) splits: Vec<i64>,
}

/// What is most worth merging: the largest group of at least `files` segments of a project that are of similar size. Where there is
/// none, a segment of which much is older than what is kept, unless it is soon to be merged, which drops that, too.
pub(crate) fn choose<'s>(
    live: impl Iterator<Item = &'s Arc<Segment>> + Clone,
    files: usize,
    memory: u64,
    kept_from: Option<i64>,
    now_micros: i64,
) -> Option<Choice> {
    group(live.clone(), files, memory).or_else(|| {
        let kept_from = kept_from?;
        let mut live = live.filter(|segment| is_settled(segment, now_micros));
        let expired = live.find(|segment| is_much_expired(segment, kept_from))?;
        let inputs = vec![Arc::clone(expired)];
        Some(Choice { project: expired.project.clone(), splits: splits(&inputs), inputs })
    })
}

/// Whether half of its time is before what is kept. It is half as long after each time that it is written anew, so that this happens a
/// few times only.
fn is_much_expired(segment: &Segment, kept_from: i64) -> bool {
    let (min, max) = (i128::from(segment.times.min), i128::from(segment.times.max));
    segment.times.min < kept_from && i128::from(kept_from) - min >= max - i128::from(kept_from)
}

/// Whether it is full, or was written more than a day ago and has found no others to be merged with. An event may come late by more
/// than events are kept, and then each fresh segment has a few that are too old.
fn is_settled(segment: &Segment, now_micros: i64) -> bool {
    let seconds = segment.id.get_timestamp().map_or(0, |written| written.to_unix().0.cast_signed());
    segment.bytes >= FULL || now_micros.saturating_sub(seconds.saturating_mul(1_000_000)) > DAY_MICROS
}

fn group<'s>(live: impl Iterator<Item = &'s Arc<Segment>>, files: usize, memory: u64) -> Option<Choice> {
    let mut groups: BTreeMap<(&str, u32), Vec<&Arc<Segment>>> = BTreeMap::new();
    for segment in live.filter(|segment| segment.bytes < FULL) {
        let size = segment.bytes.max(1).ilog(SIMILAR);
        groups.entry((&segment.project, size)).or_default().push(segment);
    }
    let ((project, _), mut group) = groups.into_iter().max_by_key(|(_, group)| group.len())?;
    if group.len() < files.max(2) {
        return None;
    }
    // Neighbours in the log are neighbours in time.
    group.sort_by_key(|segment| segment.offsets.min);
    let (mut bytes, mut held, mut inputs) = (0, 0, Vec::new());
    for segment in group.into_iter().take(INPUTS) {
        bytes += segment.bytes;
        held += segment.row_group_bytes();
        if bytes > MERGED || held > memory && inputs.len() >= 2 {
            break;
        }
        inputs.push(Arc::clone(segment));
    }
    let splits = splits(&inputs);
    Some(Choice { project: project.to_owned(), inputs, splits })
}

/// Midnights that part the events into pieces of whole days, none smaller than a full segment: questions about a day then read
/// less. Bytes are taken to be spread evenly over the days of their segment.
fn splits(inputs: &[Arc<Segment>]) -> Vec<i64> {
    let Some(times) = inputs.iter().map(|segment| segment.times).reduce(Span::join) else {
        return Vec::new();
    };
    let day_of = |micros: i64| micros.div_euclid(DAY_MICROS);
    // One day, unless some event is years from the others.
    let step = (day_of(times.max) - day_of(times.min)) / DAYS + 1;
    let mut days: BTreeMap<i64, u64> = BTreeMap::new();
    for segment in inputs {
        let first = day_of(segment.times.min).div_euclid(step);
        let last = day_of(segment.times.max).div_euclid(step);
        let share = segment.bytes / (last - first + 1).cast_unsigned();
        for day in first..=last {
            *days.entry(day * step).or_default() += share;
        }
    }
    let mut rest: u64 = days.values().sum();
    let mut piece = 0;
    let mut splits = Vec::new();
    for (day, bytes) in days {
        if piece >= FULL && rest >= FULL {
            splits.push(day * DAY_MICROS);
            piece = 0;
        }
        piece += bytes;
        rest -= bytes;
    }
    splits
}

/// The segments among these that can't be read, or are not what their manifests say, and why.
async fn unreadable(objects: &Objects, segments: &[Arc<Segment>]) -> Result<Vec<(Uuid, Error)>> {
    let mut unreadable = Vec::new();
    let check = |segment: Arc<Segment>| async move { segment::check(objects, &segment).await };
    let found = |segment: &Segment, looked: Result<()>| {
        unreadable.extend(looked.err().map(|error| (segment.id, error)))
    };
    look(segments, 1, check, found).await?;
    Ok(unreadable)
}

/// Merges what is most worth it; returns how many segments fewer there are, `None` when nothing is worth it.
///
/// Inputs that can't be read or merged are added to `passed_over`, so that they don't keep the others from being compacted. A torn one
/// can be replaced with its copy, a missing one may have been removed by another.
pub(crate) async fn once(
    store: &Store,
    chain: &mut Chain,
    writer: Uuid,
    kept_from: Option<i64>,
    passed_over: &mut PassedOver,
) -> Result<Option<usize>> {
    let turn = store.turn_to_compact().await;
    chain.follow().await?;
    let settings = store.settings();
    let live = &chain.state().live;
    passed_over.forget(Instant::now(), |id| live.contains_key(id));
    let wanted = live.values().filter(|segment| !passed_over.holds(segment.id));
    let Some(choice) = choose(
        wanted,
        settings.compact_files,
        settings.compaction_bytes as u64,
        kept_from,
        clock::now_micros(),
    ) else {
        return Ok(None);
    };
    let merge = Merge {
        project: choice.project,
        partition: chain.partition(),
        inputs: choice.inputs,
        keep: Keep { from_micros: kept_from, not_of: None },
        splits: choice.splits,
        always: settings.columns.clone(),
    };
    let removed: Vec<Uuid> = merge.inputs.iter().map(|segment| segment.id).collect();
    let before = removed.len();
    let begun = clock::now_micros();
    let objects = store.objects().clone();
    // The turn is over when the work is, which may be later than that anybody waits for it.
    let (turn, merge, unreadable) = apart(async move {
        let unreadable = unreadable(&objects, &merge.inputs).await?;
        Ok((turn, merge, unreadable))
    })
    .await?;
    if !unreadable.is_empty() {
        for (id, error) in unreadable {
            let wait = if error.is_retryable() { REFUSED } else { DAMAGED };
            passed_over.add(id, error.to_string(), Instant::now() + wait);
        }
        return Ok(Some(0));
    }
    let objects = store.objects().clone();
    let (_turn, merge, merged) = apart(async move {
        let merged = merge.run(&objects).await;
        Ok((turn, merge, merged))
    })
    .await?;
    let added = match merged {
        Ok(added) => added,
        // They are as they should be: there may be no room for what is made of them.
        Err(error) if error.is_retryable() => return Err(error),
        // One that is amiss is named; else they don't fit together, and would not the next time.
        Err(error) => {
            let named =
                |segment: &Segment| matches!(&error, Error::Segment { path, .. } if *path == segment.path);
            let any = merge.inputs.iter().any(|segment| named(segment));
            for segment in merge.inputs.iter().filter(|segment| !any || named(segment)) {
                let problem = format!("{} can't be merged with others: {error}", segment.path);
                passed_over.add(segment.id, problem, Instant::now() + DAMAGED);
            }
            return Ok(Some(0));
        }
    };
    gc::may_publish("a compaction", begun)?;
    let after = added.len();
    let change = Change::Replace { removed, added, reason: Reason::Compaction };
    match chain.publish(writer, &change).await? {
        Published::Done => Ok(Some(before.saturating_sub(after))),
        Published::Refused(refusal) => {
            tracing::debug!(%refusal, "another was faster; this compaction was in vain");
            Ok(Some(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(project: &str, megabytes: u64, days: std::ops::RangeInclusive<i64>) -> Arc<Segment> {
        Arc::new(Segment {
            project: project.to_owned(),
            bytes: megabytes << 20,
            times: Span { min: days.start() * DAY_MICROS, max: (days.end() + 1) * DAY_MICROS - 1 },
            ..Segment::example("")
        })
    }

    const MEMORY: u64 = 1 << 30;

    fn choice(live: &[Arc<Segment>], files: usize) -> Option<Choice> {
        choose(live.iter(), files, MEMORY, None, 0)
    }

    #[test]
    fn segments_of_similar_size_and_one_project_are_merged() {
        let mut live: Vec<_> = (0..4).map(|_| segment("a", 2, 0..=0)).collect();
        live.extend((0..3).map(|_| segment("b", 2, 0..=0)));
        live.push(segment("a", 30, 0..=0));
        let chosen = choice(&live, 4).unwrap();
        assert_eq!((chosen.project.as_str(), chosen.inputs.as_slice()), ("a", &live[..4]));
        assert_eq!(choice(&live, 5), None);
    }

    #[test]
    fn full_segments_stay_as_they_are() {
        let live: Vec<_> = (0..40).map(|_| segment("a", 64, 0..=0)).collect();
        assert_eq!(choice(&live, 2), None);
    }

    #[test]
    fn a_segment_of_which_half_is_too_old_is_written_anew() {
        let live = [segment("a", 64, 0..=9), segment("a", 200, 0..=3)];
        let chosen = |days: i64| {
            let choice = choose(live.iter(), 2, MEMORY, Some(days * DAY_MICROS), 0);
            choice.map(|choice| choice.inputs)
        };
        assert_eq!(chosen(1), None);
        assert_eq!(chosen(2), Some(vec![Arc::clone(&live[1])]));
        assert_eq!(chosen(5), Some(vec![Arc::clone(&live[0])]), "full ones, too");
        let forever = Segment { times: Span { min: i64::MIN, max: i64::MAX }, ..(*live[0]).clone() };
        assert!(is_much_expired(&forever, 0) && !is_much_expired(&forever, -1));
    }

    #[test]
    fn a_segment_that_is_soon_to_be_merged_is_not_written_anew_for_what_is_too_old_in_it() {
        let live = [segment("a", 2, 0..=9)];
        let now = clock::now_micros();
        let chosen = |now| choose(live.iter(), 2, MEMORY, Some(8 * DAY_MICROS), now);
        assert_eq!(chosen(now), None);
        assert_eq!(chosen(now + 2 * DAY_MICROS).map(|choice| choice.inputs), Some(live.to_vec()));
    }

    #[test]
    fn a_merged_segment_is_not_larger_than_the_largest_there_is_to_be() {
        let live: Vec<_> = (0..40).map(|_| segment("a", 60, 0..=0)).collect();
        let bytes: u64 = choice(&live, 4).unwrap().inputs.iter().map(|segment| segment.bytes).sum();
        assert!((FULL..=MERGED).contains(&bytes), "{bytes}");
    }

    #[test]
    fn no_more_are_merged_than_there_is_memory_for() {
        let live: Vec<_> = (0..40).map(|_| segment("a", 4, 0..=0)).collect();
        let merged = |megabytes: u64| choose(live.iter(), 16, megabytes << 20, None, 0).unwrap().inputs.len();
        assert_eq!([merged(1), merged(9), merged(32), merged(1000)], [2, 2, 8, 40]);
    }

    #[test]
    fn large_outputs_are_parted_at_midnights() {
        let small: Vec<_> = (0..4).map(|day| segment("a", 20, day..=day)).collect();
        assert_eq!(choice(&small, 4).unwrap().splits, [0i64; 0], "less than two full segments");
        let large: Vec<_> = (0..4).map(|day| segment("a", 60, day..=day)).collect();
        assert_eq!(choice(&large, 4).unwrap().splits, [2 * DAY_MICROS]);
        let wide: Vec<_> = (0..4).map(|_| segment("a", 60, -2..=1)).collect();
        assert_eq!(choice(&wide, 4).unwrap().splits, [0]);
    }

    /// With an entry for each day of all time this would take all memory.
    #[test]
    fn events_of_all_times_are_parted_like_others() {
        let mut all = segment("a", 60, 0..=0);
        Arc::make_mut(&mut all).times = Span { min: i64::MIN, max: i64::MAX };
        let live: Vec<_> =
            (0..4).map(|_| Arc::new(Segment { id: Uuid::now_v7(), ..(*all).clone() })).collect();
        let splits = choice(&live, 4).unwrap().splits;
        assert!(splits.len() == 2 && splits.iter().all(|split| split % DAY_MICROS == 0), "{splits:?}");
    }
}
