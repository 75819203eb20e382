//! The state of one `metrics-data` partition: which batches count, and all cells they add up to.
//!
//! Pure: records go in with their offsets and times, views come out. Reading the log, waiting and writing snapshots
//! is done by the [`partition`](crate::partition) around it.

mod cube;
mod names;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use hashbrown::HashMap;
use prost::Message as _;
use uuid::Uuid;
use weir_proto::rollup::v1::{self as pb, metrics_record};
use weir_rollup::{
    cell::Placed,
    chain::{Chain, ChainState, Verdict, VoidReason},
    imports::Imports,
    level::{Level, Retention, Whole},
    tally,
};
use weir_runtime::auth::ProjectId;

pub(crate) use cube::{Bucket, Cube, Rows};
use names::Names;
pub(crate) use names::{Symbol, Texts, Value};

/// Buckets are kept this much longer than their retention: a query is planned a moment before it is answered.
const GRACE_MICROS: i64 = 60_000_000;

/// Buckets that are whole only from later than this on were dropped by a clock that was ahead. Those of a day in which events are
/// counted by day only are whole from its end on, which is no more than a day from now.
const AHEAD_MICROS: i64 = 2 * 86_400_000_000;

/// What bounds a partition's state.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// How long the buckets of each level are kept.
    pub(crate) retention: Retention,
    /// Values of a dimension that a rollup tells apart in a day.
    pub(crate) max_values: usize,
}

/// Since when a definition has been in force without a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since {
    /// First source offset that it covers.
    pub(crate) offset: u64,
    /// When the log took the batch that began there, microseconds since the epoch.
    pub(crate) micros: i64,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Applied {
    /// The partition has a new owner.
    Claimed,
    /// A batch that counts.
    Counted(pb::Tally),
    /// A batch that only moved the watermark.
    Heartbeat,
    /// A batch that does not count: its writer no longer owns the partition.
    Void(VoidReason),
    /// No record of ours. It is passed over, as every reader does.
    Malformed(String),
    /// A batch that counts with cells that this version can't read: from here on, answers would be wrong.
    Unreadable(String),
}

/// The state of one partition.
#[derive(Debug)]
pub(crate) struct State {
    limits: Limits,
    chain: Chain,
    next_metrics_offset: u64,
    tally: pb::Tally,
    since: BTreeMap<u64, Since>,
    projects: HashMap<Arc<str>, Project>,
    /// Where buckets hold everything: not where they were dropped, by this instance or one before it whose snapshot was
    /// read, and not where the owners counted events in wider buckets only. Longer retention does not bring either back.
    whole: Whole,
    /// How long the owner counts events in the buckets of each level, as its claim says.
    owner_kept: Option<Retention>,
    /// What became of the imports of late.
    imports: Imports,
    /// No later than this is it now: watermarks beyond it are of a clock that was ahead, and nothing expires by them.
    /// Microseconds since the epoch.
    latest_now: i64,
}

#[derive(Debug, Default)]
struct Project {
    names: Names,
    cubes: HashMap<u64, Cube>,
}

