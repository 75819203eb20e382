//! Times and zones as PostgreSQL has them. Arrow's times carry a zone in their type, which operators keep or lose; here a time is either
//! a moment (`timestamptz`: in UTC, as the column `time`) or what a clock showed (`timestamp`), in microseconds, and `at time zone` leads
//! from one to the other:
//!
//! - of a moment: what clocks in the zone showed then;
//! - of a clock's time: the moment. Where clocks were set forward over it, it is read as before they were; where they showed it twice,
//!   it is the second.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray as _, TimestampMicrosecondArray},
    datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType},
    error::ArrowError,
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err, plan_err},
    error::Result,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        planner::TypePlanner,
    },
    sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo},
};
use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{TimeZone, TimeZoneDatabase},
};

/// Looks a zone up by its IANA name.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    // The bundled copy, never that of the machine.
    let unknown = |_| {
        let name: String = name.chars().take(64).collect();
        format!("there is no time zone `{name}`: use a name such as 'Europe/Berlin' or 'UTC'")
    };
    TimeZoneDatabase::bundled().get(name).map_err(unknown)
}

fn moment() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

const CLOCK: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Reads `timestamp` and `timestamptz` in microseconds, as the events have them: nanoseconds in 64 bits end in 2262.
#[derive(Debug)]
pub(super) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, of: &SqlType) -> Result<Option<FieldRef>> {
        let SqlType::Timestamp(_, zone) = of else { return Ok(None) };
        let planned = match zone {
            TimezoneInfo::Tz | TimezoneInfo::WithTimeZone => moment(),
            TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => CLOCK,
        };
        Ok(Some(Arc::new(Field::new("", planned, true))))
    }
}

/// `at_time_zone(time, 'zone')`, which stands for `time at time zone 'zone'`.
pub(super) fn udf() -> Arc<ScalarUDF> {
    Arc::new(AtTimeZone { signature: Signature::user_defined(Volatility::Immutable) }.into())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    signature: Signature,
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &'static str {
        "at_time_zone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let time = match arguments {
            [DataType::Timestamp(_, None), _] => CLOCK,
            // A date or a text is a moment of UTC.
            [
                DataType::Timestamp(_, Some(_))
                | DataType::Date32
                | DataType::Utf8
                | DataType::Utf8View
                | DataType::LargeUtf8
                | DataType::Null,
                _,
            ] => moment(),
            _ => return plan_err!("`at time zone` takes a time"),
        };
        Ok(vec![time, DataType::Utf8])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [DataType::Timestamp(_, None), _] => Ok(moment()),
            _ => Ok(CLOCK),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time, ColumnarValue::Scalar(name)] = arguments.args.as_slice() else {
            return plan_err!("`at time zone` takes a time and the name of a zone");
        };
        let name = name.try_as_str().flatten().unwrap_or_default();
        let mut zone = Offsets::new(zone(name).map_err(|problem| exec_datafusion_err!("{problem}"))?);
        let mut convert = |array: &ArrayRef| -> Result<ArrayRef> {
            let times = array.as_primitive::<TimestampMicrosecondType>();
            let is_moment = times.timezone().is_some();
            let mut of = |micros| if is_moment { zone.clock(micros) } else { zone.moment(micros) };
            let converted = times.iter().map(|time| time.map(&mut of).transpose());
            let converted: TimestampMicrosecondArray = converted.collect::<Result<_, ArrowError>>()?;
            let of_type = if is_moment { None } else { Some("UTC") };
            Ok(Arc::new(converted.with_timezone_opt(of_type)))
        };
        Ok(match time {
            ColumnarValue::Array(array) => ColumnarValue::Array(convert(array)?),
            ColumnarValue::Scalar(value) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&convert(&value.to_array()?)?, 0)?)
            }
        })
    }
}

/// A zone, and the offset that was looked up last with the time that it holds for: events that lie together mostly have the same.
struct Offsets {
    zone: TimeZone,
    holds: Range<i64>,
    micros: i64,
}

impl Offsets {
    fn new(zone: TimeZone) -> Self {
        Self { zone, holds: 0..0, micros: 0 }
    }

    /// What clocks showed at a moment, as microseconds since they would have shown 1970.
    fn clock(&mut self, micros: i64) -> Result<i64, ArrowError> {
        if !self.holds.contains(&micros) {
            let at = Timestamp::from_microsecond(micros).map_err(|_| beyond(micros))?;
            let start =
                self.zone.preceding(at).next().map_or(i64::MIN, |before| before.timestamp().as_microsecond());
            let end =
                self.zone.following(at).next().map_or(i64::MAX, |after| after.timestamp().as_microsecond());
            self.micros = i64::from(self.zone.to_offset(at).seconds()) * 1_000_000;
            // A transition that falls on the moment precedes the next one only.
            self.holds = if start < micros { start.saturating_add(1)..end } else { micros..micros + 1 };
        }
        micros.checked_add(self.micros).ok_or_else(|| beyond(micros))
    }

    /// The moment at which clocks showed a time.
    fn moment(&self, micros: i64) -> Result<i64, ArrowError> {
        let shown = Timestamp::from_microsecond(micros).map_err(|_| beyond(micros))?;
        let shown: DateTime = jiff::tz::Offset::UTC.to_datetime(shown);
        let moment = self.zone.to_ambiguous_timestamp(shown).later().map_err(|_| beyond(micros))?;
        Ok(moment.as_microsecond())
    }
}

fn beyond(micros: i64) -> ArrowError {
    ArrowError::ComputeError(format!(
        "a time of {micros} microseconds since 1970 lies outside of the years -9999 to 9999"
    ))
}
