//! `ListEventNames` and `ListProperties`.

use std::ops::Range;

use prost_types::{Value, value};
use weir_proto::{
    analytics::v1::{self as pb, property_kind::Kind as KindNumber},
    validate::{Path, Violations},
};
use weir_query::{
    engine::Read,
    filter::Filter,
    names::{Name, Property, Question},
};
use weir_store::schema::Kind;

use super::{Seen, figure};
use crate::question::{
    TimeRange,
    reader::{Reader, number_or},
};

/// Entries a page when the request says nothing.
const PAGE: usize = 100;

/// Which entries of a list are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    /// `None`: all that is kept.
    pub(crate) range: Option<TimeRange>,
    filter: Filter,
    /// Lower case.
    search: String,
    values: usize,
    page: usize,
    from: usize,
}

impl Listing {
    /// Reads a request for names.
    pub(crate) fn names(request: &pb::ListEventNamesRequest) -> Result<Self, Violations> {
        let reader = Reader::new(request)?;
        let pb::ListEventNamesRequest { search, time_range, page_size, page_token } = request;
        Self::parse(reader, search, time_range.as_ref(), *page_size, page_token)
    }

    /// Reads a request for properties.
    pub(crate) fn properties(request: &pb::ListPropertiesRequest) -> Result<Self, Violations> {
        let reader = Reader::new(request)?;
        let pb::ListPropertiesRequest { event_names, search, time_range, top_values, page_size, page_token } =
            request;
        let listing = Self::parse(reader, search, time_range.as_ref(), *page_size, page_token)?;
        let filter = Filter::default().with_event_names(event_names);
        Ok(Self { filter, values: *top_values as usize, ..listing })
    }

    fn parse(
        mut reader: Reader,
        search: &str,
        range: Option<&pb::TimeRange>,
        page_size: u32,
        page_token: &str,
    ) -> Result<Self, Violations> {
        let range = reader.range_or_all(range);
        let from = if page_token.is_empty() { Ok(0) } else { page_token.parse() };
        let from = from.unwrap_or_else(|_| {
            let problem = "must be the next_page_token of the page before";
            reader.refuse(&Path::ROOT.field("page_token"), problem);
            0
        });
        let (filter, search, page) = (Filter::default(), search.to_lowercase(), number_or(page_size, PAGE));
        reader.finish(Self { range, filter, search, values: 0, page, from })
    }

    /// The question about a range.
    pub(crate) fn of(&self, range: Range<i64>) -> Question {
        Question { range, filter: self.filter.clone(), values: self.values }
    }

    /// The page of what was found, and what leads to the next.
    fn page<'f, T>(&self, found: &'f [T], name: impl Fn(&T) -> String) -> (Vec<&'f T>, String) {
        let wanted = |of: &&T| self.search.is_empty() || name(of).to_lowercase().contains(&self.search);
        let mut rest = found.iter().filter(wanted).skip(self.from);
        let page: Vec<&T> = rest.by_ref().take(self.page).collect();
        let next = rest.next().map(|_| (self.from + page.len()).to_string());
        (page, next.unwrap_or_default())
    }

    /// The response with names.
    pub(crate) fn name_response(
        &self,
        found: &(Vec<Name>, Read),
        range: &Range<i64>,
        seen: &Seen,
    ) -> pb::ListEventNamesResponse {
        let (page, next_page_token) = self.page(&found.0, |name| name.name.clone());
        let name = |name: &Name| pb::EventName { event_name: name.name.clone(), events: name.events };
        pb::ListEventNamesResponse {
            event_names: page.into_iter().map(name).collect(),
            next_page_token,
            info: Some(seen.info(range, found.1, true)),
        }
    }

    /// The response with properties.
    pub(crate) fn property_response(
        &self,
        found: &(Vec<Property>, Read),
        range: &Range<i64>,
        seen: &Seen,
    ) -> pb::ListPropertiesResponse {
        let (page, next_page_token) = self.page(&found.0, |property| property.field.to_string());
        let property = |of: &Property| {
            let mut kinds: Vec<_> = of.kinds.iter().collect();
            kinds.sort_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
            let kinds = kinds
                .into_iter()
                .map(|(kind, events)| pb::PropertyKind { kind: kind_number(*kind).into(), events: *events });
            let values = of.values.iter().take(self.values).map(|of| pb::PropertyValue {
                value: Some(Value { kind: Some(value::Kind::StringValue(of.value.clone())) }),
                events: of.events,
                lower_bound: of.lower_bound,
            });
            pb::Property {
                field: of.field.to_string(),
                events: of.events,
                kinds: kinds.collect(),
                top_values: values.collect(),
                distinct_values: (self.values > 0).then(|| figure(Some(of.distinct), None)),
            }
        };
        let exact = page.iter().all(|property| property.distinct.exact && !property.more_values);
        pb::ListPropertiesResponse {
            properties: page.into_iter().map(property).collect(),
            next_page_token,
            info: Some(seen.info(range, found.1, exact)),
        }
    }
}

fn kind_number(kind: Kind) -> KindNumber {
    match kind {
        Kind::Text => KindNumber::Text,
        Kind::Number => KindNumber::Number,
        Kind::Boolean => KindNumber::Boolean,
        Kind::Json => KindNumber::Structured,
        Kind::Null => KindNumber::Null,
    }
}
