//! The names in a question, so that those that no event has can be pointed out.

use std::collections::BTreeSet;

use prost_types::value::Kind as Value;
use weir_proto::analytics::v1::{
    Condition, EventSelector, Filter, Measure, condition::Operator, filter::Expression, measure::Kind,
    watch_query_request::Query,
};
use weir_rollup::field::Field;

/// What a question names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// Names of events.
    pub(crate) events: BTreeSet<String>,
    /// Keys of properties.
    pub(crate) properties: BTreeSet<String>,
    /// Those of them whose values are to be numbers.
    pub(crate) numbers: BTreeSet<String>,
}

impl Named {
    /// The names in a request.
    pub(crate) fn of(query: &Query) -> Self {
        let mut named = Self::default();
        match query {
            Query::Summary(_) => {}
            Query::TimeSeries(of) => {
                named.selected(&of.event_names, of.filter.as_ref());
                named.measures(&of.measures);
                of.group_by.iter().for_each(|field| named.field(field));
            }
            Query::Breakdown(of) => {
                named.selected(&of.event_names, of.filter.as_ref());
                named.measures(&of.measures);
                of.group_by.iter().for_each(|field| named.field(field));
            }
            Query::Funnel(of) => {
                of.steps.iter().for_each(|step| named.selected(&step.event_names, step.filter.as_ref()));
                of.exclusions.iter().for_each(|one| named.selected(&one.event_names, one.filter.as_ref()));
                named.selected(&[], of.filter.as_ref());
                of.group_by.iter().for_each(|field| named.field(field));
            }
            Query::Retention(of) => {
                named.selector(of.start_event.as_ref());
                named.selector(of.return_event.as_ref());
                of.group_by.iter().for_each(|field| named.field(field));
            }
            Query::Paths(of) => {
                named.selector(of.event.as_ref());
                named.selected(&[], of.filter.as_ref());
                named.field(&of.field);
            }
            Query::UserEvents(of) => named.selected(&of.event_names, of.filter.as_ref()),
        }
        named
    }

    fn selector(&mut self, selector: Option<&EventSelector>) {
        if let Some(EventSelector { event_names, filter }) = selector {
            self.selected(event_names, filter.as_ref());
        }
    }

    fn selected(&mut self, names: &[String], filter: Option<&Filter>) {
        self.events.extend(names.iter().cloned());
        match filter.and_then(|filter| filter.expression.as_ref()) {
            None => {}
            Some(Expression::AllOf(list) | Expression::AnyOf(list)) => {
                list.filters.iter().for_each(|filter| self.selected(&[], Some(filter)));
            }
            Some(Expression::Not(filter)) => self.selected(&[], Some(filter)),
            Some(Expression::Condition(condition)) => self.condition(condition),
        }
    }

    fn condition(&mut self, condition: &Condition) {
        let Condition { field, operator: _, values } = condition;
        self.field(field);
        if condition.operator() == Operator::In && Field::parse(field) == Ok(Field::EventName) {
            let texts = values.iter().filter_map(|value| match &value.kind {
                Some(Value::StringValue(text)) => Some(text.clone()),
                _ => None,
            });
            self.events.extend(texts);
        }
    }

    fn measures(&mut self, measures: &[Measure]) {
        for measure in measures {
            self.field(&measure.property);
            let of_numbers = match measure.kind() {
                Kind::Sum | Kind::Min | Kind::Max | Kind::Average | Kind::Quantile => true,
                Kind::Unspecified
                | Kind::Events
                | Kind::UniqueUsers
                | Kind::Sessions
                | Kind::Revenue
                | Kind::UniqueValues
                | Kind::Visits => false,
            };
            if of_numbers && let Ok(Field::Property(key)) = Field::parse(&measure.property) {
                self.numbers.insert(key);
            }
            self.selected(&[], measure.filter.as_ref());
        }
    }

    fn field(&mut self, name: &str) {
        if let Ok(Field::Property(key)) = Field::parse(name) {
            self.properties.insert(key);
        }
    }
}
