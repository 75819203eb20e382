//! An independent reading of `metrics-data`: the rule of claims and batches, written down once more in the plainest way, and
//! sums over what counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prost::Message;
use weir_log::PartitionReader;
use weir_proto::{
    event::v1::DeadLetter,
    rollup::v1::{self as rollup, dimension_value, metrics_record},
};
use weir_rollup::definition::Definition;
use weir_rollup::field::Field;
use xxhash_rust::xxh3::xxh3_64;

use crate::fixture::{DEAD_LETTERS, EVENTS, Fixture, METRICS, Sent, TOO_LONG};

/// What the results of one partition come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    /// From the cells of the rollup without dimensions.
    pub(crate) count: u64,
    pub(crate) late: u64,
    pub(crate) users: BTreeSet<u64>,
    pub(crate) prices: (u64, f64),
    /// From the cells of the rollup by event name.
    pub(crate) by_name: BTreeMap<String, u64>,
}

impl Totals {
    pub(crate) fn of<'a>(sent: impl IntoIterator<Item = &'a Sent>) -> Self {
        let mut totals = Self::default();
        for event in sent {
            totals.count += 1;
            totals.users.insert(xxh3_64(event.user.as_bytes()));
            totals.prices.0 += 1;
            totals.prices.1 += event.price;
            *totals.by_name.entry(event.name.to_owned()).or_default() += 1;
        }
        totals
    }
}

/// Folds one partition of `metrics-data`, following its end.
pub(crate) struct Oracle {
    reader: Box<dyn PartitionReader>,
    owner: Vec<u8>,
    pub(crate) next: u64,
    pub(crate) watermark: i64,
    pub(crate) totals: Totals,
    pub(crate) tally: rollup::Tally,
    /// Events counted, suppressed and dead-lettered, by import.
    pub(crate) imports: BTreeMap<Vec<u8>, [u64; 3]>,
    pub(crate) accepted: u64,
    pub(crate) claims: u64,
    pub(crate) void: u64,
    by_event: u64,
    total: u64,
}

impl Oracle {
    pub(crate) async fn new(fixture: &Fixture, partition: u32) -> Self {
        let numerics = vec![Field::Property("price".to_owned())];
        let id = |dimensions| Definition { name: String::new(), dimensions, numerics: numerics.clone() }.id();
        Self {
            reader: fixture.log.reader(METRICS, partition, 0).await.unwrap(),
            owner: Vec::new(),
            next: 0,
            watermark: i64::MIN,
            totals: Totals::default(),
            tally: rollup::Tally::default(),
            imports: BTreeMap::new(),
            accepted: 0,
            claims: 0,
            void: 0,
            by_event: id(vec![Field::EventName]),
            total: id(vec![]),
        }
    }

    /// Reads on until the results are as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        let reading = async {
            while !wanted(self) {
                let batch = self.reader.next(Duration::from_secs(1)).await.unwrap();
                batch.iter().for_each(|record| self.fold(record.value));
            }
        };
        if tokio::time::timeout(TOO_LONG, reading).await.is_err() {
            panic!("the results stay at offset {}: {:?} {:?}", self.next, self.tally, self.totals);
        }
    }

    /// Reads on until everything that is in the source is in the results, and all that is in `metrics-data` now.
    pub(crate) async fn catch_up(&mut self, fixture: &Fixture, partition: u32) {
        let end = fixture.log.bounds(EVENTS, partition).await.unwrap().end;
        self.until(|oracle| oracle.next >= end).await;
        let end = fixture.log.bounds(METRICS, partition).await.unwrap().end;
        self.until(|oracle| oracle.reader.position() >= end).await;
    }

    fn fold(&mut self, value: &[u8]) {
        match rollup::MetricsRecord::decode(value).unwrap().record.unwrap() {
            metrics_record::Record::Claim(claim) => {
                self.claims += 1;
                self.owner = claim.owner;
            }
            metrics_record::Record::Batch(batch) => {
                if batch.owner == self.owner
                    && batch.start_offset == self.next
                    && batch.end_offset >= self.next
                {
                    self.accept(batch);
                } else {
                    self.void += 1;
                }
            }
        }
    }

    fn accept(&mut self, batch: rollup::MicroBatch) {
        self.accepted += 1;
        self.next = batch.end_offset;
        self.watermark = weir_rollup::watermark::advance(self.watermark, batch.watermark_micros);
        let tally = batch.tally.unwrap();
        let offsets = batch.end_offset - batch.start_offset;
        assert_eq!(tally.records, tally.counted + tally.duplicates + tally.dead_lettered, "{tally:?}");
        assert_eq!(tally.records + tally.unavailable, offsets, "the embedded log has no holes: {tally:?}");
        self.tally.records += tally.records;
        self.tally.counted += tally.counted;
        self.tally.duplicates += tally.duplicates;
        self.tally.dead_lettered += tally.dead_lettered;
        self.tally.late += tally.late;
        self.tally.unavailable += tally.unavailable;
        for import in batch.imports {
            assert_eq!(import.project, "default");
            let sum = self.imports.entry(import.import_id).or_default();
            let more = [import.counted, import.duplicates, import.dead_lettered];
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        for rollup in batch.projects.into_iter().flat_map(|project| project.rollups) {
            for cell in rollup.cells {
                if rollup.definition == self.total {
                    self.totals.count += cell.count;
                    self.totals.late += cell.late;
                    let users = cell.users.unwrap();
                    assert!(users.hll.is_empty(), "few users are counted exactly");
                    self.totals.users.extend(users.hashes);
                    for numeric in cell.numerics {
                        self.totals.prices.0 += numeric.count;
                        self.totals.prices.1 += numeric.sum;
                    }
                } else if rollup.definition == self.by_event {
                    let Some(dimension_value::Value::Text(name)) = cell.dimensions[0].value.clone() else {
                        panic!("every event has a name: {cell:?}")
                    };
                    *self.totals.by_name.entry(name).or_default() += cell.count;
                }
            }
        }
    }
}

/// Everything in a partition of the dead-letter topic.
pub(crate) async fn dead_letters(fixture: &Fixture, partition: u32) -> Vec<DeadLetter> {
    let mut reader = fixture.log.reader(DEAD_LETTERS, partition, 0).await.unwrap();
    let end = fixture.log.bounds(DEAD_LETTERS, partition).await.unwrap().end;
    let mut letters = Vec::new();
    while reader.position() < end {
        let batch = reader.next(Duration::from_secs(1)).await.unwrap();
        letters.extend(batch.iter().map(|record| DeadLetter::decode(record.value).unwrap()));
    }
    letters
}
