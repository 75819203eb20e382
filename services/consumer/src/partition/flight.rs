//! Appending micro-batches: several may be under way, in order.
//!
//! Each is handed to the log before the next is made, so they become durable in order, and a failure leaves a gap that the chain
//! turns into void batches, never into wrong counts. What can be tried again without doubt is tried again here: a full
//! queue (nothing was appended) and dead letters (twice does no harm). Anything else ends the claim: whether the batch is in the log is
//! unknown, and only reading tells.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::{self, BoxFuture},
    stream::FuturesOrdered,
};
use prost::Message;
use tokio::sync::watch;
use weir_log::{EventLog, Offset, Record};
use weir_proto::{
    event::v1 as event,
    rollup::v1::{MetricsRecord, Tally, metrics_record},
};

use super::backoff::Backoff;
use crate::{reject::DeadLetter, settings::Settings, sink::Cut};

/// Micro-batches under way at most. An append takes one or two group commits, so that two already keep the log busy.
const MAX_IN_FLIGHT: usize = 4;
/// Bytes of dead letters handed over at once.
const DEAD_LETTERS_AT_ONCE: usize = 1 << 20;
/// What the envelope of a dead letter takes at most, besides key and value.
const ENVELOPE: usize = 4096;

/// A micro-batch that is durable.
#[derive(Debug)]
pub(crate) struct Landed {
    /// The source offset after it.
    pub(crate) end: Offset,
    /// What became of its records.
    pub(crate) tally: Tally,
    /// Its dead letters by reason.
    pub(crate) malformed: u64,
    /// Likewise.
    pub(crate) invalid: u64,
    /// How long it took.
    pub(crate) took: Duration,
}

/// The reason for which an append waits, empty at first; `None` when none does.
type Stall = Arc<watch::Sender<Option<String>>>;

type Append = BoxFuture<'static, Result<Landed, weir_log::Error>>;

/// Micro-batches under way, oldest first.
pub(super) struct Flight {
    log: Arc<dyn EventLog>,
    metrics: String,
    events: String,
    dead_letters: String,
    partition: u32,
    appends: FuturesOrdered<Append>,
    submitted: VecDeque<Instant>,
    /// Why the newest append has not reached the log yet, if so: nothing may be submitted after it.
    stall: Stall,
}

impl Flight {
    pub(super) fn new(log: Arc<dyn EventLog>, settings: &Settings, partition: u32) -> Self {
        Self {
            log,
            metrics: settings.metrics.clone(),
            events: settings.events.clone(),
            dead_letters: settings.dead_letters.clone(),
            partition,
            appends: FuturesOrdered::new(),
            submitted: VecDeque::new(),
            stall: Stall::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.appends.len() < MAX_IN_FLIGHT && self.stall.borrow().is_none()
    }

    /// Why the newest has not reached the log yet, if there is a reason.
    pub(super) fn trouble(&self) -> Option<String> {
        self.stall.borrow().clone().filter(|reason| !reason.is_empty())
    }

    /// How long the oldest has been under way.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.submitted.front().map(Instant::elapsed)
    }

    /// The next one that landed; waits for ever when none is under way.
    pub(super) async fn landed(&mut self) -> Result<Landed, weir_log::Error> {
        match self.appends.next().await {
            Some(landed) => {
                self.submitted.pop_front();
                landed
            }
            None => future::pending().await,
        }
    }

    /// Hands a cut over. There must be room.
    pub(super) async fn submit(&mut self, cut: Cut) {
        debug_assert!(self.has_room(), "the caller looks first");
        let Cut { dead_letters, batch } = cut;
        let (end, tally) = (batch.end_offset, batch.tally.unwrap_or_default());
        let of = |reason| dead_letters.iter().filter(|d| d.rejection.reason() == reason).count() as u64;
        let (malformed, invalid) =
            (of(event::dead_letter::Reason::Malformed), of(event::dead_letter::Reason::Invalid));
        let letters: Vec<Record> = dead_letters.into_iter().map(|letter| self.letter(letter)).collect();
        let batch = MetricsRecord { record: Some(metrics_record::Record::Batch(batch)) };
        let record = Record::new(Bytes::new(), batch.encode_to_vec());

        let (log, partition) = (Arc::clone(&self.log), self.partition);
        let (metrics, dead_topic) = (self.metrics.clone(), self.dead_letters.clone());
        let stall = Stall::clone(&self.stall);
        let started = Instant::now();
        let mut append: Append = Box::pin(async move {
            if !letters.is_empty() {
                stall.send_replace(Some(String::new()));
                append_letters(&log, &dead_topic, partition, letters, &stall).await?;
            }
            let mut backoff = Backoff::default();
            loop {
                match log.append(&metrics, partition, vec![record.clone()]).await {
                    Err(error @ weir_log::Error::QueueFull { .. }) => {
                        stall.send_replace(Some(error.to_string()));
                        backoff.pause().await;
                    }
                    done => {
                        stall.send_replace(None);
                        return done.map(|_| Landed {
                            end,
                            tally,
                            malformed,
                            invalid,
                            took: started.elapsed(),
                        });
                    }
                }
            }
        });
        // The first poll hands it to the log, before any later one.
        let append = match futures::poll!(Pin::new(&mut append)) {
            Poll::Ready(done) => Box::pin(future::ready(done)),
            Poll::Pending => append,
        };
        self.appends.push_back(append);
        self.submitted.push_back(started);
    }

