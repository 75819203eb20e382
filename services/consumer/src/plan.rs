//! Which parts of an event go to which slot, compiled once from the catalog's fields.

use weir_proto::record::{Event, Parts, Value};
use weir_rollup::field::{Field, event_type_text};

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
    /// Properties with a dot in their names, which may be values within a struct: see [`Field::Property`].
    nested: Vec<Within>,
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

/// A value within a property that is a struct.
#[derive(Clone, Debug)]
struct Within {
    /// The property.
    outer: String,
    /// The path within it.
    path: String,
    /// Its place among [`Plan::properties`].
    index: usize,
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
                    plan.context[usize::from(outer)][usize::from(inner)] = slot;
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

    /// A plan without slots.
    fn nothing() -> Self {
        Self {
            own: Vec::new(),
            context: [[UNWANTED; 6]; 10],
            properties: Vec::new(),
            nested: Vec::new(),
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
            let index = self.properties.len() - 1;
            if let Some((outer, path)) = name.split_once('.') {
                self.lengths |= length_bit(outer);
                self.nested.push(Within { outer: outer.to_owned(), path: path.to_owned(), index });
            }
            index
        });
        &mut self.properties[index]
    }

    /// Fills the slots of an event: `slots` and `numbers` are as long as the plan says and are overwritten.
    pub fn fill<'a>(
        &self,
        event: &Event<'a>,
        parts: &Parts<'a>,
        slots: &mut [Slot<'a>],
        numbers: &mut [Option<f64>],
    ) {
        slots.fill(Slot::Missing);
        numbers.fill(None);
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
        for &((outer, inner), text) in parts.context(event) {
            let slot = self.context[usize::from(outer)][usize::from(inner)];
            if slot != UNWANTED {
                slots[usize::from(slot)] = present(text);
            }
        }
        for (name, value) in parts.properties(event) {
            self.fill_property(name, *value, slots, numbers);
        }
    }

    #[inline(always)]
    fn fill_property<'a>(
        &self,
        name: &str,
        value: Value<'a>,
        slots: &mut [Slot<'a>],
        numbers: &mut [Option<f64>],
    ) {
        if self.lengths & length_bit(name) == 0 {
            return;
        }
        if let Value::Nested(nested) = value {
            // Keys come in ascending order: a property with the whole name comes later and has the last word.
            for within in self.nested.iter().filter(|within| within.outer == name) {
                if let Some(value) = nested.get(&within.path) {
                    set(&self.properties[within.index], value, slots, numbers);
                }
            }
        }
        if let Some(property) = self.properties.iter().find(|p| p.name == name) {
            set(property, value, slots, numbers);
        }
    }
}

/// Gives the value of a property to its slots.
fn set<'a>(property: &Property, value: Value<'a>, slots: &mut [Slot<'a>], numbers: &mut [Option<f64>]) {
    if property.dimension != UNWANTED {
        let slot = &mut slots[usize::from(property.dimension)];
        match value {
            Value::Text(text) => *slot = Slot::Text(text),
            Value::Number(number) if number.is_finite() => *slot = Slot::Number(number),
            Value::Boolean(true) => *slot = Slot::Text("true"),
            Value::Boolean(false) => *slot = Slot::Text("false"),
            Value::Number(_) | Value::Nested(_) | Value::Null => {}
        }
    }
    if property.numeric != UNWANTED
        && let Value::Number(number) = value
        && number.is_finite()
    {
        numbers[usize::from(property.numeric)] = Some(number);
    }
}

fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

