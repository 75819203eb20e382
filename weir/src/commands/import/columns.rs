//! Where each part of an event comes from: `--map TARGET=COLUMN`, and what fills a target.

use std::{fmt, str::FromStr};

use prost_types::{Struct, Value, value::Kind};
use uuid::Uuid;
use weir_proto::{
    event::v1::{Event, EventType},
    time,
};
use weir_rollup::field::ContextField;

use super::{
    json, lines,
    times::{self, Format},
    types::Evidence,
};
use crate::{moment, money};

/// A part of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    EventId,
    EventName,
    EventType,
    UserId,
    AnonymousId,
    SessionId,
    InstallId,
    Sequence,
    EventTime,
    /// Amount, in this currency; without one, in that of the target `Currency`.
    Revenue(Option<String>),
    Currency,
    Context(ContextField),
    Property(String),
    /// All properties, as a JSON object.
    Properties,
    /// The client's time beside [`Target::EventTime`] as the server corrected it, in an export of Weir's.
    ClientTime,
}

/// Names of the targets that are not open.
const NAMES: &[(&str, Target)] = &[
    ("event_id", Target::EventId),
    ("event_name", Target::EventName),
    ("event_type", Target::EventType),
    ("user_id", Target::UserId),
    ("anonymous_id", Target::AnonymousId),
    ("session_id", Target::SessionId),
    ("install_id", Target::InstallId),
    ("sequence", Target::Sequence),
    ("event_time", Target::EventTime),
    ("revenue", Target::Revenue(None)),
    ("currency", Target::Currency),
    ("properties", Target::Properties),
];

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revenue(Some(code)) => write!(f, "revenue in {code}"),
            Self::Context(field) => write!(f, "context.{}", field.path()),
            Self::Property(key) => write!(f, "properties.{key}"),
            Self::ClientTime => f.write_str("the client's time"),
            other => {
                let named = NAMES.iter().find(|(_, target)| target == other);
                f.write_str(named.map_or("", |(name, _)| name))
            }
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, target)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(target.clone());
        }
        let target = match text.split_once('.') {
            Some(("properties", key)) if !key.is_empty() => Some(Self::Property(key.to_owned())),
            Some(("context", path)) => ContextField::parse(path).map(Self::Context),
            _ => None,
        };
        target.ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!(
                "`{text}` is no part of an event; expected {}, context.PATH or properties.KEY",
                names.join(", ")
            )
        })
    }
}

/// `--map TARGET=COLUMN`; `revenue=COLUMN:USD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) target: Target,
    pub(crate) column: String,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, column) = text
            .split_once('=')
            .filter(|(_, column)| !column.is_empty())
            .ok_or_else(|| format!("`{text}`: expected TARGET=COLUMN, such as user_id=customer"))?;
        let mut mapping = Self { target: target.trim().parse()?, column: column.to_owned() };
        if mapping.target == Target::Revenue(None)
            && let Some((column, code)) = column.rsplit_once(':')
        {
            mapping =
                Self { target: Target::Revenue(Some(money::currency(code)?)), column: column.to_owned() };
        }
        Ok(mapping)
    }
}

/// `--value TARGET=TEXT`: the same for every event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Constant {
    pub(crate) target: Target,
    pub(crate) text: String,
}

