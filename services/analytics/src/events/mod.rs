//! Questions about the events themselves.
//!
//! A snapshot of the event store, segments and what their owners have beyond, is what a question sees; [`weir_query`] answers it.
//! Each module turns the requests of one kind into questions and their answers into responses.
//!
//! | module | what it is |
//! |---|---|
//! | [`summary`], [`series`], [`funnel`], [`retention`], [`paths`], [`user`], [`discovery`], [`export`], [`sql`] | the questions |
//! | [`turns`] | exports of slow readers |
//! | [`known`] | which names in a question no event has |
//! | [`hot`] | asks the owners of partitions for their newest events |

pub(crate) mod discovery;
pub(crate) mod export;
pub(crate) mod funnel;
pub(crate) mod hot;
mod known;
pub(crate) mod paths;
pub(crate) mod retention;
pub(crate) mod series;
pub(crate) mod sql;
mod summary;
pub(crate) mod turns;
pub(crate) mod user;

use std::{
    collections::BTreeMap,
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use datafusion::catalog::TableProvider;
use prost_types::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};
use weir_proto::google::r#type::Money;
use weir_proto::{
    analytics::v1::{self as pb, MissingPart, ResultInfo, result_info::Source},
    time::timestamp,
    token,
};
use weir_query::{Values, engine::Read};
use weir_rollup::Estimate;
use weir_runtime::{auth::ProjectId, clock::now_micros};
use weir_store::{
    HotSource, Reader, Snapshot, Store,
    manifest::Segment,
    table::Table,
    view::{Column, View},
};

use crate::{
    error::Error,
    question::{Answer, Counts, Kind},
    rollups::engine::Wanted,
};

/// Pause between two looks whether awaited events are there.
const LOOK: Duration = Duration::from_millis(5);
/// Pause between two looks whether a partition has an owner: taking one over takes from some milliseconds to seconds.
const ASSIGNMENT_LOOK: Duration = Duration::from_millis(50);

/// So often a question is asked again because segments were found damaged; each time all that are damaged are found.
const DAMAGES: usize = 2;

/// What answers questions about events.
#[derive(Debug)]
pub(crate) struct Events {
    store: Store,
    reader: Reader,
    /// Computes.
    pub(crate) engine: weir_query::Engine,
}

impl Events {
    pub(crate) fn new(
        store: Store,
        partitions: u32,
        owners: Arc<dyn HotSource>,
        engine: weir_query::Engine,
    ) -> Self {
        engine.environment().register_object_store(store.object_store_url().as_ref(), store.object_store());
        Self { reader: Reader::new(store.clone(), partitions, owners), store, engine }
    }

    /// All events of a project as they are now, those of the token among them. Until the deadline it waits for these, and for partitions that
    /// are being assigned; with a deadline that has passed it takes what there is of the latter.
    ///
    /// # Errors
    /// [`Error::Behind`] when the events of the token are not there in time, [`Error::StoreUnavailable`] also when it is known why,
    /// [`Error::Assigning`].
    pub(crate) async fn now(
        &self,
        project: &ProjectId,
        wanted: &Wanted,
        deadline: Instant,
    ) -> Result<Arc<Seen>, Error> {
        let started = Instant::now();
        let is_patient = deadline > started;
        loop {
            let snapshot = self.reader.snapshot(project.as_str()).await?;
            let seen = Seen { project: project.clone(), snapshot, store: self.store.clone() };
            let is_late = Instant::now() >= deadline;
            let unassigned = seen.snapshot.unassigned.first().copied().filter(|_| is_patient);
            match (seen.lacks(wanted), unassigned) {
                (None, None) => return Ok(Arc::new(seen)),
                (_, Some(partition)) if is_late => return Err(Error::Assigning { partition }),
                (_, Some(_)) => sleep_until(deadline.min(Instant::now() + ASSIGNMENT_LOOK)).await,
                (Some((partition, wanted)), None) if is_late => {
                    if let Some(trouble) = seen.trouble(partition) {
                        return Err(Error::StoreUnavailable(trouble.to_owned()));
                    }
                    let (reached, waited) = (seen.next_offset(partition), started.elapsed());
                    return Err(Error::Behind { partition, wanted, reached, waited });
                }
                (Some(_), None) => sleep(LOOK).await,
            }
        }
    }

