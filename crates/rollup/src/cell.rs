//! What a rollup holds for one combination of dimension values in one time bucket.

use weir_proto::rollup::v1 as proto;

use crate::{Error, distinct::Distinct, level::Level, money::Revenue, numeric::Summary};

/// Value of a dimension.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// The event has no value there.
    Missing,
    /// The event's value, as text.
    Text(Box<str>),
    /// One of the values beyond the limit on distinct ones, folded together.
    Other,
}

impl Value {
    /// The wire form.
    pub fn to_proto(&self) -> proto::DimensionValue {
        use proto::dimension_value::Value as Wire;
        let value = match self {
            Value::Missing => Wire::Missing(true),
            Value::Text(text) => Wire::Text(text.to_string()),
            Value::Other => Wire::Other(true),
        };
        proto::DimensionValue { value: Some(value) }
    }

    /// From the wire form.
    ///
    /// # Errors
    /// [`Error::Malformed`] when nothing is set.
    pub fn from_proto(wire: proto::DimensionValue) -> Result<Value, Error> {
        use proto::dimension_value::Value as Wire;
        match wire.value {
            Some(Wire::Text(text)) => Ok(Value::Text(text.into_boxed_str())),
            Some(Wire::Missing(_)) => Ok(Value::Missing),
            Some(Wire::Other(_)) => Ok(Value::Other),
            None => {
                Err(Error::Malformed("a dimension value is neither text nor missing nor other".to_owned()))
            }
        }
    }
}

/// A mergeable aggregate of events.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Events.
    pub count: u64,
    /// Of them, late ones.
    pub late: u64,
    /// Users.
    pub users: Distinct,
    /// Sessions.
    pub sessions: Distinct,
    /// Revenue by currency.
    pub revenue: Revenue,
    /// Numeric fields that have a value, by position in the definition, ascending.
    pub numerics: Vec<(u32, Summary)>,
}

impl Cell {
    /// Adds the events of another cell. The events of the two must be different ones.
    pub fn merge(&mut self, other: &Cell) {
        self.count += other.count;
        self.late += other.late;
        self.users.merge(&other.users);
        self.sessions.merge(&other.sessions);
        self.revenue.merge(&other.revenue);
        for (index, summary) in &other.numerics {
            match self.numerics.binary_search_by_key(index, |(known, _)| *known) {
                Ok(place) => self.numerics[place].1.merge(summary),
                Err(place) => self.numerics.insert(place, (*index, summary.clone())),
            }
        }
    }

    /// The summary of the numeric field at this position in the definition.
    pub fn numeric(&self, index: u32) -> Option<&Summary> {
        let place = self.numerics.binary_search_by_key(&index, |(known, _)| *known).ok()?;
        Some(&self.numerics[place].1)
    }
}

/// A cell and where it belongs.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Values of the definition's dimensions, in its order.
    pub dimensions: Vec<Value>,
    /// Width of the bucket.
    pub level: Level,
    /// Number of the bucket: Unix time divided by the width, rounded down.
    pub bucket: i64,
    /// What happened there.
    pub cell: Cell,
}

impl Placed {
    /// The wire form.
    pub fn to_proto(&self) -> proto::Cell {
        let cell = &self.cell;
        proto::Cell {
            dimensions: self.dimensions.iter().map(Value::to_proto).collect(),
            level: proto::Level::from(self.level).into(),
            bucket: self.bucket,
            count: cell.count,
            late: cell.late,
            users: cell.users.to_proto(),
            sessions: cell.sessions.to_proto(),
            revenue: cell.revenue.to_proto(),
            numerics: cell.numerics.iter().filter_map(|(index, summary)| summary.to_proto(*index)).collect(),
        }
    }

    /// From the wire form.
    ///
    /// # Errors
    /// [`Error::Malformed`], saying which part can't be read.
    pub fn from_proto(wire: proto::Cell) -> Result<Placed, Error> {
        let mut cell = Cell {
            count: wire.count,
            late: wire.late,
            users: Distinct::from_proto(wire.users)?,
            sessions: Distinct::from_proto(wire.sessions)?,
            revenue: Revenue::from_proto(&wire.revenue)?,
            numerics: Vec::with_capacity(wire.numerics.len()),
        };
        for summary in &wire.numerics {
            cell.numerics.push((summary.index, Summary::from_proto(summary)?));
        }
        if !cell.numerics.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(Error::Malformed("numeric summaries are not in ascending order".to_owned()));
        }
        Ok(Placed {
            dimensions: wire.dimensions.into_iter().map(Value::from_proto).collect::<Result<_, _>>()?,
            level: Level::try_from(wire.level)?,
            bucket: wire.bucket,
            cell,
        })
    }
}