impl FromStr for Constant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, text) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}`: expected TARGET=TEXT, such as event_name=purchase"))?;
        Ok(Self { target: target.trim().parse()?, text: text.to_owned() })
    }
}

/// The target that a column fills by its own name, if any: `user_id`, `userId`, `User ID`. Money needs its currency and is
/// never guessed; properties are read as JSON only on request.
pub(crate) fn by_name(column: &str) -> Option<Target> {
    let mut name = String::with_capacity(column.len() + 4);
    let mut previous_lower = false;
    for c in column.trim().chars() {
        if c.is_uppercase() && previous_lower {
            name.push('_');
        }
        previous_lower = c.is_lowercase();
        name.extend(if matches!(c, ' ' | '-') { '_' } else { c }.to_lowercase());
    }
    let (_, target) = NAMES.iter().find(|(known, _)| *known == name)?;
    (!matches!(target, Target::Revenue(_) | Target::Currency | Target::Properties)).then(|| target.clone())
}

/// How cells are read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) time_format: Format,
    pub(crate) zone: jiff::tz::TimeZone,
}

/// Namespace of the ids made from what a file has as ids: any random UUID, for ever the same.
const IDS: Uuid = Uuid::from_u128(0x8c3e_51f0_2b7a_4d0e_9d6f_1a42_77c0_35be);

/// Puts the text of a cell into the event. An empty cell is no value.
pub(crate) fn fill(event: &mut Event, target: &Target, text: &str, reading: &Reading) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let own = || text.to_owned();
    match target {
        Target::EventId => {
            // Whatever identifies a row elsewhere becomes a UUID, the same each time.
            event.event_id =
                Uuid::parse_str(text).unwrap_or_else(|_| Uuid::new_v5(&IDS, text.as_bytes())).to_string();
        }
        Target::EventName => event.event_name = own(),
        Target::EventType => {
            let name = format!("EVENT_TYPE_{}", text.trim_start_matches("EVENT_TYPE_").to_ascii_uppercase());
            let kind = EventType::from_str_name(&name).ok_or_else(|| {
                format!("event_type `{text}`: expected track, page, screen, identify, group or alias")
            })?;
            event.event_type = kind.into();
        }
        Target::UserId => event.user_id = own(),
        Target::AnonymousId => event.anonymous_id = own(),
        Target::SessionId => event.session_id = own(),
        Target::InstallId => event.install_id = own(),
        Target::Sequence => {
            event.sequence =
                text.trim().parse().map_err(|_| format!("sequence `{text}` is no whole number"))?;
        }
        Target::EventTime => {
            let time = times::read(text, &reading.time_format, &reading.zone);
            event.event_time = Some(moment::to_proto(time.map_err(|error| format!("event_time: {error}"))?));
        }
        Target::ClientTime => {
            let time = times::read(text, &Format::Auto, &reading.zone);
            let client = moment::to_proto(time.map_err(|error| format!("client_time: {error}"))?);
            // The same correction again makes the same time of it.
            let corrected = event.event_time.replace(client);
            event.clock_offset = corrected.as_ref().and_then(|corrected| clock_offset(&client, corrected));
        }
        Target::Revenue(code) => {
            // Without a currency yet, the target `Currency` adds it; the order of columns does not matter.
            let known = event.revenue.take().map(|money| money.currency_code).unwrap_or_default();
            let code = code.as_deref().unwrap_or(&known);
            event.revenue = Some(money::amount(text, code).map_err(|error| format!("revenue: {error}"))?);
        }
        Target::Currency => {
            event.revenue.get_or_insert_default().currency_code =
                money::currency(text).map_err(|error| format!("currency: {error}"))?;
        }
        Target::Context(field) => *field.of_mut(event.context.get_or_insert_default()) = own(),
        Target::Property(key) => set_property(event, key, typed(text)),
        Target::Properties => {
            let fields = json::object(text.as_bytes()).map_err(|error| format!("properties: {error}"))?;
            add_properties(event, lines::properties(fields));
        }
    }
    Ok(())
}

/// What makes the server correct a client's time as it was corrected before; nothing where it was not.
pub(crate) fn clock_offset(
    client: &prost_types::Timestamp,
    corrected: &prost_types::Timestamp,
) -> Option<prost_types::Duration> {
    (client != corrected).then(|| time::duration(time::micros(corrected) - time::micros(client)))
}

/// Adds properties to those that there are.
pub(crate) fn add_properties(event: &mut Event, properties: Struct) {
    event.properties.get_or_insert_with(Struct::default).fields.extend(properties.fields);
}

/// A text that is a value as it is.
pub(crate) fn string(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// Adds a property.
pub(crate) fn set_property(event: &mut Event, key: &str, value: Value) {
    event.properties.get_or_insert_with(Struct::default).fields.insert(key.to_owned(), value);
}

/// A value alone, told by its look: `10` and `5.00` are numbers, `true` and `FALSE` truth values, `007` and everything else text.
pub(crate) fn typed(text: &str) -> Value {
    let mut evidence = Evidence::default();
    evidence.add(text);
    evidence.column_type().value(text).unwrap_or_else(|| string(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading { time_format: Format::Auto, zone: jiff::tz::TimeZone::UTC }
    }

    #[test]
    fn mappings_are_read() {
        let mapping = |text: &str| text.parse::<Mapping>().unwrap();
        assert_eq!(
            mapping("user_id=customer"),
            Mapping { target: Target::UserId, column: "customer".into() }
        );
        let revenue = Mapping { target: Target::Revenue(Some("USD".into())), column: "total: net".into() };
        assert_eq!(mapping("revenue=total: net:usd"), revenue);
        assert_eq!(mapping("context.os.name=system").target, Target::Context(ContextField::OsName));
        assert_eq!(mapping("properties.a.b=c").target, Target::Property("a.b".into()));
        for text in ["user_id", "user_id=", "usr=a", "context.os=a", "properties.=a", "revenue=a:EURO"] {
            assert!(text.parse::<Mapping>().is_err(), "{text}");
        }
    }

    #[test]
    fn columns_are_known_by_their_names() {
        for name in ["user_id", "userId", "User ID", "USER-ID", " user_id "] {
            assert_eq!(by_name(name), Some(Target::UserId), "{name}");
        }
        for name in ["user", "revenue", "currency", "properties", "id", ""] {
            assert_eq!(by_name(name), None, "{name}");
        }
    }

    #[test]
    fn every_target_without_money_is_a_field_of_the_event() {
        let fields = crate::protojson::field_names::<Event>();
        for (name, target) in NAMES {
            assert!(fields.iter().any(|field| field == name) || *target == Target::Currency, "{name}");
        }
    }

    #[test]
    fn a_value_alone_is_typed_by_its_look() {
        let kinds = ["10", "5.00", "007", "1e3", "TRUE", "2024-01", ""].map(|text| typed(text).kind.unwrap());
        assert_eq!(kinds[0], Kind::NumberValue(10.0));
        assert_eq!(kinds[1], Kind::NumberValue(5.0));
        assert_eq!(kinds[3], Kind::NumberValue(1000.0));
        assert_eq!(kinds[4], Kind::BoolValue(true));
        for index in [2, 5, 6] {
            assert!(matches!(kinds[index], Kind::StringValue(_)), "{:?}", kinds[index]);
        }
    }

    #[test]
    fn properties_come_as_json_too() {
        let mut event = Event::default();
        fill(&mut event, &Target::Properties, r#"{"a":1,"b":[null,""]}"#, &reading()).unwrap();
        fill(&mut event, &Target::Property("c".into()), "5.00", &reading()).unwrap();
        assert_eq!(event.properties.unwrap().fields.len(), 3);
        assert!(fill(&mut Event::default(), &Target::Properties, "[1]", &reading()).is_err());
    }

    #[test]
    fn amount_and_currency_come_in_either_order() {
        let amount = (Target::Revenue(None), "9.99");
        let code = (Target::Currency, "eur");
        let filled = [[&amount, &code], [&code, &amount]].map(|order| {
            let mut event = Event::default();
            for (target, text) in order {
                fill(&mut event, target, text, &reading()).unwrap();
            }
            event.revenue.unwrap()
        });
        assert_eq!(filled[0], filled[1]);
        assert_eq!((filled[0].currency_code.as_str(), filled[0].units), ("EUR", 9));
    }

    #[test]
    fn a_bad_cell_says_what_it_should_be() {
        for (target, text) in [
            (Target::EventTime, "soon"),
            (Target::Sequence, "-1"),
            (Target::EventType, "click"),
            (Target::Revenue(Some("USD".into())), "free"),
        ] {
            assert!(
                fill(&mut Event::default(), &target, text, &reading()).unwrap_err().contains(text),
                "{text}"
            );
        }
    }

    #[test]
    fn foreign_ids_become_the_same_uuid_each_time() {
        let id = |text: &str| {
            let mut event = Event::default();
            fill(&mut event, &Target::EventId, text, &reading()).unwrap();
            event.event_id
        };
        assert_eq!(id("row-1"), id("row-1"));
        assert_ne!(id("row-1"), id("row-2"));
        assert_eq!(id("0192D3A0-0000-7000-8000-000000000001"), "0192d3a0-0000-7000-8000-000000000001");
    }
}