fn present(text: &str) -> Slot<'_> {
    if text.is_empty() { Slot::Missing } else { Slot::Text(text) }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::{ListValue, Struct, value::Kind};
    use weir_proto::{event::v1 as proto, record};
    use weir_rollup::field::{ContextField, number_text};

    use super::*;

    /// What the slots of these fields hold as texts and numbers, of an event that another precedes.
    fn filled(event: proto::Event, fields: &[Field]) -> (Vec<Option<String>>, Vec<Option<f64>>) {
        let plan = Plan::new(fields, fields);
        let value = proto::EventRecord { event: Some(event), ..Default::default() }.encode_to_vec();
        let mut parts = Parts::default();
        let mut slots = vec![Slot::Text("of the event before"); plan.dimensions()];
        let mut numbers = vec![Some(1.0); plan.numerics()];
        let event = record::read(&value, &mut parts).unwrap();
        plan.fill(&event, &parts, &mut slots, &mut numbers);
        let text = |slot: &Slot<'_>| match slot {
            Slot::Missing => None,
            Slot::Text(text) => Some((*text).to_owned()),
            Slot::Number(number) => Some(number_text(*number)),
        };
        (slots.iter().map(text).collect(), numbers)
    }

    fn properties(fields: impl IntoIterator<Item = (&'static str, Kind)>) -> proto::Event {
        let value = |kind| prost_types::Value { kind: Some(kind) };
        let fields = fields.into_iter().map(|(key, kind)| (key.to_owned(), value(kind))).collect();
        proto::Event { properties: Some(Struct { fields }), ..Default::default() }
    }

    #[test]
    fn every_field_goes_to_its_slot() {
        let own = ["event_name", "event_type", "user_id", "anonymous_id", "session_id", "install_id"];
        let own = own.map(|name| Field::parse(name).unwrap());
        let context = ContextField::ALL.iter().map(|field| Field::Context(*field));
        let fields: Vec<Field> = own.into_iter().chain(context).collect();
        let text = |name: &str| name.to_owned();
        let mut event = proto::Event {
            event_name: text("event_name"),
            event_type: proto::EventType::Page.into(),
            user_id: text("user_id"),
            anonymous_id: text("anonymous_id"),
            session_id: text("session_id"),
            install_id: text("install_id"),
            ..Default::default()
        };
        let context = event.context.get_or_insert_default();
        for field in ContextField::ALL {
            *field.of_mut(context) = format!("context.{}", field.path());
        }
        let expected = |field: &Field| match field {
            Field::EventType => Some("PAGE".to_owned()),
            other => Some(other.to_string()),
        };
        let (texts, numbers) = filled(event, &fields);
        assert_eq!(texts, fields.iter().map(expected).collect::<Vec<_>>());
        assert_eq!(numbers, vec![None; fields.len()]);
        let (texts, _) = filled(proto::Event::default(), &fields);
        let track = |field: &Field| (*field == Field::EventType).then(|| "TRACK".to_owned());
        assert_eq!(texts, fields.iter().map(track).collect::<Vec<_>>(), "nothing is left of an event before");
    }

    #[test]
    fn properties_are_texts_and_numbers_by_their_kind() {
        let list = Kind::ListValue(ListValue { values: vec![] });
        for (kind, text, number) in [
            (Kind::StringValue("x".to_owned()), Some("x"), None),
            (Kind::StringValue(String::new()), Some(""), None),
            (Kind::NumberValue(1.5), Some("1.5"), Some(1.5)),
            (Kind::NumberValue(f64::INFINITY), None, None),
            (Kind::BoolValue(true), Some("true"), None),
            (Kind::BoolValue(false), Some("false"), None),
            (Kind::NullValue(0), None, None),
            (list, None, None),
        ] {
            // A name as long as the wanted one, and one that is much longer.
            let others = [("wantee", Kind::NumberValue(7.0)), (LONG, Kind::NumberValue(8.0))];
            let event = properties(others.into_iter().chain([("wanted", kind.clone())]));
            let (texts, numbers) = filled(event, &[Field::Property("wanted".to_owned())]);
            assert_eq!((texts[0].as_deref(), numbers[0]), (text, number), "{kind:?}");
        }
        let (texts, numbers) =
            filled(properties([(LONG, Kind::NumberValue(8.0))]), &[Field::Property(LONG.to_owned())]);
        assert_eq!((texts[0].as_deref(), numbers[0]), (Some("8"), Some(8.0)));
    }

    const LONG: &str =
        "a name of a property that is longer than sixty-three bytes, so that its length has no bit";

    #[test]
    fn a_dot_descends_into_structs_unless_the_whole_name_is_a_key() {
        let number = |number| prost_types::Value { kind: Some(Kind::NumberValue(number)) };
        let object = |fields: Vec<(&str, prost_types::Value)>| {
            let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            prost_types::Value { kind: Some(Kind::StructValue(Struct { fields })) }
        };
        let cart = || object(vec![("total", number(5.0)), ("size", object(vec![("width", number(7.0))]))]);
        let total = |properties: prost_types::Value, field: &str| {
            let Some(Kind::StructValue(properties)) = properties.kind else { unreachable!() };
            let event = proto::Event { properties: Some(properties), ..proto::Event::default() };
            let bytes = proto::EventRecord { event: Some(event), ..Default::default() }.encode_to_vec();
            let mut parts = Parts::default();
            let event = record::read(&bytes, &mut parts).unwrap();
            let field = Field::parse(field).unwrap();
            let plan = Plan::new(std::slice::from_ref(&field), std::slice::from_ref(&field));
            let (mut slots, mut numbers) = ([Slot::Missing], [None]);
            plan.fill(&event, &parts, &mut slots, &mut numbers);
            numbers[0]
        };
        assert_eq!(total(object(vec![("cart", cart())]), "cart.total"), Some(5.0));
        assert_eq!(total(object(vec![("cart", cart())]), "cart.size.width"), Some(7.0));
        assert_eq!(total(object(vec![("cart", cart())]), "cart.size"), None);
        assert_eq!(total(object(vec![("cart", cart())]), "cart.total.x"), None);
        assert_eq!(
            total(object(vec![("cart", cart()), ("cart.total", number(6.0))]), "cart.total"),
            Some(6.0)
        );
        assert_eq!(total(object(vec![("cart", number(1.0))]), "cart.total"), None);
    }
}
