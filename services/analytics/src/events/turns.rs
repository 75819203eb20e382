//! Exports take turns. Whatever an export has of files is there only while it is its turn; a reader that is slow, or has had its turn,
//! keeps a small piece and the place where it goes on. So any number of slow readers hold little, and keep nobody waiting for long.
//!
//! The place is a key: the rows of a segment are in the order of user, time and offset, and those in memory by offset. Events in memory
//! are not held while a reader is slow either: they are found again by their offsets, wherever they are then.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use futures::StreamExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout_at},
};
use weir_proto::analytics::v1::ExportEventsResponse;
use weir_query::{
    Engine, Rows,
    engine::Read,
    export::{Export, Key},
};
use weir_store::{Snapshot, manifest::Segment, schema::column, width};

use super::{
    Seen,
    export::{File, PIECE, Wish, late_of},
};
use crate::error::Error;

/// How long a reader may take for a piece before its turn is over.
const PATIENCE: Duration = Duration::from_millis(100);
/// The longest turn while others wait.
const TURN: Duration = Duration::from_secs(1);
/// Unit in which memory for pieces is handed out, bytes.
const UNIT: usize = 1 << 10;

/// What all exports share.
#[derive(Debug, Clone)]
pub(crate) struct Exports {
    /// Memory for pieces that wait for readers, in [`UNIT`]s.
    room: Arc<Semaphore>,
    units: usize,
    /// Exports that read at a time.
    turns: Arc<Semaphore>,
}

/// The room that an export has for its pieces, given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _permits: OwnedSemaphorePermit,
}

impl Exports {
    /// With so much memory for pieces; so many read at a time.
    pub(crate) fn new(bytes: usize, at_once: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, u32::MAX as usize);
        let (room, turns) = (Semaphore::new(units), Semaphore::new(at_once.max(1)));
        Self { room: Arc::new(room), units, turns: Arc::new(turns) }
    }

    /// Waits for room for an export's pieces, in the order of asking.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is none until then.
    pub(crate) async fn room(&self, bytes: usize, deadline: Instant) -> Result<Room, Error> {
        let wanted = (bytes / UNIT).clamp(1, self.units);
        let permits = Arc::clone(&self.room).acquire_many_owned(u32::try_from(wanted).unwrap_or(u32::MAX));
        match timeout_at(deadline, permits).await {
            Ok(permits) => Ok(Room { _permits: permits.expect("the semaphore is never closed") }),
            Err(_) => Err(Error::Busy(
                "the export could not begin: others that wait for their readers fill analytics.export_buffer_bytes; retry in a moment"
                    .to_owned(),
            )),
        }
    }
}

/// Where an export goes on.
#[derive(Debug, Default)]
struct Place {
    /// Offsets by partition whose events are in none of `segments`.
    offsets: BTreeMap<u32, Range<u64>>,
    /// Events of these offsets in memory, in order; empty when they are to be looked up.
    hot: VecDeque<(u32, RecordBatch)>,
    /// Segments that are still to be read, with their partitions and the offsets whose events are wanted of them.
    segments: VecDeque<(Arc<Segment>, u32, Range<u64>)>,
    /// The last row that was read of the first of them.
    after: Option<Key>,
}

impl Place {
    /// Before all events of a snapshot.
    fn before(snapshot: &Snapshot) -> Self {
        let offsets = snapshot.next_offsets.iter().map(|(partition, next)| (*partition, 0..*next));
        let mut place = Self { offsets: offsets.collect(), ..Self::default() };
        place.find(snapshot);
        place
    }

    /// Finds the wanted offsets in a snapshot: what of them is in segments, and what in memory.
    fn find(&mut self, snapshot: &Snapshot) {
        let wanted = std::mem::take(&mut self.offsets);
        for (segment, partition) in snapshot.segments.iter().zip(&snapshot.segment_partitions) {
            if let Some(offsets) = wanted.get(partition)
                && segment.offsets.min < offsets.end
                && segment.offsets.max >= offsets.start
            {
                self.segments.push_back((Arc::clone(segment), *partition, offsets.clone()));
            }
        }
        for (batch, partition) in snapshot.hot.iter().zip(&snapshot.hot_partitions) {
            let Some(wanted) = wanted.get(partition) else { continue };
            let found = of_batch(batch);
            let (start, end) = (
                found.partition_point(|offset| offset.cast_unsigned() < wanted.start),
                found.partition_point(|offset| offset.cast_unsigned() < wanted.end),
            );
            if start < end {
                let first = found[start].cast_unsigned();
                self.offsets.entry(*partition).or_insert(first..wanted.end);
                self.hot.push_back((*partition, batch.slice(start, end - start)));
            }
        }
    }

