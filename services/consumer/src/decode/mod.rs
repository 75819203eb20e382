//! Borrowed decoding of `event.v1.EventRecord`: one pass over the bytes, nothing allocated.
//!
//! The whole record is checked, not only what is used, and accepted exactly when prost accepts it. So what counts as
//! malformed depends on the bytes alone, never on which dimensions happen to be configured: deduplication, which must decide
//! the same after any restart, rests on that, and so does the promise that an event that one sink takes can be decoded by
//! every other.
//!
//! Map: `wire` the wire format, `plan` which fields go to which slot.

mod plan;
#[cfg(test)]
mod tests;
mod wire;

pub use plan::{Plan, Slot};
pub use wire::{Fault, Malformed};

use wire::{Cursor, Key};

type Result<T> = std::result::Result<T, Malformed>;

/// What every event has, borrowed from the record. Text that is absent is empty, as in Protobuf.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Event<'a> {
    /// The project it belongs to.
    pub project: &'a str,
    /// When the producer received it, microseconds since the Unix epoch.
    pub receive_time_micros: i64,
    /// When it happened by the server's clock, microseconds since the Unix epoch.
    pub corrected_time_micros: i64,
    /// The deduplication key.
    pub event_id: &'a str,
    /// What happened.
    pub event_name: &'a str,
    /// `event.v1.EventType` by number; numbers of newer schemas pass.
    pub event_type: i32,
    /// The signed-in user.
    pub user_id: &'a str,
    /// The visitor before signing in.
    pub anonymous_id: &'a str,
    /// The visit.
    pub session_id: &'a str,
    /// The installation.
    pub install_id: &'a str,
    /// Money earned.
    pub revenue: Option<Money<'a>>,
}

/// A `google.type.Money`, unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Money<'a> {
    /// ISO 4217 code.
    pub currency: &'a str,
    /// Whole units.
    pub units: i64,
    /// Billionths of a unit.
    pub nanos: i32,
}

/// Decodes one record's value. `slots` and `numbers` are as long as the plan says and are overwritten.
///
/// # Errors
/// [`Malformed`] when it is not an `EventRecord`, with the position.
pub fn decode<'a>(
    plan: &Plan,
    value: &'a [u8],
    slots: &mut [Slot<'a>],
    numbers: &mut [Option<f64>],
) -> Result<Event<'a>> {
    slots.fill(Slot::Missing);
    numbers.fill(None);
    let mut event = Event::default();
    let mut sink = Wanted { plan, slots, numbers };
    let mut record = Cursor::new(value);
    while let Some(key) = record.key()? {
        match key.tag {
            1 => event.project = record.string(key)?,
            2 => event.receive_time_micros = record.integer(key)?.cast_signed(),
            3 => event.corrected_time_micros = record.integer(key)?.cast_signed(),
            4 => read_event(record.message(key)?, &mut event, &mut sink)?,
            _ => record.skip(key)?,
        }
    }
    plan.fill_own_fields(&event, sink.slots);
    Ok(event)
}

/// Where wanted values go.
struct Wanted<'p, 's, 'a> {
    plan: &'p Plan,
    slots: &'s mut [Slot<'a>],
    numbers: &'s mut [Option<f64>],
}

fn read_event<'a>(mut c: Cursor<'a>, event: &mut Event<'a>, wanted: &mut Wanted<'_, '_, 'a>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => event.event_id = c.string(key)?,
            2 => event.event_name = c.string(key)?,
            3 => event.event_type = c.integer(key)? as i32,
            4 => event.user_id = c.string(key)?,
            5 => event.anonymous_id = c.string(key)?,
            6 => event.session_id = c.string(key)?,
            7 => event.install_id = c.string(key)?,
            8 => drop(c.integer(key)?),
            9..=11 => check_seconds_and_nanos(c.message(key)?)?,
            12 => read_properties(c.message(key)?, wanted)?,
            13 => read_money(c.message(key)?, event.revenue.get_or_insert_default())?,
            14 => read_context(c.message(key)?, wanted)?,
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