impl State {
    /// Before the first record.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            chain: Chain::new(),
            next_metrics_offset: 0,
            tally: pb::Tally::default(),
            since: BTreeMap::new(),
            projects: HashMap::new(),
            whole: Whole::ALWAYS,
            owner_kept: None,
            imports: Imports::default(),
            latest_now: i64::MAX,
        }
    }

    /// After the records of a snapshot, still without its cells, which [`State::load`] brings.
    pub(crate) fn restore(limits: Limits, header: &pb::SnapshotHeader) -> Result<Self, String> {
        let owner = match header.owner.as_slice() {
            [] => None,
            owner => Some(Uuid::from_slice(owner).map_err(|error| format!("its owner is no UUID: {error}"))?),
        };
        let since = header.definitions.iter().map(|known| {
            (known.definition, Since { offset: known.since_offset, micros: known.since_micros })
        });
        let whole = Whole::from_micros(&header.whole_since_micros)
            .ok_or("it does not say since when its buckets are whole")?;
        Ok(Self {
            chain: Chain::restore(ChainState {
                owner,
                address: header.owner_address.clone(),
                next_source_offset: header.next_source_offset,
                watermark: header.watermark_micros,
            }),
            next_metrics_offset: header.next_metrics_offset,
            tally: header.tally.unwrap_or_default(),
            since: since.collect(),
            whole,
            owner_kept: Retention::from_micros(&header.owner_kept_micros),
            imports: Imports::from_proto(&header.imports, &header.imports_forgotten),
            ..Self::new(limits)
        })
    }

    /// Brings in cells of a snapshot. Each stands for its own level only.
    pub(crate) fn load(&mut self, delta: pb::ProjectDelta) -> Result<(), weir_rollup::Error> {
        for (name, rollups) in parse(vec![delta])? {
            let Project { names, cubes } = project(&mut self.projects, &name);
            for (definition, cells) in rollups {
                let cube = cubes.entry(definition).or_default();
                cells.into_iter().for_each(|cell| cube.restore(cell, names));
            }
        }
        Ok(())
    }

    /// Takes in the record at `offset`, which the log took at `append_micros`.
    pub(crate) fn apply(&mut self, offset: u64, append_micros: i64, value: &[u8]) -> Applied {
        self.next_metrics_offset = offset + 1;
        let record = match pb::MetricsRecord::decode(value) {
            Ok(pb::MetricsRecord { record: Some(record) }) => record,
            Ok(_) => return Applied::Malformed("it is neither claim nor batch".to_owned()),
            Err(error) => return Applied::Malformed(error.to_string()),
        };
        match record {
            metrics_record::Record::Claim(claim) => match Uuid::from_slice(&claim.owner) {
                Ok(owner) => match self.chain.fold_claim(owner, &claim.address) {
                    Verdict::Claimed | Verdict::Accepted => {
                        self.owner_kept = Retention::from_micros(&claim.kept_micros);
                        Applied::Claimed
                    }
                    Verdict::Void(reason) => Applied::Void(reason),
                },
                Err(error) => Applied::Malformed(format!("the owner of a claim is no UUID: {error}")),
            },
            metrics_record::Record::Batch(batch) => self.apply_batch(append_micros, batch),
        }
    }

    fn apply_batch(&mut self, append_micros: i64, mut batch: pb::MicroBatch) -> Applied {
        let owner = match Uuid::from_slice(&batch.owner) {
            Ok(owner) => owner,
            Err(error) => return Applied::Malformed(format!("the owner of a batch is no UUID: {error}")),
        };
        let verdict =
            self.chain.fold_batch(owner, batch.start_offset, batch.end_offset, batch.watermark_micros);
        match verdict {
            Verdict::Void(reason) => return Applied::Void(reason),
            Verdict::Claimed | Verdict::Accepted => {}
        }
        if batch.start_offset == batch.end_offset {
            self.drop_expired();
            return Applied::Heartbeat;
        }
        let deltas = match parse(std::mem::take(&mut batch.projects)) {
            Ok(deltas) => deltas,
            Err(error) => return Applied::Unreadable(error.to_string()),
        };
        self.note_definitions(append_micros, &batch);
        let owner_kept = self.owner_kept.as_ref();
        let owner_whole = owner_kept.map_or(Whole::NEVER, |kept| kept.whole(batch.watermark_micros));
        for (name, rollups) in deltas {
            let Project { names, cubes } = project(&mut self.projects, &name);
            for (definition, cells) in rollups {
                let cube = cubes.entry(definition).or_default();
                for cell in cells {
                    // What is said to happen in days was sent when a clock was ahead, and says nothing about the present.
                    if cell.level.start_micros(cell.bucket) <= self.latest_now {
                        self.whole.missed_by_finer(cell.level, cell.bucket, &owner_whole);
                    }
                    cube.count(cell, &self.whole, self.limits.max_values, names);
                }
            }
        }
        let tally = batch.tally.unwrap_or_default();
        tally::add(&mut self.tally, &tally);
        batch.imports.iter().for_each(|import| self.imports.add(import, append_micros));
        self.drop_expired();
        Applied::Counted(tally)
    }

    fn note_definitions(&mut self, append_micros: i64, batch: &pb::MicroBatch) {
        // One that is not in force now misses these events: should it come back, it is known from then on.
        self.since.retain(|definition, _| batch.definitions.contains(definition));
        for definition in &batch.definitions {
            let since = Since { offset: batch.start_offset, micros: append_micros };
            self.since.entry(*definition).or_insert(since);
        }
    }

    fn drop_expired(&mut self) {
        let past = self.chain.state().watermark.min(self.latest_now).saturating_sub(GRACE_MICROS);
        self.whole = self.whole.and(self.limits.retention.whole(past));
        for Project { names, cubes } in self.projects.values_mut() {
            for cube in cubes.values_mut() {
                for level in Level::ALL {
                    cube.drop_before(level, level.bucket_of(self.whole.since(level)), names);
                }
            }
        }
    }

    /// Says that it is no later than this now, microseconds since the epoch.
    pub(crate) fn set_latest_now(&mut self, latest_now: i64) {
        self.latest_now = latest_now;
    }

    /// Whether buckets were dropped by a clock that was ahead of `now`: they are whole only from a time on that has not come.
    pub(crate) fn is_ahead_of(&self, now: i64) -> bool {
        Level::ALL.iter().any(|level| self.whole.since(*level) > now.saturating_add(AHEAD_MICROS))
    }

    /// Where its buckets hold everything.
    pub(crate) fn whole(&self) -> Whole {
        self.whole
    }

    /// What the chain says: owner, next source offset, watermark.
    pub(crate) fn chain(&self) -> &ChainState {
        self.chain.state()
    }

    /// The `metrics-data` offset to go on reading from.
    pub(crate) fn next_metrics_offset(&self) -> u64 {
        self.next_metrics_offset
    }

    /// Skips offsets that hold no record.
    pub(crate) fn advance_to(&mut self, next_metrics_offset: u64) {
        self.next_metrics_offset = self.next_metrics_offset.max(next_metrics_offset);
    }

    /// The sum of what became of all source records.
    pub(crate) fn tally(&self) -> &pb::Tally {
        &self.tally
    }

    /// What became of the imports of late.
    pub(crate) fn imports(&self) -> &Imports {
        &self.imports
    }

    /// Number of cells.
    pub(crate) fn cells(&self) -> usize {
        self.projects.values().flat_map(|project| project.cubes.values()).map(Cube::cells).sum()
    }

    /// The cells that a question asks for, or `None` when some of their buckets are not whole any more since it was planned.
    pub(crate) fn view(&self, request: &ViewRequest) -> Option<View> {
        let expired =
            |span: &Span| span.level.start_micros(span.buckets.start) < self.whole.since(span.level);
        if request.parts.iter().flat_map(|part| &part.spans).any(expired) {
            return None;
        }
        let project = self.projects.get(request.project.as_str());
        let parts = request.parts.iter().map(|part| {
            let cube = project.and_then(|project| project.cubes.get(&part.definition));
            let mut buckets = Vec::new();
            for span in &part.spans {
                let found = cube.into_iter().flat_map(|cube| cube.range(span.level, span.buckets.clone()));
                buckets.extend(found.map(|(_, bucket)| (span.slot, bucket.clone())));
            }
            PartView {
                rows: cube.map(|cube| cube.rows().clone()).unwrap_or_default(),
                buckets,
                since: self.since.get(&part.definition).copied(),
            }
        });
        Some(View {
            parts: parts.collect(),
            texts: project.map(|project| project.names.texts().clone()).unwrap_or_default(),
            next_source_offset: self.chain().next_source_offset,
            watermark: self.chain().watermark,
        })
    }

    /// Everything as it is now, for a snapshot. Cheap: cells are shared until they change.
    pub(crate) fn image(&self, partition: u32) -> Image {
        let ChainState { owner, address, next_source_offset, watermark } = self.chain().clone();
        let definitions = self.since.iter().map(|(definition, since)| pb::DefinitionSince {
            definition: *definition,
            since_offset: since.offset,
            since_micros: since.micros,
        });
        let (imports, imports_forgotten) = self.imports.to_proto();
        let projects = self.projects.iter().map(|(name, project)| {
            let cubes = project.cubes.iter().map(|(definition, cube)| (*definition, cube.clone()));
            ProjectImage { name: name.clone(), texts: project.names.texts().clone(), cubes: cubes.collect() }
        });
        Image {
            header: pb::SnapshotHeader {
                version: 0,
                partition,
                next_metrics_offset: self.next_metrics_offset,
                owner: owner.map(|owner| owner.as_bytes().to_vec()).unwrap_or_default(),
                owner_address: address,
                next_source_offset,
                watermark_micros: watermark,
                tally: Some(self.tally),
                definitions: definitions.collect(),
                log_identity: String::new(),
                whole_since_micros: self.whole.to_micros(),
                owner_kept_micros: self.owner_kept.as_ref().map(Retention::to_micros).unwrap_or_default(),
                imports,
                imports_forgotten,
            },
            projects: projects.collect(),
        }
    }
}

