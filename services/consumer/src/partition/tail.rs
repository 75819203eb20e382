//! The end of `metrics-data` as every reader sees it: who owns the partition, and how far its results go.
//!
//! A claim is appended, then everything up to it is read: what the chain comes to at that point is the truth from which
//! processing goes on. Afterwards the owner keeps reading. What comes back confirms its own micro-batches and shows at once
//! when somebody else claims the partition.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message;
use uuid::Uuid;
use weir_log::{EventLog, Offset, PartitionReader, Record, RecordBatch, RecordRef};
use weir_proto::rollup::v1::{Claim, MetricsRecord, metrics_record};
use weir_rollup::chain::{Chain, ChainState, Hint, Verdict, VoidReason};
use weir_runtime::clock::now_micros;

use crate::{error::Error, settings::Settings};

/// `rollup.v1.MetricsRecord` without what is aggregated: the fields that the chain needs; the rest is skipped, not decoded.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(message, optional, tag = "1")]
    claim: Option<Claim>,
    #[prost(message, optional, tag = "2")]
    batch: Option<BatchHead>,
}

/// The first fields of `rollup.v1.MicroBatch`.
#[derive(Clone, PartialEq, Message)]
struct BatchHead {
    #[prost(bytes = "vec", tag = "1")]
    owner: Vec<u8>,
    #[prost(uint64, tag = "2")]
    start_offset: u64,
    #[prost(uint64, tag = "3")]
    end_offset: u64,
    #[prost(int64, tag = "4")]
    watermark_micros: i64,
}

/// A record as far as the chain is concerned.
#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Claim { owner: Uuid, address: String },
    Batch { owner: Uuid, start: Offset, end: Offset, watermark_micros: i64 },
}

impl Entry {
    /// `None` for what is no record of ours; it counts for nobody.
    fn read(value: &[u8]) -> Option<Self> {
        let head = Head::decode(value).ok()?;
        let owner = |bytes: &[u8]| Uuid::from_slice(bytes).ok();
        match (head.claim, head.batch) {
            (_, Some(batch)) => Some(Entry::Batch {
                owner: owner(&batch.owner)?,
                start: batch.start_offset,
                end: batch.end_offset,
                watermark_micros: batch.watermark_micros,
            }),
            (Some(claim), None) => Some(Entry::Claim { owner: owner(&claim.owner)?, address: claim.address }),
            (None, None) => None,
        }
    }

    /// Whether `state` can be what a chain comes to right after this record counted.
    fn leads_to(&self, state: &ChainState) -> bool {
        match self {
            Entry::Claim { owner, .. } => state.owner == Some(*owner),
            Entry::Batch { owner, end, .. } => {
                state.owner == Some(*owner) && state.next_source_offset == *end
            }
        }
    }
}

/// How this consumer stands to the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It owns it, and what it appended counts.
    Owner,
    /// Somebody else has claimed it.
    Fenced {
        /// The other's address.
        by: String,
    },
    /// A micro-batch of its own does not count, although it is the owner: an append before must have been lost.
    Void(VoidReason),
}

/// Reads one partition of `metrics-data` for the claim `owner`.
#[derive(Debug)]
pub(crate) struct Tail {
    reader: Box<dyn PartitionReader>,
    owner: Uuid,
    chain: Chain,
    hint: Option<Hint>,
    void: Option<VoidReason>,
    /// Append time of the record read last, and when that was.
    stamped: (i64, Instant),
}

impl Tail {
    /// Claims the partition and reads up to the claim.
    pub(crate) async fn claim(
        log: &Arc<dyn EventLog>,
        settings: &Settings,
        partition: u32,
    ) -> Result<Self, Error> {
        let owner = Uuid::new_v4();
        let claim = Claim {
            owner: owner.as_bytes().to_vec(),
            address: settings.address.clone(),
            claim_time_micros: now_micros(),
            kept_micros: settings.catalog.retention().to_micros(),
        };
        let claim = MetricsRecord { record: Some(metrics_record::Record::Claim(claim)) };
        let record = Record::new(Bytes::new(), claim.encode_to_vec());
        let claimed_at = log.append(&settings.metrics, partition, vec![record]).await?.last;

        let mut tail = Self::open(log, settings, partition, owner, claimed_at).await?;
        while tail.reader.position() <= claimed_at {
            tail.read(Duration::from_secs(1)).await?;
        }
        Ok(tail)
    }