/// `google.protobuf.Timestamp` and `Duration`.
fn check_seconds_and_nanos(mut c: Cursor<'_>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 | 2 => drop(c.integer(key)?),
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

fn read_money<'a>(mut c: Cursor<'a>, money: &mut Money<'a>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => money.currency = c.string(key)?,
            2 => money.units = c.integer(key)?.cast_signed(),
            3 => money.nanos = c.integer(key)? as i32,
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

fn read_context<'a>(mut c: Cursor<'a>, wanted: &mut Wanted<'_, '_, 'a>) -> Result<()> {
    while let Some(key) = c.key()? {
        // The number of string fields of each message in `event.v1.Context`; 0 where the field is a string itself.
        let strings = match key.tag {
            1 | 2 | 5 => 3,
            3 => 2,
            7 => 5,
            4 | 6 | 8 | 9 => 0,
            _ => {
                c.skip(key)?;
                continue;
            }
        };
        if strings == 0 {
            let text = c.string(key)?;
            wanted.plan.fill_context(key.tag, 0, text, wanted.slots);
        } else {
            let mut inner = c.message(key)?;
            while let Some(field) = inner.key()? {
                if field.tag <= strings {
                    let text = inner.string(field)?;
                    wanted.plan.fill_context(key.tag, field.tag, text, wanted.slots);
                } else {
                    inner.skip(field)?;
                }
            }
        }
    }
    Ok(())
}

/// The `google.protobuf.Struct` of properties.
fn read_properties<'a>(mut c: Cursor<'a>, wanted: &mut Wanted<'_, '_, 'a>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => {
                let (name, value) = read_entry(c.message(key)?)?;
                wanted.plan.fill_property(name, value, wanted.slots, wanted.numbers);
            }
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

/// A property's value as far as rollups care.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'a> {
    /// Null, a list, a struct or nothing at all.
    None,
    Text(&'a str),
    Number(f64),
    Bool(bool),
}

/// An entry of `Struct.fields`.
fn read_entry<'a>(mut c: Cursor<'a>) -> Result<(&'a str, Scalar<'a>)> {
    let (mut name, mut value) = ("", Scalar::None);
    while let Some(key) = c.key()? {
        match key.tag {
            1 => name = c.string(key)?,
            2 => read_value(c.message(key)?, &mut value)?,
            _ => c.skip(key)?,
        }
    }
    Ok((name, value))
}

/// `google.protobuf.Value`: of several kinds the last counts.
fn read_value<'a>(mut c: Cursor<'a>, value: &mut Scalar<'a>) -> Result<()> {
    while let Some(key) = c.key()? {
        match read_kind(&mut c, key)? {
            Some(kind) => *value = kind,
            None => c.skip(key)?,
        }
    }
    Ok(())
}

#[inline(always)]
fn read_kind<'a>(c: &mut Cursor<'a>, key: Key) -> Result<Option<Scalar<'a>>> {
    Ok(Some(match key.tag {
        1 => {
            c.integer(key)?;
            Scalar::None
        }
        2 => Scalar::Number(c.double(key)?),
        3 => Scalar::Text(c.string(key)?),
        4 => Scalar::Bool(c.integer(key)? != 0),
        5 => {
            check_struct(c.message(key)?)?;
            Scalar::None
        }
        6 => {
            check_list(c.message(key)?)?;
            Scalar::None
        }
        _ => return Ok(None),
    }))
}

fn check_struct(mut c: Cursor<'_>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => drop(read_entry(c.message(key)?)?),
            _ => c.skip(key)?,
        }
    }
    Ok(())
}

fn check_list(mut c: Cursor<'_>) -> Result<()> {
    while let Some(key) = c.key()? {
        match key.tag {
            1 => read_value(c.message(key)?, &mut Scalar::None)?,
            _ => c.skip(key)?,
        }
    }
    Ok(())
}
