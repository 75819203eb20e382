//! The log and the store of one process, and what a consumer does with them.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use uuid::Uuid;
use weir_disk::Disk;
use weir_log::{
    Committed, EmbeddedConfig, EmbeddedLog, EventLog, Membership, Record, Retention, TopicPolicy, TopicSpec,
};
use weir_proto::{
    event::v1::{Event, EventRecord},
    time::timestamp,
};
use weir_store::{
    CleanBatch, Decoder, EventStore, Objects, Settings, Store, encode::Encoder, manifest::Segment, shape,
};

/// The topic whose records become events.
pub(crate) const EVENTS: &str = "events";
/// A topic of which retention keeps the end only.
pub(crate) const TRIMMED: &str = "trimmed";
pub(crate) const TOPICS: [&str; 2] = [EVENTS, TRIMMED];
/// Of it is kept at least this much.
pub(crate) const KEPT_BYTES: u64 = 8 << 10;
const PROJECT: &str = "shop";
const GROUP: &str = "consumer";
const START_MICROS: i64 = 1_780_000_000_000_000;
const STEP_MICROS: i64 = 1_000_000;
pub(crate) const USERS: u64 = 7;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A process.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) store: Store,
}

/// The record of a number: from a few bytes to several sectors.
pub(crate) fn record(number: u64) -> Record {
    let filler = (number * 7919 % 1500) as usize;
    let mut value = number.to_le_bytes().to_vec();
    value.extend((0..filler).map(|at| (at as u64 * 31 + number) as u8));
    Record::new(format!("user-{}", number % USERS), value)
}

/// The number of a record; `None` for bytes that are none of ours.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*value.first_chunk()?);
    (record(number).value == value).then_some(number)
}

pub(crate) fn user_of(number: u64) -> u64 {
    number % USERS
}

pub(crate) fn user_name(user: u64) -> String {
    format!("user-{user}")
}

pub(crate) fn time_of(offset: u64) -> i64 {
    START_MICROS + offset as i64 * STEP_MICROS
}

/// The event that the record of a number at an offset becomes.
fn event(number: u64, offset: u64) -> EventRecord {
    let event = Event {
        event_id: Uuid::from_u128(u128::from(number)).to_string(),
        event_name: "view".to_owned(),
        event_type: 1,
        user_id: user_name(user_of(number)),
        event_time: Some(timestamp(time_of(offset))),
        ..Event::default()
    };
    EventRecord {
        receive_time_micros: time_of(offset),
        corrected_time_micros: time_of(offset),
        event: Some(event),
        ..EventRecord::default()
    }
}

impl System {
    /// Starts a process.
    pub(crate) fn open(root: &Path, disk: Arc<dyn Disk>) -> Result<Self, Failure> {
        let config = EmbeddedConfig {
            segment_bytes: 3 << 10,
            index_interval_bytes: 512,
            retention_check: Duration::from_millis(1),
            disk: Arc::clone(&disk),
            ..EmbeddedConfig::at(root.join("log"))
        };
        let log = EmbeddedLog::open(config)?;
        let location = root.join("store");
        let objects = Objects::on_disk(&location, disk)?;
        let settings = Settings { compact_files: 3, ..Settings::folder(location) };
        Ok(Self { log, store: Store::over(objects, settings) })
    }

    /// Makes sure of the topics, and binds the store to the log; returns the log's identity.
    pub(crate) async fn bind(&self) -> Result<String, Failure> {
        let kept = |topic| if topic == TRIMMED { Some(KEPT_BYTES) } else { None };
        let specs = TOPICS.map(|topic| TopicSpec {
            name: topic.to_owned(),
            partitions: 1,
            retention: Retention { age: None, bytes: kept(topic) },
        });
        self.log.ensure_topics(&specs, TopicPolicy::Create).await?;
        let identity = self.log.identity().await?;
        self.store.bind(&identity).await?;
        Ok(identity)
    }

    /// The records of a topic from an offset on.
    pub(crate) async fn read(&self, topic: &str, from: u64) -> Result<Vec<(u64, u64)>, Failure> {
        let end = self.log.bounds(topic, 0).await?.end;
        let mut reader = self.log.reader(topic, 0, from).await?;
        let mut records = Vec::new();
        while reader.position() < end {
            for record in reader.next(PATIENCE).await?.iter() {
                let number = number(record.value)
                    .ok_or_else(|| format!("record {} of {topic} is not one that was sent", record.offset))?;
                records.push((record.offset, number));
            }
        }
        Ok(records)
    }

    /// Brings the store up to the log's end; returns where that is.
    pub(crate) async fn consume(&self) -> Result<u64, Failure> {
        let start = self.store.next_offset(0).await?;
        let records = self.read(EVENTS, start).await?;
        let Some((last, _)) = records.last() else { return Ok(start) };
        let end = last + 1;
        let mut encoder = Encoder::default();
        for (offset, number) in records {
            encoder.push_record(&event(number, offset).encode_to_vec(), offset, false)?;
        }
        let batch = CleanBatch {
            start,
            end,
            watermark_micros: time_of(end),
            events: vec![(PROJECT.into(), encoder.finish())],
        };
        let stored = self.store.append(0, Uuid::now_v7(), batch).await?;
        self.commit(stored).await?;
        Ok(stored)
    }

    /// Commits a position, and waits until it is written.
    async fn commit(&self, position: u64) -> Result<(), Failure> {
        let mut member = self.log.join(EVENTS, GROUP).await?;
        while !matches!(member.next().await?, Membership::Assigned(partitions) if partitions == [0]) {}
        member.commit(0, Committed { position, metadata: String::new() });
        Ok(member.leave().await?)
    }

    /// The position of the consumer.
    pub(crate) async fn committed(&self) -> Result<Option<u64>, Failure> {
        Ok(self.log.committed(EVENTS, GROUP, 0).await?.map(|committed| committed.position))
    }

    pub(crate) async fn erase(&self, user: u64) -> Result<u64, Failure> {
        Ok(self.store.delete_user(0, PROJECT, &user_name(user)).await?.next_offset)
    }

    /// The live segments.
    pub(crate) async fn segments(&self) -> Result<Vec<Arc<Segment>>, Failure> {
        Ok(self.store.scan(PROJECT, 1).await?.segments)
    }

    /// The numbers of the events in the live segments, by offset.
    pub(crate) async fn events(&self) -> Result<BTreeMap<u64, u64>, Failure> {
        let mut events = BTreeMap::new();
        for segment in self.segments().await? {
            self.store.verify(&segment).await?;
            let file = self.store.objects().get(&segment.path).await?.ok_or("a live segment is missing")?;
            for rows in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
                let rows = shape::plain(&rows?)?;
                let decoder = Decoder::new(&rows)?;
                for row in 0..rows.num_rows() {
                    let (offset, record) = (decoder.offset(row), decoder.record(row));
                    let id: Uuid = record.event.ok_or("a row is no event")?.event_id.parse()?;
                    let number = u64::try_from(id.as_u128())?;
                    if record.corrected_time_micros != time_of(offset)
                        || events.insert(offset, number).is_some()
                    {
                        return Err(format!("offset {offset} is stored twice or with another time").into());
                    }
                }
            }
        }
        Ok(events)
    }
}

/// Lets all files below a directory seem to be hours old.
pub(crate) fn age(dir: &Path) {
    let old = std::time::SystemTime::now() - Duration::from_secs(3 * 3600);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            age(&entry.path());
        } else {
            fs::File::open(entry.path()).unwrap().set_modified(old).unwrap();
        }
    }
}
