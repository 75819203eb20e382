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
    pub fn into_proto(self) -> proto::DimensionValue {
        use proto::dimension_value::Value as Wire;
        let value = match self {
            Value::Missing => Wire::Missing(true),
            Value::Text(text) => Wire::Text(text.into_string()),
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
        self.clone().into_proto()
    }

    /// The wire form of a cell that is not needed any more.
    pub fn into_proto(self) -> proto::Cell {
        let cell = self.cell;
        proto::Cell {
            dimensions: self.dimensions.into_iter().map(Value::into_proto).collect(),
            level: proto::Level::from(self.level).into(),
            bucket: self.bucket,
            count: cell.count,
            late: cell.late,
            users: cell.users.into_proto(),
            sessions: cell.sessions.into_proto(),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::money::Currency;

    #[derive(Debug, Clone)]
    struct Event {
        late: bool,
        user: u64,
        session: Option<u64>,
        revenue: Option<i64>,
        /// Eighths, so that doubles add them up exactly.
        price: Option<(u32, i32)>,
    }

    fn of(events: &[Event]) -> Cell {
        let mut cell = Cell::default();
        for event in events {
            let mut one = Cell { count: 1, late: event.late.into(), ..Cell::default() };
            one.users.insert(event.user);
            event.session.iter().for_each(|session| one.sessions.insert(*session));
            event
                .revenue
                .iter()
                .for_each(|units| one.revenue.add(Currency::parse("EUR").unwrap(), *units, 0));
            if let Some((index, eighths)) = event.price {
                let mut summary = Summary::default();
                summary.add(f64::from(eighths) / 8.0);
                one.numerics.push((index, summary));
            }
            cell.merge(&one);
        }
        cell
    }

    fn any_events() -> impl Strategy<Value = Vec<Event>> {
        let option = proptest::option::of::<std::ops::Range<i64>>;
        let event = (
            any::<bool>(),
            0u64..50,
            proptest::option::of(0u64..50),
            option(-9..9),
            proptest::option::of((0u32..3, any::<i32>())),
        )
            .prop_map(|(late, user, session, revenue, price)| Event {
                late,
                user,
                session,
                revenue,
                price,
            });
        proptest::collection::vec(event, 0..30)
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Missing),
            Just(Value::Other),
            ".{0,10}".prop_map(|text| Value::Text(text.into_boxed_str())),
        ]
    }

    /// Everything a cell can be asked. Fewer than 200 values keep the quantile sketches exact, whatever their order.
    fn facts(cell: &Cell) -> impl PartialEq + std::fmt::Debug + use<> {
        let numerics: Vec<_> = (0..3)
            .map(|index| {
                let summary = cell.numeric(index)?;
                let quantiles: Vec<_> =
                    (0..=20).map(|rank| summary.quantile(f64::from(rank) / 20.0)).collect();
                Some((summary.count(), summary.sum(), quantiles))
            })
            .collect();
        (cell.count, cell.late, cell.users.clone(), cell.sessions.clone(), cell.revenue.clone(), numerics)
    }

    fn merged(a: &Cell, b: &Cell) -> Cell {
        let mut sum = a.clone();
        sum.merge(b);
        sum
    }

    proptest! {
        #[test]
        fn merging_is_associative_commutative_and_has_an_identity(
            a in any_events(), b in any_events(), c in any_events(),
        ) {
            let (a, b, c) = (of(&a), of(&b), of(&c));
            prop_assert_eq!(facts(&merged(&merged(&a, &b), &c)), facts(&merged(&a, &merged(&b, &c))));
            prop_assert_eq!(facts(&merged(&a, &b)), facts(&merged(&b, &a)));
            prop_assert_eq!(facts(&merged(&a, &Cell::default())), facts(&a));
            prop_assert_eq!(facts(&merged(&Cell::default(), &a)), facts(&a));
        }

        #[test]
        fn the_wire_form_holds_everything(
            events in any_events(), dimensions in proptest::collection::vec(any_value(), 0..4),
            level in prop::sample::select(Level::ALL.to_vec()), bucket: i64,
        ) {
            let placed = Placed { dimensions, level, bucket, cell: of(&events) };
            let bytes = prost::Message::encode_to_vec(&placed.to_proto());
            let read = Placed::from_proto(prost::Message::decode(bytes.as_slice()).unwrap()).unwrap();
            prop_assert_eq!((&read.dimensions, read.level, read.bucket), (&placed.dimensions, level, bucket));
            prop_assert_eq!(facts(&read.cell), facts(&placed.cell));
        }
    }

    #[test]
    fn records_of_another_make_are_refused() {
        let good =
            Placed { dimensions: vec![], level: Level::Day, bucket: 0, cell: Cell::default() }.to_proto();
        let no_value = proto::DimensionValue { value: None };
        for wire in [
            proto::Cell { level: 0, ..good.clone() },
            proto::Cell { level: 9, ..good.clone() },
            proto::Cell { dimensions: vec![no_value], ..good.clone() },
        ] {
            assert!(matches!(Placed::from_proto(wire), Err(Error::Malformed(_))));
        }
    }
}
