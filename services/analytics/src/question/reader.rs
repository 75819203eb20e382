//! What requests of several kinds have in common.

use weir_proto::{
    analytics::v1 as pb,
    validate::{Path, Validate, Violations},
};
use weir_query::{Actor, fields, filter::Filter};
use weir_rollup::{calendar::Zone, field::Field};

use super::TimeRange;

/// Reads a request part by part and gathers what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    found: Violations,
}

impl Reader {
    /// Of a request that keeps to its schema.
    ///
    /// # Errors
    /// Where it does not.
    pub(crate) fn new(request: &impl Validate) -> Result<Self, Violations> {
        request.validate()?;
        Ok(Self::default())
    }

    /// Its `time_range`.
    pub(crate) fn range(&mut self, range: Option<&pb::TimeRange>) -> TimeRange {
        TimeRange::parse(range, &Path::ROOT.field("time_range"), &mut self.found)
    }

    /// Its `time_range` where none means all that is kept.
    pub(crate) fn range_or_all(&mut self, range: Option<&pb::TimeRange>) -> Option<TimeRange> {
        range.map(|range| self.range(Some(range)))
    }

    /// Its `time_zone`.
    pub(crate) fn zone(&mut self, name: &str) -> Zone {
        Zone::parse(name).unwrap_or_else(|error| {
            self.found.add(&Path::ROOT.field("time_zone"), error);
            Zone::UTC
        })
    }

    /// Its `group_by`.
    pub(crate) fn group_by(&mut self, names: &[String]) -> Vec<Field> {
        fields::parse_all(names, &Path::ROOT.field("group_by"), &mut self.found)
    }

    /// The events with one of these names that pass the filter, which stands in `at`.
    pub(crate) fn events(&mut self, at: &Path<'_>, names: &[String], filter: Option<&pb::Filter>) -> Filter {
        Filter::parse(filter, &at.field("filter"), &mut self.found).with_event_names(names)
    }

    /// The events that a selector means; all when it is absent.
    pub(crate) fn selected(&mut self, at: &Path<'_>, selector: Option<&pb::EventSelector>) -> Filter {
        selector.map_or_else(Filter::default, |selector| {
            self.events(at, &selector.event_names, selector.filter.as_ref())
        })
    }

    /// Anything else; what is wrong with it is added to what is handed in.
    pub(crate) fn read<T>(&mut self, read: impl FnOnce(&mut Violations) -> T) -> T {
        read(&mut self.found)
    }

    /// Notes what is wrong with a field.
    pub(crate) fn refuse(&mut self, at: &Path<'_>, problem: impl std::fmt::Display) {
        self.found.add(at, problem);
    }

    /// What was read, if nothing is wrong with it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn finish<T>(self, read: T) -> Result<T, Violations> {
        self.found.into_result().map(|()| read)
    }
}

/// How many, where 0 leaves it open.
pub(crate) fn number_or(given: u32, default: usize) -> usize {
    if given == 0 { default } else { given as usize }
}

/// Whom a question counts.
pub(crate) fn actor(by: pb::CountBy) -> Actor {
    match by {
        pb::CountBy::Unspecified | pb::CountBy::Users => Actor::User,
        pb::CountBy::Sessions => Actor::Session,
    }
}