    fn is_end(&self) -> bool {
        self.segments.is_empty() && self.offsets.is_empty()
    }

    /// Whether it is known where the events to read next are.
    fn is_found(&self) -> bool {
        !self.hot.is_empty() || !self.segments.is_empty()
    }

    /// The events to read next.
    fn next(&self, whole: &Seen) -> Seen {
        let mut snapshot = whole.without_events().snapshot;
        match (self.hot.front(), self.segments.front()) {
            (Some((partition, batch)), _) => {
                snapshot.hot.push(batch.clone());
                snapshot.hot_partitions.push(*partition);
            }
            (None, Some((segment, partition, _))) => {
                snapshot.segments.push(Arc::clone(segment));
                snapshot.segment_partitions.push(*partition);
            }
            (None, None) => {}
        }
        whole.with(snapshot)
    }

    /// What of them is wanted.
    fn export(&self, of: &Export) -> Export {
        match self.segments.front() {
            Some((_, _, offsets)) if self.hot.is_empty() => {
                Export { after: self.after, offsets: Some(offsets.clone()), ..of.clone() }
            }
            _ => of.clone(),
        }
    }

    /// Some rows were read, the next ones of the first batch or segment.
    fn pass(&mut self, rows: &RecordBatch) {
        let Some(last) = rows.num_rows().checked_sub(1) else { return };
        let offset = of_batch(rows)[last];
        if let Some((partition, _)) = self.hot.front() {
            if let Some(offsets) = self.offsets.get_mut(partition) {
                offsets.start = offset.cast_unsigned() + 1;
            }
            return;
        }
        let column = |name| rows.column_by_name(name).expect("every column is exported");
        let user = column(column::USER_HASH).as_primitive::<Int64Type>().value(last);
        let time = column(column::TIME).as_primitive::<TimestampMicrosecondType>().value(last);
        self.after = Some((user, time, offset));
    }

    /// The first batch or segment is done.
    fn done(&mut self) {
        let Some((partition, batch)) = self.hot.pop_front() else {
            self.segments.pop_front();
            self.after = None;
            return;
        };
        // Of the rows that a filter left out, too.
        let next = of_batch(&batch).last().map_or(0, |last| last.cast_unsigned() + 1);
        match self.offsets.get_mut(&partition) {
            Some(offsets) if self.hot.iter().any(|(other, _)| *other == partition) => offsets.start = next,
            _ => drop(self.offsets.remove(&partition)),
        }
    }

    /// Keeps nothing of the events in memory.
    fn pause(&mut self) {
        self.hot.clear();
    }
}

fn of_batch(batch: &RecordBatch) -> &[i64] {
    let offsets = batch.column_by_name(column::LOG_OFFSET).expect("events have offsets");
    offsets.as_primitive::<Int64Type>().values()
}

/// What an export makes its pieces with.
pub(crate) struct Job {
    pub(crate) exports: Exports,
    #[expect(dead_code, reason = "it is held until the export has ended")]
    pub(crate) room: Room,
    pub(crate) wish: Wish,
    pub(crate) range: Range<i64>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) engine: Engine,
    pub(crate) deadline: Instant,
}

/// A turn, and what is read in it.
struct Turn {
    rows: Rows,
    began: Instant,
    _permit: OwnedSemaphorePermit,
}

/// The file in pieces, made as they are read. `now` finds all events as they are then.
pub(crate) fn pieces<F, S>(job: Job, now: F) -> mpsc::Receiver<Result<ExportEventsResponse, Error>>
where
    F: Fn() -> S + Send + 'static,
    S: Future<Output = Result<Arc<Seen>, Error>> + Send,
{
    let (send, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        let place = Place::before(&job.seen.snapshot);
        let job = Job { seen: Arc::new(job.seen.without_hot()), ..job };
        let (file, waiting, read) = (None, None, Read::default());
        let mut export = Running { job, place, file, waiting, first: true, sent: 0, events: 0, read };
        let ended = tokio::select! {
            ended = export.run(&send, now) => ended,
            // The reader has gone.
            () = send.closed() => return,
        };
        if let Err(error) = ended {
            let _ = send.send(Err(error)).await;
        }
    });
    pieces
}

struct Running {
    job: Job,
    place: Place,
    file: Option<File>,
    /// A piece for which the reader was not ready.
    waiting: Option<ExportEventsResponse>,
    /// Whether no piece was made yet.
    first: bool,
    /// Events that were written, those since the last piece, and what was read for them.
    sent: usize,
    events: u64,
    read: Read,
}

type Pieces = mpsc::Sender<Result<ExportEventsResponse, Error>>;

