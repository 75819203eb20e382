//! What is measured.

use weir_proto::{
    analytics::v1::{self as pb, measure::Kind},
    validate::{Path, Violations},
};
use weir_rollup::{field::Field, money::Currency};

use crate::fields;

/// Something to measure.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// Number of events.
    Events,
    /// Number of users.
    UniqueUsers,
    /// Number of sessions.
    Sessions,
    /// Revenue in a currency; `None`: in the only one there is.
    Revenue(Option<Currency>),
    /// About the values of a numeric property.
    Numeric(Field, Statistic),
    /// Number of different texts of a field.
    UniqueValues(Field),
    /// Number of visits: sessions, or where events have none, what 30 minutes without another such event don't interrupt.
    Visits,
}

/// What to tell about numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistic {
    /// Their sum.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// Their mean.
    Average,
    /// The value at this rank, 0 to 1.
    Quantile(f64),
}

impl Measure {
    /// Reads the measures of a request; none means the number of events.
    pub fn parse_all(measures: &[pb::Measure], at: &Path<'_>, found: &mut Violations) -> Vec<Self> {
        if measures.is_empty() {
            return vec![Self::Events];
        }
        let all = measures.iter().enumerate();
        all.filter_map(|(index, measure)| Self::parse(measure, &at.index(index), found)).collect()
    }

    fn parse(measure: &pb::Measure, at: &Path<'_>, found: &mut Violations) -> Option<Self> {
        let Ok(kind) = Kind::try_from(measure.kind) else {
            found.add(&at.field("kind"), "must be one of the kinds");
            return None;
        };
        let numeric = |statistic, found: &mut Violations| match fields::parse(&measure.property) {
            Ok(field) => Some(Self::Numeric(field, statistic)),
            Err(problem) => {
                found.add(&at.field("property"), problem);
                None
            }
        };
        match kind {
            Kind::Unspecified | Kind::Events => Some(Self::Events),
            Kind::UniqueUsers => Some(Self::UniqueUsers),
            Kind::Sessions => Some(Self::Sessions),
            Kind::Visits => Some(Self::Visits),
            Kind::UniqueValues => match fields::parse(&measure.property) {
                Ok(field) => Some(Self::UniqueValues(field)),
                Err(problem) => {
                    found.add(&at.field("property"), problem);
                    None
                }
            },
            Kind::Revenue if measure.currency.is_empty() => Some(Self::Revenue(None)),
            Kind::Revenue => match Currency::parse(&measure.currency) {
                Some(currency) => Some(Self::Revenue(Some(currency))),
                None => {
                    found.add(&at.field("currency"), "must be an ISO 4217 code such as `EUR`");
                    None
                }
            },
            Kind::Sum => numeric(Statistic::Sum, found),
            Kind::Min => numeric(Statistic::Min, found),
            Kind::Max => numeric(Statistic::Max, found),
            Kind::Average => numeric(Statistic::Average, found),
            Kind::Quantile => numeric(Statistic::Quantile(measure.quantile), found),
        }
    }

    /// The numeric property that it is about.
    pub fn numeric(&self) -> Option<&Field> {
        match self {
            Self::Numeric(field, _) => Some(field),
            Self::Events
            | Self::UniqueUsers
            | Self::Sessions
            | Self::Revenue(_)
            | Self::UniqueValues(_)
            | Self::Visits => None,
        }
    }
}