    /// Asks a question that reads the events in a range. Where a segment turns out to be damaged, it is asked again without it. Gives
    /// the events that the answer is about, too.
    ///
    /// # Errors
    /// Of the question.
    pub(crate) async fn ask<T, A: Future<Output = Result<T, Error>>>(
        &self,
        mut seen: Arc<Seen>,
        reads: &Range<i64>,
        ask: impl Fn(Arc<Seen>) -> A,
    ) -> Result<(T, Arc<Seen>), Error> {
        for _ in 0..DAMAGES {
            match ask(Arc::clone(&seen)).await {
                Err(Error::Unreadable(_)) if self.isolate(&seen, reads).await => {
                    seen = self.now(&seen.project, &Wanted::default(), Instant::now()).await?;
                }
                asked => return Ok((asked?, seen)),
            }
        }
        Ok((ask(Arc::clone(&seen)).await?, seen))
    }

    /// Looks which segments are damaged, of those that a question about a range reads, so that later ones leave them out. Whether
    /// there are any.
    pub(crate) async fn isolate(&self, seen: &Seen, reads: &Range<i64>) -> bool {
        self.reader.isolate(&seen.snapshot, reads).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "segments could not be looked at");
            false
        })
    }
}

impl Events {
    /// Answers a question about the events in a range. Work stops when the future is dropped.
    ///
    /// # Errors
    /// When the question breaks a rule, the events can't be read, or memory or time don't suffice.
    pub(crate) async fn answer(
        &self,
        kind: &Kind,
        range: Range<i64>,
        seen: Arc<Seen>,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let (engine, events) = (&self.engine, seen.clone());
        Ok(match kind {
            Kind::Counts(Counts::Summary(summary)) => {
                Answer::Summary(summary.ask(engine, range, &seen, limit).await?)
            }
            Kind::Counts(Counts::TimeSeries(measures)) => {
                let asked = measures.ask(engine, range, &seen, limit).await?;
                Answer::TimeSeries(measures.series_response(&asked, &seen))
            }
            Kind::Counts(Counts::Breakdown(measures)) => {
                let asked = measures.ask(engine, range, &seen, limit).await?;
                Answer::Breakdown(measures.breakdown_response(&asked, &seen))
            }
            Kind::Funnel(funnel) => {
                let answer = engine.funnel(events, funnel.of(range.clone()), limit).await?;
                Answer::Funnel(funnel.response(&answer, &range, &seen))
            }
            Kind::Retention(retention) => {
                let answer = engine.retention(events, retention.of(range.clone()), limit).await?;
                Answer::Retention(retention.response(&answer, &range, &seen))
            }
            Kind::Paths(paths) => {
                let answer = engine.paths(events, paths.of(range.clone()), limit).await?;
                Answer::Paths(paths.response(&answer, &range, &seen))
            }
            Kind::UserEvents(timeline) => {
                let page = engine.timeline(events, timeline.of(range.clone()), limit).await?;
                Answer::UserEvents(timeline.response(&page, &range, &seen)?)
            }
        })
    }
}

/// The events of a moment.
#[derive(Debug)]
pub(crate) struct Seen {
    project: ProjectId,
    pub(crate) snapshot: Snapshot,
    store: Store,
}

impl weir_query::Events for Seen {
    fn table(&self, columns: &[Column]) -> Result<Arc<dyn TableProvider>, weir_query::Error> {
        Ok(Arc::new(Table::of(View::new(columns.iter().cloned()), &self.snapshot, &self.store)))
    }
}

impl Seen {
    /// The same as another snapshot has it.
    pub(crate) fn with(&self, snapshot: Snapshot) -> Self {
        Self { project: self.project.clone(), snapshot, store: self.store.clone() }
    }

    /// The same moment without any events.
    fn without_events(&self) -> Self {
        let (segments, segment_partitions) = (Vec::new(), Vec::new());
        let Self { snapshot, .. } = self.without_hot();
        self.with(Snapshot { segments, segment_partitions, ..snapshot })
    }

    /// The same without what is in memory, which would be kept there.
    pub(crate) fn without_hot(&self) -> Self {
        let (hot, hot_partitions) = (Vec::new(), Vec::new());
        self.with(Snapshot { hot, hot_partitions, ..self.snapshot.clone() })
    }

    /// By partition, the offset after the last event.
    pub(crate) fn next_offsets(&self) -> Vec<u64> {
        self.snapshot.next_offsets.values().copied().collect()
    }

    /// Every event before this moment is here.
    pub(crate) fn watermark(&self) -> Option<Timestamp> {
        (self.snapshot.watermark_micros > 0).then(|| timestamp(self.snapshot.watermark_micros))
    }

    /// A number that stands for which segments the events are in.
    pub(crate) fn segments(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        self.snapshot.segments.iter().for_each(|segment| segment.id.hash(&mut hash));
        hash.finish()
    }

