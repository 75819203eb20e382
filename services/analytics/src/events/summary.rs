//! `GetSummary` where rollups don't answer it exactly.

use std::{ops::Range, sync::Arc, time::Duration};

use weir_proto::analytics::v1 as pb;
use weir_query::{Engine, Error, engine::Read, series};
use weir_rollup::{
    Estimate,
    money::{Amount, Currency},
};

use super::{Seen, figure};
use crate::rollups::summary::{Summary, preceding};

impl Summary {
    /// The key figures of a range and, if events are kept since before it, of the range of the same length before that.
    ///
    /// # Errors
    /// As [`Engine::summary`].
    pub(crate) async fn ask(
        &self,
        engine: &Engine,
        range: Range<i64>,
        seen: &Arc<Seen>,
        limit: Duration,
    ) -> Result<pb::GetSummaryResponse, Error> {
        let current = engine.summary(seen.clone(), range.clone(), self.top_events, limit).await?;
        let before = preceding(&range);
        let previous = if seen.kept_since(&before).is_none() {
            Some(engine.summary(seen.clone(), before.clone(), 0, limit).await?)
        } else {
            None
        };
        let mut read = current.read;
        previous.iter().for_each(|previous| read += Read { late: 0, ..previous.read });
        let exact = is_exact(&current) && previous.as_ref().is_none_or(is_exact);
        let info = seen.info(&range, read, exact);
        let count = |count: u64| figure(Some(Estimate::exact(count as f64)), None);
        let top = current.top.iter().map(|event| pb::EventCount {
            event_name: event.name.clone(),
            events: Some(count(event.events)),
            unique_users: Some(count(event.users)),
        });
        Ok(pb::GetSummaryResponse {
            current: Some(figures(&current)),
            previous: previous.as_ref().map(figures),
            top_events: top.collect(),
            info: Some(info),
        })
    }
}

/// Amounts whose currency is known.
fn amounts(of: &series::Summary) -> impl Iterator<Item = &Amount> {
    of.revenue.amounts().iter().filter(|amount| amount.currency != Currency::NONE)
}

fn is_exact(of: &series::Summary) -> bool {
    !of.revenue.overflowed() && amounts(of).all(Amount::fits)
}

fn figures(of: &series::Summary) -> pb::SummaryFigures {
    let count = |count: u64| Some(figure(Some(Estimate::exact(count as f64)), None));
    pb::SummaryFigures {
        events: count(of.events),
        unique_users: count(of.users),
        sessions: count(of.sessions),
        revenue: amounts(of).map(Amount::to_money).collect(),
    }
}