    /// Starts at the hint that the group holds; at the beginning when there is none or when the log does not bear it out.
    async fn open(
        log: &Arc<dyn EventLog>,
        settings: &Settings,
        partition: u32,
        owner: Uuid,
        claimed_at: Offset,
    ) -> Result<Self, Error> {
        let topic = settings.metrics.as_str();
        // Nothing was stamped yet that is known of.
        let stamped = (0, Instant::now());
        let start = log.bounds(topic, partition).await?.start;
        let committed = log.committed(&settings.events, &settings.group, partition).await?;
        let hint = committed.and_then(|committed| committed.metadata.parse::<Hint>().ok());
        if let Some(hint) = hint.filter(|hint| (start + 1..=claimed_at).contains(&hint.metrics_offset)) {
            let before = hint.metrics_offset - 1;
            let mut reader = log.reader(topic, partition, before).await?;
            let batch = loop {
                let batch = reader.next(Duration::from_secs(1)).await?;
                if !batch.is_empty() {
                    break batch;
                }
            };
            let first = batch.get(0);
            if first.offset == before && Entry::read(first.value).is_some_and(|e| e.leads_to(&hint.state)) {
                let chain = Chain::restore(hint.state.clone());
                let mut tail = Self { reader, owner, chain, hint: Some(hint), void: None, stamped };
                tail.take(&batch, 1);
                return Ok(tail);
            }
            tracing::warn!(
                partition,
                "the committed hint does not fit {topic}; reading it from its beginning"
            );
        }
        if start > 0 {
            return Err(Error::HistoryDeleted { topic: topic.to_owned(), partition, start });
        }
        let reader = log.reader(topic, partition, start).await?;
        Ok(Self { reader, owner, chain: Chain::new(), hint: None, void: None, stamped })
    }

    /// Reads what is there, waiting for at most `max_wait`; whether there was anything. Cancel-safe.
    pub(crate) async fn read(&mut self, max_wait: Duration) -> Result<bool, Error> {
        let batch: RecordBatch = self.reader.next(max_wait).await?;
        self.take(&batch, 0);
        Ok(!batch.is_empty())
    }

    /// Takes a batch in, from its record `from` on.
    fn take(&mut self, batch: &RecordBatch, from: usize) {
        batch.iter().skip(from).for_each(|record| self.fold(&record));
        if let Some(last) = batch.len().checked_sub(1) {
            self.stamped = (batch.get(last).append_time_ms, Instant::now());
        }
    }

    fn fold(&mut self, record: &RecordRef<'_>) {
        let Some(entry) = Entry::read(record.value) else {
            tracing::warn!(
                offset = record.offset,
                "a record in the metrics topic is not Weir's; it counts for nothing"
            );
            return;
        };
        let (verdict, writer) = match entry {
            Entry::Claim { owner, address } => (self.chain.fold_claim(owner, &address), owner),
            Entry::Batch { owner, start, end, watermark_micros } => {
                (self.chain.fold_batch(owner, start, end, watermark_micros), owner)
            }
        };
        match verdict {
            // Only here does a hint stand right after a record that bears it out.
            Verdict::Claimed | Verdict::Accepted => {
                self.hint =
                    Some(Hint { metrics_offset: record.offset + 1, state: self.chain.state().clone() });
            }
            Verdict::Void(reason) if writer == self.owner => self.void = self.void.or(Some(reason)),
            Verdict::Void(_) => {}
        }
    }

    /// How this consumer stands, by what was read so far.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.chain.state();
        match self.void {
            _ if state.owner != Some(self.owner) => Standing::Fenced { by: state.address.clone() },
            Some(reason) => Standing::Void(reason),
            None => Standing::Owner,
        }
    }

    /// The id of this consumer's claim.
    pub(crate) fn owner(&self) -> Uuid {
        self.owner
    }

    /// What the chain comes to.
    pub(crate) fn state(&self) -> &ChainState {
        self.chain.state()
    }

    /// What the log's clock shows at least, microseconds since the Unix epoch: what it stamped last on this partition, and the
    /// time that has passed since that was read. This machine's own wall clock may be hours ahead of it.
    pub(crate) fn log_time_micros(&self) -> i64 {
        let (append_time_ms, read) = self.stamped;
        let passed = i64::try_from(read.elapsed().as_micros()).unwrap_or(i64::MAX);
        append_time_ms.saturating_mul(1000).saturating_add(passed)
    }

    /// Where the next claim may start to read.
    pub(crate) fn hint(&self) -> Option<&Hint> {
        self.hint.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::rollup::v1::{MicroBatch, ProjectDelta, Tally};

    use super::*;

    #[test]
    fn the_head_of_a_record_is_read_without_its_body() {
        let owner = Uuid::new_v4();
        let batch = MicroBatch {
            owner: owner.as_bytes().to_vec(),
            start_offset: 3,
            end_offset: 9,
            watermark_micros: -5,
            tally: Some(Tally { records: 6, ..Default::default() }),
            definitions: vec![1, 2],
            projects: vec![ProjectDelta { project: "default".to_owned(), rollups: vec![] }],
            imports: Vec::new(),
        };
        let record = MetricsRecord { record: Some(metrics_record::Record::Batch(batch)) };
        let expected = Entry::Batch { owner, start: 3, end: 9, watermark_micros: -5 };
        assert_eq!(Entry::read(&record.encode_to_vec()), Some(expected));

        let claim = Claim { owner: owner.as_bytes().to_vec(), address: "a:1".to_owned(), ..Claim::default() };
        let record = MetricsRecord { record: Some(metrics_record::Record::Claim(claim)) };
        let expected = Entry::Claim { owner, address: "a:1".to_owned() };
        assert_eq!(Entry::read(&record.encode_to_vec()), Some(expected));

        assert_eq!(Entry::read(b""), None);
        assert_eq!(Entry::read(b"\xff"), None);
    }
}
