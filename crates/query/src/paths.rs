//! Paths: [`fold::paths`](crate::fold::paths) asked of every user or session.

use std::{ops::Range, sync::Arc, time::Duration};

use datafusion::logical_expr::lit;
use weir_rollup::field::Field;
use weir_store::{schema::column as name, view::Column};

use crate::{
    Engine, Error, Events,
    deadline::Pace,
    engine::Read,
    filter::Filter,
    fold::{
        Action,
        paths::{ANCHOR, Branch, Direction, SHOWN, Tree},
    },
    gather::{self, Actions, Actor, Fold, Layout},
    scan::Scan,
    texts::Texts,
};

/// Events of a path after its anchor at most.
pub const MAX_DEPTH: usize = 10;
/// Different beginnings of paths at most: about 40 MB on each thread.
pub const MAX_NODES: usize = 1_000_000;

/// The question.
#[derive(Debug, Clone)]
pub struct Question {
    /// The events that are looked at, microseconds since the Unix epoch.
    pub range: Range<i64>,
    /// Events at which paths begin.
    pub anchor: Filter,
    /// Events that paths show.
    pub shown: Filter,
    /// What paths show of an event; mostly its name.
    pub by: Field,
    /// Whether the same right after itself is one event.
    pub fold_repeats: bool,
    /// Which way paths go.
    pub direction: Direction,
    /// Events after the anchor.
    pub depth: usize,
    /// Branches at a node: the most frequent.
    pub width: usize,
    /// The longest time between neighbours of a path, microseconds.
    pub max_gap: i64,
    /// Whose paths: a session's end with it.
    pub actor: Actor,
}

/// A node of the tree of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What is shown of the event; `None` for the anchor and for events without it.
    pub value: Option<String>,
    /// Paths that reach it.
    pub count: u64,
    /// What comes next, most frequent first.
    pub next: Vec<Node>,
    /// Paths that go on to something that is left out.
    pub omitted: u64,
    /// Paths that end here, although they might go on: at the greatest depth none does.
    pub ended: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The anchor.
    pub root: Node,
    /// What was read.
    pub read: Read,
}

impl Question {
    /// Checks the rules of paths.
    ///
    /// # Errors
    /// [`Error::Question`] saying what to mend.
    pub fn check(&self) -> Result<(), Error> {
        if !(1..=MAX_DEPTH).contains(&self.depth) {
            return Err(Error::question("depth", format_args!("must be 1 to {MAX_DEPTH}")));
        }
        if self.width == 0 {
            return Err(Error::question("width", "must be at least 1"));
        }
        if self.max_gap <= 0 {
            return Err(Error::question("max_gap", "must be longer than 0"));
        }
        Ok(())
    }
}

impl Engine {
    /// Answers a question about paths.
    ///
    /// # Errors
    /// When the question breaks a rule, or is not answered within `limit` or in the memory there is.
    pub async fn paths(
        &self,
        events: Arc<dyn Events>,
        question: Question,
        limit: Duration,
    ) -> Result<Answer, Error> {
        question.check()?;
        self.run(limit, move |engine| async move { answer(&engine, &*events, question).await }).await
    }
}

async fn answer(engine: &Engine, events: &dyn Events, question: Question) -> Result<Answer, Error> {
    let mut scan = Scan::of(&question.range);
    let (anchor, shown) = (scan.filter(&question.anchor), scan.filter(&question.shown));
    let silent = match question.actor {
        Actor::User => lit(false),
        // Silence can only be measured between all events.
        Actor::Session => scan.column(Column::Core(name::SESSION_ID)).is_null(),
    };
    scan.keep(anchor.clone().or(shown.clone()).or(silent));
    let mut layout = Layout::new(&mut scan, question.actor, vec![(anchor, ANCHOR), (shown, SHOWN)]);
    layout.group(&mut scan, std::slice::from_ref(&question.by), ANCHOR | SHOWN);
    let (streams, read) = scan.run(engine, events, || Actions::new(layout.clone())).await?;

    let (direction, depth, gap) = (question.direction, question.depth, question.max_gap);
    let fold_repeats = question.fold_repeats;
    let new = move || Grown { tree: Tree::new(direction, depth, gap, fold_repeats), full: false };
    let (grown, texts) = gather::fold(engine, streams, question.actor, new).await?;
    if grown.full {
        let mend = "lower the depth, shorten the range or show fewer events";
        return Err(Error::TooLarge { what: "different paths", limit: MAX_NODES, mend });
    }
    let mut sorted: Vec<u32> = (0..texts.len() as u32).collect();
    engine.deadline().sort_by(&mut sorted, |a, b| texts.order(*a, *b))?;
    let mut order = vec![0; sorted.len()];
    sorted.into_iter().enumerate().for_each(|(place, number)| order[number as usize] = place);
    let top = grown.tree.top(question.width, &|number| order[number as usize]);
    Ok(Answer { root: node(top, None, depth, &texts), read })
}

/// A node from which paths can go `deeper` further.
fn node(branch: Branch, value: Option<String>, deeper: usize, texts: &Texts) -> Node {
    let Branch { count, omitted, .. } = branch;
    let value_of = |name| texts.values(name).pop().flatten();
    let next: Vec<_> = branch
        .next
        .into_iter()
        .map(|next| {
            let value = value_of(next.name);
            node(next, value, deeper.saturating_sub(1), texts)
        })
        .collect();
    let going_on: u64 = next.iter().map(|node| node.count).sum();
    let ended = if deeper == 0 { 0 } else { count - going_on - omitted };
    Node { value, count, next, omitted, ended }
}

struct Grown {
    tree: Tree,
    /// Whether it would have grown beyond its limit: it counts no more.
    full: bool,
}

impl Fold for Grown {
    fn add(&mut self, actions: &[Action]) {
        self.full |= self.tree.len() > MAX_NODES;
        if !self.full {
            self.tree.add(actions);
        }
    }

    fn merge(&mut self, other: Self, pace: &mut Pace<'_>) -> Result<(), Error> {
        self.full |= other.full || self.tree.len() > MAX_NODES;
        if !self.full {
            pace.step(other.tree.len())?;
            self.tree.merge(&other.tree);
        }
        Ok(())
    }
}
