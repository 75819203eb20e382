//! From events to cells: the hot path of the consumer.
//!
//! In the steady state an event allocates nothing: texts are interned per project, a cell is found by small numbers, and
//! sets of users grow in place.

use std::sync::Arc;

use weir_proto::rollup::v1 as proto;

use crate::{
    definition::Catalog,
    level::Level,
    money::{Currency, Revenue as RevenueSum},
};

mod dictionary;
mod project;

use project::Project;

/// Projects whose tables are kept from one batch to the next.
const MAX_WARM_PROJECTS: usize = 256;

/// What the rollups need to know of one event.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The project.
    pub project: &'a str,
    /// Corrected time, microseconds since the Unix epoch.
    pub time_micros: i64,
    /// Level of its cells: [`Retention::finest`](crate::level::Retention::finest) of its age.
    pub level: Level,
    /// Whether it reached the log later after its time than the configured lateness.
    pub late: bool,
    /// XXH3 (64 bit) of the user: `user_id`, else `anonymous_id`.
    pub user: u64,
    /// XXH3 (64 bit) of the session, if it belongs to one.
    pub session: Option<u64>,
    /// Money earned.
    pub revenue: Option<Revenue<'a>>,
    /// Value of each of [`Catalog::dimension_fields`]; `None` where the event has none.
    pub dimensions: &'a [Option<&'a str>],
    /// Value of each of [`Catalog::numeric_fields`]; `None`, or not finite, where the event has none.
    pub numerics: &'a [Option<f64>],
}

/// Money earned, as in `google.type.Money`.
#[derive(Debug, Clone, Copy)]
pub struct Revenue<'a> {
    /// ISO 4217 code; one that is not three letters counts as no currency ([`Currency::NONE`]).
    pub currency: &'a str,
    /// Whole units.
    pub units: i64,
    /// Billionths of a unit, same sign.
    pub nanos: i32,
}

/// Adds events up to the cells of a micro-batch.
#[derive(Debug)]
pub struct Accumulator {
    catalog: Arc<Catalog>,
    projects: Vec<Project>,
    /// The project of the last event: likely the next one's.
    last: usize,
    cells: usize,
}

impl Accumulator {
    /// Empty, for the definitions of a catalog.
    pub fn new(catalog: Arc<Catalog>) -> Accumulator {
        Accumulator { catalog, projects: Vec::new(), last: 0, cells: 0 }
    }

    /// Adds one event to its cell in every definition.
    ///
    /// # Panics
    /// When `dimensions` or `numerics` do not have one entry for each field of the catalog.
    pub fn add(&mut self, event: &Observation<'_>) {
        assert_eq!(
            event.dimensions.len(),
            self.catalog.dimension_fields().len(),
            "one value per dimension field"
        );
        assert_eq!(event.numerics.len(), self.catalog.numeric_fields().len(), "one value per numeric field");
        if self.projects.get(self.last).is_none_or(|project| project.name() != event.project) {
            self.last = self.find(event.project);
        }
        self.cells += self.projects[self.last].add(&self.catalog, event);
    }

    /// Takes the cells out, projects and cells in order of appearance. The tables stay warm for the next batch.
    pub fn drain(&mut self) -> Vec<proto::ProjectDelta> {
        let deltas = self.projects.iter_mut().filter_map(|project| project.drain(&self.catalog)).collect();
        if self.projects.len() > MAX_WARM_PROJECTS {
            self.projects.clear();
        }
        self.cells = 0;
        deltas
    }

    /// Whether nothing was added since the last drain.
    pub fn is_empty(&self) -> bool {
        self.cells == 0
    }

    /// Number of cells: what a batch will weigh.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// A walk: projects per partition and batch are few, and runs of one project are the rule.
    fn find(&mut self, name: &str) -> usize {
        self.projects.iter().position(|project| project.name() == name).unwrap_or_else(|| {
            self.projects.push(Project::new(name, &self.catalog));
            self.projects.len() - 1
        })
    }
}

impl Revenue<'_> {
    #[inline]
    fn add_to(&self, sum: &mut RevenueSum) {
        sum.add(Currency::parse(self.currency).unwrap_or(Currency::NONE), self.units, self.nanos);
    }
}

#[cfg(test)]
mod tests;
