//! Names of the parts of an event, as questions and definitions write them: `event_name`, `context.os.name`,
//! `properties.platform`, or `platform` for short.

use std::fmt;

use weir_proto::event::v1::{Context, EventType};

use crate::Error;

/// Longest name of a field, bytes: the limit of `Condition.field` in `weir/analytics/v1/query.proto`.
pub const MAX_BYTES: usize = 400;

/// A part of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `event_name`.
    EventName,
    /// `event_type`.
    EventType,
    /// `user_id`.
    UserId,
    /// `anonymous_id`.
    AnonymousId,
    /// `session_id`.
    SessionId,
    /// `install_id`.
    InstallId,
    /// `context.` and the path within the context.
    Context(ContextField),
    /// `properties.` and the key. A key with dots is taken whole where an event has it; else each dot descends into an object:
    /// `cart.total` is 5 in `{"cart": {"total": 5}}`.
    Property(String),
}

/// The one list of the texts within `weir.event.v1.Context`: variant, path, field numbers in `Context` and in the message
/// there (0: the field is a text itself), and the fields of the generated structs.
macro_rules! context_fields {
    ($($variant:ident $path:literal $numbers:tt $outer:ident $($inner:ident)?;)*) => {
        /// A text within `weir.event.v1.Context`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is the path that `ContextField::path` gives, documented in event.proto")]
        pub enum ContextField {
            $($variant,)*
        }

        impl ContextField {
            /// Every one of them.
            pub const ALL: &[ContextField] = &[$(ContextField::$variant,)*];

            /// The path within the context, such as `os.name`.
            pub const fn path(self) -> &'static str {
                match self {
                    $(ContextField::$variant => $path,)*
                }
            }

            /// Field numbers in `Context` and in the message there; the second is 0 where the field is a text itself.
            pub const fn numbers(self) -> (u8, u8) {
                match self {
                    $(ContextField::$variant => $numbers,)*
                }
            }

            /// The text with these [`numbers`](Self::numbers).
            pub const fn at(numbers: (u8, u8)) -> Option<ContextField> {
                match numbers {
                    $($numbers => Some(ContextField::$variant),)*
                    _ => None,
                }
            }

            /// The text in a context; `None` when it has no such message, empty when the message has no such text.
            pub fn of(self, context: &Context) -> Option<&str> {
                match self {
                    $(ContextField::$variant => context_fields!(@of context $outer $($inner)?),)*
                }
            }

            /// The place of the text in a context, which gets the message that holds it if it has none.
            pub fn of_mut(self, context: &mut Context) -> &mut String {
                match self {
                    $(ContextField::$variant => context_fields!(@of_mut context $outer $($inner)?),)*
                }
            }
        }
    };
    (@of $context:ident $text:ident) => { Some(&$context.$text) };
    (@of $context:ident $message:ident $text:ident) => { $context.$message.as_ref().map(|message| &*message.$text) };
    (@of_mut $context:ident $text:ident) => { &mut $context.$text };
    (@of_mut $context:ident $message:ident $text:ident) => { &mut $context.$message.get_or_insert_default().$text };
}

context_fields! {
    AppName "app.name" (1, 1) app name;
    AppVersion "app.version" (1, 2) app version;
    AppBuild "app.build" (1, 3) app build;
    DeviceType "device.type" (2, 1) device r#type;
    DeviceManufacturer "device.manufacturer" (2, 2) device manufacturer;
    DeviceModel "device.model" (2, 3) device model;
    OsName "os.name" (3, 1) os name;
    OsVersion "os.version" (3, 2) os version;
    Locale "locale" (4, 0) locale;
    PageUrl "page.url" (5, 1) page url;
    PagePath "page.path" (5, 2) page path;
    PageTitle "page.title" (5, 3) page title;
    Referrer "referrer" (6, 0) referrer;
    CampaignSource "campaign.source" (7, 1) campaign source;
    CampaignMedium "campaign.medium" (7, 2) campaign medium;
    CampaignName "campaign.name" (7, 3) campaign name;
    CampaignTerm "campaign.term" (7, 4) campaign term;
    CampaignContent "campaign.content" (7, 5) campaign content;
    Ip "ip" (8, 0) ip;
    UserAgent "user_agent" (9, 0) user_agent;
}

impl ContextField {
    /// The field at a path within the context.
    pub fn parse(path: &str) -> Option<ContextField> {
        ContextField::ALL.iter().copied().find(|field| field.path() == path)
    }
}

/// The text of [`Field::EventType`]: the schema's name without its prefix, such as `TRACK`. Unspecified means `TRACK`; a type
/// of a newer schema has none.
pub fn event_type_text(number: i32) -> Option<&'static str> {
    match EventType::try_from(number) {
        Ok(EventType::Unspecified | EventType::Track) => Some("TRACK"),
        Ok(EventType::Page) => Some("PAGE"),
        Ok(EventType::Screen) => Some("SCREEN"),
        Ok(EventType::Identify) => Some("IDENTIFY"),
        Ok(EventType::Group) => Some("GROUP"),
        Ok(EventType::Alias) => Some("ALIAS"),
        Err(_) => None,
    }
}