    fn letter(&self, letter: DeadLetter) -> Record {
        let dead = event::DeadLetter {
            topic: self.events.clone(),
            partition: self.partition,
            offset: letter.offset,
            key: letter.key.clone(),
            value: letter.value,
            reason: letter.rejection.reason().into(),
            detail: letter.rejection.to_string(),
            fail_time: Some(SystemTime::now().into()),
        };
        Record::new(letter.key, dead.encode_to_vec())
    }
}

/// Appends dead letters, again and again until they are durable or it makes no sense any more.
async fn append_letters(
    log: &Arc<dyn EventLog>,
    topic: &str,
    partition: u32,
    letters: Vec<Record>,
    stall: &Stall,
) -> Result<(), weir_log::Error> {
    let mut letters = VecDeque::from(letters);
    let mut backoff = Backoff::default();
    while !letters.is_empty() {
        let mut bytes = 0;
        let fits = letters.iter().take_while(|record| {
            bytes += record.key.len() + record.value.len();
            bytes <= DEAD_LETTERS_AT_ONCE
        });
        let count = fits.count().max(1);
        let some: Vec<Record> = letters.iter().take(count).cloned().collect();
        match log.append(topic, partition, some).await {
            Ok(_) => {
                letters.drain(..count);
                backoff = Backoff::default();
            }
            Err(error @ weir_log::Error::TooLarge { limit, .. }) => {
                if !letters.iter_mut().take(count).fold(false, |any, letter| any | shorten(letter, limit)) {
                    return Err(error);
                }
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(topic, partition, %error, "dead letters can't be written; trying again");
                stall.send_replace(Some(error.to_string()));
                backoff.pause().await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A record at the log's limit does not fit into an envelope any more: the beginnings of its key, which a dead letter has twice,
/// and of its value have to do. The original stays in the events topic as long as that is kept. Says whether that made it
/// shorter.
fn shorten(record: &mut Record, limit: u64) -> bool {
    let Ok(mut dead) = event::DeadLetter::decode(&*record.value) else { return false };
    let room = (limit as usize).saturating_sub(ENVELOPE);
    let (whole_key, whole_value) = (dead.key.len(), dead.value.len());
    dead.key.truncate(room / 4);
    dead.value.truncate(room - 2 * dead.key.len());
    let (key, value) = (dead.key.len(), dead.value.len());
    if (key, value) == (whole_key, whole_value) {
        return false;
    }
    let kept =
        format!("; kept are {key} of {whole_key} bytes of its key, {value} of {whole_value} of its value");
    dead.detail.push_str(&kept);
    *record = Record::new(dead.key.clone(), dead.encode_to_vec());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 20;

    fn letter(key: usize, value: usize) -> Record {
        let key = Bytes::from(vec![b'k'; key]);
        let dead =
            event::DeadLetter { key: key.clone(), value: vec![b'v'; value].into(), ..Default::default() };
        Record::new(key, dead.encode_to_vec())
    }

    #[test]
    fn whatever_was_a_record_fits_as_a_dead_letter_in_one_go() {
        let limit = LIMIT as usize;
        for (key, value) in [(0, limit), (limit, 0), (limit / 2, limit / 2), (limit / 2 + 1, 0), (100, limit)]
        {
            let mut record = letter(key, value);
            assert!(shorten(&mut record, LIMIT), "key of {key}, value of {value}");
            let size = record.key.len() + record.value.len();
            assert!(size + 64 <= limit, "{size} bytes are left of a key of {key} and a value of {value}");
            let dead = event::DeadLetter::decode(&*record.value).unwrap();
            assert_eq!(dead.key, record.key);
            assert!(dead.detail.contains(&format!("of {value} of its value")), "{}", dead.detail);
        }
    }

    #[test]
    fn what_is_short_is_said_not_to_get_shorter() {
        assert!(!shorten(&mut letter(100, 1000), LIMIT));
        assert!(!shorten(&mut letter(0, 0), 1), "nor what would never fit");
        assert!(!shorten(&mut Record::new("", "\u{7f}"), LIMIT), "nor what is no dead letter");
    }
}
