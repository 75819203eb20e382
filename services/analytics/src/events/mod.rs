//! Questions about the events themselves.
//!
//! A snapshot of the event store, segments and what their owners have beyond, is what a question sees; [`weir_query`] answers it.
//! Each module turns the requests of one kind into questions and their answers into responses.
//!
//! | module | what it is |
//! |---|---|
//! | [`series`], [`funnel`], [`retention`], [`paths`], [`user`], [`discovery`], [`export`], [`sql`] | the questions |
//! | [`hot`] | asks the owners of partitions for their newest events |
//! | [`needs`] | which requests rollups can't answer as asked |

pub(crate) mod discovery;
pub(crate) mod export;
pub(crate) mod funnel;
pub(crate) mod hot;
pub(crate) mod needs;
pub(crate) mod paths;
pub(crate) mod retention;
pub(crate) mod series;
pub(crate) mod sql;
pub(crate) mod user;

use std::{collections::BTreeMap, sync::Arc};

use datafusion::catalog::TableProvider;
use tokio::time::{Instant, sleep};
use weir_proto::google::r#type::Money;
use weir_proto::{
    analytics::v1::{self as pb, MissingPart, ResultInfo, result_info::Source},
    time::timestamp,
    token,
    validate::{Path, Violations},
};
use weir_query::{Actor, Values, engine::Read, filter::Filter};
use weir_rollup::Estimate;
use weir_store::{
    HotSource, Reader, Snapshot, Store,
    table::{File, Table},
    view::{Column, View},
};

use crate::{engine::Wanted, error::Error};

/// Pause between two looks whether awaited events are there.
const LOOK: std::time::Duration = std::time::Duration::from_millis(5);

/// What answers questions about events.
#[derive(Debug)]
pub(crate) struct Events {
    store: Store,
    reader: Reader,
    /// Computes.
    pub(crate) engine: weir_query::Engine,
    project: Arc<str>,
}

impl Events {
    pub(crate) fn new(
        store: Store,
        partitions: u32,
        owners: Arc<dyn HotSource>,
        engine: weir_query::Engine,
        project: Arc<str>,
    ) -> Self {
        engine.environment().register_object_store(store.object_store_url().as_ref(), store.object_store());
        Self { reader: Reader::new(store.clone(), partitions, owners), store, engine, project }
    }

    /// All events as they are now, those of the token among them.
    ///
    /// # Errors
    /// [`Error::Behind`] when these are not there in time, [`Error::StoreUnavailable`].
    pub(crate) async fn now(&self, wanted: &Wanted, deadline: Instant) -> Result<Arc<Seen>, Error> {
        let started = Instant::now();
        loop {
            let snapshot = self.reader.snapshot(&self.project).await?;
            let next = |partition: u32| snapshot.next_offsets.get(&partition).copied().unwrap_or_default();
            let behind = wanted.offsets().find(|(partition, offset)| next(*partition) <= *offset);
            match behind {
                None => return Ok(Arc::new(Seen { snapshot, store: self.store.clone() })),
                Some((partition, wanted)) if Instant::now() >= deadline => {
                    let (reached, waited) = (next(partition), started.elapsed());
                    return Err(Error::Behind { partition, wanted, reached, waited });
                }
                Some(_) => sleep(LOOK).await,
            }
        }
    }
}

/// The events of a moment.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) snapshot: Snapshot,
    store: Store,
}

impl weir_query::Events for Seen {
    fn table(&self, columns: &[Column]) -> Result<Arc<dyn TableProvider>, weir_query::Error> {
        let files = self.snapshot.segments.iter().map(|segment| File::from(&**segment)).collect();
        Ok(Arc::new(Table::new(
            View::new(columns.iter().cloned()),
            files,
            self.snapshot.hot.clone(),
            self.store.object_store_url(),
            self.store.object_store(),
        )))
    }
}

impl Seen {
    /// Why these events are asked and not a rollup. Where some of them are missing, `declined`, which the rollups said, is the
    /// better answer.
    ///
    /// # Errors
    /// `declined`.
    pub(crate) fn instead_of(
        &self,
        declined: Option<Error>,
        why: Option<&'static str>,
    ) -> Result<Option<String>, Error> {
        match declined {
            Some(error) if !self.snapshot.stale.is_empty() => Err(error),
            Some(error) => Ok(Some(error.to_string())),
            None => Ok(why.map(str::to_owned)),
        }
    }

    /// The range of all events, first and last included.
    pub(crate) fn everything(&self) -> std::ops::Range<i64> {
        i64::MIN..i64::MAX
    }

    /// What an answer from these events says about itself.
    pub(crate) fn info(
        &self,
        range: &std::ops::Range<i64>,
        read: Read,
        late: u64,
        exact: bool,
    ) -> ResultInfo {
        let Snapshot { next_offsets, watermark_micros, stale, segments, .. } = &self.snapshot;
        let counted: BTreeMap<u32, u64> = next_offsets
            .iter()
            .filter_map(|(partition, next)| Some((*partition, next.checked_sub(1)?)))
            .collect();
        let missing = stale.iter().map(|(partition, reason)| MissingPart {
            partition: *partition,
            reason: reason.clone(),
            ..MissingPart::default()
        });
        let moment = |micros: i64| (i64::MIN < micros && micros < i64::MAX).then(|| timestamp(micros));
        ResultInfo {
            watermark: (*watermark_micros > 0).then(|| timestamp(*watermark_micros)),
            consistency_token: token::encode(&counted),
            source: Source::Store.into(),
            late_events: late,
            rows_read: read.rows,
            bytes_read: read.bytes,
            start_time: moment(range.start),
            end_time: moment(range.end),
            exact: exact && stale.is_empty(),
            missing_parts: missing.collect(),
            segments_read: segments.len() as u64,
            ..ResultInfo::default()
        }
    }
}

/// Events with one of these names that pass the filter.
fn event_filter(
    names: &[String],
    filter: Option<&pb::Filter>,
    at: &Path<'_>,
    found: &mut Violations,
) -> Filter {
    Filter::parse(filter, at, found).with_event_names(names)
}

/// The events that a selector means; all when it is absent.
fn selected(selector: Option<&pb::EventSelector>, at: &Path<'_>, found: &mut Violations) -> Filter {
    let nothing = pb::EventSelector::default();
    let selector = selector.unwrap_or(&nothing);
    event_filter(&selector.event_names, selector.filter.as_ref(), &at.field("filter"), found)
}

fn actor(by: pb::CountBy) -> Actor {
    match by {
        pb::CountBy::Unspecified | pb::CountBy::Users => Actor::User,
        pb::CountBy::Sessions => Actor::Session,
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
        Some(Estimate { value, exact: true, .. }) => {
            pb::Figure { value, exact: true, money, ..pb::Figure::default() }
        }
        Some(Estimate { value, exact: false, lower, upper }) => {
            pb::Figure { value, lower_bound: lower, upper_bound: upper, money, ..pb::Figure::default() }
        }
    }
}