impl Running {
    async fn run<F, S>(&mut self, send: &Pieces, now: F) -> Result<(), Error>
    where
        F: Fn() -> S,
        S: Future<Output = Result<Arc<Seen>, Error>>,
    {
        let export = self.job.wish.of(self.job.range.clone());
        let mut turn: Option<Turn> = None;
        while !self.place.is_end() && self.sent < export.max_rows {
            if !self.place.is_found() {
                // Events that were in memory when the reader became slow.
                let seen = now().await?;
                self.place.find(&seen.snapshot);
                if seen.is_partial() {
                    self.job.seen = Arc::new(seen.without_hot());
                }
                continue;
            }
            let mut this_turn = match turn.take() {
                Some(turn) => turn,
                None => self.turn(&export).await?,
            };
            let Some(batch) = this_turn.rows.next().await else {
                self.read += this_turn.rows.read();
                self.place.done();
                // The next file is read within the same turn, unless others have waited for long.
                if self.place.is_found() && self.goes_on(&this_turn) {
                    turn = Some(Turn { rows: self.rows(&export).await?, ..this_turn });
                } else {
                    drop(this_turn);
                    self.place.pause();
                }
                continue;
            };
            if self.write(&batch?, &this_turn, send).await? {
                turn = Some(this_turn);
                continue;
            }
            self.read += this_turn.rows.read();
            drop(this_turn);
            self.place.pause();
            if let Some(piece) = self.waiting.take() {
                send.send(Ok(piece)).await.map_err(|_| Error::ShuttingDown)?;
            }
        }
        drop(turn);
        self.end(send).await
    }

    /// Waits for a turn, in the order of asking.
    async fn turn(&mut self, export: &Export) -> Result<Turn, Error> {
        let turn = Arc::clone(&self.job.exports.turns).acquire_owned();
        let Ok(turn) = timeout_at(self.job.deadline, turn).await else {
            return Err(Error::TooSlow(self.job.deadline.elapsed()));
        };
        let permit = turn.expect("the semaphore is never closed");
        Ok(Turn { rows: self.rows(export).await?, began: Instant::now(), _permit: permit })
    }

    async fn rows(&mut self, export: &Export) -> Result<Rows, Error> {
        let left = self.job.deadline.saturating_duration_since(Instant::now());
        let wanted = Export { max_rows: export.max_rows - self.sent, ..self.place.export(export) };
        let events = Arc::new(self.place.next(&self.job.seen));
        Ok(self.job.engine.export(events, wanted, left).await?)
    }

    /// Writes rows and sends what is ready. Whether the turn goes on.
    async fn write(&mut self, batch: &RecordBatch, turn: &Turn, send: &Pieces) -> Result<bool, Error> {
        for rows in width::pieces(batch, self.job.wish.at_once()) {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(File::begin(&self.job.wish, turn.rows.schema())?),
            };
            file.write(&rows)?;
            let ready = file.ready();
            self.sent += rows.num_rows();
            self.events += rows.num_rows() as u64;
            self.read.late += late_of(&rows);
            self.place.pass(&rows);
            if ready >= PIECE && !self.send(turn, send).await? {
                return Ok(false);
            }
            tokio::task::yield_now().await;
        }
        Ok(true)
    }

    /// Sends a piece. Whether the reader took it soon enough, and others do not wait for this turn to end.
    async fn send(&mut self, turn: &Turn, send: &Pieces) -> Result<bool, Error> {
        let Some(file) = &mut self.file else { return Ok(true) };
        let piece = self.job.wish.response(
            file.take(),
            std::mem::take(&mut self.events),
            std::mem::take(&mut self.first),
            None,
        );
        let Ok(room) = tokio::time::timeout(PATIENCE, send.reserve()).await else {
            self.waiting = Some(piece);
            return Ok(false);
        };
        room.map_err(|_| Error::ShuttingDown)?.send(Ok(piece));
        Ok(self.goes_on(turn))
    }

    /// Whether a turn is not over yet, or nobody waits for it to be.
    fn goes_on(&self, turn: &Turn) -> bool {
        turn.began.elapsed() < TURN || self.job.exports.turns.available_permits() > 0
    }

    /// Sends what is left, and what there is to say about all of it.
    async fn end(&mut self, send: &Pieces) -> Result<(), Error> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::begin(&self.job.wish, &weir_query::export::columns())?,
        };
        let info = self.job.seen.info(&self.job.range, self.read, true);
        let last = self.job.wish.response(file.end()?, self.events, self.first, Some(info));
        send.send(Ok(last)).await.map_err(|_| Error::ShuttingDown)
    }
}