/// Appends the text of a finite number as dimensions and filters know it: as many digits as are needed to tell it from its
/// neighbours, no fraction if it is whole, an exponent from 1e16 on and below 1e-4; -0 is 0.
pub fn write_number(number: f64, text: &mut String) {
    use fmt::Write as _;
    write!(text, "{:?}", number + 0.0).expect("writing to a String cannot fail");
    if text.ends_with(".0") {
        text.truncate(text.len() - 2);
    }
}

/// The text that [`write_number`] appends.
pub fn number_text(number: f64) -> String {
    let mut text = String::new();
    write_number(number, &mut text);
    text
}

impl Field {
    /// Reads a name. A bare name that is no field of an event is short for `properties.` and that name.
    ///
    /// # Errors
    /// [`Error::Field`] for an empty or overlong name and for a path that the context does not have.
    pub fn parse(name: &str) -> Result<Field, Error> {
        let refuse = |problem: String| {
            let shown = name.chars().take(80).collect();
            Err(Error::Field { name: shown, problem })
        };
        if name.len() > MAX_BYTES {
            return refuse(format!("names have at most {MAX_BYTES} bytes"));
        }
        match name {
            "" => refuse("write a name such as `event_name` or `properties.plan`".to_owned()),
            "event_name" => Ok(Field::EventName),
            "event_type" => Ok(Field::EventType),
            "user_id" => Ok(Field::UserId),
            "anonymous_id" => Ok(Field::AnonymousId),
            "session_id" => Ok(Field::SessionId),
            "install_id" => Ok(Field::InstallId),
            "context" | "properties" => refuse(format!("say which, as in `{name}.…`")),
            _ => {
                if let Some(path) = name.strip_prefix("context.") {
                    return match ContextField::parse(path) {
                        Some(field) => Ok(Field::Context(field)),
                        None => {
                            let known: Vec<_> = ContextField::ALL.iter().map(|field| field.path()).collect();
                            refuse(format!("the context has {}", known.join(", ")))
                        }
                    };
                }
                match name.strip_prefix("properties.") {
                    Some("") => refuse("a key must follow, as in `properties.plan`".to_owned()),
                    Some(key) => Ok(Field::Property(key.to_owned())),
                    None => Ok(Field::Property(name.to_owned())),
                }
            }
        }
    }
}

/// The canonical name: [`Field::parse`] gives the same field back.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::EventName => f.write_str("event_name"),
            Field::EventType => f.write_str("event_type"),
            Field::UserId => f.write_str("user_id"),
            Field::AnonymousId => f.write_str("anonymous_id"),
            Field::SessionId => f.write_str("session_id"),
            Field::InstallId => f.write_str("install_id"),
            Field::Context(field) => write!(f, "context.{}", field.path()),
            Field::Property(key) => write!(f, "properties.{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bare_names_are_short_for_properties() {
        assert_eq!(Field::parse("platform"), Field::parse("properties.platform"));
        assert_eq!(Field::parse("a.b").unwrap().to_string(), "properties.a.b");
        assert_eq!(Field::parse("properties.event_name").unwrap(), Field::Property("event_name".to_owned()));
    }

    #[test]
    fn wrong_names_say_what_to_write() {
        for (name, hint) in [
            ("", "write a name"),
            ("context", "context.…"),
            ("context.os", "os.name"),
            ("properties.", "a key must follow"),
        ] {
            let error = Field::parse(name).unwrap_err().to_string();
            assert!(error.contains(hint), "{name}: {error}");
        }
        assert!(Field::parse(&"x".repeat(MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn context_fields_keep_their_canonical_names() {
        for field in ContextField::ALL {
            let field = Field::Context(*field);
            assert_eq!(Field::parse(&field.to_string()), Ok(field));
        }
    }

    #[test]
    fn context_fields_are_found_by_number_and_by_name_alike() {
        for field in ContextField::ALL {
            let mut context = Context::default();
            *field.of_mut(&mut context) = field.path().to_owned();
            assert_eq!(field.of(&context), Some(field.path()));
            let others = ContextField::ALL.iter().filter(|other| *other != field);
            assert!(others.into_iter().all(|other| other.of(&context).is_none_or(str::is_empty)));
            // A text is tag, length and bytes; the numbers are below 16, so that the tag is one byte.
            let (outer, inner) = field.numbers();
            assert_eq!(ContextField::at((outer, inner)), Some(*field));
            let tagged = |number: u8, bytes: &[u8]| {
                let head = [number << 3 | 2, bytes.len() as u8];
                [head.as_slice(), bytes].concat()
            };
            let text = field.path().as_bytes();
            let wire = if inner == 0 { tagged(outer, text) } else { tagged(outer, &tagged(inner, text)) };
            assert_eq!(prost::Message::encode_to_vec(&context), wire, "{}", field.path());
        }
    }

    #[test]
    fn numbers_have_one_text() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (7.0, "7"),
            (-1.5, "-1.5"),
            (1e15, "1000000000000000"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1e16, "1e16"),
            (1e-4, "0.0001"),
            (3e-5, "3e-5"),
        ] {
            assert_eq!(number_text(number), expected);
        }
    }

    proptest! {
        #[test]
        fn canonical_names_parse_to_the_same_field(name in "(properties\\.)?[a-z_.]{1,20}") {
            if let Ok(field) = Field::parse(&name) {
                prop_assert_eq!(Field::parse(&field.to_string()), Ok(field));
            }
        }
    }
}