/// A partition's state at one moment.
#[derive(Debug)]
pub(crate) struct Image {
    /// All but the cells; version and log are set by whoever writes it.
    pub(crate) header: pb::SnapshotHeader,
    /// The cells.
    pub(crate) projects: Vec<ProjectImage>,
}

/// A project's cells at one moment.
#[derive(Debug)]
pub(crate) struct ProjectImage {
    /// The project.
    pub(crate) name: Arc<str>,
    /// What the symbols in its rows stand for.
    pub(crate) texts: Texts,
    /// Its cells by definition.
    pub(crate) cubes: Vec<(u64, Cube)>,
}

/// Which cells a question needs.
#[derive(Debug, Clone)]
pub(crate) struct ViewRequest {
    /// Of this project.
    pub(crate) project: ProjectId,
    /// Of these rollups.
    pub(crate) parts: Vec<PartRequest>,
}

/// Which cells of one rollup.
#[derive(Debug, Clone)]
pub(crate) struct PartRequest {
    /// The rollup.
    pub(crate) definition: u64,
    /// The buckets.
    pub(crate) spans: Vec<Span>,
}

/// Consecutive buckets that count towards the same bucket of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Their level.
    pub(crate) level: Level,
    /// Their numbers.
    pub(crate) buckets: Range<i64>,
    /// The bucket of the answer.
    pub(crate) slot: u32,
}

