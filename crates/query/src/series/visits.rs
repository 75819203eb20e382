//! Visits: where a user's events have no session, they are found between all such events of the user, whatever a filter lets
//! through; so they take a scan of their own.

use std::sync::Arc;

use weir_store::{schema::column as name, view::Column};

use super::{Actors, Measured, Question, grid::Grid, merged::Merged};
use crate::{
    Engine, Error, Events,
    buckets::Buckets,
    deadline::Pace,
    engine::Read,
    fold::{
        Action,
        active::{Counts, Sighting, Span},
    },
    gather::{self, Actor, Fold, Layout},
    scan::Scan,
};

/// Mark of an event that is measured.
const MEASURED: u32 = 1;

/// Counts the visits of a measure, and puts them among what is merged.
#[allow(clippy::too_many_arguments, reason = "the parts of a question that is being answered")]
pub(super) async fn count(
    engine: &Engine,
    events: &dyn Events,
    question: &Question,
    measured: &Measured,
    grid: &Grid,
    column: usize,
    merged: &mut Merged,
) -> Result<Read, Error> {
    let mut scan = Scan::of(&grid.reads(&question.range));
    let condition = scan.filter(&question.filter).and(scan.filter(&measured.filter));
    let silent = scan.column(Column::Core(name::SESSION_ID)).is_null();
    scan.keep(condition.clone().or(silent));
    let mut layout = Layout::new(&mut scan, Actor::Session, vec![(condition, MEASURED)]);
    layout.group(&mut scan, &question.by, MEASURED);
    let (streams, read) = scan.run(engine, events, || gather::Actions::new(layout.clone())).await?;
    let (span, grid, buckets) = (question.span(), grid.clone(), Arc::new(Buckets::new(grid.read())));
    let new = move || Visits {
        buckets: Arc::clone(&buckets),
        grid: grid.clone(),
        seen: Vec::new(),
        actors: Actors { spans: Counts::new(span), totals: Counts::new(Span::Buckets(1)) },
    };
    let (visits, texts) = gather::fold(engine, streams, Actor::Session, new).await?;
    let numbers = merged.texts.absorb(&texts);
    let number = |group: u32| numbers.get(group as usize).copied().unwrap_or(0);
    let Actors { spans, totals } = visits.actors;
    merged.set_actors(column, Actors { spans: spans.renumbered(number), totals: totals.renumbered(number) });
    Ok(read)
}

struct Visits {
    buckets: Arc<Buckets>,
    grid: Grid,
    /// Where the visit at hand has events.
    seen: Vec<Sighting>,
    actors: Actors,
}

impl Fold for Visits {
    fn add(&mut self, actions: &[Action]) {
        self.seen.clear();
        let mut near = 0;
        for action in actions.iter().filter(|action| action.marks & MEASURED != 0) {
            if let Some(bucket) = self.buckets.find(action.time, &mut near) {
                self.seen.push(Sighting { actor: 0, group: action.group, bucket: bucket as u32 });
            }
        }
        self.seen.sort();
        self.actors.add(&mut self.seen, &self.grid);
    }

    fn merge(&mut self, other: Self, pace: &mut Pace<'_>) -> Result<(), Error> {
        pace.step(other.actors.size())?;
        self.actors.spans.merge(other.actors.spans);
        self.actors.totals.merge(other.actors.totals);
        Ok(())
    }
}
