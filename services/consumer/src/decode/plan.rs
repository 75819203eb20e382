//! Which parts of an event go to which slot, compiled once from the catalog's fields.

use weir_rollup::field::{Field, event_type_text};

use super::{Event, Scalar};

/// Marks a part of an event that no slot wants.
const UNWANTED: u16 = u16::MAX;

/// The value of a dimension, borrowed from the record.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Slot<'a> {
    /// The event has none: absent, null, a list or a struct; for context fields also the empty text.
    #[default]
    Missing,
    /// Text; `true` and `false` for a boolean.
    Text(&'a str),
    /// A finite number, whose text is [`weir_rollup::field::write_number`]'s.
    Number(f64),
}

/// A compiled list of wanted fields.
#[derive(Clone, Debug)]
pub struct Plan {
    own: Vec<(Own, u16)>,
    /// Slot by field number in `Context` and in the message there (0: the field is a text itself).
    context: [[u16; 6]; 10],
    properties: Vec<Property>,
    /// Bit n: some wanted property has a name of n bytes; the last bit stands for all longer ones. Most others end here.
    lengths: u64,
    dimensions: usize,
    numerics: usize,
}

/// The fields of the event itself.
#[derive(Clone, Copy, Debug)]
enum Own {
    EventName,
    EventType,
    UserId,
    AnonymousId,
    SessionId,
    InstallId,
}

#[derive(Clone, Debug)]
struct Property {
    name: String,
    dimension: u16,
    numeric: u16,
}

impl Plan {
    /// A plan that fills dimension slots and numeric slots in the order of these fields.
    ///
    /// Numbers come from properties only; any other field leaves its numeric slot empty.
    pub fn new(dimensions: &[Field], numerics: &[Field]) -> Self {
        let mut plan = Self { dimensions: dimensions.len(), numerics: numerics.len(), ..Self::nothing() };
        for (slot, field) in (0u16..).zip(dimensions) {
            match field {
                Field::EventName => plan.own.push((Own::EventName, slot)),
                Field::EventType => plan.own.push((Own::EventType, slot)),
                Field::UserId => plan.own.push((Own::UserId, slot)),
                Field::AnonymousId => plan.own.push((Own::AnonymousId, slot)),
                Field::SessionId => plan.own.push((Own::SessionId, slot)),
                Field::InstallId => plan.own.push((Own::InstallId, slot)),
                Field::Context(field) => {
                    let (outer, inner) = field.numbers();
                    plan.context[outer][inner] = slot;
                }
                Field::Property(name) => plan.property(name).dimension = slot,
            }
        }
        for (slot, field) in (0u16..).zip(numerics) {
            if let Field::Property(name) = field {
                plan.property(name).numeric = slot;
            }
        }
        plan
    }

    /// A plan without slots, for whoever needs only the event's own fields.
    pub fn nothing() -> Self {
        Self {
            own: Vec::new(),
            context: [[UNWANTED; 6]; 10],
            properties: Vec::new(),
            lengths: 0,
            dimensions: 0,
            numerics: 0,
        }
    }

    /// Number of dimension slots.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Number of numeric slots.
    pub fn numerics(&self) -> usize {
        self.numerics
    }

    fn property(&mut self, name: &str) -> &mut Property {
        let index = self.properties.iter().position(|p| p.name == name).unwrap_or_else(|| {
            self.lengths |= length_bit(name);
            self.properties.push(Property { name: name.to_owned(), dimension: UNWANTED, numeric: UNWANTED });
            self.properties.len() - 1
        });
        &mut self.properties[index]
    }

    pub(super) fn fill_own_fields<'a>(&self, event: &Event<'a>, slots: &mut [Slot<'a>]) {
        for &(own, slot) in &self.own {
            let text = match own {
                Own::EventName => event.event_name,
                Own::EventType => event_type_text(event.event_type).unwrap_or_default(),
                Own::UserId => event.user_id,
                Own::AnonymousId => event.anonymous_id,
                Own::SessionId => event.session_id,
                Own::InstallId => event.install_id,
            };
            slots[usize::from(slot)] = present(text);
        }
    }

    #[inline(always)]
    pub(super) fn fill_context<'a>(&self, outer: u32, inner: u32, text: &'a str, slots: &mut [Slot<'a>]) {
        let slot = self.context[outer as usize][inner as usize];
        if slot != UNWANTED {
            slots[usize::from(slot)] = present(text);
        }
    }

    #[inline(always)]
    pub(super) fn fill_property<'a>(
        &self,
        name: &str,
        value: Scalar<'a>,
        slots: &mut [Slot<'a>],
        numbers: &mut [Option<f64>],
    ) {
        if self.lengths & length_bit(name) == 0 {
            return;
        }
        let Some(property) = self.properties.iter().find(|p| p.name == name) else { return };
        if property.dimension != UNWANTED {
            slots[usize::from(property.dimension)] = match value {
                Scalar::Text(text) => Slot::Text(text),
                Scalar::Number(number) if number.is_finite() => Slot::Number(number),
                Scalar::Bool(true) => Slot::Text("true"),
                Scalar::Bool(false) => Slot::Text("false"),
                Scalar::Number(_) | Scalar::None => Slot::Missing,
            };
        }
        if property.numeric != UNWANTED {
            numbers[usize::from(property.numeric)] = match value {
                Scalar::Number(number) if number.is_finite() => Some(number),
                Scalar::Number(_) | Scalar::Text(_) | Scalar::Bool(_) | Scalar::None => None,
            };
        }
    }
}

fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

fn present(text: &str) -> Slot<'_> {
    if text.is_empty() { Slot::Missing } else { Slot::Text(text) }
}