/// The cells that were asked for, as they all were at one moment.
#[derive(Debug)]
pub(crate) struct View {
    /// One for each part of the request.
    pub(crate) parts: Vec<PartView>,
    /// What the symbols in the rows stand for.
    pub(crate) texts: Texts,
    /// Source offsets below this one are counted.
    pub(crate) next_source_offset: u64,
    /// Everything that the log took before this moment is counted, microseconds since the epoch.
    pub(crate) watermark: i64,
}

/// Cells of one rollup.
#[derive(Debug)]
pub(crate) struct PartView {
    /// The values of its rows.
    pub(crate) rows: Rows,
    /// Buckets with the bucket of the answer that they count towards.
    pub(crate) buckets: Vec<(u32, Arc<Bucket>)>,
    /// Since when the rollup has been kept; `None` if it is not.
    pub(crate) since: Option<Since>,
}

fn project<'a>(projects: &'a mut HashMap<Arc<str>, Project>, name: &str) -> &'a mut Project {
    if !projects.contains_key(name) {
        projects.insert(name.into(), Project::default());
    }
    projects.get_mut(name).expect("it was there or has been inserted")
}

type Cells = Vec<(u64, Vec<Placed>)>;

/// The cells by project and definition.
fn parse(projects: Vec<pb::ProjectDelta>) -> Result<Vec<(String, Cells)>, weir_rollup::Error> {
    let rollup = |rollup: pb::RollupDelta| {
        let cells = rollup.cells.into_iter().map(Placed::from_proto).collect::<Result<_, _>>()?;
        Ok((rollup.definition, cells))
    };
    projects
        .into_iter()
        .map(|delta| Ok((delta.project, delta.rollups.into_iter().map(rollup).collect::<Result<_, _>>()?)))
        .collect()
}
