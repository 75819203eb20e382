//! Appending: one delivery counter a batch, not one future a record.

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::{sync::oneshot, time::sleep};
use tracing::error;

use super::cause::{self, Causes};
use crate::{
    Appended, Error, Record, Result,
    sync::{Room, locked},
};

/// The records of one append, on their way.
#[derive(Debug)]
pub(super) struct Batch {
    topic: String,
    partition: u32,
    /// Deliveries that are still to be reported, and one for the sender itself while it is at it.
    left: AtomicUsize,
    first: AtomicI64,
    last: AtomicI64,
    failure: Mutex<Option<KafkaError>>,
    reply: Mutex<Option<oneshot::Sender<Result<Appended>>>>,
    /// Given back when the last record is acknowledged.
    room: Room,
}

impl Batch {
    fn fail(&self, error: KafkaError) {
        locked(&self.failure).get_or_insert(error);
    }

    /// Counts one report; the last one answers.
    fn done(&self, causes: &Causes) {
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let Some(reply) = locked(&self.reply).take() else { return };
        let outcome = match locked(&self.failure).take() {
            Some(error) => Err(causes.explain(&self.topic, Some(self.partition), &error)),
            None => Ok(Appended {
                first: self.first.load(Ordering::Relaxed) as u64,
                last: self.last.load(Ordering::Relaxed) as u64,
            }),
        };
        // Whoever asked may have gone away; the records stay.
        let _ = reply.send(outcome);
    }
}

#[derive(Debug)]
pub(super) struct Deliveries {
    causes: Arc<Causes>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        cause::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.causes.note(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        match result {
            Ok(message) => {
                batch.first.fetch_min(message.offset(), Ordering::Relaxed);
                batch.last.fetch_max(message.offset(), Ordering::Relaxed);
            }
            Err((error, _)) => batch.fail(error.clone()),
        }
        batch.done(&self.causes);
    }
}

/// librdkafka's producer, built anew when it has failed for good.
pub(super) struct Producer {
    config: ClientConfig,
    causes: Arc<Causes>,
    current: RwLock<Arc<ThreadedProducer<Deliveries>>>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    pub(super) fn new(config: ClientConfig, causes: Arc<Causes>) -> Result<Self> {
        let current = RwLock::new(Arc::new(build(&config, &causes)?));
        Ok(Self { config, causes, current })
    }

    fn current(&self) -> Arc<ThreadedProducer<Deliveries>> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends the records and waits for the last acknowledgement.
    pub(super) async fn append(
        &self,
        topic: &str,
        partition: u32,
        records: &[Record],
        room: Room,
    ) -> Result<Appended> {
        let (reply, answer) = oneshot::channel();
        let batch = Arc::new(Batch {
            topic: topic.to_owned(),
            partition,
            left: AtomicUsize::new(records.len() + 1),
            first: AtomicI64::new(i64::MAX),
            last: AtomicI64::new(i64::MIN),
            failure: Mutex::new(None),
            reply: Mutex::new(Some(reply)),
            room,
        });
        let producer = self.current();
        let mut sent = 0;
        while sent < records.len() {
            match send(&producer, &batch, &records[sent]) {
                Ok(()) => sent += 1,
                // Only settings in `extra` can make the client's bound smaller than ours.
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) if sent > 0 => {
                    sleep(Duration::from_millis(1)).await;
                }
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {
                    return Err(batch.room.full());
                }
                Err(e) => {
                    batch.fail(e);
                    break;
                }
            }
        }
        let unsent = records.len() - sent;
        batch.left.fetch_sub(unsent, Ordering::AcqRel);
        batch.done(&self.causes);
        drop(batch);
        let outcome = answer.await.unwrap_or(Err(Error::Closed));
        if producer.client().fatal_error().is_some() {
            self.rebuild(&producer)?;
        }
        outcome
    }

    /// Replaces a producer that has failed for good, unless somebody else has already.
    fn rebuild(&self, failed: &Arc<ThreadedProducer<Deliveries>>) -> Result<()> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, failed) {
            let why = failed.client().fatal_error().map_or_else(String::new, |(_, why)| why);
            error!(why, "the Kafka producer failed for good and is built anew");
            let failed = mem::replace(&mut *current, Arc::new(build(&self.config, &self.causes)?));
            // Dropping it waits for its thread.
            thread::spawn(move || drop(failed));
        }
        Ok(())
    }

    /// Asks the cluster something with the producer's connections. Blocks.
    pub(super) fn ask<T>(
        &self,
        question: impl FnOnce(&rdkafka::client::Client<Deliveries>) -> Result<T, KafkaError>,
    ) -> Result<T, KafkaError> {
        let answer = question(self.current().client());
        if answer.is_ok() {
            self.causes.clear();
        }
        answer
    }

    /// Waits until everything on its way has been reported. Blocks.
    pub(super) fn flush(&self, patience: Duration) -> Result<(), KafkaError> {
        self.current().flush(patience)
    }
}

fn build(config: &ClientConfig, causes: &Arc<Causes>) -> Result<ThreadedProducer<Deliveries>> {
    let context = Deliveries { causes: Arc::clone(causes) };
    ThreadedProducer::from_config_and_context(config, context).map_err(super::refused)
}

fn send(
    producer: &ThreadedProducer<Deliveries>,
    batch: &Arc<Batch>,
    record: &Record,
) -> Result<(), KafkaError> {
    let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(&batch.topic, Arc::clone(batch))
        .partition(batch.partition as i32)
        .key(&record.key)
        .payload(&record.value);
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        message.headers = Some(record.headers.iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_ref() as &[u8]) })
        }));
    }
    producer.send(message).map_err(|(error, _)| error)
}

#[cfg(test)]
mod tests {
    use rdkafka::bindings::rd_kafka_test_fatal_error;

    use super::*;
    use crate::{KafkaConfig, sync::Bound};

    #[tokio::test]
    async fn a_producer_that_failed_for_good_is_built_anew() {
        let config = KafkaConfig::new(["127.0.0.1:1"]).producer();
        let producer = Producer::new(config, Arc::default()).unwrap();
        let first = producer.current();
        let code = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the client lives, and the text ends with a zero.
        unsafe { rd_kafka_test_fatal_error(first.client().native_ptr(), code, c"planted".as_ptr()) };
        let room = Bound::new(100).take(1).unwrap();
        let failed = producer.append("t", 0, &[Record::new("k", "v")], room).await;
        assert!(matches!(&failed, Err(e) if e.is_retryable()), "{failed:?}");
        assert!(!Arc::ptr_eq(&first, &producer.current()), "the next append has a producer that works");
        assert!(producer.current().client().fatal_error().is_none());
    }
}
