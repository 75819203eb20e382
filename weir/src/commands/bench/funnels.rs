//! The part of `weir bench latency` that asks: from the call that sends the last step of a funnel until an ad-hoc funnel counts it.
//!
//! Visits of one user, each in a session of its own, complete a funnel one after the other, and the funnel is asked again as soon as
//! it has answered. What is one user's is counted in the order in which it was sent; so when an answer has *n* conversions, the
//! *n*-th call's time is known.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use weir_proto::{
    analytics::v1::{CountBy, FunnelStep, QueryFunnelRequest, TimeRange},
    event::v1::Event,
    ingest::v1::IngestEventsRequest,
};

use super::latency::{PATIENCE, histogram, record};
use crate::client::Connection;

/// Time between two visits.
const EVERY: Duration = Duration::from_millis(20);
/// Steps of the funnel.
const STEPS: [&str; 3] = ["browse", "order", "pay"];

/// Makes visits and asks until all that were made are counted; how long each took that began in the measured time.
pub(super) async fn measure(
    connection: Connection,
    run: String,
    measured: Range<Instant>,
) -> Result<Histogram<u64>> {
    let waiting = Mutex::default();
    let sending = visit(&connection, &run, measured.end, &waiting);
    let asking = ask(&connection, &run, &measured, &waiting);
    tokio::pin!(sending, asking);
    tokio::select! {
        sent = &mut sending => sent?,
        // Only an error ends it before the time.
        asked = &mut asking => return asked,
    }
    asking.await
}

fn names(run: &str) -> [String; 3] {
    STEPS.map(|step| format!("bench_{run}_{step}"))
}

async fn visit(
    connection: &Connection,
    run: &str,
    until: Instant,
    waiting: &Mutex<VecDeque<Instant>>,
) -> Result<()> {
    let mut ingest = connection.ingest()?;
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        tick.tick().await;
        if Instant::now() >= until {
            break;
        }
        let now = Timestamp::now();
        // A millisecond apart, so that the steps have an order.
        let events = (0..).zip(names(run)).map(|(step, event_name)| Event {
            event_name,
            user_id: format!("bench_{run}"),
            session_id: format!("visit {number}"),
            event_time: Some(prost_types::Timestamp {
                seconds: now.as_second(),
                nanos: now.subsec_nanosecond() / 10 + step * 1_000_000,
            }),
            ..Event::default()
        });
        let events = events.collect();
        waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
        let answer = ingest.ingest_events(IngestEventsRequest { events }).await;
        answer.map_err(|status| connection.explain(status))?;
    }
    Ok(())
}

async fn ask(
    connection: &Connection,
    run: &str,
    measured: &Range<Instant>,
    waiting: &Mutex<VecDeque<Instant>>,
) -> Result<Histogram<u64>> {
    let mut analytics = connection.analytics()?;
    let step = |name| FunnelStep { event_names: vec![name], ..FunnelStep::default() };
    let request = QueryFunnelRequest {
        time_range: Some(TimeRange {
            last: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
            ..TimeRange::default()
        }),
        steps: names(run).map(step).into(),
        count_by: CountBy::Sessions.into(),
        ..QueryFunnelRequest::default()
    };
    let (mut took, mut counted) = (histogram()?, 0);
    loop {
        let answer = analytics.query_funnel(request.clone()).await;
        let answer = answer.map_err(|status| connection.explain(status))?.into_inner();
        let converted =
            answer.total.as_ref().and_then(|total| total.steps.last()).map_or(0, |step| step.count);
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while counted < converted {
            let called = waiting.pop_front().context("more visits are counted than were made")?;
            record((called, called.elapsed()), measured.start, &mut took);
            counted += 1;
        }
        let now = Instant::now();
        if now >= measured.end && waiting.is_empty() {
            return Ok(took);
        }
        if now >= measured.end + PATIENCE {
            bail!("{} visits are not counted by a funnel", waiting.len());
        }
    }
}
