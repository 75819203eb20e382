//! Measures how far a partition is behind the end of the log, beside its actor: a broker that answers slowly holds nobody up.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::MissedTickBehavior};
use weir_log::EventLog;
use weir_runtime::{Metrics, clock::now_micros};

use crate::partition::Progress;

/// How often.
const INTERVAL: Duration = Duration::from_secs(5);

/// What is measured.
#[derive(Debug)]
pub(crate) struct Lag {
    topic: String,
    number: u32,
    log: Arc<dyn EventLog>,
    progress: watch::Receiver<Progress>,
}

impl Lag {
    /// The lag of one partition of a topic.
    pub(crate) fn new(
        topic: &str,
        number: u32,
        log: Arc<dyn EventLog>,
        progress: watch::Receiver<Progress>,
    ) -> Self {
        Self { topic: topic.to_owned(), number, log, progress }
    }

    /// Measures for ever.
    pub(crate) fn measure(self, metrics: &Metrics) -> impl Future<Output = ()> + Send + use<> {
        let number = self.number.to_string();
        let records = metrics.kafka_consumer_lag(&self.topic, &number);
        let seconds = metrics.consumer_lag(&self.topic, &number);
        async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // A log that can't be reached is the actor's to tell.
                let Ok(bounds) = self.log.bounds(&self.topic, self.number).await else { continue };
                let Progress { next_metrics_offset, last_append_ms, .. } = *self.progress.borrow();
                let behind = bounds.end.saturating_sub(next_metrics_offset);
                records.set(i64::try_from(behind).unwrap_or(i64::MAX));
                let since_last = now_micros().saturating_sub(last_append_ms * 1000).max(0);
                seconds.set(if behind == 0 { 0.0 } else { since_last as f64 / 1e6 });
            }
        }
    }
}