    fn next_offset(&self, partition: u32) -> u64 {
        self.snapshot.next_offsets.get(&partition).copied().unwrap_or_default()
    }

    /// Why events of a partition are missing here, if they are.
    fn trouble(&self, partition: u32) -> Option<&str> {
        self.snapshot
            .stale
            .iter()
            .find(|(number, _)| *number == partition)
            .map(|(_, trouble)| trouble.as_str())
    }

    /// A partition, and the offset up to which its events are wanted but not all here.
    pub(crate) fn lacks(&self, wanted: &Wanted) -> Option<(u32, u64)> {
        wanted.offsets().find(|(partition, offset)| self.next_offset(*partition) <= *offset)
    }

    /// Whether some of the events may be missing.
    pub(crate) fn is_partial(&self) -> bool {
        !self.snapshot.stale.is_empty() || !self.snapshot.missing.is_empty()
    }

    /// About how many events a question about a range reads: as if those of a segment were spread evenly over its time.
    pub(crate) fn events_in(&self, range: &Range<i64>) -> u64 {
        let of_segment = |segment: &Segment| {
            let (first, last) = (segment.times.min, segment.times.max);
            let length = last.saturating_sub(first).max(1) as f64;
            let common = range.end.min(last).saturating_sub(range.start.max(first));
            let share = (common as f64 / length).clamp(0.0, 1.0);
            if segment.times.meets(range) { (segment.rows as f64 * share).ceil().max(1.0) as u64 } else { 0 }
        };
        let stored: u64 = self.snapshot.segments.iter().map(|segment| of_segment(segment)).sum();
        stored + self.snapshot.hot.iter().map(|batch| batch.num_rows() as u64).sum::<u64>()
    }

    /// What an answer from those of these events that are in a range says about itself.
    pub(crate) fn info(&self, range: &Range<i64>, read: Read, exact: bool) -> ResultInfo {
        let Snapshot { next_offsets, stale, segments, missing, .. } = &self.snapshot;
        let counted: BTreeMap<u32, u64> = next_offsets
            .iter()
            .filter_map(|(partition, next)| Some((*partition, next.checked_sub(1)?)))
            .collect();
        let unasked = stale.iter().map(|(partition, reason)| MissingPart {
            partition: *partition,
            reason: reason.clone(),
            ..MissingPart::default()
        });
        let damaged = missing.iter().filter(|part| part.times.meets(range)).map(|part| MissingPart {
            partition: part.partition,
            segment: part.path.clone(),
            events: part.rows,
            reason: part.problem.clone(),
        });
        let missing_parts: Vec<_> = unasked.chain(damaged).collect();
        let moment = |micros: i64| (i64::MIN < micros && micros < i64::MAX).then(|| timestamp(micros));
        ResultInfo {
            watermark: self.watermark(),
            consistency_token: token::encode(&counted),
            source: Source::Store.into(),
            late_events: read.late,
            rows_read: read.rows,
            bytes_read: read.bytes,
            start_time: moment(range.start),
            end_time: moment(range.end),
            exact: exact && missing_parts.is_empty(),
            missing_parts,
            coverage_start_time: self.kept_since(range).and_then(moment),
            segments_read: segments.len() as u64,
            ..ResultInfo::default()
        }
    }
}

impl Seen {
    /// Since when events are kept and none is missing, where the range begins before that.
    pub(crate) fn kept_since(&self, range: &Range<i64>) -> Option<i64> {
        let complete = Some(self.snapshot.complete_since_micros).filter(|since| range.start < *since);
        // Without a range, all that is kept is asked for.
        let kept = self.store.settings().retention.filter(|_| range.start > i64::MIN);
        let kept = kept.map(|kept| now_micros() - i64::try_from(kept.as_micros()).unwrap_or(i64::MAX));
        complete.max(kept.filter(|since| range.start < *since))
    }
}

/// The values of a group; null where events have none.
fn values(values: &Values) -> Vec<prost_types::Value> {
    use prost_types::value::Kind;
    let kind = |value: &Option<String>| value.clone().map_or(Kind::NullValue(0), Kind::StringValue);
    values.iter().map(|value| prost_types::Value { kind: Some(kind(value)) }).collect()
}

/// A figure and how good it is.
fn figure(estimate: Option<Estimate>, money: Option<Money>) -> pb::Figure {
    match estimate {
        None => pb::Figure { empty: true, exact: true, money, ..pb::Figure::default() },
        Some(Estimate { value, exact, lower, upper }) => {
            pb::Figure { value, exact, lower_bound: lower, upper_bound: upper, money, empty: false }
        }
    }
}
